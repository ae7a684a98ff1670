"""Binance USD-M futures (venues.md 2): accounts are private, so this venue gives markets and a sample of the liquidations.

The public host is split by stream: a stream asked for on the wrong half is acknowledged and stays silent, so every connection names
what it expects. Streams are named in the URL; nothing is sent, and there are no acknowledgements.

What is left out, on purpose: fills of the ``trade`` stream that are no market trades (``X`` of ``INSURANCE_FUND``, ``ADL``, ``NA``:
takeovers beside the book, whose side is not told); everything that is marked as COIN-M, where sizes count contracts; forced orders
without a fill. ``forceOrder`` shows at most one order per symbol and second, so its events are ``sampled`` and their sum is a lower
bound.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

from connectors.binance_brackets import Brackets, load_brackets
from connectors.binance_events import TO_EVENTS, rest_events, unusual_events
from connectors.binance_wire import decode_combined, decode_event
from connectors.decoding import DECODING_ERRORS, MAX_PAYLOAD_BYTES, feed_error
from connectors.events import AnyEvent, Gap
from connectors.frames import REST_PREFIX, Frame, RestRequest
from connectors.venue import AccountQuestion, ConnectionPlan, PeriodicRequest, VenueSettings

STREAMS_PER_CONNECTION: Final = 200
"""The venue's pages say 200 and 1,024; the lower one holds in both cases."""

PUBLIC_STREAMS: Final = (("depth", "depth@100ms", 10.0), ("bookTicker", "bookTicker", None))
MARKET_STREAMS: Final = (("aggTrade", "aggTrade", None), ("markPrice", "markPrice@1s", 10.0), ("forceOrder", "forceOrder", None))
"""Kind, stream suffix, and the longest normal silence in seconds; a market may rightly be without trades for long."""

SNAPSHOT_LEVELS: Final = 1000
SNAPSHOT_WEIGHT: Final = 20

OPEN_INTEREST_INTERVAL_S: Final = 10.0
OPEN_INTEREST_WEIGHT_PER_MINUTE: Final = 600
"""At most this much of the budget goes to open interest, so that 70 book snapshots a minute remain possible."""

INSTRUMENTS_INTERVAL_S: Final = 900.0
"""Listings and tick sizes change a few times a week and are announced; the response has about 1 MB."""

EVENT_KINDS: Final = {
    b"depthUpdate": "depth",
    b"bookTicker": "bookTicker",
    b"aggTrade": "aggTrade",
    b"trade": "trade",
    b"markPriceUpdate": "markPrice",
    b"forceOrder": "forceOrder",
}

_COMBINED_PREFIX: Final = b'{"stream":"'
_EVENT_PREFIX: Final = b'{"e":"'
_HEAD_BYTES: Final = 256
"""Event and symbol stand within the first 256 bytes of every raw message: five numbers of 20 digits and the symbol at most."""

SHIPPED_BRACKETS: Final = load_brackets(Path(__file__).parent / "data" / "binance_brackets.json")


