"""From a changed mark price to the projection that has it, in a daemon under load.

A real daemon applies and projects; only its sockets are missing: the messages that they would hand over are put into its intake at
the pace of a busy day. What a socket costs by itself is therefore not in these figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import structlog
import uvloop

from connectors.frames import Frame
from monitor.app import Daemon
from monitor.config import Config
from monitor.logs import configure_logs
from monitor.projection import Projection
from monitor.settings import ProjectionSettings, VenueConfig
from monitor.triggers import Legs, sweep
from monitor.web.settings import HttpSettings
from tests.bench.population import MARKETS, account_events, as_legs, draw_population
from tests.bench.report import Row
from tests.bench.rounds import always, interleave
from tests.bench.stages import watching
from tests.bench.sweep import copying
from tests.bench.wire import Load, Message, instruments_payload, symbols

VENUE = "hyperliquid"
POSITIONS = 1_000_000
MESSAGES_PER_SECOND = 20_000
TARGET_MS = 35.0

WARM_UP_S = 3
MEASURED_S = 20
PACE_S = 0.001
"""The load is handed over in parcels of this length, as a socket is read whenever something has come."""

TICK_S = 0.005
FLOW_MINUTES = 5
"""Minutes of trades that have gone by before, so that typical flows are known and landed."""


class Scale(NamedTuple):
    """How large a run is."""

    positions: int = POSITIONS
    markets: int = MARKETS
    load_factor: float = 1.0
    warm_up_s: int = WARM_UP_S
    measured_s: int = MEASURED_S


QUICK = Scale(positions=24_000, markets=10, load_factor=0.5, warm_up_s=1, measured_s=1)
"""Still enough positions for the worker thread."""


class Observed:
    """What is noted while the daemon runs."""

    def __init__(self, daemon: Daemon, markets: int) -> None:
        self.daemon = daemon
        self.running = False
        self.latency_s: list[float] = []
        """From the moment a mark was put into the intake."""
        self.latency_due_s: list[float] = []
        """From the moment it was due: with the time that the loop was too busy to take it in."""
        self.superseded = 0
        """Marks that a newer one of the same market replaced before any projection had them."""
        self.compute_s: list[float] = []
        self.gap_s: list[float] = []
        self.projected_share: list[float] = []
        self.lateness_s: list[float] = []
        self.put = 0
        self._waiting: list[list[tuple[float, float, float]]] = [[] for _ in range(markets)]
        self._index = {symbol: number for number, symbol in enumerate(symbols(markets))}
        self._last_s = 0.0

    def expect(self, market: int, price: float, put_s: float, due_s: float) -> None:
        """Note a mark that is on its way."""
        self._waiting[market].append((price, put_s, due_s))

    def on_projection(self, projection: Projection) -> None:
        """Find the marks that this projection is the first to have."""
        now_s = time.perf_counter()
        fresh = 0
        for market in projection.markets:
            if market.as_of_ns != projection.as_of_ns:
                continue
            fresh += 1
            waiting = self._waiting[self._index[market.symbol]]
            found = next((place for place, item in enumerate(waiting) if item[0] == market.reference_price), None)
            if found is None:
                continue
            _, put_s, due_s = waiting[found]
            del waiting[: found + 1]
            if self.running:
                self.superseded += found
                self.latency_s.append(now_s - put_s)
                self.latency_due_s.append(now_s - due_s)
        if self.running:
            self.projected_share.append(fresh / len(projection.markets))
            self.gap_s.append(now_s - self._last_s)
        self._last_s = now_s


def measure(*, quick: bool = False) -> list[Row]:
    """Measure one run of a daemon."""
    scale = QUICK if quick else Scale()
    log = io.StringIO()
    configure_logs("info", "json", log)
    try:
        return uvloop.run(_measure(scale))
    finally:
        structlog.reset_defaults()


async def _measure(scale: Scale) -> list[Row]:
    section = (
        f"latency: {scale.positions:,} positions, {scale.markets} markets, "
        f"{round(MESSAGES_PER_SECOND / MARKETS * scale.markets * scale.load_factor):,} messages/s"
    )
    population = draw_population(scale.positions, scale.markets)
    daemon = Daemon(_config(scale))
    observed = Observed(daemon, scale.markets)
    daemon._on_projection = observed.on_projection
    started_s = time.perf_counter()
    open_interest = 1.5 * np.bincount(population.market, weights=np.abs(population.size), minlength=scale.markets) / 2.0
    load = Load(population.price, open_interest)
    _fill(daemon, scale, load)
    for event in account_events(population, VENUE, symbols(scale.markets), daemon._clock_ns()):
        daemon.engine.apply(event)
    fill_s = time.perf_counter() - started_s
    total_s = scale.warm_up_s + scale.measured_s
    seconds = list(load.seconds(total_s, scale.load_factor))
    floor_s = _copying_s(population)
    with watching(daemon) as stages, contextlib.closing(_Usage()) as usage:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(daemon._apply_frames()),
                group.create_task(daemon._project_changes()),
                group.create_task(_tick(observed)),
            ]
            feeding = group.create_task(_feed(daemon, observed, seconds))
            await asyncio.sleep(scale.warm_up_s)
            observed.running = stages.running = True
            usage.start()
            await feeding
            usage.stop()
            observed.running = stages.running = False
            for task in tasks:
                task.cancel()
    daemon._executor.shutdown()
    floor_s = statistics.median([*floor_s, *_copying_s(population)])
    return [
        *_rows(section, observed, usage, floor_s, fill_s),
        *stages.rows(f"{section}: where the time goes", usage.wall_s),
    ]
