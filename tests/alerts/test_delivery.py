from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import hypothesis.strategies as st
import pytest
import structlog
from aiohttp import web
from hypothesis import given, settings

from alerts import delivery as delivery_module
from alerts.alert import Alert, Severity
from alerts.delivery import Delivery
from alerts.settings import MqttSettings, WebhookSettings
from alerts.sinks import Fatal, Retryable, Sink
from alerts.sinks import mqtt as mqtt_module
from alerts.sinks.mqtt import MqttSink
from alerts.sinks.webhook import WebhookSink
from tests.alerts.builders import START_NS, alert, until
from tests.alerts.sinks.test_mqtt import subscriber
from tests.alerts.sinks.test_webhook import receiver
from tests.servers import Mosquitto


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(delivery_module, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(delivery_module, "BACKOFF_MAX_S", 0.05)
    monkeypatch.setattr(mqtt_module, "BACKOFF_FIRST_S", 0.02)
    with structlog.testing.capture_logs():
        yield


class Receiver:
    """A sink that takes everything, unless ``answers`` holds something else to do for the next attempt."""

    def __init__(self, name: str = "receiver", answers: Sequence[Exception | Literal["hang"]] = ()) -> None:
        self.name = name
        self.answers = list(answers)
        self.received: list[Alert] = []
        self.entered = self.left = 0
        self.fail_to_enter = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        if self.entered <= self.fail_to_enter:
            raise RuntimeError("cannot start")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.left += 1

    async def send(self, notification: Alert) -> None:
        match self.answers.pop(0) if self.answers else None:
            case Exception() as error:
                raise error
            case "hang":
                await asyncio.Event().wait()
        self.received.append(notification)


@contextlib.asynccontextmanager
async def running(*sinks: Sink) -> AsyncIterator[Delivery]:
    delivery = Delivery(sinks, seed=1)
    task = asyncio.create_task(delivery.run())
    try:
        yield delivery
    finally:
        await delivery.stop(0.2)
        await task


def numbered(count: int, severity: Severity = "warning") -> list[Alert]:
    return [alert(f"S{n}", severity=severity) for n in range(count)]


def symbols(alerts: Sequence[Alert]) -> list[str]:
    return [notification.labels["symbol"] for notification in alerts]


async def test_every_sink_gets_every_notification_in_order() -> None:
    one, two = Receiver("one"), Receiver("two")
    async with running(one, two) as delivery:
        delivery.submit(numbered(100))
        await until(lambda: len(two.received) == len(one.received) == 100)
        assert one.received == two.received == numbered(100)
        assert [(s.name, s.queue, s.sent, s.failures, s.dropped, s.last_error) for s in delivery.status()] == [
            ("one", 0, 100, 0, 0, ""),
            ("two", 0, 100, 0, 0, ""),
        ]
    assert (one.entered, one.left) == (1, 1)


async def test_what_fails_is_tried_again_and_keeps_its_place() -> None:
    sink = Receiver(answers=[Retryable("away"), Retryable("still away")])
    async with running(sink) as delivery:
        delivery.submit(numbered(3))
        await until(lambda: delivery.status()[0].failures == 1)
        assert delivery.status()[0].last_error == "away"
        assert delivery.status()[0].queue == 3
        await until(lambda: len(sink.received) == 3)
        assert symbols(sink.received) == ["S0", "S1", "S2"]
        assert delivery.status()[0].failures == 2
        assert delivery.status()[0].last_error == ""


async def test_what_is_refused_for_good_is_counted_and_left() -> None:
    sink = Receiver(answers=[Fatal("HTTP status 400")])
    async with running(sink) as delivery:
        delivery.submit([alert("S0", severity="critical"), *numbered(2)[1:]])
        await until(lambda: sink.received)
        status = delivery.status()[0]
        assert symbols(sink.received) == ["S1"]
        assert (status.sent, status.failures, status.dropped, status.dropped_critical) == (1, 1, 1, 1)


async def test_a_mistake_in_one_sink_costs_that_notification_only() -> None:
    broken, good = Receiver("broken", answers=[ZeroDivisionError()]), Receiver("good")
    async with running(broken, good) as delivery:
        delivery.submit(numbered(2))
        await until(lambda: len(good.received) == 2 and len(broken.received) == 1)
        assert delivery.status()[0].dropped == 1


async def test_a_sink_that_cannot_start_is_started_again() -> None:
    sink, good = Receiver("broken"), Receiver("good")
    sink.fail_to_enter = 3
    async with running(sink, good) as delivery:
        delivery.submit(numbered(2))
        await until(lambda: len(good.received) == 2 and len(sink.received) == 2)
        assert sink.entered == 4
        assert delivery.status()[0].failures == 3


async def test_the_wait_that_a_receiver_asks_for_is_honoured() -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(loop.time())
        return web.Response(status=429, headers={"Retry-After": "0.3"}) if len(times) == 1 else web.Response()

    async with receiver(handler) as url, running(WebhookSink(WebhookSettings.model_validate({"url": url}))) as delivery:
        delivery.submit([alert()])
        await until(lambda: delivery.status()[0].sent == 1)
    assert times[1] - times[0] >= 0.3


async def test_an_endless_wait_that_a_receiver_asks_for_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "RETRY_AFTER_MAX_S", 0.05)
    sink = Receiver(answers=[Retryable("later", retry_after_s=1e9)])
    async with running(sink) as delivery:
        delivery.submit([alert()])
        await until(lambda: sink.received)


