"""Hyperliquid perpetuals (venues.md 1): everybody's positions are public, one account at a time.

A book frame does not say how far its prices were rounded, so every resolution has a socket of its own: ``main`` for the fast book
and all other channels, ``book`` for 20 levels at full resolution, ``book-4``, ``book-3`` and ``book-2`` for 20 levels at so many
significant figures. A subscription to an unknown coin makes the server close the whole socket without a word, so coins have to be
checked against the list of instruments first.

There is no venue-wide stream of liquidations; those of watched accounts are read from their fills and are ``partial``. The files of
an own node hold every fill of every account; see ``connectors/hyperliquid_node.py``.

Markets of other deployers (``dex:COIN``, HIP-3) are known where their dex is among the settings. An account has cash of its own on
each dex, so its state there is a pool of the same name; a dex whose margin is not in USDC has markets without tiers.
"""

from __future__ import annotations

from typing import Final

import msgspec

from connectors import hyperliquid_wire as wire
from connectors.decoding import DECODING_ERRORS, MAX_PAYLOAD_BYTES, decoding_error, feed_error
from connectors.events import AnyEvent, Gap, SubscriptionNotice
from connectors.frames import REST_PREFIX, Frame, RestExchange, RestRequest
from connectors.hyperliquid_accounts import account_events, balance_events, liquidation_events, mode_events
from connectors.hyperliquid_markets import book_events, context_events, instrument_events, market_events, quote_events, trade_events
from connectors.hyperliquid_node import NODE_CONNECTION, node_events
from connectors.hyperliquid_requests import (
    CONTEXTS_INTERVAL_S,
    INFO_PATH,
    NODE_TYPES,
    account_requests,
    checked_accounts,
    checked_coins,
    checked_dexes,
    contexts_request,
    other_dexes_interval_s,
)
from connectors.venue import AccountQuestion, ConnectionPlan, Heartbeat, PeriodicRequest, VenueSettings

MAX_CONNECTIONS: Final = 10
MAX_SUBSCRIPTIONS: Final = 1000
"""The venue's limits per address."""

FIGURES: Final = (4, 3, 2)
"""Significant figures of the rounded books; 20 levels at 2 figures reach 20 to 200 % from the price, more than any cascade."""

FIGURES_OF_CONNECTION: Final = {f"book-{figures}": figures for figures in FIGURES}

FAST_BOOK_SILENCE_S: Final = 10.0
"""Every 0.5 s normally."""
BOOK_SILENCE_S: Final = 30.0
"""Every 5.4 s normally."""
CONTEXT_SILENCE_S: Final = 10.0
"""Every second normally."""

PING: Final = Heartbeat(interval_s=20.0, payload=b'{"method":"ping"}')
"""The server closes a connection on which it had nothing to say for 60 s; the pong is something to say."""

POSTED_TYPES: Final = frozenset({"meta", "metaAndAssetCtxs", "recentTrades"})
"""Answers over the socket repeat neither dex nor account nor rounding: states and books are of no use, lists may be of any dex."""

GREETING: Final = b"Websocket connection established."

MAX_DETAIL_CHARACTERS: Final = 200

# Where the name of the market or account stands in a message of each channel.
_KEY_FIELDS: Final = {
    b"l2Book": b'"coin":"',
    b"fastBook": b'"coin":"',
    b"bbo": b'"coin":"',
    b"trades": b'"coin":"',
    b"activeAssetCtx": b'"coin":"',
    b"userFills": b'"user":"',
}
_CHANNEL_PREFIX: Final = b'{"channel":"'
_HEAD_BYTES: Final = 256
"""Coin or account stand within the first or last 256 bytes, whichever way the server orders the fields."""


_decode_exchange = msgspec.json.Decoder(RestExchange).decode


