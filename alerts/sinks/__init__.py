"""Where alerts go. A sink delivers one notification, or says that it failed and whether trying again can help.

To add one: a settings model in ``alerts/settings.py``, a file here with a class that has the four methods of :class:`Sink`, a line
in :data:`SINKS`, and a test against a real server.
"""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Protocol, Self, cast

import msgspec

from alerts.alert import Alert
from alerts.settings import MqttSettings, SinkSettings

# Summaries have about 500 bytes and annotations about 1 kB; MQTT brokers and webhooks commonly accept at least this.
PAYLOAD_BYTES_MAX = 64 * 1024

SINKS: dict[str, tuple[str, str]] = {
    "stdout": ("alerts.sinks.stdout", "StdoutSink"),
    "webhook": ("alerts.sinks.webhook", "WebhookSink"),
    "mqtt": ("alerts.sinks.mqtt", "MqttSink"),
}
"""Module and class of every kind of sink; a module (and the client library behind it) is loaded only when it is used."""


class Retryable(Exception):  # noqa: N818 - what it says of the attempt, not what went wrong
    """The notification was not delivered, or nobody knows; the same attempt may succeed later.

    ``retry_after_s`` is how long the receiver asked to be left alone, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Fatal(Exception):  # noqa: N818 - the same
    """The notification cannot be delivered, however often it is tried."""


class Sink(Protocol):
    """One receiver of alerts. Entering it starts what it needs and does not fail because the receiver is away."""

    name: str

    async def send(self, notification: Alert) -> None:
        """Deliver one notification and return when the receiver has it. It is not called again before it has returned.

        Delivery is at least once: after a :class:`Retryable` the same notification comes again, with the same
        ``delivery_key``.

        Raises:
            Retryable: trying again later can help.
            Fatal: trying again cannot help.
        """

    async def __aenter__(self) -> Self:
        """Start."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop within a few seconds, whatever the receiver does."""


def make_sink(settings: SinkSettings, instance: str) -> Sink:
    """Make the sink that ``settings`` describe; ``instance`` names this daemon where the settings do not."""
    if isinstance(settings, MqttSettings) and not settings.instance:
        settings = settings.model_copy(update={"instance": instance})
    module, name = SINKS[settings.type]
    return cast("Sink", getattr(importlib.import_module(module), name)(settings))


def encode(notification: Alert) -> bytes:
    """Return the notification as one line of JSON, as ``alerts/schema/alert.json`` describes it.

    Raises:
        Fatal: it is larger than any sink takes.
    """
    payload = msgspec.json.encode(
        {
            **msgspec.structs.asdict(notification),
            "fingerprint": notification.fingerprint,
            "delivery_key": notification.delivery_key,
            "resolved": notification.resolved,
            "provenance": notification.labels.get("provenance"),
        }
    )
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Fatal(f"{len(payload)} bytes of JSON; at most {PAYLOAD_BYTES_MAX} are sent")
    return payload
