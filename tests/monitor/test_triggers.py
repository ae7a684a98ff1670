"""The vectorised sweep against a scalar one, account by account."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.margin import TierTable, base_coefficient, build_tier_table, second_tier_price
from monitor.triggers import Legs, Workspace, sweep

TIERS = [
    (MarginTier(0.0, 0.0125, 0.0), MarginTier(1.5e5, 0.025, 1_875.0)),
    (MarginTier(0.0, 0.02, 0.0),),
    (MarginTier(0.0, 0.05, 0.0), MarginTier(2e4, 0.1, 1_000.0), MarginTier(1e5, 0.2, 11_000.0)),
]
TABLE = build_tier_table(TIERS)


def make_legs(positions: list[tuple[int, int, float]], table: TierTable = TABLE) -> Legs:
    account = np.array([row for row, _, _ in positions], dtype=np.int32)
    market = np.array([index for _, index, _ in positions], dtype=np.int32)
    size = np.array([size for _, _, size in positions])
    slope = np.asarray(base_coefficient(size, table.rate[market, 0]))
    return Legs(account, market, size, slope, second_tier_price(size, market, table))


def tier_of(notional: float, tiers: tuple[MarginTier, ...]) -> MarginTier:
    return [tier for tier in tiers if tier.lower_bound_usd <= notional][-1]


def scalar_surplus(cash: float, positions: list[tuple[int, float]], prices: list[float]) -> float:
    total = cash
    for market, size in positions:
        notional = abs(size) * prices[market]
        tier = tier_of(notional, TIERS[market])
        total += size * prices[market] - (notional * tier.maintenance_rate - tier.deduction_usd)
    return total


def test_a_single_long_is_liquidated_where_the_formula_says() -> None:
    """Golden vector 8: 100,000 USD, long 10 BTC at 80,000."""
    table = build_tier_table([(MarginTier(0.0, 0.0125, 0.0), MarginTier(150e6, 0.025, 1_875_000.0))])
    swept = sweep(make_legs([(0, 0, 10.0)], table), np.array([100_000.0 - 800_000.0]), np.array([80_000.0]), table)
    assert swept.trigger_price[0] == pytest.approx(70_886.0759, abs=5e-5)
    assert swept.shock[0] == pytest.approx(70_886.0759 / 80_000.0 - 1.0, abs=1e-9)


positions = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.floats(-3_000.0, 3_000.0).filter(lambda size: abs(size) > 1e-3)),
    min_size=1,
    max_size=12,
    unique_by=lambda position: position[:2],
)
prices = st.tuples(st.floats(1.0, 300.0), st.floats(1.0, 300.0), st.floats(1.0, 300.0)).map(list)
cash = st.lists(st.floats(-1e5, 1e6), min_size=5, max_size=5)


@settings(max_examples=300, deadline=None)
@given(positions, prices, cash)
def test_the_sweep_equals_a_scalar_walk_over_every_account(
    held: list[tuple[int, int, float]], marks: list[float], cash_usd: list[float]
) -> None:
    swept = sweep(make_legs(held), np.array(cash_usd), np.array(marks), TABLE)
    for row in range(5):
        mine = [(market, size) for account, market, size in held if account == row]
        scale = abs(cash_usd[row]) + sum(abs(size) * marks[market] for market, size in mine)
        assert swept.surplus_usd[row] == pytest.approx(scalar_surplus(cash_usd[row], mine, marks), abs=1e-12 * scale + 1e-9)
    for leg, (row, market, size) in enumerate(held):
        trigger = float(swept.trigger_price[leg])
        mine = [(index, amount) for account, index, amount in held if account == row]
        moved = list(marks)
        if not trigger > 0.0:
            # A long that no positive price endangers, or a short that none saves: at (almost) nothing both are what they stay.
            moved[market] = 1e-9
            surplus = scalar_surplus(cash_usd[row], mine, moved)
            assert surplus >= -1e-4 if size > 0.0 else surplus <= 1e-4
            continue
        moved[market] = trigger
        scale = abs(cash_usd[row]) + sum(abs(amount) * max(moved[index], marks[index]) for index, amount in mine)
        assert scalar_surplus(cash_usd[row], mine, moved) == pytest.approx(0.0, abs=1e-9 * scale)
        assert swept.shock[leg] == pytest.approx(trigger / marks[market] - 1.0, abs=1e-9 * max(1.0, trigger / marks[market]))


@settings(max_examples=100, deadline=None)
@given(positions, prices, cash, st.floats(1.001, 1.5))
def test_a_rising_price_never_helps_a_short(
    held: list[tuple[int, int, float]], marks: list[float], cash_usd: list[float], factor: float
) -> None:
    legs = make_legs([(row, market, -abs(size)) for row, market, size in held])
    before = sweep(legs, np.array(cash_usd), np.array(marks), TABLE).surplus_usd.copy()
    after = sweep(legs, np.array(cash_usd), np.array(marks) * factor, TABLE).surplus_usd
    assert (after <= before + 1e-9 * np.abs(before)).all()


def test_unknown_cash_makes_one_account_unknown_and_no_other() -> None:
    legs = make_legs([(0, 1, 5.0), (1, 1, 5.0)])
    swept = sweep(legs, np.array([np.nan, 1_000.0]), np.array([100.0, 100.0, 100.0]), TABLE)
    assert np.isnan(swept.surplus_usd[0])
    assert np.isnan(swept.trigger_price[0])
    assert math.isfinite(swept.trigger_price[1])


def test_an_unknown_price_makes_exactly_the_accounts_in_that_market_unknown() -> None:
    legs = make_legs([(0, 0, 5.0), (0, 1, 5.0), (1, 1, 5.0)])
    swept = sweep(legs, np.array([1_000.0, 1_000.0]), np.array([np.nan, 100.0, 100.0]), TABLE)
    assert np.isnan(swept.surplus_usd[0])
    assert np.isnan(swept.trigger_price[:2]).all()
    assert math.isfinite(swept.trigger_price[2])


def test_a_free_slot_disturbs_nobody_and_triggers_nothing() -> None:
    legs = make_legs([(0, 0, 0.0), (1, 1, 5.0)])
    swept = sweep(legs, np.array([np.nan, 1_000.0]), np.array([100.0, 100.0, 100.0]), TABLE)
    alone = sweep(make_legs([(1, 1, 5.0)]), np.array([np.nan, 1_000.0]), np.array([100.0, 100.0, 100.0]), TABLE)
    assert swept.surplus_usd[1] == alone.surplus_usd[1]
    assert np.isnan(swept.trigger_price[0])


def test_a_workspace_is_reused_without_leaking_the_sweep_before() -> None:
    workspace = Workspace(8)
    many = make_legs([(0, 0, 5.0), (1, 1, -5.0), (2, 2, 7.0)])
    prices_before = np.array([100.0, 120.0, 80.0])
    sweep(many, np.array([1e3, 1e3, 1e3]), prices_before, TABLE, workspace)
    few = make_legs([(0, 1, 3.0)])
    reused = sweep(few, np.array([500.0]), prices_before, TABLE, workspace)
    fresh = sweep(few, np.array([500.0]), prices_before, TABLE)
    assert reused.trigger_price.tolist() == fresh.trigger_price.tolist()
    assert np.shares_memory(reused.trigger_price, workspace.trigger)
