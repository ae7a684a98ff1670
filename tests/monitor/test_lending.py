"""Rules of lending pools. Vector I and the published examples are in test_golden_vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.contracts import ColumnLegs, column_values, solve_column
from monitor.lending import (
    CALLS_MAX,
    CloseFactorRule,
    bad_debt_after_calls,
    bad_debt_if_halted,
    comet_absorption,
    effective_threshold,
    eligible_drop,
    exhaustion_drop,
    health_factor,
    is_comet_liquidatable,
    is_in_bitmap,
    is_lending_liquidatable,
    is_morpho_healthy,
    is_toxic,
    leaves_dust,
    morpho_incentive,
    repayable_debt,
    repayment_for,
    repayment_to_health,
    seized_collateral,
    simulate_calls,
)
from monitor.margin import ASSET, Array, build_tier_table

NO_TIERS = build_tier_table([()])


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


def asset_legs(quantities: list[float], thresholds: list[float]) -> ColumnLegs:
    count = len(quantities)
    return ColumnLegs(
        np.zeros(count, int), np.full(count, ASSET, np.int8), array(*quantities), np.full(count, math.nan), array(*thresholds),
        np.zeros(count, int),
    )  # fmt: skip


AMOUNTS = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=4)


@given(AMOUNTS, AMOUNTS, st.data())
def test_health_above_one_is_a_surplus_above_zero(supplied: list[float], borrowed: list[float], data: st.DataObject) -> None:
    """A lending account is an affine account whose legs are assets (design.md 3)."""
    thresholds = [data.draw(st.floats(0.3, 0.97)) for _ in supplied]
    prices = [data.draw(st.floats(0.5, 2e3)) for _ in (*supplied, *borrowed)]
    legs = asset_legs([*supplied, *(-quantity for quantity in borrowed)], [*thresholds, *(math.nan for _ in borrowed)])
    surplus = column_values(legs, array(*prices), NO_TIERS).surplus_usd.sum()
    values = array(*supplied) * array(*prices[: len(supplied)])
    debts = array(*borrowed) * array(*prices[len(supplied) :])
    health = float(health_factor(values, array(*thresholds), debts))
    if abs(health - 1.0) > 1e-9:
        assert (health > 1.0) == (surplus > 0.0)
        assert bool(is_lending_liquidatable(values, array(*thresholds), debts)) == (health < 1.0)


def test_the_price_at_which_a_borrower_may_be_liquidated_is_that_of_the_column() -> None:
    """10 coins at 2,000 with a threshold of 83 % against 12,000: 12,000 / 8.3."""
    found = solve_column(asset_legs([10.0], [0.83]), array(-12_000.0), array(2_000.0), NO_TIERS)
    assert found.fall[0] == pytest.approx(12_000.0 / 8.3, rel=1e-12)
    health = float(health_factor(array(20_000.0), array(0.83), array(12_000.0)))
    assert 2_000.0 * (1.0 - float(eligible_drop(health))) == pytest.approx(found.fall[0], rel=1e-12)


def test_a_borrowed_asset_triggers_when_it_rises() -> None:
    found = solve_column(asset_legs([-5.0], [math.nan]), array(830.0), array(100.0), NO_TIERS)
    assert found.rise[0] == pytest.approx(166.0, rel=1e-12)
    assert np.isnan(found.fall[0])


HEALTH = {
    "no debt": ([100.0], [0.8], [0.0], math.inf),
    "nothing at all": ([0.0], [0.8], [0.0], math.inf),
    "debt without collateral": ([0.0], [0.8], [5.0], 0.0),
    "two assets": ([100.0, 50.0], [0.8, 0.5], [70.0], 1.5),
    "an unknown threshold": ([100.0], [math.nan], [70.0], math.nan),
    "an unknown threshold without debt": ([100.0], [math.nan], [0.0], math.nan),
    "an unknown threshold of nothing": ([100.0, 0.0], [0.8, math.nan], [80.0], 1.0),
    "an unknown debt": ([100.0], [0.8], [math.nan], math.nan),
}


@pytest.mark.parametrize("name", HEALTH)
def test_health_of_borrowers(name: str) -> None:
    collateral, thresholds, debts, expected = HEALTH[name]
    assert float(health_factor(array(*collateral), array(*thresholds), array(*debts))) == pytest.approx(expected, nan_ok=True)


def test_a_borrower_at_exactly_one_is_safe_and_an_unknown_one_is_not_touched() -> None:
    found = is_lending_liquidatable(
        array(100.0, 100.0, math.nan)[:, None], np.full((3, 1), 0.8), array(80.0, 80.01, 500.0)[:, None]
    )
    assert found.tolist() == [False, True, False]


E_MODE = {
    "no category": (0, 0.83),
    "a category that has the asset in its bitmap": (1, 0.95),
    "another one": (3, 0.9),
    "a category without the asset": (2, 0.83),
}


@pytest.mark.parametrize("name", E_MODE)
def test_the_threshold_of_a_category_counts_only_if_the_asset_is_in_its_bitmap(name: str) -> None:
    category, expected = E_MODE[name]
    assert effective_threshold(0.83, category, ((1, 0.95), (3, 0.9))) == expected


def test_an_unknown_threshold_stays_unknown_outside_of_the_category() -> None:
    assert effective_threshold(None, 2, ((1, 0.95),)) is None
    assert effective_threshold(None, 1, ((1, 0.95),)) == 0.95


def test_bits_of_a_bitmap_are_reserves() -> None:
    assert [reserve for reserve in range(-1, 130) if is_in_bitmap(0b1001 | 1 << 127, reserve)] == [0, 3, 127]


CLOSE: dict[str, tuple[CloseFactorRule, float, float, float, float, float]] = {
    # rule, health, debt reserve, collateral reserve, total debt, repayable
    "since 3.3, healthy enough and large: half of the total": ("aave_3_3", 0.97, 8_000.0, 20_000.0, 10_000.0, 5_000.0),
    "since 3.3, a reserve below half of the total is closed whole": ("aave_3_3", 0.97, 4_000.0, 20_000.0, 10_000.0, 4_000.0),
    "since 3.3, exactly 0.95 is full": ("aave_3_3", 0.95, 8_000.0, 20_000.0, 10_000.0, 8_000.0),
    "since 3.3, little debt is full": ("aave_3_3", 0.97, 1_999.0, 20_000.0, 3_000.0, 1_999.0),
    "since 3.3, little collateral is full": ("aave_3_3", 0.97, 8_000.0, 1_999.0, 10_000.0, 8_000.0),
    "since 3.3, exactly 2,000 of both is half": ("aave_3_3", 0.97, 2_000.0, 2_000.0, 2_000.0, 1_000.0),
    "before 3.3, half of the reserve": ("aave_before_3_3", 0.97, 8_000.0, 20_000.0, 10_000.0, 4_000.0),
    "before 3.3, half of a small reserve too": ("aave_before_3_3", 0.97, 100.0, 20_000.0, 10_000.0, 50.0),
    "before 3.3, everything at 0.95": ("aave_before_3_3", 0.95, 8_000.0, 20_000.0, 10_000.0, 8_000.0),
    "no close factor": ("all", 0.999, 8_000.0, 20_000.0, 10_000.0, 8_000.0),
    "a healthy borrower": ("aave_3_3", 1.0, 8_000.0, 20_000.0, 10_000.0, 0.0),
    "an unknown borrower": ("aave_3_3", math.nan, 8_000.0, 20_000.0, 10_000.0, math.nan),
}


@pytest.mark.parametrize("name", CLOSE)
def test_one_call_repays_what_the_version_allows(name: str) -> None:
    rule, health, debt, collateral, total, expected = CLOSE[name]
    assert float(repayable_debt(rule, health, debt, collateral, total)) == pytest.approx(expected, nan_ok=True)


def test_seized_collateral_is_the_debts_value_and_the_bonus() -> None:
    assert float(seized_collateral(1_000.0, 0.05, 1.0, 2_000.0)) == pytest.approx(0.525)
    assert float(repayment_for(1_050.0, 0.05)) == pytest.approx(1_000.0)


def test_a_call_may_leave_nothing_but_not_a_little() -> None:
    left, owed = array(0.0, 999.0, 1_000.0, 5_000.0, 0.0), array(0.0, 0.0, 1_000.0, 1.0, 999.0)
    assert leaves_dust(left, owed).tolist() == [False, True, False, True, True]


def test_the_repayment_that_restores_health() -> None:
    """The numbers of models.md 3.9."""
    assert float(repayment_to_health(1.0, 100.0, 84.0, 0.83, 0.05)) == pytest.approx(7.7821, abs=5e-5)
    assert float(repayment_to_health(1.05, 100.0, 84.0, 0.83, 0.05)) == pytest.approx(29.1317, abs=5e-5)


@given(st.floats(0.3, 0.94), st.floats(0.0, 0.1), st.floats(0.4, 1.2), st.floats(1.0, 1.2))
def test_after_the_repayment_health_is_the_target(threshold: float, bonus: float, ltv: float, target: float) -> None:
    collateral, debt = 100.0, 100.0 * ltv
    repaid = float(repayment_to_health(target, collateral, debt, threshold, bonus))
    if math.isnan(repaid):
        assert threshold * (1.0 + bonus) >= target or bool(is_toxic(collateral, debt, bonus)) or ltv * (1.0 + bonus) > 1.0 - 1e-9
        return
    left, owed = collateral - repaid * (1.0 + bonus), debt - repaid
    assert min(left, owed) >= -1e-9
    if repaid == 0.0:
        assert threshold * collateral >= target * debt
    else:
        assert threshold * left == pytest.approx(target * owed, abs=1e-9 * debt)


@given(st.floats(0.3, 0.95), st.floats(0.001, 0.1), st.floats(0.5, 1.3), st.floats(0.01, 0.2))
def test_a_call_lowers_health_exactly_where_the_borrower_is_toxic(threshold: float, bonus: float, ltv: float, part: float) -> None:
    collateral, debt = 100.0, 100.0 * ltv
    repaid = part * debt
    before = threshold * collateral / debt
    after = threshold * (collateral - repaid * (1.0 + bonus)) / (debt - repaid)
    if abs(ltv * (1.0 + bonus) - 1.0) > 1e-6:
        assert bool(is_toxic(collateral, debt, bonus)) == (after < before)
        assert bool(is_toxic(collateral, debt, bonus)) == (before < threshold * (1.0 + bonus))


@given(st.floats(0.3, 0.95), st.floats(0.0, 0.1), st.floats(0.3, 1.5), st.floats(0.05, 1.0))
def test_calls_end_with_a_healthy_borrower_or_with_the_bad_debt_of_the_closed_form(
    threshold: float, bonus: float, ltv: float, close_factor: float
) -> None:
    debt = 100.0 * ltv
    series = simulate_calls(100.0, debt, threshold, bonus, close_factor=close_factor)
    assert min(float(series.collateral), float(series.debt)) >= 0.0
    if math.isnan(series.bad_debt):
        assert int(series.calls) == CALLS_MAX
        return
    if float(series.collateral) == 0.0:
        assert float(series.bad_debt) == float(series.debt)
        assert float(series.debt) == pytest.approx(float(bad_debt_after_calls(100.0, debt, bonus)), abs=1e-8)
    else:
        assert float(series.bad_debt) == 0.0
        healthy = threshold * float(series.collateral) >= float(series.debt)
        assert healthy or float(series.debt) <= 1e-9 or float(series.collateral) <= 1e-9
    if threshold * 100.0 < debt and debt * (1.0 + bonus) > 100.0 * (1.0 + 1e-9):
        assert float(series.bad_debt) == pytest.approx(debt - 100.0 / (1.0 + bonus), abs=1e-8)


def test_calls_too_small_to_come_to_an_end_leave_the_bad_debt_unknown() -> None:
    series = simulate_calls(100.0, 99.0, 0.8, 0.05, close_factor=0.001)
    assert int(series.calls) == CALLS_MAX
    assert math.isnan(series.bad_debt)


def test_no_grain_of_collateral_hides_a_bad_debt() -> None:
    bonus = np.linspace(0.0, 0.15, 301)
    series = simulate_calls(100.0, 130.0, 0.8, bonus)
    assert series.collateral.tolist() == [0.0] * 301
    assert series.bad_debt == pytest.approx(130.0 - 100.0 / (1.0 + bonus), rel=1e-9)


def test_calls_go_on_for_each_borrower_by_himself() -> None:
    series = simulate_calls(array(100.0, 100.0, 0.0), array(84.0, 50.0, 3.0), 0.83, 0.05)
    assert series.calls.tolist() == [1, 0, 0]
    assert series.collateral.tolist() == pytest.approx([55.9, 100.0, 0.0])
    assert series.bad_debt.tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize("close_factor", [0.0, -0.5, 1.01, math.nan])
def test_a_close_factor_that_is_none_is_refused(close_factor: float) -> None:
    with pytest.raises(ValueError, match="close factor"):
        simulate_calls(1.0, 1.0, 0.8, 0.05, close_factor=close_factor)


@given(st.floats(1.001, 3.0), st.floats(0.3, 0.97), st.floats(0.0, 0.1))
def test_calls_stop_helping_at_the_exhaustion_drop(health: float, threshold: float, bonus: float) -> None:
    drop = float(exhaustion_drop(health, threshold, bonus))
    assert drop >= float(eligible_drop(health))
    debt = threshold * 100.0 / health
    for side in (-1e-6, 1e-6):
        value = 100.0 * (1.0 - drop - side)
        eligible = threshold * value < debt
        stuck = eligible and bool(is_toxic(value, debt, bonus))
        assert stuck == (side > 0.0)


def test_a_threshold_without_room_for_the_bonus_is_exhausted_where_it_becomes_eligible() -> None:
    """0.95 * 1.1 is above 1: the first call comes too late already."""
    assert float(exhaustion_drop(1.25, 0.95, 0.1)) == float(eligible_drop(1.25)) == pytest.approx(0.2)


def test_no_repayment_restores_health_where_the_threshold_leaves_no_room_for_the_bonus() -> None:
    assert math.isnan(repayment_to_health(1.0, 100.0, 96.0, 0.95, 0.1))
    assert float(repayment_to_health(1.0, 100.0, 95.0, 0.95, 0.1)) == 0.0


def test_the_loss_if_nobody_liquidates_is_what_the_price_leaves_uncovered() -> None:
    assert bad_debt_if_halted(array(100.0, 100.0), array(102.0, 97.0)).tolist() == [2.0, 0.0]


def test_a_comet_account_is_absorbed_when_its_weighted_collateral_does_not_cover_it() -> None:
    base, collateral = array(-80.0, -80.0, 5.0, -1.0), np.array([[100.0], [100.0], [0.0], [0.0]])
    factor = np.array([[0.79], [0.8], [math.nan], [math.nan]])
    assert is_comet_liquidatable(base, collateral, factor).tolist() == [True, False, False, True]


def test_an_absorbed_account_keeps_what_is_left_and_owes_nothing() -> None:
    left = comet_absorption(array(-80.0, -98.0), np.array([[100.0], [100.0]]), np.array([[0.93], [0.93]]))
    assert left == pytest.approx([13.0, 0.0])


def test_a_comet_account_is_an_affine_account() -> None:
    found = solve_column(asset_legs([2.0], [0.8]), array(-80.0), array(100.0), NO_TIERS)
    at = float(found.fall[0])
    for price, dead in ((at * (1.0 - 1e-9), True), (at * (1.0 + 1e-9), False)):
        assert is_comet_liquidatable(array(-80.0), np.array([[2.0 * price]]), np.array([[0.8]])).tolist() == [dead]


def test_morpho_pays_at_most_fifteen_percent() -> None:
    assert morpho_incentive(array(0.0, 0.5, 1.0)) == pytest.approx([1.15, 1.15, 1.0])


def test_a_morpho_position_at_exactly_its_limit_is_healthy() -> None:
    """2 collateral tokens of 18 decimals at 1,500 loan tokens of 6 decimals: the oracle's price has 36 + 6 - 18 decimals."""
    price = 1_500 * 10.0 ** (36 + 6 - 18)
    limit = 2 * 1_500 * 0.86 * 1e6
    found = is_morpho_healthy(2e18, price, 0.86, array(limit - 1.0, limit + 1.0))
    assert found.tolist() == [True, False]
