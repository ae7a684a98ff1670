"""Private account feeds beside the venues: their transports run here, and what the core lacks is asked for over them.

What is refused of any source is logged here as well: whoever writes a feed can repair it if he is told which field is wrong.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

import structlog

from connectors.account_outlet import Surroundings
from connectors.account_settings import AccountFeedSettings
from connectors.account_sources import make_source
from connectors.intake import FrameIntake
from connectors.venue import FeedError
from monitor.engine import Engine
from monitor.projection import ConnectionHealth

log = structlog.get_logger("monitor.account_inputs")

REFUSED_EVERY_S = 10.0
"""A source that has gone wrong is wrong with every message: of each source and reason one is logged this often, with a count."""

RESYNC_EVERY_S = 0.5
"""How often demands are looked at; a source asks for the same account no more often than it likes."""


class AccountInputs:
    """The configured feeds of one daemon; their frames go to the same intake as all others."""

    def __init__(
        self,
        engine: Engine,
        feeds: Sequence[AccountFeedSettings],
        *,
        intake: FrameIntake,
        seed: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._venues = {feed.name: feed.venue for feed in feeds}
        around = Surroundings(deliver=intake.put, clock_ns=clock_ns, environment=os.environ, backlog=lambda: len(intake))
        self._sources = {feed.name: make_source(feed, around._replace(seed=seed + number)) for number, feed in enumerate(feeds)}

    async def run(self) -> None:
        """Run all transports until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, source in self._sources.items():
                group.create_task(source.run(), name=f"feed-{name}")
            while self._sources:
                self._ask()
                await asyncio.sleep(RESYNC_EVERY_S)

    def _ask(self) -> None:
        for demand in self._engine.changes.resync_demands():
            after = demand.after_sequence if demand.after_sequence >= 0 else None
            self._sources[demand.feed].request_resync(demand.account, after)

    def health(self) -> list[ConnectionHealth]:
        """Describe each transport as a connection."""
        result = []
        for name, source in self._sources.items():
            status = source.health()
            connection = status.connection
            trouble = {
                "lines too long": status.lines_oversized,
                "lines torn": status.lines_torn,
                "truncations": status.truncations,
                "resyncs asked": status.resyncs_asked,
                "resyncs not sent": status.resyncs_refused,
            }
            detail = [connection.detail, *(f"{count} {what}" for what, count in trouble.items() if count)]
            result.append(
                ConnectionHealth(
                    venue=self._venues[name],
                    connection=name,
                    state=connection.state,
                    detail=", ".join(filter(None, detail)),
                    connects=connection.connects,
                    disconnects=sum(connection.disconnects.values()),
                    messages=connection.messages,
                    last_message_ns=connection.last_message_ns,
                    silent_channels=connection.silent_channels,
                )
            )
        return result


class RefusalLog:
    """Logs messages that cannot be used, by source and reason, and not more often than somebody wants to read.

    Args:
        monotonic: a clock in seconds that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # As many as there are sources, times the seven reasons of connectors.decoding.
        self._logged_s: dict[tuple[str, str], float] = {}
        self._unsaid: dict[tuple[str, str], int] = {}

    def __call__(self, error: FeedError) -> None:
        """Log a refusal, or count it for the next time."""
        key, now_s = (error.venue, error.reason), self._monotonic()
        if now_s - self._logged_s.get(key, -REFUSED_EVERY_S) < REFUSED_EVERY_S:
            self._unsaid[key] = self._unsaid.get(key, 0) + 1
            return
        self._logged_s[key] = now_s
        log.warning(
            "message_refused", source=error.venue, reason=error.reason, detail=error.excerpt, unsaid=self._unsaid.pop(key, 0)
        )
