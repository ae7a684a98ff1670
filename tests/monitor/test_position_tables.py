"""Positions that keep the margin table they were opened under, when the venue has given their market another one."""

from __future__ import annotations

import pytest

from connectors.events import AccountModeReport, AccountSnapshot, Instrument, Instruments, MarginTier, PositionReport
from connectors.hyperliquid_markets import margin_tiers
from monitor.account_queries import AccountQueries
from monitor.account_report import AccountQuery
from monitor.state.market_table import VARIANTS_MAX
from tests.monitor.world import VENUE, World, ladder, ns

PRICE = 100.0
TIERS = margin_tiers([0.0, 100_000.0], [10.0, 5.0])


def opened(at_s: float = 0.0) -> World:
    world = World("BTC")
    world.engine.apply(Instruments(**world.origin(at_s, "rest"), instruments=(Instrument("BTC", TIERS),)))
    world.mark(at_s, PRICE)
    world.book(at_s, ladder(99.9, -0.1, 5), ladder(100.1, 0.1, 5))
    world.interest(at_s, 1_000.0)
    return world


def report(
    world: World,
    at_s: float,
    name: str,
    cash: float,
    size: float,
    max_leverage: float | None,
    theirs: float | None = None,
    maintenance: float | None = None,
) -> None:
    position = PositionReport("BTC", size, 90.0, None, theirs, 10.0, mark_price=PRICE, max_leverage=max_leverage)
    world.engine.apply(
        AccountSnapshot(
            **world.origin(at_s, "rest"),
            account=name,
            exchange_ns=ns(at_s),
            cross_cash_usd=cash,
            positions=(position,),
            maintenance_margin_usd=maintenance,
        )
    )
    world.engine.apply(AccountModeReport(**world.origin(at_s, "rest"), account=name, mode="standard"))


def liquidation_price(world: World, at_s: float, name: str) -> float | None:
    world.engine.project(ns(at_s))
    answer = AccountQueries(world.engine).account(VENUE, name, ns(at_s))
    assert answer is not None
    assert answer.state == "live", answer.reasons
    return answer.margins[0].legs[0].liquidation_price


def test_a_position_under_an_older_table_is_liquidated_by_that_ones_rate() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0)
    report(world, 0, "0xnew", -800.0, 10.0, 10.0)
    # -800 + 10 p = rate * 10 p, with half of the initial margin at 50x and at 10x.
    assert liquidation_price(world, 1, "0xold") == pytest.approx(80.0 / 0.99, rel=1e-12)
    assert liquidation_price(world, 1, "0xnew") == pytest.approx(80.0 / 0.95, rel=1e-12)


def test_the_leverage_of_a_higher_tier_of_the_markets_own_table_is_no_other_table() -> None:
    world = opened()
    report(world, 0, "0xlarge", -150_000.0, 2_000.0, 5.0)
    assert not world.engine.markets.base_of
    report(world, 0, "0xodd", -150_000.0, 2_000.0, 10.0)
    assert len(world.engine.markets.base_of) == 1


def test_a_report_without_leverage_or_mark_and_a_market_without_tables_have_no_variants() -> None:
    world = opened()
    report(world, 0, "0xa", -800.0, 10.0, None)
    world.engine.apply(Instruments(**world.origin(0, "rest"), instruments=(Instrument("ETH", (MarginTier(0.0, 0.01, 0.0),)),)))
    for symbol in ("ETH", "SOL"):
        position = PositionReport(symbol, 1.0, None, None, None, None, mark_price=10.0, max_leverage=50.0)
        world.engine.apply(
            AccountSnapshot(**world.origin(0, "rest"), account=symbol, exchange_ns=ns(0), cross_cash_usd=0.0, positions=(position,))
        )
    assert not world.engine.markets.base_of


