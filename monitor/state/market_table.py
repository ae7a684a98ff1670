"""All markets: those that are watched, those that are only held, and the names that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from connectors.events import Completeness, Instrument, MarginTier
from monitor.margin import TierError, TierTable, build_tier_table, check_tiers
from monitor.state.markets import Market

MARKETS_MAX = 2_000
"""Symbols kept in all: several times the largest venue's list; a feed that invents symbols stops here."""

QUARANTINED_MAX = 100
"""Names kept per venue: enough to see what is wrong; the counter of unknown symbols goes on."""

_OVERFLOW = ("", "")


class MarketTable:
    """Markets by (venue, symbol) and by index, with their margin tiers.

    Args:
        symbols: the watched symbols by venue.
        watch_all: watch every symbol that a feed brings.
        completeness: by venue how much of its liquidations can be seen.

    Attributes:
        by_key: the markets by (venue, symbol).
        tiers: the margin tiers of all markets, by index; unknown for a market that no list of instruments has described.
        outdated: whether ``tiers`` has to be made anew by :meth:`rebuild_tiers`.
    """

    def __init__(
        self, symbols: Mapping[str, Iterable[str]], *, watch_all: bool = False, completeness: Mapping[str, Completeness] = {}
    ) -> None:
        self.by_key: dict[tuple[str, str], Market] = {}
        self.tiers: TierTable = build_tier_table([])
        self.outdated = True
        self._watch_all = watch_all
        self._completeness = completeness
        self._order: list[Market] = []
        self._tiers: list[tuple[MarginTier, ...]] = []
        self._watched = {venue: set(names) for venue, names in symbols.items()}
        self._quarantined: dict[str, dict[str, None]] = {venue: {} for venue in symbols}
        for venue, names in symbols.items():
            for symbol in names:
                self._add(venue, symbol)

    def __len__(self) -> int:
        """Count all markets, held ones included."""
        return len(self._order)

    def __iter__(self) -> Iterator[Market]:
        """Go through all markets by index."""
        return iter(self._order)

    def __getitem__(self, index: int) -> Market:
        """Return a market by its index in all per-market arrays."""
        return self._order[index]

    def watched(self) -> Iterator[Market]:
        """Go through the watched markets by index."""
        return (market for market in self._order if self.is_watched(market))

    def is_watched(self, market: Market) -> bool:
        """Tell whether a market is to be projected."""
        return market.symbol in self._watched.get(market.venue, ())

    def meet(self, venue: str, symbol: str) -> Market | None:
        """Return a market that a feed brings for the first time: watched if all are, else ``None`` and the name is noted."""
        if self._watch_all and len(self._order) < MARKETS_MAX:
            self._watched[venue].add(symbol)
            return self._add(venue, symbol)
        self.quarantine(venue, [symbol])
        return None

    def notice_book(self, market: Market) -> None:
        """Watch a market that was only named so far (by instruments or by an account), if all are watched."""
        if self._watch_all:
            self._watched[market.venue].add(market.symbol)

    def index_of(self, venue: str, symbol: str) -> int | None:
        """Return the index of a market that an account may hold without its being watched; ``None`` when there is no more room."""
        market = self.by_key.get((venue, symbol))
        if market is None and len(self._order) < MARKETS_MAX:
            market = self._add(venue, symbol)
        return None if market is None else market.index

    def overflow(self) -> int:
        """Return the index of the place for everything that found no room: it has neither tiers nor a price."""
        return (self.by_key.get(_OVERFLOW) or self._add(*_OVERFLOW)).index

    def describe(self, venue: str, instrument: Instrument) -> bool:
        """Take over the margin tiers of an instrument; return ``False`` if they are impossible, and so unknown."""
        try:
            check_tiers(instrument.symbol, instrument.tiers)
            tiers = instrument.tiers
        except TierError:
            # Unknown maintenance makes the accounts in this market unknown; a guess would make them wrong.
            tiers = ()
        index = self.index_of(venue, instrument.symbol)
        if index is not None and self._tiers[index] != tiers:
            self._tiers[index] = tiers
            self.outdated = True
        return tiers == instrument.tiers

    def rebuild_tiers(self) -> TierTable:
        """Make ``tiers`` anew and return it."""
        self.tiers = build_tier_table(self._tiers)
        self.outdated = False
        return self.tiers

    def quarantine(self, venue: str, symbols: Iterable[str]) -> None:
        """Note symbols that the venue does not have or that nobody asked for."""
        known = self._quarantined[venue]
        for symbol in symbols:
            if len(known) < QUARANTINED_MAX:
                known[symbol] = None

    def quarantined(self, venue: str) -> tuple[str, ...]:
        """Return the noted symbols of a venue."""
        return tuple(self._quarantined[venue])

    def _add(self, venue: str, symbol: str) -> Market:
        market = Market(venue, symbol, len(self._order))
        market.completeness = self._completeness.get(venue, "none")
        self.by_key[venue, symbol] = market
        self._order.append(market)
        self._tiers.append(())
        self.outdated = True
        return market
