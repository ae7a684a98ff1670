"""How account feeds arrive: over a websocket, from an MQTT broker, or from a file that grows.

Every transport delivers frames of one line each (a recording holds one JSON text a line, and a bad line then costs no other), and
one frame without payload for each loss. It does not judge what it carries: repetitions and holes reach the core as they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiomqtt

from connectors.account_feed import MESSAGES
from connectors.account_lines import MAX_LINE_BYTES, LineSplitter
from connectors.account_link import granted_qos, mqtt_refusal, open_feed
from connectors.account_outlet import AccountSource, FeedStatus, Outlet, Surroundings
from connectors.account_questions import Questions
from connectors.account_settings import (
    AccountFeedSettings,
    FileFeedSettings,
    MqttFeedSettings,
    SecretError,
    WebsocketFeedSettings,
)
from connectors.account_tail import Tail
from connectors.frames import Frame
from connectors.link import Link, LinkRefusedError, ReconnectPolicy
from connectors.live import LiveConnection
from connectors.outbound import Backoff
from connectors.venue import ConnectionPlan

T = TypeVar("T")

BACKLOG_FRAMES: Final = 8_192
"""Frames waiting in the queue above which no more is read from a file: an eighth of what the queue holds."""

ROOM_POLL_S: Final = 0.005

MISSING_FILE_S: Final = 2.0
"""Longest pause before a file that is not there is looked for again, which costs nobody anything."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long the goodbye to a broker may take, which keeps our messages without one as well."""


def make_source(settings: AccountFeedSettings, around: Surroundings) -> AccountSource:
    """Return the transport of one feed."""
    match settings.source:
        case WebsocketFeedSettings() as source:
            return WebsocketSource(settings, source, around)
        case MqttFeedSettings() as source:
            return MqttSource(settings, source, around)
        case FileFeedSettings() as source:
            return FileSource(settings, source, around)


class WebsocketSource:
    """A feed from a websocket server; questions go out on the same socket.

    The connection is that of venues, with its backoff, its pings and its watchdog for silence.
    """

    def __init__(self, settings: AccountFeedSettings, source: WebsocketFeedSettings, around: Surroundings) -> None:
        self._feed, self._source, self._around = settings.feed(), source, around
        self._wake = asyncio.Event()
        self._questions = Questions(self._wake.set)
        self._live = LiveConnection(
            venue=self._feed,
            plan=ConnectionPlan(
                name=self._feed.name,
                url=source.url,
                subscribe=(),
                expected={MESSAGES: settings.silence_s},
                max_message_bytes=MAX_LINE_BYTES,
            ),
            deliver=self._split,
            seed=around.seed,
            policy=around.policy,
            clock_ns=around.clock_ns,
            open_link=self._open,
        )

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._live.run()

    def health(self) -> FeedStatus:
        """Return the present state and the counters."""
        return FeedStatus(self._live.health(), resyncs_asked=self._questions.asked, resyncs_refused=self._questions.refused)

    def request_resync(self, account: str, after_sequence: int | None) -> bool:
        """Ask for a snapshot on the open socket; see :class:`AccountSource`."""
        message = self._feed.resync_message(account, after_sequence)
        return self._questions.ask(account, message, asyncio.get_running_loop().time())

    def _split(self, frame: Frame) -> None:
        if frame.payload is None or b"\n" not in frame.payload:
            self._around.deliver(frame)
            return
        for line in frame.payload.split(b"\n"):
            if line.strip():
                self._around.deliver(Frame(frame.venue, frame.connection, frame.received_ns, line))

    @contextlib.asynccontextmanager
    async def _open(self, plan: ConnectionPlan, policy: ReconnectPolicy) -> AsyncIterator[Link]:
        try:
            token = self._source.read_token(self._around.environment)
        except SecretError as error:
            raise LinkRefusedError("secret", str(error), fatal=True) from None
        async with open_feed(plan, policy, None if token is None else token.get_secret_value()) as link:
            talk = asyncio.create_task(_talk(self._questions, self._wake, link.send))
            try:
                yield link
            finally:
                talk.cancel()
                # A link that is gone tells its reason where it is received from, so that of the sender is not needed.
                await asyncio.gather(talk, return_exceptions=True)


