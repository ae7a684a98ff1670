"""The margin sweep with trigger prices, and the clusters of its result, against copying the same arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.clusters import find_hills, make_grid, map_triggers
from monitor.evaluate import CLUSTERS_PER_SIDE
from monitor.settings import ProjectionSettings
from monitor.triggers import Sweep, Workspace, sweep
from tests.bench.population import MARKETS, as_legs, draw_population
from tests.bench.report import Row
from tests.bench.rounds import Prepare, Run, always, interleave, timing_rows

SIZES = (100_000, 1_000_000, 3_000_000)
TARGET_POSITIONS = 1_000_000
TARGET_RATIO = 8.0


def measure(*, quick: bool = False) -> list[Row]:
    """Measure the sweep at every size."""
    rows: list[Row] = []
    for positions in (3_000,) if quick else SIZES:
        rows += _measure_size(positions, rounds=2 if quick else 15)
    return rows


def copying(*arrays: NDArray[Any]) -> Run:
    """Return a copy of ``arrays`` into memory that is there already: the least that reading and writing them can cost."""
    pairs = [(np.empty_like(array), array) for array in arrays]

    def copy() -> None:
        for target, source in pairs:
            np.copyto(target, source)

    return copy


def _measure_size(positions: int, rounds: int) -> list[Row]:
    population = draw_population(positions)
    legs, tiers = as_legs(population)
    cash, prices = population.cash_usd, population.price
    workspace = Workspace(positions)
    settings = ProjectionSettings()
    grid = make_grid(settings.bucket_ratio, settings.max_distance_ratio)
    swept = sweep(legs, cash, prices, tiers, workspace)
    triggers = map_triggers(legs, swept, prices, grid)
    hills = find_hills(triggers, per_side=CLUSTERS_PER_SIDE, min_share=settings.cluster_min_share)
    steps: dict[str, Prepare] = {
        "copy inputs and outputs": always(copying(*legs, cash, prices, *swept)),
        "sweep": always(lambda: sweep(legs, cash, prices, tiers, workspace)),
        "histogram": always(lambda: map_triggers(legs, swept, prices, grid)),
        "clusters": always(
            lambda: find_hills(triggers, per_side=CLUSTERS_PER_SIDE, min_share=settings.cluster_min_share),
        ),
    }
    times = interleave(steps, rounds)
    times["sweep, histogram and clusters"] = [sum(parts) for parts in zip(*list(times.values())[1:], strict=True)]
    return timing_rows(
        f"sweep: {positions:,} positions, {cash.size:,} accounts, {MARKETS} markets",
        times,
        floor="copy inputs and outputs",
        scale=1e3,
        unit="ms",
        targets={"sweep": TARGET_RATIO} if positions == TARGET_POSITIONS else {},
        notes={
            "sweep": _shape(swept, int(np.count_nonzero(prices[legs.market] >= legs.second_tier_price))),
            "histogram": f"{triggers.near.key.size:,} triggers within {settings.max_distance_ratio:.0%}",
            "clusters": f"{hills.place.size:,} clusters",
        },
    )


def _shape(swept: Sweep, upper_tier: int) -> str:
    """Say what the sweep found, so that a population without triggers does not pass for a quick sweep."""
    ahead = np.count_nonzero(np.isfinite(swept.trigger_price) & (swept.trigger_price > 0.0))
    under = np.count_nonzero(swept.surplus_usd < 0.0)
    return f"{ahead:,} trigger prices, {upper_tier:,} positions in the second tier, {under:,} accounts under water"
