"""Order books: one that follows sequenced deltas, and one composed of snapshots at several resolutions.

Both answer the same three questions: the best bid and ask, whether the book can be relied on, and the depth on each side as
:class:`~monitor.cascade.Levels` with the price up to which it is known.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import Literal, NamedTuple

import numpy as np

from connectors.events import BookDelta, BookSnapshot, Level, Quote
from monitor.cascade import Array, Levels

LEVELS_MAX = 20_000
"""Per side. A side of the deepest recorded book holds some 3,000 levels; at about 200 B a level this bounds a market to 8 MB."""

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
        "_pending",
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
        self.state = "waiting"

    def apply_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Replace the book and join the deltas that waited for it; return whether the sequence holds so far."""
        assert snapshot.last_id is not None
        pending = list(self._pending)
        self.reset()
        self.bids = {price: size for price, size in snapshot.bids if size}
        self.asks = {price: size for price, size in snapshot.asks if size}
        self._rebuild_bids()
        self._rebuild_asks()
        self.bid_limit = min(self.bids, default=None)
        self.ask_limit = max(self.asks, default=None)
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
                if delta.last_id <= self.last_id:  # type: ignore[operator]
                    return True  # A duplicate of what is applied already.
                self._restart_from(delta)
                return False
        elif self.state == "waiting":
            self.pending_dropped += len(self._pending) == PENDING_MAX
            self._pending.append(delta)
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
        if delta.bids:
            self._apply_bids(delta.bids)
        if delta.asks:
            self._apply_asks(delta.asks)
        return True

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
        """Tell whether a snapshot is in place, the sequence holds, and both sides are there and do not cross."""
        return self.state != "waiting" and _sound_touch(self.best_bid, self.best_ask)

    def depth(self) -> Depth:
        """Return both sides up to the furthest price that the snapshot covered."""
        if self.state == "waiting":
            return EMPTY_DEPTH
        bids = _side(self.bids, -1.0, self.bid_limit)
        asks = _side(self.asks, 1.0, self.ask_limit)
        return Depth(bids, asks, self.bid_limit if bids.size.size else None, self.ask_limit if asks.size.size else None)


def _sound_touch(bid: float | None, ask: float | None) -> bool:
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


class _Layer(NamedTuple):
    """One snapshot as arrays, bids negated so that both sides grow outwards."""

    exchange_ns: int
    received_ns: int
    connection: str
    bid: Array
    bid_size: Array
    ask: Array
    ask_size: Array
    figures: int | None


