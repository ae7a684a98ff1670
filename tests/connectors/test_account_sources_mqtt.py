"""Account feeds from a real MQTT broker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from connectors import account_sources
from connectors.account_lines import MAX_LINE_BYTES
from connectors.account_outlet import AccountSource
from connectors.frames import Frame
from tests.connectors.feed_sources import delta, make, running, snapshot, told
from tests.connectors.loopback import until
from tests.servers import Mosquitto, find_binary, free_port

TOPIC = "desk/accounts/a"
ASK = "desk/resync"


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as server:
        yield server


def mqtt_source(
    port: int, frames: list[Frame], *, silence_s: float | None = None, environment: Any = None, **more: Any
) -> AccountSource:
    table = {"type": "mqtt", "host": "127.0.0.1", "port": port, "topic": "desk/accounts/#", "resync_topic": ASK, "timeout_s": 3.0}
    return make(table | more, frames, silence_s=silence_s, environment=environment)


def is_connected(source: AccountSource) -> bool:
    return source.health().connection.state == "connected"


async def publish(port: int, *payloads: bytes, topic: str = TOPIC, retain: bool = False) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for payload in payloads:
            await client.publish(topic, payload, qos=1, retain=retain)


async def test_messages_arrive_from_all_topics_of_the_filter_one_frame_a_line(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
        await publish(broker.port, snapshot("a", 1), delta("a", 2) + b"\n" + delta("a", 4) + b"\n")
        await publish(broker.port, snapshot("b", 9), topic="desk/accounts/group/b")
        await publish(broker.port, snapshot("c", 9), topic="desk/other")
        await publish(broker.port, delta("a", 4))
        await until(lambda: len(frames) == 5)
        assert told(frames) == [("a", 1), ("a", 2), ("a", 4), ("b", 9), ("a", 4)]
        assert {(frame.venue, frame.connection) for frame in frames} == {("desk", "desk")}
        assert source.health().connection.messages == 5
    assert frames[-1].payload is None


async def test_what_was_published_while_the_daemon_was_away_arrives(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
    await publish(broker.port, *(delta("a", sequence) for sequence in range(1, 50)))
    frames.clear()
    async with running(mqtt_source(broker.port, frames)):
        await until(lambda: len(frames) == 49)
        assert told(frames) == [("a", sequence) for sequence in range(1, 50)]


async def test_it_says_goodbye_under_a_client_id_of_its_own(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
    await until(lambda: "Client liqmon-accounts-desk" in broker.output())
    assert "Received DISCONNECT from liqmon-accounts-desk" in broker.output()


async def test_another_client_id_is_another_session(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames, client_id="one")):
        await until(lambda: is_connected(source))
    await publish(broker.port, delta("a", 1))
    frames.clear()
    async with running(source := mqtt_source(broker.port, frames, client_id="two")):
        await until(lambda: is_connected(source))
        await publish(broker.port, delta("a", 2))
        await until(lambda: len(frames) == 1)
        assert told(frames) == [("a", 2)]


async def test_retained_snapshots_are_there_at_the_start(broker: Mosquitto) -> None:
    await publish(broker.port, snapshot("a", 7), retain=True)
    await publish(broker.port, delta("a", 8))
    frames: list[Frame] = []
    async with running(mqtt_source(broker.port, frames)):
        await until(lambda: len(frames) == 1)
        assert told(frames) == [("a", 7)]


async def test_a_restarted_broker_is_one_gap_and_the_feed_goes_on(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
        await publish(broker.port, snapshot("a", 1))
        await until(lambda: len(frames) == 1)
        broker.restart()
        await until(lambda: source.health().connection.connects == 2)
        await publish(broker.port, delta("a", 2))
        await until(lambda: len(frames) == 3)
        assert told(frames) == [("a", 1), None, ("a", 2)]
        assert source.health().connection.disconnects == {"disconnected": 1}


async def test_a_broker_that_keeps_sessions_delivers_over_its_own_restart() -> None:
    with Mosquitto() as broker:
        broker.stop()
        configuration = broker.folder / "mosquitto.conf"
        kept = f"persistence true\npersistence_location {broker.folder}/"
        configuration.write_text(configuration.read_text().replace("persistence false", kept))
        broker.start()
        frames: list[Frame] = []
        async with running(source := mqtt_source(broker.port, frames)):
            await until(lambda: is_connected(source))
        await publish(broker.port, delta("a", 1), delta("a", 2))
        broker.stop()
        broker.start()
        frames.clear()
        async with running(mqtt_source(broker.port, frames)):
            await until(lambda: len(frames) == 2)
            assert told(frames) == [("a", 1), ("a", 2)]


async def test_messages_that_the_broker_delivers_again_pass_through() -> None:
    """A broker that lost the confirmation sends the message again (DUP); whether it is new is for the core to say."""
    frames: list[Frame] = []
    messages = [snapshot("a", 1), delta("a", 2)]

    async def forgetful(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await _packet(reader)
                if kind == 1:
                    writer.write(bytes([0x20, 2, 0, 0]))
                elif kind == 8:
                    writer.write(bytes([0x90, 3, body[0], body[1], 1]))
                    for duplicate in (0, 8):
                        for number, message in enumerate(messages, start=1):
                            writer.write(_publication(TOPIC, number, message, flags=duplicate | 2))
                elif kind == 14:
                    break
        writer.close()

    async with await asyncio.start_server(forgetful, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with running(mqtt_source(port, frames)):
            await until(lambda: len(frames) == 4)
            assert told(frames) == [("a", 1), ("a", 2), ("a", 1), ("a", 2)]


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one MQTT packet of a client: its kind and its body."""
    kind = (await reader.readexactly(1))[0] >> 4
    length, shift = 0, 0
    while True:
        (digit,) = await reader.readexactly(1)
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return kind, await reader.readexactly(length)


