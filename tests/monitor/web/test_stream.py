"""The WebSocket stream, over a real connection."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from monitor.web.hub import Hub
from monitor.web.stream import MAX_MESSAGE_BYTES
from tests.monitor.web.builder import World, alert
from tests.monitor.web.running import Clock, client, published, serving, until

STREAM = "/api/v1/stream"
Socket = aiohttp.ClientWebSocketResponse


async def receive(stream: Socket, type_: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Return the next message of a type."""
    async with asyncio.timeout(timeout_s):
        while True:
            message: dict[str, Any] = await stream.receive_json()
            if message["type"] == type_:
                return message


async def test_a_client_is_greeted_and_told_the_state() -> None:
    _, hub = published()
    hub.publish_alerts([alert()], (alert(),))
    async with client(hub) as session, session.ws_connect(STREAM) as stream:
        hello = await stream.receive_json()
        assert hello["type"] == "hello"
        assert hello["markets"] == ["hyperliquid/BTC", "hyperliquid/ETH", "hyperliquid/xyz:TSLA"]
        assert (hello["instance"], hello["simulated"]) == ("desk-1", False)
        assert len((await receive(stream, "markets"))["markets"]) == 3
        assert (await receive(stream, "status"))["daemon"]["instance"] == "desk-1"
        assert (await receive(stream, "alerts"))["firing"][0]["name"] == "ClusterNear"


async def test_a_followed_market_is_sent_as_the_api_says_it() -> None:
    world, hub = published()
    async with client(hub, stream_interval_s=0.05) as session, session.ws_connect(STREAM) as stream:
        await stream.send_json({"subscribe": ["hyperliquid/xyz:TSLA"]})
        message = await receive(stream, "market")
        answer = await (await session.get("/api/v1/markets/hyperliquid/xyz:TSLA")).json()
        assert message.pop("histogram_known") is True
        for fields in (message, answer):
            fields.pop("evaluation_age_s")
        assert {name: value for name, value in message.items() if name != "type"} == {
            name: value for name, value in answer.items() if name != "histogram"
        }
        hub.publish(world.step())
        sample = await receive(stream, "sample")
        assert sample["samples"]["price"] == [world.markets[2].price]


async def test_states_are_conflated_to_the_rate_and_the_last_one_arrives() -> None:
    world, hub = published()
    async with client(hub, stream_interval_s=0.2) as session, session.ws_connect(STREAM) as stream:
        await stream.send_json({"subscribe": ["hyperliquid/BTC"]})
        await receive(stream, "market")
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(60):
            hub.publish(world.step(0.01))
            await asyncio.sleep(0.01)
        received, last = 0, None
        while last != world.now_ns:
            last = (await receive(stream, "market"))["as_of_ns"]
            received += 1
        assert received <= (loop.time() - started) / 0.2 + 1


async def test_something_is_said_every_second_even_when_nothing_is_published() -> None:
    _, hub = published()
    async with client(hub) as session, session.ws_connect(STREAM) as stream:
        await receive(stream, "markets")
        loop = asyncio.get_running_loop()
        started = loop.time()
        await receive(stream, "markets")
        assert loop.time() - started < 1.9


async def test_a_stopped_evaluation_makes_followed_markets_stale_without_being_asked() -> None:
    clock = Clock()
    _, hub = published(monotonic=clock)
    async with client(hub) as session, session.ws_connect(STREAM) as stream:
        await stream.send_json({"subscribe": ["hyperliquid/BTC"]})
        assert not (await receive(stream, "market"))["stale"]
        clock.seconds += 60
        message = await receive(stream, "market")
        assert (message["stale"], message["stale_reasons"]) == (True, ["no new evaluation for more than 10 s"])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("nonsense", "bad_message"),
        ('{"subscribe": "hyperliquid/BTC"}', "bad_message"),
        ('{"subscribe": [1]}', "bad_message"),
        ('{"unsubscribe": []}', "bad_message"),
        ('{"subscribe": [], "more": 1}', "bad_message"),
        ("[" * 10_000, "bad_message"),
        ('{"subscribe": ["hyperliquid/NOPE"]}', "unknown_market"),
        (json.dumps({"subscribe": [f"hyperliquid/COIN{index}" for index in range(17)]}), "too_many_markets"),
    ],
)
async def test_a_wrong_message_is_answered_and_the_stream_goes_on(sent: str, code: str) -> None:
    _, hub = published()
    async with client(hub, stream_interval_s=0.05) as session, session.ws_connect(STREAM) as stream:
        await stream.send_str(sent)
        assert (await receive(stream, "error"))["error"]["code"] == code
        await stream.send_json({"subscribe": ["hyperliquid/ETH"]})
        assert (await receive(stream, "market"))["symbol"] == "ETH"


