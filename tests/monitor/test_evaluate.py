"""One evaluation, checked against cases that are computed by hand."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import msgspec
import pytest

from connectors.events import AccountSnapshot, HoldingReport, Instrument, Instruments, Level, MarginTier, PositionReport
from monitor.evaluate import SURVIVAL_MOVES, evaluate
from monitor.projection import Cascade, MarketProjection, Projection
from monitor.triggers import Workspace
from tests.monitor.world import World, ladder, ns, reasons

BIDS: list[Level] = [(99.0, 1.0), (98.0, 1.0), (97.0, 1.0), (96.0, 1.0), (95.0, 1.0)]
ASKS: list[Level] = [(101.0, 1.0), (102.0, 1.0), (103.0, 1.0), (104.0, 1.0), (105.0, 1.0)]


def dies_at(price: float, size: float) -> float:
    """Return the cash with which a position of ``size`` is liquidated at ``price`` under 1 % maintenance."""
    return -size * price + 0.01 * abs(size) * price


def world(**prices: float) -> World:
    """BTC at 100 without positions, books or open interest."""
    made = World()
    made.instruments(0)
    made.mark(0, prices.get("btc", 100.0))
    made.mark(0, 50.0, "ETH")
    return made


def hold(made: World, name: str, size: float, price: float, at_s: float = 0.0) -> None:
    made.account(at_s, name, dies_at(price, size), ("BTC", size))


def project(made: World, at_s: float = 1.0, **settings: Any) -> Projection:
    inputs = made.engine.freeze(ns(at_s))
    return evaluate(inputs._replace(settings=inputs.settings.model_copy(update=settings)))


def btc(made: World, at_s: float = 1.0, **settings: Any) -> MarketProjection:
    return next(market for market in project(made, at_s, **settings).markets if market.symbol == "BTC")


def down(made: World, **settings: Any) -> Cascade:
    found = btc(made, **settings).cascade_down
    assert found is not None
    return found


def up(made: World, **settings: Any) -> Cascade:
    found = btc(made, **settings).cascade_up
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------------------------- clusters


def test_neighbouring_liquidation_prices_are_one_cluster_with_the_mean_price_by_notional() -> None:
    made = world()
    hold(made, "0xsmall", 10.0, 95.0)
    hold(made, "0xlarge", 30.0, 94.95)
    [cluster] = btc(made).clusters
    small, large = 10.0 * 95.0, 30.0 * 94.95
    assert cluster.side == "long"
    assert cluster.notional_usd == pytest.approx(small + large)
    assert cluster.price == pytest.approx((small * 95.0 + large * 94.95) / (small + large))
    assert cluster.distance_ratio == pytest.approx(cluster.price / 100.0 - 1.0)
    assert cluster.accounts == 2
    assert cluster.largest_account_share == pytest.approx(large / (small + large))
    assert cluster.provenance == "observed"
    # Edges of buckets of 0.1 %: the near edge of longs is the upper one.
    assert 95.0 <= cluster.nearest_price < 95.0 * 1.001
    assert 94.95 / 1.001 < cluster.furthest_price <= 94.95


def test_distant_liquidation_prices_are_clusters_of_their_own_on_both_sides() -> None:
    made = world()
    for name, size, price in (("0xa", 10.0, 95.0), ("0xb", 10.0, 90.0), ("0xc", -5.0, 106.0)):
        hold(made, name, size, price)
    found = [(cluster.side, round(cluster.price, 6), round(cluster.notional_usd, 2)) for cluster in btc(made).clusters]
    assert sorted(found) == [("long", 90.0, 900.0), ("long", 95.0, 950.0), ("short", 106.0, 530.0)]
    short = next(cluster for cluster in btc(made, 2.0).clusters if cluster.side == "short")
    assert short.distance_ratio == pytest.approx(0.06)
    assert short.nearest_price <= 106.0 < short.furthest_price


def test_what_lies_beyond_the_grid_is_observed_but_in_no_cluster() -> None:
    made = world()
    hold(made, "0xfar", 10.0, 60.0)
    market = btc(made)
    assert market.clusters == ()
    assert (market.observed_long_base, market.observed_notional_usd, market.accounts) == (10.0, 1_000.0, 1)


def test_a_cluster_below_its_share_of_the_side_is_left_out() -> None:
    made = world()
    hold(made, "0xlarge", 99.0, 95.0)
    hold(made, "0xsmall", 1.0, 90.0)
    share = 90.0 / (90.0 + 99.0 * 95.0)
    assert len(btc(made, cluster_min_share=share * 0.99).clusters) == 2
    made.mark(0.5, 100.0)
    assert [cluster.accounts for cluster in btc(made, 2.0, cluster_min_share=share * 1.01).clusters] == [1]


def test_an_account_that_is_under_water_already_is_backlog_and_no_cluster() -> None:
    made = world()
    made.book(0, BIDS, ASKS)
    hold(made, "0xgone", 2.0, 101.0)
    hold(made, "0xnext", 1.5, 97.0)
    market = btc(made)
    assert [cluster.price for cluster in market.clusters] == [pytest.approx(97.0)]
    assert market.cascade_down is not None
    assert market.cascade_down.backlog_base == 2.0
    assert market.cascade_down.forced_in_reach_base == 1.5
    assert market.cascade_up is not None
    assert market.cascade_up.backlog_base == 0.0


def test_the_histogram_holds_every_cent_of_the_clusters() -> None:
    made = world()
    hold(made, "0xa", 10.0, 95.0)
    hold(made, "0xb", -7.0, 104.0)
    histogram = btc(made).histogram
    assert histogram is not None
    assert (sum(histogram.long_usd), sum(histogram.short_usd)) == (950.0, 728.0)
    assert histogram.price == sorted(histogram.price)
    assert all(abs(price / near - 1.0) < 0.001 for price, near in zip(histogram.price, (95.0, 104.0), strict=True))


# ----------------------------------------------------------------------------------------------------------------- cascades


def cascading() -> World:
    """Bids of 1 at 99 to 95 and a long of 2 that dies at 97; asks of 1 at 101 to 105 and a short of 3 that dies at 102."""
    made = world()
    made.book(0, BIDS, ASKS)
    hold(made, "0xlong", 2.0, 97.0)
    hold(made, "0xshort", -3.0, 102.0)
    return made


def test_the_barrier_is_depth_less_what_has_been_forced_before() -> None:
    found = down(cascading())
    # Needed at each level: 0, 1, 2, then 3 - 2 = 1 and 4 - 2 = 2; what has been passed stays passed.
    assert [(point.price, point.volume_base) for point in found.barrier] == [
        (99.0, 0.0),
        (98.0, 1.0),
        (97.0, 2.0),
        (96.0, 2.0),
        (95.0, 2.0),
    ]
    assert all(point.lower_base == point.volume_base == point.upper_base for point in found.barrier)
    [gap] = found.gaps
    assert (gap.from_price, gap.to_price, gap.barrier_base, gap.forced_base) == (97.0, 95.0, 2.0, 2.0)
    assert (found.depth_base, found.forced_in_reach_base, found.backlog_base, found.reach_price) == (5.0, 2.0, 0.0, 95.0)


def test_the_rising_side_is_the_mirror_image() -> None:
    found = up(cascading())
    # Needed: 0, 1, then 2 - 3 = -1, 0 and 1.
    assert [(point.price, point.volume_base) for point in found.barrier] == [
        (101.0, 0.0),
        (102.0, 1.0),
        (103.0, 1.0),
        (104.0, 1.0),
        (105.0, 1.0),
    ]
    [gap] = found.gaps
    assert (gap.from_price, gap.to_price, gap.barrier_base, gap.forced_base) == (102.0, 105.0, 1.0, 3.0)
    assert (found.depth_base, found.reach_price) == (5.0, 105.0)


def test_outside_flows_land_where_the_book_and_the_forced_orders_take_them() -> None:
    found = down(cascading(), exogenous_notional_usd=(50.0, 100.0, 150.0, 210.0, 1_000.0), exogenous_flow_multiples=())
    landed = [
        (one.exogenous_base, one.last_trade_price, one.best_quote_price, one.forced_base, one.unabsorbed_base, one.book_exhausted)
        for one in found.landing
    ]
    assert landed == [
        (0.5, 99.0, 99.0, 0.0, 0.0, False),
        # The whole first level: the last trade is still there, the best quote is not.
        (1.0, 99.0, 98.0, 0.0, 0.0, False),
        (1.5, 98.0, 98.0, 0.0, 0.0, False),
        # A trade at 97 sets the long off, and 2.1 + 2 eats the book down to its last level.
        (2.1, 95.0, 95.0, 2.0, 0.0, False),
        (10.0, 95.0, 95.0, 2.0, 7.0, True),
    ]


def test_an_outside_flow_that_takes_no_order_lands_nowhere() -> None:
    made = world()
    made.book(0, [(99.0, 1.0)], [(101.0, 1.0)])
    hold(made, "0xgone", 0.5, 101.0)
    found = down(made, exogenous_notional_usd=(10.0,), exogenous_flow_multiples=())
    # Even the backlog of 0.5 trades at the best bid, which holds.
    assert [(one.last_trade_price, one.forced_base, one.book_exhausted) for one in found.landing] == [(99.0, 0.5, False)]
    assert found.barrier[0].volume_base == 0.0


def test_survival_is_told_at_round_moves_up_to_where_the_book_ends() -> None:
    found = down(cascading(), exogenous_notional_usd=(1_000.0,), exogenous_flow_multiples=())
    # Of 10 sold: all at the touch; 10 against a depth of 1 and 2 above 98 and 97; 10 + 2 against 4 above 95. Moves of 0.2 to 1 %
    # end at the same level, and nothing is said of the moves of 7.5 % and more, because the book ends 5 % away.
    assert [(point.price, point.survival_ratio) for point in found.survival] == [
        (99.0, None),
        (98.0, 10.0),
        (97.0, 5.0),
        (95.0, 3.0),
    ]
    assert all(point.exogenous_base == 10.0 for point in found.survival)
    assert found.survival_ratio == 3.0
    assert max(SURVIVAL_MOVES) > 0.05


def test_without_an_outside_flow_there_is_no_survival_and_no_landing() -> None:
    found = down(cascading(), exogenous_notional_usd=(), exogenous_flow_multiples=(1.0,))
    # The flow of a minute is not known yet.
    assert (found.landing, found.survival, found.survival_ratio) == ((), (), None)
    assert len(found.barrier) == 5


def test_typical_flow_adds_its_multiples_to_the_outside_flows_in_order() -> None:
    made = world()
    made.book(0, BIDS, ASKS)
    for minute in range(7):
        made.trade(60.0 * minute, 100.0, 4.0)
    made.mark(400, 100.0)
    made.book(400, BIDS, ASKS)
    market = btc(made, 400.0, exogenous_notional_usd=(100.0, 1_000.0), exogenous_flow_multiples=(0.5, 5.0))
    assert market.typical_flow_base == 4.0
    assert market.cascade_down is not None
    assert [one.exogenous_base for one in market.cascade_down.landing] == [1.0, 2.0, 10.0, 20.0]
    # Survival is told for the largest fixed flow, so that it does not change with the pace of trading.
    assert {point.exogenous_base for point in market.cascade_down.survival} == {10.0}


def test_the_flow_of_a_few_minutes_is_shown_with_its_coverage_but_is_no_scenario() -> None:
    made = world()
    for minute in range(4):
        made.trade(60.0 * minute, 100.0, 4.0)
    made.mark(200, 100.0)
    made.book(200, BIDS, ASKS)
    market = btc(made, 200.0, exogenous_notional_usd=(100.0,), exogenous_flow_multiples=(5.0,))
    assert market.typical_flow_base == 4.0
    assert market.flow_window_covered_ratio == pytest.approx(2 / 30)
    assert market.cascade_down is not None
    assert [one.exogenous_base for one in market.cascade_down.landing] == [1.0]


@pytest.mark.parametrize("points_max", [10, 37, 60])
def test_a_long_curve_is_thinned_out_between_its_first_and_last_level(points_max: int) -> None:
    made = world()
    made.book(0, ladder(99.9, -0.1, 200), ladder(100.1, 0.1, 150))
    for cascade, first, last in ((down(made, barrier_levels_max=points_max), 99.9, 80.0), (None, 100.1, 115.0)):
        found = cascade or up(made, barrier_levels_max=points_max)
        made.mark(0.5, 100.0)
        prices = [point.price for point in found.barrier]
        assert prices[0] == pytest.approx(first)
        assert prices[-1] == pytest.approx(last)
        assert points_max * 0.9 <= len(prices) <= points_max
        steps = [abs(after - before) for before, after in itertools.pairwise(prices)]
        assert max(steps) <= 2.5 * abs(last - first) / points_max
        assert all(before.volume_base <= after.volume_base for before, after in itertools.pairwise(found.barrier))


def test_a_short_curve_is_published_whole() -> None:
    assert len(down(cascading(), barrier_levels_max=10).barrier) == 5


# ------------------------------------------------------------------------------------------- coverage, ages, and what is unknown


def test_coverage_is_long_plus_short_over_twice_the_open_interest() -> None:
    made = cascading()
    made.interest(0, 10.0)
    market = btc(made)
    assert (market.observed_long_base, market.observed_short_base) == (2.0, 3.0)
    assert market.coverage_ratio == 5.0 / 20.0
    assert (market.open_interest_base, market.open_interest_usd) == (10.0, 1_000.0)
    assert market.observed_notional_usd == 500.0


@pytest.mark.parametrize(("interest", "at_s"), [(None, 1.0), (0.0, 1.0), (10.0, 61.0)], ids=["never heard", "zero", "stale"])
def test_coverage_is_unknown_without_open_interest(interest: float | None, at_s: float) -> None:
    made = cascading()
    if interest is not None:
        made.interest(0, interest)
    made.mark(at_s, 100.0)
    assert btc(made, at_s).coverage_ratio is None


def test_without_a_reference_price_nothing_that_depends_on_it_is_said() -> None:
    made = cascading()
    made.interest(0, 10.0)
    made.gap(0.5)
    made.interest(0.6, 10.0)
    made.book(0.6, BIDS, ASKS)
    market = btc(made)
    assert reasons(market)[0] == "mark"
    assert market.stale
    assert (market.reference_price, market.open_interest_usd, market.histogram) == (None, None, None)
    assert (market.clusters, market.cascade_down, market.cascade_up) == ((), None, None)
    assert market.observed_notional_usd is None
    assert (market.open_interest_base, market.best_bid) == (10.0, 99.0)


def test_without_a_book_there_are_clusters_but_no_cascades() -> None:
    made = world()
    hold(made, "0xa", 10.0, 95.0)
    market = btc(made)
    assert (market.cascade_down, market.cascade_up, market.best_bid) == (None, None, None)
    assert len(market.clusters) == 1
    assert market.stale
    assert market.stale_reasons == ("book: nothing received",)


@pytest.mark.parametrize("mode", ["unified", "portfolio", "unknown"])
def test_accounts_whose_collateral_is_elsewhere_are_left_out_and_counted(mode: str) -> None:
    made = world()
    made.account(0, "0xa", dies_at(95.0, 10.0), ("BTC", 10.0), mode=mode)
    hold(made, "0xb", 1.0, 95.0)
    market = btc(made)
    assert (market.accounts, market.accounts_excluded) == (1, 1)
    assert market.observed_long_base == 1.0
    assert [cluster.notional_usd for cluster in market.clusters] == [pytest.approx(95.0)]


def test_accounts_in_a_market_with_unknown_margin_rules_are_left_out() -> None:
    made = World()
    made.mark(0, 100.0)
    made.mark(0, 50.0, "ETH")
    hold(made, "0xa", 10.0, 95.0)
    market = btc(made)
    assert (market.accounts, market.accounts_excluded, market.clusters) == (0, 1, ())
    assert (market.oldest_account_age_s, market.median_account_age_s) == (None, None)


def test_accounts_that_also_hold_what_has_no_price_are_left_out() -> None:
    made = world()
    made.account(0, "0xa", 500.0, ("BTC", 10.0), ("DOGE", 1_000.0))
    hold(made, "0xb", 1.0, 95.0)
    market = btc(made)
    assert (market.accounts, market.accounts_excluded) == (1, 1)


def test_the_ages_of_accounts_are_those_of_the_ones_inside() -> None:
    made = world()
    for number, at_s in enumerate((0.0, 3.0, 4.0)):
        hold(made, f"0x{number}", 1.0, 95.0, at_s)
    market = btc(made, 5.0)
    assert (market.oldest_account_age_s, market.median_account_age_s) == (5.0, 2.0)


def test_accounts_are_left_out_when_their_state_is_too_old() -> None:
    made = world()
    hold(made, "0xold", 1.0, 95.0, 0.0)
    hold(made, "0xnew", 1.0, 95.0, 590.0)
    made.mark(601, 100.0)
    market = btc(made, 601.0)
    assert (market.accounts, market.accounts_excluded) == (1, 1)
    assert market.observed_long_base == 1.0


def test_a_market_that_lost_most_of_its_accounts_is_stale_and_says_how_many() -> None:
    made = world()
    for number in range(3):
        hold(made, f"0x{number}", 1.0, 95.0, 0.0 if number else 590.0)
    made.mark(601, 100.0)
    made.book(601, BIDS, ASKS)
    market = btc(made, 601.0)
    assert market.stale
    assert market.stale_reasons == ("accounts: 2 of 3 known here wait for a poll or for the price of what they hold",)


def test_one_large_account_that_is_lost_makes_a_market_stale_although_many_small_ones_are_left() -> None:
    made = world()
    made.book(0, BIDS, ASKS)
    for number in range(5):
        hold(made, f"0x{number}", 1.0, 95.0)
    assert not btc(made).stale
    made.account(0, "0xwhale", 500.0, ("BTC", 6.0), ("DOGE", 1_000.0))
    market = btc(made)
    assert (market.accounts, market.accounts_excluded) == (5, 1)
    assert reasons(market) == ["accounts"]


# ------------------------------------------------------------------------------------------- accounts that are not plain


def special(cash: float, *positions: PositionReport, holdings: tuple[tuple[str, float], ...] = ()) -> World:
    """BTC at 100, an inverse contract on it at 100 and WETH at 50, of which 80 % count; one account of any kind, and books."""
    made = World("BTC", "BTCUSD", "WETH")
    made.instruments(0, "BTC")
    inverse = Instrument("BTCUSD", (MarginTier(0.0, 0.01, 0.0),), contract="inverse")
    asset = Instrument("WETH", (), contract="asset", collateral_ratio=0.8)
    made.engine.apply(Instruments(**made.origin(0, "rest"), instruments=(inverse, asset), complete=False))
    for symbol, price in (("BTC", 100.0), ("BTCUSD", 100.0), ("WETH", 50.0)):
        made.mark(0, price, symbol)
        made.book(0, BIDS, ASKS, symbol)
    made.engine.apply(
        AccountSnapshot(
            **made.origin(0, "rest"),
            account="0xspecial",
            exchange_ns=ns(0),
            cross_cash_usd=cash,
            positions=positions,
            holdings=tuple(HoldingReport(*held) for held in holdings),
            mode="standard",
        )
    )
    return made


def told(symbol: str, size: float, side: Literal["net", "long", "short"] = "net") -> PositionReport:
    return PositionReport(symbol, size, 100.0, None, None, None, side)


def market_of(made: World, symbol: str) -> MarketProjection:
    return next(market for market in project(made).markets if market.symbol == symbol)


def test_an_inverse_position_is_observed_and_forced_in_coins() -> None:
    """1,000 USD long from 100 with 45 USD: 45 + 10 p - 1,000 = 10 at 96.5, where it sells 10.36 coins."""
    made = special(45.0, told("BTCUSD", 1_000.0))
    market = market_of(made, "BTCUSD")
    assert (market.observed_long_base, market.observed_short_base, market.accounts) == (10.0, 0.0, 1)
    assert market.observed_notional_usd == pytest.approx(1_000.0)
    [cluster] = market.clusters
    assert cluster.side == "long"
    assert cluster.price == pytest.approx(96.5)
    assert cluster.notional_usd == pytest.approx(1_000.0, abs=0.01)
    assert market.cascade_down is not None
    assert market.cascade_down.forced_in_reach_base == pytest.approx(1_000.0 / 96.5)


def test_a_hedge_is_observed_on_both_sides_and_forced_with_its_excess() -> None:
    made = special(-96.5 * 5.86, told("BTC", 10.0, "long"), told("BTC", -4.0, "short"))
    market = market_of(made, "BTC")
    assert (market.observed_long_base, market.observed_short_base, market.accounts) == (10.0, 4.0, 1)
    [cluster] = market.clusters
    assert (cluster.side, cluster.accounts) == ("long", 1)
    assert cluster.price == pytest.approx(96.5)
    assert market.cascade_down is not None
    assert market.cascade_down.forced_in_reach_base == pytest.approx(6.0)
    assert market.cascade_up is not None
    assert market.cascade_up.forced_in_reach_base == 0.0


def test_a_hedge_and_an_inverse_position_under_water_are_backlog() -> None:
    cascade = market_of(special(-700.0, told("BTC", 10.0, "long"), told("BTC", -4.0, "short")), "BTC").cascade_down
    assert cascade is not None
    assert (cascade.backlog_base, cascade.forced_in_reach_base) == (6.0, 0.0)
    cascade = market_of(special(5.0, told("BTCUSD", -1_000.0)), "BTCUSD").cascade_up
    assert cascade is not None
    assert (cascade.backlog_base, cascade.forced_in_reach_base) == (10.0, 0.0)


def test_collateral_is_in_no_total_and_no_cluster_of_its_own_market() -> None:
    # Worth 0.8 * 50 * 10 = 400 with the collateral; dies when BTC reaches 96.5.
    made = special(-400.0 - 96.5 * 9.9, told("BTC", 10.0), holdings=(("WETH", 10.0),))
    asset = market_of(made, "WETH")
    assert (asset.observed_long_base, asset.accounts, asset.accounts_excluded, asset.clusters) == (0.0, 0, 0, ())
    assert asset.cascade_down is not None
    assert (asset.cascade_down.forced_in_reach_base, asset.cascade_down.backlog_base) == (0.0, 0.0)
    [cluster] = market_of(made, "BTC").clusters
    assert cluster.price == pytest.approx(96.5)
    made.mark(0.5, 49.0, "WETH")
    [cluster] = btc(made).clusters
    assert cluster.price == pytest.approx(96.5 + 8.0 / 9.9), "with less collateral it dies earlier"


# -------------------------------------------------------------------------------------------------------------- the function


def test_an_evaluation_is_a_pure_function_of_its_inputs() -> None:
    inputs = cascading().engine.freeze(ns(1))
    first = msgspec.json.encode(evaluate(inputs))
    workspace = Workspace(100)
    assert all(msgspec.json.encode(evaluate(inputs, given)) == first for given in (None, workspace, workspace))


def test_markets_come_in_order_and_those_that_did_not_change_as_they_were() -> None:
    made = World("ETH", "BTC")
    made.instruments(0)
    made.mark(0, 100.0)
    made.mark(0, 50.0, "ETH")
    first = made.engine.project(ns(0.5))
    assert [market.symbol for market in first.markets] == ["BTC", "ETH"]
    made.mark(0.6, 51.0, "ETH")
    second = made.engine.project(ns(0.7))
    assert second.markets[0] is first.markets[0]
    assert (second.markets[1].reference_price, second.markets[1].as_of_ns) == (51.0, ns(0.7))
    assert (second.as_of_ns, second.sequence) == (ns(0.7), first.sequence + 1)