async def test_a_webhook_that_fails_now_and_then_loses_nothing_and_changes_no_order() -> None:
    accepted: list[dict[str, Any]] = []
    keys: list[str] = []
    attempts = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal attempts
        attempts += 1
        keys.append(request.headers["Idempotency-Key"])
        if attempts % 3 == 1:
            return web.Response(status=500)
        if attempts % 3 == 2:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        accepted.append(await request.json())
        return web.Response()

    async with receiver(handler) as url, running(WebhookSink(WebhookSettings.model_validate({"url": url}))) as delivery:
        delivery.submit(numbered(10))
        await until(lambda: delivery.status()[0].sent == 10)
    assert [body["labels"]["symbol"] for body in accepted] == symbols(numbered(10))
    assert keys == [notification.delivery_key for notification in numbered(10) for _ in range(3)]


async def test_a_hanging_sink_slows_no_other() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    loop = asyncio.get_running_loop()
    good = Receiver("good")
    async with receiver(hang) as url:
        slow = WebhookSink(WebhookSettings.model_validate({"url": url, "timeout_s": 30}))
        async with running(slow, good) as delivery:
            before = loop.time()
            delivery.submit(numbered(500))
            assert loop.time() - before < 0.5
            await until(lambda: len(good.received) == 500, timeout_s=5)
            assert delivery.status()[0].queue == 500
    assert delivery.status()[0].dropped == 500


async def test_a_full_queue_gives_up_the_oldest_that_is_not_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "QUEUE_MAX", 3)
    sink = Receiver(answers=[Retryable("away")] * 10_000)
    async with running(sink) as delivery:
        delivery.submit([alert("first")])
        await until(lambda: delivery.status()[0].failures)
        delivery.submit([alert("c1", severity="critical"), alert("w1"), alert("c2", severity="critical")])
        delivery.submit([alert("c3", severity="critical"), alert("w2"), alert("c4", severity="critical")])
        status = delivery.status()[0]
        assert (status.queue, status.dropped, status.dropped_critical) == (4, 3, 1)
        sink.answers.clear()
        await until(lambda: len(sink.received) == 4)
        assert symbols(sink.received) == ["first", "c2", "c3", "c4"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["warning", "critical"]), max_size=30))
def test_no_critical_notification_is_given_up_while_there_is_another(severities: list[Severity]) -> None:
    async def check() -> None:
        sink = Receiver()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delivery_module, "QUEUE_MAX", 8)
            delivery = Delivery([sink], seed=1)
            submitted = [alert(f"{n}", severity=severity) for n, severity in enumerate(severities)]
            delivery.submit(submitted)
            status = delivery.status()[0]
            assert status.queue == min(len(submitted), 8)
            assert status.dropped == len(submitted) - status.queue
            assert status.dropped_critical == max(severities.count("critical") - 8, 0)
            task = asyncio.create_task(delivery.run())
            await until(lambda: len(sink.received) == status.queue)
            await delivery.stop(1.0)
            await task
            kept = symbols(sink.received)
            assert kept == sorted(kept, key=int)

    asyncio.run(check())


