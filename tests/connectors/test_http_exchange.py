"""Answers of REST servers, and of what pretends to be one."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import closing, suppress

import pytest
from aiohttp import web

from connectors import http_exchange
from connectors.frames import Frame
from connectors.http_exchange import one_line_json
from connectors.rest import RestError, RestPolicy
from tests.connectors.rest_site import get, polling, serving


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a":1.50, "b":[1e3]}', b'{"a":1.50, "b":[1e3]}'),
        (b'{\n  "a": 1.50,\r\n  "b": "x\\ny"\n}\n', b'{"a":1.50,"b":"x\\ny"}'),
        (b"null", b"null"),
        ('{"name":"Zürich"}'.encode(), '{"name":"Zürich"}'.encode()),
        (b"123456789012345678901234567890\n", b"123456789012345678901234567890"),
    ],
)
def test_answers_are_kept_as_they_are_except_for_line_breaks(body: bytes, line: bytes) -> None:
    assert one_line_json(body) == line


@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b'{"a":1', b'{"a":NaN}', b'"\xff"', b'["a\nb"]', b"[" * 5000 + b"]" * 5000, b"{}{}"]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        one_line_json(body)


async def test_server_error_page_with_status_200_is_no_answer() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>busy</html>")

    frames: list[Frame] = []
    async with serving(page) as site, polling(site.url, frames) as poller:
        with pytest.raises(RestError, match="not JSON") as error:
            await poller.fetch(get("/a"))
        status = poller.health()
    assert error.value.retryable
    assert frames == []
    assert (status.errors, status.abandoned, status.requests) == ({"malformed": 3}, 1, 3)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "bomb"])
async def test_answer_beyond_the_size_limit_is_cut_off(compressed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "MAX_RESPONSE_BYTES", 1_000_000)

    async def huge(request: web.Request) -> web.Response:
        body = b'"' + b"x" * 5_000_000 + b'"'
        if compressed:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    async with serving(huge) as site, polling(site.url, []) as poller:
        with pytest.raises(RestError, match="more than") as error:
            await poller.fetch(get("/a"))
        assert not error.value.retryable
        assert poller.health().errors == {"oversized": 1}


async def test_broken_compression_and_cut_bodies_are_network_errors() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        if request.path == "/gzip":
            return web.Response(body=b"this is no gzip", headers={"Content-Encoding": "gzip"})
        if request.path == "/limited":
            return web.Response(status=404, body=b"this is no gzip", headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"a":')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(broken) as site, polling(site.url, []) as poller:
        for path in ("/gzip", "/cut"):
            with pytest.raises(RestError) as error:
                await poller.fetch(get(path))
            assert error.value.retryable
        # The status counts even where the text beside it cannot be read.
        with pytest.raises(RestError) as error:
            await poller.fetch(get("/limited"))
        assert error.value.status == 404
        assert poller.health().errors == {"network": 6, "404": 1}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"SSH-2.0-OpenSSH_9.0\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"ZZZ\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"f" * 100 + b"\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * 100_000 + b"\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 300\r\n\r\n\x1f\x8b\x08", b"\xff" * 290],
    ],
)
async def test_broken_protocol_is_a_passing_error(pieces: list[bytes]) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError), closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)  # so that the client reads the pieces one by one

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with polling(url, [], policy=RestPolicy(tries=1, total_timeout_s=0.4)) as poller:
            with pytest.raises(RestError) as error:
                await poller.fetch(get("/a"))
            assert error.value.retryable
            # A chunk that is broken in the middle of a body is not noticed by aiohttp; the timeout ends it.
            assert poller.health().errors in ({"network": 1}, {"timeout": 1})


async def test_redirects_are_not_followed() -> None:
    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with serving(away) as site, polling(site.url, []) as poller:
        with pytest.raises(RestError) as error:
            await poller.fetch(get("/a"))
        assert not error.value.retryable
        assert site.paths == ["/a"]


async def test_absent_server_is_tried_three_times_then_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with polling(f"http://127.0.0.1:{unused.getsockname()[1]}", []) as poller:
            with pytest.raises(RestError) as error:
                await poller.fetch(get("/a"))
            assert error.value.retryable
            assert "127.0.0.1" not in str(error.value)
            assert (poller.health().errors, poller.health().abandoned) == ({"network": 3}, 1)
