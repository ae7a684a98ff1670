"""A hundred thousand accounts through a crash: whatever the monitor calls live is what the exchange itself has on its books.

The exchange is simulated and shares no code with the monitor. Time is virtual and there are no sockets, but every byte is what the
venue would send: the monitor's venue file parses the lines that an own node writes for every block, the marks, and the answers to
the accounts that the engine asks for, so many a second. One run feeds all tests; every ten seconds of it all accounts are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from connectors.frames import REST_CONNECTION, Frame, RestRequest, wrap_rest_response
from connectors.hyperliquid import Hyperliquid
from connectors.hyperliquid_node import NODE_CONNECTION
from connectors.simulated.account_messages import clearinghouse_state
from connectors.simulated.info import Info, WeightBudget
from connectors.simulated.liquidation import PARTIAL_ABOVE_USD, PARTIAL_DIVISOR
from connectors.simulated.liquidation_price import liquidation_prices
from connectors.simulated.market_messages import context_data
from connectors.simulated.markets import MICROS_PER_USD
from connectors.simulated.node_output import block_line
from connectors.simulated.population import HUNDRED_THOUSAND
from connectors.simulated.simulation import Simulation, SimulationConfig
from connectors.venue import AccountQuestion, VenueSettings
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.triggers import find_triggers, value_legs

# A minute of computing on one core; the machine may have other things to do.
pytestmark = pytest.mark.timeout(400)

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

VENUE: Final = Hyperliquid()
MILLISECOND_NS: Final = 1_000_000

BLOCK_MS: Final = 500
RUN_S: Final = 225
"""25 s of calm, 75 s of falling, and until the recovery is over."""
COMPARE_EVERY_S: Final = 10

POLLS_PER_S: Final = 100
"""Questions that an own node's info server answers over one connection at 10 ms each."""

TOLERANCE_RATIO: Final = 1e-6
TOLERANCE_USD: Final = 0.01


class AccountFigures(NamedTuple):
    """What one side says of all accounts; shape (accounts,), and (accounts, markets) for positions.

    NaN is where there is nothing: no isolated position, no liquidation price.
    """

    cross_equity_usd: Floats
    cross_maintenance_usd: Floats
    isolated_equity_usd: Floats
    isolated_maintenance_usd: Floats
    liquidation_price_usd: Floats


class EngineView(NamedTuple):
    """What the engine says, and of which accounts it says that it holds now."""

    live: Booleans
    figures: AccountFigures


# -------------------------------------------------------------------------------------- the monitor's side, and nothing else of it


def new_engine(symbols: tuple[str, ...]) -> Engine:
    return Engine(
        EngineSettings(
            symbols={VENUE.name: symbols},
            projection=ProjectionSettings(),
            staleness=StalenessSettings(),
            accounts_max=150_000,
            node_venues=frozenset({VENUE.name}),
        )
    )


def engine_view(engine: Engine, addresses: Sequence[str], symbols: Sequence[str], now_ns: int) -> EngineView:
    """Read every account out of the engine at the prices it knows; it has been brought up to date by :func:`bring_up_to_date`."""
    table = engine.accounts
    legs = table.legs
    rows = legs.row_count
    main = np.asarray([table.row_of(VENUE.name, address, create=False) or 0 for address in addresses])
    account_of_row = np.zeros(rows, np.int64)
    account_of_row[main] = np.arange(main.size)
    equity_usd = legs.cash_usd[:rows].copy()
    held: list[tuple[NDArray[np.int64], Floats]] = []
    for symbol in symbols:
        market = engine.markets.index_of(VENUE.name, symbol)
        assert market is not None
        column = legs.column(market).legs(market)
        used = column.size != 0.0
        price = np.full(used.size, legs.price_of(market))
        np.add.at(equity_usd, column.account, column.size * price)
        value, trigger = np.empty(used.size), np.empty(used.size)
        value_legs(column, price, legs.tiers, out=value)
        find_triggers(column, price, value, legs.tiers, shock=legs.surplus_usd[column.account], trigger=trigger)
        trigger[~(np.isfinite(trigger) & (trigger > 0.0))] = np.nan
        held.append((column.account[used].astype(np.int64), trigger[used]))
    maintenance_usd = equity_usd - legs.surplus_usd[:rows]
    shape = (main.size, len(symbols))
    isolated_equity, isolated_maintenance, trigger_price = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    for column_index, (row, trigger) in enumerate(held):
        owner = table.main_row[row]
        account = account_of_row[owner]
        trigger_price[account, column_index] = trigger
        isolated = row != owner
        isolated_equity[account[isolated], column_index] = equity_usd[row[isolated]]
        isolated_maintenance[account[isolated], column_index] = maintenance_usd[row[isolated]]
    return EngineView(
        live_accounts(engine, addresses, now_ns),
        AccountFigures(equity_usd[main], maintenance_usd[main], isolated_equity, isolated_maintenance, trigger_price),
    )


