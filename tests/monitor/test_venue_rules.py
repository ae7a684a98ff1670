from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin import Array
from monitor.venue_rules import (
    BINANCE,
    DYDX,
    HYPERLIQUID,
    OKX,
    RULES,
    MarginRules,
    dydx_fillable_price,
    dydx_order_size,
    hyperliquid_adl_score,
    hyperliquid_order_size,
    is_liquidatable,
    is_portfolio_liquidatable,
    is_taken_by_backstop,
    maintenance_cover_ratio,
    margin_usage_ratio,
    rules_of,
)


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


def test_every_venue_has_its_rules_under_its_own_name() -> None:
    assert set(RULES) == {
        "hyperliquid", "binance", "bybit", "okx", "dydx", "deribit", "bitmex", "aave", "compound", "morpho",
    }  # fmt: skip
    for venue, rules in RULES.items():
        assert rules_of(venue) is rules
        assert rules.venue == venue
        assert rules.source


def test_unverified_names_fields_that_have_a_value() -> None:
    """A field that is not known at all is ``None``, and needs no warning."""
    fields = {field.name for field in msgspec.structs.fields(MarginRules)}
    for rules in RULES.values():
        assert set(rules.unverified) <= fields
        assert [name for name in rules.unverified if getattr(rules, name) is None] == []


def test_shares_and_rates_are_fractions() -> None:
    for rules in RULES.values():
        for value in (rules.partial_share, rules.backstop_below, rules.liquidation_fee_rate, rules.portfolio_level):
            assert value is None or 0.0 <= value < 1.0


def test_what_is_compared_at_exactly_zero_differs_by_venue() -> None:
    surplus = array(-1e-9, 0.0, 1e-9, math.nan)
    dies_below = {
        venue for venue, rules in RULES.items() if is_liquidatable(surplus, rules).tolist() == [True, False, False, False]
    }
    dies_at = {venue for venue, rules in RULES.items() if is_liquidatable(surplus, rules).tolist() == [True, True, False, False]}
    assert dies_below == {"hyperliquid", "dydx", "aave", "compound", "morpho"}
    assert dies_at == {"binance", "bybit", "okx", "deribit", "bitmex"}


def test_a_private_venue_assumes_nothing_and_liquidates_at_zero() -> None:
    rules = rules_of("desk-7")
    assert rules.venue == "desk-7"
    known = {name for name in rules.__struct_fields__ if getattr(rules, name) not in (None, (), "")}
    assert known == {"venue", "unverified"}
    assert is_liquidatable(array(0.0), rules).tolist() == [True]


def test_the_default_for_private_venues_cannot_be_mistaken_for_a_venue() -> None:
    assert "desk-7" not in RULES


@pytest.mark.parametrize(
    ("requirement", "value", "dead"),
    [(74.9, 100.0, False), (75.0, 100.0, False), (75.1, 100.0, True), (0.0, 0.0, False), (1.0, 0.0, True), (math.nan, 1.0, False)],
)
def test_a_portfolio_account_dies_above_95_percent_with_the_floor_of_20_added(requirement: float, value: float, dead: bool) -> None:
    assert is_portfolio_liquidatable(array(requirement), array(value), HYPERLIQUID).tolist() == [dead]


def test_a_venue_without_portfolio_margin_has_no_level() -> None:
    with pytest.raises(ValueError, match="binance"):
        is_portfolio_liquidatable(array(1.0), array(1.0), BINANCE)


def test_the_backstop_takes_over_below_two_thirds_of_maintenance() -> None:
    equity, maintenance = array(66.6, 66.7, -5.0, math.nan), array(100.0, 100.0, 100.0, 100.0)
    assert is_taken_by_backstop(equity, maintenance, HYPERLIQUID).tolist() == [True, False, True, False]
    assert is_taken_by_backstop(equity, maintenance, OKX).tolist() == [False] * 4


def test_forced_orders_of_hyperliquid_are_a_fifth_above_100_thousand_and_everything_in_the_cooldown() -> None:
    size, price = array(1.0, 1.1, -2.0, 2.0, -2.0, 5.0, 5.0), array(1e5, 1e5, 1e5, 1e5, 1e5, math.nan, math.nan)
    cooldown = np.array([False, False, False, True, True, False, True])
    found = hyperliquid_order_size(size, price, cooldown)
    assert found == pytest.approx([1.0, 0.22, -0.4, 2.0, -2.0, math.nan, 5.0], nan_ok=True)