async def test_what_is_refused_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "GIVE_UP_AFTER_S", 0.05)
    sink = Receiver(answers=[Retryable("poison")] * 3)
    monkeypatch.setattr(delivery_module, "BACKOFF_FIRST_S", 0.1)
    async with running(sink) as delivery:
        delivery.submit(numbered(2))
        await until(lambda: delivery.status()[0].dropped == 1)
        await until(lambda: symbols(sink.received) == ["S1"])


async def test_stopping_delivers_what_is_queued() -> None:
    sink = Receiver(answers=[Retryable("away", retry_after_s=60.0)])
    delivery = Delivery([sink], seed=1)
    task = asyncio.create_task(delivery.run())
    delivery.submit(numbered(50))
    await until(lambda: delivery.status()[0].failures)
    await delivery.stop(5.0)
    await task
    assert len(sink.received) == 50
    assert sink.left == 1
    delivery.submit([alert("late")])
    assert delivery.status()[0].dropped == 1


async def test_stopping_ends_at_its_deadline_and_counts_what_is_left() -> None:
    hanging, good = Receiver("hanging", answers=["hang"]), Receiver("good")
    delivery = Delivery([hanging, good], seed=1)
    task = asyncio.create_task(delivery.run())
    delivery.submit([*numbered(4), alert("last", severity="critical")])
    await until(lambda: len(good.received) == 5)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await delivery.stop(0.1)
    await task
    assert loop.time() - before < 1.0
    status = delivery.status()[0]
    assert (status.queue, status.dropped, status.dropped_critical) == (0, 5, 1)
    assert hanging.left == good.left == 1


async def test_stopping_what_never_ran_counts_what_was_queued() -> None:
    delivery = Delivery([Receiver()], seed=1)
    delivery.submit(numbered(3))
    await delivery.stop(1.0)
    assert delivery.status()[0].dropped == 3
    await delivery.run()


async def test_without_sinks_running_ends_only_when_stopped() -> None:
    delivery = Delivery([], seed=1)
    task = asyncio.create_task(delivery.run())
    delivery.submit(numbered(1))
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done
    await delivery.stop(1.0)
    await task
    assert delivery.status() == ()


async def test_cancelling_closes_the_sinks() -> None:
    sink = Receiver(answers=["hang"])
    delivery = Delivery([sink], seed=1)
    task = asyncio.create_task(delivery.run())
    delivery.submit(numbered(2))
    await until(lambda: not sink.answers)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.left == 1
    assert delivery.status()[0].dropped == 2


async def test_while_a_broker_is_away_nothing_critical_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the broker, raise more alerts than the queue holds, start it again: all critical ones arrive, in order, once each."""
    monkeypatch.setattr(delivery_module, "QUEUE_MAX", 20)
    with Mosquitto() as broker:
        sink = MqttSink(MqttSettings(host="127.0.0.1", port=broker.port, instance="desk", timeout_s=0.2))
        async with running(sink) as delivery:
            delivery.submit([alert("before")])
            await until(lambda: delivery.status()[0].sent == 1)
            broker.kill()
            critical = numbered(20, "critical")
            for notification in critical:
                delivery.submit([notification, alert("noise")])
            await until(lambda: delivery.status()[0].failures)
            broker.start()
            async with subscriber(broker.port) as seen:
                delivery.submit([alert("after", severity="critical", ends_ns=START_NS + 1)])
                await until(lambda: seen.on("liqmon/v1/desk/alert/hyperliquid/after"), timeout_s=20)
                arrived = [json.loads(payload) for topic, payload, _, _ in seen.messages if "/alert/" in topic]
        status = delivery.status()[0]
        keys = [body["delivery_key"] for body in arrived if body["severity"] == "critical"]
        assert keys == [*(n.delivery_key for n in critical), alert("after", ends_ns=START_NS + 1).delivery_key]
        assert status.dropped_critical == 0
        assert status.dropped + status.sent == 42
