"""One websocket: how it opens, fails to open, and ends."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from connectors.link import LinkClosedError, LinkRefusedError, open_websocket
from connectors.live import ReconnectPolicy
from tests.connectors.loopback import (
    QUICK,
    plan_of,
    serving,
)


async def test_refusals_carry_the_status_and_the_wait_that_the_server_asks_for() -> None:
    def process_request(peer: ServerConnection, request: Request) -> Response:
        response = peer.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down")
        response.headers["Retry-After"] = "120"
        response.headers["Retry-After"] = "7"
        return response

    async def handler(peer: ServerConnection) -> None:
        raise AssertionError("not reached")

    async with serving(handler, process_request=process_request) as url:
        with pytest.raises(LinkRefusedError) as refusal:
            async with open_websocket(plan_of(url), QUICK):
                raise AssertionError("not reached")
    assert (refusal.value.status, refusal.value.retry_after, refusal.value.fatal) == (429, "120", False)


async def test_unreachable_peers_are_told_apart() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.0\r\n")
        writer.close()

    async def reason(url: str) -> tuple[str, bool]:
        with pytest.raises(LinkRefusedError) as refusal:
            async with open_websocket(plan_of(url), ReconnectPolicy(open_timeout_s=0.3)):
                raise AssertionError("not reached")
        assert "secret" not in str(refusal.value)
        return refusal.value.reason, refusal.value.fatal

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert await reason(f"ws://127.0.0.1:{port}/secret") == ("unreachable", False)
    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await reason(f"ws://127.0.0.1:{port}/secret") == ("timeout", False)
    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await reason(f"ws://127.0.0.1:{port}/secret") == ("handshake", False)
        assert await reason(f"wss://127.0.0.1:{port}/secret") == ("tls", False)
    assert await reason("http://127.0.0.1/secret") == ("bad_address", True)
    assert await reason("ws://127.0.0.1:99999999/secret") == ("bad_address", True)


async def test_link_names_the_end_for_every_way_of_using_it() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.close(1012)

    async with serving(handler) as url, open_websocket(plan_of(url), QUICK) as link:
        for use in (link.receive, lambda: link.send(b"x"), link.ping):
            with pytest.raises(LinkClosedError) as closed:
                await use()
            assert closed.value.reason == "closed_1012"
            assert isinstance(closed.value.__cause__, ConnectionClosed)
        assert link.is_closing()
