from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import structlog

from alerts.settings import MqttSettings
from alerts.sinks import Fatal, Retryable
from alerts.sinks import mqtt as mqtt_module
from alerts.sinks.mqtt import MqttSink, topic_level
from tests.alerts.builders import alert, until
from tests.servers import Mosquitto, find_binary, free_port

STATUS = "liqmon/v1/desk/status"
STATE = "liqmon/v1/desk/state/hyperliquid/BTC"
AVAILABILITY = "liqmon/v1/desk/venue/hyperliquid/availability"
ALERT = "liqmon/v1/desk/alert/hyperliquid/BTC"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(mqtt_module, "BACKOFF_FIRST_S", 0.05)
    with structlog.testing.capture_logs():
        yield


def settings(port: int, **more: Any) -> MqttSettings:
    return MqttSettings.model_validate({"host": "127.0.0.1", "port": port, "instance": "desk", "timeout_s": 3.0, **more})


class Subscriber:
    """What a client that subscribes to everything has seen: (topic, payload, retained flag, QoS)."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, bool, int]] = []

    def on(self, topic: str) -> list[bytes]:
        return [payload for seen, payload, _, _ in self.messages if seen == topic]


@contextlib.asynccontextmanager
async def subscriber(port: int) -> AsyncIterator[Subscriber]:
    seen = Subscriber()

    async def collect() -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            seen.messages.append((str(message.topic), message.payload, message.retain, message.qos))

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("liqmon/#", qos=1)
        task = asyncio.create_task(collect())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_birth_and_clean_goodbye_are_retained(broker: Mosquitto) -> None:
    async with subscriber(broker.port) as seen:
        async with MqttSink(settings(broker.port)) as sink:
            sink.publish_availability("hyperliquid", online=True)
            await until(lambda: seen.on(AVAILABILITY) == [b"online"])
            assert seen.on(STATUS) == [b"online"]
            async with subscriber(broker.port) as late:
                await until(lambda: len(late.messages) == 2)
                assert {(topic, payload, retained) for topic, payload, retained, _ in late.messages} == {
                    (STATUS, b"online", True),
                    (AVAILABILITY, b"online", True),
                }
        await until(lambda: seen.on(STATUS) == [b"online", b"offline"])
        await until(lambda: seen.on(AVAILABILITY) == [b"online", b"offline"])
    async with subscriber(broker.port) as late:
        await until(lambda: late.on(STATUS) == [b"offline"])


async def test_an_alert_arrives_once_at_qos_1_and_is_not_retained(broker: Mosquitto) -> None:
    async with subscriber(broker.port) as seen, MqttSink(settings(broker.port)) as sink:
        await sink.send(alert())
        await sink.send(alert("@107"))
        await until(lambda: len(seen.on("liqmon/v1/desk/alert/hyperliquid/@107")) == 1)
        [(payload, retained, qos)] = [(p, r, q) for topic, p, r, q in seen.messages if topic == ALERT]
        assert json.loads(payload)["delivery_key"] == alert().delivery_key
        assert (retained, qos) == (False, 1)
        async with subscriber(broker.port) as late:
            await until(lambda: late.on(STATUS))
            assert not late.on(ALERT)


async def test_a_killed_process_is_announced_by_the_broker(broker: Mosquitto) -> None:
    code = f"""
import asyncio
from alerts.settings import MqttSettings
from alerts.sinks.mqtt import MqttSink
async def main():
    async with MqttSink(MqttSettings(host="127.0.0.1", port={broker.port}, instance="desk")):
        await asyncio.Event().wait()
