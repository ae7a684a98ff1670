"""Live connections against real servers on loopback, and against a scripted link on virtual time where hours have to pass."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import pairwise

import msgspec
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event

from connectors.frames import Frame
from connectors.link import Link, LinkClosedError, LinkRefusedError, OpenLink, open_websocket
from connectors.live import LiveConnection, ReconnectPolicy
from connectors.venue import ConnectionPlan, Heartbeat
from tests.connectors.plain_venue import PlainVenue
from tests.virtual_time import VirtualTimeLoop, run_in_virtual_time

BOOK = b'{"channel":"book.BTC","bids":[]}'
MARK = b'{"channel":"mark.BTC","price":"100"}'

QUICK = ReconnectPolicy(
    base_delay_s=0.01,
    max_delay_s=0.02,
    attempts_per_minute=1000,
    ping_interval_s=None,
    close_timeout_s=0.1,
    rate_limited_delay_s=0.05,
    banned_delay_s=0.05,
    failed_delay_s=0.05,
)
"""Real time, so that tests against real servers need no patience."""

Handler = Callable[[ServerConnection], Awaitable[None]]


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait for ``condition``, which nothing announces."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(handler: Handler, **options: object) -> AsyncIterator[str]:
    """Serve ``handler`` on a free port and give the URL."""
    server: Server
    async with serve(handler, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"


@asynccontextmanager
async def running(connection: LiveConnection) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connection.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make(
    plan: ConnectionPlan,
    frames: list[Frame],
    policy: ReconnectPolicy = QUICK,
    *,
    open_link: OpenLink = open_websocket,
    resubscribe: Callable[[str], bytes | None] | None = None,
) -> LiveConnection:
    return LiveConnection(
        venue=PlainVenue(), plan=plan, deliver=frames.append, seed=1, policy=policy, open_link=open_link, resubscribe=resubscribe
    )


def plan_of(
    url: str = "ws://127.0.0.1:9/ws",
    *,
    subscribe: tuple[bytes, ...] = (),
    expected: dict[str, float | None] | None = None,
    heartbeat: Heartbeat | None = None,
    max_message_bytes: int = 1024 * 1024,
) -> ConnectionPlan:
    return ConnectionPlan(
        name="market",
        url=url,
        subscribe=subscribe,
        expected=expected or {},
        heartbeat=heartbeat,
        max_message_bytes=max_message_bytes,
    )


def gaps(frames: list[Frame]) -> int:
    return sum(frame.payload is None for frame in frames)


# --- real servers -------------------------------------------------------------------------------------------------------


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


async def test_reconnect_can_be_asked_for_from_outside() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(BOOK.decode())
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url:
        connection = make(plan_of(url), frames)
        connection.reconnect("too early to mean anything")
        async with running(connection):
            await until(lambda: len(frames) == 1)
            connection.reconnect("book_resync")
            connection.reconnect("asked twice")
            await until(lambda: len(frames) == 3)
            status = connection.health()
    assert [frame.payload for frame in frames[:3]] == [BOOK, None, BOOK]
    assert status.disconnects == {"book_resync": 1}


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


# --- virtual time -------------------------------------------------------------------------------------------------------


class ScriptedLink:
    """A peer in memory: delivers what a test puts into it, remembers what it is sent."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | LinkClosedError] = asyncio.Queue()
        self.sent: list[tuple[float, bytes]] = []
        self.answers_pings = True
        self.pings = 0

    async def receive(self) -> bytes:
        item = await self.inbox.get()
        if isinstance(item, LinkClosedError):
            raise item
        return item

    async def send(self, payload: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), payload))

    async def ping(self) -> None:
        self.pings += 1
        if not self.answers_pings:
            await asyncio.get_running_loop().create_future()

    def is_closing(self) -> bool:
        return False

    async def close(self) -> None:
        pass


class ScriptedPeer:
    """Opens scripted links, or refuses, and notes when."""

    def __init__(self, on_open: Callable[[ScriptedLink], None] | None = None) -> None:
        self.links: list[ScriptedLink] = []
        self.attempts_s: list[float] = []
        self.refusal: LinkRefusedError | None = None
        self._on_open = on_open

    @asynccontextmanager
    async def open(self, plan: ConnectionPlan, policy: ReconnectPolicy) -> AsyncIterator[Link]:
        self.attempts_s.append(asyncio.get_running_loop().time())
        if self.refusal is not None:
            raise self.refusal
        link = ScriptedLink()
        self.links.append(link)
        if self._on_open is not None:
            self._on_open(link)
        yield link


