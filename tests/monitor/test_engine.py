"""The core from events to projections: what is shown, and what is withheld."""

from __future__ import annotations

import msgspec
import pytest

from monitor.engine import Engine, EngineSettings
from monitor.evaluate import evaluate
from monitor.settings import ProjectionSettings, StalenessSettings
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
    inputs = world.engine.freeze(ns(1), copy=True)
    world.trade(2, 100.0, 5.0, buyer="0xshort", seller="0xlong")
    world.mark(2, 200.0)
    world.book(2, [(1.0, 1.0)], [(2.0, 1.0)])
    market = next(item for item in evaluate(inputs).projection.markets if item.symbol == "BTC")
    assert market.observed_long_base == 10.0
    assert market.reference_price == 100.0
    assert market.cascade_down is not None
    assert market.cascade_down.depth_base == pytest.approx(100.0)