class MqttSource:
    """A feed from an MQTT 3.1.1 broker, at least once (QoS 1).

    The session outlives the connection (``clean_session`` is false and the client id stays the same), so what is published while
    the daemon is away waits at the broker, if that keeps sessions. A broker that was restarted may not; hence the gap.
    """

    def __init__(self, settings: AccountFeedSettings, source: MqttFeedSettings, around: Surroundings) -> None:
        self._feed, self._source, self._around = settings.feed(), source, around
        self._silence_s = settings.silence_s
        self._outlet = Outlet(settings.name, around)
        self._wake = asyncio.Event()
        self._questions = Questions(self._wake.set)
        self._backoff = _backoff(around)

    def health(self) -> FeedStatus:
        """Return the present state and the counters."""
        questions = self._questions
        return self._outlet.health(resyncs_asked=questions.asked, resyncs_refused=questions.refused)

    def request_resync(self, account: str, after_sequence: int | None) -> bool:
        """Ask for a snapshot on ``resync_topic``; see :class:`AccountSource`."""
        message = self._feed.resync_message(account, after_sequence)
        return bool(self._source.resync_topic) and self._questions.ask(account, message, asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        outlet, policy, loop = self._outlet, self._around.policy, asyncio.get_running_loop()
        while True:
            outlet.connecting()
            began_s = loop.time()
            try:
                async with self._open() as client:
                    await self._hold(client)
            except LinkRefusedError as refusal:
                outlet.refused(refusal.reason, str(refusal), fatal=refusal.fatal)
                if refusal.fatal:
                    await asyncio.sleep(policy.failed_delay_s)
                    continue
            if loop.time() - began_s >= policy.healthy_after_s:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.next_delay_s())

    async def _hold(self, client: aiomqtt.Client) -> None:
        """Use an open connection until it is lost, and report the loss with one gap.

        Raises:
            LinkRefusedError: the broker refuses the subscription.
        """
        outlet, topic = self._outlet, self._source.topic
        try:
            granted = granted_qos(await client.subscribe(topic, qos=1))
            outlet.opened("" if granted else "the broker grants QoS 0 only: messages may be lost without a word")
            talk = _talk(self._questions, self._wake, partial(client.publish, self._source.resync_topic, qos=1))
            await _first_ending(_until_lost(client), talk, _watch(outlet, self._silence_s))
        except aiomqtt.MqttError as error:
            outlet.lost("disconnected", str(error.__cause__ or error))
        except (asyncio.CancelledError, LinkRefusedError):
            outlet.gap()
            raise

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[aiomqtt.Client]:
        source, outlet = self._source, self._outlet

        class Passage(asyncio.Queue[aiomqtt.Message]):
            """Passes messages on at once: what waits in a client is lost with it, although the broker has its confirmation."""

            def put_nowait(self, item: aiomqtt.Message) -> None:
                payload = item.payload
                assert isinstance(payload, bytes), "what arrives is bytes"
                outlet.take_message(payload)

        try:
            password = source.read_password(self._around.environment)
            tls = await _in_thread(lambda: ssl.create_default_context(cafile=source.tls_ca_file)) if source.tls else None
        except SecretError as error:
            raise LinkRefusedError("secret", str(error), fatal=True) from None
        except OSError as error:
            raise LinkRefusedError("tls", f"{source.tls_ca_file}: {error}", fatal=True) from error
        client = aiomqtt.Client(
            source.host,
            source.port,
            identifier=source.client_id or f"liqmon-accounts-{self._feed.name}",
            username=source.username,
            password=None if password is None else password.get_secret_value(),
            clean_session=False,
            keepalive=source.keepalive_s,
            timeout=source.timeout_s,
            tls_context=tls,
            queue_type=Passage,
        )
        await _connect(client)
        try:
            yield client
        finally:
            client.timeout = CLOSE_TIMEOUT_S
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError:
                await _abort(client)


