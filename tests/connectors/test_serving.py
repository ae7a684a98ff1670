"""The loopback server, driven by the `websockets` client and aiohttp's over real sockets."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from connectors import serving
from connectors.serving import RestReply, Session, VenueServer


class RecordingBackend:
    """Notes all that happens; ``on_message`` decides the answers."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.messages: list[bytes] = []
        self.ended: list[int] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self.on_message: Callable[[Session, bytes], Awaitable[None]] | None = None

    async def opened(self, session: Session) -> None:
        self.sessions.append(session)

    async def received(self, session: Session, message: bytes) -> None:
        self.messages.append(message)
        if self.on_message is not None:
            await self.on_message(session, message)

    async def closed(self, session: Session) -> None:
        self.ended.append(session.id)

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        self.requests.append((method, path_and_query, body))
        return RestReply(status=418, body=b'{"code":-1}', headers={"Retry-After": "7"})


@asynccontextmanager
async def serving_backend(backend: RecordingBackend) -> AsyncIterator[VenueServer]:
    server = VenueServer(backend)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def receive_until_closed(client: ClientConnection) -> tuple[list[str | bytes], ConnectionClosed]:
    received = []
    try:
        while True:
            received.append(await client.recv())
    except ConnectionClosed as ending:
        return received, ending


async def test_text_and_binary_messages_reach_the_backend_and_answers_come_back_as_text() -> None:
    backend = RecordingBackend()

    async def echo(session: Session, message: bytes) -> None:
        session.send(b"re:" + message)

    backend.on_message = echo
    async with serving_backend(backend) as server, connect(f"{server.websocket_url}/public/stream?streams=a%40b/c") as client:
        await client.send("hello \u00e9")
        await client.send(b"bytes")
        assert await client.recv() == "re:hello \u00e9"
        assert await client.recv() == "re:bytes"
        session = backend.sessions[0]
        assert (session.path, session.query, session.id) == ("/public/stream", "streams=a@b/c", 1)
    assert backend.messages == ["hello \u00e9".encode(), b"bytes"]
    assert backend.ended == [1]


async def test_rest_requests_keep_method_path_query_body_and_the_reply_its_status_and_headers() -> None:
    backend = RecordingBackend()
    async with serving_backend(backend) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.rest_url}/info?a=%7B", data=b'{"type":"meta"}') as response:
            assert response.status == 418
            assert response.headers["Retry-After"] == "7"
            assert response.content_type == "application/json"
            assert await response.read() == b'{"code":-1}'
        async with http.get(f"{server.rest_url}/fapi/v1/depth?symbol=BTCUSDT&limit=1000") as response:
            assert response.status == 418
        too_much = bytes(serving.MAX_REQUEST_BYTES + 1)
        async with http.post(f"{server.rest_url}/info", data=io.BytesIO(too_much)) as response:
            assert response.status == 413

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(too_much), 65_536):
                yield too_much[start : start + 65_536]

        async with http.post(f"{server.rest_url}/info", data=chunks()) as response:
            assert response.status == 413
    assert backend.requests[0] == ("POST", "/info?a=%7B", b'{"type":"meta"}')
    assert backend.requests[1] == ("GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", b"")
    assert len(backend.requests) == 2


async def test_close_sends_what_is_queued_before_the_close_frame() -> None:
    backend = RecordingBackend()

    async def answer_and_close(session: Session, message: bytes) -> None:
        for number in range(100):
            session.send(b"%d" % number)
        session.close(1012)
        session.send(b"too late")

    backend.on_message = answer_and_close
    async with serving_backend(backend) as server, connect(server.websocket_url) as client:
        await client.send("go")
        received, ending = await receive_until_closed(client)
    assert received == [str(number) for number in range(100)]
    assert ending.rcvd is not None
    assert ending.rcvd.code == 1012


async def test_abort_after_flush_delivers_everything_and_then_drops_without_a_close_frame() -> None:
    backend = RecordingBackend()
    payload = b"x" * 200_000

    async def answer_and_abort(session: Session, message: bytes) -> None:
        for _ in range(40):
            session.send(payload)
        await session.flush()
        session.abort()

    backend.on_message = answer_and_abort
    async with serving_backend(backend) as server, connect(server.websocket_url, max_size=None) as client:
        await client.send("go")
        received, ending = await receive_until_closed(client)
        assert [len(message) for message in received] == [len(payload)] * 40
        assert ending.rcvd is None
        await until(lambda: backend.ended == [1])


async def test_a_client_that_does_not_read_is_cut_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CLOSE_TIMEOUT_S", 0.1)
    backend = RecordingBackend()
    async with serving_backend(backend) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        try:
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b"101" in await reader.readline()
            async with connect(server.websocket_url) as healthy:
                await until(lambda: len(backend.sessions) == 2)
                deaf = backend.sessions[0]
                # More than the socket buffers of both sides and the queue together can hold.
                for _ in range(64):
                    deaf.send(b"y" * 1024 * 1024)
                    await asyncio.sleep(0)
                assert deaf.cut
                assert not deaf.is_open
                async with asyncio.timeout(2):
                    await deaf.drain()
                await until(lambda: backend.ended == [1])
                assert server.slow_clients_cut_total == 1
                backend.sessions[1].send(b"still here")
                assert await healthy.recv() == "still here"
        finally:
            writer.close()


async def test_drain_holds_a_fast_sender_at_the_speed_of_its_reader() -> None:
    backend = RecordingBackend()
    async with serving_backend(backend) as server, connect(server.websocket_url) as client:
        await until(lambda: len(backend.sessions) == 1)
        session = backend.sessions[0]

        async def flood() -> None:
            for number in range(30_000):
                session.send(b"%06d" % number + b"." * 2000)
                await session.drain()

        sender = asyncio.create_task(flood())
        for number in range(30_000):
            assert str(await client.recv())[:6] == f"{number:06d}"
        await sender
        assert not session.cut


async def test_stopping_closes_clients_with_going_away_and_starting_again_keeps_the_port() -> None:
    backend = RecordingBackend()
    server = VenueServer(backend)
    await server.start()
    port = server.port
    async with connect(server.websocket_url) as client:
        await until(lambda: server.sessions_open == 1)
        await server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    await server.start()
    assert server.port == port
    async with connect(server.websocket_url):
        await until(lambda: server.sessions_open == 1)
    await server.stop()
    assert backend.ended == [1, 2]


async def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_SESSIONS", 1)
    backend = RecordingBackend()
    async with serving_backend(backend) as server, connect(server.websocket_url):
        with pytest.raises(InvalidStatus, match="503"):
            await connect(server.websocket_url)
        assert server.sessions_refused_total == 1


async def test_protocol_pings_are_sent_when_asked_for() -> None:
    backend = RecordingBackend()
    server = VenueServer(backend, ping_interval_s=0.05)
    await server.start()
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(server.websocket_url, autoping=False) as client:
            message = await client.receive(timeout=5)
            assert message.type is aiohttp.WSMsgType.PING
    finally:
        await server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_only_loopback_addresses_are_served(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        VenueServer(RecordingBackend(), host=host)


async def test_localhost_is_accepted_and_a_taken_port_is_an_error() -> None:
    async with serving_backend(RecordingBackend()) as server:
        other = VenueServer(RecordingBackend(), host="localhost", port=server.port)
        with pytest.raises(OSError):
            await other.start()
