"""An event loop whose clock jumps to the next timer when nothing is ready, so that hours of timers pass in a moment.

Sockets work as well: what is readable is handled before the clock moves. ``grace_s`` is the real time that they get for it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DEADLOCK_S = 10.0
"""Real seconds without any timer or socket event after which a test is stuck for good."""


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting."""

    def __init__(self, grace_s: float) -> None:
        super().__init__()
        # Whole nanoseconds, because sums of fractions drift and a timer would then fire a little early or late.
        self.now_ns = 0
        self._grace_s = grace_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            events = super().select(DEADLOCK_S)
            if not events:
                raise RuntimeError("deadlock: no timer is set and no socket has anything to say")
            return events
        events = super().select(0 if timeout <= 0 else self._grace_s)
        if not events and timeout > 0.0:
            # At least one step, or code that waits for the rest of a rounded span would wait for ever.
            self.now_ns += max(round(timeout * 1e9), 1)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop on virtual time; ``time()`` starts at 0."""

    def __init__(self, grace_s: float = 0.0) -> None:
        self._jumping_selector = _JumpingSelector(grace_s)
        super().__init__(self._jumping_selector)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping_selector.now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, as if the process had been stopped for so long."""
        self._jumping_selector.now_ns += round(seconds * 1e9)


def run_in_virtual_time(main: Coroutine[Any, Any, T], *, grace_s: float = 0.0) -> T:
    """Run ``main`` to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(grace_s)) as runner:
        return runner.run(main)