async def test_a_message_that_is_too_large_or_binary_ends_the_stream() -> None:
    _, hub = published()
    async with client(hub) as session:
        async with session.ws_connect(STREAM) as stream:
            await stream.send_str("x" * (MAX_MESSAGE_BYTES + 1))
            async with asyncio.timeout(5):
                async for _ in stream:
                    pass
            assert stream.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        async with session.ws_connect(STREAM) as stream:
            await stream.send_bytes(b"\x00")
            async with asyncio.timeout(5):
                async for _ in stream:
                    pass
            assert stream.close_code == aiohttp.WSCloseCode.UNSUPPORTED_DATA


async def test_a_client_that_floods_is_shut_out() -> None:
    _, hub = published()
    async with client(hub) as session, session.ws_connect(STREAM) as stream:
        for _ in range(61):
            await stream.send_json({"subscribe": []})
        async with asyncio.timeout(5):
            async for _ in stream:
                pass
        assert stream.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_there_is_a_place_for_so_many_streams_only() -> None:
    _, hub = published()
    async with client(hub, max_stream_clients=2) as session:
        async with session.ws_connect(STREAM) as one, session.ws_connect(STREAM) as two:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(STREAM)
            assert caught.value.status == 503
            assert hub.counters().stream_clients_refused == 1
            assert not one.closed
            assert not two.closed
        await until(lambda: hub.counters().stream_clients == 0)
        async with session.ws_connect(STREAM) as stream:
            await receive(stream, "hello")


def large(world: World) -> Any:
    """Return a projection whose first market is several megabytes, so that buffers fill quickly."""
    projection = world.step()
    market = projection.markets[0]
    assert market.cascade_down is not None
    cascade = msgspec.structs.replace(market.cascade_down, barrier=market.cascade_down.barrier * 500)
    return msgspec.structs.replace(
        projection, markets=(msgspec.structs.replace(market, cascade_down=cascade), *projection.markets[1:])
    )


async def test_a_client_that_does_not_read_is_cut_and_others_are_not_delayed() -> None:
    world, hub = published()
    settings = {"stream_interval_s": 0.05, "stream_send_timeout_s": 0.5}
    async with serving(hub, **settings) as address, aiohttp.ClientSession(address) as session:
        parts = urlsplit(address)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (parts.hostname, parts.port))
            key = base64.b64encode(os.urandom(16)).decode()
            request = (
                f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            )
            await loop.sock_sendall(deaf, request.encode())
            await until(lambda: hub.counters().stream_clients == 1)
            # A masked text frame with a zero mask is the text itself.
            text = b'{"subscribe": ["hyperliquid/BTC"]}'
            await loop.sock_sendall(deaf, bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            async with session.ws_connect(STREAM) as stream:
                await stream.send_json({"subscribe": ["hyperliquid/ETH"]})
                await receive(stream, "market")
                longest_s = 0.0
                async with asyncio.timeout(20):
                    while hub.counters().stream_clients_cut == 0:
                        hub.publish(large(world))
                        published_s = loop.time()
                        while (await receive(stream, "market"))["as_of_ns"] != world.now_ns:
                            pass
                        longest_s = max(longest_s, loop.time() - published_s)
                assert longest_s < 0.5
                assert hub.counters().stream_clients == 1
                assert not stream.closed


async def test_a_client_whose_events_overflow_is_cut() -> None:
    _, hub = published()
    async with client(hub, stream_interval_s=0.05) as session, session.ws_connect(STREAM) as stream:
        await receive(stream, "hello")
        for number in range(300):
            hub.publish_alerts([alert(f"Rule{number}")], ())
        await until(lambda: hub.counters().stream_clients_cut == 1)


async def test_an_empty_hub_can_be_followed() -> None:
    hub = Hub()
    async with client(hub, stream_interval_s=0.05) as session, session.ws_connect(STREAM) as stream:
        assert (await receive(stream, "hello"))["markets"] == []
        assert (await receive(stream, "status"))["ready"] is False
        world = World()
        hub.publish(world.step())
        message = await receive(stream, "markets")
        while not message["markets"]:
            message = await receive(stream, "markets")
        assert len(message["markets"]) == 3
