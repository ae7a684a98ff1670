"""Margin accounts with legs of every kind, against a scalar reference and against what must hold of any account."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.contracts import (
    ColumnLegs,
    NearestPrices,
    bankruptcy_prices,
    column_values,
    solve_column,
)
from monitor.margin import CONTRACT_CODE, Array, TierTable, build_tier_table, solve_tiered_trigger
from tests.monitor import scalar_margin as scalar
from tests.monitor.scalar_margin import Leg, Tier

ONE_TIER: tuple[Tier, ...] = ((0.0, 0.05, 0.0),)
CONTINUOUS: tuple[Tier, ...] = ((0.0, 0.01, 0.0), (1e4, 0.02, 100.0), (5e4, 0.05, 1_600.0), (2e5, 0.2, 31_600.0))
JUMPING: tuple[Tier, ...] = ((0.0, 0.01, 0.0), (1e4, 0.02, 0.0), (5e4, 0.05, 0.0), (2e5, 0.2, 0.0))
FALLING_RATES: tuple[Tier, ...] = ((0.0, 0.1, 0.0), (1e4, 0.05, -500.0), (5e4, 0.02, -2_000.0))
TABLES = (ONE_TIER, CONTINUOUS, JUMPING, FALLING_RATES)


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


# Not within rounding of zero, where either answer is right.
COVER = st.floats(1e-4, 0.6) | st.floats(-0.05, -1e-4)


def tier_table(legs: list[Leg]) -> TierTable:
    """One row of tiers per leg."""
    return build_tier_table([[MarginTier(*tier) for tier in leg.tiers] for leg in legs])


def as_columns(legs: list[Leg], group: list[int] | None = None) -> ColumnLegs:
    count = len(legs)
    return ColumnLegs(
        np.array(group if group is not None else [0] * count, dtype=np.int32),
        np.array([CONTRACT_CODE[leg.contract] for leg in legs], dtype=np.int8),
        array(*(leg.size for leg in legs)),
        array(*(leg.entry for leg in legs)),
        array(*(leg.ratio for leg in legs)),
        np.arange(count, dtype=np.int32),
    )


def solve(legs: list[Leg], cash: float, price: float) -> tuple[float, float]:
    """Triggers of one account whose legs all depend on one price."""
    result = solve_column(as_columns(legs), array(cash), array(price), tier_table(legs))
    return float(result.fall[0]), float(result.rise[0])


@st.composite
def legs_of_a_column(draw: st.DrawFn, price: float, *, least: int = 1) -> list[Leg]:
    """Up to four legs of any contract, some of them on both sides, with notionals around the bounds of the tiers."""
    legs = []
    for _ in range(draw(st.integers(least, 4))):
        contract = draw(st.sampled_from(("linear", "inverse", "asset")))
        notional = draw(st.sampled_from((120.0, 9_000.0, 10_500.0, 45_000.0, 70_000.0, 190_000.0, 300_000.0)))
        notional *= draw(st.floats(0.8, 1.2)) * draw(st.sampled_from((-1.0, 1.0)))
        tiers = draw(st.sampled_from(TABLES))
        if contract == "inverse":
            tiers = tuple((lower / price, rate, deduction / price) for lower, rate, deduction in tiers)
            legs.append(Leg("inverse", notional, tiers, entry=price * draw(st.floats(0.5, 2.0))))
        elif contract == "asset":
            legs.append(Leg("asset", notional / price, ratio=draw(st.sampled_from((0.0, 0.5, 0.83, 1.0)))))
        else:
            legs.append(Leg("linear", notional / price, tiers))
    return legs


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[Leg], float, float]:
    """Legs, cash and price; cash makes the account safe, tight or dead."""
    price = draw(st.sampled_from((0.0123, 1.0, 61.5, 97_000.0)))
    legs = draw(legs_of_a_column(price))
    cover = draw(COVER) * sum(leg.measure(price) * (price if leg.contract == "inverse" else 1.0) for leg in legs)
    needed = -scalar.surplus(legs, 0.0, price)
    return legs, needed + cover, price


def differs(legs: list[Leg], cash: float, ours: float, theirs: float | None) -> bool:
    """Tell whether two answers differ by more than rounding; where the surplus just touches zero, either is right."""
    if theirs is None and math.isnan(ours):
        return False
    if theirs is not None and ours == pytest.approx(theirs, rel=1e-8):
        return False
    found = [value for value in (ours, theirs) if value is not None and not math.isnan(value)]

    def touches(price: float) -> bool:
        margin = abs(scalar.surplus(legs, cash, price))
        return margin <= 1e-9 * scalar.gross(legs, cash, price)

    return not all(touches(price) for price in found)


@given(accounts())
def test_values_of_legs_are_those_of_the_reference(account: tuple[list[Leg], float, float]) -> None:
    legs, cash, price = account
    values = column_values(as_columns(legs), np.full(len(legs), price), tier_table(legs))
    scale = scalar.gross(legs, cash, price)
    for row, leg in enumerate(legs):
        assert values.equity_usd[row] == pytest.approx(scalar.equity(leg, price), abs=1e-12 * scale)
        assert values.maintenance_usd[row] == pytest.approx(scalar.maintenance(leg, price), abs=1e-12 * scale)
    total = cash + float(values.surplus_usd.sum())
    assert total == pytest.approx(scalar.surplus(legs, cash, price), abs=1e-12 * scale)


@given(accounts())
def test_triggers_are_those_of_the_reference_for_any_mix_of_legs_and_tables(account: tuple[list[Leg], float, float]) -> None:
    legs, cash, price = account
    margin = scalar.surplus(legs, cash, price)
    fall, rise = solve(legs, cash, price)
    if margin < 0.0:
        assert math.isnan(fall)
        assert math.isnan(rise)
        return
    assert not differs(legs, cash, fall, scalar.trigger_price(legs, cash, price, falling=True))
    assert not differs(legs, cash, rise, scalar.trigger_price(legs, cash, price, falling=False))


@given(st.lists(accounts(), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_accounts_solved_together_are_solved_as_if_alone(book: list[tuple[list[Leg], float, float]], shuffler: object) -> None:
    alone = [solve(*account) for account in book]
    legs = [leg for own, _, _ in book for leg in own]
    group = [number for number, (own, _, _) in enumerate(book) for _ in own]
    order = list(range(len(legs)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    columns = as_columns([legs[row] for row in order], [group[row] for row in order])
    table = tier_table([legs[row] for row in order])
    together = solve_column(columns, array(*(cash for _, cash, _ in book)), array(*(price for _, _, price in book)), table)
    np.testing.assert_allclose(together.fall, [fall for fall, _ in alone], rtol=1e-9)
    np.testing.assert_allclose(together.rise, [rise for _, rise in alone], rtol=1e-9)


@given(st.sampled_from((ONE_TIER, CONTINUOUS)), st.floats(0.001, 5e3), st.booleans(), st.floats(0.0, 1.5))
def test_a_single_linear_leg_has_the_root_of_the_short_cut(tiers: tuple[Tier, ...], size: float, long: bool, spare: float) -> None:
    price = 61.5
    leg = Leg("linear", size if long else -size, tiers)
    cash = scalar.maintenance(leg, price) * (1.0 + 1e-9) + spare * size * price - leg.size * price
    fall, rise = solve([leg], cash, price)
    root = float(solve_tiered_trigger(array(leg.size), np.zeros(1, np.int32), array(cash), tier_table([leg]))[0])
    ours, other = (fall, rise) if long else (rise, fall)
    assert math.isnan(other)
    if root > 0.0:
        assert ours == pytest.approx(root, rel=1e-13)
    else:
        assert math.isnan(ours)


@given(accounts(), st.floats(0.01, 0.99), st.integers(0, 3))
def test_a_leg_split_in_two_parts_of_one_tier_has_the_same_triggers(
    account: tuple[list[Leg], float, float], share: float, which: int
) -> None:
    """Tiers are by the position, so only legs that cannot change tier may be split; a venue would net them anyway."""
    legs, cash, price = account
    legs = [Leg(leg.contract, leg.size, ONE_TIER if leg.tiers else (), leg.entry, leg.ratio) for leg in legs]
    leg = legs[which % len(legs)]
    parts = [Leg(leg.contract, leg.size * part, leg.tiers, leg.entry, leg.ratio) for part in (share, 1.0 - share)]
    rest = [other for other in legs if other is not leg]
    assume(abs(scalar.surplus(legs, cash, price)) > 1e-9 * scalar.gross(legs, cash, price))
    for whole, split in zip(solve(legs, cash, price), solve([*rest, *parts], cash, price), strict=True):
        assert whole == pytest.approx(split, rel=1e-9, nan_ok=True) or not differs(legs, cash, whole, split)


@given(accounts(), st.floats(1.0, 50.0))
def test_raising_the_price_never_worsens_an_account_that_is_only_long(
    account: tuple[list[Leg], float, float], factor: float
) -> None:
    """Maintenance rates are below one, so with continuous tables more price is more surplus."""
    legs, _, price = account
    tame = (ONE_TIER, CONTINUOUS)
    legs = [
        Leg(leg.contract, abs(leg.size), tame[row % 2] if leg.tiers else (), leg.entry, leg.ratio) for row, leg in enumerate(legs)
    ]
    columns, table = as_columns(legs), tier_table(legs)
    before = column_values(columns, np.full(len(legs), price), table).surplus_usd.sum()
    after = column_values(columns, np.full(len(legs), price * factor), table).surplus_usd.sum()
    assert after >= before - 1e-12 * scalar.gross(legs, 0.0, price * factor)
    needed = -scalar.surplus(legs, 0.0, price)
    _, rise = solve(legs, needed + 1.0, price)
    assert math.isnan(rise)


@given(accounts())
def test_at_the_bankruptcy_price_equity_is_zero(account: tuple[list[Leg], float, float]) -> None:
    legs, cash, price = account

    def equity(at: float) -> float:
        return cash + sum(scalar.equity(leg, at) for leg in legs)

    result = bankruptcy_prices(as_columns(legs), array(cash), array(price))
    found = [float(value[0]) for value in result if not math.isnan(value[0])]
    assert len(found) <= 1
    for root in found:
        assert equity(root) == pytest.approx(0.0, abs=1e-9 * scalar.gross(legs, cash, root))
        assert root <= price if root == result.fall[0] else root >= price
    if equity(price) > 1e-9 * scalar.gross(legs, cash, price):
        slope_down = equity(price * 0.5) < equity(price)
        assert bool(found) == (equity(1e-12 * price) < 0.0 if slope_down else equity(1e12 * price) < 0.0)


def test_an_account_without_equity_is_bankrupt_where_it_stands() -> None:
    """Whatever the rounding of its size times its price."""
    sizes, price = np.linspace(0.1, 30.0, 400), np.tile(np.linspace(0.07, 913.0, 400), 2)
    size = np.concatenate([sizes, -sizes])
    rounded = (size * price) / size
    assert (rounded > price).any()
    assert (rounded < price).any()
    empty = np.full(800, math.nan)
    legs = ColumnLegs(np.arange(800), np.zeros(800, np.int8), size, empty, empty, np.zeros(800, int))
    found = bankruptcy_prices(legs, -size * price, price)
    assert (found.fall[:400] <= price[:400]).all()
    assert (found.rise[400:] >= price[400:]).all()
    np.testing.assert_allclose(np.concatenate([found.fall[:400], found.rise[400:]]), price, rtol=1e-15)


@given(accounts())
def test_bankruptcy_lies_behind_liquidation_where_nothing_has_a_haircut(account: tuple[list[Leg], float, float]) -> None:
    legs, cash, price = account
    legs = [Leg(leg.contract, leg.size, leg.tiers, leg.entry, 1.0 if leg.contract == "asset" else math.nan) for leg in legs]
    liquidation = NearestPrices(*(array(value) for value in solve(legs, cash, price)))
    bankruptcy = bankruptcy_prices(as_columns(legs), array(cash), array(price))
    if not math.isnan(liquidation.fall[0]) and not math.isnan(bankruptcy.fall[0]):
        assert bankruptcy.fall[0] <= liquidation.fall[0] * (1.0 + 1e-9)
    if not math.isnan(liquidation.rise[0]) and not math.isnan(bankruptcy.rise[0]):
        assert bankruptcy.rise[0] >= liquidation.rise[0] * (1.0 - 1e-9)


def test_a_hedged_account_has_a_trigger_on_each_side() -> None:
    """Long and short of the same size: price moves cancel, and only growing maintenance kills, on the rising side."""
    legs = [Leg("linear", 10.0, ONE_TIER), Leg("linear", -10.0, ONE_TIER)]
    fall, rise = solve(legs, 150.0, 100.0)
    assert math.isnan(fall)
    # 150 = 0.05 * 20 * p
    assert rise == pytest.approx(150.0, rel=1e-12)


def test_a_half_hedged_account_counts_maintenance_of_both_legs() -> None:
    legs = [Leg("linear", 10.0, ONE_TIER), Leg("linear", -4.0, ONE_TIER)]
    # 6p - 500 = 0.05 * 14 * p
    fall, rise = solve(legs, -500.0, 100.0)
    assert fall == pytest.approx(500.0 / 5.3, rel=1e-12)
    assert math.isnan(rise)


def test_a_coin_margined_short_is_a_dollar_and_cannot_be_liquidated_by_a_fall() -> None:
    """One coin and a short of its worth in USD at entry: worth 100 USD at any price, less maintenance of 5 USD at any price."""
    legs = [Leg("inverse", -100.0, ONE_TIER, entry=100.0), Leg("asset", 1.0, ratio=1.0)]
    for price in (1.0, 100.0, 1e6):
        values = column_values(as_columns(legs), np.full(2, price), tier_table(legs))
        assert values.surplus_usd.sum() == pytest.approx(95.0, rel=1e-9)
    assert solve(legs, 0.0, 100.0) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_a_hedge_that_cancels_but_for_rounding_has_no_price_far_away() -> None:
    """0.8 of the one and 1.2 of the other are equal as numbers and not as doubles."""
    tiers = ((0.0, 0.2, 0.0),)
    long, short = Leg("linear", 0.0014845360824742265, tiers), Leg("linear", -0.0009896907216494846, tiers)
    assert 0.8 * long.size + 1.2 * short.size != 0.0
    assert solve([long, short], 74.4, 97_000.0) == pytest.approx((math.nan, math.nan), nan_ok=True)
    # A dollar made of coins: what it is worth does not depend on the price either.
    for entry in (97_003.7, 61.53, 0.07):
        legs = [
            Leg("inverse", -100.0, ONE_TIER, entry=entry),
            Leg("asset", 33.0 / entry, ratio=1.0),
            Leg("asset", 67.0 / entry, ratio=1.0),
        ]
        found = bankruptcy_prices(as_columns(legs), array(0.0), array(entry))
        assert np.isnan([*found.fall, *found.rise]).all()
        assert solve(legs, 0.0, entry) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_an_inverse_leg_changes_tier_as_the_price_falls() -> None:
    """Below 50 the 100 USD are more than 2 coins, and the second tier's rate and deduction (both in coin) hold."""
    tiers = ((0.0, 0.01, 0.0), (2.0, 0.11, 0.2))
    leg = Leg("inverse", 100.0, tiers, entry=100.0)
    table = tier_table([leg])
    required = column_values(as_columns([leg] * 2, [0, 1])._replace(market=np.zeros(2, np.int32)), array(80.0, 40.0), table)
    assert required.maintenance_usd == pytest.approx([1.0, 40.0 * (2.5 * 0.11 - 0.2)], rel=1e-12)
    # In coin: margin 0.9 + 1 - 100/p = 0.11 * 100/p - 0.2, so p = 111 / 2.1, not below 50: still the first tier there.
    fall, _ = solve([leg, Leg("asset", 0.9, ratio=1.0)], 0.0, 100.0)
    assert fall == pytest.approx(101.0 / 1.9, rel=1e-12)
    fall, _ = solve([leg, Leg("asset", 1.5, ratio=1.0)], 0.0, 100.0)
    assert fall == pytest.approx(111.0 / 2.7, rel=1e-12)


