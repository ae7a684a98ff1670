"""Alerts on standard output: one JSON object a line, or text in colour on a terminal."""

from __future__ import annotations

import asyncio
import select
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Self

from rich.console import Console
from rich.text import Text

from alerts.alert import Alert
from alerts.settings import StdoutSettings
from alerts.sinks import Fatal, Retryable, encode

# How long a reader may leave its end of the pipe full before the attempt counts as failed.
TIMEOUT_S = 10.0

# The pause between two looks at a full pipe, growing from the first to the second.
PAUSE_MIN_S, PAUSE_MAX_S = 0.005, 0.25

_COLOURS = {"info": "cyan", "warning": "yellow", "critical": "bold red"}


class StdoutSink:
    """Write to standard output (or ``stream``) without ever blocking the event loop on a reader that does not read."""

    def __init__(self, settings: StdoutSettings, stream: IO[str] | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.name = settings.name
        self._stream = sys.stdout if stream is None else stream
        self._as_text = settings.format == "text" or (settings.format == "auto" and self._stream.isatty())
        self._timeout_s = timeout_s
        # What a full pipe did not take, and of which notification it is the rest.
        self._unwritten = b""
        self._unwritten_key = ""

    async def __aenter__(self) -> Self:
        """Start; there is nothing to do."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop; every line has been flushed already."""

    async def send(self, notification: Alert) -> None:
        """Write one notification.

        Raises:
            Retryable: the reader has not read for ``timeout_s`` seconds; the line is continued by the next attempt.
            Fatal: the output is closed.
        """
        key = notification.delivery_key
        if self._unwritten_key != key or not self._unwritten:
            line = self._render(notification) if self._as_text else encode(notification).decode() + "\n"
            self._unwritten += line.encode(errors="replace")
            self._unwritten_key = key
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._write()
        except TimeoutError:
            raise Retryable(f"nobody has read the output for {self._timeout_s:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: the stream object is closed
            self._unwritten = b""
            raise Fatal(f"the output is closed: {error}") from None

    async def _write(self) -> None:
        try:
            descriptor = self._stream.fileno()
        except OSError:  # not a file of the operating system, such as io.StringIO
            self._stream.write(self._unwritten.decode())
            self._stream.flush()
            self._unwritten = b""
            return
        # A pipe that polls as writable takes PIPE_BUF bytes without blocking.
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        pause_s = PAUSE_MIN_S
        with open(descriptor, "wb", buffering=0, closefd=False) as raw:  # noqa: ASYNC230 - written only when writable
            while self._unwritten:
                if not poll.poll(0):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2.0 * pause_s, PAUSE_MAX_S)
                    continue
                written = raw.write(self._unwritten[: select.PIPE_BUF])
                self._unwritten = self._unwritten[written or 0 :]
                pause_s = PAUSE_MIN_S

    def _render(self, notification: Alert) -> str:
        """Return a line for people: time, state, name, text."""
        stamp_ns = notification.ends_ns if notification.ends_ns is not None else notification.starts_ns
        stamp = datetime.fromtimestamp(stamp_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        state = "RESOLVED" if notification.resolved else notification.severity.upper()
        colour = "green" if notification.resolved else _COLOURS[notification.severity]
        text = Text.assemble((stamp, "dim"), " ", (state, colour), " ", (notification.name, "bold"), " ", notification.summary)
        console = Console(file=self._stream, soft_wrap=True, highlight=False)
        with console.capture() as capture:
            console.print(text)
        return capture.get()
