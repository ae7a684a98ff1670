"""A loopback server that speaks websocket and REST on behalf of a venue that lives in this process.

It knows transport only: sessions, queues, back-pressure. What is said is up to the backend (a recording that is played back, or the
simulated exchange). It refuses to listen anywhere but on loopback, because nothing it serves is real.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from typing import Final, Protocol

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

QUEUE_MESSAGES: Final = 8192
"""Messages queued for one client: at 325,000 frames a second, the fastest replay, 25 ms of stream."""

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Bytes queued for one client: 8,192 messages of 2 kB, as in a busy depth stream. An empty queue takes a larger one too."""

LOW_WATER_MESSAGES: Final = 1024
"""A fast sender waits in ``Session.drain`` above this; 1,024 messages keep the socket busy while it makes more."""

LOW_WATER_BYTES: Final = 1024 * 1024

FLUSH_POLL_S: Final = 0.002

SEND_STALL_S: Final = 60.0
"""A client whose socket took nothing for this long does not read; venues wait for a pong or a message no longer than that."""

CLOSE_TIMEOUT_S: Final = 2.0
"""How long the closing handshake may take on loopback before TCP is dropped."""

MAX_CLIENT_MESSAGE_BYTES: Final = 256 * 1024
"""A subscription of 1,000 streams with 40 characters each is 43 kB."""

MAX_REQUEST_BYTES: Final = 1024 * 1024
"""The largest REST request of any venue's public API is below a kilobyte."""

MAX_SESSIONS: Final = 64
"""Hyperliquid allows ten sockets per address; the rest is for tests that open many."""


class RestReply(msgspec.Struct, frozen=True):
    """The answer to one REST request; the content type is JSON unless ``headers`` says otherwise."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class Session:
    """One connected websocket client, seen from the venue's side.

    Attributes:
        path: The path that the client asked for, decoded.
        query: The query string, decoded, without the question mark.
        id: Counts the sessions of one server from 1.
        cut: Whether the client was thrown out because it did not read.
    """

    def __init__(self, websocket: web.WebSocketResponse, request: web.BaseRequest, session_id: int) -> None:
        self.path: str = request.path
        self.query: str = request.query_string
        self.id: int = session_id
        self.cut = False
        self._websocket = websocket
        self._transport = request.transport
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._close_code: int | None = None
        self._ended = False
        self._sending = False
        self._closing: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def is_open(self) -> bool:
        """Whether what is sent now still has a chance to arrive."""
        return not self._ended and self._close_code is None

    def send(self, payload: bytes) -> None:
        """Queue one TEXT frame.

        A client that lets the queue overflow is cut with close code 1008. What is sent to a closed session is dropped.
        """
        if not self.is_open:
            return
        if self._queue and (len(self._queue) >= QUEUE_MESSAGES or self._queued_bytes + len(payload) > QUEUE_BYTES):
            self._cut()
            return
        self._queue.append(payload)
        self._queued_bytes += len(payload)
        if len(self._queue) > LOW_WATER_MESSAGES or self._queued_bytes > LOW_WATER_BYTES:
            self._drained.clear()
        self._work.set()

    async def drain(self) -> None:
        """Wait until the queue is below its low-water mark, or the session has ended."""
        await self._drained.wait()

    async def flush(self) -> None:
        """Wait until everything queued was handed to the operating system, or the session has ended."""
        while not self._ended and (self._queue or self._sending or self._unsent_bytes()):  # noqa: ASYNC110
            # asyncio tells nobody when a transport's buffer runs empty, so it is looked at.
            await asyncio.sleep(FLUSH_POLL_S)

    def close(self, code: int = 1000) -> None:
        """Send what is queued, then the close frame."""
        if self.is_open:
            self._close_code = code
            self._work.set()

    def abort(self) -> None:
        """Drop the TCP connection without a close frame; the client sees code 1006."""
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def _cut(self) -> None:
        """Throw out a client that does not read, whatever its socket is blocked on."""
        self.cut = True
        self._end()
        self._closing = asyncio.get_running_loop().create_task(self._send_close(WSCloseCode.POLICY_VIOLATION))

    def _end(self) -> None:
        self._ended = True
        self._queue.clear()
        self._queued_bytes = 0
        self._drained.set()
        self._work.set()

    def _unsent_bytes(self) -> int:
        transport = self._transport
        return 0 if transport is None or transport.is_closing() else transport.get_write_buffer_size()

    async def _run_writer(self) -> None:
        """Send what is queued until the session ends; one task per session, owned by the server."""
        try:
            while not self._ended:
                await self._send_queued()
                if self._close_code is not None:
                    await self._send_close(self._close_code)
                    break
                self._work.clear()
                if not self._queue and not self._ended:
                    await self._work.wait()
        except ConnectionError:
            self.abort()
        except TimeoutError:
            if not self.cut:
                self._cut()
        finally:
            self._end()
            if self._closing is not None:
                await self._closing

    async def _send_queued(self) -> None:
        self._sending = True
        try:
            while self._queue:
                payload = self._queue.popleft()
                self._queued_bytes -= len(payload)
                if self._unsent_bytes() == 0:
                    # The kernel takes all of it at once, so there is no wait to bound and no timer to pay for.
                    await self._websocket.send_frame(payload, WSMsgType.TEXT)
                else:
                    async with asyncio.timeout(SEND_STALL_S):
                        await self._websocket.send_frame(payload, WSMsgType.TEXT)
                if len(self._queue) <= LOW_WATER_MESSAGES and self._queued_bytes <= LOW_WATER_BYTES:
                    self._drained.set()
        finally:
            self._sending = False

    async def _send_close(self, code: int) -> None:
        """Send the close frame and wait for the peer's, but not for longer than ``CLOSE_TIMEOUT_S``."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._websocket.close(code=code)
        except (ConnectionError, TimeoutError):
            pass
        self.abort()


