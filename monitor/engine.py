"""The whole core on one page: events go in, projections come out.

``apply`` changes state, here and nowhere else. ``freeze`` takes what an evaluation needs, ``evaluate`` (a pure function) may run
beside the event loop, ``adopt`` keeps what the next one can reuse; ``project`` is the three in a row. The engine never reads a
clock: every method that depends on the time is told it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from connectors.events import (
    AccountModeReport,
    AccountSnapshot,
    AnyEvent,
    BookDelta,
    BookSnapshot,
    Completeness,
    Gap,
    Instruments,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    SubscriptionNotice,
    Trade,
)
from monitor.clusters import make_grid
from monitor.evaluate import Evaluation, Inputs, MarketInput, Totals, evaluate
from monitor.freshness import market_input
from monitor.margin import Array
from monitor.pacing import choose, is_due
from monitor.projection import MarketProjection, Projection, Provenance, VenueHealth
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.state.accounts import AccountTable, PollDemand
from monitor.state.book import SequencedBook
from monitor.state.fills import Fill
from monitor.state.market_table import MarketTable
from monitor.state.markets import Market
from monitor.triggers import Workspace

MarketEvent = BookDelta | BookSnapshot | Quote | Trade | MarkPrice | OpenInterest | Liquidation

NS = 1_000_000_000

TOTALS_EVERY_NS = 5 * NS
"""Sums and ages over all positions are refreshed this often once there are more than ``TOTALS_AT_ONCE`` of them."""

TOTALS_AT_ONCE = 50_000

UNWATCHED_MARK_NS = 75 * NS
"""Marks of markets that are only held come with a poll every 30 s: one answer may fail and the next may be late."""


class EngineSettings(msgspec.Struct, frozen=True):
    """What the core is told: which markets, how finely, and when an input is too old."""

    symbols: dict[str, tuple[str, ...]]
    """The watched symbols by venue; others are quarantined."""
    projection: ProjectionSettings
    staleness: StalenessSettings
    watch_all: bool = False
    """Watch every symbol that shows up, for replays without a config."""
    simulated_venues: frozenset[str] = frozenset()
    completeness: dict[str, Completeness] = {}
    """By venue how much of its liquidations the subscribed feeds can show; a venue without such a feed is not in it."""
    accounts_max: int = 100_000


class VenueCounters:
    """What has come in from one venue."""

    __slots__ = ("events", "frames", "gaps", "notices_refused", "parse_errors")

    def __init__(self) -> None:
        self.frames = 0
        self.events = 0
        self.gaps = 0
        self.notices_refused = 0
        self.parse_errors: dict[str, int] = {}


class BookDemand(NamedTuple):
    """A sequenced book that waits for a snapshot."""

    venue: str
    symbol: str


class Engine:
    """State of all venues, and the way from events to projections."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.accounts = AccountTable(settings.accounts_max)
        self.counters = {venue: VenueCounters() for venue in settings.symbols}
        self.markets = MarketTable(settings.symbols, watch_all=settings.watch_all, completeness=settings.completeness)
        self._by_key = self.markets.by_key
        self._tiers = self.markets.rebuild_tiers()
        self._interval_ns = settings.projection.interval_ms * 1_000_000
        self._grid = make_grid(settings.projection.bucket_ratio, settings.projection.max_distance_ratio)
        self._sequence = 0
        self._last: dict[int, MarketProjection] = {}
        self._totals: Totals | None = None
        self._totals_ns = 0
        self._account_counts: dict[str, tuple[int, int, int, int]] = {}
        self._shock: Array | None = None
        # By venue the connections that carry the public tape, and the venues whose tape was lost and has not come back.
        self._tapes: dict[str, set[str]] = {venue: set() for venue in settings.symbols}
        self._tape_lost: set[str] = set()
        self._totals_after = 0
        self._workspace = Workspace(0)
        self._handlers: dict[type, Callable[[Any], None]] = {
            BookDelta: self._apply_delta,
            BookSnapshot: self._apply_snapshot,
            Quote: self._apply_quote,
            Trade: self._apply_trade,
            MarkPrice: self._apply_mark,
            OpenInterest: self._apply_open_interest,
            Liquidation: self._apply_liquidation,
            Instruments: self._apply_instruments,
            AccountSnapshot: self._apply_account,
            AccountModeReport: self._apply_account_mode,
            Gap: self._apply_gap,
            SubscriptionNotice: self._apply_notice,
        }

    # ---------------------------------------------------------------------------------------------------- events

    def apply(self, event: AnyEvent) -> None:
        """Change state by one event. A broken sequence becomes staleness of what hangs on it, never an exception."""
        self._handlers[type(event)](event)

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """Return the method for each type of event, for loops that apply millions of them."""
        return self._handlers

    def _meet(self, event: MarketEvent) -> Market | None:
        """Meet a symbol for the first time."""
        market = self.markets.meet(event.venue, event.symbol)
        if market is None:
            self._count_error(event.venue, "unknown_symbol")
        self._sync_tiers()
        return market

    def _apply_delta(self, event: BookDelta) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is not None and market.book is None:
            self.markets.notice_book(market)
        if market is not None and not market.apply_book_delta(event):
            self.counters[event.venue].gaps += 1

    def _apply_snapshot(self, event: BookSnapshot) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is not None and market.book is None:
            self.markets.notice_book(market)
        if market is not None and not market.apply_book_snapshot(event):
            self.counters[event.venue].gaps += 1

    def _apply_quote(self, event: Quote) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        # A sequenced book knows its touch better than the quote does.
        if market is not None and type(market.book) is not SequencedBook:
            market.apply_quote(event)

    def _apply_trade(self, event: Trade) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is None:
            return
        is_new = market.apply_trade(event)
        if event.buyer is None or event.seller is None:
            return
        self._hear_tape(event.venue, event.connection)
        if not is_new:
            return
        for account, size in ((event.buyer, event.size), (event.seller, -event.size)):
            fill = Fill(event.exchange_ns, market.index, size, event.price)
            self.accounts.apply_fill(event.venue, account, fill, event.received_ns, self._tiers)
        market.changed = True

    def _apply_mark(self, event: MarkPrice) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is not None:
            market.apply_mark(event)

    def _apply_open_interest(self, event: OpenInterest) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is not None:
            market.apply_open_interest(event)

    def _apply_liquidation(self, event: Liquidation) -> None:
        market = self._by_key.get((event.venue, event.symbol)) or self._meet(event)
        if market is not None:
            market.apply_liquidation(event)

    def _apply_account(self, event: AccountSnapshot) -> None:
        markets = [self._index_of(event.venue, position.symbol) for position in event.positions]
        self._sync_tiers()
        self.accounts.apply_snapshot(event, markets, self._tiers)
        for index in markets:
            self.markets[index].changed = True

    def _apply_account_mode(self, event: AccountModeReport) -> None:
        self.accounts.set_mode(event.venue, event.account, event.mode, event.received_ns)

    def _apply_notice(self, event: SubscriptionNotice) -> None:
        self.counters[event.venue].notices_refused += not event.accepted
        if event.accepted and event.channel.startswith("trades:"):
            self._hear_tape(event.venue, event.connection)

    def _apply_instruments(self, event: Instruments) -> None:
        for instrument in event.instruments:
            if not self.markets.describe(event.venue, instrument):
                self._count_error(event.venue, "bad_tiers")
        self._sync_tiers()

    def _apply_gap(self, event: Gap) -> None:
        counters = self.counters[event.venue]
        counters.gaps += 1
        if event.symbol is not None:
            market = self._by_key.get((event.venue, event.symbol))
            if market is not None:
                market.break_book(event.reason)
            return
        for market in self.markets:
            if market.venue == event.venue:
                market.interrupt(event.connection, event.reason)
        if event.connection in self._tapes[event.venue]:
            self._tape_lost.add(event.venue)
            self.distrust_accounts(event.venue)

    def _hear_tape(self, venue: str, connection: str) -> None:
        """Note that the tape runs; after a hole, states that were polled during it are as doubtful as those from before it."""
        self._tapes[venue].add(connection)
        if venue in self._tape_lost:
            self._tape_lost.discard(venue)
            self.distrust_accounts(venue)

    def distrust_accounts(self, venue: str) -> None:
        """Fills may have been missed: no account of the venue is projected until it is polled again."""
        if self.accounts.invalidate(venue):
            self._forget_totals()
            for market in self.markets:
                market.changed |= market.venue == venue

    def _forget_totals(self) -> None:
        """Have the sums over positions made anew, and not taken from an evaluation that is under way."""
        self._totals = None
        self._totals_after = self._sequence

    def _index_of(self, venue: str, symbol: str) -> int:
        index = self.markets.index_of(venue, symbol)
        if index is None:
            self._count_error(venue, "too_many_symbols")
            return self.markets.overflow()
        return index

    def _sync_tiers(self) -> None:
        if self.markets.outdated:
            self._tiers = self.markets.rebuild_tiers()
            self.accounts.refresh_tiers(self._tiers)
            self._forget_totals()

    def _count_error(self, venue: str, reason: str) -> None:
        errors = self.counters[venue].parse_errors
        errors[reason] = errors.get(reason, 0) + 1

    # ------------------------------------------------------------------------------------------------ projections

    def due(self, now_ns: int) -> bool:
        """Tell whether an evaluation at ``now_ns`` would say anything new."""
        return any(is_due(market, self._last.get(market.index), now_ns, self._interval_ns) for market in self.markets.watched())

    def project(self, now_ns: int, *, paced: bool = False) -> Projection:
        """Evaluate at ``now_ns``, in place: every market that changed, or with ``paced`` those that are due."""
        evaluation = evaluate(self.freeze(now_ns, copy=False, paced=paced), self._workspace_for())
        return self.adopt(evaluation)

    def _workspace_for(self) -> Workspace:
        if not self._workspace.fits(self.accounts.leg_count):
            self._workspace = Workspace(self.accounts.leg_count * 5 // 4)
        return self._workspace

    def freeze(self, now_ns: int, *, copy: bool, paced: bool = False) -> Inputs:
        """Take what an evaluation at ``now_ns`` needs; with ``copy`` it may run while further events are applied."""
        self._sequence += 1
        inputs: list[MarketInput] = []
        unchanged: list[MarketProjection] = []
        prices = np.full(len(self.markets), np.nan)
        chosen = choose(self.markets.watched(), self._last, now_ns, self._interval_ns, paced=paced)
        for market in self.markets:
            if not self.markets.is_watched(market):
                self._set_unwatched_price(market, prices, now_ns)
                continue
            if market.index in chosen:
                market.flow.advance(now_ns)
                simulated = market.venue in self.settings.simulated_venues
                provenance: Provenance = "simulated" if simulated else "observed"
                # Only a replay of whatever there is makes do with the middle of the book; a venue that is watched has marks.
                item = market_input(market, now_ns, self.settings.staleness, provenance, mid_for_mark=self.settings.watch_all)
                inputs.append(item)
                price = item.reference_price
                market.changed = market.repriced = False
            else:
                last = self._last[market.index]
                unchanged.append(last)
                price = last.reference_price
            prices[market.index] = np.nan if price is None else price
        large = self.accounts.leg_count > TOTALS_AT_ONCE
        reuse = self._totals if large and now_ns - self._totals_ns < TOTALS_EVERY_NS else None
        account_age_max_ns = round(self.settings.staleness.account_s * NS)
        if reuse is None:
            self._totals_ns = now_ns
            self._account_counts = {
                venue: self.accounts.counts(venue, now_ns, account_age_max_ns) for venue in self.settings.symbols
            }
        return Inputs(
            now_ns=now_ns,
            sequence=self._sequence,
            legs=self.accounts.legs(copy=copy),
            cash_usd=self.accounts.projectable_cash(now_ns, account_age_max_ns),
            prices=prices,
            tiers=self._tiers,
            # Only new sums look at these two.
            ages_ns=self.accounts.ages_ns(now_ns) if reuse is None else np.empty(0, dtype=np.int64),
            lost=self.accounts.lost(now_ns, account_age_max_ns) if reuse is None else np.empty(0, dtype=np.bool_),
            markets=tuple(inputs),
            unchanged=tuple(unchanged),
            venues=tuple(self._venue_health(venue) for venue in self.settings.symbols),
            totals=reuse,
            grid=self._grid,
            settings=self.settings.projection,
        )

    def adopt(self, evaluation: Evaluation) -> Projection:
        """Keep what the next evaluation and the poll scheduler reuse; return the projection."""
        for market in evaluation.projection.markets:
            self._last[self._by_key[market.venue, market.symbol].index] = market
        if evaluation.projection.sequence > self._totals_after:
            self._totals = evaluation.totals
        self._shock = evaluation.swept.shock.copy()  # The sweep's own array is written anew next time.
        return evaluation.projection

    def _set_unwatched_price(self, market: Market, prices: Array, now_ns: int) -> None:
        """A market that is only held, not watched, still needs a price for the accounts in it; some venues send all marks."""
        feed = market.feeds["mark"]
        if market.mark_price is not None and feed.received_ns is not None and now_ns - feed.received_ns <= UNWATCHED_MARK_NS:
            prices[market.index] = market.mark_price

    def _venue_health(self, venue: str) -> VenueHealth:
        counters = self.counters[venue]
        books = [market.book for market in self.markets if market.venue == venue and isinstance(market.book, SequencedBook)]
        known, live, stale, unknown_mode = self._account_counts[venue]
        return VenueHealth(
            venue=venue,
            frames=counters.frames,
            events=counters.events,
            parse_errors=dict(counters.parse_errors),
            gaps=counters.gaps,
            accounts_known=known,
            accounts_live=live,
            accounts_stale=stale,
            accounts_unknown_mode=unknown_mode,
            accounts_refused=self.accounts.refused,
            fills_unexplained=self.accounts.unexplained,
            subscriptions_refused=counters.notices_refused,
            book_deltas_dropped=sum(book.pending_dropped for book in books),
            book_levels_dropped=sum(book.levels_dropped for book in books),
            quarantined_symbols=self.markets.quarantined(venue),
        )

    def touch(self, venue: str, symbol: str) -> tuple[float | None, float | None]:
        """Return the best bid and ask of a book as they stand after the last event, for whoever follows every single change.

        Both are ``None`` while the book cannot be relied on. Ages are not looked at; that is what an evaluation does.
        """
        market = self._by_key.get((venue, symbol))
        if market is None or market.book is None or not market.book.reliable:
            return None, None
        return market.book.best_bid, market.book.best_ask

    # --------------------------------------------------------------------------------------------------- demands

    def book_demands(self) -> list[BookDemand]:
        """List the books that cannot go on, or not for long, without a snapshot from the venue."""
        return [
            BookDemand(market.venue, market.symbol)
            for market in self.markets
            if isinstance(market.book, SequencedBook) and market.book.wants_snapshot()
        ]

    def expect_snapshot(self, demand: BookDemand) -> None:
        """Prepare a book for the snapshot that is about to be asked for."""
        book = self._by_key[demand.venue, demand.symbol].book
        if isinstance(book, SequencedBook):
            book.expect_snapshot()

    def poll_demands(self, venue: str, now_ns: int, limit: int, *, pause_ns: int) -> list[PollDemand]:
        """List the accounts whose refresh is worth most (see :meth:`AccountTable.poll_order`)."""
        return self.accounts.poll_order(venue, now_ns, limit, self._shock, pause_ns=pause_ns)
