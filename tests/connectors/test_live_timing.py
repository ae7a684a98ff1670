"""Live connections over hours, against a peer in memory on virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest

from connectors.frames import Frame
from connectors.link import LinkClosedError, LinkRefusedError
from connectors.live import LiveConnection, ReconnectPolicy
from connectors.venue import Heartbeat
from tests.connectors.loopback import (
    BOOK,
    MARK,
    ScriptedLink,
    ScriptedPeer,
    gaps,
    make,
    plan_of,
    repeat,
    running,
)
from tests.connectors.plain_venue import PlainVenue
from tests.virtual_time import VirtualTimeLoop, run_in_virtual_time


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
        plan = plan_of(subscribe=(b"book", b"mark"), expected={"book.BTC": 10.0, "mark.BTC": 10.0})
        connection = make(plan, frames, ReconnectPolicy(), open_link=peer.open)
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
        assert first == [b"book", b"mark", b"book", b"book", b"book"]
        held_s = [later - earlier for earlier, later in pairwise(peer.attempts_s)]
        # 3, 6, 12 ... periods of 10 s, one more in which silence is normal, and a jittered delay below its cap.
        for index, span_s in enumerate(held_s):
            least_s = 10.0 * (1 + 3 * 2**index)
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


def test_venue_that_hangs_up_on_everybody_is_not_stormed() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer(on_open=lambda link: link.inbox.put_nowait(LinkClosedError("closed_1006", "")))
        frames: list[Frame] = []
        connection = make(plan_of(), frames, ReconnectPolicy(max_delay_s=2.0), open_link=peer.open)
        async with running(connection):
            await asyncio.sleep(600.0)
        attempts_s = peer.attempts_s
        assert len(attempts_s) > 50
        assert gaps(frames) == len(peer.links)
        assert all(sum(start_s <= moment_s < start_s + 59.999 for moment_s in attempts_s) <= 6 for start_s in attempts_s)

    run_in_virtual_time(scenario())


def test_heartbeat_waits_for_the_interval_after_whatever_was_sent_last() -> None:
    async def scenario() -> None:
        peer = ScriptedPeer()
        plan = plan_of(
            subscribe=(b"book", b"mark"),
            expected={"book.BTC": 30.0, "mark.BTC": 30.0},
            heartbeat=Heartbeat(interval_s=20.0, payload=b"ping"),
        )
        connection = make(plan, [], ReconnectPolicy(), open_link=peer.open)
        async with running(connection):
            await repeat(peer, MARK, 1.0, for_s=55.0)
        sent = [(round(moment_s), payload) for moment_s, payload in peer.links[0].sent]
        assert sent == [(0, b"book"), (0, b"mark"), (20, b"ping"), (31, b"book"), (51, b"ping")]

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