def live_accounts(engine: Engine, addresses: Sequence[str], now_ns: int) -> Booleans:
    """Tell which accounts the engine says are known and hold now."""
    table = engine.accounts
    main = np.asarray([table.row_of(VENUE.name, address, create=False) or 0 for address in addresses])
    return np.asarray(table.is_live(main, now_ns, engine.account_age_max_ns), dtype=np.bool_)


def bring_up_to_date(engine: Engine, now_ns: int) -> None:
    """Have the engine take over all marks, as it does before every evaluation."""
    engine.freeze(now_ns)


def questions(engine: Engine, now_ns: int, limit: int) -> Iterator[AccountQuestion]:
    """Ask the engine what it wants to know."""
    for demand in engine.poll_demands(VENUE.name, now_ns, limit, pause_ns=10_000_000_000):
        engine.polls.note_asked(demand, now_ns)
        yield demand.question


# ------------------------------------------------------------------------------------------------------------- the exchange's side


def truth(simulation: Simulation) -> AccountFigures:
    """Read every account out of the exchange."""
    table, marks = simulation.table, simulation.exchange.mark
    margins = table.margins(marks)
    isolated = table.isolated & (table.lots != 0)
    return AccountFigures(
        cross_equity_usd=margins.cross_value / MICROS_PER_USD,
        cross_maintenance_usd=margins.cross_maintenance_usd,
        isolated_equity_usd=np.where(isolated, margins.isolated_value / MICROS_PER_USD, np.nan),
        isolated_maintenance_usd=np.where(isolated, margins.isolated_maintenance_usd, np.nan),
        liquidation_price_usd=np.stack([liquidation_prices(table, market, marks) for market in range(len(marks))], axis=1),
    )


class Wire:
    """Carries what the exchange says to the engine, as the bytes of the venue."""

    def __init__(self, simulation: Simulation, engine: Engine) -> None:
        self.polls = 0
        self.block_number = 0
        self._simulation = simulation
        self._exchange = simulation.exchange
        self._engine = engine
        self._info = Info(simulation.exchange, WeightBudget(None))

    @property
    def now_ns(self) -> int:
        """A frame arrives a moment after its block."""
        return self._exchange.time_ms * MILLISECOND_NS + 150_000_000

    def deliver(self, connection: str, payload: bytes) -> None:
        for event in VENUE.parse(Frame(VENUE.name, connection, self.now_ns, payload)):
            self._engine.apply(event)

    def send_block(self) -> None:
        """Deliver the fills of the last block, and the marks."""
        self.block_number += 1
        self.deliver(NODE_CONNECTION, block_line(self._exchange, self.block_number, local_ns=self.now_ns))
        for market, spec in enumerate(self._exchange.markets):
            data = {"coin": spec.coin, "ctx": context_data(self._exchange, market)}
            self.deliver("main", orjson.dumps({"channel": "activeAssetCtx", "data": data}))

    def answer(self, request: RestRequest, prices_usd: Sequence[Floats] | None = None) -> None:
        """Answer one request from the state after the last block."""
        fields = orjson.loads(request.body)
        if fields["type"] == "clearinghouseState":
            row = self._simulation.table.rows.get(fields["user"])
            answer: object = clearinghouse_state(self._exchange, row, prices_usd)
        else:
            answer = self._info.answer(request.body.encode(), 0.0)
        self.deliver(REST_CONNECTION, wrap_rest_response(request, orjson.dumps(answer)))

    def poll(self, question: AccountQuestion, prices_usd: Sequence[Floats] | None = None) -> None:
        self.polls += 1
        for request in VENUE.account_requests(question):
            self.answer(request, prices_usd)

    def prices_usd(self) -> list[Floats]:
        """Find all liquidation prices at once, which is quicker than one by one for a thousand answers and more."""
        marks = self._exchange.mark
        return [liquidation_prices(self._simulation.table, market, marks) for market in range(len(marks))]


# ---------------------------------------------------------------------------------------------------------------------- comparison


