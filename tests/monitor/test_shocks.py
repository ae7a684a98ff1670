"""How far prices have to move together, against a scalar reference and against the trigger of one price."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connectors.events import MarginTier
from monitor.contracts import ColumnLegs, solve_column
from monitor.margin import ASSET, CONTRACT_CODE, LINEAR, Array, TierTable, build_tier_table
from monitor.shocks import AccountLegs, alone, together, trigger_shocks
from tests.monitor import scalar_margin as scalar
from tests.monitor.scalar_margin import Leg, Tier

PRICES = (61.5, 97_000.0, 1.0)
ONE_TIER: tuple[Tier, ...] = ((0.0, 0.05, 0.0),)
CONTINUOUS: tuple[Tier, ...] = ((0.0, 0.01, 0.0), (1e4, 0.02, 100.0), (5e4, 0.05, 1_600.0), (2e5, 0.2, 31_600.0))
JUMPING: tuple[Tier, ...] = ((0.0, 0.01, 0.0), (1e4, 0.02, 0.0), (5e4, 0.05, 0.0), (2e5, 0.2, 0.0))

# The tiers belong to the market, so each contract has markets of its own: 3 kinds of linear, 3 of inverse, 3 assets.
MARKETS: list[tuple[str, float, tuple[Tier, ...]]] = [
    *(("linear", price, tiers) for price, tiers in zip(PRICES, (ONE_TIER, CONTINUOUS, JUMPING), strict=True)),
    *(
        ("inverse", price, tuple((lower / price, rate, deduction / price) for lower, rate, deduction in tiers))
        for price, tiers in zip(PRICES, (ONE_TIER, CONTINUOUS, JUMPING), strict=True)
    ),
    *(("asset", price, ()) for price in PRICES),
]
MARKET_PRICES = [price for _, price, _ in MARKETS]
TIERS: TierTable = build_tier_table([[MarginTier(*tier) for tier in tiers] for _, _, tiers in MARKETS])

DIRECTIONS = {
    "all fall": together(len(MARKETS)),
    "all rise": together(len(MARKETS), 1.0),
    "one falls": alone(len(MARKETS), np.array([1])),
    "an asset loses its peg": alone(len(MARKETS), np.array([2, 5, 8])),
    "some fall, some rise": np.array([-1.0, 0.5, -0.3, 1.0, 0.0, -2.0, 0.7, -1.0, 0.2]),
}


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


# Not within rounding of zero, where either answer is right.
COVER = st.floats(1e-4, 0.5) | st.floats(-0.02, -1e-4)


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[Leg], float]:
    """An account over several markets, perhaps with two legs in one, and cash that makes it safe, tight or dead."""
    legs = []
    for market in draw(st.lists(st.integers(0, len(MARKETS) - 1), min_size=1, max_size=6)):
        contract, price, tiers = MARKETS[market]
        notional = draw(st.sampled_from((120.0, 9_000.0, 45_000.0, 190_000.0, 300_000.0)))
        notional *= draw(st.floats(0.8, 1.2)) * draw(st.sampled_from((-1.0, 1.0)))
        if contract == "inverse":
            legs.append(Leg("inverse", notional, tiers, entry=price * draw(st.floats(0.5, 2.0)), column=market))
        elif contract == "asset":
            legs.append(Leg("asset", notional / price, ratio=draw(st.sampled_from((0.0, 0.83, 1.0))), column=market))
        else:
            legs.append(Leg("linear", notional / price, tiers, column=market))
    size = sum(abs(leg.size) * (1.0 if leg.contract == "inverse" else MARKET_PRICES[leg.column]) for leg in legs)
    needed = -scalar.surplus(legs, 0.0, lambda leg: MARKET_PRICES[leg.column])
    return legs, needed + draw(COVER) * size


def as_columns(book: list[list[Leg]]) -> AccountLegs:
    legs = [leg for own in book for leg in own]
    return AccountLegs(
        np.array([row for row, own in enumerate(book) for _ in own], dtype=np.int32),
        np.array([leg.column for leg in legs], dtype=np.int32),
        np.array([CONTRACT_CODE[leg.contract] for leg in legs], dtype=np.int8),
        array(*(leg.size for leg in legs)),
        array(*(leg.entry for leg in legs)),
        array(*(leg.ratio for leg in legs)),
    )


def shock_of(legs: list[Leg], cash: float, direction: Array, **level: float) -> float:
    return float(trigger_shocks(as_columns([legs]), array(cash), array(*MARKET_PRICES), direction, TIERS, **level)[0])


@pytest.mark.parametrize("name", DIRECTIONS)
@given(account=accounts(), level=st.sampled_from((0.0, 0.5)))
def test_shocks_are_those_of_the_reference(name: str, account: tuple[list[Leg], float], level: float) -> None:
    legs, cash = account
    direction = DIRECTIONS[name]

    def margin(shock: float) -> float:
        return scalar.surplus(legs, cash, lambda leg: MARKET_PRICES[leg.column] * (1.0 + direction[leg.column] * shock), level)

    def size(shock: float) -> float:
        return scalar.gross(legs, cash, lambda leg: MARKET_PRICES[leg.column] * (1.0 + direction[leg.column] * shock))

    assume(abs(margin(0.0)) > 1e-9 * size(0.0))
    ours = shock_of(legs, cash, direction, level_ratio=level)
    theirs = scalar.trigger_shock(legs, cash, MARKET_PRICES, direction.tolist(), level)
    assert ours >= 0.0
    if theirs is None:
        # The reference looks no further than a million.
        assert math.isinf(ours) or ours > 0.999e6 or abs(margin(ours)) <= 1e-9 * size(ours)
    elif ours != pytest.approx(theirs, rel=1e-8, abs=1e-10):
        # Where the surplus just touches zero either answer is right.
        assert abs(margin(theirs)) <= 1e-9 * size(theirs)
        assert math.isinf(ours) or abs(margin(ours)) <= 1e-9 * size(ours)


@given(accounts(), st.booleans(), st.integers(0, 5))
def test_a_shock_of_one_price_alone_is_the_trigger_of_that_column(
    account: tuple[list[Leg], float], falling: bool, which: int
) -> None:
    legs, cash = account
    column = legs[which % len(legs)].column
    price = MARKET_PRICES[column]
    own = [leg for leg in legs if leg.column == column]
    elsewhere = scalar.surplus([leg for leg in legs if leg.column != column], cash, lambda leg: MARKET_PRICES[leg.column])
    parts = as_columns([own])
    result = solve_column(ColumnLegs(parts.row, *parts[2:], parts.market), array(elsewhere), array(price), TIERS)
    trigger = float((result.fall if falling else result.rise)[0])
    margin = scalar.surplus(legs, cash, lambda leg: MARKET_PRICES[leg.column])
    shock = shock_of(legs, cash, alone(len(MARKETS), np.array([column]), -1.0 if falling else 1.0))
    if margin < 0.0:
        assert shock == 0.0
        assert math.isnan(trigger)
    elif math.isnan(trigger) or math.isinf(shock):
        # A root at the very edge of the positive numbers may be on either side of it.
        assert math.isnan(trigger) == math.isinf(shock) or trigger < 1e-9 * price
    else:
        moved = price * (1.0 + (-shock if falling else shock))
        assert moved == pytest.approx(trigger, rel=1e-8, abs=1e-10 * price)


@given(st.lists(accounts(), min_size=2, max_size=8), st.sampled_from(sorted(DIRECTIONS)))
def test_accounts_shocked_together_are_shocked_as_if_alone(book: list[tuple[list[Leg], float]], name: str) -> None:
    direction = DIRECTIONS[name]
    expected = [shock_of(legs, cash, direction) for legs, cash in book]
    columns = as_columns([legs for legs, _ in book])
    found = trigger_shocks(columns, array(*(cash for _, cash in book)), array(*MARKET_PRICES), direction, TIERS)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


@given(accounts(), st.floats(0.0, 2.0), st.floats(0.0, 1e4))
def test_a_margin_call_comes_no_later_than_liquidation(account: tuple[list[Leg], float], ratio: float, usd: float) -> None:
    legs, cash = account
    for direction in DIRECTIONS.values():
        assert shock_of(legs, cash, direction, level_ratio=ratio, level_usd=usd) <= shock_of(legs, cash, direction) * (1.0 + 1e-9)


def linear(size: float) -> AccountLegs:
    return AccountLegs(
        np.zeros(1, int), np.zeros(1, int), np.array([LINEAR], np.int8), array(size), array(math.nan), array(math.nan)
    )


def test_the_shock_of_a_plain_long_is_its_surplus_over_its_slope() -> None:
    """Equity 1,000 on 10 units at 61.5, 5 % maintenance: s = S / (0.95 * 615)."""
    surplus = 1_000.0 - 0.05 * 615.0
    found = trigger_shocks(linear(20.0), array(1_000.0 - 20 * 61.5), array(*MARKET_PRICES), together(len(MARKETS)), TIERS)
    assert found[0] == pytest.approx((1_000.0 - 0.05 * 1_230.0) / (0.95 * 1_230.0), rel=1e-12)
    # Ten units instead: the equity outlives the price.
    found = trigger_shocks(linear(10.0), array(1_000.0 - 615.0), array(*MARKET_PRICES), together(len(MARKETS)), TIERS)
    assert surplus / (0.95 * 615.0) > 1.0
    assert found[0] == math.inf


def test_levels_above_liquidation_are_in_usd_or_in_shares_of_maintenance() -> None:
    cash, prices, down = array(1_000.0 - 20 * 61.5), array(*MARKET_PRICES), together(len(MARKETS))
    notional = 20 * 61.5
    in_usd = trigger_shocks(linear(20.0), cash, prices, down, TIERS, level_usd=100.0)
    assert in_usd[0] == pytest.approx((1_000.0 - 0.05 * notional - 100.0) / (0.95 * notional), rel=1e-12)
    in_share = trigger_shocks(linear(20.0), cash, prices, down, TIERS, level_ratio=1.0)
    assert in_share[0] == pytest.approx((1_000.0 - 0.1 * notional) / (0.9 * notional), rel=1e-12)


@pytest.mark.parametrize("level", [{"level_usd": -1.0}, {"level_ratio": -0.1}])
def test_a_level_below_liquidation_is_refused(level: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="below liquidation"):
        trigger_shocks(linear(1.0), array(0.0), array(*MARKET_PRICES), together(len(MARKETS)), TIERS, **level)


def test_an_account_below_the_level_already_needs_no_shock() -> None:
    assert trigger_shocks(linear(1.0), array(-61.5), array(*MARKET_PRICES), together(len(MARKETS)), TIERS)[0] == 0.0


def test_an_account_that_cannot_lose_is_never_reached() -> None:
    for direction in DIRECTIONS.values():
        assert trigger_shocks(linear(0.0), array(5.0), array(*MARKET_PRICES), direction, TIERS)[0] == math.inf


def test_a_direction_that_leaves_the_account_alone_never_reaches_it() -> None:
    assert (
        trigger_shocks(linear(20.0), array(-1_000.0), array(*MARKET_PRICES), alone(len(MARKETS), np.array([4])), TIERS)[0]
        == math.inf
    )


def test_a_price_that_is_not_known_makes_only_its_accounts_unknown() -> None:
    legs = AccountLegs(
        np.array([0, 1, 1]), np.array([0, 6, 7]), np.array([LINEAR, ASSET, ASSET], np.int8), array(20.0, 1.0, 0.0),
        np.full(3, math.nan), array(math.nan, 0.8, math.nan),
    )  # fmt: skip
    prices = array(*MARKET_PRICES)
    prices[7] = math.nan
    found = trigger_shocks(legs, array(-1_000.0, 10.0), prices, together(len(MARKETS)), TIERS)
    assert np.isfinite(found).tolist() == [True, False]
    assert found[1] == math.inf
    prices[6] = math.nan
    found = trigger_shocks(legs, array(-1_000.0, 10.0), prices, together(len(MARKETS)), TIERS)
    assert np.isnan(found).tolist() == [False, True]
    found = trigger_shocks(legs, array(math.nan, math.nan), array(*MARKET_PRICES), together(len(MARKETS)), TIERS)
    assert np.isnan(found).all()


@pytest.mark.parametrize("price", [0.0, -61.5, math.inf])
def test_a_price_that_is_none_makes_its_account_unknown(price: float) -> None:
    prices = array(*MARKET_PRICES)
    prices[0] = price
    assert np.isnan(trigger_shocks(linear(20.0), array(1e4), prices, together(len(MARKETS)), TIERS)).all()


def test_a_long_on_the_bound_of_a_jumping_tier_that_is_short_of_margin_needs_no_shock() -> None:
    """It stands exactly on the bound, where the upper tier holds; that a fall would free margin comes too late."""
    table = build_tier_table([[MarginTier(0.0, 0.01, 0.0), MarginTier(10_000.0, 0.02, 0.0)]])
    cash = array(-10_000.0 + 150.0)
    assert trigger_shocks(linear(100.0), cash, array(100.0), array(-1.0), table)[0] == 0.0
    assert trigger_shocks(linear(100.0), cash, array(99.999), array(-1.0), table)[0] > 0.0


def test_an_empty_leg_does_not_end_the_shock_of_its_account() -> None:
    """Its own market would be at zero at a shock of a quarter; the other leg is liquidated at three quarters."""
    legs = AccountLegs(
        np.zeros(2, int),
        np.array([0, 1]),
        np.full(2, LINEAR, np.int8),
        array(20.0, 0.0),
        np.full(2, math.nan),
        np.full(2, math.nan),
    )
    direction = together(len(MARKETS))
    direction[1] = -4.0
    cash = array(-0.25 * 0.95 * 20 * 61.5)
    assert trigger_shocks(legs, cash, array(*MARKET_PRICES), direction, TIERS)[0] == pytest.approx(0.75, rel=1e-12)


def test_a_shock_takes_as_many_steps_as_it_has_changes_of_tier_on_its_way() -> None:
    """Two hundred legs through six hundred changes of tier; the reference of one line per tier gives the crossing."""
    count = 200
    sizes = -np.linspace(5.0, 50.0, count)
    table = build_tier_table([[MarginTier(*tier) for tier in CONTINUOUS]])
    legs = AccountLegs(
        np.zeros(count, int), np.zeros(count, int), np.full(count, LINEAR, np.int8), sizes, np.full(count, math.nan),
        np.full(count, math.nan),
    )  # fmt: skip
    cash = 4e7
    shock = trigger_shocks(legs, array(cash), array(100.0), array(1.0), table)[0]
    price = 100.0 * (1.0 + shock)
    required = sum(scalar.maintenance(Leg("linear", size, CONTINUOUS), price) for size in sizes.tolist())
    assert min(abs(sizes)) * price > 2e4
    assert cash + float(sizes.sum()) * price - required == pytest.approx(0.0, abs=1e-7 * cash)