def test_such_positions_are_part_of_their_market() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0)
    report(world, 0, "0xnew", -800.0, 10.0, 10.0)
    market = world.market(1)
    assert market.observed_long_base == 20.0
    assert (market.accounts, market.accounts_excluded, market.stale) == (2, 0, False)
    prices = [80.0 / 0.99, 80.0 / 0.95]
    assert sum(cluster.notional_usd for cluster in market.clusters) == pytest.approx(
        sum(10.0 * price for price in prices), abs=0.02
    )
    assert [len(world.engine.project(ns(2)).markets), len(list(world.engine.markets))] == [1, 1], "a variant is no market"
    listed = AccountQueries(world.engine).at_risk(AccountQuery(symbol="BTC", venue=VENUE), ns(2))
    assert {item.account for item in listed.accounts} == {"0xold", "0xnew"}


def test_such_positions_move_with_the_price_and_go_stale_with_it() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0)
    world.market(1)
    world.mark(2, 90.0)
    world.book(2, ladder(89.9, -0.1, 5), ladder(90.1, 0.1, 5))
    world.market(2)
    row = world.engine.accounts.row_of(VENUE, "0xold", create=False)
    assert world.engine.accounts.legs.surplus_usd[row] == pytest.approx(900.0 * 0.99 - 800.0, rel=1e-12)
    assert world.engine.survey.sweeps.largest_drift_ratio < 1e-12
    # The mark dies, and with it what is known of the account.
    assert world.market(30).stale
    answer = AccountQueries(world.engine).account(VENUE, "0xold", ns(30))
    assert answer is not None
    assert (answer.state, answer.reasons) == ("stale", ("BTC has no live price",))


def test_fills_carry_such_a_position_forward_and_close_it() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0)
    world.trade(1, 100.0, 4.0, "0xsomebody", "0xold")
    # Six are left, of which cash has been paid for: -800 + 400.
    assert liquidation_price(world, 2, "0xold") == pytest.approx(400.0 / (6.0 * 0.99), rel=1e-12)
    world.trade(3, 100.0, 6.0, "0xsomebody", "0xold")
    assert world.market(4).observed_long_base == 0.0
    assert world.engine.changes.fills.unexplained == 0


def test_a_later_report_under_the_markets_table_takes_the_variant_away() -> None:
    world = opened()
    report(world, 0, "0xa", -800.0, 10.0, 50.0)
    report(world, 1, "0xa", -800.0, 10.0, 10.0)
    assert world.market(2).observed_long_base == 10.0
    assert liquidation_price(world, 2, "0xa") == pytest.approx(80.0 / 0.95, rel=1e-12)


def test_the_venues_own_figures_of_such_positions_agree_with_ours() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0, theirs=80.0 / 0.99, maintenance=10.0)
    counts = {item.figure: item.counts for item in world.engine.disagreements.counts(VENUE)}
    # The mode was not known when the report came; the second one is compared.
    report(world, 1, "0xold", -800.0, 10.0, 50.0, theirs=80.0 / 0.99, maintenance=10.0)
    counts = {item.figure: item.counts for item in world.engine.disagreements.counts(VENUE)}
    assert counts == {"liquidation_price": (1, 0, 0, 0, 0, 0, 0, 0), "maintenance_margin": (1, 0, 0, 0, 0, 0, 0, 0)}


def test_more_tables_than_there_is_room_for_make_their_accounts_unknown() -> None:
    world = opened()
    for number in range(VARIANTS_MAX + 1):
        report(world, 0, f"0x{number}", -800.0, 10.0, 20.0 + number / 16.0)
    market = world.market(1)
    assert len(world.engine.markets.base_of) == VARIANTS_MAX
    assert market.accounts == VARIANTS_MAX
    answer = AccountQueries(world.engine).account(VENUE, f"0x{VARIANTS_MAX}", ns(1))
    assert answer is not None
    assert answer.state == "stale"


def test_a_fill_that_turns_such_a_position_over_opens_one_under_the_present_table() -> None:
    world = opened()
    report(world, 0, "0xold", -800.0, 10.0, 50.0)
    world.trade(1, 100.0, 15.0, "0xsomebody", "0xold")
    assert world.market(2).observed_short_base == 0.0, "unknown until it is asked again"
    report(world, 3, "0xold", 700.0, -5.0, 10.0)
    assert world.market(4).observed_short_base == 5.0
