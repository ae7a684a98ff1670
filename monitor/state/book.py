"""Order books that follow sequenced deltas, and what every book says of its depth.

This one and the one composed of snapshots (``book_layers.py``) answer the same three questions: the best bid and ask, whether the
book can be relied on, and the depth on each side as :class:`~monitor.cascade.Levels` with the price up to which it is known.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import Literal, NamedTuple

import numpy as np

from connectors.events import BookDelta, BookSnapshot, Level
from monitor.cascade import Levels

LEVELS_MAX = 20_000
"""Per side. A side of the deepest recorded book holds some 3,000 levels; at about 200 B a level this bounds a market to 8 MB."""

REFRESH_SHARE = 0.5
"""A new snapshot is wanted when the depth that is known on a side has shrunk to this share of what the last snapshot held."""

NEAR_LEVELS = 64
"""Levels that are put into that heap when it has run empty."""

NEAR_MAX = 4_000
"""Prices in the heap, removed ones included, before it is filled anew."""

PENDING_MAX = 5_000
"""Deltas kept while a snapshot is awaited: more than eight minutes at ten a second, or 25 s of the fastest recorded stream."""


class Depth(NamedTuple):
    """Both sides of a book for the cascade: best first, in base units; ask prices are positive here.

    ``bid_reach`` and ``ask_reach`` are the prices up to which the depth is known; what lies beyond is unknown, not empty.
    """

    bids: Levels
    asks: Levels
    bid_reach: float | None
    ask_reach: float | None


EMPTY_LEVELS = Levels(np.empty(0), np.empty(0), np.empty(0))
EMPTY_DEPTH = Depth(EMPTY_LEVELS, EMPTY_LEVELS, None, None)


class SequencedBook:
    """A book kept by absolute-size deltas on top of a snapshot (the ``U/u/pu`` rule of venues.md 2.2).

    Prices are dictionary keys. The best of a side is the root of a heap of the prices near it, from which removed ones are dropped
    lazily: neither reading the best after every message nor changing a far level may cost more than a look.
    """

    __slots__ = (
        "_ask_ceiling",
        "_ask_heap",
        "_bid_floor",
        "_bid_heap",
        "_exchange_ns",
        "_keeping",
        "_pending",
        "_span",
        "ask_limit",
        "asks",
        "best_ask",
        "best_bid",
        "bid_limit",
        "bids",
        "last_id",
        "levels_dropped",
        "pending_dropped",
        "state",
    )

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self._bid_heap: list[float] = []  # Negated prices.
        self._ask_heap: list[float] = []
        self._bid_floor = 0.0
        self._ask_ceiling = math.inf
        self._span = 0.0
        self._keeping = False
        self._exchange_ns = 0
        self._pending: deque[BookDelta] = deque(maxlen=PENDING_MAX)
        self.best_bid: float | None = None
        self.best_ask: float | None = None
        self.bid_limit: float | None = None
        """The furthest price of the snapshot: beyond it only levels that changed since are known."""
        self.ask_limit: float | None = None
        self.last_id: int | None = None
        self.state: Literal["waiting", "snapshot", "live"] = "waiting"
        """``waiting`` for a snapshot, fresh ``snapshot`` that no delta has joined yet, or ``live``."""
        self.pending_dropped = 0
        self.levels_dropped = 0

    def reset(self) -> None:
        """Forget the book: after a gap nothing of it can be relied on."""
        self.bids.clear()
        self.asks.clear()
        self._pending.clear()
        self._rebuild_bids()
        self._rebuild_asks()
        self.bid_limit = self.ask_limit = self.last_id = None
        self._span = 0.0
        self._keeping = False
        self.state = "waiting"

    def wants_snapshot(self) -> bool:
        """Tell whether the book is unusable without a new snapshot, or soon will be because the price left most of the old one."""
        if self.state == "waiting":
            return True
        if self.best_bid is None or self.best_ask is None or self.bid_limit is None or self.ask_limit is None:
            return True
        near = (self.best_bid - self.bid_limit, self.ask_limit - self.best_ask)
        return min(near) < REFRESH_SHARE * self._span

    def expect_snapshot(self) -> None:
        """Keep the deltas from now on, so that a snapshot that was asked for can be joined while the book goes on living."""
        self._keeping = True

    def apply_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Replace the book and join the deltas that waited for it; return whether the sequence holds so far.

        A snapshot that does not join the deltas of a living book leaves it as it is.
        """
        assert snapshot.last_id is not None
        pending = list(self._pending)
        if self.state == "live" and not any(delta.first_id <= snapshot.last_id <= delta.last_id for delta in pending):
            return True
        self.reset()
        self.bids = {price: size for price, size in snapshot.bids if size}
        self.asks = {price: size for price, size in snapshot.asks if size}
        self._rebuild_bids()
        self._rebuild_asks()
        self.bid_limit = min(self.bids, default=None)
        self.ask_limit = max(self.asks, default=None)
        if self.bid_limit is not None and self.ask_limit is not None and self.best_bid is not None and self.best_ask is not None:
            self._span = min(self.best_bid - self.bid_limit, self.ask_limit - self.best_ask)
        self.last_id = snapshot.last_id
        self.state = "snapshot"
        return all(self.apply_delta(delta) for delta in pending)

    def apply_delta(self, delta: BookDelta) -> bool:
        """Apply the next delta; return ``False`` on a gap, after which the book waits for a snapshot with this delta kept.

        Deltas older than the snapshot are passed over. While waiting, deltas are kept (bounded) and ``True`` is returned: the gap
        was reported when it happened.
        """
        if self.state == "live":
            if delta.previous_id != self.last_id:
                if delta.last_id <= self.last_id and delta.exchange_ns <= self._exchange_ns:  # type: ignore[operator]
                    return True  # A duplicate of what is applied already; a newer one with a lower number is a restart.
                self._restart_from(delta)
                return False
            if self._keeping:
                self._keep(delta)
        elif self.state == "waiting":
            self._keep(delta)
            return True
        else:
            assert self.last_id is not None
            if delta.last_id < self.last_id:
                return True
            if delta.first_id > self.last_id and delta.previous_id != self.last_id:
                self._restart_from(delta)
                return False
            self.state = "live"
        self.last_id = delta.last_id
        self._exchange_ns = delta.exchange_ns
        if delta.bids:
            self._apply_bids(delta.bids)
        if delta.asks:
            self._apply_asks(delta.asks)
        return True

    def _keep(self, delta: BookDelta) -> None:
        self.pending_dropped += len(self._pending) == PENDING_MAX
        self._pending.append(delta)

    def _restart_from(self, delta: BookDelta) -> None:
        self.reset()
        self._pending.append(delta)

    def _apply_bids(self, changes: list[Level]) -> None:
        bids, heap, floor = self.bids, self._bid_heap, self._bid_floor
        remove = bids.pop
        for price, size in changes:
            if size:
                if price > floor and price not in bids:
                    heappush(heap, -price)
                bids[price] = size
            else:
                remove(price, None)
        while heap and -heap[0] not in bids:
            heappop(heap)
        if heap and len(heap) <= NEAR_MAX:
            self.best_bid = -heap[0]
        else:
            self._rebuild_bids()

    def _apply_asks(self, changes: list[Level]) -> None:
        asks, heap, ceiling = self.asks, self._ask_heap, self._ask_ceiling
        remove = asks.pop
        for price, size in changes:
            if size:
                if price < ceiling and price not in asks:
                    heappush(heap, price)
                asks[price] = size
            else:
                remove(price, None)
        while heap and heap[0] not in asks:
            heappop(heap)
        if heap and len(heap) <= NEAR_MAX:
            self.best_ask = heap[0]
        else:
            self._rebuild_asks()

    def _rebuild_bids(self) -> None:
        near = sorted(self.bids, reverse=True)[:NEAR_LEVELS]
        self.best_bid = near[0] if near else None
        self._bid_floor = near[-1] if near else 0.0
        self._bid_heap = [-price for price in near]  # Ascending already, and so a heap.

    def _rebuild_asks(self) -> None:
        self._ask_heap = sorted(self.asks)[:NEAR_LEVELS]
        self.best_ask = self._ask_heap[0] if self._ask_heap else None
        self._ask_ceiling = self._ask_heap[-1] if self._ask_heap else math.inf

    def trim(self) -> None:
        """Drop the furthest tenth of a side that outgrew its bound; to be called now and then, not for every delta."""
        if len(self.bids) > LEVELS_MAX:
            kept = sorted(self.bids, reverse=True)[: LEVELS_MAX * 9 // 10]
            self.levels_dropped += len(self.bids) - len(kept)
            self.bids = {price: self.bids[price] for price in kept}
            self.bid_limit = max(kept[-1], self.bid_limit or 0.0)
        if len(self.asks) > LEVELS_MAX:
            kept = sorted(self.asks)[: LEVELS_MAX * 9 // 10]
            self.levels_dropped += len(self.asks) - len(kept)
            self.asks = {price: self.asks[price] for price in kept}
            self.ask_limit = min(kept[-1], self.ask_limit or math.inf)

    @property
    def level_count(self) -> int:
        """Number of price levels on both sides."""
        return len(self.bids) + len(self.asks)

    @property
    def reliable(self) -> bool:
        """Tell whether deltas follow a snapshot, the sequence holds, and both sides are there and do not cross."""
        return self.state == "live" and sound_touch(self.best_bid, self.best_ask)

    def depth(self) -> Depth:
        """Return both sides up to the furthest price that the snapshot covered."""
        if self.state == "waiting":
            return EMPTY_DEPTH
        bids = _side(self.bids, -1.0, self.bid_limit)
        asks = _side(self.asks, 1.0, self.ask_limit)
        return Depth(bids, asks, self.bid_limit if bids.size.size else None, self.ask_limit if asks.size.size else None)


def sound_touch(bid: float | None, ask: float | None) -> bool:
    """Tell whether both sides are there and do not cross."""
    return bid is not None and ask is not None and bid < ask


def _side(levels: dict[float, float], sign: float, limit: float | None) -> Levels:
    """Sort one side outwards (``sign`` -1 for bids, whose prices fall) and cut it at ``limit``."""
    if not levels or limit is None:
        return EMPTY_LEVELS
    price = np.fromiter(levels.keys(), np.float64, len(levels))
    size = np.fromiter(levels.values(), np.float64, len(levels))
    inside = price * sign <= limit * sign
    price, size = price[inside], size[inside]
    order = np.argsort(price * sign)
    price = price[order]
    return Levels(price, price, size[order])
