"""The whole core on one page: events go in, projections come out.

``apply`` changes state, here and nowhere else. ``freeze`` takes what an evaluation needs, ``evaluate`` (a pure function) may run
beside the event loop, ``adopt`` keeps what the next one can reuse; ``project`` is the three in a row. The engine never reads a
clock: every method that depends on the time is told it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    MarginTier,
    MarkPrice,
    OpenInterest,
    Quote,
    SubscriptionNotice,
    Trade,
)
from monitor.clusters import make_grid
from monitor.evaluate import Evaluation, Inputs, MarketInput, Totals, evaluate
from monitor.freshness import market_input
from monitor.margin import Array, TierError, TierTable, build_tier_table, check_tiers
from monitor.projection import MarketProjection, Projection, VenueHealth
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.state.accounts import AccountTable, Fill, PollDemand
from monitor.state.book import SequencedBook
from monitor.state.markets import Market
from monitor.triggers import Workspace

MarketEvent = BookDelta | BookSnapshot | Quote | Trade | MarkPrice | OpenInterest | Liquidation

NS = 1_000_000_000

REFRESH_NS = NS
"""A market is projected again after this long even if nothing changed, so that ages and staleness are never older than this."""

TOTALS_EVERY_NS = 5 * NS
"""Sums and ages over all positions are refreshed this often once there are more than ``TOTALS_AT_ONCE`` of them."""

TOTALS_AT_ONCE = 50_000

UNWATCHED_MARK_NS = 75 * NS
"""Marks of markets that are only held come with a poll every 30 s: one answer may fail and the next may be late."""

MARKETS_MAX = 2_000
"""Symbols kept in all: several times the largest venue's list; a feed that invents symbols stops here."""


