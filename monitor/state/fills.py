"""Fills of the last seconds, to be replayed on top of account states that are older than they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

FILL_MEMORY_NS = 15_000_000_000
"""How long a fill is kept: a REST answer takes seconds. At 10,000 fills a second these are 150,000 of about 150 B."""


class Fill(NamedTuple):
    """One side of a public trade; ``size`` is signed."""

    exchange_ns: int
    market: int
    size: float
    price: float


class FillMemory:
    """The recent fills by account row."""

    def __init__(self) -> None:
        self._by_row: dict[int, list[Fill]] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._forgotten_ns: dict[int, int] = {}

    def add(self, row: int, fill: Fill, received_ns: int) -> None:
        """Remember a fill, and forget those that are too old by now."""
        while self._order and self._order[0][0] < received_ns - FILL_MEMORY_NS:
            _, old = self._order.popleft()
            fills = self._by_row[old]
            self._forgotten_ns[old] = max(self._forgotten_ns.get(old, 0), fills.pop(0).exchange_ns)
            if not fills:
                del self._by_row[old]
        self._by_row.setdefault(row, []).append(fill)
        self._order.append((received_ns, row))

    def of(self, row: int) -> Sequence[Fill]:
        """Return the remembered fills of an account, oldest first."""
        return self._by_row.get(row, ())

    def forgotten_until_ns(self, row: int) -> int:
        """Return the exchange time of the last fill of an account that is no longer remembered; 0 if there is none.

        A state older than that cannot be completed: what was forgotten may or may not be in it.
        """
        return self._forgotten_ns.get(row, 0)
