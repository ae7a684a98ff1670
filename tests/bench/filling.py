"""Fill the account table's columns at once: event by event ten million positions would take minutes."""

from __future__ import annotations

import numpy as np

from monitor.margin import build_tier_table
from monitor.state.legs import _SLOT_BITS, NONE, LegTable
from tests.bench.population import Population

FIRST_ROW = 1
"""Row 0 is nobody's."""


def fill_legs(population: Population) -> LegTable:
    """Return a table with a cross account for each account of the population, swept once; account 0 has row 1.

    It is what :meth:`LegTable.add` makes, leg by leg and account by account, but for the room to grow.
    """
    table = LegTable()
    accounts, markets = population.cash_usd.size, population.price.size
    rows = FIRST_ROW + accounts
    table.row_count = rows
    table.cash_usd = np.full(rows, np.nan)
    table.cash_usd[FIRST_ROW:] = population.cash_usd
    table.surplus_usd = np.full(rows, np.nan)
    table.distance_ratio = np.full(rows, np.inf)
    table.gross_usd = np.zeros(rows)
    table._first = np.full(rows, NONE, dtype=np.int64)
    # Accounts ascend within each market, as they do when they are added one after the other.
    order = np.argsort(population.market, kind="stable")
    ends = np.searchsorted(population.market[order], np.arange(markets + 1))
    slot = np.empty(order.size, dtype=np.int64)
    slot[order] = np.arange(order.size) - ends[population.market[order]]
    leg = population.market.astype(np.int64) << _SLOT_BITS | slot
    is_first = np.diff(population.account, prepend=-1) != 0
    following = np.where(is_first, NONE, np.roll(leg, 1))
    is_last = np.roll(is_first, -1)
    table._first[FIRST_ROW + population.account[is_last]] = leg[is_last]
    table._legs = order.size
    for market in range(markets):
        mine = order[ends[market] : ends[market + 1]]
        column = table.column(market)
        column.count = mine.size
        column.price = float(population.price[market])
        column.row = population.account[mine] + np.int32(FIRST_ROW)
        column.following = following[mine]
        column.size = population.size[mine]
        column.slope = np.zeros(mine.size)
        column.second = np.full(mine.size, np.inf)
        column.entry_price = np.full(mine.size, np.nan)
        column.venue_price = np.full(mine.size, np.nan)
        column.is_holding = np.zeros(mine.size, dtype=np.bool_)
    table.set_terms(build_tier_table(population.tiers), {}, {})
    table.sweep()
    return table