class Hyperliquid:
    """The venue file of Hyperliquid."""

    name = "hyperliquid"
    rest_url = "https://api.hyperliquid.xyz"
    rest_weight_per_minute = 1080
    """The venue allows 1,200 per address; a tenth is left to whatever else runs behind the same address."""
    websocket_url = "wss://api.hyperliquid.xyz/ws"
    node_types = NODE_TYPES

    def connections(self, settings: VenueSettings) -> list[ConnectionPlan]:
        """Plan one socket per book resolution; ``websocket_url`` replaces the whole URL.

        Raises:
            ValueError: a coin, dex or account is misspelt, a coin is of a dex that is not among the settings, or the plan is beyond
                the venue's limits.
        """
        coins, accounts = checked_coins(settings.symbols, settings.dexes), checked_accounts(settings.watch_accounts)
        main = [subscription for coin in coins for subscription in _main_subscriptions(coin)]
        main += [({"type": "userFills", "user": account}, None) for account in accounts]
        sockets: dict[str, list[_Expected]] = {
            "main": main,
            "book": [({"type": "l2Book", "coin": coin}, BOOK_SILENCE_S) for coin in coins],
        }
        for name, figures in FIGURES_OF_CONNECTION.items():
            sockets[name] = [({"type": "l2Book", "coin": coin, "nSigFigs": figures}, BOOK_SILENCE_S) for coin in coins]
        plans = [self._plan(name, settings, subscriptions) for name, subscriptions in sockets.items() if subscriptions]
        total = sum(len(plan.subscribe) for plan in plans)
        if len(plans) > MAX_CONNECTIONS or total > MAX_SUBSCRIPTIONS:
            raise ValueError(
                f"hyperliquid: {len(coins)} coins and {len(accounts)} accounts need {total} subscriptions on {len(plans)}"
                f" connections; the venue allows {MAX_SUBSCRIPTIONS} on {MAX_CONNECTIONS}, which is {MAX_SUBSCRIPTIONS // 8} coins"
            )
        return plans

    def _plan(self, name: str, settings: VenueSettings, subscriptions: list[_Expected]) -> ConnectionPlan:
        return ConnectionPlan(
            name=name,
            url=settings.websocket_url or self.websocket_url,
            subscribe=tuple(msgspec.json.encode({"method": "subscribe", "subscription": wanted}) for wanted, _ in subscriptions),
            expected={_channel(str(wanted["type"]), str(wanted.get("coin", wanted.get("user")))): s for wanted, s in subscriptions},
            heartbeat=PING,
        )

    def bootstrap(self, settings: VenueSettings) -> list[RestRequest]:
        """Ask for coins, margin tables and prices, of the main dex and then of each other one.

        Raises:
            ValueError: a dex is misspelt.
        """
        return [contexts_request(""), *(contexts_request(dex) for dex in checked_dexes(settings.dexes))]

    def periodic(self, settings: VenueSettings) -> list[PeriodicRequest]:
        """Repeat the lists of coins with their prices, so that listings, delistings and the marks of unwatched coins are seen.

        Raises:
            ValueError: a dex is misspelt.
        """
        main, *others = self.bootstrap(settings)
        interval_s = other_dexes_interval_s(len(others))
        return [
            PeriodicRequest(request=main, interval_s=CONTEXTS_INTERVAL_S),
            *(PeriodicRequest(request=request, interval_s=interval_s) for request in others),
        ]

    def book_snapshot(self, symbol: str) -> RestRequest | None:  # noqa: ARG002
        """Return nothing: every book frame is a snapshot."""
        return None

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:
        """Ask for the positions on each dex, for the balances, and for the mode, which costs ten times as much."""
        return account_requests(question)

    def is_served_by_node(self, request: RestRequest) -> bool:
        """Tell whether the info server of an own node answers ``request``, which has no limits there worth speaking of."""
        try:
            return request.path == INFO_PATH and wire.decode_info_request(request.body.encode()).type in self.node_types
        except DECODING_ERRORS:
            return False

    def channel_key(self, payload: bytes) -> str | None:
        """Name channel and coin, as in ``l2Book:BTC``, or channel and account; the socket tells one book of a coin from another."""
        if not payload.startswith(_CHANNEL_PREFIX):
            return None
        channel = payload[12 : payload.find(b'"', 12, 48)]
        key_field = _KEY_FIELDS.get(channel)
        if key_field is None:
            return None
        start = payload.find(key_field, 0, _HEAD_BYTES)
        if start < 0:
            start = payload.rfind(key_field, max(0, len(payload) - _HEAD_BYTES))
        end = payload.find(b'"', start + 8)
        if start < 0 or end < 0:
            return None
        return _channel(channel.decode(), payload[start + 8 : end].decode(errors="replace"))

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
        if frame.connection.startswith(NODE_CONNECTION):
            return node_events(frame, payload)
        try:
            if payload.startswith(REST_PREFIX):
                return _rest_events(frame, payload)
            message = wire.decode_message(payload)
        except DECODING_ERRORS as error:
            if payload.strip() == GREETING or _is_ignored(frame, payload):
                return []
            raise decoding_error(frame.venue, error, payload) from error
        return _message_events(frame, message)


_Expected = tuple[dict[str, str | int | bool], float | None]
"""A subscription and the longest normal silence in seconds."""


def _main_subscriptions(coin: str) -> list[_Expected]:
    return [
        ({"type": "l2Book", "coin": coin, "fast": True}, FAST_BOOK_SILENCE_S),
        ({"type": "bbo", "coin": coin}, None),
        ({"type": "trades", "coin": coin}, None),
        ({"type": "activeAssetCtx", "coin": coin}, CONTEXT_SILENCE_S),
    ]


def _channel(kind: str, name: str) -> str:
    """Name a channel; accounts are known in lower case, and the fast book by the name that it is subscribed to."""
    match kind:
        case "userFills":
            return f"{kind}:{name.lower()}"
        case "fastBook":
            return f"l2Book:{name}"
        case _:
            return f"{kind}:{name}"