def test_a_jump_of_maintenance_triggers_at_the_bound_of_the_tier() -> None:
    """A short of 100 reaches 10,000 USD at a price of 100; there 1 % becomes 2 % of the whole position."""
    leg = Leg("linear", -100.0, ((0.0, 0.01, 0.0), (1e4, 0.02, 0.0)))
    cash = 10_000.0 + 150.0
    assert scalar.surplus([leg], cash, 99.999) > 0.0
    fall, rise = solve([leg], cash, 95.0)
    assert math.isnan(fall)
    assert rise == 100.0


def test_a_long_that_falls_out_of_a_jumping_tier_is_not_triggered_before() -> None:
    """At 110 the long is in the second tier; on the way down it leaves it at 100 and gains the jump."""
    leg = Leg("linear", 100.0, ((0.0, 0.01, 0.0), (1e4, 0.02, 0.0)))
    cash = -9_700.0
    fall, _ = solve([leg], cash, 110.0)
    assert fall == pytest.approx(9_700.0 / 99.0, rel=1e-12)
    # With less cash the second tier triggers before the bound is reached.
    fall, _ = solve([leg], -9_900.0, 110.0)
    assert fall == pytest.approx(9_900.0 / 98.0, rel=1e-12)


def test_on_the_bound_itself_the_upper_tier_holds() -> None:
    """A short of 100 at exactly 100: what it must hold is 2 % of 10,000, and below the bound 1 %."""
    leg = Leg("linear", -100.0, ((0.0, 0.01, 0.0), (1e4, 0.02, 0.0)))
    assert solve([leg], 10_000.0 + 199.0, 100.0) == pytest.approx((math.nan, math.nan), nan_ok=True)
    fall, rise = solve([leg], 10_000.0 + 201.0, 100.0)
    assert math.isnan(fall)
    assert rise == pytest.approx(10_201.0 / 102.0, rel=1e-12)


