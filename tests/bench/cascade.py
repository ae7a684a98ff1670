"""One market's cascade: barrier, gaps, landings and survival, against one cumulative sum over the same arrays."""

from __future__ import annotations

import numpy as np

from monitor import cascade
from monitor.margin import Array
from tests.bench.report import Row
from tests.bench.rounds import Prepare, Run, always, interleave, timing_rows

TRIGGERS = 100_000
LEVELS = 4_000
LANDINGS = 5
"""As many exogenous volumes as the default configuration lands."""

REPEATS = 20
"""Runs per timed round: a single one is too short to time."""

REFERENCE_PRICE = 100.0
REACH_RATIO = 0.2
DEPTH_BASE = 1_000_000.0


def measure(*, quick: bool = False) -> list[Row]:
    """Measure a book at full resolution, and one whose levels are buckets, which has bounds to be solved as well."""
    triggers, levels = (500, 50) if quick else (TRIGGERS, LEVELS)
    rounds = 2 if quick else 15
    price, size = _draw_triggers(triggers)
    rows = _measure_book("full resolution", _draw_book(levels, bucket_ratio=0.0), price, size, rounds)
    return rows + _measure_book("aggregated", _draw_book(levels, bucket_ratio=0.9), price, size, rounds)


def _measure_book(kind: str, book: cascade.Levels, price: Array, size: Array, rounds: int) -> list[Row]:
    curve = cascade.solve(book, price, size)
    volumes = DEPTH_BASE * (np.arange(LANDINGS) + 0.5) / LANDINGS
    steps: dict[str, Prepare] = {
        "one cumulative sum": _repeated(lambda: (np.cumsum(book.size), np.cumsum(size))),
        "barrier": _repeated(lambda: cascade.solve(book, price, size)),
        "gaps": _repeated(lambda: cascade.gaps(curve)),
        f"{LANDINGS} landings": _repeated(lambda: _land(curve, volumes)),
        "survival": _repeated(lambda: cascade.survival_ratios(curve, float(volumes[-1]))),
    }
    times = interleave(steps, rounds)
    times["all four"] = [sum(parts) for parts in zip(*list(times.values())[1:], strict=True)]
    return timing_rows(
        f"cascade: {kind}, {price.size:,} triggers, {book.size.size:,} levels",
        times,
        floor="one cumulative sum",
        scale=1e6 / REPEATS,
        unit="us",
        notes={"gaps": f"{len(cascade.gaps(curve)):,} gaps"},
    )


def _land(curve: cascade.BarrierCurve, volumes: Array) -> tuple[cascade.Landings, cascade.Landings]:
    return cascade.land(curve, volumes, at_touch=False), cascade.land(curve, volumes, at_touch=True)


def _repeated(run: Run) -> Prepare:
    def repeat() -> None:
        for _ in range(REPEATS):
            run()

    return always(repeat)


def _draw_triggers(count: int) -> tuple[Array, Array]:
    """Draw long positions that die on the way down, nearest first: some 60 % of the depth in all, so that gaps open and close."""
    random = np.random.default_rng(2)
    price = np.sort(REFERENCE_PRICE * (1.0 - random.uniform(0.0, REACH_RATIO, count)))[::-1].copy()
    size = random.pareto(1.5, count)
    return price, size / size.sum() * DEPTH_BASE * 0.6


def _draw_book(levels: int, *, bucket_ratio: float) -> cascade.Levels:
    """Draw bids; a level of an aggregated book stands for ``bucket_ratio`` of the distance to the level before it."""
    random = np.random.default_rng(3)
    far = REFERENCE_PRICE * (1.0 - np.linspace(0.0, REACH_RATIO, levels + 1)[1:])
    near = far + bucket_ratio * REFERENCE_PRICE * REACH_RATIO / levels
    size = random.exponential(1.0, levels)
    return cascade.Levels(near, far, size / size.sum() * DEPTH_BASE)
