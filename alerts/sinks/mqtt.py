"""Alerts, market states and availability on an MQTT broker.

Topics, all below ``liqmon/v1/{instance}``:

* ``status``: ``online`` from each connection on, ``offline`` after a clean stop, and by the broker's hand (last will) after any
  other; retained. Everything else that is retained counts only while this says ``online``.
* ``venue/{venue}/availability``: ``online`` or ``offline``; retained.
* ``state/{venue}/{symbol}``: the latest state of a market as JSON; retained, QoS 0, conflated while the broker is slow or away.
* ``alert/{venue}/{symbol}``: notifications as JSON (``alerts/schema/alert.json``); QoS 1, not retained.

Levels that come from names are percent-encoded where they hold ``/``, ``+``, ``#``, ``%`` or control characters.

MQTT 3.1.1 has no way to refuse a message: a broker whose access rules forbid a topic confirms what it throws away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import Coroutine
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiomqtt
import structlog

from alerts.alert import Alert
from alerts.settings import MqttSettings, SecretError
from alerts.sinks import Fatal, Retryable, encode

# Between connection attempts: 0.5 s, 1 s, 2 s, ... at most 30 s, each shortened at random by up to half. A connection counts as
# good, and the next pause as the first, after ten seconds; two daemons that throw each other out therefore slow down.
BACKOFF_FIRST_S, BACKOFF_MAX_S, GOOD_AFTER_S = 0.5, 30.0, 10.0

# Retained topics that are kept for the next connection: the 5,000 markets that rules allow, of about 1 kB each 5 MB.
STATES_MAX = 5_000

# The protocol allows 65,535 bytes, brokers much less; real names have at most 20 characters.
TOPIC_MAX = 1_000

# A state has about 1 kB of JSON, and more only where many reasons make it stale.
STATE_BYTES_MAX = 64 * 1024

# How long leaving may take: "offline" and a goodbye are two round trips.
CLOSE_TIMEOUT_S = 3.0

# The end of a connection is noticed within a few turns of the event loop; this is for a loop that is very busy.
NOTICE_TIMEOUT_S = 0.5


class MqttSink:
    """One connection to a broker that comes back by itself, and announces itself each time it does."""

    def __init__(self, settings: MqttSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._root = f"liqmon/v1/{settings.instance}"
        self._client_id = settings.client_id or f"liqmon-{settings.instance}"
        # Seeded by identity: two daemons do not return in step, one daemon does the same each time.
        self._jitter = random.Random(f"{self._client_id}@{settings.host}")  # noqa: S311 - no secret depends on it
        self._log = structlog.get_logger("alerts.sinks.mqtt").bind(sink=self.name)
        self._retained: dict[str, bytes] = {}
        self._unsent: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._connected = asyncio.Event()
        self._client: aiomqtt.Client | None = None
        self._lost: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._tls: ssl.SSLContext | None = None
        self.connects = 0
        """Connections made since the start."""
        self.states_refused = 0
        """States that were not kept because there are too many topics or the state is too large."""
        self.last_error = ""
        """Why the last connection failed or ended."""

    @property
    def connected(self) -> bool:
        """Tell whether the broker is connected and has been greeted."""
        return self._connected.is_set()

    async def __aenter__(self) -> Self:
        """Start to connect; the broker need not be there."""
        self._stopping = False
        self._task = asyncio.create_task(self._stay_connected(), name=f"mqtt[{self.name}]")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Publish ``offline`` and say goodbye, if the broker is there."""
        self._stopping = True
        self._wake.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT_S)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT_S)

    async def send(self, notification: Alert) -> None:
        """Publish one notification and wait until the broker has confirmed it.

        Raises:
            Retryable: the broker is away or does not confirm in time. It may have the message all the same.
            Fatal: the notification is too large, or its labels are too long for a topic.
        """
        payload = encode(notification)
        venue, symbol = (notification.labels.get(label) or "-" for label in ("venue", "symbol"))
        topic = f"{self._root}/alert/{topic_level(venue)}/{topic_level(symbol)}"
        if len(topic) > TOPIC_MAX:
            raise Fatal(f"the topic has {len(topic)} characters; at most {TOPIC_MAX} are used")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise Retryable(f"{self._place}: not connected: {self.last_error or 'no answer yet'}") from None
        client = self._client
        assert client is not None, "a connected sink has a client"
        try:
            await self._while_connected(client.publish(topic, payload, qos=1, timeout=self._settings.timeout_s))
        except aiomqtt.MqttError as error:
            # A broker that does not confirm is as good as away, whatever TCP says of it.
            await _abort(client)
            raise Retryable(f"{self._place}: {error}") from None

    def publish_state(self, venue: str, symbol: str, state: bytes) -> None:
        """Publish the state of a market, a JSON object, as soon as possible; a newer one takes the place of one that waits."""
        if len(state) > STATE_BYTES_MAX:
            self.states_refused += 1
            return
        self._retain(f"{self._root}/state/{topic_level(venue)}/{topic_level(symbol)}", state)

    def publish_availability(self, venue: str, online: bool) -> None:
        """Publish whether a venue can be relied on at the moment, if that is new."""
        topic = f"{self._root}/venue/{topic_level(venue)}/availability"
        payload = _presence(online=online)
        if self._retained.get(topic) != payload:
            self._retain(topic, payload)

    @property
    def _place(self) -> str:
        return f"mqtt://{self._settings.host}:{self._settings.port}"

    def _retain(self, topic: str, payload: bytes) -> None:
        if (topic not in self._retained and len(self._retained) >= STATES_MAX) or len(topic) > TOPIC_MAX:
            self.states_refused += 1
            return
        self._retained[topic] = payload
        self._unsent[topic] = None
        self._wake.set()

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_FIRST_S
        while not self._stopping:
            began = loop.time()
            try:
                await self._session()
            except (aiomqtt.MqttError, SecretError, OSError) as error:
                text = str(error) or type(error).__name__
                if text != self.last_error:
                    self._log.warning("mqtt_disconnected", error=text)
                self.last_error = text
            except Exception as error:  # noqa: BLE001 - a mistake here must not end all deliveries to this broker
                self._log.exception("mqtt_broken", error=type(error).__name__)
                self.last_error = f"{type(error).__name__} in the sink"
            if loop.time() - began >= GOOD_AFTER_S:
                backoff_s = BACKOFF_FIRST_S
            await self._pause(backoff_s * self._jitter.uniform(0.5, 1.0))
            backoff_s = min(2.0 * backoff_s, BACKOFF_MAX_S)

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._stopping and (left_s := until - loop.time()) > 0.0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    async def _session(self) -> None:
        """Connect once, and stay until the connection is lost or the sink is left.

        Raises:
            aiomqtt.MqttError: the broker refuses, does not answer or is gone.
            SecretError: there is no password to connect with.
            OSError: the certificates cannot be read.
        """
        client = await self._connect()
        self._client = client
        said_offline = False
        self._lost = asyncio.create_task(_until_lost(client), name=f"mqtt[{self.name}].lost")
        try:
            await self._publish_retained("status", _presence(online=True))
            self.connects += 1
            self._log.info("mqtt_connected", place=self._place)
            self._connected.set()
            # The broker may be another one, or have lost what it retained.
            self._unsent = dict.fromkeys(self._retained)
            await self._publish_changes()
            # A clean stop: nobody vouches any longer for what is retained.
            for topic in [topic for topic in self._retained if topic.endswith("/availability")]:
                await self._while_connected(client.publish(topic, _presence(online=False), qos=1, retain=True))
            await self._publish_retained("status", _presence(online=False))
            said_offline = True
        finally:
            self._connected.clear()
            self._client = None
            if said_offline:
                self._lost.cancel()
                client.timeout = CLOSE_TIMEOUT_S
                with contextlib.suppress(aiomqtt.MqttError, OSError):
                    await client.__aexit__(None, None, None)
            else:
                # Without a goodbye, so that the broker publishes the last will.
                await _abort(client)
            done, _ = await asyncio.wait({self._lost}, timeout=NOTICE_TIMEOUT_S)
            self._lost.cancel()
            for lost in done:
                # To ask for the reason is what counts as having noticed it.
                if not lost.cancelled():
                    lost.exception()

    async def _connect(self) -> aiomqtt.Client:
        settings = self._settings
        if settings.tls and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=settings.tls_ca_file)
        password = settings.read_password(os.environ)
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            identifier=self._client_id,
            username=settings.username,
            password=password.get_secret_value() if password is not None else None,
            will=aiomqtt.Will(f"{self._root}/status", _presence(online=False), qos=1, retain=True),
            clean_session=True,
            keepalive=settings.keepalive_s,
            timeout=settings.timeout_s,
            tls_context=self._tls,
        )
        # The client connects in a thread and cannot be interrupted there without leaving its socket open. So it is always let
        # finish, which takes at most its two timeouts, and undone afterwards.
        attempt = asyncio.create_task(client.__aenter__(), name=f"mqtt[{self.name}].connect")
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
        except aiomqtt.MqttError:
            await _abort(client)
            raise
        return client

    async def _publish_changes(self) -> None:
        """Publish whatever changes among the retained topics, until the sink is left."""
        assert self._lost is not None, "there is a connection"
        while not self._stopping:
            if not self._unsent:
                self._wake.clear()
                await self._while_connected(self._wake.wait())
                continue
            topic = next(iter(self._unsent))
            del self._unsent[topic]
            await self._publish_retained(topic.removeprefix(f"{self._root}/"), self._retained[topic])

    async def _publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish below the root; a state may be lost with the connection, as the next one sends it again."""
        assert self._client is not None, "there is a connection"
        qos = 0 if topic.startswith("state/") else 1
        await self._while_connected(self._client.publish(f"{self._root}/{topic}", payload, qos=qos, retain=True))

    async def _while_connected(self, action: Coroutine[object, object, object]) -> None:
        """Await ``action``, but no longer than the connection lasts.

        Raises:
            aiomqtt.MqttError: the connection was lost, or ``action`` failed.
        """
        lost = self._lost
        assert lost is not None, "there is a connection"
        task = asyncio.ensure_future(action)
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.result()
            return
        error = None if lost.cancelled() else lost.exception()
        cause = error.__cause__ if error is not None and error.__cause__ is not None else error
        raise aiomqtt.MqttError(str(cause or "the connection was lost"))


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait until the connection is lost, and raise why; nothing is subscribed, so no message comes."""
    async for _ in client.messages:
        pass


async def _abort(client: aiomqtt.Client) -> None:
    """Cut the connection without a word; the reader then notices, cleans up and ends the session."""
    # The client has no public way to leave without the goodbye that makes the broker forget the last will.
    for _ in range(50):
        connection = client._client.socket()
        if not isinstance(connection, socket.socket):
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.01)


def topic_level(name: str) -> str:
    """Return ``name`` as one level of a topic: what would split or match levels, and ``%``, is percent-encoded."""
    return quote(name, safe=" !\"$&'()*,:;<=>?@[\\]^`{|}")


def _presence(*, online: bool) -> bytes:
    return b"online" if online else b"offline"
