"""Margin arithmetic against the golden vectors and a scalar reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.margin import (
    TierError,
    base_coefficient,
    build_tier_table,
    check_tiers,
    has_jumps,
    leg_value,
    second_tier_price,
    solve_tiered_trigger,
)

BTC_TIERS = (MarginTier(0.0, 0.0125, 0.0), MarginTier(150e6, 0.025, 1_875_000.0))
MID_CAP_TIERS = (MarginTier(0.0, 0.05, 0.0), MarginTier(20e6, 0.1, 1_000_000.0))
FLAT = (MarginTier(0.0, 0.02, 0.0),)
THREE_TIERS = (MarginTier(0.0, 0.01, 0.0), MarginTier(1e6, 0.02, 10_000.0), MarginTier(5e6, 0.05, 160_000.0))


def one(value: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([value])


FIRST = np.zeros(1, dtype=np.int32)


def test_maintenance_of_a_200_million_position_uses_the_second_tier_and_its_deduction() -> None:
    """Golden vector 7: 200 M at 2.5 % less the deduction of 1.875 M."""
    table = build_tier_table([BTC_TIERS])
    _, maintenance = leg_value(one(2_000.0), one(100_000.0), FIRST, table)
    assert maintenance[0] == 3_125_000.0


def test_maintenance_is_continuous_where_the_tiers_meet() -> None:
    """Golden vector 7: both tiers give 1.875 M at 150 M."""
    table = build_tier_table([BTC_TIERS])
    _, at_bound = leg_value(one(1_500.0), one(100_000.0), FIRST, table)
    _, below = leg_value(one(1_500.0), one(np.nextafter(100_000.0, 0.0)), FIRST, table)
    assert at_bound[0] == 1_875_000.0
    assert below[0] == pytest.approx(1_875_000.0, rel=1e-12)


def test_a_short_that_grows_into_the_next_tier_is_liquidated_at_that_tiers_price() -> None:
    """Golden vector 9: the first tier alone would say 41.9048."""
    table = build_tier_table([MID_CAP_TIERS])
    size, mark, equity = -500_000.0, 30.0, 7e6
    cash = equity - size * mark
    root = solve_tiered_trigger(one(size), FIRST, one(cash), table)
    assert root[0] == pytest.approx(41.8182, abs=5e-5)
    naive = -cash / (size - 0.05 * abs(size))
    assert naive == pytest.approx(41.9048, abs=5e-5)


def maintenance(notional: float, tiers: tuple[MarginTier, ...]) -> float:
    tier = max((tier for tier in tiers if tier.lower_bound_usd <= notional), key=lambda tier: tier.lower_bound_usd)
    return notional * tier.maintenance_rate - tier.deduction_usd


@given(
    st.floats(1e-3, 1e6),
    st.booleans(),
    st.floats(0.01, 1e5),
    st.floats(0.001, 3.0),
)
def test_at_the_trigger_price_equity_equals_maintenance(size: float, long: bool, mark: float, equity_share: float) -> None:
    signed = size if long else -size
    cash = equity_share * size * mark - signed * mark
    table = build_tier_table([THREE_TIERS])
    price = float(solve_tiered_trigger(one(signed), FIRST, one(cash), table)[0])
    assert not np.isnan(price)
    if price <= 0.0:
        # No positive price: the account is solvent at any of them.
        assert long
        assert cash >= 0.0
        return
    surplus = cash + signed * price - maintenance(size * price, THREE_TIERS)
    assert surplus == pytest.approx(0.0, abs=1e-9 * (abs(cash) + size * price))


def test_slope_and_second_tier_price_describe_the_first_tier() -> None:
    table = build_tier_table([BTC_TIERS, ()])
    size = np.array([10.0, -10.0])
    market = np.zeros(2, dtype=np.int32)
    np.testing.assert_allclose(base_coefficient(size, 0.0125), [9.875, -10.125])
    np.testing.assert_allclose(second_tier_price(size, market, table), [15e6, 15e6])


def test_a_market_with_unknown_tiers_makes_the_leg_unknown() -> None:
    table = build_tier_table([(), BTC_TIERS])
    value, held = leg_value(one(1.0), one(100.0), FIRST, table)
    assert np.isnan(value[0])
    assert np.isnan(held[0])


def test_an_empty_list_of_markets_gives_an_empty_table() -> None:
    assert build_tier_table([]).rate.shape == (0, 1)


@pytest.mark.parametrize(
    ("tiers", "text"),
    [
        ((MarginTier(5.0, 0.01, 0.0),), "starts at 5.0, not at 0"),
        ((MarginTier(0.0, 0.01, 0.0), MarginTier(0.0, 0.02, 0.0)), "tier 1 does not start above tier 0"),
        ((MarginTier(0.0, 1.0, 0.0),), "tier 0 has a maintenance rate of 1.0"),
        ((MarginTier(0.0, float("nan"), 0.0),), "tier 0 has a maintenance rate of nan"),
    ],
)
def test_impossible_tiers_are_refused_by_name(tiers: tuple[MarginTier, ...], text: str) -> None:
    with pytest.raises(TierError, match=f"^BTC: .*{text}"):
        check_tiers("BTC", tiers)


def test_tables_without_deductions_have_jumps_and_others_have_none() -> None:
    without = (MarginTier(0.0, 0.01, 0.0), MarginTier(1_000.0, 0.05, 0.0))
    rounded = (MarginTier(0.0, 0.01, 0.0), MarginTier(1e6, 0.02, 10_000.009))
    assert has_jumps(build_tier_table([BTC_TIERS, without, (), THREE_TIERS, rounded, FLAT])).tolist() == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert has_jumps(build_tier_table([FLAT])).tolist() == [False]
    assert has_jumps(build_tier_table([])).tolist() == []
