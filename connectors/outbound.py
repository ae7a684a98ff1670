"""What every outgoing connection obeys: when it may try again, how much it may ask, and which refusals are final.

Pure arithmetic; the clock and the random draws are passed in by the shell.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

USER_AGENT = "liquidation-monitor"
"""How every request introduces itself."""

MAX_RETRY_AFTER_S = 3 * 86_400.0
"""The longest ban that a venue documents is three days; a longer ``Retry-After`` is a mistake of somebody in between."""

MAX_REASONS = 32
"""Failures counted by name: some twenty of our own and a few HTTP statuses; what is new after that counts as ``other``."""

RETRYABLE_CLIENT_ERRORS = frozenset({408, 418, 425, 429})
"""The only 4xx answers that waiting can cure: timeout, ban, too early, too many."""


def is_fatal_status(status: int) -> bool:
    """Tell whether an HTTP status says that the same request will be refused again, however long one waits."""
    return 400 <= status < 500 and status not in RETRYABLE_CLIENT_ERRORS


def count_reason(table: dict[str, int], reason: str) -> None:
    """Count ``reason`` in ``table``, or ``other`` when the table is full."""
    key = reason if reason in table or len(table) < MAX_REASONS else "other"
    table[key] = table.get(key, 0) + 1


def retry_after_s(value: str | None, now_ns: int) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, section 10.2.3).

    Args:
        value: the header, a number of seconds or an HTTP date; ``None`` when the answer had none.
        now_ns: wall clock, to turn a date into a span.

    Returns:
        Seconds to wait, between 0 and :data:`MAX_RETRY_AFTER_S`; ``None`` when there is no usable header.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # More digits than a day count of centuries would only make a huge integer to be cut off anyway.
        return min(float(text[:12]), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    wait_s = (moment - datetime.fromtimestamp(now_ns / 1e9, UTC)).total_seconds()
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` points at this machine, which must never be reached through a proxy from the environment."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Backoff:
    """Capped exponential backoff with full jitter: the n-th delay is uniform between 0 and ``min(cap, base * 2**n)``.

    Full jitter spreads clients that were cut at the same moment better than any narrower one.

    Args:
        base_s: upper end of the first delay, seconds.
        cap_s: upper end that no delay exceeds, seconds.
        draw: gives uniform numbers in [0, 1).
    """

    def __init__(self, *, base_s: float, cap_s: float, draw: Callable[[], float]) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._draw = draw
        self._failures = 0

    def next_delay_s(self) -> float:
        """Return the next delay in seconds and widen the one after it."""
        # 2**60 seconds is beyond every cap, and the limit keeps the power from overflowing after weeks of refusals.
        ceiling_s = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return self._draw() * ceiling_s

    def reset(self) -> None:
        """Start again from the base."""
        self._failures = 0


class TokenBucket:
    """Keeps the requests of one venue under its weight limit per minute.

    The bucket holds ``burst`` and fills at ``(weight_per_minute - burst) / 60`` a second, so that no window of 60 s, wherever it
    starts, holds more than ``weight_per_minute``: what was saved up before it plus what it filled. A request heavier than the
    bucket is let through when the bucket is full and leaves a debt.

    Args:
        weight_per_minute: what the venue allows.
        now_s: the current reading of the clock that all other methods are given.
        burst: what may be sent at once; a twentieth of the limit unless given (60 for Hyperliquid, 120 for Binance), which is
            no less than the heaviest request in use.
    """

    def __init__(self, *, weight_per_minute: int, now_s: float, burst: int | None = None) -> None:
        if weight_per_minute < 2:
            raise ValueError(f"weight_per_minute must be at least 2, not {weight_per_minute}")
        self.burst = max(weight_per_minute // 20, 1) if burst is None else burst
        if not 1 <= self.burst < weight_per_minute:
            raise ValueError(f"burst must be from 1 to below {weight_per_minute}, not {self.burst}")
        self._rate_per_s = (weight_per_minute - self.burst) / 60.0
        self._level = float(self.burst)
        self._filled_s = now_s

    def available(self, now_s: float) -> float:
        """Return the weight that could be sent now; negative while a debt is open."""
        # A clock that steps back must not take away what was already filled.
        elapsed_s = max(now_s - self._filled_s, 0.0)
        self._level = min(float(self.burst), self._level + elapsed_s * self._rate_per_s)
        self._filled_s = max(now_s, self._filled_s)
        return self._level

    def wait_s(self, weight: int, now_s: float) -> float:
        """Return how many seconds a request of ``weight`` has to wait; 0 when it may go now."""
        missing = min(weight, self.burst) - self.available(now_s)
        # A billionth of a unit is rounding, and a timer for it would spin.
        return missing / self._rate_per_s if missing > 1e-9 else 0.0

    def take(self, weight: int, now_s: float) -> None:
        """Spend ``weight``, which ``wait_s`` has just allowed."""
        self._level = self.available(now_s) - weight

    def drain(self, now_s: float) -> None:
        """Empty the bucket, because the venue says that more was used than was counted here."""
        self._level = min(self.available(now_s), 0.0)
