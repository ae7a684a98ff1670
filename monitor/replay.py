"""Run recorded frames through the engine: the recorded receive times are the clock, so the same frames give the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from connectors.frames import Frame
from connectors.venue import Venue
from monitor.engine import NS, Engine
from monitor.engine_settings import EngineSettings
from monitor.ingest import Ingest
from monitor.pacing import REFRESH_NS
from monitor.projection import MarketProjection, Projection, encode_market
from monitor.summary import ReplaySummary, summarise_market

SILENCE_MAX_NS = 60 * NS
"""A longer hole in the recording is projected through for this long, by when everything is stale, and then skipped."""


class Replay:
    """A replay in progress.

    Args:
        settings: of the engine.
        venues: the venue files by name.
        on_projection: called with every projection, in order.
        on_line: called with every line of the ``--projections`` output.
    """

    def __init__(
        self,
        settings: EngineSettings,
        venues: Mapping[str, Venue],
        *,
        on_projection: Callable[[Projection], None] | None = None,
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        self.engine = Engine(settings)
        self.projection: Projection | None = None
        self._ingest = Ingest(self.engine, venues)
        self._interval_ns = settings.projection.interval_ms * 1_000_000
        self._on_projection = on_projection
        self._on_line = on_line
        self._digest = hashlib.sha256()
        self._written: dict[tuple[str, str], MarketProjection] = {}
        self._lines = 0
        self._first_ns: int | None = None
        self._last_ns = 0
        self._next_ns = 0

    def feed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Apply ``frames`` one by one, projecting in between; yield each after it was applied."""
        for frame in frames:
            now_ns = frame.received_ns
            if self._first_ns is None:
                self._first_ns = now_ns
                self._next_ns = now_ns + self._interval_ns
            if now_ns >= self._next_ns:
                self._catch_up(now_ns)
            self._last_ns = max(self._last_ns, now_ns)
            self._ingest.apply(frame)
            yield frame

    def run(self, frames: Iterable[Frame]) -> None:
        """Apply all frames and project once more at the end."""
        for _ in self.feed(frames):
            pass
        self.finish()

    def finish(self) -> None:
        """Project the final state."""
        if self._first_ns is not None:
            self._project(self._last_ns)

    def _catch_up(self, now_ns: int) -> None:
        quiet_until_ns = self._next_ns + SILENCE_MAX_NS
        while self._next_ns <= now_ns:
            if self.engine.due(self._next_ns):
                self._project(self._next_ns)
            if self._next_ns > quiet_until_ns:
                self._next_ns = now_ns
            # With nothing arriving in between, only ages change until the refresh is due.
            step_ns = self._interval_ns if now_ns - self._next_ns < REFRESH_NS else REFRESH_NS
            self._next_ns += step_ns

    def _project(self, now_ns: int) -> None:
        self.projection = self.engine.project(now_ns)
        if self._on_projection is not None:
            self._on_projection(self.projection)
        for market in self.projection.markets:
            # A market that did not change is handed on as it was; what was made anew is another object.
            if self._written.get((market.venue, market.symbol)) is not market:
                self._written[market.venue, market.symbol] = market
                line = encode_market(market)
                self._digest.update(line)
                self._digest.update(b"\n")
                self._lines += 1
                if self._on_line is not None:
                    self._on_line(line)

    def summary(self, wall_seconds: float) -> ReplaySummary:
        """Say what was replayed; ``wall_seconds`` is the shell's measurement."""
        counters = self.engine.counters.values()
        errors: dict[str, int] = {}
        for count in counters:
            for reason, number in count.parse_errors.items():
                errors[reason] = errors.get(reason, 0) + number
        frames = sum(count.frames for count in counters)
        span_ns = self._last_ns - self._first_ns if self._first_ns is not None else 0
        return ReplaySummary(
            frames=frames,
            events=sum(count.events for count in counters),
            parse_errors=errors,
            gaps=sum(count.gaps for count in counters),
            span_seconds=span_ns / NS,
            wall_seconds=wall_seconds,
            frames_per_second=frames / wall_seconds if wall_seconds > 0 else 0.0,
            projections=self._lines,
            projections_sha256=self._digest.hexdigest(),
            markets=tuple(summarise_market(market) for market in self.projection.markets) if self.projection else (),
        )
