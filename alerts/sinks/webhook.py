"""Alerts posted as JSON to an HTTP server."""

from __future__ import annotations

import math
import os
import time
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr

from alerts.alert import Alert
from alerts.settings import SecretError, WebhookSettings
from alerts.sinks import Fatal, Retryable, encode

# Of an answer only the status matters; the body is read so that the connection can be used again, but no more than this of it.
ANSWER_BYTES_MAX = 16 * 1024

# The request was not at fault: it came too slowly, too early, too often, or the server has a problem of its own.
RETRYABLE_STATUS = frozenset({408, 425, 429})


class WebhookSink:
    """Post each notification, with its ``delivery_key`` as ``Idempotency-Key`` so that the receiver can drop a repetition.

    Redirects are not followed: they would carry the headers, and with them secrets, to another place.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Start; no connection is made before the first notification."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()

    async def send(self, notification: Alert) -> None:
        """Post one notification.

        Raises:
            Retryable: no answer in time, status 408, 425, 429 or 5xx, or a secret cannot be read at the moment.
            Fatal: any other status, which says that the request is wrong.
        """
        assert self._session is not None, "the sink has not been entered"
        payload = encode(notification)
        try:
            url = self._settings.read_url(os.environ)
            headers = self._settings.read_headers(os.environ)
        except SecretError as error:
            raise Retryable(str(error)) from None
        headers |= {"Content-Type": "application/json", "Idempotency-Key": notification.delivery_key}
        try:
            async with self._session.post(url.get_secret_value(), data=payload, headers=headers, allow_redirects=False) as response:
                await response.content.read(ANSWER_BYTES_MAX)
                status, retry_after = response.status, response.headers.get("Retry-After")
        except TimeoutError:
            raise Retryable(f"{_place(url)}: no answer within {self._settings.timeout_s:g} s") from None
        except aiohttp.InvalidURL:
            raise Fatal(f"{_place(url)}: is not a usable address") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"{_place(url)}: {_describe(error)}") from None
        if 200 <= status < 300:
            return
        if status >= 500 or status in RETRYABLE_STATUS:
            raise Retryable(f"{_place(url)}: HTTP status {status}", parse_retry_after(retry_after, time.time()))
        raise Fatal(f"{_place(url)}: HTTP status {status}")


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Return how many seconds a ``Retry-After`` header asks for: a number, or the time until a date (RFC 9110, 10.2.3).

    ``now_s`` is the present time in seconds since 1970. A header that cannot be read counts as absent.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_s
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _place(url: SecretStr) -> str:
    """Return the part of the address that is no secret."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _describe(error: Exception) -> str:
    """Name an error without its text, which may repeat the whole address."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__
