"""Bring notifications to all sinks: each at its own pace, in order, again and again until it has them.

A sink has a queue and a task of its own, so a receiver that hangs delays nobody else. Queues live in memory: what is in them
when the process dies is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
import structlog

from alerts.alert import Alert
from alerts.sinks import Fatal, Retryable, Sink

# 1,000 notifications of about 2 kB are 2 MB a sink. A market that escalates and resolves its 19 alerts makes 57 notifications,
# so this holds the whole of a bad day in 17 markets while a receiver is away.
QUEUE_MAX = 1_000

# Between attempts: 0.5 s, 1 s, 2 s, ... at most 30 s, each shortened at random by up to half so that daemons do not come back in
# step. A receiver that returns after ten minutes is found within 30 s.
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0

# A receiver may ask for a longer pause; beyond five minutes it is asked again regardless.
RETRY_AFTER_MAX_S = 300.0

# While stopping, attempts are closer together: there are only a few seconds left.
STOPPING_BACKOFF_MAX_S = 0.5

# A notification that a receiver refuses for an hour may be the reason for the refusal; it must not block the others for ever.
GIVE_UP_AFTER_S = 3_600.0


class SinkStatus(msgspec.Struct, frozen=True):
    """How one sink is doing, with counts since the start."""

    name: str
    queue: int
    """Notifications waiting, with the one that is being sent."""
    sent: int
    failures: int
    """Attempts that failed."""
    dropped: int
    """Notifications given up, for whatever reason."""
    dropped_critical: int
    """Those of them that were critical."""
    last_error: str
    """Why the last attempt failed; empty after a success."""


class _Courier:
    """The queue of one sink and the loop that empties it."""

    def __init__(self, sink: Sink, jitter: random.Random) -> None:
        self.sink = sink
        self._jitter = jitter
        self._log = structlog.get_logger("alerts.delivery").bind(sink=sink.name)
        self._waiting: deque[Alert] = deque()
        self._current: Alert | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._sent = self._failures = self._dropped = self._dropped_critical = 0
        self._last_error = ""

    @property
    def status(self) -> SinkStatus:
        return SinkStatus(
            name=self.sink.name,
            queue=len(self._waiting) + (self._current is not None),
            sent=self._sent,
            failures=self._failures,
            dropped=self._dropped,
            dropped_critical=self._dropped_critical,
            last_error=self._last_error,
        )

    def put(self, notification: Alert) -> None:
        if self._stopping:
            self._give_up(notification, "the daemon is stopping")
            return
        self._waiting.append(notification)
        if len(self._waiting) > QUEUE_MAX:
            # The oldest that is not critical, or the oldest. The one on its way is not in the queue and keeps its place.
            victim = next((i for i, waiting in enumerate(self._waiting) if waiting.severity != "critical"), 0)
            dropped = self._waiting[victim]
            del self._waiting[victim]
            self._give_up(dropped, "the queue is full")
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def abandon(self) -> None:
        """Count what is left as given up."""
        if self._current is not None:
            self._waiting.appendleft(self._current)
            self._current = None
        while self._waiting:
            self._give_up(self._waiting.popleft(), "the daemon stopped before it could be sent")

    async def run(self) -> None:
        """Deliver until stopped, and enter the sink again should it break; the others must not fall with it."""
        while True:
            try:
                async with self.sink:
                    await self._empty_queue()
            except Exception as error:  # noqa: BLE001 - see above; what sinks may raise, _deliver has handled
                self._failed(f"{type(error).__name__} in the sink")
                self._log.exception("sink_broken", error=type(error).__name__)
                await self._pause(BACKOFF_MAX_S)
            if self._stopping:
                return

    async def _empty_queue(self) -> None:
        while True:
            while not self._waiting:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
            self._current = self._waiting.popleft()
            await self._deliver(self._current)
            self._current = None

    async def _deliver(self, notification: Alert) -> None:
        """Try until it is delivered or given up."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + GIVE_UP_AFTER_S
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                await self.sink.send(notification)
            except Retryable as error:
                self._failed(str(error))
                if loop.time() >= give_up_at:
                    self._give_up(notification, f"refused for {GIVE_UP_AFTER_S:g} s")
                    return
                asked_for_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
                await self._pause(max(backoff_s * self._jitter.uniform(0.5, 1.0), asked_for_s))
                backoff_s = min(2.0 * backoff_s, BACKOFF_MAX_S)
            except Fatal as error:
                self._failed(str(error))
                self._give_up(notification, str(error))
                return
            except Exception as error:  # noqa: BLE001 - a mistake in one sink must not silence the others
                self._failed(f"{type(error).__name__} in the sink")
                self._log.exception("sink_broken", error=type(error).__name__)
                self._give_up(notification, "mistake in the sink")
                return
            else:
                self._sent += 1
                if self._last_error:
                    self._log.info("sink_recovered", queue=len(self._waiting))
                self._last_error = ""
                return

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; stopping cuts it short."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._stopping and (left_s := until - loop.time()) > 0.0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
        if self._stopping:
            await asyncio.sleep(min(seconds, STOPPING_BACKOFF_MAX_S))

    def _failed(self, error: str) -> None:
        self._failures += 1
        # Only a new kind of failure is worth a line; the counter tells how often.
        if error != self._last_error:
            self._log.warning("sink_failed", error=error)
        self._last_error = error

    def _give_up(self, notification: Alert, why: str) -> None:
        self._dropped += 1
        self._dropped_critical += notification.severity == "critical"
        self._log.error(
            "notification_given_up", alert=notification.name, key=notification.delivery_key, severity=notification.severity, why=why
        )


class Delivery:
    """All sinks together. :meth:`submit` never waits; :meth:`run` is the task that delivers."""

    def __init__(self, sinks: Sequence[Sink], seed: int) -> None:
        """Take the sinks, whose names are unique, and the seed of the jitter."""
        self._couriers = [
            _Courier(sink, random.Random(f"{seed}/{sink.name}"))  # noqa: S311 - no secret depends on it
            for sink in sinks
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._started = self._overdue = False
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()

    def submit(self, notifications: Iterable[Alert]) -> None:
        """Queue notifications for every sink, in order. A full queue gives up its oldest that is not critical."""
        for notification in notifications:
            for courier in self._couriers:
                courier.put(notification)

    async def run(self) -> None:
        """Deliver until :meth:`stop` is called or the task is cancelled."""
        self._started = True
        self._tasks = [asyncio.create_task(courier.run(), name=f"sink[{courier.sink.name}]") for courier in self._couriers]
        try:
            await asyncio.gather(*self._tasks)
            await self._stopping.wait()
        except asyncio.CancelledError:
            # Either this task was cancelled, and has to go on being so, or stop() cancelled what was left at its deadline.
            if not self._overdue:
                raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for courier in self._couriers:
                courier.abandon()
            self._finished.set()

    async def stop(self, deadline_s: float) -> None:
        """Deliver what is queued for at most ``deadline_s`` seconds, count the rest as given up, and close all sinks."""
        self._stopping.set()
        for courier in self._couriers:
            courier.stop()
        if not self._started:
            for courier in self._couriers:
                courier.abandon()
            return
        try:
            async with asyncio.timeout(deadline_s):
                await self._finished.wait()
        except TimeoutError:
            self._overdue = True
            for task in self._tasks:
                task.cancel()
            await self._finished.wait()

    def status(self) -> tuple[SinkStatus, ...]:
        """Return how each sink is doing, in their order."""
        return tuple(courier.status for courier in self._couriers)