class Comparison(NamedTuple):
    """All accounts at one moment. ``wrong`` are the rows of those that are called live and are not what the exchange has."""

    at_s: float
    live: int
    with_positions: int
    live_with_positions: int
    wrong: dict[str, list[int]]
    largest_equity_error_usd: float


def differs(ours: Floats, theirs: Floats) -> Booleans:
    """Tell where two figures are further apart than a millionth and a cent, or one side has one and the other does not."""
    missing = np.isnan(ours) != np.isnan(theirs)
    with np.errstate(invalid="ignore"):
        apart = np.abs(ours - theirs) > np.maximum(TOLERANCE_USD, TOLERANCE_RATIO * np.abs(theirs))
    return np.asarray(missing | apart, dtype=np.bool_)


def compare(simulation: Simulation, view: EngineView, at_s: float) -> Comparison:
    table, real, ours = simulation.table, truth(simulation), view.figures
    with np.errstate(invalid="ignore", divide="ignore"):
        # Prices are compared by their ratio: a cent is nothing to a Bitcoin and a lot to a small coin.
        price_is_off = np.abs(ours.liquidation_price_usd / real.liquidation_price_usd - 1.0) > TOLERANCE_RATIO
    price_is_off |= np.isnan(ours.liquidation_price_usd) != np.isnan(real.liquidation_price_usd)
    wrong = {
        "cross equity": differs(ours.cross_equity_usd, real.cross_equity_usd),
        "cross maintenance": differs(ours.cross_maintenance_usd, real.cross_maintenance_usd),
        "isolated equity": differs(ours.isolated_equity_usd, real.isolated_equity_usd).any(axis=1),
        "isolated maintenance": differs(ours.isolated_maintenance_usd, real.isolated_maintenance_usd).any(axis=1),
        "liquidation price": price_is_off.any(axis=1),
    }
    has_positions = (table.lots != 0).any(axis=1)
    error_usd = np.abs(ours.cross_equity_usd - real.cross_equity_usd)[view.live]
    return Comparison(
        at_s,
        int(view.live.sum()),
        int(has_positions.sum()),
        int((view.live & has_positions).sum()),
        {name: np.flatnonzero(rows & view.live).tolist() for name, rows in wrong.items()},
        float(error_usd.max(initial=0.0)),
    )


def describe(simulation: Simulation, comparison: Comparison) -> str:
    """Say of the first wrong accounts what they are, for the message of a failing test."""
    table = simulation.table
    closed = {record.account: record.method for record in simulation.engine.records}
    lines = [
        f"{comparison.at_s} s: {name}: row {row} unified={bool(table.unified[row])} positions={len(table.positions(row))} "
        f"isolated={bool(table.isolated[row].any())} closed={closed.get(row)}"
        for name, rows in comparison.wrong.items()
        for row in rows[:5]
    ]
    return "\n".join(lines)