def _is_ignored(frame: Frame, payload: bytes) -> bool:
    """Tell whether a message that did not decode is of a channel that carries nothing for us.

    Raises:
        FeedError: it is of a channel that nobody has heard of.
    """
    try:
        channel = wire.decode_channel_name(payload).channel
    except DECODING_ERRORS:
        return False
    if channel not in wire.KNOWN_CHANNELS | wire.IGNORED_CHANNELS:
        raise feed_error(frame.venue, "unknown_message", payload)
    return channel in wire.IGNORED_CHANNELS


def _message_events(frame: Frame, message: wire.Message) -> list[AnyEvent]:
    match message:
        case wire.BookMessage(data=book):
            return book_events(frame, book, FIGURES_OF_CONNECTION.get(frame.connection))
        case wire.FastBookMessage(data=book):
            return book_events(frame, book, None, is_fast=True)
        case wire.BestLevelsMessage(data=best):
            return quote_events(frame, best)
        case wire.TradesMessage(data=trades):
            return trade_events(frame, trades)
        case wire.ContextMessage(data=context):
            return context_events(frame, context.coin, context.context)
        case wire.UserFillsMessage(data=fills):
            return [] if fills.is_snapshot else liquidation_events(frame, fills.user, fills.fills)
        case wire.UserEventsMessage(data=user_events):
            return liquidation_events(frame, None, user_events.fills)
        case wire.SubscriptionMessage(data=response):
            wanted = response.subscription if response.method == "subscribe" else None
            return _notice(frame, wanted, accepted=True, detail="")
        case wire.ErrorMessage(data=text):
            return _error_events(frame, text)
        case wire.PostMessage(data=post):
            return _post_events(frame, post.response)


def _notice(frame: Frame, wanted: wire.Subscription | None, *, accepted: bool, detail: str) -> list[AnyEvent]:
    name = (wanted.coin or wanted.user) if wanted is not None else None
    if wanted is None or name is None:
        return []
    return [
        SubscriptionNotice(
            venue=frame.venue,
            connection=frame.connection,
            received_ns=frame.received_ns,
            channel=_channel(wanted.type, name),
            accepted=accepted,
            detail=detail[:MAX_DETAIL_CHARACTERS],
        )
    ]


def _error_events(frame: Frame, text: str) -> list[AnyEvent]:
    """Turn an error into a notice where it repeats the subscription that it is about; the others are found by their silence."""
    if text.startswith("Already unsubscribed"):
        return []
    brace = text.find("{")
    if brace < 0:
        return []
    quoted = text[brace:].encode(errors="replace")
    try:
        wanted = wire.decode_subscription_request(quoted).subscription or wire.decode_subscription(quoted)
    except DECODING_ERRORS:
        return []
    return _notice(frame, wanted, accepted=text.startswith("Already subscribed"), detail=text)


def _post_events(frame: Frame, response: wire.PostResponse) -> list[AnyEvent]:
    """Turn an info answer that came over the socket into events, as far as it says what it is about.

    Raises:
        FeedError: the venue refused the request, or the answer cannot be used.
    """
    if response.type == "error":
        raise feed_error(frame.venue, "refused", frame.payload or b"")
    if response.type != "info":
        return []
    try:
        payload = wire.decode_post_payload(response.payload)
        if payload.type not in POSTED_TYPES:
            return []
        return _info_events(frame, wire.InfoRequest(type=payload.type, dex=wire.UNTOLD_DEX), payload.data)
    except DECODING_ERRORS as error:
        raise decoding_error(frame.venue, error, frame.payload or b"") from error


def _rest_events(frame: Frame, payload: bytes) -> list[AnyEvent]:
    exchange = _decode_exchange(payload)
    if exchange.request.path != INFO_PATH:
        return []
    request = wire.decode_info_request(exchange.request.body.encode())
    try:
        return _info_events(frame, request, exchange.response)
    except DECODING_ERRORS as error:
        if bytes(exchange.response) == b"null":
            raise feed_error(frame.venue, "refused", payload) from error  # how the venue answers for an unknown coin
        raise decoding_error(frame.venue, error, exchange.response) from error


def _info_events(frame: Frame, request: wire.InfoRequest, response: msgspec.Raw) -> list[AnyEvent]:
    """Dispatch on the type of an info request; answers to requests that we do not make give nothing."""
    match request.type:
        case "meta":
            return instrument_events(frame, wire.decode_meta(response), dex=request.dex)
        case "metaAndAssetCtxs":
            meta, contexts = wire.decode_meta_and_contexts(response)
            return market_events(frame, meta, contexts, dex=request.dex)
        case "clearinghouseState" if request.user:
            return account_events(frame, request.user.lower(), wire.decode_clearinghouse_state(response), dex=request.dex)
        case "spotClearinghouseState" if request.user:
            return balance_events(frame, request.user.lower(), wire.decode_spot_state(response))
        case "userAbstraction" if request.user:
            return mode_events(frame, request.user.lower(), wire.decode_abstraction(response))
        case "l2Book" if request.mantissa is None:
            return book_events(frame, wire.decode_book(response), request.significant_figures)
        case "recentTrades":
            return trade_events(frame, wire.decode_trades(response))
        case _:
            return []
