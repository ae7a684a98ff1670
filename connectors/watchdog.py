"""Which channels of a connection have been silent for longer than is normal for them.

A connection that answers pings can still be dead: subscribed to the wrong group it delivers nothing and says nothing
(venues.md 2.1), and a single book can fall silent beside others that flow. Pure; the shell passes its monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Silence(msgspec.Struct, frozen=True):
    """What a check found.

    ``silent`` are the overdue channels in plan order; ``resend`` those of them that have just entered another period of
    silence; ``periods`` is the largest number of whole periods that a channel is overdue; ``unheard`` counts the channels with
    a deadline that have said nothing since the start.
    """

    silent: tuple[str, ...]
    resend: tuple[str, ...]
    periods: int
    all_silent: bool
    unheard: int


class ChannelWatchdog:
    """Remembers when each channel with a deadline last spoke.

    A channel that may be silent for ever shows its death by nothing but the lack of a confirmation, so it has a deadline too until
    it is confirmed.

    Args:
        expected: channel key to the longest normal silence in seconds; ``None`` for channels that may be silent for ever.
        now_s: the moment of the subscription, from which first messages are awaited.
        confirm_s: how long the venue may take to confirm the latter; ``None`` where it confirms nothing.

    Raises:
        ValueError: a deadline is not positive.
    """

    def __init__(self, expected: Mapping[str, float | None], now_s: float, *, confirm_s: float | None = None) -> None:
        self._deadline_s = {key: limit_s for key, limit_s in expected.items() if limit_s is not None}
        for key, limit_s in self._deadline_s.items():
            if not limit_s > 0.0:
                raise ValueError(f"the deadline of {key} must be positive, not {limit_s}")
        self._confirm_s = confirm_s
        self._confirmable = frozenset(expected.keys() - self._deadline_s.keys() if confirm_s is not None else ())
        self._heard_s = dict.fromkeys(self._deadline_s, now_s)
        self._noted_periods: dict[str, int] = {}
        for key in expected:
            self.doubt(key, now_s)
        self._unheard = set(self._deadline_s)

    @property
    def deadlines(self) -> int:
        """How many channels have a deadline."""
        return len(self._deadline_s)

    def tick_s(self) -> float:
        """Return how often to check: four times per shortest deadline, at least once a second."""
        return min([1.0, *(limit_s / 4.0 for limit_s in self._deadline_s.values())])

    def saw(self, key: str, now_s: float) -> None:
        """Note data of channel ``key``; other channels are not remembered, so the table cannot grow."""
        if key in self._heard_s:
            self._heard_s[key] = now_s
            if self._unheard:
                self._unheard.discard(key)
            if key in self._confirmable:
                self.confirm(key)

    def confirm(self, key: str) -> None:
        """Note that the venue has confirmed channel ``key``; one that may be silent for ever may now be."""
        if key in self._confirmable & self._deadline_s.keys():
            del self._deadline_s[key], self._heard_s[key]
            self._unheard.discard(key)
            self._noted_periods.pop(key, None)

    def doubt(self, key: str, now_s: float) -> None:
        """Note that channel ``key`` is not confirmed, or was refused."""
        if self._confirm_s is not None and key in self._confirmable and key not in self._deadline_s:
            self._deadline_s[key] = self._confirm_s
            self._heard_s[key] = now_s

    def postpone(self, stall_s: float) -> None:
        """Forgive ``stall_s`` seconds in which this process did not run and could not have read anything."""
        for key in self._heard_s:
            self._heard_s[key] += stall_s

    def check(self, now_s: float) -> Silence:
        """Say who is overdue at ``now_s``.

        A channel is overdue when it was silent for its whole deadline; each further deadline is one more period.
        """
        silent: list[str] = []
        resend: list[str] = []
        most_periods = 0
        for key, limit_s in self._deadline_s.items():
            silence_s = now_s - self._heard_s[key]
            if silence_s <= limit_s:
                self._noted_periods.pop(key, None)
                continue
            silent.append(key)
            periods = int(silence_s / limit_s)
            if periods > self._noted_periods.get(key, 0):
                self._noted_periods[key] = periods
                resend.append(key)
            most_periods = max(most_periods, periods - 1)
        return Silence(
            silent=tuple(silent),
            resend=tuple(resend),
            periods=most_periods,
            all_silent=bool(silent) and len(silent) == len(self._deadline_s),
            unheard=len(self._unheard),
        )
