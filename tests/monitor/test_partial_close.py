"""Margin-keeping against a step-by-step simulation. Vectors C and Q are in test_golden_vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.partial_close import (
    closing_fee_usd,
    forced_density,
    lending_exponent,
    lending_share_kept,
    perpetual_exponent,
    perpetual_share_kept,
    shortfall_usd,
    slice_to_restore,
)


def perpetual_by_steps(trigger: float, price: float, mu: float, fee: float, *, long: bool, steps: int = 20_000) -> float:
    """Move the price in small steps and sell after each just enough to have equity = mu * notional again."""
    side = 1.0 if long else -1.0
    size, equity, last = 1.0, mu * trigger, trigger
    for now in np.geomspace(trigger, price, steps + 1)[1:].tolist():
        equity += side * size * (now - last)
        # equity - fee p x = mu p (size - x)
        sold = (mu * now * size - equity) / ((mu - fee) * now)
        equity -= fee * now * sold
        size -= sold
        last = now
    return size


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize(("mu", "fee"), [(0.05, 0.0), (0.05, 0.0125), (0.01, 0.0025), (0.1, 0.005)])
def test_what_is_kept_is_what_small_steps_leave(long: bool, mu: float, fee: float) -> None:
    price = 99.0 if long else 101.0
    kept = float(perpetual_share_kept(price, 100.0, mu, fee, long=long))
    assert kept == pytest.approx(perpetual_by_steps(100.0, price, mu, fee, long=long), rel=2e-4)


@pytest.mark.parametrize(("threshold", "bonus"), [(0.83, 0.05), (0.75, 0.05), (0.95, 0.01), (0.9, 0.04)])
def test_what_is_kept_of_collateral_is_what_small_steps_leave(threshold: float, bonus: float) -> None:
    collateral, debt = 1.0, threshold * 100.0
    for price in np.geomspace(100.0, 95.0, 20_001)[1:].tolist():
        # LT (C - (1+b) x / p) p = B - x
        repaid = (debt - threshold * collateral * price) / (1.0 - threshold * (1.0 + bonus))
        collateral -= repaid * (1.0 + bonus) / price
        debt -= repaid
    assert float(lending_share_kept(95.0, 100.0, threshold, bonus)) == pytest.approx(collateral, rel=2e-3)


@given(st.floats(0.5, 0.999), st.floats(0.01, 0.5), st.floats(0.0, 0.009))
def test_deeper_falls_keep_less_and_fees_keep_less(depth: float, mu: float, fee: float) -> None:
    kept = perpetual_share_kept(100.0 * depth, 100.0, mu, fee)
    assert 0.0 <= kept < 1.0
    assert perpetual_share_kept(99.0 * depth, 100.0, mu, fee) <= kept
    assert kept <= perpetual_share_kept(100.0 * depth, 100.0, mu, 0.0)


def test_nothing_is_sold_on_the_safe_side_of_the_trigger() -> None:
    assert perpetual_share_kept(np.array([101.0, 100.0]), 100.0, 0.05).tolist() == [1.0, 1.0]
    assert perpetual_share_kept(np.array([99.0, 100.0]), 100.0, 0.05, long=False).tolist() == [1.0, 1.0]
    assert lending_share_kept(np.array([101.0, 100.0]), 100.0, 0.8, 0.05).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("mu", "fee"), [(0.05, 0.05), (0.05, 0.06), (0.05, -0.01), (0.0, 0.0), (1.0, 0.0), (math.nan, 0.0)])
def test_a_fee_as_large_as_the_margin_is_refused(mu: float, fee: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        perpetual_exponent(mu, fee)


@pytest.mark.parametrize(("threshold", "bonus"), [(0.95, 0.06), (1.0, 0.0), (0.0, 0.05), (0.8, -0.1), (math.nan, 0.05)])
def test_a_threshold_without_room_for_the_bonus_is_refused(threshold: float, bonus: float) -> None:
    with pytest.raises(ValueError, match="health"):
        lending_exponent(threshold, bonus)


@pytest.mark.parametrize(("price", "trigger"), [(0.0, 100.0), (-1.0, 100.0), (99.0, 0.0)])
def test_prices_that_are_none_are_refused(price: float, trigger: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        perpetual_share_kept(price, trigger, 0.05)


@pytest.mark.parametrize("long", [True, False])
def test_the_density_is_the_slope_of_what_is_kept(long: bool) -> None:
    exponent = perpetual_exponent(0.05, 0.01, long=long)
    price, step = (99.0 if long else 101.0), 1e-4
    above, below = (perpetual_share_kept(at, 100.0, 0.05, 0.01, long=long) for at in (price + step, price - step))
    kept = perpetual_share_kept(price, 100.0, 0.05, 0.01, long=long)
    assert forced_density(kept, price, exponent) == pytest.approx(abs(above - below) / (2.0 * step), rel=1e-6)


@given(st.sampled_from((1.0, -1.0)), st.floats(0.1, 10.0), st.floats(0.0, 0.9), st.floats(0.0, 0.003), st.floats(-0.01, 0.01))
def test_a_slice_brings_equity_back_to_maintenance_exactly(side: float, size: float, cover: float, fee: float, slip: float) -> None:
    price, mu = 100.0, 0.05
    execution = price - side * slip * price
    equity = cover * mu * price * size
    amount = float(slice_to_restore(side * size, equity, price, maintenance_rate=mu, execution_price=execution, fee_rate=fee))
    after = equity + side * (execution - price) * amount - fee * price * amount
    assert after == pytest.approx(mu * price * (size - amount), abs=1e-9 * size * price)


def test_a_slice_that_costs_more_than_it_frees_does_not_exist() -> None:
    found = slice_to_restore(1.0, 1.0, 100.0, maintenance_rate=0.05, execution_price=94.0)
    assert found == math.inf


def test_a_sound_account_needs_no_slice_and_an_unknown_one_has_none() -> None:
    found = slice_to_restore(1.0, np.array([5.0, 6.0, math.nan]), 100.0, maintenance_rate=0.05, execution_price=100.0)
    assert found == pytest.approx([0.0, 0.0, math.nan], nan_ok=True)


def test_a_shortfall_is_on_the_bad_side_of_the_bankruptcy_price_only() -> None:
    found = shortfall_usd(np.array([2.0, 2.0, -2.0, -2.0]), 100.0, np.array([99.0, 101.0, 99.0, 101.0]))
    assert found.tolist() == [2.0, 0.0, 0.0, 2.0]


def test_fees_are_charged_on_both_notionals() -> None:
    assert closing_fee_usd(-2.0, 100.0, 110.0, 0.001, 0.002) == pytest.approx(0.2 + 0.44)
