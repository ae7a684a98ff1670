"""The real recordings that end-to-end tests run on, and how to look into what became of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from connectors.frames import Frame
from connectors.importers import open_recording
from connectors.registry import VENUES
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.replay import Replay
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.state.book import SequencedBook

NS = 1_000_000_000

LIQMON = str(Path(sys.executable).with_name("liqmon"))
"""The command as it is installed beside the interpreter that runs the tests."""


class Capture(NamedTuple):
    """One recording of Binance by hftbacktest, in files that follow one another."""

    symbol: str
    names: tuple[str, ...]

    def paths(self, shared_data: Path) -> list[Path]:
        return [shared_data / "data" / "ws_raw_hftbacktest" / name for name in self.names]

    def frames(self, shared_data: Path) -> tuple[Frame, ...]:
        return _frames(tuple(self.paths(shared_data)))


BTC = Capture("BTCUSDT", ("usdm_btcusdt_20230404.dat.gz", "usdm_btcusdt_20230405.dat.gz"))
ETH = Capture("ETHUSDT", ("usdm_ethusdt_20240718.gz", "usdm_ethusdt_20240719.gz"))


@cache
def _frames(paths: tuple[Path, ...]) -> tuple[Frame, ...]:
    return tuple(open_recording(paths))


def is_depth(frame: Frame, symbol: str = "") -> bool:
    """Tell whether a frame is a change of a book."""
    payload = frame.payload or b""
    return b'"depthUpdate"' in payload[:80] and symbol.lower().encode() in payload[:30]


def settings(symbols: tuple[str, ...] = (), *, interval_ms: int = 10_000) -> EngineSettings:
    """Watch ``symbols`` of Binance, or whatever comes; projections are rare unless a test is about them, because they cost most."""
    return EngineSettings(
        symbols={"binance": symbols},
        projection=ProjectionSettings(interval_ms=interval_ms),
        staleness=StalenessSettings(),
        watch_all=not symbols,
    )


def replayed(frames: Iterable[Frame], *, interval_ms: int = 10_000) -> Replay:
    """Replay frames to their end."""
    replay = Replay(settings(interval_ms=interval_ms), VENUES)
    replay.run(frames)
    return replay


class Book(NamedTuple):
    """All levels of both sides, best first, as price and size."""

    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


def book_of(engine: Engine, symbol: str) -> Book:
    """Return every level of a book, also those that a projection leaves out because they lie beyond the snapshot."""
    book = engine.markets.by_key["binance", symbol].book
    assert isinstance(book, SequencedBook), f"no book of {symbol}"
    assert book.state == "live", f"the book of {symbol} is {book.state}"
    return Book(sorted(book.bids.items(), reverse=True), sorted(book.asks.items()))


def environment(**more: str) -> Mapping[str, str]:
    """Return the environment of a command, without what would change its output."""
    return {**{name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR"}}, **more}