class LayeredBook:
    """A book of a venue that sends snapshots only, at several resolutions (venues.md 1.4).

    The finest and freshest layer is used from the touch to its last level; each coarser layer continues where the finer one ends.
    The bucket that straddles such an end keeps what it holds beyond the finer layer's share.
    """

    __slots__ = ("_layers", "_quote", "_quote_ns")

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._quote: Quote | None = None
        self._quote_ns = -1

    def reset(self) -> None:
        """Forget all layers and the quote."""
        self._layers.clear()
        self._quote = None
        self._quote_ns = -1

    def interrupt(self, connection: str) -> bool:
        """Forget what came over a lost connection; return whether a full-resolution layer is left."""
        self._layers = {name: layer for name, layer in self._layers.items() if layer.connection != connection}
        if self._quote is not None and self._quote.connection == connection:
            self._quote, self._quote_ns = None, -1
        return self._finest() is not None

    def expire(self, oldest_ns: int) -> None:
        """Forget layers that were received before ``oldest_ns``: the depth then ends where the remaining ones do."""
        self._layers = {name: layer for name, layer in self._layers.items() if layer.received_ns >= oldest_ns}

    def apply_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Replace one layer, unless it is older than the one in place; return ``True``: there is no sequence to break."""
        exchange_ns = snapshot.exchange_ns if snapshot.exchange_ns is not None else snapshot.received_ns
        known = self._layers.get(snapshot.layer)
        if known is not None and exchange_ns < known.exchange_ns:
            return True
        bids = np.array([level for level in snapshot.bids if level[1]], dtype=np.float64).reshape(-1, 2)
        asks = np.array([level for level in snapshot.asks if level[1]], dtype=np.float64).reshape(-1, 2)
        self._layers[snapshot.layer] = _Layer(
            exchange_ns,
            snapshot.received_ns,
            snapshot.connection,
            -bids[:, 0],
            bids[:, 1],
            asks[:, 0],
            asks[:, 1],
            snapshot.significant_figures,
        )
        return True

    def apply_quote(self, quote: Quote) -> None:
        """Remember the touch, which is newer than any layer most of the time."""
        exchange_ns = quote.exchange_ns if quote.exchange_ns is not None else quote.received_ns
        if exchange_ns >= self._quote_ns:
            self._quote, self._quote_ns = quote, exchange_ns

    def _finest(self) -> _Layer | None:
        fine = [layer for layer in self._layers.values() if layer.figures is None]
        return max(fine, key=lambda layer: layer.exchange_ns, default=None)

    @property
    def best_bid(self) -> float | None:
        """The best bid of the quote or of the freshest full-resolution layer, whichever is newer."""
        layer = self._finest()
        if self._quote is not None and (layer is None or self._quote_ns >= layer.exchange_ns):
            return self._quote.bid[0] if self._quote.bid else None
        return -float(layer.bid[0]) if layer is not None and layer.bid.size else None

    @property
    def best_ask(self) -> float | None:
        """The best ask of the quote or of the freshest full-resolution layer, whichever is newer."""
        layer = self._finest()
        if self._quote is not None and (layer is None or self._quote_ns >= layer.exchange_ns):
            return self._quote.ask[0] if self._quote.ask else None
        return float(layer.ask[0]) if layer is not None and layer.ask.size else None

    @property
    def level_count(self) -> int:
        """Number of levels of the composed depth, both sides."""
        depth = self.depth()
        return int(depth.bids.size.size + depth.asks.size.size)

    @property
    def reliable(self) -> bool:
        """Tell whether a full-resolution layer is in place, and both sides are there and do not cross."""
        return self._finest() is not None and _sound_touch(self.best_bid, self.best_ask)

    def depth(self) -> Depth:
        """Compose the layers from the touch outwards."""
        if self._finest() is None:
            return EMPTY_DEPTH
        # Finer before coarser, and among equals the fresher: it decides where both know a price.
        layers = sorted(self._layers.values(), key=lambda layer: (-(layer.figures or 99), -layer.exchange_ns))
        newest_ns = max(layer.exchange_ns for layer in layers if layer.figures is None)
        quote = self._quote if self._quote is not None and self._quote_ns >= newest_ns else None
        bid = (-quote.bid[0], quote.bid[1]) if quote and quote.bid else None
        ask = quote.ask if quote else None
        bids = _compose([(layer.bid, layer.bid_size, layer.figures) for layer in layers], bid)
        asks = _compose([(layer.ask, layer.ask_size, layer.figures) for layer in layers], ask)
        bids = Levels(-bids.near, -bids.far, bids.size)
        return Depth(
            bids,
            asks,
            float(bids.far[-1]) if bids.size.size else None,
            float(asks.far[-1]) if asks.size.size else None,
        )


def bucket_width(price: Array, figures: int) -> Array:
    """Return the width of the bucket that rounds to each price at ``figures`` significant figures.

    ``price`` grows outwards: negative prices are bids, which round down, so their bucket lies above them; positive ones are asks,
    whose bucket lies below. The difference matters at powers of ten, where the step changes.
    """
    inside = np.abs(price) * np.where(price > 0.0, 1.0 - 1e-12, 1.0 + 1e-12)
    width: Array = 10.0 ** (np.floor(np.log10(inside)) - (figures - 1))
    return width


def _compose(layers: list[tuple[Array, Array, int | None]], touch: tuple[float, float] | None) -> Levels:
    """Join layers on outward-growing prices (bids negated); ``touch`` is a newer best level that overrides the layers."""
    near: list[Array] = []
    far: list[Array] = []
    size: list[Array] = []
    end = -math.inf
    if touch is not None and touch[1] > 0.0:
        end = touch[0]
        near, far, size = [np.array([end])], [np.array([end])], [np.array([touch[1]])]
    for price, amount, figures in layers:
        if not price.size:
            continue
        if figures is None:
            keep = price > end
            near.append(price[keep])
            far.append(price[keep])
            size.append(amount[keep])
        else:
            width = bucket_width(price, figures)
            keep = price > end
            start = price - width  # Bids round down and asks up: outwards in both cases.
            # Orders of the straddled bucket that the finer layers show already must not count twice.
            inside = _volume_beyond(near, size, float(start[keep][0])) if keep.any() else 0.0
            rest = amount[keep].copy()
            if rest.size:
                rest[0] = max(0.0, rest[0] - inside)
            positive = rest > 0.0
            near.append(np.nextafter(np.maximum(start[keep], end), np.inf)[positive])
            far.append(price[keep][positive])
            size.append(rest[positive])
        end = max(end, float(price[-1]))
    return Levels(np.concatenate(near), np.concatenate(far), np.concatenate(size)) if near else EMPTY_LEVELS


def _volume_beyond(prices: list[Array], sizes: list[Array], start: float) -> float:
    """Sum what the finer layers hold strictly beyond ``start``."""
    return float(sum(size[price > start].sum() for price, size in zip(prices, sizes, strict=True)))