@given(st.floats(0.01, 1e6), st.floats(-1e4, 1e4).filter(lambda size: abs(size) > 1e-3))
def test_orders_of_dydx_are_a_tenth_between_1_thousand_and_100_thousand(price: float, size: float) -> None:
    closed = float(dydx_order_size(array(size), array(price))[0])
    notional = abs(closed) * price
    assert closed * size > 0.0
    assert notional == pytest.approx(min(max(0.1 * abs(size) * price, 1_000.0), 100_000.0, abs(size) * price), rel=1e-9)


def test_orders_of_dydx_are_unknown_without_a_price_and_nothing_without_a_position() -> None:
    assert dydx_order_size(array(1.0, 0.0), array(math.nan, 10.0)) == pytest.approx([math.nan, 0.0], nan_ok=True)


def test_the_ranking_for_deleveraging_is_by_price_gain_times_leverage() -> None:
    scores = hyperliquid_adl_score(
        array(120.0, 120.0, 100.0), array(100.0, 100.0, 100.0), array(1e4, 5e3, 1e4), array(1e3, 1e3, 1e3)
    )
    assert scores == pytest.approx([12.0, 6.0, 10.0])


def test_an_account_without_value_or_entry_has_no_rank() -> None:
    scores = hyperliquid_adl_score(array(1.0, 1.0), array(0.0, 1.0), array(1.0, 1.0), array(1.0, -1.0))
    assert np.isnan(scores).all()


@given(st.floats(1.0, 1e5), st.floats(0.01, 0.2), st.floats(-500.0, 2_000.0))
def test_the_fillable_price_is_the_codes_long_form_and_mirrors_for_shorts(price: float, rate: float, equity: float) -> None:
    """(PNNV - ABR * SMMR * PMMR) / PS of the chain's code, for both signs."""
    maintenance = 1_000.0
    rating = min(max(1.0 - equity / maintenance, 0.0), 1.0)
    for size in (3.0, -3.0):
        net_notional, own_maintenance = size * price, abs(size) * price * rate
        expected = (net_notional - rating * 1.5 * own_maintenance) / size
        found = dydx_fillable_price(array(price), array(size), array(rate), array(equity), array(maintenance))
        assert found[0] == pytest.approx(expected, rel=1e-12)
        assert (found[0] <= price) if size > 0.0 else (found[0] >= price)


def test_at_maintenance_the_fillable_price_is_the_oracle_and_without_equity_it_is_the_full_spread_away() -> None:
    found = dydx_fillable_price(array(100.0, 100.0), array(1.0, 1.0), array(0.03, 0.03), array(50.0, 0.0), array(50.0, 50.0))
    assert found == pytest.approx([100.0, 100.0 * (1.0 - 1.5 * 0.03)])
    assert DYDX.margin_price == "oracle"


RATIOS = {
    "half used": (50.0, 100.0, 0.5, 2.0),
    "at liquidation": (100.0, 100.0, 1.0, 1.0),
    "no positions": (0.0, 100.0, 0.0, math.inf),
    "nothing at all": (0.0, 0.0, 0.0, math.inf),
    "no equity": (50.0, 0.0, math.inf, 0.0),
    "negative equity": (50.0, -10.0, math.inf, -0.2),
    "unknown equity": (50.0, math.nan, math.nan, math.nan),
    "unknown maintenance": (math.nan, 100.0, math.nan, math.nan),
    "unknown equity without positions": (0.0, math.nan, math.nan, math.nan),
}


@pytest.mark.parametrize("name", RATIOS)
def test_ratios_for_display_are_one_at_liquidation_and_unknown_if_a_part_is(name: str) -> None:
    maintenance, equity, usage, cover = RATIOS[name]
    assert margin_usage_ratio(array(maintenance), array(equity)) == pytest.approx([usage], nan_ok=True)
    assert maintenance_cover_ratio(array(maintenance), array(equity)) == pytest.approx([cover], nan_ok=True)
