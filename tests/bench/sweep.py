"""Full sweeps over all positions against copying the same arrays: over flat arrays with trigger prices, and over the account table.

The flat sweep has the positions sorted by account; it writes a trigger price for each, which histogram and clusters go on with. The
sweep of the account table goes market by market, as positions are stored, and writes surplus, gross value and distance of each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.clusters import find_hills, make_grid, map_triggers
from monitor.evaluate import CLUSTERS_PER_SIDE
from monitor.settings import ProjectionSettings
from monitor.triggers import Sweep, Workspace, sweep
from tests.bench.filling import fill_legs
from tests.bench.population import MARKETS, Population, as_legs, draw_population
from tests.bench.report import Row
from tests.bench.rounds import Prepare, Run, always, interleave, timing_rows

ROUNDS = {1_000_000: 15, 3_000_000: 9, 10_000_000: 5}
"""By number of positions; the largest takes half a minute to draw and to fill in."""

TARGET_RATIO = 3.0


def measure(*, quick: bool = False) -> list[Row]:
    """Measure the sweeps at every size."""
    rows: list[Row] = []
    for positions, rounds in ({3_000: 2} if quick else ROUNDS).items():
        population = draw_population(positions)
        title = f"{positions:,} positions, {population.cash_usd.size:,} accounts, {MARKETS} markets"
        rows += _measure_flat(f"sweep: {title}", population, rounds)
        rows += _measure_table(f"sweep of the account table: {title}", population, rounds)
    return rows


def copying(*arrays: NDArray[Any]) -> Run:
    """Return a copy of ``arrays`` into memory that is there already: the least that reading and writing them can cost."""
    pairs = [(np.empty_like(array), array) for array in arrays]

    def copy() -> None:
        for target, source in pairs:
            np.copyto(target, source)

    return copy


def _measure_flat(section: str, population: Population, rounds: int) -> list[Row]:
    legs, tiers = as_legs(population)
    cash, prices = population.cash_usd, population.price
    workspace = Workspace(legs.size.size)
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
        section,
        times,
        floor="copy inputs and outputs",
        scale=1e3,
        unit="ms",
        targets={"sweep": TARGET_RATIO},
        notes={
            "sweep": _shape(swept, int(np.count_nonzero(prices[legs.market] >= legs.second_tier_price))),
            "histogram": f"{triggers.near.key.size:,} triggers within {settings.max_distance_ratio:.0%}",
            "clusters": f"{hills.place.size:,} clusters",
        },
    )


def _measure_table(section: str, population: Population, rounds: int) -> list[Row]:
    table = fill_legs(population)
    columns = [table.column(market) for market in range(population.price.size)]
    # What the sweep reads of the legs, and the rows that it reads and writes. Copied as a whole: calls for the many small columns
    # would make the floor dearer than it is.
    inputs = [np.concatenate([getattr(column, name) for column in columns]) for name in ("row", "size", "slope", "second")]
    rows = [table.cash_usd, table.surplus_usd, table.gross_usd, table.distance_ratio]
    times = interleave({"copy inputs and outputs": always(copying(*inputs, *rows)), "sweep": always(table.sweep)}, rounds)
    drift = table.sweep()
    within = np.count_nonzero(table.distance_ratio <= ProjectionSettings().max_distance_ratio)
    return timing_rows(
        section,
        times,
        floor="copy inputs and outputs",
        scale=1e3,
        unit="ms",
        targets={"sweep": TARGET_RATIO},
        notes={"sweep": f"{drift.rows:,} accounts summed, {within:,} of them within {ProjectionSettings().max_distance_ratio:.0%}"},
    )


def _shape(swept: Sweep, upper_tier: int) -> str:
    """Say what the sweep found, so that a population without triggers does not pass for a quick sweep."""
    ahead = np.count_nonzero(np.isfinite(swept.trigger_price) & (swept.trigger_price > 0.0))
    under = np.count_nonzero(swept.surplus_usd < 0.0)
    return f"{ahead:,} trigger prices, {upper_tier:,} positions in the second tier, {under:,} accounts under water"
