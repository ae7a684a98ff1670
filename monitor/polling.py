"""Asking a venue: instruments before subscribing, book snapshots when a sequence broke, accounts where it helps most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from connectors.events import Instruments
from connectors.frames import REST_CONNECTION, Frame, wrap_rest_response
from connectors.http_exchange import RestError
from connectors.rest import RestPoller
from connectors.venue import FeedError, Venue, VenueSettings
from monitor.engine import NS, Engine

log = structlog.get_logger("monitor.polling")

POLL_EVERY_S = 0.25
"""How often demands are looked at. Later choices are better ones, so little is queued at a time."""

BOOK_PAUSE_NS = 5 * NS
"""A book that still waits this long after its snapshot was asked for is asked for again."""

ACCOUNT_PAUSE_NS = 10 * NS
"""An account whose answer has not come for this long may be asked for again."""

BOOTSTRAP_PAUSE_S = 5.0


async def fetch_instruments(venue: Venue, settings: VenueSettings, poller: RestPoller) -> frozenset[str] | None:
    """Ask the bootstrap requests until they are answered.

    Returns:
        The symbols that exist and are not delisted; ``None`` if the venue publishes no complete list.
    """
    known: set[str] = set()
    complete = False
    for request in venue.bootstrap(settings):
        while True:
            try:
                body = await poller.fetch(request)
                events = venue.parse(Frame(venue.name, REST_CONNECTION, 0, wrap_rest_response(request, body)))
            except (RestError, FeedError) as error:
                log.warning("bootstrap_failed", venue=venue.name, request=request.path, error=str(error), retry_s=BOOTSTRAP_PAUSE_S)
                await asyncio.sleep(BOOTSTRAP_PAUSE_S)
                continue
            break
        for event in events:
            if isinstance(event, Instruments):
                complete |= event.complete
                known.update(item.symbol for item in event.instruments if not item.delisted)
    return frozenset(known) if complete else None


class Pollster:
    """Turns what the engine lacks into REST requests of one venue, within its rate limit."""

    def __init__(self, engine: Engine, venue: Venue, poller: RestPoller, clock_ns: Callable[[], int]) -> None:
        self._engine = engine
        self._venue = venue
        self._poller = poller
        self._clock_ns = clock_ns
        self._book_asked_ns: dict[str, int] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            now_ns = self._clock_ns()
            self._ask_for_books(now_ns)
            self._ask_for_accounts(now_ns)
            await asyncio.sleep(POLL_EVERY_S)

    def _ask_for_books(self, now_ns: int) -> None:
        for demand in self._engine.book_demands():
            if demand.venue != self._venue.name or now_ns - self._book_asked_ns.get(demand.symbol, 0) < BOOK_PAUSE_NS:
                continue
            request = self._venue.book_snapshot(demand.symbol)
            if request is None:
                continue
            self._engine.expect_snapshot(demand)
            if self._poller.submit(request, urgent=True):
                self._book_asked_ns[demand.symbol] = now_ns

    def _ask_for_accounts(self, now_ns: int) -> None:
        weight = self._poller.free_weight()
        for demand in self._engine.poll_demands(self._venue.name, now_ns, weight, pause_ns=ACCOUNT_PAUSE_NS):
            if weight <= 0:
                return
            requests = self._venue.account_requests(demand.account, mode_known=demand.mode_known)
            weight -= sum(request.weight for request in requests if self._poller.submit(request))
            # Asked in vain counts too, or those whom the venue refuses would stand first for ever.
            self._engine.accounts.note_asked(demand, now_ns)
