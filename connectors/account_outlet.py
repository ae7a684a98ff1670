"""What the transports of account feeds have in common: how their frames are stamped and counted, and what they tell of themselves.

Pure, but for the clock that is passed in; the transports are in :mod:`connectors.account_sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from connectors.account_feed import MESSAGES
from connectors.account_lines import MAX_LINE_BYTES
from connectors.frames import Frame
from connectors.link import ReconnectPolicy
from connectors.live import ConnectionStatus, State
from connectors.outbound import count_reason


class FeedStatus(msgspec.Struct, frozen=True):
    """What a feed's transport is doing and has done since the start.

    ``lines_oversized`` counts lines (or MQTT messages) that were longer than any message, ``lines_torn`` lines of a file that
    never ended, ``truncations`` how often a file was cut or written anew; each of them came with a gap. ``resyncs_refused`` are
    questions that could not be sent.
    """

    connection: ConnectionStatus
    lines_oversized: int = 0
    lines_torn: int = 0
    truncations: int = 0
    resyncs_asked: int = 0
    resyncs_refused: int = 0


class AccountSource(Protocol):
    """One transport of one feed."""

    async def run(self) -> None:
        """Deliver, and come back after each loss, until cancelled."""

    def health(self) -> FeedStatus:
        """Return the present state and the counters."""

    def request_resync(self, account: str, after_sequence: int | None) -> bool:
        """Ask for a snapshot of ``account``.

        Returns:
            Whether the question is on its way, or was sent so recently that the answer may still come. ``False`` when this
            transport cannot ask, now or ever; the account then waits for a snapshot that comes unasked.
        """


class Surroundings(NamedTuple):
    """What a transport is given by the process that it runs in.

    Attributes:
        deliver: Takes each frame; it must be quick and must not raise.
        clock_ns: Wall clock for the stamps.
        environment: Where secrets may be.
        seed: Of the jitter, so that connections of one process do not move in step.
        policy: How stubborn and how patient to be.
        backlog: How many frames wait behind ``deliver``; a file is read no faster than they are worked off.
    """

    deliver: Callable[[Frame], None]
    clock_ns: Callable[[], int]
    environment: Mapping[str, str]
    seed: int = 0
    policy: ReconnectPolicy = ReconnectPolicy()
    backlog: Callable[[], int] = lambda: 0


class Outlet:
    """Stamps and delivers what was read, and keeps the state and the counts.

    Args:
        name: of the feed.
        around: where frames go, and the clock.

    Attributes:
        silent: Whether a gap was delivered because nothing came, and still nothing has come.
    """

    def __init__(self, name: str, around: Surroundings) -> None:
        self._name, self._deliver, self._clock_ns = name, around.deliver, around.clock_ns
        self.state: State = "waiting"
        self.detail = "not started"
        self.silent = False
        self.attempts = self.messages = self.oversized = 0
        self._connects = self._bytes = self._messages_before = 0
        self._quiet_s = 0.0
        self._failures: dict[str, int] = {}
        self._disconnects: dict[str, int] = {}
        self._last_message_ns: int | None = None

    def enter(self, state: State, detail: str = "") -> None:
        """Note what the transport does now."""
        self.state, self.detail = state, detail

    def connecting(self) -> None:
        """Note an attempt; the detail of the last failure stays to be seen."""
        self.attempts += 1
        self.enter("connecting", self.detail)

    def opened(self, detail: str = "") -> None:
        """Note that the attempt succeeded."""
        self._connects += 1
        self.silent = False
        self._quiet_s = 0.0
        self.enter("connected", detail)

    def refused(self, reason: str, detail: str, *, fatal: bool = False) -> None:
        """Note that the attempt failed; ``fatal`` is what only the operator can cure."""
        count_reason(self._failures, reason)
        self.enter("failed" if fatal else "waiting", detail)

    def lost(self, reason: str, detail: str) -> None:
        """Deliver the gap of a connection that was open."""
        self.gap()
        count_reason(self._disconnects, reason)
        self.enter("waiting", detail)

    def take(self, line: bytes | None) -> None:
        """Deliver a line, or a gap for one that was too long (``None``)."""
        if line is None:
            self.oversized += 1
            self.gap()
            return
        self.messages += 1
        self._bytes += len(line)
        self._last_message_ns = self._stamp()
        if self.silent:
            self.silent = False
            self.enter("connected")
        self._deliver(Frame(self._name, self._name, self._last_message_ns, line))

    def take_message(self, payload: bytes) -> None:
        """Deliver the lines of a message, one frame each."""
        for line in payload.split(b"\n"):
            if stripped := line.strip(b" \t\r"):
                self.take(stripped if len(stripped) <= MAX_LINE_BYTES else None)

    def gap(self) -> None:
        """Deliver that something was lost."""
        self._deliver(Frame(self._name, self._name, self._stamp(), None))

    def tick(self, tick_s: float, limit_s: float) -> None:
        """Let ``tick_s`` pass; deliver a gap when nothing came for ``limit_s``, since whoever writes the feed may be gone.

        Counted in ticks, because time in which this process stood still is no silence of the other side.
        """
        self._quiet_s = self._quiet_s + tick_s if self.messages == self._messages_before else 0.0
        self._messages_before = self.messages
        if self._quiet_s < limit_s or self.silent:
            return
        self.silent = True
        self.gap()
        if self.state == "connected":
            self.enter("degraded", f"nothing came for {limit_s:g} s")

    def status(self) -> ConnectionStatus:
        """Return the present state and the counters."""
        return ConnectionStatus(
            venue=self._name,
            connection=self._name,
            state=self.state,
            detail=self.detail,
            attempts=self.attempts,
            connects=self._connects,
            failures=dict(self._failures),
            disconnects=dict(self._disconnects),
            resubscribes=0,
            messages=self.messages,
            bytes=self._bytes,
            last_message_ns=self._last_message_ns,
            silent_channels=(MESSAGES,) if self.silent else (),
        )

    def health(self, *, lines_torn: int = 0, truncations: int = 0, resyncs_asked: int = 0, resyncs_refused: int = 0) -> FeedStatus:
        """Return the state and all counters, with those that the transport keeps."""
        return FeedStatus(
            connection=self.status(),
            lines_oversized=self.oversized,
            lines_torn=lines_torn,
            truncations=truncations,
            resyncs_asked=resyncs_asked,
            resyncs_refused=resyncs_refused,
        )

    def _stamp(self) -> int:
        # Recordings hold seven fractional digits of a second; what was live and what is replayed must agree.
        return self._clock_ns() // 100 * 100
