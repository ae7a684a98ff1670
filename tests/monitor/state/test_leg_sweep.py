"""A sweep in blocks says what a look at one account after the other says, wherever its blocks end."""

from __future__ import annotations

import math

import numpy as np
import pytest

from connectors.events import MarginTier
from monitor.margin import TierTable, build_tier_table
from monitor.state.columns import Column
from monitor.state.leg_sweep import RowSums, Sweeper
from monitor.triggers import GENERAL, Legs, find_triggers, value_legs

TIERS = (MarginTier(0.0, 0.0125, 0.0), MarginTier(2_000.0, 0.025, 25.0))
TABLE = build_tier_table([TIERS] * 3)


def column_of(price: float, legs: list[tuple[int, float]], *, general: bool = False) -> Column:
    """Return a column with legs of (row, size)."""
    column = Column()
    column.price = price
    for row, size in legs:
        slot = column.take_slot()
        column.row[slot], column.size[slot] = row, size
        column.slope[slot] = size - TIERS[0].maintenance_rate * abs(size)
        column.second[slot] = GENERAL if general else TIERS[1].lower_bound_usd / abs(size) if size else math.inf
    return column


def rows_of(*cash_usd: float) -> RowSums:
    """Return row 0, which is nobody's, and one row for each cash; nothing is summed up yet."""
    count = len(cash_usd) + 1
    return RowSums(np.array([math.nan, *cash_usd]), np.full(count, math.nan), np.full(count, 9.0), np.full(count, 9.0))


def expected_of(columns: list[Column], cash_usd: float, row: int, tiers: TierTable) -> tuple[float, float, float]:
    """Return surplus, gross value and distance of one row, from all of its legs at once."""
    held = [column.pick(market, np.flatnonzero(column.row[: column.count] == row)) for market, column in enumerate(columns)]
    legs = Legs(*(np.concatenate(arrays) for arrays in zip(*held, strict=True)))
    price = np.array([columns[market].price for market in legs.market])
    value, trigger = np.empty(price.size), np.empty(price.size)
    value_legs(legs, price, tiers, out=value)
    surplus = cash_usd + value.sum()
    shock = np.full(price.size, surplus)
    find_triggers(legs, price, value, tiers, shock=shock, trigger=trigger)
    reach = np.abs(shock)[(trigger > 0.0) & (np.abs(shock) < 1.0)]
    return surplus, np.abs(value).sum(), reach.min(initial=math.inf)


@pytest.mark.parametrize("block", [1, 2, 3, 8, 1_000])
def test_every_row_is_what_its_legs_come_to(block: int) -> None:
    random = np.random.default_rng(3)
    legs = [[(row, float(random.normal(0.0, 30.0))) for row in random.permutation(60)[:40] + 1] for _ in range(3)]
    columns = [column_of(price, held) for price, held in zip((50.0, 3.0, 400.0), legs, strict=True)]
    rows = rows_of(*random.uniform(-3_000.0, 20_000.0, 60))
    drift = Sweeper(block).sweep(columns, TABLE, rows)
    # The sums before were unknown, and what is unknown cannot have drifted.
    assert drift == (0.0, 0)
    told = 0
    for row in range(1, 61):
        surplus, gross, distance = expected_of(columns, float(rows.cash_usd[row]), row, TABLE)
        assert rows.surplus_usd[row] == pytest.approx(surplus, abs=1e-9 * gross)
        assert rows.gross_usd[row] == pytest.approx(gross, rel=1e-6)
        assert rows.distance_ratio[row] == pytest.approx(distance, rel=1e-6)
        told += math.isfinite(distance)
    assert 10 < told < 50, "distances within and beyond sight are both of interest"
    assert math.isnan(rows.surplus_usd[0])


@pytest.mark.parametrize("block", [1, 2, 3, 1_000])
def test_the_two_legs_of_a_hedge_are_solved_together_across_blocks(block: int) -> None:
    """Alone, the long leg would seem to be liquidated by a fall of 22 %; the short one beside it makes that 64 %."""
    columns = [column_of(100.0, [(1, 10.0), (2, 1.0), (1, -6.0)], general=True)]
    rows = rows_of(-200.0, -80.0)
    Sweeper(block).sweep(columns, TABLE, rows)
    surplus, _, distance = expected_of(columns, -200.0, 1, TABLE)
    assert rows.surplus_usd[1] == pytest.approx(surplus)
    assert rows.distance_ratio[1] == pytest.approx(distance)
    # 4 * p - 0.0125 * 16 * p = 200, and the tier of 2,000 is not reached on the way down.
    assert distance == pytest.approx(1.0 - 200.0 / 3.8 / 100.0)


def test_a_trigger_in_the_second_tier_is_nearer_than_the_first_one_would_have_it() -> None:
    columns = [column_of(100.0, [(1, -15.0)])]
    rows = rows_of(2_400.0)
    Sweeper(8).sweep(columns, TABLE, rows)
    # 2400 - 15 p - (0.025 * 15 p - 25) = 0.
    assert rows.distance_ratio[1] == pytest.approx(2_425.0 / (15.0 * 1.025) / 100.0 - 1.0)
    assert rows.distance_ratio[1] < 2_400.0 / (15.0 * 1.0125) / 100.0 - 1.0


def test_a_price_that_is_missing_touches_only_the_rows_in_its_market() -> None:
    columns = [column_of(math.nan, [(1, 1.0)]), column_of(10.0, [(1, 5.0), (2, 5.0), (0, 0.0)])]
    rows = rows_of(0.0, 0.0)
    Sweeper(2).sweep(columns, TABLE, rows)
    assert np.isnan(rows.surplus_usd).tolist() == [True, True, False]
    assert rows.gross_usd.tolist() == pytest.approx([0.0, 5.0 * 10.0 * 0.9875, 5.0 * 10.0 * 0.9875])
    assert rows.distance_ratio[1] == math.inf


def test_drift_is_told_relative_to_the_gross_value() -> None:
    columns = [column_of(100.0, [(1, 10.0), (2, 10.0)])]
    rows = rows_of(-900.0, -900.0)
    sweeper = Sweeper(8)
    sweeper.sweep(columns, TABLE, rows)
    assert sweeper.sweep(columns, TABLE, rows) == (0.0, 2)
    rows.surplus_usd[2] += 1e-3
    drift = sweeper.sweep(columns, TABLE, rows)
    assert drift.rows == 2
    assert drift.largest_ratio == pytest.approx(1e-3 / (987.5 + 900.0), rel=1e-6)


def test_a_table_without_legs_has_only_cash() -> None:
    rows = rows_of(5.0, math.nan)
    Sweeper(8).sweep([Column()], TABLE, rows)
    assert rows.surplus_usd.tolist() == pytest.approx([math.nan, 5.0, math.nan], nan_ok=True)
    assert rows.gross_usd.tolist() == [0.0, 0.0, 0.0]
    assert rows.distance_ratio.tolist() == [math.inf] * 3
