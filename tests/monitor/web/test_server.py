"""The listening socket and everything hostile that can arrive on it."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest

from monitor.web.hub import Hub
from monitor.web.security import MAX_HEAD_BYTES, SECURITY_HEADERS
from monitor.web.server import WebServer, static_names
from monitor.web.settings import HttpSettings
from tests.monitor.web.running import client, published, serving, until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(address: str) -> Connection:
    parts = urlsplit(address)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def ask(address: str, request: bytes) -> bytes:
    """Send raw bytes and return everything that comes back until the server closes or five seconds pass."""
    reader, writer = await connect(address)
    writer.write(request)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def get(path: str, host: str = "localhost", extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n".encode()


async def closed(reader: asyncio.StreamReader, timeout_s: float = 5.0) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await reader.read()
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def test_the_page_and_its_files_are_served_with_security_headers() -> None:
    async with client(Hub()) as session:
        for path in ("/", *(f"/static/{name}" for name in static_names())):
            async with session.get(path) as response:
                assert response.status == 200
                body = await response.text()
                assert body
                for name, value in SECURITY_HEADERS.items():
                    assert response.headers[name] == value
                assert "Access-Control-Allow-Origin" not in response.headers
    assert {"index.html", "main.js", "style.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.LICENSE"} <= set(static_names())


async def test_the_page_has_no_inline_script_and_names_no_other_server() -> None:
    async with client(Hub()) as session:
        page = await (await session.get("/")).text()
        assert "<script>" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        for name in static_names():
            text = await (await session.get(f"/static/{name}")).text()
            if not name.startswith("vendor/"):
                assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
                assert "https://" not in text


async def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    async with client(Hub()) as session:
        etag = (await session.get("/static/main.js")).headers["ETag"]
        async with session.get("/static/main.js", headers={"If-None-Match": etag}) as response:
            assert (response.status, await response.read()) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/%2e%2e%2f%2e%2e%2fconfig.py",
        "/static//etc/passwd",
        "/static/..\\server.py",
        "/static/vendor/../../server.py",
        "/../../../etc/passwd",
        "//etc/passwd",
        "/static/index.html%00.js",
        "/static/",
        "/static",
    ],
)
async def test_no_other_file_can_be_named(path: str) -> None:
    async with serving(Hub()) as address:
        answer = await ask(address, get(path))
    assert answer.split(b"\r\n")[0] in {b"HTTP/1.1 404 Not Found", b"HTTP/1.1 400 Bad Request"}
    assert b"root:" not in answer
    assert b"import" not in answer


async def test_errors_are_json() -> None:
    async with client(Hub()) as session, session.get("/nothing/here") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", ""])
async def test_a_strange_host_is_turned_away(host: str) -> None:
    async with serving(published()[1]) as address:
        for path in ("/", "/metrics", "/api/v1/markets", "/api/v1/stream"):
            answer = await ask(address, get(path, host))
            assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))
            assert b"BTC" not in answer


async def test_a_stream_of_another_site_is_turned_away() -> None:
    async with client(Hub()) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect("/api/v1/stream", origin="http://evil.example")
        assert caught.value.status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_written(method: str) -> None:
    async with client(Hub()) as session, session.request(method, "/api/v1/alerts") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


async def test_a_body_is_not_read() -> None:
    async with serving(Hub()) as address:
        for method in ("POST", "GET"):
            reader, writer = await connect(address)
            head = f"{method} /api/v1/alerts HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10 * 1024 * 1024}\r\n\r\n"
            writer.write(head.encode() + b"x" * 65_536)
            async with asyncio.timeout(5):
                status = await reader.readline()
                assert status in {b"HTTP/1.1 405 Method Not Allowed\r\n", b"HTTP/1.1 413 Request Entity Too Large\r\n"}
            assert await closed(reader)
            writer.close()


async def test_a_header_that_is_too_large_is_cut() -> None:
    async with serving(hub := Hub()) as address:
        answer = await ask(address, get("/healthz", extra=f"X-Long: {'x' * 20_000}\r\n"))
        assert answer.split()[1] == b"400"
        reader, writer = await connect(address)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: y\r\n" * (MAX_HEAD_BYTES // 10))
        assert await closed(reader)
        writer.close()
        assert hub.counters().connections_cut == 1
        assert (await ask(address, get("/healthz"))).startswith(b"HTTP/1.1 200")


GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"\xff\xfe /\r\n\r\n")


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_answered_with_400_and_the_server_lives(garbage: bytes) -> None:
    async with serving(Hub()) as address:
        await ask(address, garbage + b"\r\n\r\n")
        assert (await ask(address, get("/healthz"))).startswith(b"HTTP/1.1 200")


async def test_slow_headers_are_cut_and_do_not_delay_a_health_check() -> None:
    hub = Hub()
    async with serving(hub, header_timeout_s=2.0) as address, AsyncExitStack() as stack:
        slow = [await connect(address) for _ in range(200)]
        for _, writer in slow:
            stack.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        await until(lambda: hub.counters().connections == 200)
        took_s = []
        for _ in range(5):
            started = time.perf_counter()
            assert (await ask(address, get("/healthz"))).startswith(b"HTTP/1.1 200")
            took_s.append(time.perf_counter() - started)
        # The criterion is 100 ms; the best of five, because the machine may be busy with something else.
        assert min(took_s) < 0.1
        assert all(await asyncio.gather(*(closed(reader) for reader, _ in slow)))
        await until(lambda: hub.counters().connections == 0)
        assert hub.counters().connections_cut == 200


async def test_connections_that_wait_make_room_for_a_newcomer() -> None:
    hub = Hub()
    async with serving(hub, max_connections=16) as address, AsyncExitStack() as stack:
        slow = [await connect(address) for _ in range(40)]
        for _, writer in slow:
            stack.callback(writer.close)
        await until(lambda: hub.counters().connections_cut >= 24)
        assert hub.counters().connections == 16
        assert (await ask(address, get("/healthz"))).startswith(b"HTTP/1.1 200")
        assert hub.counters().connections_refused == 0


async def test_when_every_place_is_busy_the_newcomer_is_refused_and_counted() -> None:
    hub = Hub()
    async with serving(hub, max_connections=8) as address, aiohttp.ClientSession(address) as session, AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(session.ws_connect("/api/v1/stream"))
        reader, writer = await connect(address)
        assert await closed(reader)
        writer.close()
        assert hub.counters().connections_refused == 1
        assert hub.counters().connections == 8


async def test_a_client_that_does_not_take_its_answer_is_cut() -> None:
    _, hub = published(seconds=200)
    async with serving(hub, response_timeout_s=0.5, keepalive_timeout_s=0.5) as address:
        parts = urlsplit(address)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, (parts.hostname, parts.port))
            # Many answers of some 200 KB are more than the buffers in between hold.
            request = b"GET /api/v1/markets/hyperliquid/BTC/history?columns=720&seconds=600 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(raw, request * 60)
            await until(lambda: hub.counters().connections_cut == 1)
            assert (await ask(address, get("/healthz"))).startswith(b"HTTP/1.1 200")


async def test_idle_connections_are_closed_and_kept_ones_are_reused() -> None:
    hub = Hub()
    async with serving(hub, keepalive_timeout_s=0.3) as address:
        reader, writer = await connect(address)
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(5):
                assert await reader.readuntil(b"}") != b""
        assert hub.counters().connections == 1
        assert await closed(reader)
        writer.close()


async def test_with_a_password_only_the_probes_are_open() -> None:
    _, hub = published()
    async with client(hub, password="correct horse") as session:
        for path in ("/", "/metrics", "/api/v1/markets", "/static/main.js", "/api/v1/openapi.json", "/nothing"):
            async with session.get(path) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Basic")
        assert (await session.post("/api/v1/alerts")).status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect("/api/v1/stream")
        assert (await session.get("/healthz")).status == 200
        assert (await session.get("/readyz")).status == 200
        headers = {"Authorization": "Basic " + base64.b64encode(b"liqmon:correct horse").decode()}
        assert (await session.get("/metrics", headers=headers)).status == 200
        assert (await session.ws_connect("/api/v1/stream", headers=headers)).closed is False


async def test_a_taken_port_is_reported_and_nothing_is_left_running() -> None:
    async with serving(Hub()) as address:
        server = WebServer(Hub(), HttpSettings(port=urlsplit(address).port or 0))
        with pytest.raises(OSError, match="address already in use"):
            await server.start()
        await server.stop()


async def test_stopping_says_goodbye_to_streams_and_frees_the_port() -> None:
    server = WebServer(Hub(), HttpSettings(port=0))
    await server.start()
    port = server.port
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, session.ws_connect("/api/v1/stream") as stream:
        await stream.receive_json()
        stopping = asyncio.create_task(server.stop())
        async with asyncio.timeout(5):
            async for _ in stream:
                pass
            await stopping
        assert stream.close_code == aiohttp.WSCloseCode.GOING_AWAY
    again = WebServer(Hub(), HttpSettings(port=port))
    await again.start()
    await again.stop()
