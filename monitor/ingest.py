"""From frames to the engine: parse, count, apply. Live feeds and replays share this and nothing after it knows the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connectors.frames import Frame
from connectors.venue import FeedError, Venue
from monitor.engine import Engine


class Ingest:
    """Feeds an engine with frames of several venues.

    A message that cannot be used is counted by venue and reason and dropped. What it would have said of a book is missed by the
    sequence rules behind it; trades have none, so the accounts are distrusted at once.
    """

    def __init__(self, engine: Engine, venues: Mapping[str, Venue]) -> None:
        self.engine = engine
        self._sources = {name: (venue, engine.counters[name]) for name, venue in venues.items() if name in engine.counters}

    def apply(self, frame: Frame) -> None:
        """Apply one frame."""
        self.apply_all((frame,))

    def apply_all(self, frames: Iterable[Frame]) -> None:
        """Apply frames in order."""
        handlers = self.engine.handlers()
        name = ""
        for frame in frames:
            if frame.venue is not name:
                # Frames of one venue come in runs; what is the same for all of a run is looked up once.
                name = frame.venue
                source, count = self._sources[name]
                parse = source.parse
            count.frames += 1
            try:
                events = parse(frame)
            except FeedError as error:
                count.parse_errors[error.reason] = count.parse_errors.get(error.reason, 0) + 1
                if frame.payload is not None and (source.channel_key(frame.payload) or "").startswith("trades:"):
                    # The tape has no sequence numbers that would show the hole later.
                    self.engine.distrust_accounts(name)
                continue
            for event in events:
                count.events += 1
                handlers[type(event)](event)
