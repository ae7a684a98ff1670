"""What an alert is, on its way from a rule to a sink."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Severity = Literal["info", "warning", "critical"]


class Alert(msgspec.Struct, frozen=True):
    """One condition that holds (``ends_ns`` is ``None``) or has ended.

    ``labels`` identify the alert together with ``name``; everything that changes while it fires (numbers, text) is in
    ``annotations`` and ``summary``. Times are nanoseconds UTC and come from the data, not from a clock.
    """

    name: str
    labels: dict[str, str]
    severity: Severity
    summary: str
    starts_ns: int
    ends_ns: int | None = None
    annotations: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Identify the condition: the same name and labels give the same 16 hexadecimal digits, whatever the numbers."""
        text = "\0".join([self.name, *(f"{key}\0{self.labels[key]}" for key in sorted(self.labels))])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def resolved(self) -> bool:
        """Tell whether the condition has ended."""
        return self.ends_ns is not None

    @property
    def delivery_key(self) -> str:
        """Name this one notification: repeats of it, after a crash or a retry, carry the same key."""
        return f"{self.fingerprint}-{self.starts_ns}-{'resolved' if self.resolved else 'firing'}"
