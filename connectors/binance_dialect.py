"""Binance's side of the websocket conversation (venues.md 2.1), for recordings that are played back."""

from __future__ import annotations

import functools
import re
from typing import Final

import msgspec

from connectors.captures import binance_route
from connectors.dialects import MAX_NAMES, MAX_SUBSCRIPTIONS, Answer, Feed
from connectors.frames import Frame
from connectors.recorded_rest import Exchange


class _BinanceRequest(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: list[str] = []


_BINANCE_REQUEST = msgspec.json.Decoder(_BinanceRequest)
_BINANCE_PREFIX = re.compile(rb'\{"stream":\s*"(?P<stream>[^"]*)",\s*"data":\s*')
_BINANCE_EVENTS: Final = {"depthUpdate": "depth", "markPriceUpdate": "markPrice"}
_BINANCE_EVENT = re.compile(rb'"e":\s*"([A-Za-z]+)"')
_BINANCE_SYMBOL = re.compile(rb'"s":\s*"([^"]+)"')


@functools.lru_cache(maxsize=8192)
def _binance_feed(stream: str) -> Feed:
    """Return symbol and kind of a stream name without its speed: ``btcusdt@depth@0ms`` is the depth of BTCUSDT."""
    symbol, _, rest = stream.partition("@")
    if symbol.startswith("!"):
        return Feed(symbol, "*")
    return Feed(rest.partition("@")[0], symbol.upper())


class BinanceDialect:
    """Binance USD-M futures: two routes, combined and raw sockets, streams by URL or by request."""

    ping_interval_s: float | None = 180.0

    def __init__(self) -> None:
        self.recorded: set[Feed] = set()

    def learn(self, frame: Frame, exchange: Exchange | None) -> None:
        """Note which streams were recorded."""
        if exchange is None and len(self.recorded) < MAX_NAMES and (feed := self.feed_of(frame)) is not None:
            self.recorded.add(feed)

    def feed_of(self, frame: Frame) -> Feed | None:
        """Read symbol and kind from the stream name, or from the event if it was recorded from a raw socket."""
        payload = frame.payload or b""
        prefix = _BINANCE_PREFIX.match(payload)
        if prefix is not None:
            return _binance_feed(prefix["stream"].decode(errors="replace"))
        event, symbol = _BINANCE_EVENT.search(payload, 0, 200), _BINANCE_SYMBOL.search(payload, 0, 400)
        if event is None or symbol is None:
            return None
        kind = event[1].decode()
        return Feed(_BINANCE_EVENTS.get(kind, kind), symbol[1].decode(errors="replace"))

    def opened(self, path: str, query: str) -> BinanceClient:
        """Subscribe to the streams of the URL.

        A path without a route is served like ``/public``, as the real venue does it.
        """
        parts = [part for part in path.split("/") if part]
        route = parts.pop(0) if parts and parts[0] in {"public", "market", "private"} else "public"
        combined = bool(parts) and parts[0] == "stream"
        named = query.removeprefix("streams=") if combined and query.startswith("streams=") else "/".join(parts[1:])
        return BinanceClient(self.recorded, route, [stream for stream in named.split("/") if stream], combined=combined)


class BinanceClient:
    """One socket of a client of Binance."""

    def __init__(self, recorded: set[Feed], route: str, streams: list[str], *, combined: bool) -> None:
        self._recorded = recorded
        self._route = route
        self._combined = combined
        self._streams: dict[str, Feed] = {}
        self._feeds: set[Feed] = set()
        self._subscribe(streams)

    @property
    def subscribed(self) -> bool:
        """Whether anything is subscribed."""
        return bool(self._streams)

    def receive(self, message: bytes) -> Answer:
        """Answer SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS; unknown streams are acknowledged and stay silent."""
        try:
            request = _BINANCE_REQUEST.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _binance_error(None, f"Invalid request: {error}")
        if request.method == "SUBSCRIBE":
            if len(self._streams.keys() | set(request.params)) > MAX_SUBSCRIPTIONS:
                return _binance_error(request.id, f"Invalid request: more than {MAX_SUBSCRIPTIONS} streams")
            self._subscribe(request.params)
        elif request.method == "UNSUBSCRIBE":
            for stream in request.params:
                self._streams.pop(stream, None)
            self._subscribe([])
        elif request.method == "LIST_SUBSCRIPTIONS":
            return Answer((msgspec.json.encode({"result": list(self._streams), "id": request.id}),))
        else:
            return _binance_error(request.id, f"Invalid request: unknown variant {request.method}")
        return Answer((msgspec.json.encode({"result": None, "id": request.id}),))

    def wants(self, feed: Feed) -> bool:
        """Match by symbol and kind; either kind of trades stands in for the other where only one was recorded."""
        if feed in self._feeds:
            return True
        other = {"trade": "aggTrade", "aggTrade": "trade"}.get(feed.kind)
        return other is not None and (wanted := Feed(other, feed.name)) in self._feeds and wanted not in self._recorded

    def dress(self, payload: bytes, feed: Feed) -> bytes:
        """Wrap or unwrap, if the recording was made from the other kind of socket."""
        prefix = _BINANCE_PREFIX.match(payload)
        if self._combined and prefix is None:
            return b'{"stream":"%b@%b","data":%b}' % (feed.name.lower().encode(), feed.kind.encode(), payload)
        if not self._combined and prefix is not None:
            return payload[prefix.end() : payload.rindex(b"}")]
        return payload

    def _subscribe(self, streams: list[str]) -> None:
        """Add ``streams``; those of the other route are accepted like any, and nothing ever comes (venues.md 2.1)."""
        for stream in streams[:MAX_SUBSCRIPTIONS]:
            self._streams[stream] = _binance_feed(stream)
        self._feeds = {feed for stream, feed in self._streams.items() if self._is_of_this_route(stream)}

    def _is_of_this_route(self, stream: str) -> bool:
        symbol, _, kind = stream.encode().partition(b"@")
        return binance_route(symbol, kind) == self._route


def _binance_error(request_id: int | str | None, text: str) -> Answer:
    return Answer((msgspec.json.encode({"error": {"code": 2, "msg": text[:500]}, "id": request_id}),))
