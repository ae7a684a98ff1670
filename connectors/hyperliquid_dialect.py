"""Hyperliquid's side of the websocket conversation (venues.md 1.2), for recordings that are played back."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from connectors.dialects import MAX_NAMES, MAX_SUBSCRIPTIONS, Answer, Feed
from connectors.frames import Frame
from connectors.hyperliquid_wire import decode_info_request, qualified
from connectors.recorded_rest import Exchange


class _Request(msgspec.Struct):
    method: str
    subscription: dict[str, msgspec.Raw] | None = None


class _Names(msgspec.Struct):
    coin: str = ""
    user: str = ""
    fast: bool = False


class _Candle(msgspec.Struct):
    s: str
    i: str


class _Message(msgspec.Struct):
    channel: str
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Ack(msgspec.Struct):
    method: str
    subscription: dict[str, msgspec.Raw]


class _Coin(msgspec.Struct):
    name: str


class _Meta(msgspec.Struct):
    universe: list[_Coin]


_REQUEST = msgspec.json.Decoder(_Request)
_MESSAGE = msgspec.json.Decoder(_Message)
_NAMES = msgspec.json.Decoder(_Names)
_CANDLE = msgspec.json.Decoder(_Candle)
_LISTED = msgspec.json.Decoder(list[_Names])
_ACK = msgspec.json.Decoder(_Ack)
_META = msgspec.json.Decoder(_Meta | tuple[_Meta, msgspec.Raw])

_NOT_REPLAYED: Final = frozenset({"subscriptionResponse", "pong", "error", "post"})
_CHANNEL_OF_TYPE: Final = {"userEvents": "user"}
_BOOK_CONNECTION: Final = re.compile(r"book-([2-5])")


class HyperliquidDialect:
    """Hyperliquid: one subscription per message, acknowledged field by field; a wrong coin costs the socket."""

    ping_interval_s: float | None = None

    def __init__(self) -> None:
        self.coins: set[str] = set()
        self.recorded: set[Feed] = set()
        self._rounding: dict[tuple[str, str], str] = {}

    def learn(self, frame: Frame, exchange: Exchange | None) -> None:
        """Note which coins exist, which streams were recorded, and how the books of each connection were rounded."""
        if len(self.coins) + len(self.recorded) + len(self._rounding) >= MAX_NAMES or frame.payload is None:
            return
        if exchange is not None:
            if b"universe" in exchange.body[:200]:
                self._learn_coins(exchange)
            return
        if frame.payload.startswith(b'{"channel":"subscriptionResponse"'):
            self._learn_rounding(frame)
        feed = self.feed_of(frame)
        if feed is not None:
            self.recorded.add(feed)
            self.coins.add(feed.name)

    def _learn_coins(self, exchange: Exchange) -> None:
        """Note the coins of a list, under their full names: those of another dex than the main one are ``dex:COIN``."""
        try:
            meta = _META.decode(exchange.body)
            dex = decode_info_request(exchange.request.body.encode()).dex if exchange.request.body else ""
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        names = (qualified(coin.name, dex) for coin in (meta if isinstance(meta, _Meta) else meta[0]).universe)
        self.coins.update(name for name in names if name is not None)

    def _learn_rounding(self, frame: Frame) -> None:
        try:
            ack = _ACK.decode(_MESSAGE.decode(frame.payload or b"").data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        wanted = _plain(ack.subscription)
        if ack.method == "subscribe" and wanted.get("type") == "l2Book":
            self._rounding[frame.connection, str(wanted.get("coin"))] = _rounding(wanted)

    def feed_of(self, frame: Frame) -> Feed | None:
        """Read channel and coin or account; a book's rounding is that of the subscription on its connection."""
        try:
            message = _MESSAGE.decode(frame.payload or b"")
            if message.channel in _NOT_REPLAYED:
                return None
            if message.channel == "candle":
                candle = _CANDLE.decode(message.data)
                return Feed("candle", candle.s, candle.i)
            data = bytes(message.data)
            if data.startswith(b"["):
                listed = _LISTED.decode(data)
                return Feed(message.channel, listed[0].coin) if listed else None
            names = _NAMES.decode(data) if data.startswith(b"{") else _Names()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if message.channel == "fastBook":
            # So tardis.dev renames it.
            return Feed("l2Book", names.coin, "fast")
        if message.channel == "l2Book":
            rounding = self._rounding.get((frame.connection, names.coin))
            if rounding is None:
                named = _BOOK_CONNECTION.fullmatch(frame.connection)
                rounding = named[1] if named else ""
            return Feed("l2Book", names.coin, "fast" if names.fast else rounding)
        return Feed(message.channel, names.coin or names.user.lower())

    def opened(self, path: str, query: str) -> HyperliquidClient:  # noqa: ARG002
        """Greet a socket, on any path."""
        return HyperliquidClient(self)