class VenueBackend(Protocol):
    """What a venue says; all methods are called from the server's event loop, those of one session one after another."""

    async def opened(self, session: Session) -> None:
        """Take note of a client whose handshake is done."""

    async def received(self, session: Session, message: bytes) -> None:
        """Answer one text or binary message of a client."""

    async def closed(self, session: Session) -> None:
        """Forget a client; called exactly once for every ``opened``, however the session ended."""

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        """Answer one REST request; ``path_and_query`` is as sent, still percent-encoded."""


class VenueServer:
    """Serves one backend over websocket and REST on one loopback port.

    A GET with an Upgrade header is a websocket on any path; everything else goes to ``requested``. A server that was stopped can be
    started again and keeps its port.

    Attributes:
        port: The port that is listened on; 0 before the first start unless one was asked for.
        slow_clients_cut_total: Clients thrown out with 1008 because they did not read.
        sessions_refused_total: Handshakes answered with 503 because ``MAX_SESSIONS`` were open.
    """

    def __init__(
        self, backend: VenueBackend, *, host: str = "127.0.0.1", port: int = 0, ping_interval_s: float | None = None
    ) -> None:
        """Prepare a server; nothing listens yet.

        Args:
            backend: What answers.
            host: A loopback address or ``localhost``.
            port: 0 picks a free one.
            ping_interval_s: Send protocol pings this often and drop a client whose pong takes longer than half of it (Binance:
                180, venues.md 2.1); ``None`` sends none (Hyperliquid).

        Raises:
            ValueError: ``host`` is not loopback.
        """
        if host != "localhost" and not _is_loopback(host):
            raise ValueError(f"refusing to serve on {host}: only loopback addresses are allowed")
        self.port = port
        self.slow_clients_cut_total = 0
        self.sessions_refused_total = 0
        self._backend = backend
        self._host = host
        self._ping_interval_s = ping_interval_s
        self._runner: web.ServerRunner | None = None
        self._sessions: set[Session] = set()
        self._session_ids = 0

    @property
    def websocket_url(self) -> str:
        """The base that websocket paths are appended to, without a trailing slash."""
        return f"ws://{self._authority()}"

    @property
    def rest_url(self) -> str:
        """The base that REST paths are appended to, without a trailing slash."""
        return f"http://{self._authority()}"

    @property
    def sessions_open(self) -> int:
        """Websocket clients connected now."""
        return len(self._sessions)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("the server is already running")
        runner = web.ServerRunner(web.Server(self._handle, access_log=None), handle_signals=False, shutdown_timeout=CLOSE_TIMEOUT_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port, reuse_address=True)
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every session with 1001 and stop listening; does nothing when not running."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for session in list(self._sessions):
            session.close(WSCloseCode.GOING_AWAY)
        await runner.cleanup()

    def _authority(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._handle_websocket(request)
        return await self._handle_request(request)

    async def _handle_request(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.content_length is not None and request.content_length > MAX_REQUEST_BYTES:
            return web.Response(status=413)
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_REQUEST_BYTES:
                return web.Response(status=413)
        reply = await self._backend.requested(request.method, request.raw_path, bytes(body))
        return web.Response(status=reply.status, body=reply.body, headers={"Content-Type": "application/json", **reply.headers})

    async def _handle_websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._sessions) >= MAX_SESSIONS:
            self.sessions_refused_total += 1
            return web.Response(status=503)
        # Venues negotiate no compression. With a writer limit of 0 a blocked socket is noticed at every message.
        websocket = web.WebSocketResponse(
            compress=False,
            max_msg_size=MAX_CLIENT_MESSAGE_BYTES,
            heartbeat=self._ping_interval_s,
            timeout=CLOSE_TIMEOUT_S,
            writer_limit=0,
        )
        await websocket.prepare(request)
        self._session_ids += 1
        session = Session(websocket, request, self._session_ids)
        self._sessions.add(session)
        writer = asyncio.get_running_loop().create_task(session._run_writer())
        try:
            await self._backend.opened(session)
            async for message in websocket:
                if message.type is WSMsgType.TEXT:
                    await self._backend.received(session, message.data.encode())
                elif message.type is WSMsgType.BINARY:
                    await self._backend.received(session, message.data)
        finally:
            session._end()
            await asyncio.wait({writer}, timeout=2 * CLOSE_TIMEOUT_S)
            self._sessions.discard(session)
            self.slow_clients_cut_total += session.cut
            await self._backend.closed(session)
        return websocket


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
