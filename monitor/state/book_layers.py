"""Order books composed of snapshots at several resolutions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from connectors.events import BookSnapshot, Level, Quote
from monitor.cascade import Array, Levels
from monitor.state.book import EMPTY_DEPTH, EMPTY_LEVELS, Depth, sound_touch


class _LayerSide(NamedTuple):
    """One side of a snapshot, best first; bids are negated, so that prices grow outwards.

    ``near`` is where the orders of a level may begin, which is its price unless that is rounded.
    """

    near: Array
    price: Array
    size: Array
    rounded: bool


class _Layer:
    """One snapshot; its arrays are made when somebody asks for them, as most snapshots are replaced before."""

    __slots__ = ("_ask", "_bid", "asks", "bids", "connection", "exchange_ns", "figures", "received_ns")

    def __init__(self, snapshot: BookSnapshot, exchange_ns: int) -> None:
        self.exchange_ns = exchange_ns
        self.received_ns = snapshot.received_ns
        self.connection = snapshot.connection
        self.figures = snapshot.significant_figures
        self.bids = snapshot.bids
        self.asks = snapshot.asks
        self._bid: _LayerSide | None = None
        self._ask: _LayerSide | None = None

    @property
    def bid(self) -> _LayerSide:
        if self._bid is None:
            self._bid = _layer_side(self.bids, -1.0, self.figures)
        return self._bid

    @property
    def ask(self) -> _LayerSide:
        if self._ask is None:
            self._ask = _layer_side(self.asks, 1.0, self.figures)
        return self._ask


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

    @property
    def received_ns(self) -> int | None:
        """When the newest full-resolution layer arrived."""
        return max((layer.received_ns for layer in self._layers.values() if layer.figures is None), default=None)

    def expire(self, oldest_ns: int) -> None:
        """Forget layers that were received before ``oldest_ns``: the depth then ends where the remaining ones do."""
        self._layers = {name: layer for name, layer in self._layers.items() if layer.received_ns >= oldest_ns}

    def apply_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Replace one layer, unless it is older than the one in place; return ``True``: there is no sequence to break."""
        exchange_ns = snapshot.exchange_ns if snapshot.exchange_ns is not None else snapshot.received_ns
        known = self._layers.get(snapshot.layer)
        if known is not None and exchange_ns < known.exchange_ns:
            return True
        self._layers[snapshot.layer] = _Layer(snapshot, exchange_ns)
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
        return _first_price(layer.bids) if layer is not None else None

    @property
    def best_ask(self) -> float | None:
        """The best ask of the quote or of the freshest full-resolution layer, whichever is newer."""
        layer = self._finest()
        if self._quote is not None and (layer is None or self._quote_ns >= layer.exchange_ns):
            return self._quote.ask[0] if self._quote.ask else None
        return _first_price(layer.asks) if layer is not None else None

    @property
    def reliable(self) -> bool:
        """Tell whether a full-resolution layer is in place, and both sides are there and do not cross."""
        return self._finest() is not None and sound_touch(self.best_bid, self.best_ask)

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
        bids = _compose([layer.bid for layer in layers], bid)
        asks = _compose([layer.ask for layer in layers], ask)
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


def _first_price(levels: list[Level]) -> float | None:
    return next((price for price, size in levels if size), None)


def _layer_side(levels: list[Level], sign: float, figures: int | None) -> _LayerSide:
    """Turn the levels of one side into arrays; rounded prices stand for a bucket whose other end is worked out once, here."""
    pairs = np.array([level for level in levels if level[1]], dtype=np.float64).reshape(-1, 2)
    price, size = sign * pairs[:, 0], pairs[:, 1]
    # Bids round down and asks up: outwards in both cases.
    near = price if figures is None else np.nextafter(price - bucket_width(price, figures), np.inf)
    return _LayerSide(near, price, size, figures is not None)


def _compose(layers: list[_LayerSide], touch: tuple[float, float] | None) -> Levels:
    """Join layers on outward-growing prices (bids negated); ``touch`` is a newer best level that overrides the layers."""
    near: list[Array] = []
    far: list[Array] = []
    size: list[Array] = []
    end = -math.inf
    if touch is not None and touch[1] > 0.0:
        end = touch[0]
        near, far, size = [np.array([end])], [np.array([end])], [np.array([touch[1]])]
    for layer in layers:
        price = layer.price
        if not price.size or price.item(-1) <= end:
            continue
        first = int(price.searchsorted(end, side="right"))
        amount = layer.size[first:]
        if layer.rounded:
            # Orders of the straddled bucket that the finer layers show already must not count twice.
            rest = amount.item(0) - _volume_from(near, size, layer.near.item(first))
            if rest > 0.0:
                amount = amount.copy()
                amount[0] = rest
            else:
                first, amount = first + 1, amount[1:]
            near.append(np.maximum(layer.near[first:], math.nextafter(end, math.inf)))
        else:
            near.append(price[first:])
        far.append(price[first:])
        size.append(amount)
        end = price.item(-1)
    return Levels(np.concatenate(near), np.concatenate(far), np.concatenate(size)) if near else EMPTY_LEVELS


def _volume_from(prices: list[Array], sizes: list[Array], start: float) -> float:
    """Sum what the finer layers hold at ``start`` and beyond it."""
    total = 0.0
    for price, size in zip(prices, sizes, strict=True):
        if price.size and price.item(-1) >= start:
            total += float(np.add.reduce(size[price.searchsorted(start) :]))
    return total