def test_an_account_exactly_at_zero_surplus_triggers_where_it_stands() -> None:
    leg = Leg("linear", 2.0, ONE_TIER)
    fall, rise = solve([leg], -190.0, 100.0)
    assert fall == 100.0
    assert math.isnan(rise)


def test_an_account_under_water_has_no_trigger_on_either_side() -> None:
    leg = Leg("linear", 2.0, ONE_TIER)
    assert solve([leg], -191.0, 100.0) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_a_debt_counts_in_full_and_a_holding_after_its_haircut() -> None:
    legs = [Leg("asset", 10.0, ratio=0.8), Leg("asset", -2.0)]
    values = column_values(as_columns(legs), np.full(2, 50.0), tier_table(legs))
    assert values.surplus_usd.tolist() == [400.0, -100.0]
    assert values.equity_usd.tolist() == [500.0, -100.0]
    assert values.maintenance_usd.tolist() == [0.0, 0.0]


UNKNOWNS = {
    "tiers": (Leg("linear", 1.0), 100.0),
    "entry price of an inverse contract": (Leg("inverse", 100.0, ONE_TIER), 100.0),
    "entry price of zero": (Leg("inverse", 100.0, ONE_TIER, entry=0.0), 100.0),
    "collateral ratio": (Leg("asset", 1.0), 100.0),
    "size": (Leg("linear", math.nan, ONE_TIER), 100.0),
    "price": (Leg("linear", 1.0, ONE_TIER), math.nan),
    "price of zero": (Leg("linear", 1.0, ONE_TIER), 0.0),
    "negative price": (Leg("asset", 1.0, ratio=1.0), -1.0),
    "infinite price": (Leg("linear", 1.0, ONE_TIER), math.inf),
}


