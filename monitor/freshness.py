"""What of a market's state can still be relied on at a given moment, and why the rest cannot."""

from __future__ import annotations

import math
from typing import Literal

from connectors.events import MarkPrice
from monitor.evaluate import MarketInput
from monitor.projection import FeedState, Provenance
from monitor.settings import StalenessSettings
from monitor.state.book import Depth, SequencedBook
from monitor.state.book_layers import LayeredBook
from monitor.state.markets import Channel, Market

NS = 1_000_000_000

UNWATCHED_MARK_NS = 75 * NS
"""Marks of markets that are only held come with a poll every 30 s: one answer may fail and the next may be late."""


def feed_state(market: Market, channel: Channel, now_ns: int, limits: StalenessSettings) -> FeedState:
    """Say how old one channel of a market is, and whether and why it cannot be relied on."""
    feed = market.feeds[channel]
    limit_s = {"book": limits.book_s, "mark": limits.mark_s, "open_interest": limits.open_interest_s, "trades": None}[channel]
    if feed.received_ns is None:
        # A channel without a limit is one that may rightly be silent, from the start too.
        return FeedState(channel, None, stale=limit_s is not None, reason="nothing received")
    age_s = max(0, now_ns - feed.received_ns) / NS
    if feed.broken:
        return FeedState(channel, age_s, stale=True, reason=feed.broken)
    if channel == "book" and (market.book is None or not market.book.reliable):
        state = market.book.state if isinstance(market.book, SequencedBook) else "live"
        # A snapshot alone says nothing of the socket: REST answers while the socket is down.
        waiting_for = {"waiting": "waiting for a snapshot", "snapshot": "waiting for the first update after the snapshot"}
        return FeedState(channel, age_s, stale=True, reason=waiting_for.get(state, "crossed or empty"))
    if limit_s is not None and age_s > limit_s:
        return FeedState(channel, age_s, stale=True, reason=f"silent for longer than {limit_s:g} s")
    return FeedState(channel, age_s, stale=False, reason="")


def _level_count(book: SequencedBook | LayeredBook | None, depth: Depth | None) -> int:
    """Count the levels of a live book; a composed one has those of its depth, which is not composed twice."""
    if book is None or depth is None:
        return 0
    return book.level_count if isinstance(book, SequencedBook) else int(depth.bids.size.size + depth.asks.size.size)


def market_input(
    market: Market,
    now_ns: int,
    limits: StalenessSettings,
    provenance: Provenance,
    *,
    mid_for_mark: bool = False,
    has_book: bool = True,
) -> MarketInput:
    """Take from a market what an evaluation at ``now_ns`` may use, leaving out what is stale.

    With ``mid_for_mark`` the middle of the book stands in where no mark has ever been heard, and says so. Without ``has_book``
    nobody tells a book or an open interest, and nobody waits for them.
    """
    channels: tuple[Channel, ...] = ("book", "mark", "trades", "open_interest")
    feeds = {channel: feed_state(market, channel, now_ns, limits) for channel in channels}
    if not has_book:
        untold: tuple[Channel, ...] = ("book", "open_interest")
        feeds |= {channel: FeedState(channel, None, stale=False, reason="not told by this venue") for channel in untold}
    book = market.book
    if isinstance(book, LayeredBook):
        book.expire(now_ns - round(limits.book_s * 2 * NS))
    elif book is not None:
        book.trim()
    book_live = book is not None and not feeds["book"].stale
    best_bid = book.best_bid if book is not None and book_live else None
    best_ask = book.best_ask if book is not None and book_live else None
    reasons = [f"{name}: {feeds[name].reason}" for name in ("book", "mark") if feeds[name].stale]
    reference: float | None = None
    source: Literal["mark", "mid", "none"] = "none"
    age_s: float | None = None
    if market.feeds["mark"].received_ns is not None:
        source, age_s = "mark", feeds["mark"].age_s
        reference = None if feeds["mark"].stale else market.mark_price
    elif mid_for_mark and best_bid is not None and best_ask is not None:
        source, age_s, reference = "mid", feeds["book"].age_s, (best_bid + best_ask) / 2.0
        reasons = [reason for reason in reasons if not reason.startswith("mark")]
    mark_since_ns = now_ns - round(limits.mark_s * NS)
    depth = book.depth() if book is not None and book_live else None
    return MarketInput(
        market=market.index,
        venue=market.venue,
        symbol=market.symbol,
        provenance=provenance,
        reference_price=reference,
        reference_source=source,
        reference_age_s=age_s,
        # Marks may come without them: each has its own age.
        index_price=market.index_price if not feeds["mark"].stale and market.index_ns >= mark_since_ns else None,
        funding_rate=market.funding_rate if not feeds["mark"].stale and market.funding_ns >= mark_since_ns else None,
        best_bid=best_bid,
        best_ask=best_ask,
        book_levels=_level_count(book, depth),
        depth=depth,
        open_interest_base=market.open_interest_base if not feeds["open_interest"].stale else None,
        typical_flow_base=market.flow.typical_base(),
        flow_window_covered_ratio=market.flow.covered_ratio(),
        liquidated_long_usd=market.liquidated_usd["long"],
        liquidated_short_usd=market.liquidated_usd["short"],
        completeness=market.completeness,
        feeds=tuple(feeds.values()),
        stale_reasons=tuple(reasons),
    )


def unwatched_price(market: Market, now_ns: int) -> float:
    """Return the price of a market that is only held, not watched; NaN when its mark is too old.

    The accounts in it need one all the same, and some venues send all marks.
    """
    feed = market.feeds["mark"]
    if market.mark_price is not None and feed.received_ns is not None and now_ns - feed.received_ns <= UNWATCHED_MARK_NS:
        return market.mark_price
    return math.nan


def is_late(event: MarkPrice, limit_s: float) -> bool:
    """Tell whether a private feed tells a price late: a file is read from its beginning, and a broker keeps messages.

    Venues with connectors are not asked this, as their clocks are their own.
    """
    return event.exchange_ns is not None and event.received_ns - event.exchange_ns > limit_s * NS
