"""Walks through a whole account table that fail where anything does not fit, and a slow scalar margin account to compare with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from connectors.events import Contract, MarginTier
from monitor.margin import ASSET
from monitor.state.accounts import _GROWING, AccountTable
from monitor.state.legs import NOBODY, NONE, LegTable
from monitor.triggers import GENERAL


class Terms(NamedTuple):
    """What a market is, in words that a person would use."""

    contract: Contract = "linear"
    tiers: tuple[MarginTier, ...] = (MarginTier(0.0, 0.01, 0.0),)
    ratio: float | None = None


class Leg(NamedTuple):
    """A leg as a source would tell of it."""

    market: int
    size: float
    entry_price: float = math.nan
    is_holding: bool = False


def scalar_value(leg: Leg, price: float, terms: Terms) -> float:
    """Return what a leg adds to the surplus of its account (design.md 3), NaN where that is not known."""
    if math.isnan(price) or (terms.contract == "asset" and not leg.is_holding):
        return math.nan
    if leg.is_holding:
        # The coin of an inverse contract counts in full; of anything else it has to be told.
        untold = 1.0 if terms.contract == "inverse" else math.nan
        ratio = 1.0 if leg.size < 0.0 else untold if terms.ratio is None else terms.ratio
        return ratio * leg.size * price
    if not terms.tiers:
        return math.nan
    if terms.contract == "inverse":
        # In coin: profit q/entry - q/p, maintenance of the tier that holds |q|/p; times p it is USD.
        notional = abs(leg.size) / price
        tier = [tier for tier in terms.tiers if tier.lower_bound_usd <= notional][-1]
        profit = leg.size / leg.entry_price - leg.size / price
        return (profit - (notional * tier.maintenance_rate - tier.deduction_usd)) * price
    notional = abs(leg.size) * price
    tier = [tier for tier in terms.tiers if tier.lower_bound_usd <= notional][-1]
    return leg.size * price - (notional * tier.maintenance_rate - tier.deduction_usd)


def scalar_surplus(cash: float, legs: Iterable[Leg], prices: list[float], terms: list[Terms]) -> tuple[float, float]:
    """Return (surplus, gross value) of a margin account."""
    values = [scalar_value(leg, prices[leg.market], terms[leg.market]) for leg in legs]
    return cash + sum(values), abs(cash) + sum(abs(value) for value in values if not math.isnan(value))


def check_legs(legs: LegTable) -> None:
    """Follow every list and look into every slot: each leg hangs on one row, and what is free is empty and free once."""
    seen: Counter[tuple[int, int]] = Counter()
    free_rows = legs._free_rows
    assert len(set(free_rows)) == len(free_rows), "a row is free twice"
    assert all(NOBODY < row < legs.row_count for row in free_rows)
    for row in range(legs.row_count):
        held: list[tuple[int, int]] = []
        for leg in legs.legs_of(row):
            held.append(leg)
            assert len(held) <= legs.leg_count, f"the legs of row {row} go round in a circle"
        seen.update(held)
        assert legs.has_legs(row) == bool(held)
        assert all(legs.column(market).row[slot] == row for market, slot in held)
        in_market = Counter(market for market, _ in held)
        for market, slot in held:
            column = legs.column(market)
            assert column.size[slot] != 0.0
            if in_market[market] > 1 and not math.isnan(column.slope[slot]):
                assert column.second[slot] == GENERAL, "legs of one account and market are left to the general code"
    assert not list(legs.legs_of(NOBODY))
    assert all(not legs.has_legs(row) and math.isnan(legs.cash_usd[row]) and math.isnan(legs.surplus_usd[row]) for row in free_rows)
    assert all(legs.distance_ratio[row] == np.inf and legs.gross_usd[row] == 0.0 for row in free_rows)
    assert all(count == 1 for count in seen.values()), "a leg hangs on two rows"
    assert sum(seen.values()) == legs.leg_count
    for market, column in enumerate(legs._columns):
        free = set(column.free)
        assert len(free) == len(column.free), "a slot is free twice"
        for slot in range(column.count):
            assert ((market, slot) in seen) != (slot in free), "a slot is either held or free"
            if slot in free:
                empty = column.row[slot], column.size[slot], column.slope[slot], column.second[slot], column.following[slot]
                assert empty == (NOBODY, 0.0, 0.0, np.inf, NONE)
                assert math.isnan(column.entry_price[slot])
                assert math.isnan(column.venue_price[slot])
                assert not column.is_holding[slot]
        is_asset = legs.tiers.contract is not None and legs.tiers.contract[market] == ASSET
        misplaced = ~column.is_holding[: column.count] & is_asset
        held_slots = column.row[: column.count] != NOBODY
        assert np.isnan(column.slope[: column.count][misplaced & held_slots]).all()


def check_table(table: AccountTable) -> None:
    """Check the legs, that every row belongs to exactly one account, and that nothing is remembered of rows that are free."""
    check_legs(table.legs)
    used: Counter[int] = Counter()
    mains = [row for rows in table._rows.values() for row in rows.values()]
    used.update(mains)
    for main in mains:
        assert table.main_row[main] == table.owner_row[main] == main
        own = table.rows_of_account(main)
        assert own[0] == main
        used.update(own[1:])
        assert all(table.main_row[row] == main for row in own)
        assert table.fed[main] == (main in table.sequences)
        assert table.has_balance[main] == (main in table.balances)
    for venue, by_name in table._rows.items():
        assert sorted(table.rows_of(venue).tolist()) == sorted(by_name.values())
        assert all(table.name(row) == (venue, name) for name, row in by_name.items())
    assert all(count == 1 for count in used.values()), "a row belongs to two accounts"
    free = set(table.legs._free_rows)
    assert not free & used.keys()
    assert free | used.keys() == set(range(1, table.legs.row_count)), "a row was lost"
    for row in free:
        assert all(getattr(table, name)[row] == 0 for name in _GROWING), f"row {row} is free and not empty"
        assert table._names[row] == ""
    for by_main in (table.pools, table.sequences, table.feeds, table.resync, table.balances, table.pool_states):
        assert by_main.keys() <= set(mains)
    assert table.recent._by_row.keys() <= set(mains)
    assert table.recent._forgotten_ns.keys() <= set(mains)
    assert table.categories.keys() <= used.keys()
    for cross, rows in table.isolated.items():
        assert table.owner_row[cross] == cross
        assert rows
        assert all(table.owner_row[row] == cross for row in rows)
    for main, pools in table.pools.items():
        assert all(table.owner_row[row] == row and table.main_row[row] == main for row in pools.values())
    assert table.resync.keys() <= table.feeds.keys()
