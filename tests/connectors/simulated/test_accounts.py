from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulated.accounts import AccountTable
from connectors.simulated.draws import Draws
from connectors.simulated.markets import MARKETS, MICROS_PER_USD, Market
from connectors.simulated.population import PopulationConfig, build_population
from tests.connectors.simulated.worlds import HYPE, ROUND, address


def table_of(*markets: Market) -> AccountTable:
    return AccountTable(markets, [address(row) for row in range(3)])


def test_adding_reducing_and_turning_a_position_keeps_the_entry_price() -> None:
    table = table_of(ROUND)
    assert table.apply_fill(1, 0, 100, 1_000_000, 0) == 0
    assert table.apply_fill(1, 0, 100, 1_100_000, 0) == 0
    assert table.entry_price(1, 0) == 1_050_000
    assert table.apply_fill(1, 0, -50, 1_200_000, 0) == 50 * 150_000
    assert table.entry_price(1, 0) == 1_050_000
    assert table.apply_fill(1, 0, -250, 1_000_000, 0) == -150 * 50_000
    assert table.lots[1, 0] == -100
    assert table.entry_price(1, 0) == 1_000_000


@given(st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1, 10**7), st.integers(0, 1000)), min_size=1, max_size=30))
def test_value_is_profit_minus_fees_whatever_was_traded(fills: list[tuple[int, int, int]]) -> None:
    table = table_of(ROUND)
    realised = sum(table.apply_fill(1, 0, lots, price, fee) for lots, price, fee in fills)
    fees = sum(fee for _, _, fee in fills)
    last = fills[-1][1]
    unrealised = int(table.lots[1, 0]) * last - int(table.cost[1, 0])
    assert table.cross_value(1, [last]) == realised + unrealised - fees
    assert table.lots[1, 0] == sum(lots for lots, _, _ in fills)


def test_a_closed_isolated_position_returns_its_margin_unless_it_is_a_debt() -> None:
    for exit_price, raw, stays in ((990_000, 9_000_000, False), (800_000, 0, True)):
        table = table_of(ROUND)
        table.isolated[1, 0] = True
        table.lots[1, 0], table.cost[1, 0] = 100, 100_000_000
        table.isolated_raw[1, 0] = 10_000_000 - 100_000_000
        table.apply_fill(1, 0, -100, exit_price, 0)
        assert bool(table.isolated[1, 0]) is stays
        assert table.raw[1] == raw
        assert table.isolated_raw[1, 0] == (-10_000_000 if stays else 0)


def test_adding_to_an_isolated_position_takes_margin_from_the_cross_account() -> None:
    table = table_of(ROUND)
    table.isolated[1, 0] = True
    table.leverage[1, 0] = 10
    table.raw[1] = 50_000_000
    table.apply_fill(1, 0, 100, 1_000_000, 0)
    assert table.raw[1] == 40_000_000
    assert table.isolated_value(1, 0, 1_000_000) == 10_000_000


def test_vectorised_margins_equal_those_of_each_account() -> None:
    table = AccountTable(MARKETS, [address(row) for row in range(3)])
    marks = [market.price(market.initial_price_usd) for market in MARKETS]
    table.lots[0] = [2_000_000_00, -5_000_000, 3_000, 0]
    table.lots[1] = [0, 100, 0, -90_000_000]
    table.raw[:] = [10**15, 10**13, 5]
    table.isolated[1, 1] = True
    table.isolated_raw[1, 1] = -7
    table.unified[2] = True
    table.collateral[2] = 12
    margins = table.margins(marks)
    for row in range(3):
        assert int(margins.cross_value[row]) == table.cross_value(row, marks)
        assert margins.cross_maintenance_usd[row] == pytest.approx(table.cross_maintenance_usd(row, marks), rel=1e-12)
    assert int(margins.isolated_value[1, 1]) == table.isolated_value(1, 1, marks[1])
    assert margins.isolated_maintenance_usd[1, 1] == MARKETS[1].maintenance_usd(100 * marks[1] / MICROS_PER_USD)
    assert margins.cross_value[2] == 17
    assert not margins.cross_short()[2]


def test_margin_is_short_only_strictly_below_maintenance() -> None:
    table = table_of(HYPE)
    table.lots[1, 0] = 100
    table.raw[1] = -100 * 348_000 + 100 * 348_000 // 20
    assert not table.margins([348_000]).cross_short()[1]
    table.raw[1] -= 1
    assert table.margins([348_000]).cross_short()[1]


def test_the_margin_of_some_accounts_is_that_of_all_to_the_last_bit() -> None:
    table = build_population(MARKETS, PopulationConfig(accounts=500, isolated_share=0.3, unified_share=0.2), Draws(3)).table
    marks = [market.price(market.initial_price_usd * 0.97) for market in MARKETS]
    everything = table.margins(marks)
    for rows in (np.asarray([7]), np.asarray([400, 3, 3, 77]), np.arange(len(table))[::-1]):
        some = table.margins(marks, rows)
        for name in everything.__struct_fields__:
            assert np.array_equal(getattr(some, name), getattr(everything, name)[rows]), name
        assert np.array_equal(some.cross_short(), everything.cross_short()[rows])
        assert np.array_equal(some.isolated_short(), everything.isolated_short()[rows])
