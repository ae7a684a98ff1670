"""When a condition becomes an alert and when it stops being one: two thresholds, two durations, no clock.

A latch closes after its condition *rises* for long enough and opens after it no longer *holds* for long enough. Whatever rises
also holds, so between the two thresholds nothing changes, and a number that hovers around one of them cannot make an alert flap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from alerts.alert import Alert, Severity

SEVERITIES: tuple[Severity, Severity] = ("warning", "critical")
"""What the first and the second threshold of a rule mean."""

# Numbers of an alert that goes on firing are written anew at most once a second: to do so takes 40 us, projections come up to fifty
# times a second, and people do not read faster. ``as_of_ns`` in the annotations tells how old they are.
REFRESH_NS = 1_000_000_000

Content = tuple[str, dict[str, str]]
"""The summary and the annotations of an alert."""

Ending = tuple[str, str]
"""Why an alert ends: a word or two for programs, and a clause for people."""


@dataclass(slots=True)
class Latch:
    """One threshold with hysteresis; ``since_ns`` is when the change that is waited for began."""

    on: bool = False
    since_ns: int | None = None

    def step(self, now_ns: int, *, rises: bool, holds: bool, for_s: float, clear_for_s: float) -> bool:
        """Take one observation and return whether the latch is closed.

        Args:
            now_ns: the time of the observation. A jump back restarts the wait instead of prolonging it.
            rises: the condition is beyond the threshold that closes the latch.
            holds: the condition is not yet beyond the threshold that opens it.
            for_s: how long ``rises`` has to last, in seconds; 0 closes at once.
            clear_for_s: how long ``not holds`` has to last, in seconds; 0 opens at once.
        """
        assert holds or not rises, "the clearing threshold is beyond the raising one"
        changing, wait_s = (not holds, clear_for_s) if self.on else (rises, for_s)
        if not changing:
            self.since_ns = None
            return self.on
        if self.since_ns is None or self.since_ns > now_ns:
            self.since_ns = now_ns
        if now_ns - self.since_ns >= round(wait_s * 1e9):
            self.on = not self.on
            self.since_ns = None
        return self.on

    def hold(self) -> None:
        """Note that nothing is known at the moment: the state stays, and what was waited for has to last anew."""
        self.since_ns = None


@dataclass(slots=True)
class Watch:
    """One condition that may be an alert, with a latch for each severity."""

    name: str
    labels: dict[str, str]
    latches: tuple[Latch, Latch] = field(default_factory=lambda: (Latch(), Latch()))
    alert: Alert | None = None
    first_fired_ns: int = 0
    described_ns: int = 0
    content: Content = ("", {})
    """What was said last of live numbers."""

    @property
    def idle(self) -> bool:
        """Tell whether nothing fires and nothing is waited for."""
        return self.alert is None and self.latches[0].since_ns is None

    def step(
        self,
        now_ns: int,
        *,
        rises: tuple[bool, bool],
        holds: tuple[bool, bool],
        for_s: tuple[float, float],
        clear_for_s: float,
        describe: Callable[[], Content | None],
        ending: Callable[[], Ending],
    ) -> Alert | None:
        """Take one observation, and return the notification when something changed.

        ``rises``, ``holds`` and ``for_s`` are given for warning and critical. ``describe`` is asked only when an alert fires
        or ends, and now and then between, so that the numbers of an alert that goes on firing are refreshed silently; ``None``
        says that there is nothing left to describe. ``ending`` is asked only when it ends.
        """
        level = 0
        for latch, latch_rises, latch_holds, latch_for_s in zip(self.latches, rises, holds, for_s, strict=True):
            level += latch.step(now_ns, rises=latch_rises, holds=latch_holds, for_s=latch_for_s, clear_for_s=clear_for_s)
        previous = self.alert
        if level == 0:
            return None if previous is None else self._resolve(previous, now_ns, describe(), ending())
        severity = SEVERITIES[level - 1]
        changed = previous is None or previous.severity != severity
        if not changed and 0 <= now_ns - self.described_ns < REFRESH_NS:
            return None
        content = describe()
        self.content = content or self.content
        self.described_ns = now_ns
        if previous is None:
            self.first_fired_ns = now_ns
        self.alert = Alert(
            name=self.name,
            labels=self.labels,
            severity=severity,
            summary=self.content[0] if content else f"No longer seen, about to end. Last known: {self.content[0]}",
            # A new severity is a new notification, and the start is what tells its delivery key from that of the old one.
            starts_ns=now_ns if previous is None or changed else previous.starts_ns,
            annotations={**self.content[1], "first_fired_ns": str(self.first_fired_ns)},
        )
        return self.alert if changed else None

    def hold(self, why: str) -> None:
        """Keep what fires, and say in it that its numbers are no longer live and ``why``."""
        for latch in self.latches:
            latch.hold()
        self.described_ns = 0
        if self.alert is not None and self.alert.annotations.get("stale") != "true":
            self.alert = msgspec.structs.replace(
                self.alert,
                summary=f"Not live ({why}); last known: {self.alert.summary}",
                annotations={**self.alert.annotations, "stale": "true", "stale_reason": why},
            )

    def _resolve(self, previous: Alert, now_ns: int, content: Content | None, ending: Ending) -> Alert:
        summary, annotations = content or (f"Last known: {self.content[0]}", self.content[1])
        reason, clause = ending
        self.alert = None
        return msgspec.structs.replace(
            previous,
            summary=f"Resolved: {clause}. {summary}",
            # After a jump back of the clock an alert would otherwise end before it began.
            ends_ns=max(now_ns, previous.starts_ns),
            annotations={**annotations, "first_fired_ns": str(self.first_fired_ns), "reason": reason},
        )
