"""The margin of all accounts, kept current: who is short of it, and who is next to be deleveraged.

The exchange looks at every account in every block, but marks change every few seconds only and a block's fills touch few accounts.
So all figures are computed anew when a mark changes, and in between only those of the accounts that were touched. The formulas are
row by row and in whole numbers where it matters, so the result is the same as that of computing everything every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from connectors.simulated.accounts import AccountTable, Floats, Integers

Booleans = NDArray[np.bool_]


class MarginBoard:
    """Margin figures of one table at one set of marks. It takes the rows out of ``table.touched``, so a table has one board."""

    def __init__(self, table: AccountTable) -> None:
        self._table = table
        self._marks: list[int] = [0] * len(table.markets)
        self._ranks: dict[tuple[int, bool], Floats] = {}
        self._compute_all()

    def refresh(self, marks: Sequence[int]) -> None:
        """Take over what has changed since the last call: the marks (price units), or single accounts."""
        table = self._table
        if list(marks) != self._marks:
            self._marks = list(marks)
            self._compute_all()
            return
        if not table.touched:
            return
        rows = np.fromiter(table.touched, np.int64, len(table.touched))
        table.touched.clear()
        part = table.margins(self._marks, rows)
        self._cross_value[rows] = part.cross_value
        self._isolated_value[rows] = part.isolated_value
        self._cross_short[rows] = part.cross_short()
        self._isolated_short[rows] = part.isolated_short()
        for (market, is_long), ranks in self._ranks.items():
            ranks[rows] = self._rank(rows, market, is_long=is_long)

    def cross_short(self) -> list[int]:
        """Return the accounts below their cross maintenance (strictly), in the order of their rows."""
        rows: list[int] = np.flatnonzero(self._cross_short).tolist()
        return rows

    def isolated_short(self) -> list[tuple[int, int]]:
        """Return (account, market) of the isolated positions below their maintenance (strictly), in the order of their rows."""
        rows = np.flatnonzero(np.logical_or.reduce(self._isolated_short, axis=1))
        return [(int(rows[place]), int(market)) for place, market in np.argwhere(self._isolated_short[rows])]

    def first_against(self, market: int, *, is_long: bool) -> int | None:
        """Return the account on one side of a market that is deleveraged first, or ``None`` if nobody there has any value.

        The documented rank is ``(mark / entry) * (notional / account value)``. Its first ratio is read as the return of the
        position: for shorts, which gain when the mark is below the entry, it is turned over. Of equals the lower row is first.
        """
        ranks = self._ranks.get((market, is_long))
        if ranks is None:
            everybody = np.arange(len(self._table))
            ranks = self._ranks[market, is_long] = self._rank(everybody, market, is_long=is_long)
        first = int(np.argmax(ranks))
        return None if ranks[first] == -np.inf else first

    def _compute_all(self) -> None:
        self._table.touched.clear()
        margins = self._table.margins(self._marks)
        self._cross_value: Integers = margins.cross_value
        self._isolated_value: Integers = margins.isolated_value
        self._cross_short: Booleans = margins.cross_short()
        self._isolated_short: Booleans = margins.isolated_short()
        # Made when somebody is deleveraged, which most marks do not live to see.
        self._ranks.clear()

    def _rank(self, rows: Integers, market: int, *, is_long: bool) -> Floats:
        """Return the rank of the given accounts, minus infinity for those that are not on that side or have no value."""
        table, mark = self._table, self._marks[market]
        lots = table.lots[rows, market]
        value = np.where(table.isolated[rows, market], self._isolated_value[rows, market], self._cross_value[rows])
        places = np.flatnonzero((lots > 0 if is_long else lots < 0) & (value > 0))
        size = lots[places]
        entry = table.cost[rows[places], market] / size
        gain = mark / entry if is_long else entry / mark
        ranks: Floats = np.full(rows.size, -np.inf)
        ranks[places] = gain * np.abs(size) * mark / value[places]
        return ranks
