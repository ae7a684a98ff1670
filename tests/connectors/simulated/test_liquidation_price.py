from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connectors.simulated.accounts import AccountTable
from connectors.simulated.draws import Draws
from connectors.simulated.liquidation_price import liquidation_price, liquidation_prices
from connectors.simulated.markets import MARKETS, MICROS_PER_USD, MarginTier, Market
from connectors.simulated.population import PopulationConfig, build_population
from tests.connectors.simulated.worlds import address

BTC = MARKETS[0]


def market(*tiers: tuple[int, int], size_decimals: int = 2) -> Market:
    return Market(
        coin="X",
        size_decimals=size_decimals,
        margin_table_id=1,
        margin_table_name="",
        tiers=tuple(MarginTier(bound, leverage) for bound, leverage in tiers),
        initial_price_usd=1.0,
        open_interest_usd=1.0,
        depth_one_percent_usd=1.0,
        beta=1.0,
        impact_notional_usd=1.0,
    )


def one_position(spec: Market, lots: int, mark: int, equity_usd: float) -> AccountTable:
    table = AccountTable((spec,), [address(0)])
    table.lots[0, 0] = lots
    table.raw[0] = round(equity_usd * MICROS_PER_USD) - lots * mark
    return table


def test_isolated_position_of_the_official_sample() -> None:
    spec = market((0, 50), size_decimals=4)
    table = AccountTable((spec,), [address(0)])
    table.lots[0, 0] = 335
    table.isolated[0, 0] = True
    table.isolated_raw[0, 0] = -95_059_824
    price = liquidation_price(table, 0, 0, [spec.price(2985.9)])
    assert price == pytest.approx(2866.26938, abs=5e-6)


def test_cross_long_of_the_vectors() -> None:
    # 10 BTC at 80,000 with 100,000 of equity.
    table = one_position(BTC, 10 * BTC.lot_scale, BTC.price(80_000), 100_000)
    assert liquidation_price(table, 0, 0, [BTC.price(80_000)]) == pytest.approx(70_886.0759493671, rel=1e-13)


def test_cross_short_that_crosses_into_the_next_tier_uses_the_tier_at_the_trigger() -> None:
    spec = market((0, 10), (20_000_000, 5))
    table = one_position(spec, -500_000 * 100, spec.price(30), 7_000_000)
    assert liquidation_price(table, 0, 0, [spec.price(30)]) == pytest.approx(41.8181818181818, rel=1e-13)


def test_no_positive_price_liquidates_an_unlevered_long() -> None:
    table = one_position(BTC, BTC.lot_scale, BTC.price(80_000), 80_000)
    assert liquidation_price(table, 0, 0, [BTC.price(80_000)]) is None
    assert liquidation_price(one_position(BTC, BTC.lot_scale, BTC.price(80_000), 79_999), 0, 0, [BTC.price(80_000)]) is not None


def test_a_short_that_no_positive_price_could_save_has_no_liquidation_price() -> None:
    table = one_position(BTC, -BTC.lot_scale, BTC.price(80_000), -80_001)
    assert liquidation_price(table, 0, 0, [BTC.price(80_000)]) is None


def test_a_position_that_is_already_short_of_margin_has_its_price_on_the_wrong_side() -> None:
    table = one_position(BTC, BTC.lot_scale, BTC.price(80_000), 100)
    price = liquidation_price(table, 0, 0, [BTC.price(80_000)])
    assert price is not None
    assert price > 80_000


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=4),
    st.floats(0.011, 3.0),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_the_margin_check_turns_at_the_liquidation_price_and_nowhere_else(
    weights: list[int], equity_ratio: float, isolated: list[bool]
) -> None:
    table = AccountTable(MARKETS, [address(0)])
    marks = [spec.price(spec.initial_price_usd) for spec in MARKETS]
    for index, spec in enumerate(MARKETS):
        # Up to 300 million USD a market, so that all tiers occur.
        lots = spec.lots_for(abs(weights[index]) * 300.0, marks[index]) if weights[index] else 0
        table.lots[0, index] = math.copysign(lots, weights[index])
        table.isolated[0, index] = isolated[index] and lots > 0
    notional = sum(abs(lots * marks[index]) for index, lots in table.positions(0))
    assume(notional)
    table.raw[0] = round(notional * equity_ratio)
    table.raw[0] -= sum(lots * marks[index] for index, lots in table.positions(0) if not table.isolated[0, index])
    for index, lots in table.positions(0):
        if table.isolated[0, index]:
            table.isolated_raw[0, index] = round(abs(lots) * marks[index] * equity_ratio) - lots * marks[index]
    for index, lots in table.positions(0):
        price = liquidation_price(table, 0, index, marks)
        for ratio in (1e-3, 1e-6, 1e-8):
            for sign in (-1, 1):
                if price is None:
                    continue
                trial = list(marks)
                exact = price * (1.0 + sign * ratio) * MARKETS[index].price_scale
                # Prices are whole units, so the nearest one on the same side is tried, if it is not at the price itself.
                trial[index] = math.floor(exact) if sign < 0 else math.ceil(exact)
                if trial[index] < 1 or abs(trial[index] / MARKETS[index].price_scale / price - 1.0) < ratio / 2:
                    continue
                margins = table.margins(trial)
                short = margins.isolated_short()[0, index] if table.isolated[0, index] else margins.cross_short()[0]
                assert bool(short) == (sign * lots < 0)


@pytest.mark.parametrize("fall", [0.0, 0.06, 0.3])
def test_the_prices_of_all_accounts_at_once_are_those_of_each(fall: float) -> None:
    table = build_population(MARKETS, PopulationConfig(accounts=300, isolated_share=0.3, unified_share=0.3), Draws(4)).table
    marks = [market.price(market.initial_price_usd * (1.0 - fall)) for market in MARKETS]
    found = 0
    for market in range(len(MARKETS)):
        prices = liquidation_prices(table, market, marks)
        for row in range(len(table)):
            price = liquidation_price(table, row, market, marks) if table.lots[row, market] else None
            if price is None:
                assert math.isnan(prices[row])
            else:
                assert prices[row] == pytest.approx(price, rel=1e-13)
                found += 1
    assert found > 300


def test_a_market_without_positions_has_no_liquidation_prices() -> None:
    table = AccountTable((BTC,), [address(0), address(1)])
    assert np.isnan(liquidation_prices(table, 0, [BTC.price(80_000)])).all()