@pytest.mark.parametrize("unknown", UNKNOWNS)
def test_what_is_not_known_makes_its_account_unknown_and_no_other(unknown: str) -> None:
    leg, price = UNKNOWNS[unknown]
    sound = Leg("linear", 10.0, ONE_TIER)
    legs = [leg, sound, sound]
    columns, table = as_columns(legs, [0, 0, 1]), tier_table(legs)
    values = column_values(columns, array(price, 100.0, 100.0), table)
    assert np.isnan(values.surplus_usd).tolist() == [True, False, False]
    result = solve_column(columns, array(-700.0, -700.0), array(price, 100.0), table)
    assert np.isnan(result.fall).tolist() == [True, False]
    assert np.isnan(result.rise[0])


def test_unknown_cash_makes_an_account_unknown() -> None:
    leg = Leg("linear", 10.0, ONE_TIER)
    assert solve([leg], math.nan, 100.0) == pytest.approx((math.nan, math.nan), nan_ok=True)
    result = bankruptcy_prices(as_columns([leg]), array(math.nan), array(100.0))
    assert np.isnan([*result.fall, *result.rise]).all()


def test_an_empty_leg_is_worth_nothing_whatever_else_is_unknown() -> None:
    sound = Leg("linear", 10.0, ONE_TIER)
    empty = [Leg("linear", 0.0), Leg("inverse", 0.0), Leg("asset", 0.0)]
    values = column_values(as_columns(empty), np.full(3, math.nan), tier_table(empty))
    assert [column.tolist() for column in values] == [[0.0] * 3] * 3
    assert solve([sound, *empty], -700.0, 100.0) == pytest.approx(solve([sound], -700.0, 100.0), nan_ok=True)
    assert bankruptcy_prices(as_columns([sound, *empty]), array(-700.0), array(100.0)).fall[0] == 70.0


def test_an_account_without_legs_in_the_column_has_no_trigger_in_it() -> None:
    columns = as_columns([Leg("linear", 10.0, ONE_TIER)], [1])
    result = solve_column(columns, array(5.0, -700.0), array(100.0, 100.0), build_tier_table([[MarginTier(*ONE_TIER[0])]]))
    assert np.isnan(result.fall).tolist() == [True, False]