async def repeat(peer: ScriptedPeer, message: bytes, every_s: float, *, for_s: float) -> None:
    """Let whatever link is open deliver ``message`` at a steady pace."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + for_s
    while loop.time() < end_s:
        if peer.links:
            peer.links[-1].inbox.put_nowait(message)
        await asyncio.sleep(every_s)


def test_quiet_channels_cause_no_reconnect_in_half_an_hour() -> None:
    """Fault 8: what may be silent is left alone as long as pings are answered."""

    async def scenario() -> None:
        frames: list[Frame] = []
        peer = ScriptedPeer()
        plan = plan_of(subscribe=(b"sub",), expected={"liquidations": None, "trades.BTC": None, "mark.BTC": 5.0})
        connection = make(plan, frames, ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await asyncio.sleep(1.0)
            await repeat(peer, MARK, 3.0, for_s=1800.0)
            status = connection.health()
        assert (status.connects, status.disconnects, status.state, status.silent_channels) == (1, {}, "connected", ())
        assert status.messages == 600
        assert peer.links[0].pings == 90

    run_in_virtual_time(scenario())


def test_raw_stream_to_which_nothing_was_sent_owes_nothing() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        connection = make(plan_of(expected={"liquidations": None}), [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await asyncio.sleep(3600.0)
            assert (connection.health().connects, connection.health().state) == (1, "connected")

    run_in_virtual_time(scenario())


def test_subscription_without_any_answer_is_given_up_after_the_first_message_deadline() -> None:
    async def scenario() -> None:
        frames: list[Frame] = []
        peer = ScriptedPeer()
        connection = make(
            plan_of(subscribe=(b"sub",), expected={"liquidations": None}), frames, ReconnectPolicy(), open_link=peer.open
        )
        async with running(connection):
            await asyncio.sleep(25.5)
            assert gaps(frames) == 1
            assert connection.health().disconnects == {"no_first_message": 1}

    run_in_virtual_time(scenario())


def test_some_silent_channels_degrade_are_asked_for_again_and_reconnected_ever_more_patiently() -> None:
    """Fault 11: one of several is dead for good; it is visible and retried, and the others are not torn down for it too often."""

    async def scenario() -> None:
        frames: list[Frame] = []
        peer = ScriptedPeer()
        plan = plan_of(subscribe=(b"sub",), expected={"book.BTC": 10.0, "mark.BTC": 10.0})
        connection = make(plan, frames, ReconnectPolicy(), open_link=peer.open, resubscribe=lambda key: f"again {key}".encode())
        async with running(connection):
            feed = asyncio.create_task(repeat(peer, MARK, 1.0, for_s=4000.0))
            await asyncio.sleep(5.0)
            assert connection.health().state == "connected"
            assert connection.health().detail == "1 channels have not sent anything yet"
            await asyncio.sleep(7.0)
            status = connection.health()
            assert (status.state, status.silent_channels) == ("degraded", ("book.BTC",))
            assert "book.BTC" in status.detail
            await feed
            status = connection.health()
        first = [payload for _, payload in peer.links[0].sent]
        assert first == [b"sub", b"again book.BTC", b"again book.BTC", b"again book.BTC"]
        held_s = [later - earlier for earlier, later in pairwise(peer.attempts_s)]
        # 3, 6, 12 ... periods of 10 s, one more in which silence is normal, and a jittered delay below its cap.
        for index, span_s in enumerate(held_s):
            least_s = 10.0 * (1 + 3 * min(2**index, 32))
            assert least_s <= span_s <= least_s + 65.0
        assert status.disconnects == {"partly_silent": len(held_s)}
        assert len(held_s) >= 6

    run_in_virtual_time(scenario())


def test_channel_that_returns_ends_the_degradation() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        plan = plan_of(subscribe=(b"sub",), expected={"book.BTC": 10.0, "mark.BTC": 10.0})
        connection = make(plan, [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            feed = asyncio.create_task(repeat(peer, MARK, 1.0, for_s=60.0))
            await asyncio.sleep(15.0)
            assert connection.health().state == "degraded"
            peer.links[0].inbox.put_nowait(BOOK)
            await asyncio.sleep(2.0)
            assert (connection.health().state, connection.health().silent_channels) == ("connected", ())
            feed.cancel()

    run_in_virtual_time(scenario())


def test_heartbeats_and_acks_are_not_data() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        connection = make(plan_of(subscribe=(b"sub",), expected={"book.BTC": 30.0}), [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await repeat(peer, b'{"method":"pong"}', 1.0, for_s=32.0)
            assert connection.health().disconnects == {"silent": 1}

    run_in_virtual_time(scenario())


def test_refused_for_ten_minutes_backs_off_with_jitter_within_the_limit_and_recovers_within_one_cap() -> None:
    """Fault 10."""

    async def scenario(reason: LinkRefusedError) -> None:
        frames: list[Frame] = []
        peer = ScriptedPeer()
        peer.refusal = reason
        connection = make(plan_of(), frames, ReconnectPolicy(), open_link=peer.open)
        async with running(connection) as task:
            await asyncio.sleep(600.0)
            assert not task.done()
            assert connection.health().state in {"waiting", "connecting"}
            assert connection.health().failures == {reason.reason: len(peer.attempts_s)}
            peer.refusal = None
            await asyncio.sleep(60.5)
            assert connection.health().state == "connected"
        attempts_s = peer.attempts_s
        assert all(sum(start_s <= moment_s < start_s + 60.0 for moment_s in attempts_s) <= 6 for start_s in attempts_s)
        spans_s = [later - earlier for earlier, later in pairwise(attempts_s)]
        assert max(spans_s) <= 60.0
        assert len({round(span_s, 3) for span_s in spans_s}) > len(spans_s) // 2
        assert gaps(frames) == 1

    run_in_virtual_time(scenario(LinkRefusedError("http_503", "maintenance", status=503)))
    run_in_virtual_time(scenario(LinkRefusedError("dns", "no such host")))


@pytest.mark.parametrize(
    ("refusal", "least_s", "most_s"),
    [
        (LinkRefusedError("http_503", "", status=503, retry_after="90"), 90.0, 91.0),
        (LinkRefusedError("http_503", "", status=503, retry_after="Mon, 01 Jan 2024 12:02:00 GMT"), 120.0, 121.0),
        (LinkRefusedError("http_429", "", status=429), 60.0, 60.0),
        (LinkRefusedError("http_429", "", status=429, retry_after="200"), 200.0, 201.0),
        (LinkRefusedError("http_418", "", status=418), 300.0, 300.0),
        (LinkRefusedError("http_418", "", status=418, retry_after="900"), 900.0, 901.0),
        (LinkRefusedError("http_401", "", status=401, fatal=True), 300.0, 300.0),
        (LinkRefusedError("bad_address", "", fatal=True), 300.0, 300.0),
        (LinkRefusedError("unreachable", ""), 0.0, 1.0),
    ],
    ids=lambda value: f"{value.reason}-{value.retry_after}" if isinstance(value, LinkRefusedError) else "",
)
def test_next_attempt_waits_as_long_as_the_refusal_calls_for(refusal: LinkRefusedError, least_s: float, most_s: float) -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        peer.refusal = refusal
        connection = LiveConnection(
            venue=PlainVenue(),
            plan=plan_of(),
            deliver=lambda frame: None,
            seed=1,
            open_link=peer.open,
            clock_ns=lambda: 1_704_110_400_000_000_000,
        )
        async with running(connection):
            await asyncio.sleep(0.1)
            assert connection.health().state == ("failed" if refusal.fatal else "waiting")
            await asyncio.sleep(most_s + 1.0)
        assert least_s <= round(peer.attempts_s[1] - peer.attempts_s[0], 6) <= most_s

    run_in_virtual_time(scenario())


def test_backoff_starts_again_only_after_a_minute_of_data() -> None:
    async def spans(lived_s: float) -> list[float]:
        opened: asyncio.Queue[ScriptedLink] = asyncio.Queue()
        peer = ScriptedPeer(on_open=opened.put_nowait)
        policy = ReconnectPolicy(attempts_per_minute=1000)
        connection = make(plan_of(expected={"mark.BTC": 20.0}), [], policy, open_link=peer.open)
        waits_s: list[float] = []
        async with running(connection):
            for _ in range(40):
                link = await opened.get()
                await repeat(peer, MARK, 1.0, for_s=lived_s)
                link.inbox.put_nowait(LinkClosedError("closed_1006", ""))
                lost_s = asyncio.get_running_loop().time()
                link = await opened.get()
                waits_s.append(asyncio.get_running_loop().time() - lost_s)
                opened.put_nowait(link)
        return waits_s

    assert max(run_in_virtual_time(spans(70.0))) <= 1.1
    assert max(run_in_virtual_time(spans(30.0))) > 30.0


def test_acks_alone_do_not_make_a_connection_healthy() -> None:
    """A wrong route that acks for longer than a minute must not be asked every second."""

    async def scenario() -> None:
        peer = ScriptedPeer()
        connection = make(plan_of(subscribe=(b"sub",), expected={"book.BTC": 90.0}), [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await repeat(peer, b'{"result":null}', 5.0, for_s=7200.0)
        spans_s = [later - earlier for earlier, later in pairwise(peer.attempts_s)]
        assert max(spans_s) > 130.0

    run_in_virtual_time(scenario())


def test_late_pong_behind_a_burst_is_no_reason_to_leave() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer(on_open=lambda link: setattr(link, "answers_pings", False))
        connection = make(plan_of(expected={"mark.BTC": 60.0}), [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await repeat(peer, MARK, 1.0, for_s=600.0)
            assert connection.health().disconnects == {}
            # One ping waits; none pile up behind it.
            assert peer.links[0].pings == 1
            await asyncio.sleep(21.0)
            assert connection.health().disconnects == {"ping_timeout": 1}

    run_in_virtual_time(scenario())


def test_standstill_of_this_process_is_not_taken_for_silence_of_the_venue() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        connection = make(plan_of(expected={"mark.BTC": 10.0}), [], ReconnectPolicy(), open_link=peer.open)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        async with running(connection):
            await repeat(peer, MARK, 1.0, for_s=30.0)
            loop.advance(120.0)
            await asyncio.sleep(5.0)
            await repeat(peer, MARK, 1.0, for_s=30.0)
            assert connection.health().disconnects == {}

    run_in_virtual_time(scenario())


def test_requests_to_reconnect_cannot_storm_the_venue() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        connection = make(plan_of(), [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            for _ in range(6000):
                connection.reconnect("book_resync")
                await asyncio.sleep(0.1)
        attempts_s = peer.attempts_s
        assert all(sum(start_s <= moment_s < start_s + 60.0 for moment_s in attempts_s) <= 6 for start_s in attempts_s)

    run_in_virtual_time(scenario())


def test_heartbeat_waits_for_the_interval_after_whatever_was_sent_last() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        plan = plan_of(
            subscribe=(b"sub",),
            expected={"book.BTC": 30.0, "mark.BTC": 30.0},
            heartbeat=Heartbeat(interval_s=20.0, payload=b"ping"),
        )
        connection = make(plan, [], ReconnectPolicy(), open_link=peer.open, resubscribe=lambda key: b"again")
        async with running(connection):
            await repeat(peer, MARK, 1.0, for_s=55.0)
        sent = [(round(moment_s), payload) for moment_s, payload in peer.links[0].sent]
        assert sent == [(0, b"sub"), (20, b"ping"), (31, b"again"), (51, b"ping")]

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("field", ["attempts_per_minute", "silent_periods"])
def test_policy_that_would_never_connect_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        msgspec.structs.replace(ReconnectPolicy(), **{field: 0})


def test_same_seed_gives_the_same_delays() -> None:
    async def attempts(seed: int) -> list[float]:
        peer = ScriptedPeer()
        peer.refusal = LinkRefusedError("unreachable", "")
        connection = LiveConnection(venue=PlainVenue(), plan=plan_of(), deliver=lambda frame: None, seed=seed, open_link=peer.open)
        async with running(connection):
            await asyncio.sleep(300.0)
        return peer.attempts_s

    assert run_in_virtual_time(attempts(1)) == run_in_virtual_time(attempts(1)) != run_in_virtual_time(attempts(2))


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
