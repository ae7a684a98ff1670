"""Where answers about accounts come from, and how often they are asked for.

The source computes on the event loop, on request. So that no reader, however eager, keeps the feeds waiting, identical questions
are asked once a second, and all of them together have a bounded share of the loop's time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast

from monitor.account_report import AccountQuery, AccountReport, AccountsAtRisk, Disagreements

KEEP_S = 1.0
"""An answer is given again for so long; it says when it was computed."""

KEPT_ANSWERS = 16
"""Answers kept: the largest has 500 rows of some 400 bytes, so 16 x 200 KB = 3.2 MB."""

COMPUTE_SHARE = 0.2
"""Share of the event loop's time that all questions together may take, in the long run: at 30 ms each (a million positions)
0.2 / 0.030 = 6 new questions a second; a page asks one every 2 s, and readers of the same list share it."""

COMPUTE_BURST_S = 0.4
"""What may be used at once after a pause: 13 questions of 30 ms."""

Answer = TypeVar("Answer")


class AccountSource(Protocol):
    """What knows the accounts. Its methods are called on the event loop and do not wait; ``now_ns`` is the daemon's clock, UTC."""

    def at_risk(self, query: AccountQuery, now_ns: int) -> AccountsAtRisk:
        """List margin accounts in the order asked for."""

    def account(self, venue: str, account: str, now_ns: int) -> AccountReport | None:
        """Tell everything of one account, ``None`` if it has never been seen."""

    def disagreements(self, now_ns: int, limit: int) -> Disagreements:
        """List the worst recent disagreements with figures of the venue."""


class BusyError(Exception):
    """The share of the event loop is used up; ``retry_s`` says when to ask again."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"ask again in {retry_s:.1f} s")
        self.retry_s = retry_s


class Ration:
    """Asks on behalf of requests, and not more than the loop can bear.

    Args:
        monotonic: a clock in seconds that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.asked = 0
        """Questions that reached the source."""
        self.refused = 0
        """Requests turned away because the share was used up."""
        self._monotonic = monotonic
        self._left_s = COMPUTE_BURST_S
        self._filled_s = monotonic()
        self._kept: OrderedDict[Hashable, tuple[float, object]] = OrderedDict()

    def ask(self, compute: Callable[[], Answer]) -> Answer:
        """Return what ``compute`` returns, and count the time it takes.

        Raises:
            BusyError: the share is used up.
        """
        began_s = self._monotonic()
        self._left_s = min(COMPUTE_BURST_S, self._left_s + (began_s - self._filled_s) * COMPUTE_SHARE)
        self._filled_s = began_s
        if self._left_s <= 0.0:
            self.refused += 1
            raise BusyError(-self._left_s / COMPUTE_SHARE)
        self.asked += 1
        try:
            return compute()
        finally:
            self._left_s -= self._monotonic() - began_s

    def ask_once(self, question: Hashable, compute: Callable[[], Answer]) -> tuple[Answer, float]:
        """Return an answer and its age in seconds; the same ``question`` is not computed again within ``KEEP_S``.

        Raises:
            BusyError: the share is used up.
        """
        now_s = self._monotonic()
        known = self._kept.get(question)
        if known is not None and now_s - known[0] < KEEP_S:
            return cast(Answer, known[1]), max(0.0, now_s - known[0])
        answer = self.ask(compute)
        # Stamped with the time before it was computed, like the answer itself.
        self._kept.pop(question, None)
        self._kept[question] = (now_s, answer)
        while len(self._kept) > KEPT_ANSWERS:
            self._kept.popitem(last=False)
        return answer, 0.0
