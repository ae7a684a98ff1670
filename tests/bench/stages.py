"""Where the time of a running daemon goes: stages are wrapped with a clock while a context is open, and restored behind it."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import monitor.app
import monitor.engine
import monitor.evaluate
from monitor.app import Daemon
from tests.bench.report import Row


class Stages:
    """Seconds by stage, one entry per call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.running = False

    def clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with its duration noted under ``name`` while ``running`` is set."""
        seconds = self.seconds.setdefault(name, [])
        clock = time.perf_counter

        def run(*args: Any, **keywords: Any) -> Any:
            started_s = clock()
            result = function(*args, **keywords)
            if self.running:
                seconds.append(clock() - started_s)
            return result

        return run

    def note_collection(self, phase: str, _info: dict[str, int]) -> None:
        """Time a garbage collection (a callback of the collector)."""
        if phase == "start":
            self._collection_s = time.perf_counter()
        elif self.running:
            self.seconds.setdefault("garbage collection", []).append(time.perf_counter() - self._collection_s)

    def rows(self, section: str, wall_s: float) -> list[Row]:
        """Return the median of each stage, and what share of the time it took in all."""
        return [
            Row(
                section=section,
                what=name,
                median=statistics.median(seconds) * 1e3,
                least=min(seconds) * 1e3,
                unit="ms",
                note=f"{sum(seconds) / wall_s:.1%} of the time, at most {max(seconds) * 1e3:.1f} ms, {len(seconds):,} times",
            )
            for name, seconds in self.seconds.items()
            if seconds
        ]


@contextlib.contextmanager
def watching(daemon: Daemon) -> Iterator[Stages]:
    """Clock the stages of ``daemon``. A stage that is indented is a part of the one above it."""
    stages = Stages()
    engine, accounts = daemon.engine, daemon.engine.accounts
    # (name, object, attribute); what belongs to the event loop first, then what may run beside it.
    places: list[tuple[str, Any, str]] = [
        ("loop: apply a batch of frames", daemon._ingest, "apply_all"),
        ("loop: due", engine, "due"),
        ("loop: freeze", engine, "freeze"),
        ("  inputs of one market", monitor.engine, "market_input"),
        ("  all prices", engine.survey, "reprice"),
        ("    one price", accounts.legs, "set_price"),
        ("    full sweep", accounts.legs, "sweep"),
        ("    count accounts", accounts, "counts"),
        ("    poll coverage", accounts, "poll_coverage"),
        ("  copy positions of one market", accounts, "market_legs"),
        ("loop: adopt", engine, "adopt"),
        ("loop: publish", daemon, "_publish"),
        ("  hub", daemon.hub, "publish"),
        ("  rules", daemon._rules, "update"),
        ("  firing alerts", daemon._rules, "firing"),
        ("thread: evaluate", monitor.app, "evaluate"),
        ("  join", monitor.evaluate, "_join"),
        ("  triggers", monitor.evaluate, "_swept"),
        ("  forced orders", monitor.evaluate, "forced_orders"),
        ("  histogram", monitor.evaluate, "map_triggers"),
        ("  clusters", monitor.evaluate, "find_hills"),
        ("  totals", monitor.evaluate, "sum_positions"),
        ("  triggers within reach", monitor.evaluate, "_View"),
        ("  project one market", monitor.evaluate, "_project_market"),
    ]
    with contextlib.ExitStack() as restored:
        for name, owner, attribute in places:
            original = getattr(owner, attribute)
            if isinstance(owner, type(monitor.app)):
                restored.callback(setattr, owner, attribute, original)
            setattr(owner, attribute, stages.clocked(name, original))
        gc.callbacks.append(stages.note_collection)
        restored.callback(gc.callbacks.remove, stages.note_collection)
        yield stages
