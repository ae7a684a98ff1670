"""The messages of Binance USD-M futures as they are on the wire (venues.md 2), and their decoders.

Field names are ours, the wire's are beside them. Decoding is not strict, so that prices written as text become floats in C; the
types bound every number, and NaN, infinities and negative values fail while decoding. Only fields that are used are declared;
the others are skipped, whatever the venue adds. ``st`` is 1 for USD-M and 2 for COIN-M and absent before 2026.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import field

from connectors.decoding import Milliseconds, MillisecondsOrZero, NonNegativePrice, PositiveSize, SequenceId, Symbol
from connectors.events import Level, Price, Rate, Size

UsdMargined = Literal[1]
"""``st``: 1 is USD-M. With 2, COIN-M, sizes count contracts, so such messages do not decode and are dropped on the slow path."""

COIN_MARGINED = 2


class DepthUpdate(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="depthUpdate"):
    """Changed levels; ``previous_id`` is ``last_id`` of the event before in the same stream."""

    time_ms: Milliseconds = field(name="T")
    symbol: Symbol = field(name="s")
    first_id: SequenceId = field(name="U")
    last_id: SequenceId = field(name="u")
    previous_id: SequenceId = field(name="pu")
    bids: list[Level] = field(name="b")
    asks: list[Level] = field(name="a")
    settlement: UsdMargined = field(name="st", default=1)


class BookTicker(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="bookTicker"):
    """Best bid and ask; an empty side has price 0 and size 0."""

    update_id: SequenceId = field(name="u")
    symbol: Symbol = field(name="s")
    bid_price: NonNegativePrice = field(name="b")
    bid_size: Size = field(name="B")
    ask_price: NonNegativePrice = field(name="a")
    ask_size: Size = field(name="A")
    time_ms: Milliseconds = field(name="T")
    settlement: UsdMargined = field(name="st", default=1)


class AggregateTrade(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="aggTrade"):
    """Fills of one taker order at one price within 100 ms."""

    trade_id: SequenceId = field(name="a")
    symbol: Symbol = field(name="s")
    price: Price = field(name="p")
    size: PositiveSize = field(name="q")
    time_ms: Milliseconds = field(name="T")
    buyer_is_maker: bool = field(name="m")
    settlement: UsdMargined = field(name="st", default=1)


class SingleTrade(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="trade"):
    """One fill; of kinds other than ``MARKET`` price and size may be 0."""

    trade_id: SequenceId = field(name="t")
    symbol: Symbol = field(name="s")
    price: NonNegativePrice = field(name="p")
    size: Size = field(name="q")
    time_ms: Milliseconds = field(name="T")
    buyer_is_maker: bool = field(name="m")
    kind: str = field(name="X", default="MARKET")
    settlement: UsdMargined = field(name="st", default=1)


class MarkPriceUpdate(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="markPriceUpdate"):
    """Mark and index price; delivery contracts have an empty funding rate and 0 as next funding time.

    ``P``, the estimated settlement price, is not a funding prediction and is left out.
    """

    time_ms: Milliseconds = field(name="E")
    symbol: Symbol = field(name="s")
    mark_price: Price = field(name="p")
    index_price: NonNegativePrice = field(name="i", default=0.0)
    funding_rate: Rate | Literal[""] = field(name="r", default="")
    next_funding_ms: MillisecondsOrZero = field(name="T", default=0)
    settlement: UsdMargined = field(name="st", default=1)


class ForcedOrder(msgspec.Struct, gc=False, frozen=True):
    """The order that closes a position: ``average_price`` and ``filled_size`` are what happened, ``p`` and ``q`` what was asked."""

    symbol: Symbol = field(name="s")
    side: Literal["BUY", "SELL"] = field(name="S")
    status: str = field(name="X")
    filled_size: Size = field(name="z")
    time_ms: Milliseconds = field(name="T")
    average_price: NonNegativePrice = field(name="ap", default=0.0)
    settlement: UsdMargined = field(name="st", default=1)


class ForceOrder(msgspec.Struct, gc=False, frozen=True, tag_field="e", tag="forceOrder"):
    """A liquidation; ``st`` has been seen beside the order and inside it."""

    order: ForcedOrder = field(name="o")
    settlement: UsdMargined = field(name="st", default=1)


StreamEvent = DepthUpdate | BookTicker | AggregateTrade | SingleTrade | MarkPriceUpdate | ForceOrder

KNOWN_EVENTS = frozenset({"depthUpdate", "bookTicker", "aggTrade", "trade", "markPriceUpdate", "forceOrder"})

IGNORED_EVENTS = frozenset(
    {
        "24hrMiniTicker",
        "24hrTicker",
        "assetIndexUpdate",
        "compositeIndex",
        "continuous_kline",
        "contractInfo",
        "kline",
        "rpiDepthUpdate",
        "serverShutdown",
        "tradingSession",
    }
)
"""Legitimate events that carry nothing for us."""


class Combined(msgspec.Struct, gc=False, frozen=True):
    """A message of a combined stream."""

    data: StreamEvent | list[StreamEvent]


class Probe(msgspec.Struct):
    """The outside of any websocket message, to find out what it is; a raw field is empty where the message lacks it."""

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    event: str | None = field(name="e", default=None)
    result: msgspec.Raw = msgspec.Raw()
    generated: bool = False
    """Put among the streams by a recorder, as tardis.dev does with its REST polls."""
    error: msgspec.Raw = msgspec.Raw()
    code: int | None = None


class EventHead(msgspec.Struct):
    """What tells events apart; a letter such as ``o`` means other things in other events."""

    event: str = field(name="e")
    settlement: int = field(name="st", default=1)


class OrderHead(msgspec.Struct):
    """What tells the markets of forced orders apart."""

    settlement: int = field(name="st", default=1)


class ForceOrderHead(msgspec.Struct):
    """The outside of a liquidation."""

    order: OrderHead = field(name="o")


class DepthSnapshot(msgspec.Struct, frozen=True):
    """Response of ``/fapi/v1/depth``; it does not name its symbol."""

    last_id: SequenceId = field(name="lastUpdateId")
    bids: list[Level]
    asks: list[Level]
    time_ms: Milliseconds | None = field(name="T", default=None)


class OpenInterestReport(msgspec.Struct, frozen=True):
    """Response of ``/fapi/v1/openInterest``."""

    symbol: Symbol
    open_interest: Size = field(name="openInterest")
    time_ms: Milliseconds | None = field(name="time", default=None)


class PremiumIndex(msgspec.Struct, frozen=True):
    """An entry of ``/fapi/v1/premiumIndex``."""

    symbol: Symbol
    mark_price: NonNegativePrice = field(name="markPrice")
    index_price: NonNegativePrice = field(name="indexPrice", default=0.0)
    funding_rate: Rate | Literal[""] = field(name="lastFundingRate", default="")
    next_funding_ms: MillisecondsOrZero = field(name="nextFundingTime", default=0)
    time_ms: MillisecondsOrZero = field(name="time", default=0)


class SymbolFilter(msgspec.Struct, frozen=True):
    """One of the filters of a symbol; 0 means that the filter is off."""

    kind: str = field(name="filterType")
    tick_size: NonNegativePrice = field(name="tickSize", default=0.0)
    step_size: Size = field(name="stepSize", default=0.0)


class SymbolInfo(msgspec.Struct, frozen=True):
    """An entry of ``exchangeInfo.symbols``."""

    symbol: Symbol
    status: str
    quote_asset: str = field(name="quoteAsset")
    filters: list[SymbolFilter]


class ExchangeInfo(msgspec.Struct, frozen=True):
    """Response of ``/fapi/v1/exchangeInfo``."""

    symbols: list[SymbolInfo]


class ErrorBody(msgspec.Struct, frozen=True):
    """How the REST interface refuses a request."""

    code: int
    message: str = field(name="msg")


decode_combined = msgspec.json.Decoder(Combined, strict=False).decode
decode_event = msgspec.json.Decoder(StreamEvent, strict=False).decode
decode_event_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_probe = msgspec.json.Decoder(Probe).decode
decode_event_head = msgspec.json.Decoder(EventHead).decode
decode_force_order_head = msgspec.json.Decoder(ForceOrderHead).decode
decode_depth = msgspec.json.Decoder(DepthSnapshot, strict=False).decode
decode_open_interest = msgspec.json.Decoder(OpenInterestReport, strict=False).decode
decode_premium_index = msgspec.json.Decoder(PremiumIndex | list[PremiumIndex], strict=False).decode
decode_exchange_info = msgspec.json.Decoder(ExchangeInfo, strict=False).decode
decode_error_body = msgspec.json.Decoder(ErrorBody).decode
