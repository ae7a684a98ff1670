"""The vectorised sweep against a scalar one, account by account."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.margin import TierTable, base_coefficient, build_tier_table, second_tier_price
from monitor.state.legs import LegTable
from monitor.triggers import NO_LEGS, Legs, Workspace, find_triggers, sweep, value_legs
from tests.monitor.state.walks import Leg, Terms
from tests.monitor.state.walks import scalar_surplus as account_surplus

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


# ------------------------------------------------------------------------------------------------- accounts that are not plain

TERMS = [
    Terms(tiers=TIERS[0]),
    Terms("inverse", (MarginTier(0.0, 0.01, 0.0), MarginTier(20.0, 0.05, 0.8))),
    Terms("asset", (), 0.7),
    Terms(tiers=(MarginTier(0.0, 0.01, 0.0), MarginTier(500.0, 0.05, 0.0))),
]
"""The last is the table of a venue without deductions: maintenance jumps where a tier begins."""


def mixed_table(marks: list[float]) -> LegTable:
    legs = LegTable()
    legs.set_terms(build_tier_table([item.tiers for item in TERMS], [item.contract for item in TERMS]), {(2, 0): 0.7}, {})
    for market, mark in enumerate(marks):
        legs.set_price(market, mark)
    return legs


def add_account(table: LegTable, cash: float, held: list[Leg]) -> int:
    row = table.new_row()
    table.cash_usd[row] = cash
    for leg in held:
        table.add(row, leg.market, leg.size, entry_price=leg.entry_price, is_holding=leg.is_holding)
    table.settle(row)
    return row


def triggers_of(table: LegTable, row: int) -> dict[int, float]:
    """Return the trigger price of a row by market; the legs that it has in one market share it."""
    found: dict[int, float] = {}
    for market, slot in table.legs_of(row):
        legs = table.column(market).legs(market)
        price = np.full(legs.size.size, table.price_of(market))
        value, trigger = np.empty(price.size), np.empty(price.size)
        value_legs(legs, price, table.tiers, out=value)
        find_triggers(legs, price, value, table.tiers, shock=table.surplus_usd[legs.account], trigger=trigger)
        assert found.get(market, trigger[slot]) == pytest.approx(trigger[slot], nan_ok=True)
        found[market] = float(trigger[slot])
    return found


hedges = st.lists(
    st.builds(
        lambda market, size, entry, is_coin: Leg(market, size, entry, market == 2 or (market == 1 and is_coin)),
        st.integers(0, 3),
        st.one_of(st.floats(0.01, 500.0), st.floats(-500.0, -0.01)),
        st.floats(20.0, 200.0),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(hedges, st.tuples(*[st.floats(5.0, 300.0)] * 4).map(list), st.floats(0.0, 1e5))
def test_nothing_happens_between_the_price_and_the_trigger_and_something_does_at_it(
    held: list[Leg], marks: list[float], spare: float
) -> None:
    """A slow account from the venue's text, walked in small steps: hedges, inverse contracts, collateral and jumping tables."""
    start, _ = account_surplus(0.0, held, marks, TERMS)
    cash = spare - start
    table = mixed_table(marks)
    row = add_account(table, cash, held)
    gross = abs(cash) + sum(abs(leg.size) * max(marks[leg.market], 1.0) * 10.0 for leg in held)
    if spare <= 1e-9 * gross:
        return

    def surplus_at(market: int, price: float) -> float:
        moved = [price if place == market else mark for place, mark in enumerate(marks)]
        return account_surplus(cash, held, moved, TERMS)[0]

    for market, trigger in triggers_of(table, row).items():
        mark = marks[market]
        exists = trigger > 0.0
        reach = abs(trigger - mark) if exists else math.inf
        for share in np.linspace(0.001, 0.999, 60).tolist():
            # As far as the trigger is away, and not beyond: on both sides of the price.
            down, up = mark * (1.0 - share), mark * (1.0 + 5.0 * share)
            for price in (down, up):
                if abs(price - mark) < reach * (1.0 - 1e-9):
                    assert surplus_at(market, price) >= -1e-9 * gross
        if exists:
            beyond = trigger * (1.0 + math.copysign(1e-7, trigger - mark))
            assert surplus_at(market, beyond) <= 1e-6 * gross