class FileSource:
    """A feed from a file: its lines from the first one on, and what is appended to it, through truncations and rotations.

    Nobody can be asked over a file, so whoever writes it writes snapshots now and then.
    """

    def __init__(self, settings: AccountFeedSettings, source: FileFeedSettings, around: Surroundings) -> None:
        self._path, self._poll_s, self._backlog = Path(source.path), source.poll_interval_ms / 1e3, around.backlog
        self._silence_s = settings.silence_s
        self._outlet = Outlet(settings.name, around)
        self._backoff = _backoff(around, cap_s=MISSING_FILE_S)
        self._lines = LineSplitter()
        self._torn = self._truncations = 0

    def health(self) -> FeedStatus:
        """Return the present state and the counters."""
        return self._outlet.health(lines_torn=self._torn, truncations=self._truncations)

    def request_resync(self, account: str, after_sequence: int | None) -> bool:  # noqa: ARG002 - see AccountSource
        """Return ``False``: a file cannot be asked."""
        return False

    async def run(self) -> None:
        """Read, and open the file again when that fails, until cancelled."""
        await _first_ending(self._follow(), _watch(self._outlet, self._silence_s))

    async def _follow(self) -> None:
        outlet = self._outlet
        while True:
            outlet.connecting()
            with contextlib.closing(Tail(self._path)) as tail:
                try:
                    await _in_thread(tail.open)
                except OSError as error:
                    reason = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
                    outlet.refused(reason, error.strerror or str(error))
                else:
                    outlet.opened()
                    await self._use(tail)
                    self._lines.reset()
            await asyncio.sleep(max(self._poll_s, 0.0 if outlet.state == "connected" else self._backoff.next_delay_s()))

    async def _use(self, tail: Tail) -> None:
        """Read a file until it is replaced or cannot be read; what is lost on the way is reported with a gap."""
        outlet, replaced = self._outlet, False
        try:
            while True:
                data = await _in_thread(tail.read)
                if data is None:
                    self._truncations += 1
                    self._lines.reset()
                    outlet.gap()
                elif data:
                    self._backoff.reset()
                    for line in self._lines.split(data):
                        outlet.take(line)
                    while self._backlog() > BACKLOG_FRAMES:  # noqa: ASYNC110 - the queue tells nobody when it has room
                        await asyncio.sleep(ROOM_POLL_S)
                elif replaced:
                    break
                else:
                    # Once there is a new file, nothing more is written to this one; but what was has to be read first.
                    replaced = await _in_thread(tail.is_replaced)
                    await asyncio.sleep(0.0 if replaced else self._poll_s)
        except OSError as error:
            outlet.lost("unreadable", error.strerror or str(error))
        except asyncio.CancelledError:
            outlet.gap()
            raise
        else:
            if self._lines.held_bytes:
                self._torn += 1
                outlet.gap()


def _backoff(around: Surroundings, cap_s: float = math.inf) -> Backoff:
    draw = random.Random(around.seed).random  # noqa: S311 - jitter is no secret
    return Backoff(base_s=around.policy.base_delay_s, cap_s=min(around.policy.max_delay_s, cap_s), draw=draw)


async def _talk(questions: Questions, wake: asyncio.Event, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send the questions that are asked while a connection is open."""
    questions.open()
    try:
        while True:
            while (message := questions.take()) is not None:
                await send(message)
            wake.clear()
            await wake.wait()
    finally:
        questions.close()


async def _first_ending(*duties: Coroutine[Any, Any, None]) -> None:
    """Run ``duties`` until the first ends, end the others, and raise what one of them raised."""
    tasks = [asyncio.create_task(duty) for duty in duties]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _watch(outlet: Outlet, limit_s: float | None) -> None:
    """Report each time nothing has come for ``limit_s``: whoever writes the feed may be gone."""
    if limit_s is None:
        await asyncio.get_running_loop().create_future()  # until cancelled
        return
    tick_s = min(limit_s / 4.0, 1.0)
    while True:
        await asyncio.sleep(tick_s)
        outlet.tick(tick_s, limit_s)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread and let it finish even when cancelled, because it may be about to open something."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _connect(client: aiomqtt.Client) -> None:
    """Connect, and leave no open socket behind when that fails or is cancelled.

    Raises:
        LinkRefusedError: the broker is away or refuses.
    """
    # The client connects in a thread and cannot be interrupted there. So it is always let finish, and undone afterwards.
    attempt = asyncio.create_task(client.__aenter__())
    try:
        await asyncio.shield(attempt)
    except asyncio.CancelledError:
        await asyncio.wait({attempt})
        connected = attempt.exception() is None
        await _abort(client)
        if connected:
            with contextlib.suppress(aiomqtt.MqttError):
                await _until_lost(client)
        raise
    except aiomqtt.MqttError as error:
        await _abort(client)
        raise mqtt_refusal(error) from error


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait until the connection is lost, and raise why; messages do not pass here."""
    async for _ in client.messages:
        pass


async def _abort(client: aiomqtt.Client) -> None:
    """Cut the connection without a word; the reader then notices and cleans up."""
    # The client has no public way to give up a connection that does not answer.
    for _ in range(50):
        connection = client._client.socket()
        if not isinstance(connection, socket.socket):
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.01)
