"""Which subscriptions of one connection were answered, and which market costs the connection.

Hyperliquid drops a socket without a word when it is asked for a coin that it does not know (venues.md 1.2), for instance one that
was renamed since the start. Every other subscription on that socket would die with it again and again, so the market in question
is found out and left out. Pure; the shell passes its monotonic clock.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final, NamedTuple

from connectors.venue import ConnectionPlan

EARLY_S: Final = 10.0
"""A venue answers a subscription within a second; a connection lost later than this was not lost over one."""

ANSWER_S: Final = 1.0
"""What was asked for this long ago without an answer did not cost the connection: the venue hangs up within 0.1 s."""

QUARANTINE_S: Final = 3600.0
"""For how long connections do without a market that cost two of them; after that the next connection tries it once more."""


class Batch(NamedTuple):
    """Messages to send in one go, and the channels that they ask for."""

    keys: tuple[str, ...]
    messages: tuple[bytes, ...]


class Subscriptions:
    """Remembers, over all connections of one plan, how its subscriptions fared.

    Only plans with one message per expected channel can be looked at this closely; of others all messages are sent, always.

    After a connection that broke early the next one goes step by step, one market after the other, each once the one before it is
    answered. Any cut of the line looks like a wrong market, so the one it breaks at is asked for last the time after, and left out
    only when it breaks there again with everything else answered.

    Attributes:
        addressable: Whether there is one message per channel.
        expected: What the present connection expects, as in the plan.
        left_out: The channels that the present connection does without.
        step_by_step: Whether the present connection has to wait for the answers to each batch.
    """

    def __init__(self, plan: ConnectionPlan) -> None:
        self.addressable = 0 < len(plan.subscribe) == len(plan.expected)
        self.expected = plan.expected
        self.left_out: tuple[str, ...] = ()
        self.step_by_step = False
        self._plan = plan
        self._message_of = dict(zip(plan.expected, plan.subscribe, strict=True)) if self.addressable else {}
        self._broke_early = False
        self._suspects: set[str] = set()
        self._left_out_until_s: dict[str, float] = {}
        self._opened_s = 0.0
        self._order: tuple[str, ...] = ()
        self._unanswered: dict[str, None] = {}

    def begin(self, now_s: float) -> None:
        """Start a new connection."""
        self._left_out_until_s = {name: until_s for name, until_s in self._left_out_until_s.items() if now_s < until_s}
        self.left_out = tuple(key for key in self._plan.expected if _name(key) in self._left_out_until_s)
        self.expected = {key: limit_s for key, limit_s in self._plan.expected.items() if key not in self.left_out}
        self.step_by_step = self._broke_early
        self._broke_early = False
        self._order = tuple(self.expected) if self.addressable else ()
        if self.step_by_step:
            self._order = tuple(sorted(self._order, key=lambda key: (_name(key) in self._suspects, _name(key))))
        self._unanswered = dict.fromkeys(self._order)
        self._opened_s = now_s

    def batches(self) -> list[Batch]:
        """Return what the present connection has to send, in order."""
        if not self.step_by_step:
            return [Batch(self._order, tuple(map(self._message_of.__getitem__, self._order)) or self._plan.subscribe)]
        groups = [tuple(group) for _, group in groupby(self._order, key=_name)]
        return [Batch(keys, tuple(map(self._message_of.__getitem__, keys))) for keys in groups]

    def message_of(self, key: str) -> bytes | None:
        """Return the message that asks for one channel, if there is one for it alone."""
        return self._message_of.get(key)

    def answered(self, key: str) -> None:
        """Note that the venue confirmed or refused a channel, or sent its data, or that the connection outlived the asking."""
        if key in self._unanswered:
            del self._unanswered[key]
            if not self._unanswered:
                self._suspects.clear()

    def is_answered(self, batch: Batch) -> bool:
        """Tell whether nothing of a batch is waited for."""
        return self._unanswered.keys().isdisjoint(batch.keys)

    def lost(self, now_s: float) -> None:
        """Note that the present connection broke without a close frame."""
        if not self._unanswered or not (self.step_by_step or now_s - self._opened_s <= EARLY_S):
            return
        self._broke_early = True
        if not self.step_by_step:
            return
        first = next(iter(self._unanswered))
        suspect = _name(first)
        if suspect in self._suspects and first != self._order[0]:
            self._left_out_until_s[suspect] = now_s + QUARANTINE_S
        else:
            self._suspects.add(suspect)


def _name(key: str) -> str:
    """Return the market or account of a channel, as in ``l2Book:BTC``."""
    return key.partition(":")[2] or key
