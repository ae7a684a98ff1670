"""From frames to the engine: parse, count, apply. Live feeds and replays share this and nothing after it knows the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from connectors.account_feed import AccountFeed, AccountFeedError
from connectors.frames import Frame
from connectors.hyperliquid_node import NODE_CONNECTION
from connectors.venue import FeedError, Venue
from monitor.engine import Engine


class Ingest:
    """Feeds an engine with frames of several venues.

    A message that cannot be used is counted by venue and reason and dropped. What it would have said of a book is missed by the
    sequence rules behind it; trades have none, so the accounts are distrusted at once.

    Args:
        engine: what is fed.
        venues: the parser of each source, by the name that its frames carry.
        on_refused: told of each message that cannot be used: which source, why, and for feeds which field.
    """

    def __init__(
        self, engine: Engine, venues: Mapping[str, Venue], *, on_refused: Callable[[FeedError], None] = lambda _: None
    ) -> None:
        self.engine = engine
        self._on_refused = on_refused
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
                self._doubt(frame, source, error)
                self._on_refused(error)
                continue
            for event in events:
                count.events += 1
                handlers[type(event)](event)

    def _doubt(self, frame: Frame, source: Venue, error: FeedError) -> None:
        """Have the core distrust the accounts that a lost message may have been about, where no sequence would show it later."""
        if isinstance(error, AccountFeedError) and isinstance(source, AccountFeed):
            self.engine.doubt_fed_accounts(source.name, source.venue, error.accounts)
        elif frame.payload is not None and self._tells_fills(
            frame.connection, source.channel_key(frame.payload) or "", frame.venue
        ):
            self.engine.distrust_accounts(frame.venue, frame.received_ns)

    def _tells_fills(self, connection: str, channel: str, venue: str) -> bool:
        """Tell whether positions are carried forward by what comes over a channel: the node's files, or else the public tape."""
        if venue in self.engine.node_venues:
            return connection.startswith(NODE_CONNECTION)
        return channel.startswith("trades:")
