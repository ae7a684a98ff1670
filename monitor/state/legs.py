"""Positions and the surplus of the accounts that hold them, kept right as prices tick and positions change.

The matrix of positions is stored by column: the legs of one market lie side by side, so that a price tick reads one column and adds
to the surplus of the accounts in it, and nothing else. The legs of one margin account hang together in a linked list through the
columns, so that a fill walks over one account. What ticks and fills have added up is compared now and then with a full sweep.

Memory: 53 B per leg and 40 B per row, plus up to a fifth of room to grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.margin import ASSET, INVERSE, LINEAR, Array, Indices, TierTable, build_tier_table, has_jumps, second_tier_price
from monitor.state.columns import Column, grown
from monitor.state.leg_sweep import Drift, RowSums, Sweeper
from monitor.triggers import GENERAL, NO_LEGS, Legs, value_legs

NOBODY = 0
"""Row 0 belongs to no account: free slots of columns point to it, so that they cannot disturb anybody's sums."""

NONE = -1
_SLOT_BITS = 32
_SLOT_MASK = (1 << _SLOT_BITS) - 1
BLOCK = 32_768
"""Legs worked on at a time. With shorter blocks calls begin to cost, with longer ones the sums of their rows leave the cache."""


class LegTable:
    """Margin rows (a cross account, or one isolated position) and their legs.

    Attributes:
        tiers: of all markets; set by :meth:`set_terms`.
        holdings: how many of the legs are assets that are held or owed.
        surplus_usd: shape (rows,), surplus over maintenance at the prices set last; NaN where anything in it is unknown.
        cash_usd: shape (rows,), NaN where unknown.
        distance_ratio: shape (rows,), absolute relative move of one price to the nearest trigger of the row, as of the last sweep;
            infinite where no move by less than the whole price gets there.
        gross_usd: shape (rows,), sum of the absolute values of the legs, as of the last sweep; what is unknown counts as nothing.
    """

    def __init__(self) -> None:
        self.tiers: TierTable = build_tier_table([])
        rows = 1_024
        self.row_count = 1
        self.cash_usd: Array = np.full(rows, np.nan)
        self.surplus_usd: Array = np.full(rows, np.nan)
        self.distance_ratio: Array = np.full(rows, np.inf)
        self.gross_usd: Array = np.zeros(rows)
        self._first: NDArray[np.int64] = np.full(rows, NONE, dtype=np.int64)
        self._columns: list[Column] = []
        self._free_rows: list[int] = []
        self._ratios: dict[tuple[int, int], float] = {}
        self._jumps = has_jumps(self.tiers)
        self._legs = 0
        self.holdings = 0
        self._sweeper = Sweeper(BLOCK)
        self.outdated = False
        """Whether sums cannot be brought up to date by adding to them, so that a sweep is needed before they are used."""

    # ------------------------------------------------------------------------------------------------------- rows

    def new_row(self) -> int:
        """Return a row without legs and with unknown cash."""
        if self._free_rows:
            return self._free_rows.pop()
        row = self.row_count
        if row == self.cash_usd.size:
            room = row // 5
            self.cash_usd = grown(self.cash_usd, room, np.nan)
            self.surplus_usd = grown(self.surplus_usd, room, np.nan)
            self.distance_ratio = grown(self.distance_ratio, room, np.inf)
            self.gross_usd = grown(self.gross_usd, room)
            self._first = grown(self._first, room, NONE)
        self.row_count += 1
        return row

    def free_row(self, row: int) -> None:
        """Take a row back; its legs must be gone."""
        assert self._first[row] == NONE, "a row with legs is in use"
        self.cash_usd[row] = self.surplus_usd[row] = np.nan
        self.distance_ratio[row] = np.inf
        self.gross_usd[row] = 0.0
        self._free_rows.append(row)

    @property
    def leg_count(self) -> int:
        """Number of legs."""
        return self._legs

    def has_legs(self, row: int) -> bool:
        """Tell whether a row has a leg."""
        return bool(self._first[row] != NONE)

    def rows_with_legs(self) -> NDArray[np.int64]:
        """Return the rows that have a leg."""
        return np.flatnonzero(self._first[: self.row_count] != NONE)

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, room to grow included."""
        rows = (self.cash_usd, self.surplus_usd, self.distance_ratio, self.gross_usd, self._first)
        return sum(array.nbytes for array in rows) + sum(column.nbytes for column in self._columns)

    # ------------------------------------------------------------------------------------------------------- legs

    def column(self, market: int) -> Column:
        """Return the legs of a market."""
        while market >= len(self._columns):
            self._columns.append(Column())
        return self._columns[market]

    def copy_legs(self, markets: Sequence[Sequence[int]]) -> tuple[Legs, NDArray[np.int64]]:
        """Return copies of the legs of some groups of markets, one group after the other, and how many there are of each group.

        Free slots are included. There are no entry prices where all contracts are linear and nothing is held.
        """
        columns = [(market, self.column(market)) for group in markets for market in group]
        counts = np.array([sum(self.column(market).count for market in group) for group in markets], dtype=np.int64)
        parts = [column.legs(market) for market, column in columns]
        if not parts:
            return NO_LEGS, counts
        legs = Legs(
            # As the type that they are used as, so that no look-up has to convert them.
            np.concatenate([part.account for part in parts], dtype=np.int64),
            np.repeat(np.array([market for market, _ in columns], dtype=np.int32), [column.count for _, column in columns]),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.slope for part in parts]),
            np.concatenate([part.second_tier_price for part in parts]),
        )
        if self.tiers.contract is not None or self.holdings:
            legs = legs._replace(
                entry_price=np.concatenate([part.entry_price for part in parts]),
                is_holding=np.concatenate([part.is_holding for part in parts]),
            )
        return legs, counts

    def price_of(self, market: int) -> float:
        """Return the price of a market that margin is computed at now; NaN while it is unknown."""
        return self._columns[market].price if market < len(self._columns) else math.nan

    def legs_of(self, row: int) -> Iterator[tuple[int, int]]:
        """Go through (market, slot) of the legs of a row, the one added last first."""
        leg = self._first.item(row)
        while leg != NONE:
            market, slot = leg >> _SLOT_BITS, leg & _SLOT_MASK
            leg = self._columns[market].following.item(slot)
            yield market, slot

    def add(
        self,
        row: int,
        market: int,
        size: float,
        *,
        entry_price: float = math.nan,
        venue_price: float = math.nan,
        is_holding: bool = False,
        category: int = 0,
    ) -> int:
        """Add a leg and return its slot; the surplus of the row is settled by the caller with :meth:`settle`.

        The coin of an inverse contract may be held under the contract's own symbol, whose price moves both; another holding has no
        known value without a collateral ratio, and a position in an asset has none at all.

        Args:
            row: whose it is.
            market: the price column.
            size: signed, in the unit of the contract.
            entry_price: needed for inverse contracts.
            venue_price: the venue's own liquidation price.
            is_holding: whether it is an asset that is held or owed, and no position.
            category: lending category of the account, for the ratio of an asset.
        """
        column = self.column(market)
        companions = [slot for held, slot in self.legs_of(row) if held == market]
        slot = column.take_slot()
        column.row[slot] = row
        column.size[slot] = size
        column.entry_price[slot] = entry_price
        column.venue_price[slot] = venue_price
        column.is_holding[slot] = is_holding
        self.holdings += is_holding
        column.following[slot] = self._first[row]
        self._first[row] = market << _SLOT_BITS | slot
        self._legs += 1
        self._prepare(market, slot, category)
        if companions:
            _share(column, np.array([slot, *companions]))
        return slot

    def resize(self, market: int, slot: int, size: float, entry_price: float) -> None:
        """Change the size of a leg of a perpetual."""
        column = self._columns[market]
        was_general = column.second[slot] == GENERAL
        column.size[slot] = size
        column.entry_price[slot] = entry_price
        column.venue_price[slot] = np.nan
        self._prepare(market, slot, 0)
        if was_general:
            column.second[slot] = GENERAL

    def remove(self, row: int, market: int, slot: int) -> None:
        """Remove a leg; a companion in the same market stays in the care of the general code, which is right for it too."""
        column = self._columns[market]
        leg, previous = market << _SLOT_BITS | slot, NONE
        following = int(column.following[slot])
        for held, other in self.legs_of(row):
            if held << _SLOT_BITS | other == leg:
                break
            previous = held << _SLOT_BITS | other
        if previous == NONE:
            self._first[row] = following
        else:
            self._columns[previous >> _SLOT_BITS].following[previous & _SLOT_MASK] = following
        self._release(column, slot)

    def clear(self, row: int) -> None:
        """Remove all legs of a row."""
        for market, slot in list(self.legs_of(row)):
            self._release(self._columns[market], slot)
        self._first[row] = NONE

    def _release(self, column: Column, slot: int) -> None:
        column.row[slot] = NOBODY
        column.size[slot] = column.slope[slot] = 0.0
        column.second[slot] = np.inf
        column.entry_price[slot] = column.venue_price[slot] = np.nan
        self.holdings -= int(column.is_holding[slot])
        column.is_holding[slot] = False
        column.following[slot] = NONE
        column.free.append(slot)
        self._legs -= 1

    def _prepare(self, market: int, slot: int, category: int) -> None:
        """Cache what a tick needs of a leg: its slope in the first tier and where that tier ends."""
        column, tiers = self._columns[market], self.tiers
        size = column.size.item(slot)
        contract = LINEAR if tiers.contract is None else tiers.contract.item(market)
        if column.is_holding[slot]:
            ratio = 1.0 if size < 0.0 else self._ratios.get((market, category), self._ordinary_ratio(market))
            column.slope[slot] = size * ratio
            column.second[slot] = np.inf
        elif contract == ASSET:
            column.slope[slot], column.second[slot] = math.nan, math.inf
        elif contract == INVERSE:
            column.slope[slot] = 0.0
            column.second[slot] = GENERAL
        else:
            column.slope[slot] = size - tiers.rate.item(market, 0) * abs(size)
            bound = tiers.lower_bound_usd.item(market, 1) if tiers.lower_bound_usd.shape[1] > 1 else math.inf
            column.second[slot] = GENERAL if self._jumps.item(market) else bound / abs(size) if size else math.inf

    def set_terms(self, tiers: TierTable, ratios: dict[tuple[int, int], float], categories: dict[int, int]) -> None:
        """Take over new margin tables.

        Args:
            tiers: of all markets.
            ratios: by (market, lending category) the share of an asset's value that counts; category 0 is the ordinary one.
            categories: by row the lending category of the accounts that are in one.
        """
        before, self.tiers = self.tiers, tiers
        changed = set(_changed_markets(before, tiers).tolist())
        changed |= {market for (market, _), _ in self._ratios.items() ^ ratios.items()}
        self._ratios = dict(ratios)
        self._jumps = has_jumps(tiers)
        self.column(max(tiers.rate.shape[0] - 1, 0))
        for market in sorted(changed):
            self._prepare_column(market, categories)

    def _prepare_column(self, market: int, categories: dict[int, int]) -> None:
        """Prepare all legs of a market for its new terms; their accounts are unknown until the next sweep."""
        column, tiers = self._columns[market], self.tiers
        used = np.flatnonzero(column.row[: column.count])
        if not used.size:
            return
        contract = LINEAR if tiers.contract is None else tiers.contract.item(market)
        size = column.size[used]
        if contract == ASSET:
            column.slope[used], column.second[used] = np.nan, np.inf
        elif contract == INVERSE:
            column.slope[used], column.second[used] = 0.0, GENERAL
        else:
            column.slope[used] = size - tiers.rate[market, 0] * np.abs(size)
            bound = second_tier_price(size, np.full(used.size, market, dtype=np.int32), tiers)
            column.second[used] = GENERAL if self._jumps[market] else bound
        held = used[column.is_holding[used]]
        ratio = np.where(column.size[held] < 0.0, 1.0, self._counted_ratios(market, column.row[held], categories))
        column.slope[held], column.second[held] = column.size[held] * ratio, np.inf
        _, group, count = np.unique(column.row[used], return_inverse=True, return_counts=True)
        _share(column, used[count[group] > 1])
        # Sums with the old terms in them are neither to be shown nor to be called a drift.
        self.surplus_usd[column.row[used]] = np.nan
        self.outdated = True

    def _counted_ratios(self, market: int, rows: Indices, categories: dict[int, int]) -> Array:
        """Return what share of an asset counts in each row: that of the account's category, or else the ordinary one."""
        ordinary = self._ordinary_ratio(market)
        by_row = np.full(self.row_count, ordinary)
        for row, category in categories.items():
            by_row[row] = self._ratios.get((market, category), ordinary)
        return by_row[rows]

    def _ordinary_ratio(self, market: int) -> float:
        """Return what share of an asset counts: the coin of an inverse contract in full, as margin and profit are in it."""
        is_inverse = self.tiers.contract is not None and self.tiers.contract.item(market) == INVERSE
        return self._ratios.get((market, 0), 1.0 if is_inverse else math.nan)

    # ----------------------------------------------------------------------------------------------------- prices

    def settle(self, row: int) -> None:
        """Compute the surplus of one row anew."""
        surplus = self.cash_usd.item(row)
        for market, slot in self.legs_of(row):
            column = self._columns[market]
            if column.price < column.second.item(slot):
                surplus += column.slope.item(slot) * column.price
            else:
                surplus += float(self._values(market, np.array([slot]), np.array([column.price]))[0])
        self.surplus_usd[row] = surplus

    def set_price(self, market: int, price: float) -> None:
        """Move the price of one market, and with it the surplus of all accounts in it; NaN makes those unknown."""
        column = self.column(market)
        before, column.price = column.price, price
        if price == before or not column.count or (math.isnan(price) and math.isnan(before)):
            return
        if math.isnan(before):
            # What is unknown cannot be added to.
            self.outdated = True
            return
        change = column.slope[: column.count] * (price - before)
        special = np.flatnonzero(column.second[: column.count] <= max(before, price))
        if special.size:
            # One call for both prices: there are few of them, so that calls are what costs.
            values = self._values(market, np.tile(special, 2), np.repeat((before, price), special.size))
            change[special] = values[special.size :] - values[: special.size]
        np.add.at(self.surplus_usd, column.row[: column.count], change)

    def _values(self, market: int, slots: NDArray[np.int64], prices: Array) -> Array:
        """Return what some legs of a column add to the surplus at a price each."""
        out = np.empty(slots.size)
        value_legs(self._columns[market].pick(market, slots), prices, self.tiers, out=out)
        return out

    def sweep(self) -> Drift:
        """Compute all surpluses and distances anew and return how far the running sums were off."""
        arrays = (self.cash_usd, self.surplus_usd, self.gross_usd, self.distance_ratio)
        rows = RowSums(*(array[: self.row_count] for array in arrays))
        self.outdated = False
        return self._sweeper.sweep(self._columns, self.tiers, rows)


def _changed_markets(before: TierTable, after: TierTable) -> NDArray[np.int64]:
    """Return the markets whose margin tiers or contract are others than before, new ones included."""
    old, depth = before.rate.shape
    count = min(old, after.rate.shape[0])
    deepest = max(depth, after.rate.shape[1])
    same = np.ones(count, dtype=np.bool_)
    for field, padding in (("lower_bound_usd", np.inf), ("rate", np.nan), ("deduction_usd", np.nan)):
        mine, theirs = (
            np.pad(table[:count], ((0, 0), (0, deepest - table.shape[1])), constant_values=padding)
            for table in (getattr(before, field), getattr(after, field))
        )
        same &= ((mine == theirs) | (np.isnan(mine) & np.isnan(theirs))).all(axis=1)
    contracts = [np.zeros(count, dtype=np.int8) if table.contract is None else table.contract[:count] for table in (before, after)]
    same &= contracts[0] == contracts[1]
    return np.concatenate((np.flatnonzero(~same), np.arange(count, after.rate.shape[0])))


def _share(column: Column, slots: NDArray[np.int64]) -> None:
    """Leave legs that share account and market to the general code; those of no known value stay out of its reach."""
    column.second[slots[~np.isnan(column.slope[slots])]] = GENERAL
