"""Asking a venue: instruments before subscribing, book snapshots when a sequence broke, accounts where it helps most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from connectors.events import Instruments
from connectors.frames import REST_CONNECTION, Frame, RestRequest, wrap_rest_response
from connectors.http_exchange import RestError
from connectors.hyperliquid import Hyperliquid
from connectors.rest import RestPoller
from connectors.venue import FeedError, Venue, VenueSettings
from monitor.engine import NS, Engine
from monitor.state.polls import PollDemand

log = structlog.get_logger("monitor.polling")

POLL_EVERY_S = 0.25
"""How often demands are looked at. Later choices are better ones, so little is queued at a time."""

BOOK_PAUSE_NS = 5 * NS
"""A book that still waits this long after its snapshot was asked for is asked for again."""

ACCOUNT_PAUSE_NS = 75 * NS
"""An account whose answer has not come for this long may be asked for again: after three tries of 20 s with their pauses no answer
to the first question is under way any more, which would pass for one to the second."""

BOOTSTRAP_PAUSE_S = 5.0

BOOTSTRAP_TRIES = 5
"""Of requests that come after a complete list of markets: without them the daemon can do its work."""

DEMANDS_MAX = 1_000
"""Accounts chosen at a time: with an own node that is 4,000 a second, more than it will answer."""


async def fetch_instruments(venue: Venue, settings: VenueSettings, poller: RestPoller) -> frozenset[str] | None:
    """Ask the bootstrap requests until they are answered.

    Returns:
        The symbols that exist and are not delisted; ``None`` if the venue publishes no complete list.
    """
    known: set[str] = set()
    complete = False
    for request in venue.bootstrap(settings):
        tries = 0
        while True:
            try:
                body = await poller.fetch(request)
                events = venue.parse(Frame(venue.name, REST_CONNECTION, 0, wrap_rest_response(request, body)))
            except (RestError, FeedError) as error:
                tries += 1
                log.warning("bootstrap_failed", venue=venue.name, request=request.path, error=str(error), retry_s=BOOTSTRAP_PAUSE_S)
                if tries >= BOOTSTRAP_TRIES and complete:
                    # What the venue needs is there; a further list, of a dex that may not exist, is asked for again as it goes.
                    log.error("bootstrap_given_up", venue=venue.name, request=request.body or request.path)  # noqa: TRY400
                    events = []
                    break
                await asyncio.sleep(BOOTSTRAP_PAUSE_S)
                continue
            break
        for event in events:
            if isinstance(event, Instruments):
                complete |= event.complete
                known.update(item.symbol for item in event.instruments if not item.delisted)
    return frozenset(known) if complete else None


class Pollster:
    """Turns what the engine lacks into REST requests of one venue, within its rate limit.

    Args:
        engine: what lacks something.
        venue: who is asked.
        poller: the way to the venue.
        clock_ns: the time.
        node: the way to an own node, which is asked first for whatever it serves.
    """

    def __init__(
        self, engine: Engine, venue: Venue, poller: RestPoller, clock_ns: Callable[[], int], *, node: RestPoller | None = None
    ) -> None:
        self._engine = engine
        self._venue = venue
        self._poller = poller
        self._node = node
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
        weight = {id(poller): poller.free_weight() for poller in (self._poller, self._node) if poller is not None}
        demands = self._engine.poll_demands(
            self._venue.name, now_ns, min(max(weight.values()), DEMANDS_MAX), pause_ns=ACCOUNT_PAUSE_NS
        )
        for demand in demands:
            if max(weight.values()) <= 0:
                return
            requests = [(request, self._way(request)) for request in self._venue.account_requests(demand.question)]
            if any(weight[id(way)] <= 0 for _, way in requests):
                # The node answers for ever, the venue for the mode only so often: whoever needs what is used up waits. Its kind has
                # had its turn though, or lists of nothing else would leave the node without work.
                self._engine.polls.note_asked(demand, self._asked_ns(demand))
                continue
            for request, way in requests:
                if way.submit(request):
                    weight[id(way)] -= request.weight
            # Asked in vain counts too, or those whom the venue refuses would stand first for ever.
            self._engine.polls.note_asked(demand, now_ns)

    def _asked_ns(self, demand: PollDemand) -> int:
        """Return when an account was last asked for."""
        accounts = self._engine.accounts
        row = accounts.row_of(demand.venue, demand.question.account, create=False)
        return 0 if row is None else int(accounts.asked_ns[row])

    def _way(self, request: RestRequest) -> RestPoller:
        if self._node is not None and isinstance(self._venue, Hyperliquid) and self._venue.is_served_by_node(request):
            return self._node
        return self._poller
