"""State of one market: book, mark, open interest, flow of trades, liquidations seen, and how fresh each of them is."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Literal

from connectors.events import (
    BookDelta,
    BookSnapshot,
    Completeness,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    Trade,
)
from connectors.frames import REST_CONNECTION
from monitor.state.book import SequencedBook
from monitor.state.book_layers import LayeredBook

NS_PER_MINUTE = 60_000_000_000
FLOW_MINUTES = 30
"""Length of the window for typical flow: long enough for a median, short enough to follow the time of day."""

FILLS_SEEN_MAX = 4_096
"""Fill ids remembered to count each liquidation fill once although both sides may report it: hours of a busy feed."""

LEAP_MAX_NS = 3_600_000_000_000
"""A trade stamped this much further ahead than time has passed here is not believed."""

POLLED_AFTER_NS = 5_000_000_000
"""A polled value counts only where the socket has been silent for this long: an answer may have been seconds on its way."""

Channel = Literal["book", "trades", "mark", "open_interest"]


class Feed:
    """One channel of one market: when it last spoke, over which connection, and whether it is broken."""

    __slots__ = ("broken", "connection", "received_ns")

    def __init__(self) -> None:
        self.received_ns: int | None = None
        self.connection = ""
        self.broken = ""
        """Why nothing of this channel can be relied on until its next snapshot; empty while it is sound."""


class Flow:
    """Net taker volume per minute, and which minutes were fully watched."""

    __slots__ = ("_broken", "_lost", "_minute", "_minute_end_ns", "_net", "_window")

    def __init__(self) -> None:
        self._minute: int | None = None
        self._net = 0.0
        self._broken = False
        self._lost = True
        """Nobody watches: from the start or a lost connection until the next trade."""
        self._minute_end_ns = 0
        self._window: deque[tuple[int, float]] = deque(maxlen=FLOW_MINUTES)

    def advance(self, now_ns: int) -> None:
        """Close every minute that has ended by ``now_ns``; a minute without trades is a minute of zero flow."""
        minute = now_ns // NS_PER_MINUTE
        self._minute_end_ns = max(self._minute_end_ns, (minute + 1) * NS_PER_MINUTE)
        if self._minute is None:
            self._minute = minute
            self._broken = True  # Watched only from somewhere inside it.
            return
        if minute <= self._minute:
            return
        if not self._broken:
            self._window.append((self._minute, self._net))
        self._net = 0.0
        self._broken = self._lost
        if not self._lost:
            for quiet in range(max(self._minute + 1, minute - FLOW_MINUTES), minute):
                self._window.append((quiet, 0.0))
        self._minute = minute

    def add(self, received_ns: int, signed_size: float) -> None:
        """Count one trade (buys of takers positive)."""
        if received_ns >= self._minute_end_ns:
            self.advance(received_ns)
        self._lost = False
        self._net += signed_size

    def interrupt(self) -> None:
        """Trades may have been missed: no minute counts until one that begins after the next trade."""
        self._broken = self._lost = True

    def typical_base(self) -> float | None:
        """Return the median absolute net volume of the watched minutes, ``None`` before the first."""
        watched = self._watched()
        return statistics.median([abs(net) for net in watched]) if watched else None

    def covered_ratio(self) -> float:
        """Return the watched share of the last ``FLOW_MINUTES`` minutes."""
        return len(self._watched()) / FLOW_MINUTES

    def _watched(self) -> list[float]:
        since = (self._minute or 0) - FLOW_MINUTES
        return [net for minute, net in self._window if minute >= since]


class Market:
    """Everything known of one market apart from its accounts; ``index`` is its row in all per-market arrays."""

    __slots__ = (
        "_book_feed",
        "_fills_order",
        "_fills_seen",
        "_trades_feed",
        "_watermark_ids",
        "_watermark_ns",
        "book",
        "changed",
        "completeness",
        "feeds",
        "flow",
        "funding_ns",
        "funding_rate",
        "index",
        "index_ns",
        "index_price",
        "liquidated_usd",
        "mark_price",
        "open_interest_base",
        "repriced",
        "symbol",
        "venue",
    )

    def __init__(self, venue: str, symbol: str, index: int) -> None:
        self.venue = venue
        self.symbol = symbol
        self.index = index
        self.book: SequencedBook | LayeredBook | None = None
        self.mark_price: float | None = None
        self.index_price: float | None = None
        self.funding_rate: float | None = None
        self.index_ns = self.funding_ns = 0
        self.open_interest_base: float | None = None
        self.flow = Flow()
        self.liquidated_usd = {"long": 0.0, "short": 0.0}
        self.completeness: Completeness | Literal["none"] = "none"
        self._book_feed, self._trades_feed = Feed(), Feed()
        self.feeds: dict[Channel, Feed] = {
            "book": self._book_feed,
            "trades": self._trades_feed,
            "mark": Feed(),
            "open_interest": Feed(),
        }
        self.changed = True
        """Anything that a projection shows has changed since the last one."""
        self.repriced = True
        """The price that margin is computed at has changed, or it or the book can no longer be relied on."""
        self._watermark_ns = -1
        self._watermark_ids: set[int] = set()
        self._fills_seen: set[tuple[object, ...]] = set()
        self._fills_order: deque[tuple[object, ...]] = deque()

    def _heard(self, channel: Channel, connection: str, received_ns: int) -> Feed:
        feed = self.feeds[channel]
        feed.received_ns = received_ns
        feed.connection = connection
        self.changed = True
        return feed

    def _is_outrun(self, channel: Channel, event: MarkPrice | OpenInterest) -> bool:
        """Tell whether a polled value, which may have been seconds on its way, comes beside a socket that says newer ones."""
        feed = self.feeds[channel]
        return (
            event.connection == REST_CONNECTION
            and feed.connection not in {"", REST_CONNECTION}
            and not feed.broken
            and feed.received_ns is not None
            and event.received_ns - feed.received_ns < POLLED_AFTER_NS
        )

    def apply_book_snapshot(self, event: BookSnapshot) -> bool:
        """Apply a snapshot; return ``False`` if the sequence is broken right behind it."""
        if self.book is None:
            self.book = LayeredBook() if event.last_id is None else SequencedBook()
        sound = self.book.apply_snapshot(event)
        feed = self.feeds["book"]
        self.changed = True
        if event.significant_figures is not None:
            return sound  # An aggregated layer extends the book but does not keep it alive.
        if event.last_id is None or feed.received_ns is None:
            # A REST snapshot of a sequenced book says nothing of the socket; only that the book can be used again.
            self._heard("book", event.connection, event.received_ns)
        feed.broken = "" if sound else "sequence gap"
        return sound

    def apply_book_delta(self, event: BookDelta) -> bool:
        """Apply a delta; return ``False`` if it does not follow what came before."""
        book = self.book
        if type(book) is not SequencedBook:
            book = self.book = SequencedBook()
        feed = self._book_feed
        feed.received_ns = event.received_ns
        feed.connection = event.connection
        self.changed = True
        if book.apply_delta(event):
            return True
        feed.broken = "sequence gap"
        self.repriced = True
        return False

    def apply_quote(self, event: Quote) -> None:
        """Hand the touch to a book of snapshots, which uses it as its newest level; a sequenced book knows better."""
        if type(self.book) is LayeredBook:
            self.book.apply_quote(event)
            self.changed = True

    def apply_mark(self, event: MarkPrice) -> None:
        """Take over the mark price and what came with it."""
        if self._is_outrun("mark", event):
            return
        self._heard("mark", event.connection, event.received_ns).broken = ""
        self.repriced = self.repriced or event.mark_price != self.mark_price
        self.mark_price = event.mark_price
        if event.index_price is not None:
            self.index_price, self.index_ns = event.index_price, event.received_ns
        if event.funding_rate is not None:
            self.funding_rate, self.funding_ns = event.funding_rate, event.received_ns

    def apply_open_interest(self, event: OpenInterest) -> None:
        """Take over the open interest."""
        if self._is_outrun("open_interest", event):
            return
        self._heard("open_interest", event.connection, event.received_ns).broken = ""
        self.open_interest_base = event.open_interest_base

    def apply_trade(self, event: Trade) -> bool:
        """Count a trade once; return ``False`` for one that was seen before.

        Venues replay recent trades after every subscription. What is older than the newest trade seen is such a replay; trades of
        the same instant are told apart by their ids.
        """
        feed = self._trades_feed  # A repetition too shows that the channel is there.
        heard_ns = feed.received_ns
        feed.received_ns = event.received_ns
        feed.connection = event.connection
        feed.broken = ""
        exchange_ns = event.exchange_ns
        if exchange_ns > self._watermark_ns:
            leap_ns = exchange_ns - self._watermark_ns - LEAP_MAX_NS
            if leap_ns > 0 and heard_ns is not None and leap_ns > event.received_ns - heard_ns:
                return False  # Taken at its word it would make repetitions of all that follows.
            self._watermark_ns = exchange_ns
            self._watermark_ids = {event.trade_id}
        elif exchange_ns < self._watermark_ns or event.trade_id in self._watermark_ids:
            return False
        else:
            self._watermark_ids.add(event.trade_id)
        self.flow.add(event.received_ns, event.size if event.aggressor == "buy" else -event.size)
        return True

    def apply_liquidation(self, event: Liquidation) -> bool:
        """Count a liquidation fill once; return ``False`` for one that was counted before."""
        # Without an id, what is the same to the instant is the same: throttled feeds have one a second.
        parts = (event.exchange_ns, event.side, event.price, event.size)
        key = (event.fill_id, event.account) if event.fill_id is not None else parts
        if key in self._fills_seen:
            return False
        if len(self._fills_order) == FILLS_SEEN_MAX:
            self._fills_seen.discard(self._fills_order.popleft())
        self._fills_seen.add(key)
        self._fills_order.append(key)
        if self.completeness != "complete":
            # Where every fill is seen, those of a few accounts that are seen twice make it no less.
            self.completeness = event.completeness
        self.liquidated_usd[event.side] += event.price * event.size
        self.changed = True
        return True

    def interrupt(self, connection: str, reason: str) -> list[Channel]:
        """Distrust every channel that came over ``connection``; return them."""
        hit: list[Channel] = []
        for channel, feed in self.feeds.items():
            if channel == "book" and type(self.book) is LayeredBook:
                if self.book.interrupt(connection):
                    feed.received_ns = self.book.received_ns  # The age is that of what is left.
                    self.changed = True
                elif not feed.broken:
                    feed.broken = reason
                    hit.append(channel)
            elif feed.connection == connection and feed.received_ns is not None:
                feed.broken = reason
                hit.append(channel)
                if channel == "book" and self.book is not None:
                    self.book.reset()
                elif channel == "trades":
                    self.flow.interrupt()
        if hit:
            self.changed = self.repriced = True
        return hit

    def break_book(self, reason: str) -> None:
        """Distrust the book alone."""
        self.feeds["book"].broken = reason
        if self.book is not None:
            self.book.reset()
        self.changed = self.repriced = True
