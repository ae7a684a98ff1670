"""How much of the time a process that could have run was kept waiting for a core by others: noise that no median removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

TASKS = Path("/proc/self/task")


def process_waited_s() -> float | None:
    """Return the seconds that all threads of this process have waited for a core, ``None`` where the system does not say.

    Threads that have ended do not count any more.
    """
    total_ns = 0
    found = False
    for task in TASKS.glob("*/schedstat"):
        waited_ns = _read_ns(task)
        if waited_ns is not None:
            total_ns += waited_ns
            found = True
    return total_ns / 1e9 if found else None


def thread_waited_s() -> float | None:
    """Return the same for the thread that asks."""
    waited_ns = _read_ns(Path("/proc/thread-self/schedstat"))
    return None if waited_ns is None else waited_ns / 1e9


class Noise:
    """How busy the machine is from the moment this is made."""

    def __init__(self) -> None:
        self.load_before = os.getloadavg()
        self._started_s = time.perf_counter()
        self._waited_s = process_waited_s()

    def wall_s(self) -> float:
        """Return the seconds since."""
        return time.perf_counter() - self._started_s

    def waited_s(self) -> float | None:
        """Return how much of them this process waited for a core, as far as the system tells."""
        now_s = process_waited_s()
        return None if now_s is None or self._waited_s is None else now_s - self._waited_s


def _read_ns(path: Path) -> int | None:
    """Read the second number of ``schedstat``: nanoseconds spent on a run queue."""
    try:
        return int(path.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
