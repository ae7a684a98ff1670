"""Live connections against real servers on loopback."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from itertools import pairwise

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event

from connectors.frames import Frame
from connectors.live import LiveConnection, ReconnectPolicy
from connectors.venue import Heartbeat
from tests.connectors.loopback import (
    BOOK,
    QUICK,
    gaps,
    make,
    plan_of,
    running,
    serving,
    until,
)
from tests.connectors.plain_venue import PlainVenue


async def test_subscriptions_go_out_in_order_and_messages_come_in_stamped_to_100_ns() -> None:
    received: list[str | bytes] = []

    async def handler(peer: ServerConnection) -> None:
        received.append(await peer.recv())
        received.append(await peer.recv())
        await peer.send("Websocket connection established.")
        await peer.send(BOOK.decode())
        await peer.send(b"\x00\xff binary")
        await peer.wait_closed()

    frames: list[Frame] = []
    stamps = iter([1_700_000_000_123_456_789, 1_700_000_000_123_456_900, 1_700_000_000_123_457_001, 1_700_000_001_000_000_000])
    async with serving(handler) as url:
        connection = LiveConnection(
            venue=PlainVenue(),
            plan=plan_of(url, subscribe=(b'{"op":"first"}', b'{"op":"second"}')),
            deliver=frames.append,
            seed=1,
            policy=QUICK,
            clock_ns=lambda: next(stamps),
        )
        async with running(connection):
            await until(lambda: len(frames) == 3)
            status = connection.health()
    assert received == ['{"op":"first"}', '{"op":"second"}']
    assert frames[:3] == [
        Frame("plain", "market", 1_700_000_000_123_456_700, b"Websocket connection established."),
        Frame("plain", "market", 1_700_000_000_123_456_900, BOOK),
        Frame("plain", "market", 1_700_000_000_123_457_000, b"\x00\xff binary"),
    ]
    assert (status.state, status.connects, status.messages, status.bytes) == ("connected", 1, 3, 33 + len(BOOK) + 9)
    assert status.last_message_ns == 1_700_000_000_123_457_000
    # Stopping loses the connection too.
    assert frames[3:] == [Frame("plain", "market", 1_700_000_001_000_000_000, None)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, "closed_1000"), (1001, "closed_1001"), (1012, "closed_1012"), (4321, "closed_other")],
)
async def test_closed_by_the_server_means_one_gap_then_everything_is_subscribed_again(code: int, reason: str) -> None:
    subscriptions: list[str | bytes] = []

    async def handler(peer: ServerConnection) -> None:
        subscriptions.append(await peer.recv())
        await peer.send(BOOK.decode())
        if len(subscriptions) == 1:
            await peer.close(code)
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url, subscribe=(b"sub",)), frames)
        async with running(connection):
            await until(lambda: len(frames) == 3)
            status = connection.health()
    assert subscriptions == ["sub", "sub"]
    assert [frame.payload for frame in frames[:3]] == [BOOK, None, BOOK]
    assert (status.connects, status.disconnects, status.state) == (2, {reason: 1}, "connected")


async def test_connection_cut_without_a_close_frame_is_1006() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        peer.transport.abort()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url), frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 3)
            status = connection.health()
    assert [frame.payload for frame in frames[:4]] == [BOOK, None, BOOK, None]
    assert status.disconnects["closed_1006"] >= 3


async def test_heartbeat_is_sent_when_nothing_else_was_for_its_interval() -> None:
    received: list[tuple[float, str | bytes]] = []
    loop = asyncio.get_running_loop()

    async def handler(peer: ServerConnection) -> None:
        async for message in peer:
            received.append((loop.time(), message))
            await peer.send("pong")

    frames: list[Frame] = []
    async with serving(handler) as url:
        plan = plan_of(url, subscribe=(b"sub",), heartbeat=Heartbeat(interval_s=0.1, payload=b'{"method":"ping"}'))
        async with running(make(plan, frames)):
            await until(lambda: len(received) == 4)
    assert [message for _, message in received] == ["sub"] + ['{"method":"ping"}'] * 3
    assert all(later[0] - earlier[0] > 0.09 for earlier, later in pairwise(received))


async def test_connected_and_answering_pings_but_without_any_data_is_reconnected() -> None:
    """A wrong route acks and pongs and delivers nothing (fault 7)."""

    async def handler(peer: ServerConnection) -> None:
        async for _ in peer:
            await peer.send('{"result":null,"id":1}')

    frames: list[Frame] = []
    async with serving(handler) as url:
        plan = plan_of(
            url,
            subscribe=(b"sub",),
            expected={"book.BTC": 0.2, "mark.BTC": 0.1, "liquidations": None},
            heartbeat=Heartbeat(interval_s=0.05, payload=b"ping"),
        )
        connection = make(plan, frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 2)
            status = connection.health()
    assert status.disconnects == {"silent": 2}


async def test_half_open_connection_is_given_up_within_ping_and_timeout() -> None:
    """The peer completed the upgrade and then went silent without a word (fault 6)."""

    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        peer.transport.pause_reading()
        await stop.wait()

    stop = asyncio.Event()
    policy = ReconnectPolicy(
        base_delay_s=0.01, attempts_per_minute=1000, ping_interval_s=0.2, ping_timeout_s=0.2, close_timeout_s=0.1
    )
    frames: list[Frame] = []
    async with serving(handler, close_timeout=0.1) as url:
        connection = make(plan_of(url), frames, policy)
        async with running(connection):
            await until(lambda: len(frames) == 1)
            await until(lambda: gaps(frames) == 1, within_s=0.4 + 1.0)
            await until(lambda: connection.health().connects == 2)
            status = connection.health()
        stop.set()
    assert status.disconnects == {"ping_timeout": 1}


async def test_answered_pings_keep_a_connection_that_has_nothing_to_say() -> None:
    pings = 0

    class Counting(ServerConnection):
        def process_event(self, event: Event) -> None:
            nonlocal pings
            pings += isinstance(event, WireFrame) and event.opcode is Opcode.PING
            super().process_event(event)

    async def handler(peer: ServerConnection) -> None:
        await peer.wait_closed()

    policy = ReconnectPolicy(ping_interval_s=0.01, ping_timeout_s=1.0, close_timeout_s=0.1)
    frames: list[Frame] = []
    async with serving(handler, create_connection=Counting) as url:
        connection = make(plan_of(url, expected={"liquidations": None}), frames, policy)
        async with running(connection):
            # The next ping is only sent when the one before was answered.
            await until(lambda: pings == 20)
            assert (connection.health().disconnects, connection.health().state) == ({}, "connected")
    assert gaps(frames) == 1  # of the stop


async def test_oversized_message_closes_with_1009_and_reconnects() -> None:
    codes: list[int | None] = []

    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        await peer.send("x" * 2000)
        await peer.wait_closed()
        codes.append(peer.close_code)

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url, max_message_bytes=1000), frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 2)
            status = connection.health()
    assert [frame.payload for frame in frames[:4]] == [BOOK, None, BOOK, None]
    assert codes[0] == 1009
    assert status.disconnects == {"oversized": 2}


async def test_oversized_message_in_fragments_is_no_way_around_the_limit() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(["x" * 400] * 10)
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url, max_message_bytes=1000), frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 1)
            assert connection.health().disconnects == {"oversized": 1}


async def test_compressed_bomb_is_refused_where_compression_is_allowed_at_all() -> None:
    offers: list[str | None] = []

    async def handler(peer: ServerConnection) -> None:
        assert peer.request is not None
        offers.append(peer.request.headers.get("Sec-WebSocket-Extensions"))
        await peer.send("x" * 10_000_000)
        await peer.wait_closed()

    for allowed in (False, True):
        frames: list[Frame] = []
        async with serving(handler) as url:
            policy = ReconnectPolicy(permessage_deflate=allowed, close_timeout_s=0.1)
            connection = make(plan_of(url, max_message_bytes=1000), frames, policy)
            async with running(connection):
                await until(lambda frames=frames: gaps(frames) == 1)  # type: ignore[misc]
                assert connection.health().disconnects == {"oversized": 1}
    assert offers[0] is None
    assert offers[-1] is not None


async def test_peer_that_ignores_our_close_is_left_all_the_same() -> None:
    """After 1009 a hostile peer keeps the transport open and reads nothing."""

    async def handler(peer: ServerConnection) -> None:
        peer.transport.write(bytes([0x81, 127]) + (2**40).to_bytes(8, "big"))
        peer.transport.pause_reading()
        await stop.wait()

    stop = asyncio.Event()
    frames: list[Frame] = []
    async with serving(handler, close_timeout=0.1) as url:
        connection = make(plan_of(url, expected={"book.BTC": 0.4}), frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 1, within_s=2.0)
            assert connection.health().disconnects == {"oversized": 1}
        stop.set()


async def test_broken_frames_end_the_connection_and_nothing_else() -> None:
    async def handler(peer: ServerConnection) -> None:
        peer.transport.write(bytes([0xFF, 0x00]))
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url), frames)
        async with running(connection):
            await until(lambda: gaps(frames) == 2)
            assert connection.health().disconnects == {"protocol_error": 2}


async def test_garbage_in_messages_is_handed_on_for_the_parser_to_judge() -> None:
    garbage = [b"", b"{", b'{"a":"\xff\xfe"}', b"\x00" * 50, b"[" * 2000, b'{"channel":"book.BTC"']

    async def handler(peer: ServerConnection) -> None:
        for message in garbage:
            await peer.send(message)
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url), frames)
        async with running(connection):
            await until(lambda: len(frames) == len(garbage))
            assert connection.health().disconnects == {}
    assert [frame.payload for frame in frames[:-1]] == garbage


async def test_error_of_the_receiver_is_a_bug_and_propagates() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        await peer.wait_closed()

    def deliver(frame: Frame) -> None:
        raise ZeroDivisionError("a bug of ours")

    async with serving(handler) as url:
        connection = LiveConnection(venue=PlainVenue(), plan=plan_of(url), deliver=deliver, seed=1, policy=QUICK)
        with pytest.raises(ZeroDivisionError, match="a bug of ours"):
            await asyncio.wait_for(connection.run(), 5.0)


@pytest.mark.parametrize(
    ("status", "state"), [(401, "failed"), (403, "failed"), (404, "failed"), (408, "waiting"), (429, "waiting"), (503, "waiting")]
)
async def test_refused_handshake_is_named_and_the_operators_fix_is_noticed(status: int, state: str) -> None:
    refusing = True

    def process_request(peer: ServerConnection, request: Request) -> Response | None:
        return peer.respond(HTTPStatus(status), "no\x1bentry\n") if refusing else None

    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler, process_request=process_request) as url:
        connection = make(plan_of(url), frames)
        async with running(connection):
            await until(lambda: connection.health().failures.get(f"http_{status}", 0) >= 1 and connection.health().state == state)
            detail = connection.health().detail
            refusing = False
            await until(lambda: len(frames) == 1)
            assert connection.health().state == "connected"
    assert f"http_{status}" in detail
    assert "no\\x1bentry" in detail
    assert gaps(frames) == 1  # of the stop: what never was open leaves no gap
