"""The latest of everything, and who wants to hear of it.

The shell publishes; requests, streams and scrapes read. Publishing is synchronous and cheap: messages are encoded only when a
client takes them, and once for all clients.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from alerts.alert import Alert
from monitor.metrics import Reading
from monitor.projection import DaemonStatus, MarketProjection, Projection
from monitor.web import views
from monitor.web.accounts import AccountSource, Ration
from monitor.web.history import HistoryColumns, MarketHistory
from monitor.web.redaction import Redaction

MarketKey = tuple[str, str]
"""(venue, symbol)"""

EVENT_CAPACITY = 256
"""Alert changes and history samples waiting for one stream client: at one sample a second and market for 16 markets this is 16 s
behind. A sample is at most 2 KB of JSON, so a client costs at most 0.5 MB before it is cut."""
SUBSCRIBED_MARKETS = 16
"""Markets of one stream client; a page shows one."""
RECENT_ALERTS = 200
"""Alert changes kept for the page, about 1 KB each."""


class Subscriber:
    """What one stream client has not yet been sent: conflated state, plus a bounded queue of events.

    Of state (markets, status, firing alerts) only the latest matters, so a flag stands for it. Events (alert changes, samples)
    must all arrive or the client must know that it missed some: when the queue is full ``overflowed`` is set, and the client is
    to be cut, so that it comes back and reads the state afresh.
    """

    def __init__(self) -> None:
        self.wanted: dict[MarketKey, None] = {}
        self.dirty: dict[MarketKey, None] = {}
        self.summaries_dirty = True
        self.status_dirty = True
        self.alerts_dirty = True
        self.firing_dirty = False
        self.events: deque[bytes] = deque()
        self.overflowed = False
        self.wake = asyncio.Event()

    def subscribe(self, keys: list[MarketKey]) -> None:
        """Replace the markets this client follows."""
        self.wanted = dict.fromkeys(keys[:SUBSCRIBED_MARKETS])
        self.dirty = dict(self.wanted)
        self.wake.set()

    def refresh(self) -> None:
        """Have the whole state sent again: the clock alone can change it, when nothing is published any more."""
        self.summaries_dirty = self.status_dirty = True
        self.dirty = dict(self.wanted)

    def push(self, event: bytes) -> None:
        """Queue an event, or mark the client as hopelessly behind."""
        if len(self.events) >= EVENT_CAPACITY:
            self.overflowed = True
        else:
            self.events.append(event)
        self.wake.set()


class Hub:
    """Holds what was published last, and hands it to readers with its age.

    Args:
        evaluation_timeout_s: Without a new projection for this long, every market is presented as stale.
        history_markets: How many markets get a history, first come first served.
        monotonic: A clock in seconds that never jumps; ages since publication are measured with it, so that a change of the wall
            clock makes nothing look old or fresh.

    ``accounts`` is set by the shell once there is something to tell of accounts, and ``clock_ns`` to the clock that its input is
    stamped with, because ages of accounts are counted in that.
    """

    def __init__(
        self,
        *,
        evaluation_timeout_s: float = 10.0,
        history_markets: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.projection: Projection | None = None
        self.status: DaemonStatus | None = None
        self.firing: tuple[Alert, ...] = ()
        self.recent: deque[Alert] = deque(maxlen=RECENT_ALERTS)
        self.stream_clients_cut = 0
        self.stream_clients_refused = 0
        self.history_markets_refused = 0
        self.web_counters: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        """Open, refused and cut connections of the server."""
        self.accounts: AccountSource | None = None
        self.clock_ns: Callable[[], int] = time.time_ns
        self.ration = Ration(monotonic)
        self.redaction: Redaction | None = None
        """Hides accounts; ``None`` where they may be named."""
        self._evaluation_timeout_s = evaluation_timeout_s
        self._history_markets = history_markets
        self._monotonic = monotonic
        self._published_s: float | None = None
        self._markets: dict[MarketKey, MarketProjection] = {}
        self._histories: dict[MarketKey, MarketHistory] = {}
        self._without_history: set[MarketKey] = set()
        self._subscribers: dict[Subscriber, None] = {}
        self._messages: dict[MarketKey, tuple[bool, bytes]] = {}

    def redact_with(self, redaction: Redaction) -> None:
        """Hide accounts from now on, also in what was published before."""
        self.redaction = redaction
        if self.status is not None:
            self.status = redaction.status(self.status)

    # Publishing.

    def publish(self, projection: Projection) -> None:
        """Make one evaluation the current one."""
        self.projection = projection
        self._published_s = self._monotonic()
        self._markets = {(market.venue, market.symbol): market for market in projection.markets}
        self._messages.clear()
        for key in [key for key in self._histories if key not in self._markets]:
            del self._histories[key]
        self._without_history &= self._markets.keys()
        samples = {key: sample for key, market in self._markets.items() if (sample := self._observe(key, market)) is not None}
        wanted = set().union(*(subscriber.wanted for subscriber in self._subscribers))
        events = {key: _message("sample", venue=key[0], symbol=key[1], samples=samples[key]) for key in wanted & samples.keys()}
        for subscriber in self._subscribers:
            # Summaries of all markets go out once per second of data, not once per evaluation.
            subscriber.summaries_dirty |= bool(samples)
            for key in subscriber.wanted:
                subscriber.dirty[key] = None
                if key in events:
                    subscriber.push(events[key])
            subscriber.wake.set()

    def publish_status(self, status: DaemonStatus) -> None:
        """Make one report about the process the current one."""
        self.status = status if self.redaction is None else self.redaction.status(status)
        for subscriber in self._subscribers:
            subscriber.status_dirty = True
            subscriber.wake.set()

    def publish_alerts(self, changes: list[Alert], firing: tuple[Alert, ...]) -> None:
        """Take the alerts that began, changed or ended, and all that fire now, with their present numbers."""
        if not changes and firing == self.firing:
            return
        self.firing = firing
        self.recent.extendleft(changes)
        for subscriber in self._subscribers:
            # The list of changes may be long; while only numbers change, what fires is enough.
            subscriber.alerts_dirty |= bool(changes)
            subscriber.firing_dirty = True
            for alert in changes:
                subscriber.push(_message("alert", alert=views.alert_view(alert)))
            subscriber.wake.set()

    def _observe(self, key: MarketKey, market: MarketProjection) -> HistoryColumns | None:
        history = self._histories.get(key)
        if history is None:
            if len(self._histories) >= self._history_markets:
                if key not in self._without_history:
                    self._without_history.add(key)
                    self.history_markets_refused += 1
                return None
            history = self._histories[key] = MarketHistory()
        return history.observe(market)

    # Reading.

    def evaluation_age_s(self) -> float | None:
        """Return the seconds since the last projection was published, ``None`` before the first."""
        return None if self._published_s is None else max(0.0, self._monotonic() - self._published_s)

    def late_reasons(self, as_of_ns: int | None = None) -> tuple[str, ...]:
        """Return why nothing can be shown as live, or what is of ``as_of_ns`` cannot; nothing if it can."""
        limit_s = self._evaluation_timeout_s
        reasons = [f"no new evaluation for more than {limit_s:g} s"] if self.evaluation_late() else []
        if as_of_ns is not None and self.clock_ns() - as_of_ns > limit_s * 1e9:
            reasons.append(f"the numbers are older than {limit_s:g} s")
        return tuple(reasons)

    def evaluation_late(self) -> bool:
        """Tell whether the evaluation has stopped, so that nothing it said can be shown as live."""
        age_s = self.evaluation_age_s()
        return age_s is not None and age_s > self._evaluation_timeout_s

    def market_keys(self) -> list[MarketKey]:
        """Return the known markets in the order of the projection."""
        return list(self._markets)

    def market(self, key: MarketKey) -> MarketProjection | None:
        """Return a market; when the evaluation has stopped it is stale, whatever it said of itself."""
        market = self._markets.get(key)
        return self._aged(market) if market is not None else None

    def markets(self) -> list[MarketProjection]:
        """Return all markets like ``market``."""
        return [self._aged(market) for market in self._markets.values()]

    def simulated(self, venue: str) -> bool:
        """Tell whether what comes from a venue is a simulation; one without markets counts as what the whole daemon is."""
        provenances = {market.provenance for market in self._markets.values() if market.venue == venue}
        return "simulated" in provenances or (not provenances and self.status is not None and self.status.simulated)

    def known_venues(self) -> list[str]:
        """Return the names of all venues that have reported."""
        health = self.projection.venues if self.projection is not None else ()
        return list(dict.fromkeys([*(venue.venue for venue in health), *(venue for venue, _ in self._markets)]))

    def history(self, key: MarketKey) -> MarketHistory | None:
        """Return the history of a market, ``None`` where there is no place for one."""
        return self._histories.get(key)

    def readiness(self) -> tuple[bool, tuple[str, ...]]:
        """Tell whether at least one market is fed and fresh, and if not, why (at most 20 reasons)."""
        if self.projection is None:
            return False, ("no evaluation yet",)
        markets = self.markets()
        if any(not market.stale for market in markets):
            return True, ()
        if self.evaluation_late():
            return False, self.late_reasons()
        if not markets:
            return False, ("no market is known yet",)
        reasons = [f"{market.venue}/{market.symbol}: {', '.join(market.stale_reasons) or 'stale'}" for market in markets]
        return False, (*reasons[:20], *([f"and {len(reasons) - 20} more"] if len(reasons) > 20 else []))

    def counters(self) -> views.WebCounters:
        """Return the server's own counters."""
        connections, refused, cut = self.web_counters()
        return views.WebCounters(
            connections=connections,
            connections_refused=refused,
            connections_cut=cut,
            stream_clients=len(self._subscribers),
            stream_clients_cut=self.stream_clients_cut,
            stream_clients_refused=self.stream_clients_refused,
            history_markets=len(self._histories),
            history_markets_refused=self.history_markets_refused,
            account_questions=self.ration.asked,
            account_requests_refused=self.ration.refused,
            account_aliases=len(self.redaction) if self.redaction is not None else 0,
            account_aliases_forgotten=self.redaction.forgotten if self.redaction is not None else 0,
        )

    def reading(self) -> Reading:
        """Return what a scrape sees: one consistent, immutable moment."""
        return Reading(
            projection=self.projection,
            status=self.status,
            firing=self.firing,
            evaluation_age_s=self.evaluation_age_s(),
            evaluation_late=self.evaluation_late(),
            web=msgspec.structs.asdict(self.counters()),
        )

    def _aged(self, market: MarketProjection) -> MarketProjection:
        if not self.evaluation_late():
            return market
        return msgspec.structs.replace(market, stale=True, stale_reasons=(*market.stale_reasons, *self.late_reasons()))

    # Streaming.

    def attach(self) -> Subscriber:
        """Add a stream client."""
        subscriber = Subscriber()
        self._subscribers[subscriber] = None
        return subscriber

    def detach(self, subscriber: Subscriber) -> None:
        """Forget a stream client."""
        self._subscribers.pop(subscriber, None)

    def take(self, subscriber: Subscriber) -> list[bytes]:
        """Return what a client has not been sent yet: state in its latest version, then events in order."""
        messages = []
        if subscriber.summaries_dirty:
            messages.append(_message("markets", **msgspec.structs.asdict(self.summaries())))
        if subscriber.status_dirty:
            messages.append(_message("status", **msgspec.structs.asdict(self.status_view())))
        if subscriber.alerts_dirty:
            messages.append(_message("alerts", **msgspec.structs.asdict(self.alerts_view())))
        elif subscriber.firing_dirty:
            messages.append(_message("firing", firing=self.alerts_view().firing))
        messages += [message for key in subscriber.dirty if (message := self._market_message(key)) is not None]
        messages += subscriber.events
        subscriber.summaries_dirty = subscriber.status_dirty = subscriber.alerts_dirty = subscriber.firing_dirty = False
        subscriber.dirty.clear()
        subscriber.events.clear()
        subscriber.wake.clear()
        return messages

    def summaries(self) -> views.MarketsResponse:
        """Return one line per market."""
        age_s = self.evaluation_age_s()
        return views.MarketsResponse(
            as_of_ns=self.projection.as_of_ns if self.projection else None,
            sequence=self.projection.sequence if self.projection else None,
            evaluation_age_s=age_s,
            markets=tuple(views.summary(market, age_s or 0.0) for market in self.markets()),
        )

    def status_view(self) -> views.StatusResponse:
        """Return the health of everything."""
        ready, reasons = self.readiness()
        markets = self.markets()
        return views.StatusResponse(
            ready=ready,
            not_ready_reasons=reasons,
            as_of_ns=self.projection.as_of_ns if self.projection else None,
            sequence=self.projection.sequence if self.projection else None,
            evaluation_age_s=self.evaluation_age_s(),
            markets=len(markets),
            markets_stale=sum(market.stale for market in markets),
            venues=self.projection.venues if self.projection else (),
            daemon=self.status,
            web=self.counters(),
        )

    def alerts_view(self) -> views.AlertsResponse:
        """Return what fires and what changed last."""
        return views.AlertsResponse(
            firing=tuple(views.alert_view(alert) for alert in self.firing),
            recent=tuple(views.alert_view(alert) for alert in self.recent),
        )

    def _market_message(self, key: MarketKey) -> bytes | None:
        """Encode a market once per evaluation, however many clients follow it."""
        market = self.market(key)
        if market is None:
            return _message("gone", venue=key[0], symbol=key[1])
        late = self.evaluation_late()
        known = self._messages.get(key)
        if known is None or known[0] != late:
            fields = views.market_fields(market, self.evaluation_age_s() or 0.0, histogram=False)
            known = self._messages[key] = (late, _message("market", **fields))
        return known[1]


def _message(type_: str, **fields: object) -> bytes:
    return msgspec.json.encode({"type": type_, **fields})
