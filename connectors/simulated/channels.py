"""Websocket subscriptions of the simulated exchange: acks, errors, cadences (venues.md 1.2, 1.4). Pure; sockets are elsewhere."""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from connectors.simulated.account_messages import fills_data
from connectors.simulated.book import BookLevel
from connectors.simulated.info import ADDRESS, Info, Refusal, is_valid_aggregation
from connectors.simulated.market_messages import all_mids, book_data, context_data, quote_data, recent_trades, trades_data
from connectors.simulated.simulation import Simulation

PONG: Final = b'{"channel":"pong"}'
COIN_CHANNELS: Final = frozenset({"l2Book", "bbo", "trades", "activeAssetCtx"})
FRAGILE_CHANNELS: Final = frozenset({"l2Book", "bbo"})
"""A bad coin or parameter in one of these costs the whole socket."""


class Cadences(msgspec.Struct, frozen=True):
    """How often what is sent, in milliseconds of exchange time; what is not here is sent when it happens."""

    book_ms: int = 5_400
    fast_book_ms: int = 540
    context_ms: int = 1_000
    all_mids_ms: int = 5_000
    trade_replay_ms: int = 20_000
    """The first ``trades`` frame repeats this much of the past."""


class Limits(msgspec.Struct, frozen=True):
    """Limits per client address; every client is on loopback, so they hold for all sessions together."""

    users: int = 10
    subscriptions: int = 1_000


class Subscription(msgspec.Struct, frozen=True):
    """What a client asks for, with the defaults filled in; also the key under which it is remembered."""

    type: str
    coin: str = ""
    user: str = ""
    nSigFigs: int | None = None  # noqa: N815 -- the venue's name
    mantissa: int | None = None
    fast: bool = False

    def wire(self) -> dict[str, object]:
        """Return it as the venue writes it."""
        match self.type:
            case "l2Book":
                return {
                    "type": self.type,
                    "coin": self.coin,
                    "nSigFigs": self.nSigFigs,
                    "mantissa": self.mantissa,
                    "fast": self.fast,
                }
            case "allMids":
                return {"type": self.type}
            case "userFills":
                return {"type": self.type, "user": self.user}
            case _:
                return {"type": self.type, "coin": self.coin}


class PostRequest(msgspec.Struct, frozen=True):
    """A REST request over the socket."""

    type: str
    payload: msgspec.Raw


class ClientMessage(msgspec.Struct, frozen=True):
    """Any message of a client."""

    method: str
    subscription: Subscription | None = None
    id: int = 0
    request: PostRequest | None = None


class Replies(msgspec.Struct, frozen=True):
    """The answer to one client message; with ``drop`` the socket dies without a close frame."""

    frames: tuple[bytes, ...] = ()
    drop: bool = False


class _Flow:
    """The state of one subscription of one session."""

    __slots__ = ("due_ms", "is_new", "last_quote")

    def __init__(self) -> None:
        self.due_ms = 0
        self.is_new = True
        self.last_quote: tuple[BookLevel | None, ...] | None = None


