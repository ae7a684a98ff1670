"""The venues' printed formulas against the affine form that the daemon solves; published examples are in test_golden_vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.contracts import ColumnLegs, solve_column
from monitor.margin import ASSET, INVERSE, LINEAR, Array, build_tier_table
from monitor.venue_formulas import (
    IsolatedPosition,
    binance_liquidation_price,
    bybit_isolated_inverse,
    bybit_isolated_inverse_old,
    bybit_isolated_linear,
)


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


@given(
    st.floats(0.01, 10.0),
    st.floats(0.01, 10.0),
    st.floats(0.5, 2.0),
    st.floats(0.5, 2.0),
    st.floats(0.005, 0.2),
    st.floats(0.005, 0.2),
    st.floats(0.05, 3.0),
)
def test_the_hedge_terms_of_binance_are_a_long_and_a_short_of_one_column(
    long: float, short: float, long_entry: float, short_entry: float, long_rate: float, short_rate: float, equity: float
) -> None:
    """The venue's text leaves ``L * EPl`` and ``S * EPs`` to be derived; equating margin balance and maintenance gives the same."""
    mark, deductions = 1.0, (0.3, 0.2)
    cash = equity + long_rate * long + short_rate * short - (long - short) * mark
    wallet = cash + long * long_entry - short * short_entry - sum(deductions)
    printed = binance_liquidation_price(
        wallet_usd=wallet,
        size=0.0,
        entry_price=0.0,
        rate=0.0,
        deduction_usd=0.0,
        hedge_sizes=(long, short),
        hedge_entries=(long_entry, short_entry),
        hedge_rates=(long_rate, short_rate),
        hedge_deductions_usd=deductions,
    )
    # One tier each, with the deduction of the bracket.
    table = build_tier_table([[MarginTier(0.0, long_rate, deductions[0])], [MarginTier(0.0, short_rate, deductions[1])]])
    legs = ColumnLegs(
        np.zeros(2, int), np.full(2, LINEAR, np.int8), array(long, -short), np.full(2, math.nan), np.full(2, math.nan), np.arange(2)
    )
    found = solve_column(legs, array(cash - sum(deductions)), array(mark), table)
    expected = [price for price in (*found.fall, *found.rise) if not math.isnan(price)]
    if expected:
        assert expected == [pytest.approx(float(printed), rel=1e-9)]
    else:
        assert math.isnan(printed) or float(printed) == pytest.approx(mark)


def test_binance_has_no_price_where_a_long_cannot_die() -> None:
    assert math.isnan(binance_liquidation_price(wallet_usd=2_000.0, size=1.0, entry_price=1_000.0, rate=0.01, deduction_usd=0.0))


def test_binance_prices_are_worked_out_elementwise() -> None:
    prices = binance_liquidation_price(
        wallet_usd=array(100.0, 100.0), size=array(1.0, -1.0), entry_price=1_000.0, rate=0.01, deduction_usd=0.0
    )
    assert prices == pytest.approx([900.0 / 0.99, 1_100.0 / 1.01], rel=1e-12)


def position(size: float, *, deduction: float = 0.0, extra: float = 0.0) -> IsolatedPosition:
    return IsolatedPosition(array(size), array(50_000.0), array(10.0), array(0.005), array(deduction), array(extra))


@pytest.mark.parametrize("size", [60_000.0, -60_000.0])
@pytest.mark.parametrize(("deduction", "extra"), [(0.0, 0.0), (0.001, 0.05)])
def test_the_newer_inverse_formula_of_bybit_is_the_affine_form_with_the_margin_in_coin(
    size: float, deduction: float, extra: float
) -> None:
    printed = bybit_isolated_inverse(position(size, deduction=deduction, extra=extra))
    coins = abs(size) / 50_000.0 / 10.0 + extra
    legs = ColumnLegs(
        np.zeros(2, int), np.array([INVERSE, ASSET], np.int8), array(size, coins), array(50_000.0, math.nan), array(math.nan, 1.0),
        np.zeros(2, int),
    )  # fmt: skip
    found = solve_column(legs, array(0.0), array(50_000.0), build_tier_table([[MarginTier(0.0, 0.005, deduction)]]))
    ours, other = (found.fall, found.rise) if size > 0.0 else (found.rise, found.fall)
    assert ours[0] == pytest.approx(printed[0], rel=1e-12)
    assert np.isnan(other[0])


@pytest.mark.parametrize("size", [60_000.0, -60_000.0])
def test_a_fee_on_extra_margin_brings_the_inverse_price_nearer_for_a_long(size: float) -> None:
    free, charged = (bybit_isolated_inverse(position(size, extra=0.05), fee_rate=fee)[0] for fee in (0.0, 0.001))
    assert charged > free


def test_the_older_inverse_formula_of_bybit_keeps_the_maintenance_of_the_entry() -> None:
    """It is therefore a little below for longs and for shorts, never equal."""
    for size in (60_000.0, -60_000.0):
        old, new = bybit_isolated_inverse_old(position(size))[0], bybit_isolated_inverse(position(size))[0]
        assert old < new
        assert old == pytest.approx(new, rel=1e-3)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_extra_margin_moves_the_linear_price_of_bybit_away_by_its_share_of_the_size(side: float) -> None:
    without, with_extra = (
        bybit_isolated_linear(
            IsolatedPosition(array(2.0 * side), array(20_000.0), array(50.0), array(0.005), array(0.0), array(extra))
        )
        for extra in (0.0, 100.0)
    )
    assert with_extra[0] - without[0] == pytest.approx(-50.0 * side)
