"""The WebSocket stream: the latest state, conflated, and events in order; a client that cannot keep up is cut.

Messages are JSON objects with a ``type``; ``monitor/web/openapi.py`` lists them. Sending to one client never delays another: each
has its own task, and what it has not been sent yet is held by its ``Subscriber``, which is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from monitor.web.hub import SUBSCRIBED_MARKETS, Hub, MarketKey, Subscriber
from monitor.web.security import guarded_by
from monitor.web.settings import HttpSettings

HEARTBEAT_S = 1.0
"""Something is sent at least this often, so that silence means a broken connection."""
MAX_MESSAGE_BYTES = 16 * 1024
"""From the client: 16 market names are far below this."""
MESSAGES_PER_WINDOW = 60
"""From the client, per 10 s; a page sends one when its reader picks another market."""
MESSAGE_WINDOW_S = 10.0


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say: which markets it follows from now on, each as ``venue/symbol``."""

    subscribe: list[str]


class Streams:
    """Serves ``/api/v1/stream``."""

    def __init__(self, hub: Hub, settings: HttpSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._sockets: dict[web.WebSocketResponse, None] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves, is cut or the server stops."""
        if len(self._sockets) >= self._settings.max_stream_clients:
            self._hub.stream_clients_refused += 1
            raise web.HTTPServiceUnavailable(text=f"all {self._settings.max_stream_clients} places for streams are taken")
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=MAX_MESSAGE_BYTES, compress=False)
        self._sockets[socket] = None
        subscriber = self._hub.attach()
        sender: asyncio.Task[None] | None = None
        try:
            await socket.prepare(request)
            if (connection := guarded_by(request)) is not None:
                connection.stream_began()
            sender = asyncio.create_task(self._send(request, socket, subscriber), name="stream.send")
            await self._receive(socket, subscriber)
        finally:
            self._hub.detach(subscriber)
            self._sockets.pop(socket, None)
            if sender is not None:
                sender.cancel()
                # The sender's own failures are connection errors, which also end the receiver.
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await sender
        return socket

    async def close(self) -> None:
        """Tell every client that the server goes away."""
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"shutting down") for socket in list(self._sockets)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.gather(*closing, return_exceptions=True)

    async def _send(self, request: web.Request, socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
        await self._deliver(socket, [self._hello()])
        while not socket.closed:
            if subscriber.overflowed or not await self._deliver(socket, self._hub.take(subscriber)):
                self._cut(request)
                return
            await asyncio.sleep(self._settings.stream_interval_s)
            try:
                async with asyncio.timeout(max(0.0, HEARTBEAT_S - self._settings.stream_interval_s)):
                    await subscriber.wake.wait()
            except TimeoutError:
                subscriber.refresh()

    async def _deliver(self, socket: web.WebSocketResponse, messages: list[bytes]) -> bool:
        """Send messages; ``False`` when the client does not take them in time."""
        try:
            async with asyncio.timeout(self._settings.stream_send_timeout_s):
                for message in messages:
                    await socket.send_str(message.decode())
        except TimeoutError:
            return False
        return True

    def _cut(self, request: web.Request) -> None:
        self._hub.stream_clients_cut += 1
        # A close handshake would wait for the very client that does not read.
        if request.transport is not None:
            request.transport.abort()

    def _hello(self) -> bytes:
        status = self._hub.status
        return msgspec.json.encode(
            {
                "type": "hello",
                "protocol": 1,
                "instance": status.instance if status else None,
                "version": status.version if status else None,
                "simulated": status.simulated if status else None,
                "interval_s": self._settings.stream_interval_s,
                "markets": [f"{venue}/{symbol}" for venue, symbol in self._hub.market_keys()],
            }
        )

    async def _receive(self, socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
        loop = asyncio.get_running_loop()
        window_ends, received = loop.time() + MESSAGE_WINDOW_S, 0
        async for message in socket:
            if loop.time() >= window_ends:
                window_ends, received = loop.time() + MESSAGE_WINDOW_S, 0
            received += 1
            if received > MESSAGES_PER_WINDOW:
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"too many messages")
                return
            if message.type is not WSMsgType.TEXT:
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"only text is understood")
                return
            self._take_in(message.data, subscriber)

    def _take_in(self, data: str, subscriber: Subscriber) -> None:
        try:
            names = msgspec.json.decode(data, type=Subscription).subscribe
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            _refuse(subscriber, "bad_message", f'expected {{"subscribe": ["venue/symbol", ...]}}: {error}')
            return
        if len(names) > SUBSCRIBED_MARKETS:
            _refuse(subscriber, "too_many_markets", f"at most {SUBSCRIBED_MARKETS} markets can be followed")
            return
        known = {f"{venue}/{symbol}": (venue, symbol) for venue, symbol in self._hub.market_keys()}
        keys: list[MarketKey] = []
        for name in names:
            if (key := known.get(name)) is not None:
                keys.append(key)
            else:
                _refuse(subscriber, "unknown_market", f"{name[:100]!r} is not a market of this server")
        subscriber.subscribe(keys)


def _refuse(subscriber: Subscriber, code: str, message: str) -> None:
    error: dict[str, Any] = {"type": "error", "error": {"code": code, "message": message}}
    subscriber.push(msgspec.json.encode(error))
