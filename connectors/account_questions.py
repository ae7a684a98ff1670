"""The questions of an account feed: which accounts may be asked for now, and what waits to be sent.

Pure; the transports in ``account_sources`` pass the clock in and send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

RESYNC_INTERVAL_S: Final = 5.0
"""How long an account that was asked for is not asked for again: time to answer, also for a source that has to look it up."""

MAX_ACCOUNTS_ASKED: Final = 10_000
"""Accounts remembered as asked for, and questions that wait: at 400 bytes together 4 MB. Asking for 2,000 accounts a second is more
than sources answer."""


class Questions:
    """The questions to one source, over the connection that is open, if one is.

    Args:
        wake: called when something waits to be sent.

    Attributes:
        asked: Questions taken.
        refused: Questions not taken, because no connection is open or too many were asked.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._is_open = False
        self._waiting: deque[bytes] = deque()
        # By the moment of asking, as a dict keeps the order in which its keys came.
        self._asked_s: dict[str, float] = {}
        self.asked = self.refused = 0

    def open(self) -> None:
        """Take questions from now on."""
        self._is_open = True

    def close(self) -> None:
        """Take none, and forget all: the connection is gone, and what it did not answer may be asked over the next one."""
        self._is_open = False
        self._waiting.clear()
        self._asked_s.clear()

    def ask(self, account: str, message: bytes, now_s: float) -> bool:
        """Take the question ``message`` for ``account``.

        Returns:
            Whether it is on its way, or was asked less than :data:`RESYNC_INTERVAL_S` ago.
        """
        self._forget(now_s)
        if account in self._asked_s:
            return True
        if not self._is_open or max(len(self._asked_s), len(self._waiting)) >= MAX_ACCOUNTS_ASKED:
            self.refused += 1
            return False
        self._asked_s[account] = now_s
        self._waiting.append(message)
        self.asked += 1
        self._wake()
        return True

    def take(self) -> bytes | None:
        """Return the next question to send, ``None`` when there is none."""
        return self._waiting.popleft() if self._waiting else None

    def _forget(self, now_s: float) -> None:
        while self._asked_s:
            account, asked_s = next(iter(self._asked_s.items()))
            if now_s - asked_s < RESYNC_INTERVAL_S:
                return
            del self._asked_s[account]
