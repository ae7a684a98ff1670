"""A limit order book in whole price units and lots: price-time priority, one order per account and price."""

from __future__ import annotations

from bisect import bisect_left, insort

import msgspec


class RestingOrder(msgspec.Struct, gc=False):
    """What is left of one order."""

    lots: int
    order_id: int


class Match(msgspec.Struct, frozen=True, gc=False):
    """One resting order that an incoming order met."""

    price: int
    owner: int
    lots: int
    order_id: int


class BookLevel(msgspec.Struct, frozen=True, gc=False):
    """All orders at one price."""

    price: int
    lots: int
    orders: int


class BookSide:
    """The bids or the asks.

    Prices are kept sorted by ``key = price`` for bids and ``-price`` for asks, so that the best is always last and leaves the list
    without moving the others. The orders of a level are a dict by owner: dicts keep insertion order, which is time priority.
    """

    def __init__(self, *, is_bid: bool) -> None:
        self.is_bid = is_bid
        self._keys: list[int] = []
        self._levels: dict[int, dict[int, RestingOrder]] = {}
        self._lots: dict[int, int] = {}
        self._owned: dict[int, dict[int, RestingOrder]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def best(self) -> int | None:
        """Return the best price."""
        if not self._keys:
            return None
        return self._keys[-1] if self.is_bid else -self._keys[-1]

    def owned(self, owner: int) -> dict[int, RestingOrder]:
        """Return the orders of one account by price; not to be changed."""
        return self._owned.get(owner, {})

    def lots_at(self, price: int) -> int:
        """Return the size of one level."""
        return self._lots.get(price, 0)

    def levels(self, limit: int | None = None) -> list[BookLevel]:
        """Return levels from the best on."""
        sign = 1 if self.is_bid else -1
        keys = self._keys[::-1] if limit is None else self._keys[: -limit - 1 : -1]
        return [BookLevel(sign * key, self._lots[sign * key], len(self._levels[sign * key])) for key in keys]

    def aggregated(self, significant_figures: int, mantissa: int, limit: int) -> list[BookLevel]:
        """Return levels with prices rounded to a number of figures, away from the middle (bids down, asks up)."""
        merged: list[BookLevel] = []
        sign = 1 if self.is_bid else -1
        for key in reversed(self._keys):
            price = sign * key
            step = 10 ** max(0, len(str(price)) - significant_figures) * mantissa
            rounded = price // step * step if self.is_bid else -(-price // step) * step
            if merged and merged[-1].price == rounded:
                last = merged[-1]
                merged[-1] = BookLevel(rounded, last.lots + self._lots[price], last.orders + len(self._levels[price]))
                continue
            if len(merged) == limit:
                break
            merged.append(BookLevel(rounded, self._lots[price], len(self._levels[price])))
        return [level for level in merged if level.price > 0]

    def lots_until(self, limit_price: int) -> int:
        """Return the size of all levels at least as good as a price."""
        total = 0
        sign = 1 if self.is_bid else -1
        for key in reversed(self._keys):
            if key < sign * limit_price:
                break
            total += self._lots[sign * key]
        return total

    def add(self, owner: int, price: int, lots: int, order_id: int) -> None:
        """Rest an order behind those already at its price, in place of the account's own order there."""
        assert min(lots, price) > 0, "an order has a price and a size"
        if price in self.owned(owner):
            self.remove(owner, price)
        order = RestingOrder(lots, order_id)
        level = self._levels.get(price)
        if level is None:
            level = self._levels[price] = {}
            self._lots[price] = 0
            insort(self._keys, price if self.is_bid else -price)
        level[owner] = order
        self._lots[price] += lots
        self._owned.setdefault(owner, {})[price] = order

    def remove(self, owner: int, price: int) -> None:
        """Cancel an order; it must exist."""
        order = self._owned[owner].pop(price)
        level = self._levels[price]
        del level[owner]
        self._lots[price] -= order.lots
        if not level:
            self._drop(price)

    def take(self, taker: int, lots: int, limit_price: int | None) -> list[Match]:
        """Match up to ``lots`` against this side, best first, and take what was matched out of the book.

        The taker's own resting orders are cancelled instead of matched.
        """
        matches: list[Match] = []
        sign = 1 if self.is_bid else -1
        while lots > 0 and self._keys:
            price = sign * self._keys[-1]
            if limit_price is not None and self._keys[-1] < sign * limit_price:
                break
            level = self._levels[price]
            for owner in list(level):
                if owner == taker:
                    self.remove(owner, price)
                    continue
                order = level[owner]
                taken = min(lots, order.lots)
                matches.append(Match(price, owner, taken, order.order_id))
                lots -= taken
                if taken == order.lots:
                    self.remove(owner, price)
                else:
                    order.lots -= taken
                    self._lots[price] -= taken
                if lots == 0:
                    break
        return matches

    def _drop(self, price: int) -> None:
        key = price if self.is_bid else -price
        position = bisect_left(self._keys, key)
        del self._keys[position], self._levels[price], self._lots[price]


class Book:
    """Both sides of one market."""

    def __init__(self) -> None:
        self.bids = BookSide(is_bid=True)
        self.asks = BookSide(is_bid=False)

    def side(self, *, is_bid: bool) -> BookSide:
        """Return the bids or the asks."""
        return self.bids if is_bid else self.asks

    def crosses(self, price: int, *, is_bid: bool) -> bool:
        """Tell whether an order at a price would trade at once."""
        best = self.side(is_bid=not is_bid).best()
        return best is not None and (price >= best if is_bid else price <= best)

    def cancel_all(self, owner: int) -> int:
        """Cancel the orders of one account and return how many there were."""
        cancelled = 0
        for side in (self.bids, self.asks):
            for price in list(side.owned(owner)):
                side.remove(owner, price)
                cancelled += 1
        return cancelled
