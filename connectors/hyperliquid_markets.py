"""From decoded Hyperliquid market messages to events; the venue file is ``connectors/hyperliquid.py``."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from connectors import hyperliquid_wire as wire
from connectors.decoding import feed_error, is_ordered_book
from connectors.events import (
    AnyEvent,
    BookSnapshot,
    Instrument,
    Instruments,
    Level,
    MarginTier,
    MarkPrice,
    OpenInterest,
    Quote,
    Trade,
)
from connectors.frames import Frame

MILLISECOND_NS: Final = 1_000_000

FIRST_LISTED_TABLE: Final = 50
"""Margin tables below this number are not listed: such a table is a single tier whose maximum leverage is the number itself."""


def book_events(frame: Frame, book: wire.Book, significant_figures: int | None, *, is_fast: bool = False) -> list[AnyEvent]:
    """Return the book as one layer: ``fast`` if it is so called or says so, else ``plain``, or ``figures-4`` and so on.

    Raises:
        FeedError: levels out of order, or bids above asks.
    """
    bids, asks = _levels(book.levels[0]), _levels(book.levels[1])
    if not is_ordered_book(bids, asks):
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    is_fast = is_fast or book.is_fast is True
    figures = None if is_fast else significant_figures
    return [
        BookSnapshot(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=book.coin,
            exchange_ns=book.time_ms * MILLISECOND_NS,
            bids=bids,
            asks=asks,
            significant_figures=figures,
            layer="fast" if is_fast else "plain" if figures is None else f"figures-{figures}",
        )
    ]


def _levels(levels: list[wire.WireLevel]) -> list[Level]:
    return [(level.price, level.size) for level in levels if level.size]


def quote_events(frame: Frame, data: wire.BestLevels) -> list[AnyEvent]:
    """Return the quote.

    Raises:
        FeedError: a bid at or above the ask.
    """
    bid, ask = data.best
    if bid is not None and ask is not None and bid.price >= ask.price:
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    return [
        Quote(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=data.coin,
            exchange_ns=data.time_ms * MILLISECOND_NS,
            bid=(bid.price, bid.size) if bid is not None and bid.size else None,
            ask=(ask.price, ask.size) if ask is not None and ask.size else None,
        )
    ]


def trade_events(frame: Frame, trades: list[wire.TapeTrade]) -> list[AnyEvent]:
    """Return the trades by time and id, whatever their order in the message: the consumer drops what is older than the newest seen.

    The first message of a subscription repeats about 20 s of old trades, so the consumer has to know them by ``trade_id``.
    """
    events: list[AnyEvent] = []
    for trade in sorted(trades, key=lambda trade: (trade.time_ms, trade.trade_id)):
        buyer, seller = trade.users if trade.users is not None else (None, None)
        event = Trade(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=trade.coin,
            exchange_ns=trade.time_ms * MILLISECOND_NS,
            price=trade.price,
            size=trade.size,
            aggressor="buy" if trade.side == "B" else "sell",
            trade_id=trade.trade_id,
            buyer=buyer.lower() if buyer is not None else None,
            seller=seller.lower() if seller is not None else None,
        )
        events.append(event)
    return events


def context_events(frame: Frame, coin: str, context: wire.AssetContext, *, is_delisted: bool = False) -> list[AnyEvent]:
    """Return mark price and open interest of a coin, each if the venue has it; funding is per hour.

    Raises:
        FeedError: a mark price of 0 on a coin that is not delisted.
    """
    events: list[AnyEvent] = []
    if context.mark_price:
        mark = MarkPrice(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=coin,
            exchange_ns=None,
            mark_price=context.mark_price,
            index_price=context.oracle_price or None,
            funding_rate=context.funding_rate,
        )
        events.append(mark)
    elif context.mark_price is not None and not is_delisted:
        raise feed_error(frame.venue, "bad_number", frame.payload or b"")
    if context.open_interest is not None:
        interest = OpenInterest(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=coin,
            exchange_ns=None,
            open_interest_base=context.open_interest,
        )
        events.append(interest)
    return events


def instrument_events(frame: Frame, meta: wire.Meta, *, dex: str) -> list[AnyEvent]:
    """Return the coins of one dex.

    The list of the main dex (``""``) is complete as far as coins without a prefix go. That of any other dex, or of one that the
    answer does not tell, adds to it: a coin ``xyz:TSLA`` is known only once the list of ``xyz`` was answered.

    Where the dex takes its margin in another token than USDC, sizes of tiers, cash and prices are in that token and not in USD, so
    its coins come without tiers: their maintenance is unknown, and with it every account that holds one.

    Raises:
        FeedError: a margin table whose tiers are out of order, or a coin that names another dex.
    """
    in_usd = meta.collateral_token == wire.USDC_TOKEN or (meta.collateral_token is None and not dex)
    tables: dict[int, tuple[MarginTier, ...]] = {}
    for table_id, table in meta.margin_tables:
        bounds = [tier.lower_bound for tier in table.tiers]
        leverages = [tier.max_leverage for tier in table.tiers]
        if bounds[0] != 0.0 or any(b <= a for a, b in pairwise(bounds)) or any(b >= a for a, b in pairwise(leverages)):
            raise feed_error(frame.venue, "inconsistent", repr(table).encode())
        tables[table_id] = margin_tiers(bounds, leverages)
    return [
        Instruments(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            instruments=tuple(_instrument(frame, asset, tables if in_usd else None, dex) for asset in meta.universe),
            complete=not dex,
        )
    ]


def market_events(frame: Frame, meta: wire.Meta, contexts: list[wire.AssetContext], *, dex: str) -> list[AnyEvent]:
    """Return the coins of one dex and the context of each, which are matched by position.

    Raises:
        FeedError: as many contexts as coins are not there, or one of the parts is unusable.
    """
    if len(meta.universe) != len(contexts):
        raise feed_error(frame.venue, "inconsistent", frame.payload or b"")
    events = instrument_events(frame, meta, dex=dex)
    for asset, context in zip(meta.universe, contexts, strict=True):
        events.extend(context_events(frame, coin_of(frame, asset.name, dex), context, is_delisted=asset.is_delisted))
    return events


def coin_of(frame: Frame, name: str, dex: str) -> str:
    """Return the name of a coin with its dex in front.

    Raises:
        FeedError: it is of another dex than the one that was asked about.
    """
    coin = wire.qualified(name, dex)
    if coin is None:
        raise feed_error(frame.venue, "inconsistent", name.encode(errors="replace"))
    return coin


def margin_tiers(lower_bounds_usd: list[float], max_leverages: list[float]) -> tuple[MarginTier, ...]:
    """Return tiers with maintenance ``1 / (2 * leverage)`` and the deductions that make it continuous (venues.md 1.9).

    ``D_0 = 0`` and ``D_k = D_(k-1) + bound_k * (r_k - r_(k-1))``.
    """
    tiers: list[MarginTier] = []
    for bound, leverage in zip(lower_bounds_usd, max_leverages, strict=True):
        rate = 1.0 / (2.0 * leverage)
        deduction = tiers[-1].deduction_usd + bound * (rate - tiers[-1].maintenance_rate) if tiers else 0.0
        tiers.append(MarginTier(lower_bound_usd=bound, maintenance_rate=rate, deduction_usd=deduction, max_leverage=leverage))
    return tuple(tiers)


def _instrument(frame: Frame, asset: wire.Asset, tables: dict[int, tuple[MarginTier, ...]] | None, dex: str) -> Instrument:
    """Return the coin; its price step is unknown, as it depends on the price (five significant figures)."""
    table_id = asset.margin_table_id
    tiers: tuple[MarginTier, ...]
    if tables is None or table_id is None:
        tiers = ()
    elif table_id in tables:
        tiers = tables[table_id]
    else:
        tiers = margin_tiers([0.0], [float(table_id)]) if 0 < table_id < FIRST_LISTED_TABLE else ()
    return Instrument(
        symbol=coin_of(frame, asset.name, dex),
        tiers=tiers,
        size_step=float(f"1e-{asset.size_decimals}"),
        only_isolated=asset.only_isolated or asset.margin_mode in {"strictIsolated", "noCross"},
        delisted=asset.is_delisted,
    )