class HyperliquidClient:
    """One socket of a client of Hyperliquid."""

    def __init__(self, dialect: HyperliquidDialect) -> None:
        self._dialect = dialect
        self._subscriptions: dict[str, Feed] = {}
        self._feeds: set[Feed] = set()

    @property
    def subscribed(self) -> bool:
        """Whether anything is subscribed."""
        return bool(self._subscriptions)

    def receive(self, message: bytes) -> Answer:
        """Answer ping, subscribe and unsubscribe."""
        try:
            request = _REQUEST.decode(message)
            subscription = None if request.subscription is None else _plain(request.subscription)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _invalid(message)
        if request.method == "ping":
            return Answer((b'{"channel":"pong"}',))
        if (
            subscription is None
            or request.method not in {"subscribe", "unsubscribe"}
            or not isinstance(subscription.get("type"), str)
        ):
            return _invalid(message)
        key = json.dumps(_filled(subscription), sort_keys=True)
        known = key in self._subscriptions
        if known == (request.method == "subscribe"):
            return _error(f"Already {request.method}d: {json.dumps(subscription, separators=(',', ':'))}")
        if known:
            del self._subscriptions[key]
        else:
            if not self._is_acceptable(subscription):
                return Answer(drop=True)
            if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
                return _error(f"Cannot subscribe to more than {MAX_SUBSCRIPTIONS} channels.")
            self._subscriptions[key] = _wanted_feed(subscription)
        self._feeds = set(self._subscriptions.values())
        data = {"method": request.method, "subscription": _filled(subscription)}
        return Answer((msgspec.json.encode({"channel": "subscriptionResponse", "data": data}),))

    def wants(self, feed: Feed) -> bool:
        """Match by channel and coin or account.

        Books match by rounding too, because a rounded book that is taken for an exact one is wrong. The fast and the slow exact
        book stand in for each other where only one was recorded.
        """
        if feed in self._feeds:
            return True
        if feed.kind == "user":
            # These messages do not name the account.
            return any(wanted.kind == "user" for wanted in self._feeds)
        if feed.kind == "l2Book" and feed.variant in {"", "fast"}:
            other = feed._replace(variant="" if feed.variant else "fast")
            return other in self._feeds and other not in self._dialect.recorded
        return False

    def dress(self, payload: bytes, feed: Feed) -> bytes:  # noqa: ARG002
        """Return the payload as it is."""
        return payload

    def _is_acceptable(self, subscription: dict[str, object]) -> bool:
        """Tell whether the real venue would keep the socket open (venues.md 1.2)."""
        if subscription["type"] not in {"l2Book", "bbo"}:
            return True
        figures, mantissa = subscription.get("nSigFigs"), subscription.get("mantissa")
        if figures not in {None, 2, 3, 4, 5} or (mantissa is not None and (figures != 5 or mantissa not in {2, 5})):
            return False
        return subscription.get("coin") in self._dialect.coins


def _plain(fields: dict[str, msgspec.Raw]) -> dict[str, object]:
    return {name: msgspec.json.decode(value) for name, value in fields.items()}


def _filled(subscription: dict[str, object]) -> dict[str, object]:
    """Add the defaults that the venue puts into its acknowledgement."""
    if subscription["type"] != "l2Book":
        return subscription
    return {"type": "l2Book", "coin": None, "nSigFigs": None, "mantissa": None, "fast": False} | subscription


def _rounding(subscription: dict[str, object]) -> str:
    figures, mantissa = subscription.get("nSigFigs"), subscription.get("mantissa")
    return "" if figures is None else f"{figures}" if mantissa is None else f"{figures}/{mantissa}"


def _wanted_feed(subscription: dict[str, object]) -> Feed:
    kind = str(subscription["type"])
    channel = _CHANNEL_OF_TYPE.get(kind, kind)
    coin = str(subscription.get("coin") or "")
    if kind == "l2Book":
        return Feed(channel, coin, "fast" if subscription.get("fast") else _rounding(subscription))
    if kind == "candle":
        return Feed(channel, coin, str(subscription.get("interval") or ""))
    if kind == "activeAssetCtx" and coin.startswith("@"):
        channel = "activeSpotAssetCtx"
    return Feed(channel, coin or str(subscription.get("user") or "").lower())


def _error(text: str) -> Answer:
    return Answer((msgspec.json.encode({"channel": "error", "data": text}),))


def _invalid(message: bytes) -> Answer:
    return _error(f"Error parsing JSON into valid websocket request: {message.decode(errors='replace')[:1000]}")
