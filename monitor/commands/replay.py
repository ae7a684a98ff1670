"""``liqmon replay``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from connectors.frames import Frame
from connectors.importers import open_recording
from connectors.recording import RecordingError
from connectors.registry import VENUES, configured_venue
from connectors.venue import Venue
from monitor.app import engine_settings
from monitor.commands.progress import counting
from monitor.commands.terminal import BAD_INPUT, FAILED, OK, complain, read_config, stdout
from monitor.config import Config
from monitor.engine import NS, EngineSettings
from monitor.openmetrics import OpenMetricsLog
from monitor.projection import Projection
from monitor.replay import Replay
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.summary import ReplaySummary, encode_summary


def run_replay(
    paths: list[Path],
    *,
    config_path: Path | None,
    speed: str,
    venue: str | None,
    projections: Path | None,
    summary: Path | None,
    openmetrics: Path | None,
) -> int:
    """Replay recordings and write what was asked for."""
    config = None
    if config_path is not None:
        config = read_config(config_path)
        if config is None:
            return BAD_INPUT
    settings, venues = _setup(config)
    metrics = OpenMetricsLog() if openmetrics is not None else None
    with contextlib.ExitStack() as files:
        try:
            lines = files.enter_context(projections.open("wb")) if projections is not None else None
        except OSError as error:
            complain(f"cannot write {projections}: {error.strerror}")
            return BAD_INPUT
        replay = Replay(settings, venues, on_line=_line_writer(lines), on_projection=_metrics_writer(metrics))
        started_s = time.perf_counter()
        try:
            frames = _known(counting(open_recording(paths, venue), "replaying"), venues)
            replay.run(_paced(frames, speed))
        except (RecordingError, UnknownVenueError) as error:
            complain(str(error))
            return BAD_INPUT
        wall_s = time.perf_counter() - started_s
    result = replay.summary(wall_s)
    try:
        if summary is not None:
            summary.write_bytes(encode_summary(result))
        if openmetrics is not None and metrics is not None:
            openmetrics.write_bytes(metrics.render())
    except OSError as error:
        complain(f"cannot write: {error}")
        return FAILED
    _print(result)
    return OK


class UnknownVenueError(Exception):
    """The recording holds frames of a venue that is not configured, or that this program does not know."""


def _setup(config: Config | None) -> tuple[EngineSettings, dict[str, Venue]]:
    if config is not None:
        venues = {venue.name: configured_venue(venue.name, venue.settings()) for venue in config.venues}
        return engine_settings(config), venues
    nothing: tuple[str, ...] = ()
    settings = EngineSettings(
        symbols=dict.fromkeys(VENUES, nothing), projection=ProjectionSettings(), staleness=StalenessSettings(), watch_all=True
    )
    return settings, dict(VENUES)


def _known(frames: Iterable[Frame], venues: dict[str, Venue]) -> Iterator[Frame]:
    for frame in frames:
        if frame.venue not in venues:
            raise UnknownVenueError(f"the recording holds frames of {frame.venue!r}; known here: {', '.join(sorted(venues))}")
        yield frame


def _paced(frames: Iterable[Frame], speed: str) -> Iterator[Frame]:
    """Let recorded time pass at ``speed`` times real time."""
    if speed == "max":
        yield from frames
        return
    factor, first_ns, started_s = float(speed), None, time.monotonic()
    for frame in frames:
        first_ns = frame.received_ns if first_ns is None else first_ns
        ahead_s = (frame.received_ns - first_ns) / NS / factor - (time.monotonic() - started_s)
        if ahead_s > 0.0:
            time.sleep(ahead_s)
        yield frame


def _line_writer(file: BinaryIO | None) -> Callable[[bytes], None] | None:
    if file is None:
        return None

    def write(line: bytes) -> None:
        file.write(line)
        file.write(b"\n")

    return write


def _metrics_writer(metrics: OpenMetricsLog | None) -> Callable[[Projection], None] | None:
    return metrics.add if metrics is not None else None


def _print(summary: ReplaySummary) -> None:
    stdout.print(
        f"{summary.frames:,} frames, {summary.events:,} events, {summary.gaps} gaps, parse errors: "
        f"{msgspec.json.encode(summary.parse_errors).decode()}; {summary.span_seconds:,.1f} s recorded, replayed in "
        f"{summary.wall_seconds:,.1f} s ({summary.frames_per_second:,.0f} frames/s)",
        markup=False,
    )
    stdout.print(f"{summary.projections:,} projections, sha256 {summary.projections_sha256}", markup=False)
    for market in summary.markets:
        stdout.print(
            f"  {market.venue} {market.symbol}: reference {market.reference_price}, bid {market.best_bid}, ask {market.best_ask}, "
            f"{market.book_levels} levels, {market.accounts} accounts{', STALE' if market.stale else ''}",
            markup=False,
        )