QUARANTINED_MAX = 100
"""Names kept per venue: enough to see what is wrong; the counter of unknown symbols goes on."""


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
        self._markets: dict[tuple[str, str], Market] = {}
        self._order: list[Market] = []
        self._quarantined: dict[str, dict[str, None]] = {venue: {} for venue in settings.symbols}
        self._watched = {venue: set(symbols) for venue, symbols in settings.symbols.items()}
        self._tiers_by_market: list[tuple[MarginTier, ...]] = []
        self._tiers: TierTable = build_tier_table([])
        self._interval_ns = settings.projection.interval_ms * 1_000_000
        self._grid = make_grid(settings.projection.bucket_ratio, settings.projection.max_distance_ratio)
        self._sequence = 0
        self._last: dict[int, MarketProjection] = {}
        self._totals: Totals | None = None
        self._totals_ns = 0
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
        for venue, symbols in settings.symbols.items():
            for symbol in symbols:
                self._add_market(venue, symbol)
        self._rebuild_tiers()

    # ---------------------------------------------------------------------------------------------------- events

    def apply(self, event: AnyEvent) -> None:
        """Change state by one event. A broken sequence becomes staleness of what hangs on it, never an exception."""
        self._handlers[type(event)](event)

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """Return the method for each type of event, for loops that apply millions of them."""
        return self._handlers

    def _market(self, event: MarketEvent) -> Market | None:
        try:
            return self._markets[event.venue, event.symbol]
        except KeyError:
            return self._unknown(event.venue, event.symbol)

    def _apply_delta(self, event: BookDelta) -> None:
        market = self._markets.get((event.venue, event.symbol)) or self._unknown(event.venue, event.symbol)
        if market is not None and market.book is None and self.settings.watch_all:
            self._watched[event.venue].add(event.symbol)
        if market is not None and not market.apply_book_delta(event):
            self.counters[event.venue].gaps += 1

    def _apply_snapshot(self, event: BookSnapshot) -> None:
        market = self._market(event)
        if market is not None and market.book is None and self.settings.watch_all:
            self._watched[event.venue].add(event.symbol)  # Named before by a list of instruments or by an account.
        if market is not None and not market.apply_book_snapshot(event):
            self.counters[event.venue].gaps += 1

    def _apply_quote(self, event: Quote) -> None:
        market = self._markets.get((event.venue, event.symbol)) or self._unknown(event.venue, event.symbol)
        if market is not None:
            market.apply_quote(event)

    def _apply_trade(self, event: Trade) -> None:
        market = self._markets.get((event.venue, event.symbol)) or self._unknown(event.venue, event.symbol)
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
        market = self._market(event)
        if market is not None:
            market.apply_mark(event)

    def _apply_open_interest(self, event: OpenInterest) -> None:
        market = self._market(event)
        if market is not None:
            market.apply_open_interest(event)

    def _apply_liquidation(self, event: Liquidation) -> None:
        market = self._market(event)
        if market is not None:
            market.apply_liquidation(event)

    def _apply_account(self, event: AccountSnapshot) -> None:
        markets = [self._market_index(event.venue, position.symbol) for position in event.positions]
        self.accounts.apply_snapshot(event, markets, self._tiers)
        for index in markets:
            self._order[index].changed = True

    def _apply_account_mode(self, event: AccountModeReport) -> None:
        self.accounts.set_mode(event.venue, event.account, event.mode)

    def _apply_notice(self, event: SubscriptionNotice) -> None:
        self.counters[event.venue].notices_refused += not event.accepted
        if event.accepted and event.channel.startswith("trades:"):
            self._hear_tape(event.venue, event.connection)

    def _apply_instruments(self, event: Instruments) -> None:
        changed = False
        for instrument in event.instruments:
            try:
                check_tiers(instrument.symbol, instrument.tiers)
                tiers = instrument.tiers
            except TierError:
                # Unknown maintenance makes the accounts in this market unknown; a guess would make them wrong.
                tiers = ()
                self._count_error(event.venue, "bad_tiers")
            index = self._market_index(event.venue, instrument.symbol)
            if not self._order[index].venue:
                continue  # The overflow: nothing that is in it has tiers or a price.
            if self._tiers_by_market[index] != tiers:
                self._tiers_by_market[index] = tiers
                changed = True
        if changed:
            self._rebuild_tiers()

    def _apply_gap(self, event: Gap) -> None:
        counters = self.counters[event.venue]
        counters.gaps += 1
        if event.symbol is not None:
            market = self._markets.get((event.venue, event.symbol))
            if market is not None:
                market.break_book(event.reason)
            return
        for market in self._order:
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
            for market in self._order:
                market.changed |= market.venue == venue

    def _forget_totals(self) -> None:
        """Have the sums over positions made anew, and not taken from an evaluation that is under way."""
        self._totals = None
        self._totals_after = self._sequence

    # --------------------------------------------------------------------------------------------------- markets

    def _add_market(self, venue: str, symbol: str) -> Market:
        market = Market(venue, symbol, len(self._order))
        market.completeness = self.settings.completeness.get(venue, "none")
        self._markets[venue, symbol] = market
        self._order.append(market)
        self._tiers_by_market.append(())
        return market

    def _market_index(self, venue: str, symbol: str) -> int:
        """Return the index of a market, which accounts may hold although it is not watched; then its price stays unknown."""
        market = self._markets.get((venue, symbol))
        if market is None and len(self._order) < MARKETS_MAX:
            market = self._add_market(venue, symbol)
            self._rebuild_tiers()
        return market.index if market is not None else self._add_market_overflow(venue)

    def _add_market_overflow(self, venue: str) -> int:
        self._count_error(venue, "too_many_symbols")
        overflow = self._markets.get(("", ""))
        if overflow is None:
            overflow = self._add_market("", "")
            self._rebuild_tiers()
        return overflow.index

    def _rebuild_tiers(self) -> None:
        self._tiers = build_tier_table(self._tiers_by_market)
        self.accounts.refresh_tiers(self._tiers)
        self._forget_totals()

    def _unknown(self, venue: str, symbol: str) -> Market | None:
        """Meet a symbol for the first time: watch it if all are watched, else note that it was not asked for."""
        if self.settings.watch_all and len(self._order) < MARKETS_MAX:
            self._watched[venue].add(symbol)
            market = self._add_market(venue, symbol)
            self._rebuild_tiers()
            return market
        self.quarantine(venue, [symbol])
        self._count_error(venue, "unknown_symbol")
        return None

    def symbol(self, market: int) -> str:
        """Return the symbol of a market by its index in all per-market arrays."""
        return self._order[market].symbol

    def quarantine(self, venue: str, symbols: Iterable[str]) -> None:
        """Note symbols that the venue does not have or that nobody asked for."""
        known = self._quarantined[venue]
        for symbol in symbols:
            if len(known) < QUARANTINED_MAX:
                known[symbol] = None

    def _count_error(self, venue: str, reason: str) -> None:
        errors = self.counters[venue].parse_errors
        errors[reason] = errors.get(reason, 0) + 1

    # ------------------------------------------------------------------------------------------------ projections

    def due(self, now_ns: int) -> bool:
        """Tell whether an evaluation at ``now_ns`` would say anything new."""
        return any(self._is_due(market, now_ns) for market in self._order if market.symbol in self._watched.get(market.venue, ()))

    def _is_due(self, market: Market, now_ns: int) -> bool:
        """A new price is worth an evaluation at once, other changes as often as configured, the mere passage of time rarely."""
        last = self._last.get(market.index)
        if last is None or market.repriced:
            return True
        age_ns = now_ns - last.as_of_ns
        return age_ns >= REFRESH_NS or (market.changed and age_ns >= self._interval_ns)

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
        prices = np.full(len(self._order), np.nan)
        for market in self._order:
            if market.symbol not in self._watched.get(market.venue, ()):
                self._set_unwatched_price(market, prices, now_ns)
                continue
            if self._is_due(market, now_ns) or (market.changed and not paced):
                market.flow.advance(now_ns)
                simulated = market.venue in self.settings.simulated_venues
                item = market_input(market, now_ns, self.settings.staleness, "simulated" if simulated else "observed")
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
        if reuse is None:
            self._totals_ns = now_ns
        account_age_max_ns = round(self.settings.staleness.account_s * NS)
        return Inputs(
            now_ns=now_ns,
            sequence=self._sequence,
            legs=self.accounts.legs(copy=copy),
            cash_usd=self.accounts.projectable_cash(now_ns, account_age_max_ns),
            prices=prices,
            tiers=self._tiers,
            ages_ns=self.accounts.ages_ns(now_ns),
            lost=self.accounts.lost(now_ns, account_age_max_ns),
            markets=tuple(inputs),
            unchanged=tuple(unchanged),
            venues=tuple(self._venue_health(venue, now_ns) for venue in self.settings.symbols),
            totals=reuse,
            grid=self._grid,
            settings=self.settings.projection,
        )

    def adopt(self, evaluation: Evaluation) -> Projection:
        """Keep what the next evaluation and the poll scheduler reuse; return the projection."""
        for market in evaluation.projection.markets:
            self._last[self._markets[market.venue, market.symbol].index] = market
        if evaluation.projection.sequence > self._totals_after:
            self._totals = evaluation.totals
        self._shock = evaluation.swept.shock.copy()  # The sweep's own array is written anew next time.
        return evaluation.projection

    def _set_unwatched_price(self, market: Market, prices: Array, now_ns: int) -> None:
        """A market that is only held, not watched, still needs a price for the accounts in it; some venues send all marks."""
        feed = market.feeds["mark"]
        if market.mark_price is not None and feed.received_ns is not None and now_ns - feed.received_ns <= UNWATCHED_MARK_NS:
            prices[market.index] = market.mark_price

    def _venue_health(self, venue: str, now_ns: int) -> VenueHealth:
        counters = self.counters[venue]
        known, live, stale, unknown_mode = self.accounts.counts(venue, now_ns, round(self.settings.staleness.account_s * NS))
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
            quarantined_symbols=tuple(self._quarantined[venue]),
        )

    def touch(self, venue: str, symbol: str) -> tuple[float | None, float | None]:
        """Return the best bid and ask of a book as they stand after the last event, for whoever follows every single change.

        Both are ``None`` while the book cannot be relied on. Ages are not looked at; that is what an evaluation does.
        """
        market = self._markets.get((venue, symbol))
        if market is None or market.book is None or not market.book.reliable:
            return None, None
        return market.book.best_bid, market.book.best_ask

    # --------------------------------------------------------------------------------------------------- demands

    def book_demands(self) -> list[BookDemand]:
        """List the books that cannot go on, or not for long, without a snapshot from the venue."""
        return [
            BookDemand(market.venue, market.symbol)
            for market in self._order
            if isinstance(market.book, SequencedBook) and market.book.wants_snapshot()
        ]

    def expect_snapshot(self, demand: BookDemand) -> None:
        """Prepare a book for the snapshot that is about to be asked for."""
        book = self._markets[demand.venue, demand.symbol].book
        if isinstance(book, SequencedBook):
            book.expect_snapshot()

    def poll_demands(self, venue: str, now_ns: int, limit: int, *, pause_ns: int) -> list[PollDemand]:
        """List the accounts whose refresh is worth most (see :meth:`AccountTable.poll_order`)."""
        return self.accounts.poll_order(venue, now_ns, limit, self._shock, pause_ns=pause_ns)