def _publication(topic: str, number: int, payload: bytes, *, flags: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + number.to_bytes(2, "big") + payload
    length = len(body)
    digits = bytes([length % 128 | 128, length // 128]) if length >= 128 else bytes([length])
    return bytes([0x30 | flags]) + digits + body


@contextlib.asynccontextmanager
async def answering(port: int) -> AsyncIterator[list[Any]]:
    """The other side: answers each question with a snapshot."""
    asked: list[Any] = []

    async def answer() -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            question = json.loads(message.payload)
            asked.append((question, message.qos, message.retain))
            await client.publish(TOPIC, snapshot(question["account"], 10), qos=1)

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(ASK, qos=1)
        task = asyncio.create_task(answer())
        try:
            yield asked
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_questions_are_published_and_answered(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with answering(broker.port) as asked, running(source := mqtt_source(broker.port, frames)):
        assert not source.request_resync("a", 3), "nobody is connected"
        await until(lambda: is_connected(source))
        await until(lambda: source.request_resync("a", 3))
        assert all(source.request_resync("a", 3) for _ in range(5))
        await until(lambda: told(frames) == [("a", 10)])
        assert asked == [({"type": "resync", "account": "a", "after_sequence": 3}, 1, False)]
        assert source.health().resyncs_asked == 1
        broker.restart()
        await until(lambda: source.health().connection.connects == 2)
        assert source.request_resync("a", 3), "the old question went to a broker that has forgotten it"
        assert source.health().resyncs_asked == 2


async def test_without_a_topic_for_questions_nobody_is_asked(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames, resync_topic="")):
        await until(lambda: is_connected(source))
        assert not source.request_resync("a", 3)


async def test_a_message_beyond_all_bounds_is_a_gap_and_counted(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
        await publish(broker.port, snapshot("a", 1), b"x" * (MAX_LINE_BYTES + 1), delta("a", 3))
        await until(lambda: len(frames) == 3)
        assert told(frames) == [("a", 1), None, ("a", 3)]
        assert source.health().lines_oversized == 1


async def test_a_burst_arrives_whole_and_in_order(broker: Mosquitto) -> None:
    """Mosquitto queues 1,000 messages for a client, so the burst is sent as fast as it is confirmed."""
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames)):
        await until(lambda: is_connected(source))
        await publish(broker.port, *(delta("a", sequence) for sequence in range(2_000)))
        await until(lambda: len(frames) == 2_000)
        assert told(frames) == [("a", sequence) for sequence in range(2_000)]


async def test_silence_is_a_gap_although_the_broker_is_there(broker: Mosquitto) -> None:
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames, silence_s=1.0)):
        await until(lambda: source.health().connection.state == "degraded")
        assert told(frames) == [None]
        assert source.health().connection.silent_channels == ("messages",)
        await publish(broker.port, snapshot("a", 1))
        await until(lambda: is_connected(source))
        assert told(frames) == [None, ("a", 1)]