class Channels:
    """All sessions' subscriptions, numbered by the caller."""

    def __init__(self, simulation: Simulation, info: Info, cadences: Cadences | None = None, limits: Limits | None = None) -> None:
        self._exchange = simulation.exchange
        self._info = info
        self._cadences = cadences or Cadences()
        self._limits = limits or Limits()
        self._coins = {spec.coin: market for market, spec in enumerate(self._exchange.markets)}
        self._sessions: dict[int, dict[Subscription, _Flow]] = {}

    def opened(self, session: int) -> None:
        """Note a new session."""
        self._sessions[session] = {}

    def closed(self, session: int) -> None:
        """Forget a session."""
        self._sessions.pop(session, None)

    def received(self, session: int, message: bytes, now_ms: float) -> Replies:
        """Answer one message of a client; ``now_ms`` is for the rate limit only."""
        try:
            request = msgspec.json.decode(message, type=ClientMessage)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _unreadable(message)
        if request.method == "ping":
            return Replies((PONG,))
        if request.method == "post" and request.request is not None and request.request.type == "info":
            return Replies((self._post(request.id, bytes(request.request.payload), now_ms),))
        if request.subscription is None or request.method not in {"subscribe", "unsubscribe"}:
            return _unreadable(message)
        wanted = self._normalised(request.subscription)
        if wanted is None:
            return _unreadable(message)
        flows = self._sessions[session]
        if request.method == "unsubscribe":
            if flows.pop(wanted, None) is None:
                return _error(f"Already unsubscribed: {orjson.dumps(wanted.wire()).decode()}")
            return Replies((_ack("unsubscribe", wanted),))
        return self._subscribe(flows, wanted)

    def publish(self) -> list[tuple[int, bytes]]:
        """Return what is due after a block, as (session, frame) in the order to send."""
        frames: list[tuple[int, bytes]] = []
        cache: dict[object, bytes] = {}
        for session, flows in self._sessions.items():
            for subscription, flow in flows.items():
                frame = self._due_frame(subscription, flow, cache)
                if frame is not None:
                    frames.append((session, frame))
        return frames

    def _subscribe(self, flows: dict[Subscription, _Flow], wanted: Subscription) -> Replies:
        if wanted in flows:
            return _error(f"Already subscribed: {orjson.dumps(wanted.wire()).decode()}")
        if wanted.type in COIN_CHANNELS and wanted.coin not in self._coins:
            # The real venue kills the socket for two of the channels and answers for the others.
            return Replies(drop=True) if wanted.type in FRAGILE_CHANNELS else _invalid(wanted)
        if wanted.type == "l2Book" and not is_valid_aggregation(wanted.nSigFigs, wanted.mantissa):
            return Replies(drop=True)
        if wanted.type == "userFills":
            if not ADDRESS.match(wanted.user):
                return _invalid(wanted)
            users = {known.user for other in self._sessions.values() for known in other if known.user}
            if len(users | {wanted.user}) > self._limits.users:
                return _error(f"Cannot track more than {self._limits.users} total users.")
        if sum(len(other) for other in self._sessions.values()) >= self._limits.subscriptions:
            return _error(f"Cannot subscribe to more than {self._limits.subscriptions} channels.")
        flows[wanted] = _Flow()
        return Replies((_ack("subscribe", wanted),))

    def _normalised(self, subscription: Subscription) -> Subscription | None:
        """Drop what the channel does not use, or return ``None`` for a channel that does not exist."""
        match subscription.type:
            case "l2Book":
                return msgspec.structs.replace(subscription, user="")
            case "bbo" | "trades" | "activeAssetCtx":
                return Subscription(subscription.type, coin=subscription.coin)
            case "allMids":
                return Subscription(subscription.type)
            case "userFills":
                return Subscription(subscription.type, user=subscription.user.lower())
            case _:
                return None

    def _post(self, request_id: int, payload: bytes, now_ms: float) -> bytes:
        try:
            kind = msgspec.json.decode(payload, type=dict[str, object]).get("type")
            response: dict[str, object] = {"type": "info", "payload": {"type": kind, "data": self._info.answer(payload, now_ms)}}
        except msgspec.DecodeError:
            response = {"type": "error", "payload": "422"}
        except Refusal as refusal:
            response = {"type": "error", "payload": str(refusal.reply.status)}
        return orjson.dumps({"channel": "post", "data": {"id": request_id, "response": response}})

    def _due_frame(self, subscription: Subscription, flow: _Flow, cache: dict[object, bytes]) -> bytes | None:
        """Return the frame of one subscription, if there is something to send after this block."""
        match subscription.type:
            case "trades":
                return self._trades_frame(subscription, flow, cache)
            case "bbo":
                return self._quote_frame(subscription, flow, cache)
            case "userFills":
                return self._fills_frame(subscription, flow)
        now_ms = self._exchange.time_ms
        if now_ms < flow.due_ms:
            return None
        flow.due_ms = now_ms + self._interval_ms(subscription)
        frame = cache.get(subscription)
        if frame is None:
            frame = cache[subscription] = _frame(subscription.type, self._periodic_data(subscription))
        return frame

    def _interval_ms(self, subscription: Subscription) -> int:
        match subscription.type:
            case "l2Book":
                return self._cadences.fast_book_ms if subscription.fast else self._cadences.book_ms
            case "allMids":
                return self._cadences.all_mids_ms
            case _:
                return self._cadences.context_ms

    def _periodic_data(self, subscription: Subscription) -> object:
        if subscription.type == "allMids":
            return {"mids": all_mids(self._exchange)}
        market = self._coins[subscription.coin]
        if subscription.type == "l2Book":
            return book_data(
                self._exchange,
                market,
                significant_figures=subscription.nSigFigs,
                mantissa=subscription.mantissa,
                is_fast=subscription.fast,
            )
        return {"coin": subscription.coin, "ctx": context_data(self._exchange, market)}

    def _trades_frame(self, subscription: Subscription, flow: _Flow, cache: dict[object, bytes]) -> bytes | None:
        exchange, market = self._exchange, self._coins[subscription.coin]
        key = (subscription, flow.is_new)
        if key not in cache:
            if flow.is_new:
                trades = recent_trades(exchange, market, exchange.time_ms - self._cadences.trade_replay_ms)
            else:
                trades = [trade for trade in exchange.trades if trade.market == market]
            cache[key] = _frame("trades", trades_data(exchange, trades)) if trades else b""
        flow.is_new = False
        return cache[key] or None

    def _quote_frame(self, subscription: Subscription, flow: _Flow, cache: dict[object, bytes]) -> bytes | None:
        book = self._exchange.books[self._coins[subscription.coin]]
        quote = tuple(side.levels(1)[0] if len(side) else None for side in (book.bids, book.asks))
        if quote == flow.last_quote:
            return None
        flow.last_quote = quote
        if subscription not in cache:
            cache[subscription] = _frame("bbo", quote_data(self._exchange, self._coins[subscription.coin]))
        return cache[subscription]

    def _fills_frame(self, subscription: Subscription, flow: _Flow) -> bytes | None:
        exchange = self._exchange
        row = exchange.table.rows.get(subscription.user)
        if flow.is_new:
            flow.is_new = False
            past = [] if row is None else fills_data(exchange, row, reversed(exchange.fills.get(row, ())))
            return _frame("userFills", {"user": subscription.user, "fills": past, "isSnapshot": True})
        fills = [] if row is None else fills_data(exchange, row, exchange.trades)
        return _frame("userFills", {"user": subscription.user, "fills": fills}) if fills else None


def _frame(channel: str, data: object) -> bytes:
    return orjson.dumps({"channel": channel, "data": data})


def _ack(method: str, subscription: Subscription) -> bytes:
    return _frame("subscriptionResponse", {"method": method, "subscription": subscription.wire()})


def _error(text: str) -> Replies:
    return Replies((_frame("error", text),))


def _invalid(subscription: Subscription) -> Replies:
    return _error(f"Invalid subscription {orjson.dumps(subscription.wire()).decode()}")


def _unreadable(message: bytes) -> Replies:
    return _error(f"Error parsing JSON into valid websocket request: {message.decode(errors='replace')}")
