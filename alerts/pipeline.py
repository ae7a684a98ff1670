"""What of the rules' output goes out, as a chain of small stages. Pure: the clock is an argument.

Each stage takes the notifications that are left, and the time, and returns those that go on. The order is in :class:`Pipeline` and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from alerts.alert import Alert

Stage = Callable[[list[Alert], int], list[Alert]]
"""(notifications, now in nanoseconds) -> the notifications that go on."""

# The rules allow 19 alerts in each of 5,000 markets, 95,000 together. At about 200 bytes each that is 20 MB, and only if all fire.
LOG_MAX = 100_000


class _Notice(msgspec.Struct, frozen=True):
    """The last notification of one alert that went out."""

    starts_ns: int
    severity: str
    sent_ns: int


class NotificationLog:
    """Which alerts have gone out and are not resolved yet, by fingerprint."""

    def __init__(self, capacity: int = LOG_MAX) -> None:
        self._notices: dict[str, _Notice] = {}
        self._capacity = capacity
        self.refused = 0
        """Notifications that did not go out because their alert found no place here, counted each time."""

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self._notices

    def get(self, fingerprint: str) -> _Notice | None:
        """Return what went out last for this alert."""
        return self._notices.get(fingerprint)

    def note(self, notification: Alert, now_ns: int) -> bool:
        """Remember that ``notification`` goes out now; ``False`` when the log is full, and it must not.

        After the end of an alert there is nothing left to remember. An alert that is not remembered would be new, and be told,
        each time anew; so it is not told at all.
        """
        fingerprint = notification.fingerprint
        if notification.resolved:
            self._notices.pop(fingerprint, None)
            return True
        if fingerprint not in self._notices and len(self._notices) >= self._capacity:
            self.refused += 1
            return False
        self._notices[fingerprint] = _Notice(notification.starts_ns, notification.severity, now_ns)
        return True


class DropUnannounced:
    """Drop the end of alerts whose beginning never went out, or whose end already has; nobody would know what has ended."""

    def __init__(self, log: NotificationLog) -> None:
        self._log = log

    def __call__(self, notifications: list[Alert], _now_ns: int) -> list[Alert]:
        """Return all but those; an alert may begin and end, more than once, in the same batch."""
        if not any(notification.resolved for notification in notifications):
            return notifications
        open_in_batch: dict[str, bool] = {}
        kept = []
        for notification in notifications:
            fingerprint = notification.fingerprint
            if notification.resolved and not open_in_batch.get(fingerprint, fingerprint in self._log):
                continue
            open_in_batch[fingerprint] = not notification.resolved
            kept.append(notification)
        return kept


class DropRepeated:
    """Drop what has been told already, unless ``repeat_interval_s`` has passed since."""

    def __init__(self, log: NotificationLog, repeat_interval_s: float) -> None:
        self._log = log
        self._repeat_interval_ns = round(repeat_interval_s * 1e9)

    def __call__(self, notifications: list[Alert], now_ns: int) -> list[Alert]:
        """Return what is new, changed or due again, and note that it goes out."""
        return [
            notification
            for notification in notifications
            if self._needs_telling(notification, now_ns) and self._log.note(notification, now_ns)
        ]

    def _needs_telling(self, notification: Alert, now_ns: int) -> bool:
        last = self._log.get(notification.fingerprint)
        if last is None or notification.resolved:
            return True
        changed = last.starts_ns != notification.starts_ns or last.severity != notification.severity
        return changed or now_ns - last.sent_ns >= self._repeat_interval_ns


class Pipeline:
    """The way from the rules to the sinks."""

    def __init__(self, repeat_interval_s: float) -> None:
        self.log = NotificationLog()
        self._stages: tuple[Stage, ...] = (
            DropUnannounced(self.log),
            DropRepeated(self.log, repeat_interval_s),
        )

    def process(self, changes: Sequence[Alert], firing: Sequence[Alert], now_ns: int) -> list[Alert]:
        """Return the notifications to send.

        Args:
            changes: what the rules report as changed, in their order.
            firing: all alerts that fire now, with their present numbers, so that repeats tell those. At 8 us each, they may be
                left out of most calls; repeats are then as late as the calls that have them are apart.
            now_ns: nanoseconds of any clock that does not jump. With a wall clock, a jump forward repeats all alerts at once.
        """
        notifications = [*changes, *firing]
        for stage in self._stages:
            notifications = stage(notifications, now_ns)
            if not notifications:
                break
        return notifications