asyncio.run(main())
"""
    async with subscriber(broker.port) as seen:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await until(lambda: seen.on(STATUS) == [b"online"])
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await until(lambda: seen.on(STATUS) == [b"online", b"offline"])
    async with subscriber(broker.port) as late:
        await until(lambda: late.on(STATUS) == [b"offline"])


async def test_only_the_latest_state_is_kept_while_the_broker_is_away() -> None:
    with Mosquitto() as broker:
        broker.stop()
        async with MqttSink(settings(broker.port)) as sink:
            await until(lambda: sink.last_error)
            for n in range(1000):
                sink.publish_state("hyperliquid", "BTC", b'{"n":%d}' % n)
            broker.start()
            async with subscriber(broker.port) as seen:
                await until(lambda: seen.on(STATE))
                sink.publish_state("hyperliquid", "BTC", b'{"n":1000}')
                await until(lambda: b'{"n":1000}' in seen.on(STATE))
                assert seen.on(STATE) == [b'{"n":999}', b'{"n":1000}']
            async with subscriber(broker.port) as late:
                await until(lambda: late.on(STATE) == [b'{"n":1000}'])
                assert (STATE, b'{"n":1000}', True, 0) in late.messages


async def test_after_a_restart_of_the_broker_everything_retained_is_there_again(broker: Mosquitto) -> None:
    async with MqttSink(settings(broker.port)) as sink:
        sink.publish_availability("hyperliquid", online=False)
        sink.publish_state("hyperliquid", "BTC", b"{}")
        await until(lambda: sink.connected)
        broker.restart()
        await until(lambda: sink.connects == 2)
        async with subscriber(broker.port) as seen:
            await until(lambda: len(seen.messages) == 3)
            assert seen.on(STATUS) == [b"online"]
            assert seen.on(AVAILABILITY) == [b"offline"]
            assert seen.on(STATE) == [b"{}"]
        await sink.send(alert())


async def test_an_unchanged_availability_is_published_once(broker: Mosquitto) -> None:
    async with subscriber(broker.port) as seen, MqttSink(settings(broker.port)) as sink:
        for online in (True, True, True):
            sink.publish_availability("hyperliquid", online)
        await until(lambda: seen.on(AVAILABILITY))
        sink.publish_availability("hyperliquid", online=True)
        sink.publish_availability("hyperliquid", online=False)
        await until(lambda: len(seen.on(AVAILABILITY)) >= 2)
        assert seen.on(AVAILABILITY) == [b"online", b"offline"]


async def test_without_a_broker_sending_is_retryable_and_leaving_is_quick() -> None:
    loop = asyncio.get_running_loop()
    async with MqttSink(settings(free_port(), timeout_s=0.2)) as sink:
        with pytest.raises(Retryable, match="not connected"):
            await sink.send(alert())
        before = loop.time()
    assert loop.time() - before < 1.0


async def test_a_broker_that_hangs_is_left_and_found_again(broker: Mosquitto) -> None:
    """SIGSTOP: TCP still accepts what is written, nothing is confirmed, and no keepalive is due."""
    async with MqttSink(settings(broker.port, timeout_s=0.5)) as sink:
        await sink.send(alert())
        broker.pause()
        with pytest.raises(Retryable):
            await sink.send(alert("ETH"))
        await until(lambda: not sink.connected)
        broker.resume()
        await until(lambda: sink.connected)
        async with subscriber(broker.port) as seen:
            await sink.send(alert("ETH"))
            await until(lambda: seen.on("liqmon/v1/desk/alert/hyperliquid/ETH"))
            await until(lambda: seen.on(STATUS)[-1] == b"online")


async def test_a_server_that_accepts_and_says_nothing_is_left_without_a_trace() -> None:
    connections: list[asyncio.StreamWriter] = []
    closed = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        connections.append(writer)
        while await reader.read(1000):
            pass
        closed += 1
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with MqttSink(settings(port, timeout_s=0.1)) as sink:
        await until(lambda: closed >= 3)
        assert "timed out" in sink.last_error
    await until(lambda: closed == len(connections))
    server.close()
    await server.wait_closed()
    leftover = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert leftover == []


async def test_leaving_a_broker_that_hangs_takes_a_bounded_time_and_leaves_the_last_will(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_module, "CLOSE_TIMEOUT_S", 0.3)
    async with subscriber(broker.port) as seen:
        async with MqttSink(settings(broker.port)) as sink:
            await until(lambda: sink.connected and seen.on(STATUS) == [b"online"])
            broker.pause()
            before = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - before < 2.0
        broker.resume()
        await until(lambda: seen.on(STATUS)[-1] == b"offline")


async def test_a_wrong_password_is_reported_and_a_right_one_found_later(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    with Mosquitto(users={"liqmon": "s3cret"}) as broker:
        async with MqttSink(settings(broker.port, username="liqmon", password_file=file)) as sink:
            await until(lambda: "Not authorized" in sink.last_error)
            file.unlink()
            await until(lambda: "No such file" in sink.last_error)
            file.write_text("s3cret\n")
            await sink.send(alert())


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for loopback that nobody has signed, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [find_binary("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-nodes", "-days", "1"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


# The MQTT library leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_is_checked_against_the_given_certificate(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with Mosquitto(certificate=(certificate, key)) as broker:
        async with MqttSink(settings(broker.port, tls=True, tls_ca_file=certificate)) as sink:
            await sink.send(alert())
            broker.restart()
            await until(lambda: sink.connects == 2)
        async with MqttSink(settings(broker.port, tls=True)) as distrustful:
            await until(lambda: "verify failed" in distrustful.last_error)
            assert not distrustful.connected
    gc.collect()


async def test_two_clients_of_one_name_slow_down_instead_of_fighting(broker: Mosquitto) -> None:
    """Each connection throws the other client out; pauses of at least 25, 50, 100 and 200 ms lie before a fifth one."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with MqttSink(settings(broker.port)) as one, MqttSink(settings(broker.port)) as two:
        await until(lambda: max(one.connects, two.connects) >= 5)
        assert loop.time() - before >= 0.375


async def test_too_many_or_too_large_states_are_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_module, "STATES_MAX", 2)
    sink = MqttSink(settings(free_port()))
    for symbol in ("BTC", "ETH", "SOL", "BTC"):
        sink.publish_state("hyperliquid", symbol, b"{}")
    assert sink.states_refused == 1
    sink.publish_state("hyperliquid", "BTC", b" " * (mqtt_module.STATE_BYTES_MAX + 1))
    sink.publish_state("hyperliquid", "x" * 2000, b"{}")
    assert sink.states_refused == 3


async def test_a_topic_that_no_broker_takes_is_fatal() -> None:
    with pytest.raises(Fatal, match="topic"):
        await MqttSink(settings(free_port())).send(alert("x" * 2000))


def test_names_cannot_break_out_of_their_topic_level() -> None:
    assert topic_level("BTC") == "BTC"
    assert topic_level("xyz:TSLA") == "xyz:TSLA"
    assert topic_level("@107") == "@107"
    assert topic_level("PURR/USDC") == "PURR%2FUSDC"
    assert topic_level("+") == "%2B"
    assert topic_level("#") == "%23"
    assert topic_level("50%") == "50%25"
    assert topic_level("a\x00b") == "a%00b"
