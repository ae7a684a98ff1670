"""The daemon against an exchange that was written independently of it, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from connectors.simulated.brute_force import ExchangeSnapshot, Reference, run_exogenous_buy, run_exogenous_sell
from connectors.simulated.exchange import DEFINITION_RULES
from connectors.simulated.population import PopulationConfig
from connectors.simulated.server import SimulatedVenueServer
from monitor.account_queries import AccountQueries
from monitor.app import Daemon
from monitor.config import Config
from monitor.evaluate import evaluate
from monitor.projection import Cascade, MarketProjection, Projection
from monitor.settings import ProjectionSettings, StalenessSettings, VenueConfig
from monitor.web.settings import HttpSettings

ACCOUNTS = 250
LADDER_LEVELS = 18
"""Fewer than the 20 that the venue shows, so that the daemon sees the whole of a sparse book at full resolution."""


def make_sparse(server: SimulatedVenueServer) -> None:
    """Replace the makers' hundreds of quotes by a few wide ones, so that 20 levels reach far enough to set off liquidations."""
    simulation = server.simulation
    exchange, maker = simulation.exchange, simulation.population.makers[0]
    for index, (market, book) in enumerate(zip(simulation.config.markets, exchange.books, strict=True)):
        middle = exchange.mid(index)
        assert middle is not None
        lots = sum(level.lots for level in book.bids.levels()) // 60
        for owner in simulation.population.makers:
            book.cancel_all(owner)
        for is_bid in (True, False):
            for level in range(LADDER_LEVELS):
                outward = (1 + level) * 0.008
                price = round(middle * (1.0 - outward if is_bid else 1.0 + outward))
                price -= price % market.tick(price)
                # Uneven sizes: a barrier that is right by symmetry would be no test.
                assert exchange.quote(maker, index, price, max(1, lots * (3 + level * 7 % 5) // 4), is_bid=is_bid)


class Watched(NamedTuple):
    """A frozen exchange and a daemon that knows everything public about it."""

    state: ExchangeSnapshot
    daemon: Daemon
    projection: Projection
    accounts: tuple[str, ...]

    def market(self, coin: str) -> MarketProjection:
        return next(market for market in self.projection.markets if market.symbol == coin)


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something that the daemon's own tasks bring about."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - the daemon does not tell tests what it has done
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"after {timeout_s} s still not: {what}")


@contextlib.asynccontextmanager
async def watched(*, sparse: bool) -> AsyncIterator[Watched]:
    server = SimulatedVenueServer(
        seed=7,
        population=PopulationConfig(accounts=ACCOUNTS, unified_share=0.0),
        exchange=DEFINITION_RULES,
        weight_per_minute=None,
        paused=True,
        agents=False,
    )
    if sparse:
        make_sparse(server)
    async with server:
        coins = tuple(market.coin for market in server.simulation.config.markets)
        config = Config(
            http=HttpSettings(enabled=False),
            projection=ProjectionSettings(barrier_levels_max=5_000, max_distance_ratio=0.5),
            staleness=StalenessSettings(book_s=600.0, mark_s=600.0, open_interest_s=600.0),
            venues=(
                VenueConfig(
                    name="hyperliquid",
                    symbols=coins,
                    websocket_url=server.websocket_url,
                    rest_url=server.rest_url,
                    seed_accounts=tuple(server.account_addresses()),
                    rest_weight_per_minute=1_000_000,
                ),
            ),
        )
        daemon = Daemon(config)
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))
        try:
            await daemon.ready.wait()
            await until(lambda: all(item.health().state == "connected" for item in daemon.connections), "all sockets open")

            def fresh() -> bool:
                # A second of exchange time, in which nobody trades; the slowest book comes every five of them.
                server.step(10)
                return all(not market.stale for market in daemon.engine.project(daemon.now_ns()).markets)

            await until(fresh, "all fresh")
            known = len(server.account_addresses())
            await until(
                lambda: daemon.engine.accounts.counts("hyperliquid", daemon.now_ns(), 10**15)[0] == known, "all accounts known"
            )
            holders = int((server.simulation.table.lots != 0).any(axis=1).sum())
            await until(
                lambda: daemon.engine.accounts.counts("hyperliquid", daemon.now_ns(), 10**15)[1] >= holders, "all holders polled"
            )
            server.step(60)
            slowest = len(daemon.connections)
            await until(lambda: sum(bool(item.health().messages > 4) for item in daemon.connections) == slowest, "all books seen")
            await until(fresh, "all still fresh")
            projection = evaluate(daemon.engine.freeze(daemon.now_ns() + 2_000_000_000))
            yield Watched(server.snapshot(), daemon, projection, tuple(server.account_addresses()))
        finally:
            stop.set()
            await running


async def test_every_liquidation_price_equals_the_exchanges_own() -> None:
    """Done when 4, first half: to 1e-9 relative, for every position that can be liquidated at all."""
    async with watched(sparse=False) as world:
        queries = AccountQueries(world.daemon.engine)
        ours: dict[tuple[str, str], float] = {}
        for account in world.accounts:
            report = queries.account("hyperliquid", account, world.daemon.now_ns())
            for margin in report.margins if report is not None else ():
                ours |= {(account, leg.symbol): leg.liquidation_price for leg in margin.legs if leg.liquidation_price is not None}
        theirs = {
            (trigger.account, coin): trigger.price_usd
            for coin, market in world.state.markets.items()
            for trigger in (*market.long_triggers, *market.short_triggers)
        }
        assert len(theirs) > ACCOUNTS
        assert ours.keys() == theirs.keys()
        worst = max(abs(ours[key] / theirs[key] - 1.0) for key in theirs)
        print(f"{len(theirs)} liquidation prices, largest relative difference {worst:.1e}")
        assert worst <= 1e-9


