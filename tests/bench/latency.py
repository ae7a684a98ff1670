"""From a changed mark price to the projection that has it, in a daemon under load.

A real daemon applies and projects; only its sockets are missing: the messages that they would hand over are put into its intake at
the pace of a busy day. What a socket costs by itself is therefore not in these figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import math
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import structlog
import uvloop

from connectors.frames import Frame
from monitor.app import Daemon, tune_interpreter
from monitor.config import Config
from monitor.evaluate import evaluate
from monitor.logs import configure_logs
from monitor.projection import Projection
from monitor.settings import ProjectionSettings, VenueConfig
from monitor.triggers import sweep
from monitor.web.settings import HttpSettings
from tests.bench.observing import TICK_S, Observed, Usage, tick
from tests.bench.population import MARKETS, POSITIONS_PER_ACCOUNT, Population, account_events, as_legs, draw_population
from tests.bench.report import Row
from tests.bench.rounds import always, interleave
from tests.bench.stages import watching
from tests.bench.sweep import copying
from tests.bench.wire import Load, Message, instruments_payload, symbols

VENUE = "hyperliquid"
POSITIONS = 1_000_000
MESSAGES_PER_SECOND = 20_000
TARGET_MS = 35.0
EAGER_INTERVAL_MS = 20
"""The least that the configuration allows."""

WARM_UP_S = 3
MEASURED_S = 20
PACE_S = 0.001
"""The load is handed over in parcels of this length, as a socket is read whenever something has come."""

ALONE_ROUNDS = 10

FLOW_MINUTES = 5
"""Minutes of trades that have gone by before, so that typical flows are known and landed."""


class Scale(NamedTuple):
    """How large a run is."""

    positions: int = POSITIONS
    markets: int = MARKETS
    load_factor: float = 1.0
    warm_up_s: int = WARM_UP_S
    measured_s: int = MEASURED_S
    interval_ms: int = ProjectionSettings().interval_ms
    """How soon a market without a new mark is projected again after a change; one with a new mark always is at once."""


QUICK = Scale(positions=24_000, markets=10, load_factor=0.5, warm_up_s=1, measured_s=1)
"""Still enough positions for the worker thread."""


def measure(*, quick: bool = False) -> list[Row]:
    """Measure a daemon as it comes, and one that is told to project every change as soon as it can."""
    scales = [QUICK] if quick else [Scale(), Scale(interval_ms=EAGER_INTERVAL_MS)]
    rows: list[Row] = []
    for scale in scales:
        with _logs_aside():
            rows += uvloop.run(_measure(scale))
    return rows


async def _measure(scale: Scale) -> list[Row]:
    section = (
        f"latency: {scale.positions:,} positions, {scale.markets} markets, "
        f"{round(MESSAGES_PER_SECOND / MARKETS * scale.markets * scale.load_factor):,} messages/s, "
        f"interval_ms = {scale.interval_ms}"
    )
    population = draw_population(scale.positions, scale.markets)
    observed_base = np.bincount(population.market, weights=np.abs(population.size), minlength=scale.markets)
    load = Load(population.price, open_interest=np.multiply(observed_base, 0.75, dtype=np.float64))
    once = load.once()
    seconds = list(load.seconds(scale.warm_up_s + scale.measured_s, scale.load_factor))
    # The daemon's collections are part of what is measured; they must not look through the load as well.
    gc.collect()
    gc.freeze()
    tune_interpreter()
    daemon = Daemon(_config(scale))
    observed = Observed(daemon, scale.markets)
    daemon._on_projection = observed.on_projection
    fill_s = _fill(daemon, population, once["trades"])
    legs, tiers = as_legs(population)
    copy = copying(*legs, population.cash_usd, population.price, *sweep(legs, population.cash_usd, population.price, tiers))
    floor_s = interleave({"copy": always(copy)}, 10)["copy"]
    _apply(daemon, [message for messages in once.values() for message in messages], daemon.now_ns())
    alone = _project_alone(daemon, seconds, ALONE_ROUNDS)
    usage = Usage()
    with watching(daemon) as stages:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(daemon._apply_frames()),
                group.create_task(daemon._project_changes()),
                group.create_task(tick(observed)),
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
    gc.unfreeze()
    floor_s += interleave({"copy": always(copy)}, 10)["copy"]
    return [
        *_rows(section, scale, observed, usage, floor_s, fill_s),
        *_alone_rows(f"{section}: one pass without any load, all markets changed", alone, statistics.median(floor_s)),
        *stages.rows(f"{section}: where the time goes", usage.wall_s),
    ]


def _config(scale: Scale) -> Config:
    # Built without validation, which refuses more than the 125 coins that the venue allows one address: the load is what matters
    # here, and all of it in the format of one venue is easier to read. Nothing of it connects anywhere.
    venue = VenueConfig.model_construct(name=VENUE, symbols=tuple(symbols(scale.markets)), accounts_max=1_000_000)
    projection = ProjectionSettings(interval_ms=scale.interval_ms)
    return Config.model_construct(http=HttpSettings(enabled=False), projection=projection, venues=(venue,))


@contextlib.contextmanager
def _logs_aside() -> Iterator[None]:
    """Write logs as the daemon does, to where nobody reads them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("info", "json", io.StringIO())
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def _fill(daemon: Daemon, population: Population, trades: list[Message]) -> float:
    """Tell the daemon all it knows at the beginning, event by event, and return the seconds that the accounts took."""
    now_ns = daemon.now_ns()
    markets = population.price.size
    daemon._ingest.apply(Frame(VENUE, "rest", now_ns, instruments_payload(markets)))
    for minutes in range(FLOW_MINUTES, 0, -1):
        _apply(daemon, trades, now_ns - minutes * 60_000_000_000)
    started_s = time.perf_counter()
    for event in account_events(population, VENUE, symbols(markets), now_ns):
        daemon.engine.apply(event)
    return time.perf_counter() - started_s


