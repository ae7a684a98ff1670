"""What the account table does between full sweeps: ticks, fills, and how much memory it takes.

All of it on a table that was filled event by event, as a daemon fills it, so that room to grow and everything beside the arrays
counts as well.
"""

from __future__ import annotations

import gc
import itertools
import tracemalloc

import numpy as np

from connectors.events import Instrument, Instruments, Trade
from monitor.engine import NS, Engine
from monitor.engine_settings import EngineSettings
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.state.fills import Fill
from tests.bench.population import Population, account_events, account_name, draw_population
from tests.bench.report import Row
from tests.bench.rounds import Prepare, Run, always, interleave, timing_rows
from tests.bench.wire import symbols

VENUE = "hyperliquid"
POSITIONS = 1_000_000
ROUNDS = 15

FILLS = 10_000
"""In one burst; half as many trades, as each has two sides."""

FILL_RATIO = 1e-4
"""Size of a fill as a share of the position that it changes: all positions survive all rounds."""

TICK_RATIO = 1e-4

TICK_TARGET_RATIO = 0.1
"""Of a full sweep."""

BYTES_TARGET = 100.0

START_NS = 1_790_000_000 * NS


def measure(*, quick: bool = False) -> list[Row]:
    """Measure one table: first what it takes, as it is filled, then what is done to it."""
    population = draw_population(3_000 if quick else POSITIONS)
    engine = _engine(population)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    _fill(engine, population)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    positions, accounts = population.size.size, population.cash_usd.size
    title = f"{positions:,} positions, {accounts:,} accounts"
    return [
        *_memory_rows(f"memory of the account table: {title}", engine, held, positions),
        *_timing_rows(f"between sweeps: {title}", engine, population, 2 if quick else ROUNDS),
    ]


def _engine(population: Population) -> Engine:
    """Return an engine that knows the markets and their marks, and no account."""
    names = symbols(population.price.size)
    settings = EngineSettings(
        symbols={VENUE: tuple(names)},
        projection=ProjectionSettings(),
        staleness=StalenessSettings(),
        accounts_max=population.cash_usd.size,
    )
    engine = Engine(settings)
    instruments = tuple(Instrument(symbol, tiers) for symbol, tiers in zip(names, population.tiers, strict=True))
    engine.apply(Instruments(venue=VENUE, connection="rest", received_ns=START_NS, instruments=instruments))
    return engine


def _fill(engine: Engine, population: Population) -> None:
    for event in account_events(population, VENUE, symbols(population.price.size), START_NS):
        engine.apply(event)
    for market, price in enumerate(population.price.tolist()):
        engine.accounts.legs.set_price(market, price)
    engine.accounts.legs.sweep()


def _memory_rows(section: str, engine: Engine, held: int, positions: int) -> list[Row]:
    accounts = engine.accounts

    def row(what: str, size: int, note: str) -> Row:
        return Row(section=section, what=what, median=size / positions, unit="B/position", target=BYTES_TARGET, note=note)

    per_account = (held - accounts.nbytes) / accounts.account_count
    return [
        row("arrays of positions", accounts.legs.nbytes, "with the sums of their accounts, and room to grow"),
        row("all arrays", accounts.nbytes, "with the standing of the accounts"),
        row(
            "everything", held, f"as allocated; names of 42 characters and what leads to them take {per_account:.0f} B per account"
        ),
    ]


def _timing_rows(section: str, engine: Engine, population: Population, rounds: int) -> list[Row]:
    legs = engine.accounts.legs
    counts = np.bincount(population.market, minlength=population.price.size)
    largest, median = int(counts.argmax()), int(np.argsort(counts)[counts.size // 2])
    bursts = Bursts(engine, population)
    steps: dict[str, Prepare] = {
        "full sweep": always(legs.sweep),
        "tick of the largest market": always(_ticking(engine, largest)),
        "tick of a market of median size": always(_ticking(engine, median)),
        f"burst of {FILLS:,} fills, into the table": bursts.fills,
        f"the same as {FILLS // 2:,} trades, through the engine": bursts.trades,
    }
    times = interleave(steps, rounds)
    drift = legs.sweep()
    changes = engine.changes
    per_fill = {name: f"{min(seconds) / FILLS * 1e6:.2f} us per fill at best" for name, seconds in times.items()}
    outcome = f"{changes.unexplained} unexplained, {changes.contradicted} contradicted; drift of the sums {drift.largest_ratio:.1g}"
    fills, trades = list(times)[3:]
    return timing_rows(
        section,
        times,
        floor="full sweep",
        scale=1e3,
        unit="ms",
        targets={"tick of the largest market": TICK_TARGET_RATIO},
        notes={
            "tick of the largest market": f"{counts[largest]:,} positions",
            "tick of a market of median size": f"{counts[median]:,} positions",
            fills: per_fill[fills],
            trades: f"{per_fill[trades]}; {outcome}",
        },
    )


def _ticking(engine: Engine, market: int) -> Run:
    """Return a step that moves the price of a market to and fro."""
    legs = engine.accounts.legs
    prices = itertools.cycle((legs.price_of(market) * (1.0 + TICK_RATIO), legs.price_of(market)))
    return lambda: legs.set_price(market, next(prices))


class Bursts:
    """Bursts of fills in positions that are known, a second after one another."""

    def __init__(self, engine: Engine, population: Population) -> None:
        self._engine = engine
        self._names = symbols(population.price.size)
        self._now_ns = START_NS
        self._trade_id = 0
        random = np.random.default_rng(7)
        # Two accounts of one market each: neighbours after sorting the positions that are drawn by market.
        drawn = random.choice(population.size.size, min(FILLS * 2, population.size.size), replace=False)
        drawn = drawn[np.argsort(population.market[drawn], kind="stable")]
        one, other = drawn[:-1], drawn[1:]
        pairs = np.flatnonzero(population.market[one] == population.market[other])[::2]
        pairs = np.resize(random.permutation(pairs), FILLS // 2)
        one, other = one[pairs], other[pairs]
        size = np.minimum(np.abs(population.size[one]), np.abs(population.size[other])) * FILL_RATIO
        market = population.market[one]
        self._drawn = list(
            zip(
                map(account_name, population.account[one].tolist()),
                map(account_name, population.account[other].tolist()),
                market.tolist(),
                size.tolist(),
                population.price[market].tolist(),
                strict=True,
            )
        )

    def fills(self) -> Run:
        """Prepare a burst for the table."""
        self._now_ns += NS
        now_ns, apply_fill = self._now_ns, self._engine.changes.apply_fill
        fills = [
            (account, Fill(now_ns, market, signed, price))
            for buyer, seller, market, size, price in self._drawn
            for account, signed in ((buyer, size), (seller, -size))
        ]

        def run() -> None:
            for account, fill in fills:
                apply_fill(VENUE, account, fill, now_ns)

        return run

    def trades(self) -> Run:
        """Prepare the same burst for the engine."""
        self._now_ns += NS
        apply = self._engine.apply
        trades = []
        for buyer, seller, market, size, price in self._drawn:
            self._trade_id += 1
            trades.append(
                Trade(
                    venue=VENUE,
                    connection="main",
                    received_ns=self._now_ns,
                    symbol=self._names[market],
                    exchange_ns=self._now_ns,
                    price=price,
                    size=size,
                    aggressor="buy",
                    trade_id=self._trade_id,
                    buyer=buyer,
                    seller=seller,
                )
            )

        def run() -> None:
            for trade in trades:
                apply(trade)

        return run
