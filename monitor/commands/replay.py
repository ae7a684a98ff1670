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
from connectors.registry import VENUES
from connectors.venue import Venue
from monitor.commands.progress import counting
from monitor.commands.terminal import BAD_INPUT, FAILED, OK, complain, read_config, say
from monitor.config import Config
from monitor.engine import NS
from monitor.engine_settings import EngineSettings
from monitor.openmetrics import SAMPLES_MAX, OpenMetricsLog
from monitor.projection import Projection
from monitor.replay import Replay
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.summary import ReplaySummary, encode_summary
from monitor.wiring import engine_settings, parsers


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
    try:
        with contextlib.ExitStack() as files:
            # All are opened before the work begins: an hour of replay is not lost to a misspelt folder, and what an earlier replay
            # left is not taken for the result of one that fails.
            try:
                lines, summary_file, metrics_file = (
                    files.enter_context(path.open("wb")) if path is not None else None
                    for path in (projections, summary, openmetrics)
                )
            except OSError as error:
                complain(f"cannot write {error.filename}: {error.strerror}")
                return BAD_INPUT
            replay = Replay(settings, venues, on_line=_line_writer(lines), on_projection=_metrics_writer(metrics))
            started_s = time.perf_counter()
            frames = _known(counting(open_recording(paths, venue), "replaying"), venues)
            replay.run(_paced(frames, speed))
            result = replay.summary(time.perf_counter() - started_s)
            if summary_file is not None:
                summary_file.write(encode_summary(result))
            if metrics_file is not None and metrics is not None:
                metrics_file.write(metrics.render())
    except (RecordingError, UnknownVenueError) as error:
        complain(str(error))
        return BAD_INPUT
    except OSError as error:
        # Reading fails as a RecordingError, so this is an output that cannot take more.
        complain(f"cannot write the output: {error.strerror or error}")
        return FAILED
    if metrics is not None and metrics.dropped:
        complain(f"{openmetrics}: {metrics.dropped:,} samples beyond the limit of {SAMPLES_MAX:,} were left out")
    _print(result)
    return OK


class UnknownVenueError(Exception):
    """The recording holds frames of a venue that is not configured, or that this program does not know."""


def _setup(config: Config | None) -> tuple[EngineSettings, dict[str, Venue]]:
    if config is not None:
        return engine_settings(config), parsers(config)
    nothing: tuple[str, ...] = ()
    settings = EngineSettings(
        symbols=dict.fromkeys(VENUES, nothing), projection=ProjectionSettings(), staleness=StalenessSettings(), watch_all=True
    )
    return settings, dict(VENUES)


def _known(frames: Iterable[Frame], venues: dict[str, Venue]) -> Iterator[Frame]:
    for frame in frames:
        if frame.venue not in venues:
            raise UnknownVenueError(
                f"the recording holds frames of {frame.venue!r}; known here: {', '.join(sorted(venues))}; "
                "a private account feed is known from the configuration it was recorded with, see --config"
            )
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
    errors = msgspec.json.encode(summary.parse_errors).decode()
    say(
        f"{summary.frames:,} frames, {summary.events:,} events, {summary.gaps} gaps, parse errors: {errors}; "
        f"{summary.span_seconds:,.1f} s recorded, replayed in {summary.wall_seconds:,.1f} s "
        f"({summary.frames_per_second:,.0f} frames/s)"
    )
    say(f"{summary.projections:,} projections, sha256 {summary.projections_sha256}")
    for market in summary.markets:
        say(
            f"  {market.venue} {market.symbol}: reference {market.reference_price}, bid {market.best_bid}, ask {market.best_ask}, "
            f"{market.book_levels} levels, {market.accounts} accounts{', STALE' if market.stale else ''}"
        )
