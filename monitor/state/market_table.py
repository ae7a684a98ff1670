"""All markets: those that are watched, those that are only held, and the names that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from connectors.events import Completeness, Contract, Instrument, MarginTier, PositionReport
from monitor.margin import TierError, TierTable, build_tier_table, check_tiers
from monitor.state.markets import Market
from monitor.venue_rules import rules_of

MARKETS_MAX = 2_000
"""Symbols kept in all: several times the largest venue's list; a feed that invents symbols stops here."""

QUARANTINED_MAX = 100
"""Names kept per venue: enough to see what is wrong; the counter of unknown symbols goes on."""

VARIANTS_MAX = 500
"""Margin tables of single positions that are not their market's: the venue's largest list has some 230 markets, and few of them
changed more than once."""

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
        retabled: indices of markets whose known margin tiers were replaced by others, until whoever looks at them empties the list.
        pools: by index, the pool whose cash stands behind positions in the market: what stands before the colon of its name.
        base_of: by index of a variant, the market that it is of; ``variants_of`` is the other way round.
        collateral_ratios: by (index, lending category), the share of an asset's value that counts.
    """

    def __init__(
        self, symbols: Mapping[str, Iterable[str]], *, watch_all: bool = False, completeness: Mapping[str, Completeness] = {}
    ) -> None:
        self.by_key: dict[tuple[str, str], Market] = {}
        self.tiers: TierTable = build_tier_table([])
        self.outdated = True
        self.retabled: list[int] = []
        self.pools: list[str] = []
        self.base_of: dict[int, int] = {}
        self.variants_of: dict[int, list[int]] = {}
        self._variants: dict[tuple[int, float], int] = {}
        self.collateral_ratios: dict[tuple[int, int], float] = {}
        self._contracts: list[Contract] = []
        self._ratios: dict[int, dict[int, float]] = {}
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
        """Count all markets, held ones and variants included."""
        return len(self._order)

    def __iter__(self) -> Iterator[Market]:
        """Go through all markets by index, without the variants of :meth:`variant`."""
        return (market for market in self._order if market.index not in self.base_of)

    def __getitem__(self, index: int) -> Market:
        """Return a market by its index in all per-market arrays."""
        return self._order[index]

    def watched(self) -> Iterator[Market]:
        """Go through the watched markets by index."""
        return (market for market in self if self.is_watched(market))

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

    def variant(self, index: int, position: PositionReport) -> int:
        """Return the index under which a position of a market has the margin table that it was opened under.

        A venue that changes a market's table leaves open positions under the old one and tells only their maximum leverage. Where
        that is not what the market's table says for the position's size, maintenance is half the initial margin at that leverage,
        a flat rate (venues.md 1.9). Such positions get an index of their own, with the price of the market and that rate.

        Args:
            index: the market.
            position: as the venue reports it, with its mark and maximum leverage; without them it has the market's own index.
        """
        max_leverage = position.max_leverage
        if position.mark_price is None or max_leverage is None:
            return index
        notional_usd = abs(position.size) * position.mark_price
        tiers = [tier for tier in self._tiers[index] if tier.lower_bound_usd <= notional_usd]
        if not tiers or tiers[-1].max_leverage in {None, max_leverage}:
            return index
        known = self._variants.get((index, max_leverage))
        if known is not None:
            return known
        if len(self._variants) >= VARIANTS_MAX:
            return self.overflow()
        market = self._order[index]
        variant = self._append(Market(market.venue, market.symbol, len(self._order)))
        self._tiers[variant] = (MarginTier(0.0, 0.5 / max_leverage, 0.0, max_leverage),)
        self._variants[index, max_leverage] = variant
        self.base_of[variant] = index
        self.variants_of.setdefault(index, []).append(variant)
        return variant

    def family(self, index: int) -> list[int]:
        """Return the index of a market and those of its variants."""
        return [index, *self.variants_of.get(index, ())]

    def describe(self, venue: str, instrument: Instrument) -> bool:
        """Take over the margin rules of an instrument; return ``False`` if its tiers are impossible, and so unknown."""
        try:
            check_tiers(instrument.symbol, instrument.tiers, may_jump=instrument.tiers_jump or bool(rules_of(venue).tiers_jump))
            tiers = instrument.tiers
        except TierError:
            # Unknown maintenance makes the accounts in this market unknown; a guess would make them wrong.
            tiers = ()
        index = self.index_of(venue, instrument.symbol)
        if index is None:
            return tiers == instrument.tiers
        ratios = dict(instrument.e_mode_ratios)
        if instrument.collateral_ratio is not None:
            ratios[0] = instrument.collateral_ratio
        terms = tiers, instrument.contract, ratios
        if terms != (self._tiers[index], self._contracts[index], self._ratios.get(index, {})):
            if self._tiers[index] not in {(), tiers}:
                self.retabled.append(index)
            for category in self._ratios.pop(index, {}):
                del self.collateral_ratios[index, category]
            self._tiers[index], self._contracts[index], self._ratios[index] = terms
            self.collateral_ratios |= {(index, category): ratio for category, ratio in ratios.items()}
            self.outdated = True
        return tiers == instrument.tiers

    def rebuild_tiers(self) -> TierTable:
        """Make ``tiers`` anew and return it."""
        is_plain = all(contract == "linear" for contract in self._contracts)
        self.tiers = build_tier_table(self._tiers, None if is_plain else self._contracts)
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
        return tuple(self._quarantined.get(venue, ()))

    def _add(self, venue: str, symbol: str) -> Market:
        market = Market(venue, symbol, len(self._order))
        market.completeness = self._completeness.get(venue, "none")
        self.by_key[venue, symbol] = market
        self._append(market)
        return market

    def _append(self, market: Market) -> int:
        self._order.append(market)
        self._tiers.append(())
        self._contracts.append("linear")
        self.pools.append(market.symbol.partition(":")[0] if ":" in market.symbol else "")
        self.outdated = True
        return market.index