async def test_a_broker_that_is_not_there_is_waited_for() -> None:
    frames: list[Frame] = []
    with Mosquitto() as broker:
        broker.stop()
        async with running(source := mqtt_source(broker.port, frames)):
            await until(lambda: source.health().connection.failures.get("unreachable", 0) >= 2)
            assert "refused" in source.health().connection.detail
            broker.start()
            await until(lambda: is_connected(source))
            assert frames == []


async def test_a_wrong_password_is_final_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "password"
    frames: list[Frame] = []
    with Mosquitto(users={"liqmon": "s3cret"}) as broker:
        async with running(source := mqtt_source(broker.port, frames, username="liqmon", password_file=str(file))):
            await until(lambda: "No such file" in source.health().connection.detail)
            file.write_text("wrong")
            await until(lambda: "Not authorized" in source.health().connection.detail)
            assert source.health().connection.state in {"failed", "connecting"}
            file.write_text("s3cret\n")
            await until(lambda: is_connected(source))
        assert source.health().connection.failures.keys() == {"secret", "refused"}
        async with running(
            source := mqtt_source(broker.port, frames, username="liqmon", password_env="PW", environment={"PW": "s3cret"})
        ):
            await until(lambda: is_connected(source))


async def test_a_subscription_that_is_refused_is_final() -> None:
    frames: list[Frame] = []

    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await _packet(reader)
                if kind == 1:
                    writer.write(bytes([0x20, 2, 0, 0]))
                elif kind == 8:
                    writer.write(bytes([0x90, 3, body[0], body[1], 0x80]))
                elif kind == 14:
                    break
        writer.close()

    server = await asyncio.start_server(strict, "127.0.0.1", 0)
    async with server, running(source := mqtt_source(server.sockets[0].getsockname()[1], frames)):
        await until(lambda: source.health().connection.failures.get("subscription", 0) >= 1)
        assert source.health().connection.connects == 0


async def test_a_broker_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch, broker: Mosquitto) -> None:
    """SIGSTOP: TCP still takes what is written, nothing is confirmed."""
    monkeypatch.setattr(account_sources, "CLOSE_TIMEOUT_S", 0.2)
    frames: list[Frame] = []
    async with running(source := mqtt_source(broker.port, frames, timeout_s=0.3)):
        await until(lambda: is_connected(source))
        broker.pause()
        await until(lambda: source.request_resync("a", 1))
        await until(lambda: source.health().connection.disconnects == {"disconnected": 1})
        assert told(frames) == [None]
        broker.resume()
        await until(lambda: is_connected(source))
        await publish(broker.port, snapshot("a", 1))
        await until(lambda: told(frames)[-1] == ("a", 1))


async def test_stopping_is_quick_and_leaves_nothing_whatever_the_broker_does() -> None:
    connections = closed = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, closed
        connections += 1
        while await reader.read(1000):
            pass
        closed += 1
        writer.close()

    frames: list[Frame] = []
    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        async with running(source := mqtt_source(server.sockets[0].getsockname()[1], frames, timeout_s=0.2)):
            await until(lambda: connections >= 2)
            assert "timed out" in source.health().connection.detail
            began = loop.time()
        assert loop.time() - began < 2.0
        await until(lambda: closed == connections)
    async with running(mqtt_source(free_port(), frames)):
        await asyncio.sleep(0)
    tasks = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    await until(lambda: all(task.done() for task in tasks))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for loopback that nobody has signed, and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [find_binary("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-nodes", "-days", "1"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


# The MQTT library leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_is_checked_against_the_given_certificate(certificate: tuple[Path, Path]) -> None:
    frames: list[Frame] = []
    with Mosquitto(certificate=certificate) as broker:
        async with running(source := mqtt_source(broker.port, frames, tls=True, tls_ca_file=str(certificate[0]))):
            await until(lambda: is_connected(source))
        async with running(source := mqtt_source(broker.port, frames, tls=True)):
            await until(lambda: "verify failed" in source.health().connection.detail)
        async with running(source := mqtt_source(broker.port, frames, tls=True, tls_ca_file="none.pem")):
            await until(lambda: source.health().connection.failures.get("tls", 0) >= 1)
            assert "none.pem" in source.health().connection.detail
    gc.collect()
