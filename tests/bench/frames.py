"""From recorded frames to applied books, and a whole replay from file, against bare JSON parsing of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from connectors.frames import Frame
from connectors.importers import open_recording
from connectors.registry import VENUES
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.ingest import Ingest
from monitor.replay import Replay
from monitor.settings import ProjectionSettings, StalenessSettings
from tests.bench.report import Row
from tests.bench.rounds import Prepare, Run, always, interleave, timing_rows

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
"""Recordings are kept beside the checkout."""

RECORDINGS = {
    "BTCUSDT (hftbacktest)": "ws_raw_hftbacktest/usdm_btcusdt_*",
    "ETHUSDT (hftbacktest)": "ws_raw_hftbacktest/usdm_ethusdt_*",
    "Binance (cryptofeed)": "ws_raw_cryptofeed/BINANCE_FUTURES*",
}

TARGET_RATIO = 2.5

QUICK = "Binance (cryptofeed)"
"""The smallest of them."""

SETTINGS = EngineSettings(symbols={"binance": ()}, projection=ProjectionSettings(), staleness=StalenessSettings(), watch_all=True)


class NoRecordingsError(Exception):
    """There is nothing to measure with."""


def measure(*, quick: bool = False, data: Path = DATA) -> list[Row]:
    """Measure every recording.

    Raises:
        NoRecordingsError: the recordings are not there.
    """
    rows: list[Row] = []
    for name, pattern in RECORDINGS.items():
        if quick and name != QUICK:
            continue
        paths = sorted(data.glob(pattern))
        if not paths:
            raise NoRecordingsError(f"no recordings {pattern} beside the checkout (under ../shared/data)")
        rows += _measure_recording(f"frames: {name}", paths, quick=quick)
    return rows


def _measure_recording(section: str, paths: list[Path], *, quick: bool) -> list[Row]:
    frames = list(open_recording(paths))
    payloads = [frame.payload for frame in frames if frame.payload is not None]
    engines: list[Engine] = []
    steps: dict[str, Prepare] = {
        "orjson.loads": always(lambda: _load(payloads)),
        "parse": always(lambda: _parse(frames)),
        "parse and apply": lambda: _apply(frames, engines),
    }
    times = interleave(steps, 2 if quick else 9)
    mean_bytes = sum(map(len, payloads)) / len(payloads)
    rows = timing_rows(
        section,
        times,
        floor="orjson.loads",
        scale=1e6 / len(payloads),
        unit="us/frame",
        targets={"parse and apply": TARGET_RATIO},
        notes={"parse and apply": f"{len(frames):,} frames of {mean_bytes:.0f} B; {_outcome(engines[-1])}"},
    )
    replays: list[Replay] = []
    from_file: dict[str, Prepare] = {
        "orjson.loads, again": always(lambda: _load(payloads)),
        "read from file": always(lambda: _exhaust(paths)),
        "read, apply and project": lambda: _replay(paths, replays),
    }
    times = interleave(from_file, 2 if quick else 5)
    summary = replays[-1].summary(min(times["read, apply and project"]))
    rows += timing_rows(
        section,
        times,
        floor="orjson.loads, again",
        scale=1e6 / len(payloads),
        unit="us/frame",
        notes={
            "read, apply and project": f"{summary.frames_per_second:,.0f} frames/s at best, {summary.projections:,} projections, "
            f"{summary.span_seconds / summary.wall_seconds:,.0f} times as fast as it happened"
        },
    )
    return rows


def _load(payloads: list[bytes]) -> None:
    loads = orjson.loads
    for payload in payloads:
        loads(payload)


def _parse(frames: list[Frame]) -> None:
    parse = VENUES["binance"].parse
    for frame in frames:
        parse(frame)


def _apply(frames: list[Frame], engines: list[Engine]) -> Run:
    """Prepare a fresh engine; afterwards best bid and ask are known behind every frame, as attributes of the book."""
    engine = Engine(SETTINGS)
    engines[:] = [engine]
    ingest = Ingest(engine, VENUES)
    return lambda: ingest.apply_all(frames)


def _exhaust(paths: list[Path]) -> None:
    for _ in open_recording(paths):
        pass


def _replay(paths: list[Path], replays: list[Replay]) -> Callable[[], None]:
    replay = Replay(SETTINGS, VENUES)
    replays[:] = [replay]
    return lambda: replay.run(open_recording(paths))


def _outcome(engine: Engine) -> str:
    """Say what became of the frames, so that a pipeline that fails fast does not look quick."""
    count = engine.counters["binance"]
    return f"{count.events:,} events, {sum(count.parse_errors.values())} refused, {count.gaps} gaps"