def _apply(daemon: Daemon, messages: list[Message], now_ns: int) -> None:
    stamp = b"%d" % (now_ns // 1_000_000)
    daemon._ingest.apply_all(Frame(VENUE, message.connection, now_ns, message.payload(stamp)) for message in messages)


def _project_alone(daemon: Daemon, seconds: list[list[Message]], rounds: int) -> dict[str, list[float]]:
    """Time the steps of an evaluation of all markets one after the other, with nothing beside them."""
    steps = ("freeze", "evaluate", "adopt", "publish")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        # Every market gets a mark that differs from its last one.
        marks = [message for message in seconds[number % len(seconds)] if message.market >= 0]
        _apply(daemon, marks, daemon.now_ns())
        stamps = [time.perf_counter()]
        inputs = daemon.engine.freeze(daemon.now_ns())
        stamps.append(time.perf_counter())
        evaluation = evaluate(inputs)
        stamps.append(time.perf_counter())
        projection = daemon.engine.adopt(evaluation)
        stamps.append(time.perf_counter())
        daemon._publish(projection)
        stamps.append(time.perf_counter())
        if number:
            for name, (start_s, end_s) in zip(steps, pairwise(stamps), strict=True):
                times[name].append(end_s - start_s)
    times["all four"] = [sum(parts) for parts in zip(*times.values(), strict=True)]
    return times


def _alone_rows(section: str, times: dict[str, list[float]], copy_s: float) -> list[Row]:
    return [
        Row(
            section=section,
            what=name,
            median=statistics.median(seconds) * 1e3,
            least=min(seconds) * 1e3,
            unit="ms",
            ratio=statistics.median(seconds) / copy_s,
            ratio_least=min(seconds) / copy_s,
        )
        for name, seconds in times.items()
    ]


async def _feed(daemon: Daemon, observed: Observed, seconds: list[list[Message]]) -> None:
    """Put every message into the intake when it is due, or as soon after that as the loop lets us."""
    clock, put = time.perf_counter, daemon._intake.put
    begun_s = clock()
    for second, messages in enumerate(seconds):
        sent, count = 0, len(messages)
        while sent < count:
            put_s = clock()
            due = min(count, int((put_s - begun_s - second) * count))
            now_ns = daemon.now_ns()
            stamp = b"%d" % (now_ns // 1_000_000)
            for number in range(sent, due):
                message = messages[number]
                if message.market >= 0:
                    observed.expect(message.market, message.price, put_s, begun_s + second + number / count)
                put(Frame(VENUE, message.connection, now_ns, message.payload(stamp)))
            if observed.running:
                observed.put += max(0, due - sent)
                observed.load_s += clock() - put_s
            sent = max(sent, due)
            await asyncio.sleep(PACE_S)


def _rows(section: str, scale: Scale, observed: Observed, usage: Usage, floor_s: list[float], fill_s: float) -> list[Row]:
    copy_s = statistics.median(floor_s)

    def row(what: str, seconds: float, note: str = "", target: float | None = None, *, ratio: bool = True) -> Row:
        return Row(
            section=section,
            what=what,
            median=seconds * 1e3,
            unit="ms",
            ratio=seconds / copy_s if ratio else None,
            target=target,
            note=note,
        )

    put, due, late = observed.latency_s, observed.latency_due_s, observed.lateness_s
    daemon, wall_s = observed.daemon, usage.wall_s
    counters = daemon.engine.counters[VENUE]
    return [
        row("copy inputs and outputs", copy_s, f"the floor; {min(floor_s) * 1e3:.3g} to {max(floor_s) * 1e3:.3g} ms"),
        row(
            "mark put to projection, median",
            _quantile(put, 0.5),
            "; ".join(filter(None, (_doubts(observed, scale), f"of {len(put):,} marks, {observed.superseded} superseded"))),
            TARGET_MS,
        ),
        row("mark put to projection, p90", _quantile(put, 0.9)),
        row("mark put to projection, p99", _quantile(put, 0.99), f"at most {max(put, default=0.0) * 1e3:.0f} ms"),
        row("mark due to projection, median", _quantile(due, 0.5), "with the wait for the loop to take it in"),
        row("mark due to projection, p99", _quantile(due, 0.99), f"at most {max(due, default=0.0) * 1e3:.0f} ms"),
        row(
            "from projection to projection, median",
            _quantile(observed.gap_s, 0.5),
            f"{len(observed.gap_s) / wall_s:.1f} projections/s, {_mean(observed.projected_share):.0%} of the markets anew in each",
        ),
        row(f"delay of a {TICK_S * 1e3:g} ms timer, median", _quantile(late, 0.5), ratio=False),
        row(f"delay of a {TICK_S * 1e3:g} ms timer, p99", _quantile(late, 0.99), f"at most {max(late) * 1e3:.0f} ms", ratio=False),
        Row(
            section=section,
            what="processor, event loop",
            median=usage.loop_s / wall_s * 100.0,
            unit="%",
            note=f"{observed.load_s / wall_s:.1%} of it, about, makes the load",
        ),
        Row(section=section, what="processor, all threads", median=usage.all_s / wall_s * 100.0, unit="%", note="of one core"),
        Row(
            section=section,
            what="waiting for a core, event loop",
            median=usage.loop_waited_s / wall_s * 100.0,
            unit="%",
            note="because other processes had them; near 0 on a quiet machine",
        ),
        Row(
            section=section,
            what="messages",
            median=observed.put / wall_s,
            unit="1/s",
            note=f"{daemon._intake.dropped} dropped, {sum(counters.parse_errors.values())} refused, {counters.gaps} gaps",
        ),
        Row(section=section, what="fill the account tables", median=fill_s, unit="s", note="event by event, before the run"),
        Row(
            section=section,
            what="clusters per market",
            median=_clusters(daemon),
            unit="",
            note=f"{daemon.engine.accounts.legs.leg_count:,} positions, {daemon.engine.accounts.account_count:,} accounts",
        ),
    ]


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else math.nan


def _last(daemon: Daemon) -> Projection:
    assert daemon.hub.projection is not None, "the run ended before the first projection"
    return daemon.hub.projection


def _doubts(observed: Observed, scale: Scale) -> str:
    """Say why a run was not of the scenario; empty if it was."""
    daemon = observed.daemon
    doubts = []
    if daemon._intake.dropped:
        doubts.append(f"{daemon._intake.dropped:,} messages did not fit the intake")
    live = sum(venue.accounts_live for venue in _last(daemon).venues)
    if live < scale.positions // POSITIONS_PER_ACCOUNT:
        doubts.append(f"{live:,} live accounts were left")
    stale = sum(market.stale for market in _last(daemon).markets)
    if stale:
        doubts.append(f"{stale} markets were stale")
    return f"NOT THE SCENARIO: {', '.join(doubts)}" if doubts else ""


def _clusters(daemon: Daemon) -> float:
    return statistics.median(len(market.clusters) for market in _last(daemon).markets)
