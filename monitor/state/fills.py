"""Fills of the last seconds, to be replayed on top of account states that are older than they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

FILL_MEMORY_NS = 15_000_000_000
"""How long a fill is kept: a REST answer takes seconds. At 10,000 fills a second these are 150,000 of about 250 B."""

FILLS_MAX = 500_000
"""Fills kept at most, 125 MB: a node that catches up tells the fills of hours in seconds. The oldest are forgotten first, and
states older than those cannot be completed any more, so that nothing is guessed."""


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One side of a trade; ``size`` is signed. Hundreds of thousands are kept, which the garbage collector should not walk through.

    ``start_size`` is the signed position before it, ``None`` where the source does not tell. ``fee_usd`` is what the account paid,
    ``None`` where more cash moved than can be seen; the public tape does not tell and counts as 0.
    """

    exchange_ns: int
    market: int
    size: float
    price: float
    start_size: float | None = None
    fee_usd: float | None = 0.0


class FillMemory:
    """The recent fills by account row."""

    def __init__(self) -> None:
        self._by_row: dict[int, deque[Fill]] = {}
        self._order: deque[tuple[int, int, Fill]] = deque()
        self._forgotten_ns: dict[int, int] = {}
        self._dropped_ns = 0

    def add(self, row: int, fill: Fill, received_ns: int) -> None:
        """Remember a fill, and forget those that are too old by now."""
        while self._order and (self._order[0][0] < received_ns - FILL_MEMORY_NS or len(self._order) >= FILLS_MAX):
            _, old, oldest = self._order.popleft()
            fills = self._by_row.get(old)
            if fills is None or fills[0] is not oldest:
                # It was of an account that has left the table.
                continue
            self._forgotten_ns[old] = max(self._forgotten_ns.get(old, 0), fills.popleft().exchange_ns)
            if not fills:
                del self._by_row[old]
        self._by_row.setdefault(row, deque()).append(fill)
        self._order.append((received_ns, row, fill))

    def repeats(self, row: int, fill: Fill) -> bool:
        """Tell whether a source that tells the fills of an account in their order seems to tell this one again.

        It is older than one that was told, or in every respect like one of the same moment. Such a one may be another fill, if the
        account came back to where it was within that moment, but nobody can tell.
        """
        if fill.exchange_ns < self.forgotten_until_ns(row):
            return True
        for known in reversed(self._by_row.get(row, ())):
            if known.exchange_ns != fill.exchange_ns:
                return fill.exchange_ns < known.exchange_ns
            if known == fill:
                return True
        return False

    def forget_until(self, row: int, exchange_ns: int) -> None:
        """Note that something happened to an account at a moment that no fill tells: states from before it cannot be completed."""
        self._forgotten_ns[row] = max(self._forgotten_ns.get(row, 0), exchange_ns)

    def of(self, row: int) -> Sequence[Fill]:
        """Return the remembered fills of an account, oldest first."""
        return self._by_row.get(row, ())

    def forgotten_until_ns(self, row: int) -> int:
        """Return the exchange time of the last fill of an account that is no longer remembered; 0 if there is none.

        A state older than that cannot be completed: what was forgotten may or may not be in it.
        """
        return self._forgotten_ns.get(row, 0)

    def drop(self, fill: Fill) -> None:
        """Pass over a fill of an account that finds no room in the table."""
        self._dropped_ns = max(self._dropped_ns, fill.exchange_ns)

    def forget(self, row: int) -> None:
        """Forget the fills of an account that leaves the table; their places in the order are passed over in time."""
        fills = self._by_row.pop(row, ())
        self._dropped_ns = max(self._dropped_ns, self._forgotten_ns.pop(row, 0), *(fill.exchange_ns for fill in fills))

    def meet(self, row: int) -> None:
        """Begin with an account that may have been in the table before: fills that were dropped may have been its own."""
        if self._dropped_ns:
            self._forgotten_ns[row] = self._dropped_ns
