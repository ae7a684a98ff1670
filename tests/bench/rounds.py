"""Timing in interleaved rounds: what is compared is measured side by side, in the same process and the same minute."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

from tests.bench.report import Row

Run = Callable[[], object]
Prepare = Callable[[], Run]
"""Makes whatever a run needs anew, outside of the timed part."""


def interleave(steps: Mapping[str, Prepare], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every step in every round.

    A round runs each step once, beginning with another one each time, without the garbage collector. One round more than asked
    for comes first and is thrown away: it fills caches and allocates memory.
    """
    names = list(steps)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            run = steps[name]()
            gc.collect()
            gc.disable()
            try:
                started_s = time.perf_counter()
                run()
                taken_s = time.perf_counter() - started_s
            finally:
                gc.enable()
            if number:
                times[name].append(taken_s)
    return times


def always(run: Run) -> Prepare:
    """Return a preparation for a step that needs none."""
    return lambda: run


def timing_rows(
    section: str,
    times: Mapping[str, list[float]],
    *,
    floor: str,
    scale: float,
    unit: str,
    targets: Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Turn measured seconds into rows: median, least, and both as ratios to the floor.

    Args:
        section: of the report.
        times: seconds by step and round.
        floor: the step that the others are compared with.
        scale: from seconds to ``unit``.
        unit: what is shown.
        targets: the highest good ratio of a step's median.
        notes: remarks by step.
    """
    targets, notes = targets or {}, notes or {}
    rows = []
    for name, seconds in times.items():
        # Both halves of each ratio are of the same round, so that whatever slows the machine for a while slows both.
        ratio = statistics.median(own / least for own, least in zip(seconds, times[floor], strict=True))
        rows.append(
            Row(
                section=section,
                what=name,
                median=statistics.median(seconds) * scale,
                least=min(seconds) * scale,
                unit=unit,
                ratio=ratio,
                ratio_least=min(seconds) / min(times[floor]),
                target_ratio=targets.get(name),
                note=notes.get(name, _spread(seconds) if name == floor else ""),
            )
        )
    return rows


def _spread(seconds: list[float]) -> str:
    return f"the floor; its rounds range over {(max(seconds) - min(seconds)) / statistics.median(seconds):.0%} of the median"