class Evidence(NamedTuple):
    """What one run left behind."""

    simulation: Simulation
    positions_at_start: int
    comparisons: list[Comparison]
    reports: list[str]
    """What was wrong, in words."""
    polls_during_the_run: int
    polls_afterwards: int
    final: Comparison
    outdated: Comparison
    """What the engine said before the crash, held against what was true after it."""


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    config = SimulationConfig(seed=1, scenario="crash", population=HUNDRED_THOUSAND)
    simulation = Simulation(config)
    table, exchange = simulation.table, simulation.exchange
    symbols = tuple(spec.coin for spec in config.markets)
    engine = new_engine(symbols)
    wire = Wire(simulation, engine)
    simulation.step(config.start_ms + BLOCK_MS)
    for request in VENUE.bootstrap(VenueSettings(symbols=symbols)):
        wire.answer(request)
    wire.send_block()
    bring_up_to_date(engine, wire.now_ns)
    prices_usd = wire.prices_usd()
    for row, address in enumerate(table.addresses):
        # What a state means depends on the mode, so that comes first.
        wire.poll(AccountQuestion(address, pools=(), mode=True), prices_usd)
        wire.poll(AccountQuestion(address, balances=bool(table.unified[row])), prices_usd)
    positions_at_start = int((table.lots != 0).sum())
    comparisons: list[Comparison] = []
    reports: list[str] = []

    def look(at_s: float) -> Comparison:
        comparison = compare(simulation, engine_view(engine, table.addresses, symbols, wire.now_ns), at_s)
        reports.append(describe(simulation, comparison))
        return comparison

    bring_up_to_date(engine, wire.now_ns)
    comparisons.append(look(BLOCK_MS / 1_000))
    view_before = engine_view(engine, table.addresses, symbols, wire.now_ns)
    started = wire.polls
    for block in range(2, RUN_S * 1_000 // BLOCK_MS + 1):
        simulation.step(config.start_ms + block * BLOCK_MS)
        wire.send_block()
        if block * BLOCK_MS % 1_000 == 0:
            bring_up_to_date(engine, wire.now_ns)
            for question in questions(engine, wire.now_ns, POLLS_PER_S):
                wire.poll(question)
        if block * BLOCK_MS % (COMPARE_EVERY_S * 1_000) == 0:
            comparisons.append(look(block * BLOCK_MS / 1_000))
    during = wire.polls - started
    # Time stands still until everybody who is not known has been asked for.
    prices_usd = wire.prices_usd()
    for row in np.flatnonzero(~live_accounts(engine, table.addresses, wire.now_ns)).tolist():
        wire.poll(AccountQuestion(table.addresses[row], balances=bool(table.unified[row])), prices_usd)
    final = look(RUN_S)
    assert exchange.time_ms == config.start_ms + RUN_S * 1_000
    afterwards = wire.polls - started - during
    outdated = compare(simulation, view_before, RUN_S)
    return Evidence(simulation, positions_at_start, comparisons, reports, during, afterwards, final, outdated)


# --------------------------------------------------------------------------------------------------------------------------- tests


def test_the_crash_closes_accounts_in_every_way_that_the_venue_has(evidence: Evidence) -> None:
    table, records = evidence.simulation.table, evidence.simulation.engine.records
    kinds = Counter((record.method, record.is_isolated) for record in records)
    unified = Counter(record.method for record in records if table.unified[record.account])
    print(f"{len(records):,} forced closes of {len({record.account for record in records}):,} accounts: {dict(kinds)}")
    assert evidence.simulation.engine.records_total == len(records)
    assert len({record.account for record in records}) > 15_000
    for is_isolated, least in ((False, 400), (True, 100)):
        for method in ("market", "backstop", "deleveraging"):
            assert kinds[method, is_isolated] > least, kinds
    assert min(unified[method] for method in ("market", "backstop", "deleveraging")) > 100, unified
    partial = [
        record
        for record in records
        if record.method == "market"
        and record.lots_before * record.mark > PARTIAL_ABOVE_USD * MICROS_PER_USD
        and 0 < record.lots_closed <= -(-record.lots_before // PARTIAL_DIVISOR)
    ]
    assert len(partial) > 40
    assert {record.is_isolated for record in partial} == {True, False}


def test_what_was_true_before_the_crash_would_be_found_wrong_after_it(evidence: Evidence) -> None:
    assert all(len(rows) > 10_000 for rows in evidence.outdated.wrong.values()), evidence.outdated.wrong.keys()


def test_every_account_is_live_and_right_before_anything_happens(evidence: Evidence) -> None:
    first = evidence.comparisons[0]
    assert first.live == len(evidence.simulation.table)
    assert not any(first.wrong.values()), evidence.reports[0]


def test_no_account_that_is_called_live_is_ever_wrong(evidence: Evidence) -> None:
    assert len(evidence.comparisons) == 1 + RUN_S // COMPARE_EVERY_S
    wrong = [report for report in evidence.reports if report]
    checked = sum(comparison.live for comparison in evidence.comparisons)
    largest_usd = max(comparison.largest_equity_error_usd for comparison in evidence.comparisons)
    print(f"{checked:,} live accounts in {len(evidence.comparisons)} comparisons, largest error of an equity {largest_usd:.2g} USD")
    assert not wrong, "\n".join(wrong)


def test_nearly_all_accounts_stay_live_and_those_that_are_lost_come_back(evidence: Evidence) -> None:
    """What no fill explains, such as the margin of a new isolated position, has to be asked for, a hundred accounts a second."""
    shares = [comparison.live_with_positions / comparison.with_positions for comparison in evidence.comparisons]
    print(f"accounts with positions that were live: at least {min(shares):.1%}, {shares[-1]:.1%} at the end of the run")
    assert shares[0] == 1.0
    assert min(shares) > 0.95, shares
    assert shares[-1] > min(shares)
    assert evidence.polls_during_the_run <= POLLS_PER_S * RUN_S


def test_when_all_questions_are_answered_every_account_is_live_and_right(evidence: Evidence) -> None:
    assert evidence.final.live == len(evidence.simulation.table)
    assert not any(evidence.final.wrong.values()), evidence.reports[-1]