async def test_observed_positions_cover_the_whole_open_interest() -> None:
    async with watched(sparse=False) as world:
        for market in world.projection.markets:
            assert market.coverage_ratio == pytest.approx(1.0, abs=1e-9)
            assert market.accounts_excluded == 0
            assert market.provenance == "observed"


def side(world: Watched, coin: str, *, down: bool) -> tuple[Cascade, int, list[float]]:
    """Return our cascade, the exchange's lots per coin, and its level prices in full."""
    projected = world.market(coin)
    cascade = projected.cascade_down if down else projected.cascade_up
    assert cascade is not None
    market = world.state.markets[coin]
    return cascade, market.lots_per_coin, [price for price, _ in (market.bids if down else market.asks)]


@pytest.mark.parametrize("reference", ["last_trade", "best_bid"])
async def test_the_barrier_equals_a_brute_force_run_lot_by_lot(reference: Reference) -> None:
    """Done when 4, second half: at every level, the barrier is the last volume that does not reach it."""
    compared = with_forced = 0
    async with watched(sparse=True) as world:
        for coin in world.state.markets:
            for down in (True, False):
                cascade, scale, levels = side(world, coin, down=down)
                assert [point.price for point in cascade.barrier] == pytest.approx(levels, rel=1e-12)
                run = run_exogenous_sell if down else run_exogenous_buy
                outward = -1.0 if down else 1.0
                for point in cascade.barrier:
                    assert point.lower_base == point.volume_base == point.upper_base
                    lots = round(point.volume_base * scale)
                    assert lots == pytest.approx(point.volume_base * scale, abs=1e-3)
                    # Under the last-trade rule more than the barrier is needed, under the best-quote rule the barrier is enough.
                    reaching, failing = (lots + 1, lots) if reference == "last_trade" else (lots, lots - 1)
                    reached = run(world.state, coin, reaching, reference, one_lot_at_a_time=False)
                    assert reached.landing_price is not None or reaching == 0
                    if reached.landing_price is not None:
                        assert reached.landing_price * outward >= point.price * outward * (1 - 1e-12 * outward)
                    if failing > 0:
                        missed = run(world.state, coin, failing, reference, one_lot_at_a_time=False)
                        assert missed.landing_price is None or missed.landing_price * outward < point.price * outward
                    compared += 1
                    with_forced += reached.forced_lots > 0
    print(f"{compared} barriers compared under {reference}, {with_forced} of them with liquidations on the way")
    assert with_forced > 40


async def test_landings_equal_a_brute_force_run_lot_by_lot() -> None:
    async with watched(sparse=True) as world:
        compared = 0
        for coin, market in world.state.markets.items():
            for down in (True, False):
                cascade, scale, _ = side(world, coin, down=down)
                run = run_exogenous_sell if down else run_exogenous_buy
                for landing in cascade.landing:
                    lots = landing.exogenous_base * scale
                    if abs(lots - round(lots)) > 1e-6:
                        # Only whole lots can be sold: the nearest barrier below decides, and is the same for the rounded volume
                        # unless it lies in between.
                        if any(int(lots) / scale <= point.volume_base <= landing.exogenous_base for point in cascade.barrier):
                            continue
                        lots = int(lots)
                    result = run(world.state, coin, round(lots), one_lot_at_a_time=False)
                    assert landing.last_trade_price == pytest.approx(result.landing_price, rel=1e-12)
                    assert landing.forced_base * scale == pytest.approx(result.forced_lots, abs=1e-3)
                    compared += 1
            assert market.long_triggers
        assert compared >= 8


async def test_bounds_of_the_aggregated_book_hold_the_brute_force_barrier() -> None:
    """With the real, dense book the daemon sees 20 levels and rounded ones beyond: the interval must hold the truth."""
    async with watched(sparse=False) as world:
        wide = 0
        for coin, market in world.state.markets.items():
            for down in (True, False):
                cascade, scale, levels = side(world, coin, down=down)
                run = run_exogenous_sell if down else run_exogenous_buy
                outward = -1.0 if down else 1.0
                assert cascade.reach_price is not None
                assert abs(cascade.reach_price / levels[0] - 1.0) > 0.02
                for point in cascade.barrier:
                    wide += point.lower_base < point.upper_base
                    inside = [price for price in levels if price * outward <= point.price * outward]
                    furthest = inside[-1]
                    # Whatever the bucket holds is reached with the upper bound, and nothing beyond it with less than the lower.
                    enough = run(world.state, coin, int(point.upper_base * scale) + 2, one_lot_at_a_time=False)
                    assert enough.landing_price is not None
                    assert enough.landing_price * outward >= furthest * outward
                    if point.lower_base * scale >= 1.0:
                        short = run(world.state, coin, int(point.lower_base * scale) - 1, one_lot_at_a_time=False)
                        assert short.landing_price is None or short.landing_price * outward <= furthest * outward
            assert market.bids
        assert wide > 40