class Binance:
    """The venue file of Binance USD-M; ``brackets`` are the margin tiers that go into its instruments."""

    name = "binance"
    rest_url = "https://fapi.binance.com"
    rest_weight_per_minute = 2000
    """The venue allows 2,400 per address; a sixth is left to whatever else runs behind the same address."""
    websocket_url = "wss://fstream.binance.com"

    def __init__(self, brackets: Brackets = SHIPPED_BRACKETS) -> None:
        self.brackets = brackets

    def connections(self, settings: VenueSettings) -> list[ConnectionPlan]:
        """Plan as few sockets as hold the streams; ``websocket_url`` replaces scheme and host.

        Raises:
            ValueError: a symbol is not spelled as the venue spells it.
        """
        symbols = _checked_symbols(settings.symbols)
        base = (settings.websocket_url or self.websocket_url).rstrip("/")
        return [*_shards("public", base, PUBLIC_STREAMS, symbols), *_shards("market", base, MARKET_STREAMS, symbols)]

    def bootstrap(self, settings: VenueSettings) -> list[RestRequest]:  # noqa: ARG002
        """Ask for the list of markets."""
        return [RestRequest(method="GET", path="/fapi/v1/exchangeInfo", weight=1)]

    def periodic(self, settings: VenueSettings) -> list[PeriodicRequest]:
        """Poll open interest, which has no stream, every 10 s or as often as its share of the weight allows."""
        symbols = _checked_symbols(settings.symbols)
        interval_s = max(OPEN_INTEREST_INTERVAL_S, 60.0 * len(symbols) / OPEN_INTEREST_WEIGHT_PER_MINUTE)
        requests = [RestRequest(method="GET", path=f"/fapi/v1/openInterest?symbol={quote(symbol)}", weight=1) for symbol in symbols]
        instruments = [PeriodicRequest(request=request, interval_s=INSTRUMENTS_INTERVAL_S) for request in self.bootstrap(settings)]
        return [*instruments, *(PeriodicRequest(request=request, interval_s=interval_s) for request in requests)]

    def book_snapshot(self, symbol: str) -> RestRequest | None:
        """Return the request for the deepest snapshot."""
        path = f"/fapi/v1/depth?symbol={quote(symbol)}&limit={SNAPSHOT_LEVELS}"
        return RestRequest(method="GET", path=path, weight=SNAPSHOT_WEIGHT)

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:  # noqa: ARG002
        """Return nothing: accounts are private."""
        return []

    def channel_key(self, payload: bytes) -> str | None:
        """Name stream kind and symbol, as in ``depth:BTCUSDT``, whatever the speed; ``markPrice:*`` for a stream of all symbols."""
        if payload.startswith(_COMBINED_PREFIX):
            end = payload.find(b'"', 11, 11 + _HEAD_BYTES)
            return _stream_key(payload[11:end]) if end > 0 else None
        if payload.startswith(_EVENT_PREFIX):
            return _event_key(payload[6:_HEAD_BYTES])
        return None

    def parse(self, frame: Frame) -> list[AnyEvent]:
        """Turn one frame into events.

        Raises:
            FeedError: the message is malformed, of a wrong type, or holds an impossible number.
        """
        payload = frame.payload
        if payload is None:
            return [Gap(venue=frame.venue, connection=frame.connection, received_ns=frame.received_ns, reason="disconnected")]
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise feed_error(frame.venue, "oversized", payload)
        try:
            # Nearly every message is one of a combined stream; what is not fails here within a microsecond.
            data = decode_combined(payload).data
        except DECODING_ERRORS:
            return self._parse_other(frame, payload)
        return TO_EVENTS[type(data)](frame, data)

    def _parse_other(self, frame: Frame, payload: bytes) -> list[AnyEvent]:
        if payload.startswith(_EVENT_PREFIX):
            try:
                event = decode_event(payload)
            except DECODING_ERRORS:
                return unusual_events(frame, payload)
            return TO_EVENTS[type(event)](frame, event)
        if payload.startswith(REST_PREFIX):
            return rest_events(frame, payload, self.brackets)
        return unusual_events(frame, payload)


def _checked_symbols(symbols: tuple[str, ...]) -> tuple[str, ...]:
    for symbol in symbols:
        if not symbol.replace("_", "").isalnum() or symbol != symbol.upper():
            raise ValueError(f"binance: {symbol!r} is not a symbol; they are written like BTCUSDT or BTCUSDT_261225")
    return tuple(dict.fromkeys(symbols))


def _shards(
    route: str, base: str, streams: tuple[tuple[str, str, float | None], ...], symbols: tuple[str, ...]
) -> list[ConnectionPlan]:
    """Spread the symbols over connections, all streams of a symbol on the same one."""
    per_shard = STREAMS_PER_CONNECTION // len(streams)
    groups = [symbols[start : start + per_shard] for start in range(0, len(symbols), per_shard)]
    plans = []
    for number, group in enumerate(groups):
        names = [f"{quote(symbol.lower())}@{suffix}" for symbol in group for _, suffix, _ in streams]
        plan = ConnectionPlan(
            name=route if len(groups) == 1 else f"{route}-{number}",
            url=f"{base}/{route}/stream?streams={'/'.join(names)}",
            subscribe=(),
            expected={f"{kind}:{symbol}": silence_s for symbol in group for kind, _, silence_s in streams},
        )
        plans.append(plan)
    return plans


@lru_cache(maxsize=8192)  # 700 symbols with 5 streams each, and as much again; the same bytes always give the same key
def _stream_key(stream: bytes) -> str | None:
    try:
        name = stream.decode()
    except UnicodeDecodeError:
        return None
    symbol, _, kind = name.partition("@")
    if symbol.startswith("!"):
        return f"{symbol[1:]}:*"
    return f"{kind.partition('@')[0]}:{symbol.upper()}" if symbol and kind else None


def _event_key(head: bytes) -> str | None:
    """Read ``depthUpdate","E":...,"s":"BTCUSDT",...``; the order of a liquidation carries its symbol inside."""
    kind = EVENT_KINDS.get(head[: head.find(b'"')])
    start = head.find(b'"s":"') + 5
    end = head.find(b'"', start)
    if kind is None or start < 5 or end <= start:
        return None
    return f"{kind}:{head[start:end].decode(errors='replace')}"
