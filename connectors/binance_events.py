"""From decoded Binance messages to events; the venue file is ``connectors/binance.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from connectors import binance_wire as wire
from connectors.binance_brackets import Brackets
from connectors.decoding import DECODING_ERRORS, decoding_error, feed_error, is_ordered_book
from connectors.events import (
    AnyEvent,
    BookDelta,
    BookSnapshot,
    Instrument,
    Instruments,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    Trade,
)
from connectors.frames import Frame, RestExchange

MILLISECOND_NS: Final = 1_000_000

DELISTED_STATUSES: Final = frozenset({"DELIVERING", "DELIVERED", "SETTLING", "CLOSE"})

DOLLAR_QUOTES: Final = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD1", "U", "USD"})
"""Only for markets quoted in these are the floors of the bracket file dollars."""

_decode_exchange = msgspec.json.Decoder(RestExchange).decode


def _depth_events(frame: Frame, data: wire.DepthUpdate) -> list[AnyEvent]:
    return [
        BookDelta(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=data.symbol,
            exchange_ns=data.time_ms * MILLISECOND_NS,
            first_id=data.first_id,
            last_id=data.last_id,
            previous_id=data.previous_id,
            bids=data.bids,
            asks=data.asks,
        )
    ]


def _quote_events(frame: Frame, data: wire.BookTicker) -> list[AnyEvent]:
    """Return the quote; a side with neither price nor size is empty.

    Raises:
        FeedError: a size without a price.
    """
    bid_price = data.bid_price
    ask_price = data.ask_price
    if not (bid_price and ask_price) and ((not bid_price and data.bid_size) or (not ask_price and data.ask_size)):
        raise feed_error(frame.venue, "bad_number", frame.payload or b"")
    return [
        Quote(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=data.symbol,
            exchange_ns=data.time_ms * MILLISECOND_NS,
            bid=(bid_price, data.bid_size) if bid_price else None,
            ask=(ask_price, data.ask_size) if ask_price else None,
            update_id=data.update_id,
        )
    ]


def _trade_events(frame: Frame, data: wire.AggregateTrade | wire.SingleTrade) -> list[AnyEvent]:
    return [
        Trade(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=data.symbol,
            exchange_ns=data.time_ms * MILLISECOND_NS,
            price=data.price,
            size=data.size,
            aggressor="sell" if data.buyer_is_maker else "buy",
            trade_id=data.trade_id,
        )
    ]


def _single_trade_events(frame: Frame, data: wire.SingleTrade) -> list[AnyEvent]:
    """Return the trade, or nothing for a fill that was no market trade.

    Raises:
        FeedError: a market trade without price or size.
    """
    if data.kind != "MARKET":
        return []
    if not (data.price and data.size):
        raise feed_error(frame.venue, "bad_number", frame.payload or b"")
    return _trade_events(frame, data)


def _mark_price_events(frame: Frame, data: wire.MarkPriceUpdate) -> list[AnyEvent]:
    return [
        MarkPrice(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=data.symbol,
            exchange_ns=data.time_ms * MILLISECOND_NS,
            mark_price=data.mark_price,
            index_price=data.index_price or None,
            funding_rate=data.funding_rate if data.funding_rate != "" else None,
            next_funding_ns=data.next_funding_ms * MILLISECOND_NS or None,
        )
    ]


def _liquidation_events(frame: Frame, data: wire.ForceOrder) -> list[AnyEvent]:
    """Return the liquidation, or nothing if the order was not filled; a forced sale closes a long position.

    An order that is still being filled is left out: its size is in that of its end too, and the message does not say which order
    it is, so counting both would make the sum of a sample more than the whole.

    Raises:
        FeedError: filled at no price.
    """
    order = data.order
    if order.filled_size == 0.0 or order.status != "FILLED":
        return []
    if order.average_price == 0.0:
        raise feed_error(frame.venue, "bad_number", frame.payload or b"")
    return [
        Liquidation(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=order.symbol,
            exchange_ns=order.time_ms * MILLISECOND_NS,
            side="long" if order.side == "SELL" else "short",
            price=order.average_price,
            size=order.filled_size,
            completeness="sampled",
        )
    ]


def _list_events(frame: Frame, data: list[wire.StreamEvent]) -> list[AnyEvent]:
    return [event for item in data for event in TO_EVENTS[type(item)](frame, item)]


TO_EVENTS: Final[dict[type, Callable[[Frame, Any], list[AnyEvent]]]] = {
    list: _list_events,
    wire.DepthUpdate: _depth_events,
    wire.BookTicker: _quote_events,
    wire.AggregateTrade: _trade_events,
    wire.SingleTrade: _single_trade_events,
    wire.MarkPriceUpdate: _mark_price_events,
    wire.ForceOrder: _liquidation_events,
}
"""What makes events of each type of decoded stream message. A look-up costs a third of a chain of isinstance on this hot path."""


def unusual_events(frame: Frame, payload: bytes) -> list[AnyEvent]:
    """Handle whatever is not a good stream event of a known kind: other and bad ones, acknowledgements, injected REST polls.

    Raises:
        FeedError: the message cannot be used.
    """
    try:
        if payload.startswith(b"["):
            return _mixed_list_events(frame, payload)
        probe = wire.decode_probe(payload)
        if probe.stream is not None and bytes(probe.data):
            return _unusual_stream_events(frame, probe)
        if probe.event is not None:
            return _event_by_name(frame, payload)
    except DECODING_ERRORS as error:
        raise decoding_error(frame.venue, error, payload) from error
    if bytes(probe.result) or bytes(probe.error) or probe.code is not None:
        # Acknowledgements and errors name no stream; a stream that fails is found by its silence.
        return []
    raise feed_error(frame.venue, "unknown_message", payload)


def _mixed_list_events(frame: Frame, payload: bytes | msgspec.Raw) -> list[AnyEvent]:
    return [event for item in wire.decode_event_list(payload) for event in _event_by_name(frame, item)]


def _unusual_stream_events(frame: Frame, probe: wire.Probe) -> list[AnyEvent]:
    """Handle a combined message; recorders inject REST polls as streams named ``btcusdt@depthSnapshot`` and the like."""
    symbol, _, kind = (probe.stream or "").partition("@")
    data = probe.data
    if kind.startswith("depthSnapshot"):
        return _snapshot_events(frame, symbol.upper(), data)
    if kind.startswith("openInterest"):
        return _open_interest_events(frame, data)
    if probe.generated:
        return []
    if bytes(data).startswith(b"["):
        return _mixed_list_events(frame, data)
    return _event_by_name(frame, data)


def _event_by_name(frame: Frame, text: bytes | msgspec.Raw) -> list[AnyEvent]:
    """Decode one event, or nothing of a kind that carries nothing for us."""
    head = wire.decode_event_head(text)
    if head.settlement == wire.COIN_MARGINED or head.event in wire.IGNORED_EVENTS:
        return []
    if head.event not in wire.KNOWN_EVENTS:
        raise feed_error(frame.venue, "unknown_message", text)
    if head.event == "forceOrder" and wire.decode_force_order_head(text).order.settlement == wire.COIN_MARGINED:
        return []
    data = wire.decode_event(text)
    return TO_EVENTS[type(data)](frame, data)


def rest_events(frame: Frame, payload: bytes, brackets: Brackets) -> list[AnyEvent]:
    """Turn a wrapped REST response into events; responses to requests that we do not make give nothing.

    Raises:
        FeedError: the response cannot be used, or is an error of the venue.
    """
    try:
        exchange = _decode_exchange(payload)
    except DECODING_ERRORS as error:
        raise decoding_error(frame.venue, error, payload) from error
    path, _, query = exchange.request.path.partition("?")
    try:
        match path:
            case "/fapi/v1/depth":
                return _snapshot_events(frame, _query_symbol(query), exchange.response)
            case "/fapi/v1/openInterest":
                return _open_interest_events(frame, exchange.response)
            case "/fapi/v1/premiumIndex":
                return _premium_index_events(frame, exchange.response)
            case "/fapi/v1/exchangeInfo":
                return [_instruments(frame, exchange.response, brackets)]
            case _:
                return []
    except DECODING_ERRORS as error:
        if _is_error_body(exchange.response):
            raise feed_error(frame.venue, "refused", exchange.response) from error
        raise decoding_error(frame.venue, error, exchange.response) from error


def _query_symbol(query: str) -> str:
    values = parse_qs(query).get("symbol", [])
    if len(values) != 1:
        raise msgspec.ValidationError("the request names no symbol")
    return values[0]


def _is_error_body(response: msgspec.Raw) -> bool:
    try:
        wire.decode_error_body(response)
    except DECODING_ERRORS:
        return False
    return True


def _snapshot_events(frame: Frame, symbol: str, response: msgspec.Raw) -> list[AnyEvent]:
    """Return the book.

    Raises:
        FeedError: levels out of order, or bids above asks.
    """
    depth = wire.decode_depth(response)
    if not is_ordered_book(depth.bids, depth.asks):
        raise feed_error(frame.venue, "inconsistent", response)
    snapshot = BookSnapshot(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        symbol=symbol,
        exchange_ns=depth.time_ms * MILLISECOND_NS if depth.time_ms is not None else None,
        bids=depth.bids,
        asks=depth.asks,
        last_id=depth.last_id,
    )
    return [snapshot]


def _open_interest_events(frame: Frame, response: msgspec.Raw) -> list[AnyEvent]:
    report = wire.decode_open_interest(response)
    event = OpenInterest(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        symbol=report.symbol,
        exchange_ns=report.time_ms * MILLISECOND_NS if report.time_ms is not None else None,
        open_interest_base=report.open_interest,
    )
    return [event]


def _premium_index_events(frame: Frame, response: msgspec.Raw) -> list[AnyEvent]:
    """Return the mark prices; in a list, a symbol that has none yet is left out."""
    found = wire.decode_premium_index(response)
    return [
        MarkPrice(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            symbol=item.symbol,
            exchange_ns=item.time_ms * MILLISECOND_NS or None,
            mark_price=item.mark_price,
            index_price=item.index_price or None,
            funding_rate=item.funding_rate if item.funding_rate != "" else None,
            next_funding_ns=item.next_funding_ms * MILLISECOND_NS or None,
        )
        for item in (found if isinstance(found, list) else [found])
        if item.mark_price > 0.0
    ]


def _instruments(frame: Frame, response: msgspec.Raw, brackets: Brackets) -> Instruments:
    return Instruments(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        instruments=tuple(_instrument(info, brackets) for info in wire.decode_exchange_info(response).symbols),
        complete=True,
    )


def _instrument(info: wire.SymbolInfo, brackets: Brackets) -> Instrument:
    """Join what the venue says of a symbol with the bracket file; its tiers hold up to its cap only, see ``SymbolBrackets``."""
    found = brackets.symbols.get(info.symbol) if info.quote_asset in DOLLAR_QUOTES else None
    ticks = [item.tick_size for item in info.filters if item.kind == "PRICE_FILTER" and item.tick_size > 0.0]
    steps = [item.step_size for item in info.filters if item.kind == "LOT_SIZE" and item.step_size > 0.0]
    return Instrument(
        symbol=info.symbol,
        tiers=found.tiers if found is not None else (),
        size_step=steps[0] if steps else None,
        price_step=ticks[0] if ticks else None,
        delisted=info.status in DELISTED_STATUSES,
    )