def test_a_hedge_is_liquidated_where_the_net_of_its_sides_says_on_both() -> None:
    table = mixed_table([100.0, 100.0, 10.0, 100.0])
    row = add_account(table, -100.0, [Leg(0, 3.0), Leg(0, -1.0)])
    # -100 + 2 p = 0.0125 * 4 p
    assert triggers_of(table, row) == pytest.approx({0: 100.0 / 1.95})


def test_of_two_prices_that_would_do_it_the_nearer_one_is_told() -> None:
    """A hedge with excess and much maintenance may die of a fall or, when its maintenance outgrows the excess, of a rise."""
    table = mixed_table([100.0, 100.0, 10.0, 40.0])
    # Long 10 and short 9: 400 and 360 USD, just below the bound of 500 USD at which maintenance becomes 5 % of everything.
    row = add_account(table, 5.0, [Leg(3, 10.0), Leg(3, -9.0)])
    trigger = triggers_of(table, row)[3]
    # At 50 the long side is in the second tier: 5 + 50 - 25 - 4.5 is still enough, at 55.6 the short side is too.
    assert math.isnan(trigger)
    row = add_account(table, -34.0, [Leg(3, 10.0), Leg(3, -9.0)])
    trigger = triggers_of(table, row)[3]
    assert math.isnan(trigger), "it is under water"
    row = add_account(table, -28.0, [Leg(3, 10.0), Leg(3, -9.0)])
    trigger = triggers_of(table, row)[3]
    # Down: -28 + p = 0.19 p at 34.57. Up: at 50 maintenance of the long side jumps to 25, and -28 + 50 - 25 - 4.5 is below zero.
    assert trigger == pytest.approx(28.0 / 0.81)
    row = add_account(table, -20.0, [Leg(3, 10.0), Leg(3, -9.0)])
    trigger = triggers_of(table, row)[3]
    # Down: 20 / 0.81 = 24.7, fifteen away. Up: -20 + 50 - 29.5 is enough, and at 55.6 the short side jumps too.
    assert trigger == pytest.approx(20.0 / 0.81)


def test_a_short_that_dies_where_maintenance_jumps_dies_at_that_bound() -> None:
    table = mixed_table([100.0, 100.0, 10.0, 45.0])
    row = add_account(table, 515.0, [Leg(3, -10.0)])
    # 515 - 500 - 5 is enough just below 50 and 515 - 500 - 25 is not: no line has its root between the two.
    assert triggers_of(table, row) == {3: 50.0}
    table.sweep()
    assert table.distance_ratio[row] == pytest.approx(5.0 / 45.0)


def test_an_asset_that_is_owed_is_liquidated_by_a_rise() -> None:
    table = mixed_table([100.0, 100.0, 10.0, 100.0])
    row = add_account(table, 120.0, [Leg(2, -10.0, is_holding=True)])
    assert triggers_of(table, row) == pytest.approx({2: 12.0})


def test_collateral_dies_with_the_share_that_counts() -> None:
    table = mixed_table([100.0, 100.0, 10.0, 100.0])
    row = add_account(table, -56.0, [Leg(2, 10.0, is_holding=True)])
    assert triggers_of(table, row) == pytest.approx({2: 8.0})


def test_empty_arrays_of_legs_are_swept_to_nothing() -> None:
    swept = sweep(NO_LEGS, np.array([1.0]), np.array([100.0, 100.0, 100.0]), TABLE)
    assert swept.surplus_usd.tolist() == [1.0]
    assert swept.trigger_price.size == 0
