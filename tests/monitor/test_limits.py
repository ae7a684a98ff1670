"""Edges of tables and grids."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.events import AccountSnapshot, MarginTier, PositionReport
from monitor.cascade import Levels, solve
from monitor.clusters import make_grid, map_triggers
from monitor.margin import TierError, build_tier_table, check_tiers
from monitor.state import market_table as engine_module
from monitor.triggers import Legs, sweep
from tests.monitor.test_engine import live_world
from tests.monitor.world import VENUE, World, ladder, ns


def test_a_position_in_a_market_beyond_the_last_place_does_not_stop_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MARKETS_MAX", 2)
    world = live_world()
    world.account(1, "0xexotic", 100.0, ("SPAM", 1.0))
    assert world.engine.counters[VENUE].parse_errors == {"too_many_symbols": 1}
    assert world.market(1).accounts == 2


def test_instruments_beyond_the_last_place_do_not_stop_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MARKETS_MAX", 2)
    world = live_world()
    world.instruments(1, "BTC", "ETH", "SPAM", "EGGS")
    world.account(1, "0xexotic", 100.0, ("SPAM", 1.0), ("EGGS", 1.0))
    assert world.market(1).accounts == 2


def test_a_replay_that_watches_all_watches_symbols_that_the_list_of_instruments_named_first() -> None:
    """A recording of a venue begins with the answer to the bootstrap request, which names all its markets."""
    world = World("BTC", watch_all=True)
    world.instruments(0, "BTC", "SOL")
    world.mark(1, 20.0, "SOL")
    world.book(1, ladder(19.9, -0.1, 5), ladder(20.1, 0.1, 5), "SOL")
    assert {market.symbol for market in world.engine.project(ns(1)).markets} == {"BTC", "SOL"}


def test_triggers_between_the_end_of_the_grid_and_the_end_of_the_book_count() -> None:
    """max_distance_ratio is 0.25; the book goes on to 40 % below."""
    world = World("BTC")
    world.instruments(0)
    world.mark(0, 100.0)
    world.book(0, ladder(99.0, -1.0, 40), ladder(101.0, 1.0, 40))
    world.account(0, "0xdeep", -70.0 * 1_000.0 * 0.99, ("BTC", 1_000.0))
    cascade = world.market(1).cascade_down
    assert cascade is not None
    assert cascade.reach_price is not None
    price = np.arange(99.0, 59.0, -1.0)
    truth = solve(Levels(price, price, np.ones(40)), np.array([70.0]), np.array([1_000.0]))
    assert truth.barrier[-1] == 29.0
    # Either the deep trigger is in the curve, or the curve ends before it; 39 units down to 60 is neither.
    assert cascade.reach_price > 70.0 or cascade.barrier[-1].volume_base == pytest.approx(29.0)


def test_a_trigger_at_the_very_end_of_the_grid_stays_in_its_own_row() -> None:
    """One bucket too low is a negative index (a crash) in the first market, and in others the histogram of somebody else."""
    grid = make_grid(0.001, 0.25)
    tiers = build_tier_table([(MarginTier(0.0, 0.01, 0.0),)])
    price = np.array([0.049861755184469725])
    legs = Legs(np.array([0], np.int32), np.array([0], np.int32), np.array([1.0]), np.array([0.99]), np.array([np.inf]))
    swept = sweep(legs, np.array([-0.03697893209432949]), price, tiers)
    mapped = map_triggers(legs, swept, price, grid)
    assert all(0 <= key <= 2 * grid.reach for key in mapped.near.key.tolist())


def test_margin_tables_with_jumps_are_refused_or_solved() -> None:
    """A short that dies exactly in the jump has no root in any tier; its trigger must not vanish."""
    table = (MarginTier(0.0, 0.01, 0.0), MarginTier(1_000.0, 0.05, 0.0))
    try:
        check_tiers("BTC", table)
    except TierError:
        return
    tiers = build_tier_table([table])
    legs = Legs(np.array([0], np.int32), np.array([0], np.int32), np.array([-10.0]), np.array([-10.1]), np.array([100.0]))
    swept = sweep(legs, np.array([1_030.0]), np.array([90.0]), tiers)
    assert swept.surplus_usd[0] > 0.0
    assert swept.trigger_price[0] == pytest.approx(100.0)


def test_a_liquidation_without_an_id_counts_once_although_it_arrives_twice() -> None:
    world = World("BTC")
    world.liquidation(1, "long", 100.0, 2.0, None)
    world.liquidation(1, "long", 100.0, 2.0, None)
    assert world.market(2).liquidated_long_usd == 200.0


def test_an_account_state_older_than_the_remembered_fills_is_not_sound() -> None:
    """The answer is older than fills that were forgotten: whether they are in it cannot be told any more."""
    world = live_world()
    world.account(0.5, "0xwhale", -900.0, ("BTC", 10.0))
    world.trade(1, 100.0, 10.0, "0xother", "0xwhale")  # It closes; known from the tape.
    world.trade(17, 100.0, 1.0, "0xother", "0xsomebody")
    world.engine.apply(
        AccountSnapshot(
            **world.origin(18, "rest"),
            account="0xwhale",
            exchange_ns=ns(0.9),
            cross_cash_usd=-900.0,
            positions=(PositionReport("BTC", 10.0, None, None, None, None),),
        )
    )
    world.mark(18, 100.0)
    world.book(18, ladder(99.9, -0.1, 20), ladder(100.1, 0.1, 20))
    market = world.market(18)
    assert market.observed_long_base == 10.0, "only 0xlong holds any; the whale has closed"


def test_a_backlog_carries_the_price_through_an_unstable_gap() -> None:
    """What is triggered already needs nothing from outside: the levels it walks through are one gap from the touch on."""
    world = World("BTC")
    world.instruments(0)
    world.mark(0, 100.0)
    world.book(0, ladder(99.0, -1.0, 20), ladder(101.0, 1.0, 20))
    world.account(0, "0xdead", -105.0 * 15.0 * 0.99, ("BTC", 15.0))
    cascade = world.market(1).cascade_down
    assert cascade is not None
    assert cascade.backlog_base == 15.0
    free = [point.price for point in cascade.barrier if point.volume_base == 0.0]
    assert len(free) > 10
    assert cascade.gaps
    assert (cascade.gaps[0].from_price, cascade.gaps[0].to_price) == (99.0, min(free))


def test_triggers_between_the_end_of_the_grid_and_the_end_of_the_book_count_on_the_rising_side_too() -> None:
    """The grid is logarithmic: its columns go on to 34 % above, but shocks are kept up to 25 %."""
    world = World("BTC")
    world.instruments(0)
    world.mark(0, 100.0)
    world.book(0, ladder(99.0, -1.0, 40), ladder(101.0, 1.0, 60))
    world.account(0, "0xhigh", 130.0 * 1_000.0 * 1.01, ("BTC", -1_000.0))
    cascade = world.market(1).cascade_up
    assert cascade is not None
    assert cascade.reach_price is not None
    last = cascade.barrier[-1]
    # 29 units stand before 130; printing it releases a thousand, so nothing beyond costs more.
    assert cascade.reach_price < 130.0 or last.volume_base == pytest.approx(29.0)
