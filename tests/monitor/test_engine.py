"""The core from events to projections: what is shown, and what is withheld."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.events import (
    AccountBalances,
    AccountDelta,
    AccountFill,
    AccountModeReport,
    AccountSnapshot,
    HoldingReport,
    Instrument,
    Instruments,
    PositionReport,
)
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.evaluate import evaluate
from monitor.settings import ProjectionSettings, StalenessSettings
from tests.monitor.state.walks import check_table
from tests.monitor.world import VENUE, World, ladder, ns, reasons


def live_world() -> World:
    """BTC at 100 with a book of one per tick, one long that dies at 95 and one short that dies at 106."""
    world = World()
    world.instruments(0)
    world.mark(0, 100.0)
    world.mark(0, 50.0, "ETH")
    world.interest(0, 20.0)
    world.book(0, ladder(99.9, -0.1, 100), ladder(100.1, 0.1, 100))
    world.account(0, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    world.account(0, "0xshort", 106.0 * 4.0 * 1.01, ("BTC", -4.0))
    return world


def test_a_live_market_shows_clusters_barrier_and_coverage() -> None:
    market = live_world().market(1)
    assert not market.stale
    assert (market.reference_price, market.reference_source) == (100.0, "mark")
    assert (market.best_bid, market.best_ask) == (99.9, 100.1)
    assert market.coverage_ratio == pytest.approx(14.0 / 40.0)
    assert (market.accounts, market.accounts_excluded) == (2, 0)
    by_side = {cluster.side: cluster for cluster in market.clusters}
    assert by_side["long"].price == pytest.approx(95.0)
    assert by_side["long"].distance_ratio == pytest.approx(-0.05)
    assert by_side["long"].notional_usd == pytest.approx(950.0)
    assert by_side["long"].largest_account_share == 1.0
    assert by_side["short"].price == pytest.approx(106.0)
    assert by_side["long"].provenance == "observed"
    assert market.cascade_down is not None
    assert market.cascade_up is not None
    # 49 levels stand above 95.0; printing it releases 10, which eat the next ten levels: one unstable gap from 95.0 to 94.0.
    gap = market.cascade_down.gaps[0]
    assert gap.from_price == pytest.approx(95.0)
    assert gap.to_price == pytest.approx(94.0)
    assert gap.barrier_base == pytest.approx(49.0)
    assert gap.forced_base == pytest.approx(10.0)
    assert market.cascade_down.reach_price == pytest.approx(90.0)


def test_the_same_events_give_the_same_bytes() -> None:
    first, second = live_world(), live_world()
    assert msgspec.json.encode(first.engine.project(ns(1))) == msgspec.json.encode(second.engine.project(ns(1)))


def test_a_lost_connection_makes_everything_that_hangs_on_it_stale_at_once() -> None:
    world = live_world()
    world.trade(0.5, 100.0, 1.0, "0xlong", "0xother")
    world.gap(1)
    market = world.market(1)
    assert market.stale
    assert reasons(market) == ["book", "mark", "accounts"]
    assert market.reference_price is None
    assert market.best_bid is None
    assert market.clusters == ()
    assert market.cascade_down is None
    assert market.coverage_ratio is None


def test_a_lost_connection_that_fed_another_market_leaves_this_one_alone() -> None:
    world = live_world()
    world.gap(1, connection="book-3")
    assert not world.market(1).stale


def test_after_a_reconnect_books_and_marks_recover_but_accounts_only_when_polled() -> None:
    world = live_world()
    world.trade(0.5, 100.0, 1.0, "0xother", "0xsomebody")
    world.gap(1)
    world.mark(2, 100.0)
    world.interest(2, 20.0)
    world.book(2, ladder(99.9, -0.1, 100), ladder(100.1, 0.1, 100))
    market = world.market(2)
    assert reasons(market) == ["accounts"]
    assert (market.accounts, market.accounts_excluded) == (0, 2)
    assert market.clusters == ()
    world.account(2.1, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    assert world.market(2.1).accounts == 0, "what it trades after the poll is not heard as long as the tape is not back"
    world.trade(2.5, 100.0, 1.0, "0xother", "0xsomebody")
    assert world.market(2.5).accounts == 0
    world.account(3, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    market = world.market(3)
    assert not market.stale
    assert [cluster.side for cluster in market.clusters] == ["long"]


@pytest.mark.parametrize(("silent_s", "stale"), [(9.0, False), (11.0, True)])
def test_silence_makes_a_market_stale_without_any_event(silent_s: float, stale: bool) -> None:
    world = live_world()
    assert not world.market(1).stale
    assert world.market(silent_s).stale is stale


def test_staleness_by_silence_shows_within_a_second_of_projections() -> None:
    world = live_world()
    world.market(9.5)
    assert world.engine.due(ns(10.5))
    assert world.market(10.5).stale


def test_a_venue_clock_that_is_hours_off_makes_nothing_stale() -> None:
    world = World("BTC")
    world.instruments(0)
    world.trade(1, 100.0, 1.0, exchange_ns=ns(-7_200))
    world.mark(1, 100.0)
    world.book(1, ladder(99.9, -0.1, 5), ladder(100.1, 0.1, 5))
    assert not world.market(1).stale


def test_a_sequence_gap_makes_only_its_symbol_stale_and_asks_for_a_snapshot() -> None:
    world = live_world()
    world.sequenced(1, 100, ladder(49.9, -0.1, 5), ladder(50.1, 0.1, 5), symbol="ETH")
    world.delta(1, (100, 101, 99), [], [], symbol="ETH")
    assert not world.market(1, "ETH").stale
    gaps = world.engine.counters[VENUE].gaps
    world.delta(2, (105, 110, 104), [], [], symbol="ETH")
    eth = world.market(2, "ETH")
    assert eth.stale
    assert eth.stale_reasons == ("book: sequence gap",)
    assert not world.market(2).stale
    assert world.engine.counters[VENUE].gaps == gaps + 1
    assert [(demand.venue, demand.symbol) for demand in world.engine.book_demands()] == [(VENUE, "ETH")]
    world.sequenced(3, 107, ladder(49.9, -0.1, 5), ladder(50.1, 0.1, 5), symbol="ETH")
    assert world.engine.book_demands() == []
    assert not world.market(3, "ETH").stale


def test_a_crossed_book_is_withheld() -> None:
    world = live_world()
    world.book(1, [(100.2, 1.0)], [(100.1, 1.0)])
    market = world.market(1)
    assert market.stale
    assert market.best_bid is None
    assert market.cascade_down is None
    assert market.clusters


def test_an_unknown_symbol_is_quarantined_and_counted() -> None:
    world = live_world()
    world.mark(1, 5.0, "DOGE")
    world.trade(1, 5.0, 1.0, symbol="DOGE")
    health = world.engine.project(ns(1)).venues[0]
    assert health.quarantined_symbols == ("DOGE",)
    assert health.parse_errors == {"unknown_symbol": 2}


def test_a_replay_without_a_config_watches_whatever_shows_up() -> None:
    engine = Engine(
        EngineSettings(symbols={VENUE: ()}, projection=ProjectionSettings(), staleness=StalenessSettings(), watch_all=True)
    )
    world = World()
    world.engine = engine
    world.book(0, ladder(9.9, -0.1, 5), ladder(10.1, 0.1, 5), symbol="DOGE")
    market = world.market(0, "DOGE")
    assert market.reference_source == "mid"
    assert market.reference_price == pytest.approx(10.0)
    assert not market.stale


def test_an_account_in_a_market_without_a_price_is_left_out() -> None:
    world = live_world()
    world.account(1, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0), ("DOGE", 1_000.0))
    market = world.market(1)
    assert (market.accounts, market.accounts_excluded) == (1, 1)
    assert [cluster.side for cluster in market.clusters] == ["short"]


def test_a_market_whose_margin_tables_are_impossible_makes_its_accounts_unknown() -> None:
    world = live_world()
    world.instruments(1, "BTC", rate=1.5)
    market = world.market(1)
    assert market.accounts == 0
    assert world.engine.counters[VENUE].parse_errors == {"bad_tiers": 1}


def test_accounts_in_a_mode_that_cannot_be_projected_are_counted_and_left_out() -> None:
    world = live_world()
    world.account(1, "0xlong", 1e9, ("BTC", 10.0), mode="unified")
    market = world.market(1)
    assert (market.accounts, market.accounts_excluded, market.stale) == (1, 1, False)
    assert world.engine.project(ns(1)).venues[0].accounts_unknown_mode == 1


def test_a_trade_between_two_known_accounts_moves_both_positions() -> None:
    world = live_world()
    before = world.market(1)
    world.trade(2, 100.0, 1.0, buyer="0xshort", seller="0xlong")
    after = world.market(2)
    assert after.observed_long_base == pytest.approx(before.observed_long_base - 1.0)
    assert after.observed_short_base == pytest.approx(before.observed_short_base - 1.0)


def test_replayed_trades_count_once() -> None:
    world = live_world()
    world.trade(0, 100.0, 1.0, "0xshort", "0xlong", exchange_ns=ns(5), trade_id=7)
    for _ in range(2):
        world.trade(6, 100.0, 1.0, "0xshort", "0xlong", exchange_ns=ns(5), trade_id=7)
        world.trade(6, 100.0, 1.0, "0xshort", "0xlong", exchange_ns=ns(4), trade_id=6)
    assert world.market(6).observed_long_base == pytest.approx(9.0)
    world.trade(6, 100.0, 1.0, "0xshort", "0xlong", exchange_ns=ns(5), trade_id=8)
    assert world.market(6).observed_long_base == pytest.approx(8.0)


def test_positions_under_water_are_backlog_of_the_cascade() -> None:
    world = live_world()
    world.mark(1, 94.0)
    world.book(1, ladder(93.9, -0.1, 100), ladder(94.1, 0.1, 100))
    market = world.market(1)
    assert market.cascade_down is not None
    assert market.cascade_down.backlog_base == pytest.approx(10.0)
    assert market.cascade_down.barrier[0].volume_base == 0.0
    assert all(cluster.side == "short" for cluster in market.clusters)


def test_liquidation_fills_seen_from_both_sides_count_once() -> None:
    world = live_world()
    world.liquidation(1, "long", 95.0, 2.0, fill_id=1, account="0xlong")
    world.liquidation(1, "long", 95.0, 2.0, fill_id=1, account="0xlong")
    market = world.market(1)
    assert market.liquidated_long_usd == pytest.approx(190.0)
    assert market.liquidation_completeness == "partial"


def test_typical_flow_is_the_median_of_watched_minutes_and_says_how_many_there_were() -> None:
    world = World("BTC")
    world.instruments(0)
    for minute, size in enumerate((5.0, 1.0, 3.0, 100.0)):
        world.trade(minute * 60.0 + 30.0, 100.0, size)
    world.mark(245, 100.0)
    market = world.market(245)
    # The first minute was joined in its middle and does not count; the median of 1, 3 and 100 is 3.
    assert market.typical_flow_base == 3.0
    assert market.flow_window_covered_ratio == pytest.approx(3 / 30)


def test_a_minute_with_a_gap_does_not_count_as_watched() -> None:
    world = World("BTC")
    world.instruments(0)
    world.trade(10.0, 100.0, 1.0)
    world.trade(70.0, 100.0, 1.0)
    world.gap(80)
    world.trade(130.0, 100.0, 9.0)
    world.trade(190.0, 100.0, 2.0)
    world.mark(199, 100.0)
    # The tape came back in the middle of the third minute; the fourth is the first that was watched whole.
    assert world.market(199).typical_flow_base is None
    world.mark(245, 100.0)
    assert world.market(245).typical_flow_base == 2.0


def test_frozen_inputs_do_not_see_later_events() -> None:
    world = live_world()
    inputs = world.engine.freeze(ns(1))
    world.trade(2, 100.0, 5.0, buyer="0xshort", seller="0xlong")
    world.mark(2, 200.0)
    world.book(2, [(1.0, 1.0)], [(2.0, 1.0)])
    market = next(item for item in evaluate(inputs).markets if item.symbol == "BTC")
    assert market.observed_long_base == 10.0
    assert market.reference_price == 100.0
    assert market.cascade_down is not None
    assert market.cascade_down.depth_base == pytest.approx(100.0)


# ------------------------------------------------------------------------------------------------- accounts of other sources


def fed_world() -> World:
    """BTC at 100 and WETH, an asset of which 80 % count, at 10; a desk feeds accounts of the venue."""
    world = World("BTC", "ETH", feeds=("desk",), dexes={VENUE: ("xyz",)})
    world.instruments(0, "BTC", "ETH", "xyz:TSLA")
    asset = Instrument("WETH", (), contract="asset", collateral_ratio=0.8)
    world.engine.apply(Instruments(**world.origin(0, "rest"), instruments=(asset,), complete=False))
    for symbol, price in (("BTC", 100.0), ("ETH", 50.0), ("WETH", 10.0), ("xyz:TSLA", 20.0)):
        world.engine.markets.index_of(VENUE, symbol)
        world.mark(0, price, symbol)
    world.book(0, ladder(99.9, -0.1, 100), ladder(100.1, 0.1, 100))
    return world


def position(symbol: str, size: float, **more: Any) -> PositionReport:
    fields: dict[str, Any] = {"entry_price": None, "isolated_cash_usd": None, "liquidation_price": None, "leverage": None, **more}
    return PositionReport(symbol, size, **fields)


def tell(world: World, at_s: float, sequence: int, cash: float, *positions: PositionReport, **more: Any) -> None:
    holdings = tuple(HoldingReport(*item) for item in more.pop("holdings", ()))
    world.engine.apply(
        AccountSnapshot(
            **world.origin(at_s, "desk"),
            account=more.pop("account", "client-7"),
            exchange_ns=ns(at_s),
            sequence=sequence,
            cross_cash_usd=cash,
            positions=positions,
            holdings=holdings,
            mode="standard",
            **more,
        )
    )


def change(world: World, at_s: float, sequence: int, *positions: PositionReport, cash: float | None = None, **more: Any) -> None:
    holdings = tuple(HoldingReport(*item) for item in more.pop("holdings", ()))
    world.engine.apply(
        AccountDelta(
            **world.origin(at_s, "desk"),
            account=more.pop("account", "client-7"),
            exchange_ns=ns(at_s),
            sequence=sequence,
            cross_cash_usd=cash,
            positions=positions,
            holdings=holdings,
        )
    )


def node_fill(world: World, at_s: float, account: str, size: float, price: float, **more: Any) -> None:
    fields: dict[str, Any] = {"symbol": "BTC", "trade_id": 1, **more}
    world.engine.apply(
        AccountFill(**world.origin(at_s, "node"), account=account, exchange_ns=ns(at_s), size=size, price=price, **fields)
    )


def deaths(world: World, at_s: float) -> dict[str, list[float]]:
    """Return the prices of the clusters by side."""
    market = world.market(at_s)
    found: dict[str, list[float]] = {}
    for cluster in market.clusters:
        found.setdefault(cluster.side, []).append(cluster.price)
    return found


def test_an_account_of_a_private_feed_is_projected_and_follows_its_deltas() -> None:
    world = fed_world()
    tell(world, 1, 1, -950.0 - 8.0 + 9.5, position("BTC", 10.0), holdings=[("WETH", 1.0)])
    assert deaths(world, 1) == {"long": [pytest.approx(95.0)]}
    change(world, 2, 2, cash=-950.0 + 9.5, holdings=[("WETH", 0.0)])
    assert deaths(world, 2) == {"long": [pytest.approx(95.0)]}
    change(world, 3, 3, position("BTC", -10.0), cash=1_060.0 + 10.6)
    market = world.market(3)
    assert (market.observed_long_base, market.observed_short_base) == (0.0, 10.0)
    assert deaths(world, 3) == {"short": [pytest.approx(106.0)]}


def test_a_hole_in_a_feed_takes_the_account_out_and_a_snapshot_brings_it_back() -> None:
    world = fed_world()
    tell(world, 1, 1, 0.0, position("BTC", 10.0))
    change(world, 2, 3, position("BTC", 20.0))
    market = world.market(2)
    assert (market.accounts, market.accounts_excluded) == (0, 1)
    assert world.engine.changes.resync_demands() == [("desk", VENUE, "client-7", 1)]
    health = world.engine.project(ns(2)).venues[0]
    assert (health.accounts_stale, health.sequence_gaps) == (1, 1)
    tell(world, 3, 4, 0.0, position("BTC", 20.0))
    assert world.engine.changes.resync_demands() == []
    assert world.market(3).observed_long_base == 20.0


def test_a_feed_that_is_interrupted_takes_its_accounts_out_and_no_others() -> None:
    world = fed_world()
    tell(world, 1, 1, 0.0, position("BTC", 10.0))
    world.account(1, "0xpolled", 0.0, ("BTC", 3.0))
    world.gap(2, connection="desk")
    assert world.market(2).observed_long_base == 3.0
    assert world.engine.counters["desk"].gaps == 1
    assert len(world.engine.changes.resync_demands()) == 1
    tell(world, 3, 2, 0.0, position("BTC", 10.0))
    assert world.market(3).observed_long_base == 13.0


def test_a_line_of_a_feed_that_could_not_be_used_takes_out_the_accounts_it_was_about() -> None:
    world = fed_world()
    tell(world, 1, 1, 0.0, position("BTC", 10.0))
    tell(world, 1, 1, 0.0, position("BTC", 1.0), account="client-8")
    world.engine.doubt_fed_accounts("desk", VENUE, ("client-7", "nobody"))
    assert world.market(2).observed_long_base == 1.0


def test_a_hole_in_the_public_tape_does_not_touch_accounts_of_a_feed() -> None:
    world = fed_world()
    tell(world, 1, 1, 0.0, position("BTC", 10.0))
    world.trade(2, 100.0, 1.0, "0xa", "client-7")
    assert world.market(2).observed_long_base == 10.0, "its feed tells what it trades"
    world.gap(3)
    world.mark(3, 100.0)
    assert world.market(3).observed_long_base == 10.0


def test_a_quiet_account_of_a_feed_stays_live_for_as_long_as_the_feed_does() -> None:
    world = fed_world()
    tell(world, 1, 1, 0.0, position("BTC", 10.0))
    world.account(1, "0xpolled", 0.0, ("BTC", 3.0))
    world.mark(4_000, 100.0)
    assert world.market(4_000).observed_long_base == 10.0


def test_a_hedge_of_a_feed_brings_only_its_excess_to_the_market() -> None:
    world = fed_world()
    # 6 p - 0.01 * 14 p = 5.86 p
    tell(world, 1, 1, -95.0 * 5.86, position("BTC", 10.0, position_side="long"), position("BTC", -4.0, position_side="short"))
    market = world.market(1)
    assert (market.observed_long_base, market.observed_short_base, market.accounts) == (10.0, 4.0, 1)
    [cluster] = market.clusters
    assert (cluster.side, cluster.accounts) == ("long", 1)
    assert cluster.price == pytest.approx(95.0)
    assert cluster.notional_usd == pytest.approx(6.0 * 95.0)
    change(world, 2, 2, position("BTC", 0.0, position_side="short"), cash=-95.0 * 9.9)
    assert world.market(2).clusters[0].notional_usd == pytest.approx(950.0)


def test_a_collateral_asset_without_a_price_takes_the_account_out_until_it_has_one() -> None:
    world = World("BTC", feeds=("desk",))
    world.instruments(0, "BTC")
    world.mark(0, 100.0)
    tell(world, 1, 1, 0.0, position("BTC", 10.0), holdings=[("WETH", 1.0)])
    assert world.market(1).accounts_excluded == 1
    asset = Instrument("WETH", (), contract="asset", collateral_ratio=0.8)
    world.engine.apply(Instruments(**world.origin(2, "rest"), instruments=(asset,), complete=False))
    assert world.market(2).accounts_excluded == 1
    world.mark(3, 10.0, "WETH")
    assert world.market(3).accounts == 1
    world.mark(70, 100.0)
    assert world.market(70).accounts == 1
    world.mark(90, 100.0)
    assert world.market(90).accounts == 0, "the price of what is only held is too old"


def test_fills_of_an_own_node_are_carried_and_the_public_tape_is_not_carried_beside_them() -> None:
    world = World("BTC", node_venues=frozenset({VENUE}))
    world.instruments(0, "BTC")
    world.mark(0, 100.0)
    world.account(0, "0xa", 0.0, ("BTC", 10.0))
    assert world.market(0).accounts == 0, "as long as the node has told nothing, nobody hears what the account trades"
    node_fill(world, 0.5, "0xsomebody", 1.0, 100.0)
    world.account(1, "0xa", 0.0, ("BTC", 10.0))
    node_fill(world, 2, "0xa", 1.0, 100.0, start_size=10.0)
    world.trade(2, 100.0, 1.0, "0xa", "0xb")
    assert world.market(2).observed_long_base == 11.0
    node_fill(world, 3, "0xa", 1.0, 100.0, start_size=10.0)
    assert world.market(3).observed_long_base == 0.0
    health = world.engine.project(ns(3)).venues[0]
    assert (health.fills_contradicted, health.fills_unexplained) == (1, 0)


def test_a_hole_in_the_files_of_a_node_makes_the_accounts_unknown_and_one_in_the_public_tape_does_not() -> None:
    world = World("BTC", node_venues=frozenset({VENUE}))
    world.instruments(0, "BTC")
    world.mark(0, 100.0)
    node_fill(world, 0, "0xsomebody", 1.0, 100.0)
    world.account(1, "0xa", 0.0, ("BTC", 10.0))
    world.gap(2, connection="main")
    world.mark(2, 100.0)
    assert world.market(2).accounts == 1
    world.gap(3, connection="node")
    assert world.market(3).accounts == 0
    node_fill(world, 4, "0xsomebody", 1.0, 100.0)
    world.account(5, "0xa", 0.0, ("BTC", 10.0))
    assert world.market(5).accounts == 1


def test_a_unified_account_is_projected_from_its_balance_once_all_its_pools_have_answered() -> None:
    world = fed_world()
    engine = world.engine
    engine.apply(AccountModeReport(**world.origin(1, "rest"), account="0xa", mode="unified"))
    for pool, held in (("", position("BTC", 10.0, mark_price=100.0)), ("xyz", position("xyz:TSLA", 1.0, mark_price=20.0))):
        engine.apply(
            AccountSnapshot(
                **world.origin(1, "rest"), account="0xa", exchange_ns=ns(1), cross_cash_usd=1e9, positions=(held,), pool=pool
            )
        )
        assert world.market(1).accounts == 0
    tokens = (HoldingReport("USDC", 49.5 + 0.2), HoldingReport("HYPE", 1e6))
    engine.apply(AccountBalances(**world.origin(1, "rest"), account="0xa", balances=tokens))
    # Worth 49.7 at 100, less 10 per dollar of a fall, and needs 0.1 per dollar and 0.2 for the other.
    world.mark(2, 100.0)
    assert deaths(world, 2) == {"long": [pytest.approx((1_000.0 - 49.5) / 9.9)]}
    assert world.engine.project(ns(2)).venues[0].accounts_unknown_mode == 0


def test_running_sums_agree_with_full_sweeps_through_a_long_and_varied_day() -> None:
    """Ticks, holes in prices, fills, deltas, new tables: what is added up never strays from what is summed up."""
    world = fed_world()
    random = np.random.default_rng(11)
    world.account(0, "0xa", 5_000.0, ("BTC", 100.0), ("ETH", -150.0))
    tell(world, 0, 1, 9_000.0, position("BTC", -70.0), position("ETH", 9.0), holdings=[("WETH", 300.0)])
    for step in range(1, 400):
        at_s = step * 0.5
        world.mark(at_s, float(100.0 * np.exp(random.normal(0.0, 0.2))), "BTC")
        world.mark(at_s, float(10.0 * np.exp(random.normal(0.0, 0.2))), "WETH")
        if step % 60 < 20:
            world.mark(at_s, float(50.0 * np.exp(random.normal(0.0, 0.2))), "ETH")
        if step % 7 == 0:
            world.trade(at_s, 100.0, 1.0, "0xa", "0xb")
        if step % 11 == 0:
            change(world, at_s, 1 + step // 11, position("BTC", float(step)), cash=float(step))
        if step % 50 == 0:
            world.instruments(at_s, "BTC", rate=0.01 + step * 1e-5)
        if step % 30 == 0:
            world.account(at_s, "0xa", 5_000.0, ("BTC", 100.0), ("ETH", -150.0))
        sweeps = world.engine.project(ns(at_s)).sweeps
    assert sweeps.sweeps >= 40
    assert sweeps.largest_drift_ratio <= 1e-9


def test_nonsense_from_any_source_is_counted_or_ignored_and_never_raises() -> None:
    """The same wherever it comes from: symbols that nobody knows, sizes of nothing, absurd prices, accounts without a name."""
    world = fed_world()
    tell(world, 1, 1, 1e17, position("NOPE", 1e17), position("BTC", -1e17), holdings=[("NADA", -1e17)])
    change(world, 1, 2, position("NOPE", 0.0), position("BTC", 1e-300), holdings=[("NADA", 0.0), ("BTC", 5.0)])
    tell(world, 1, 0, 0.0, position("WETH", 5.0), account="")
    change(world, 1, 9, position("", 1.0), account="")
    node_fill(world, 1, "0xa", 1e17, 1e14, symbol="", fee_usd=None)
    node_fill(world, 1, "0xa", 0.0, 1e-9, symbol="xyz:TSLA")
    world.account(2, "0xa", 5.0, ("BTC", 1.0), ("BTC", -1.0), ("WETH", 3.0), ("xyz:TSLA", 1.0))
    node_fill(world, 3, "0xa", -2.0, 100.0, start_size=math.inf)
    world.engine.apply(AccountBalances(**world.origin(3, "rest"), account="0xghost", balances=()))
    world.engine.apply(
        Instruments(**world.origin(3, "rest"), instruments=(Instrument("BTC", (), contract="asset"),), complete=False)
    )
    for at_s in (3.0, 9.0):
        world.engine.project(ns(at_s))
    world.instruments(10, "BTC")
    world.mark(10, 100.0)
    world.account(10, "0xa", -90.0, ("BTC", 1.0))
    assert world.market(10).observed_long_base == 1.0
    check_table(world.engine.accounts)
