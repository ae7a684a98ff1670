"""The whole core on one page: events go in, projections come out.

``apply`` changes state, here and nowhere else. ``freeze`` takes what an evaluation needs, ``evaluate`` (a pure function) may run
beside the event loop, ``adopt`` keeps what the next one can reuse; ``project`` is the three in a row. The engine never reads a
clock: every method that depends on the time is told it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from connectors.events import (
    AccountBalances,
    AccountDelta,
    AccountFill,
    AccountModeReport,
    AccountSnapshot,
    AnyEvent,
    BookDelta,
    BookSnapshot,
    Gap,
    Instruments,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    SubscriptionNotice,
    Trade,
)
from connectors.hyperliquid_node import NODE_CHANNEL, NODE_CONNECTION
from monitor.clusters import make_grid
from monitor.disagreement import DisagreementBook
from monitor.engine_settings import EngineSettings
from monitor.evaluate import Inputs, MarketInput, evaluate
from monitor.freshness import is_late, market_input, unwatched_price
from monitor.margin import TierTable
from monitor.pacing import choose, is_due
from monitor.projection import MarketProjection, Projection, Provenance, VenueHealth
from monitor.state.account_changes import AccountChanges
from monitor.state.accounts import MODE_STANDARD, AccountTable
from monitor.state.book import SequencedBook
from monitor.state.fills import Fill
from monitor.state.market_table import MarketTable
from monitor.state.markets import Market
from monitor.state.polls import PollDemand, PollPlanner
from monitor.state.survey import AccountSurvey
from monitor.venue_health import VenueCounters, venue_health

MarketEvent = BookDelta | BookSnapshot | Quote | Trade | MarkPrice | OpenInterest | Liquidation

NS = 1_000_000_000


class BookDemand(NamedTuple):
    """A sequenced book that waits for a snapshot."""

    venue: str
    symbol: str


class Engine:
    """State of all venues, and the way from events to projections."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.accounts = AccountTable(settings.accounts_max)
        self.counters = {venue: VenueCounters() for venue in (*settings.symbols, *settings.feeds)}
        self.markets = MarketTable(settings.symbols, watch_all=settings.watch_all, completeness=settings.completeness)
        self.accounts.base_of = self.markets.base_of
        self.changes = AccountChanges(self.accounts, self.markets.pools, settings.dexes)
        self.polls = PollPlanner(self.accounts, settings.dexes)
        self.disagreements = DisagreementBook()
        self._by_key = self.markets.by_key
        self._tiers = self.markets.rebuild_tiers()
        self._sync_tiers(force=True)
        self._interval_ns = settings.projection.interval_ms * 1_000_000
        self._grid = make_grid(settings.projection.bucket_ratio, settings.projection.max_distance_ratio)
        self._sequence = 0
        self._last: dict[int, MarketProjection] = {}
        self.survey = AccountSurvey(self.accounts, tuple(settings.symbols))
        # By venue the connections that carry the tape of fills.
        self._tapes: dict[str, set[str]] = {venue: set() for venue in settings.symbols}
        # A replay learns from the fills themselves that there was a node; both tapes together would count every fill twice.
        self.node_venues = set(settings.node_venues)
        # The public tape runs from the first subscription on; a node may be far behind when it is asked for the first time.
        self.accounts.untold |= settings.node_venues
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
            AccountDelta: self._apply_account_delta,
            AccountFill: self._apply_account_fill,
            AccountBalances: self._apply_balances,
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
        if event.venue in self.node_venues:
            return
        self._hear_tape(event)
        if not is_new:
            return
        for account, size in ((event.buyer, event.size), (event.seller, -event.size)):
            fill = Fill(event.exchange_ns, market.index, size, event.price)
            self.changes.apply_fill(event.venue, account, fill, event.received_ns)
        market.changed = True

    def _apply_account_fill(self, event: AccountFill) -> None:
        self.node_venues.add(event.venue)
        self._hear_tape(event)
        pool = event.symbol.partition(":")[0] if ":" in event.symbol else ""
        if pool and pool not in self.settings.dexes.get(event.venue, ()):
            # A node tells of all dexes; those that nobody asked for have cash of their own, which is not followed.
            return
        index = self._index_of(event.venue, event.symbol)
        self._sync_tiers()
        fill = Fill(event.exchange_ns, index, event.size, event.price, event.start_size, event.fee_usd)
        self.changes.apply_fill(event.venue, event.account, fill, event.received_ns)
        self.markets[index].changed = True

    def _apply_mark(self, event: MarkPrice) -> None:
        if event.connection in self.settings.feeds and is_late(event, self.settings.staleness.mark_s):
            self._count_error(event.connection, "late_price")
            return
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
        if event.account is not None and event.method != "market":
            # Margin or a debt went with the position, and no fill says how much.
            self.changes.doubt(event.venue, event.account, event.exchange_ns)

    def _apply_account(self, event: AccountSnapshot) -> None:
        markets = [self.markets.variant(self._index_of(event.venue, position.symbol), position) for position in event.positions]
        assets = [self._index_of(event.venue, holding.symbol) for holding in event.holdings]
        self._sync_tiers()
        if self.changes.apply_snapshot(event, markets, assets) and event.mode is None:
            row = self.accounts.row_of(event.venue, event.account, create=False)
            # Where collateral is kept elsewhere the venue's own figures mean nothing (venues.md 1.9).
            if row is not None and self.accounts.mode[row] == MODE_STANDARD:
                self.disagreements.compare(event, markets, self._tiers)
        for index in markets:
            self.markets[self.markets.base_of.get(index, index)].changed = True

    def _apply_account_delta(self, event: AccountDelta) -> None:
        markets = [self._index_of(event.venue, position.symbol) for position in event.positions]
        assets = [self._index_of(event.venue, holding.symbol) for holding in event.holdings]
        self._sync_tiers()
        self.changes.apply_delta(event, markets, assets)
        for index in markets:
            self.markets[index].changed = True

    def _apply_account_mode(self, event: AccountModeReport) -> None:
        self.accounts.set_mode(event.venue, event.account, event.mode, event.received_ns)
        self._account_changed(event.venue, event.account)

    def _apply_balances(self, event: AccountBalances) -> None:
        self.changes.apply_balances(event)
        self._account_changed(event.venue, event.account)

    def _account_changed(self, venue: str, account: str) -> None:
        for index in self.accounts.markets_of(venue, account):
            self.markets[self.markets.base_of.get(index, index)].changed = True

    def _apply_notice(self, event: SubscriptionNotice) -> None:
        self.counters[event.venue].notices_refused += not event.accepted
        is_of_node = event.venue in self.node_venues
        if event.accepted and event.channel.startswith(NODE_CHANNEL if is_of_node else "trades:"):
            self._hear_tape(event)
            if not is_of_node:
                # What happened in this market before its own subscription nobody has told, whichever others were there already.
                self.distrust_accounts(event.venue, event.received_ns)

    def _apply_instruments(self, event: Instruments) -> None:
        for instrument in event.instruments:
            if not self.markets.describe(event.venue, instrument):
                self._count_error(event.venue, "bad_tiers")
        while self.markets.retabled:
            if self.changes.doubt_holders(self.markets.retabled.pop()):
                self._all_changed(event.venue)
        self._sync_tiers()

    def _apply_gap(self, event: Gap) -> None:
        if event.connection in self.settings.feeds:
            self.counters[event.connection].gaps += 1
            if self.changes.lose_feed(event.connection):
                self._all_changed(event.venue)
            self._interrupt(event)
            return
        counters = self.counters[event.venue]
        counters.gaps += 1
        if event.symbol is not None:
            market = self._by_key.get((event.venue, event.symbol))
            if market is not None:
                market.break_book(event.reason)
            return
        self._interrupt(event)
        if event.connection in self._tapes[event.venue] or event.connection.startswith(NODE_CONNECTION):
            self.accounts.untold.add(event.venue)
            self.distrust_accounts(event.venue, event.received_ns)

    def _interrupt(self, gap: Gap) -> None:
        for market in self.markets:
            if market.venue == gap.venue:
                market.interrupt(gap.connection, gap.reason)

    def _hear_tape(self, event: Trade | AccountFill | SubscriptionNotice) -> None:
        """Note that the tape runs; after a hole, states that were polled during it are as doubtful as those from before it."""
        self._tapes[event.venue].add(event.connection)
        if event.venue in self.accounts.untold:
            self.accounts.untold.discard(event.venue)
            self.distrust_accounts(event.venue, event.received_ns)

    def doubt_fed_accounts(self, feed: str, venue: str, accounts: tuple[str, ...]) -> None:
        """A message of a private feed could not be used: the accounts that it was about have missed something."""
        if self.changes.doubt_fed(feed, venue, accounts):
            self._all_changed(venue)

    def distrust_accounts(self, venue: str, received_ns: int) -> None:
        """Fills may have been missed: no account of the venue is projected until it is polled again."""
        if self.accounts.invalidate(venue, received_ns):
            self._all_changed(venue)

    def _all_changed(self, venue: str) -> None:
        for market in self.markets:
            market.changed |= market.venue == venue

    def _index_of(self, venue: str, symbol: str) -> int:
        index = self.markets.index_of(venue, symbol)
        if index is None:
            self._count_error(venue, "too_many_symbols")
            return self.markets.overflow()
        return index

    def _sync_tiers(self, *, force: bool = False) -> None:
        if self.markets.outdated or force:
            self._tiers = self.markets.rebuild_tiers()
            self.accounts.legs.set_terms(self._tiers, self.markets.collateral_ratios, self.accounts.categories)

    def _count_error(self, venue: str, reason: str) -> None:
        errors = self.counters[venue].parse_errors
        errors[reason] = errors.get(reason, 0) + 1

    # ------------------------------------------------------------------------------------------------ projections

    def due(self, now_ns: int) -> bool:
        """Tell whether an evaluation at ``now_ns`` would say anything new."""
        return any(is_due(market, self._last.get(market.index), now_ns, self._interval_ns) for market in self.markets.watched())

    def project(self, now_ns: int, *, paced: bool = False) -> Projection:
        """Evaluate at ``now_ns``, in place: every market that changed, or with ``paced`` those that are due."""
        return self.adopt(evaluate(self.freeze(now_ns, paced=paced)))

    def freeze(self, now_ns: int, *, paced: bool = False) -> Inputs:
        """Take what an evaluation at ``now_ns`` needs; it is a copy, so that further events may be applied meanwhile."""
        self._sequence += 1
        inputs: list[MarketInput] = []
        unchanged: list[MarketProjection] = []
        prices = np.full(len(self.markets), np.nan)
        chosen = choose(self.markets.watched(), self._last, now_ns, self._interval_ns, paced=paced)
        for market in self.markets:
            if not self.markets.is_watched(market):
                prices[market.index] = unwatched_price(market, now_ns)
                continue
            if market.index in chosen:
                market.flow.advance(now_ns)
                provenance: Provenance = "simulated" if market.venue in self.settings.simulated_venues else "observed"
                # Only a replay of whatever there is makes do with the middle of the book; a venue that is watched has marks.
                has_book = market.venue not in self.settings.bookless_venues
                limits, mid = self.settings.staleness, self.settings.watch_all
                item = market_input(market, now_ns, limits, provenance, mid_for_mark=mid, has_book=has_book)
                inputs.append(item)
                price = item.reference_price
                market.changed = market.repriced = False
            else:
                last = self._last[market.index]
                unchanged.append(last)
                price = last.reference_price
            prices[market.index] = np.nan if price is None else price
        for variant, base in self.markets.base_of.items():
            prices[variant] = prices[base]
        account_age_max_ns = self.account_age_max_ns
        self.survey.reprice(prices, now_ns, account_age_max_ns)
        return Inputs(
            now_ns=now_ns,
            sequence=self._sequence,
            legs=self.accounts.market_legs([self.markets.family(item.market) for item in inputs], now_ns, account_age_max_ns),
            prices=prices,
            tiers=self._tiers,
            markets=tuple(inputs),
            unchanged=tuple(unchanged),
            venues=tuple(self._venue_health(venue, counters) for venue, counters in self.counters.items()),
            sweeps=self.survey.sweeps,
            grid=self._grid,
            settings=self.settings.projection,
        )

    @property
    def tiers(self) -> TierTable:
        """The margin tiers of all markets."""
        return self._tiers

    @property
    def account_age_max_ns(self) -> int:
        """Age beyond which an account is stale."""
        return round(self.settings.staleness.account_s * NS)

    def adopt(self, projection: Projection) -> Projection:
        """Keep the markets of a finished evaluation, which the next one may pass on as they are."""
        for market in projection.markets:
            self._last[self._by_key[market.venue, market.symbol].index] = market
        return projection

    def _venue_health(self, venue: str, counters: VenueCounters) -> VenueHealth:
        return venue_health(
            venue,
            counters,
            markets=self.markets,
            changes=self.changes,
            survey=self.survey,
            disagreements=self.disagreements.counts(venue),
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
        """List the accounts whose refresh is worth most (see :meth:`PollPlanner.plan`)."""
        return self.polls.plan(venue, now_ns, limit, pause_ns=pause_ns)
