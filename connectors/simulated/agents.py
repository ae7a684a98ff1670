"""Those who trade of their own will: makers, an arbitrageur, ordinary accounts, an outside seller, and the vault's unwinding."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from connectors.simulated.draws import Draws
from connectors.simulated.exchange import Exchange
from connectors.simulated.markets import MICROS_PER_USD, Market
from connectors.simulated.population import Population
from connectors.simulated.scenario import Scenario

LADDER_STEPS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Makers quote every tick near the middle and ever coarser multiples further out, as people do."""
LADDER_LEVELS_PER_STEP: Final = 50
LADDER_REACH: Final = 0.15
"""Quotes end 15 % from the middle; what a crash needs beyond comes from requoting."""

DEPTH_EXPONENT: Final = 0.7
"""Cumulative depth grows like distance to this power: 4 % of the depth within 1 % stands in the first 0.01 %."""

RESIZE_TOLERANCE: Final = 0.25
"""A resting quote is left alone, and keeps its place, while its size is this close to what the maker wants."""

REQUOTE_MS: Final = (400.0, 1_400.0)
ARBITRAGE_EDGE: Final = 0.0004
ARBITRAGE_CHANCE: Final = 0.5
ARBITRAGE_MAX_DEPTH: Final = 0.02
"""Most that is taken at once, as a share of the usual depth within 1 %."""

TAKERS_PER_S: Final = (2.0, 1.5, 1.0, 0.8)
TAKER_FRACTION: Final = (0.02, 0.25)
TAKER_MAX_USD: Final = 300_000.0
OPENING_LIMIT: Final = 0.7
"""Ordinary accounts open no more than this share of what their margin allows."""

SELLER_INTERVAL_MS: Final = 700
VAULT_INTERVAL_MS: Final = 2_000
VAULT_ORDER_USD: Final = 200_000.0


class MarketMaker:
    """Quotes one ladder around the reference in one market, with its own delay, width and sizes."""

    def __init__(self, row: int, market: int, spec: Market, share: float, draws: Draws) -> None:
        self._row = row
        self._market = market
        self._spec = spec
        self._depth_usd = share * spec.depth_one_percent_usd
        self._half_spread_ticks = 1 + draws.index(3)
        # Sizes differ from level to level but not from moment to moment: the factor belongs to the price.
        self._texture = draws.lognormals(1_024, 1.0, 0.35)
        self._draws = draws
        self._due_ms = 0

    def act(self, exchange: Exchange, reference_usd: float, depth_ratio: float) -> None:
        """Requote if it is time."""
        if exchange.time_ms < self._due_ms:
            return
        # Makers that withdraw also react more slowly.
        delay_ms = self._draws.uniform(*REQUOTE_MS) * (2.0 - depth_ratio)
        self._due_ms = exchange.time_ms + round(delay_ms)
        centre = reference_usd * self._spec.price_scale
        width = self._half_spread_ticks * self._spec.tick(round(centre)) / max(depth_ratio, 0.1)
        wanted = [self._ladder(centre, width, depth_ratio, is_bid=is_bid) for is_bid in (True, False)]
        # All that is unwanted goes before anything new comes, so that a maker is never in its own way.
        for is_bid, ladder in zip((True, False), wanted, strict=True):
            self._withdraw(exchange, ladder, is_bid=is_bid)
        for is_bid, ladder in zip((True, False), wanted, strict=True):
            owned = exchange.books[self._market].side(is_bid=is_bid).owned(self._row)
            for price, lots in ladder.items():
                if price not in owned:
                    exchange.quote(self._row, self._market, price, lots, is_bid=is_bid)

    def _withdraw(self, exchange: Exchange, ladder: dict[int, int], *, is_bid: bool) -> None:
        side = exchange.books[self._market].side(is_bid=is_bid)
        for price, order in list(side.owned(self._row).items()):
            lots = ladder.get(price)
            if lots is None or abs(order.lots - lots) > RESIZE_TOLERANCE * lots:
                side.remove(self._row, price)

    def _ladder(self, centre: float, width: float, depth_ratio: float, *, is_bid: bool) -> dict[int, int]:
        """Return the lots wanted at each price."""
        tick = self._spec.tick(round(centre))
        reach = LADDER_REACH * centre
        parts: list[NDArray[np.int64]] = []
        spacing: list[NDArray[np.int64]] = []
        near = width
        for multiple in LADDER_STEPS:
            step = multiple * tick
            far = min(near + LADDER_LEVELS_PER_STEP * step, reach) if multiple == 1 else min(LADDER_LEVELS_PER_STEP * step, reach)
            if far <= near:
                continue
            if is_bid:
                prices = np.arange(int((centre - near) // step) * step, centre - far, -step)
            else:
                prices = np.arange(-int((near + centre) // -step) * step, centre + far, step)
            parts.append(prices.astype(np.int64))
            spacing.append(np.full(prices.size, step, np.int64))
            near = far
        return self._sized(np.concatenate(parts), np.concatenate(spacing), centre, depth_ratio, is_bid=is_bid)

    def _sized(
        self, prices: NDArray[np.int64], spacing: NDArray[np.int64], centre: float, depth_ratio: float, *, is_bid: bool
    ) -> dict[int, int]:
        """Give every price its size: the difference of the cumulative depth across its share of the ladder."""
        ticks = self._spec.ticks(prices)
        prices = prices // ticks * ticks if is_bid else -(-prices // ticks) * ticks
        distance = np.abs(prices - centre) / centre
        half = 0.5 * spacing / centre
        band = _depth_profile(distance + half) - _depth_profile(np.maximum(distance - half, 0.0))
        depth_usd = self._depth_usd * depth_ratio * band
        lots = depth_usd * self._texture[(prices // ticks) % self._texture.size] * MICROS_PER_USD / prices
        whole = np.maximum(1, np.rint(lots)).astype(np.int64)
        return dict(zip(prices.tolist(), whole.tolist(), strict=True))


def _depth_profile(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cumulative depth at a relative distance, as a multiple of that at 1 %: densest at the touch."""
    return np.asarray((distance * 100.0) ** DEPTH_EXPONENT, dtype=np.float64)


class Crowd:
    """Everybody but the makers."""

    def __init__(self, population: Population, draws: Draws) -> None:
        self._population = population
        self._table = population.table
        self._draws = draws
        self._seller_due_ms = 0
        self._vault_due_ms = 0
        self._last_ms: int | None = None

    def act(self, exchange: Exchange, scenario: Scenario) -> None:
        """Send the orders of one block."""
        elapsed_s = 0.0 if self._last_ms is None else (exchange.time_ms - self._last_ms) / 1_000
        self._last_ms = exchange.time_ms
        for market in range(len(exchange.markets)):
            if self._draws.uniform() < ARBITRAGE_CHANCE:
                self._arbitrage(exchange, market, scenario.reference_usd[market])
            for _ in range(self._draws.poisson(TAKERS_PER_S[market % len(TAKERS_PER_S)] * elapsed_s)):
                self._take(exchange, market)
        self._dump(exchange, scenario)
        self._unwind_vault(exchange)

    def _arbitrage(self, exchange: Exchange, market: int, reference_usd: float) -> None:
        """Take quotes that are stale against the price elsewhere."""
        spec, book = exchange.markets[market], exchange.books[market]
        reference = reference_usd * spec.price_scale
        most = spec.lots_for(ARBITRAGE_MAX_DEPTH * spec.depth_one_percent_usd, round(reference))
        bid, ask = book.bids.best(), book.asks.best()
        floor, ceiling = reference * (1.0 + ARBITRAGE_EDGE), reference * (1.0 - ARBITRAGE_EDGE)
        row = self._population.arbitrageur
        if bid is not None and bid > floor:
            exchange.market_order(row, market, most, is_buy=False, limit_price=int(floor) + 1)
        elif ask is not None and ask < ceiling:
            exchange.market_order(row, market, most, is_buy=True, limit_price=int(ceiling))

    def _take(self, exchange: Exchange, market: int) -> None:
        """Let one ordinary account open, add to, reduce or close a position."""
        table, spec = self._table, exchange.markets[market]
        row = self._population.ordinary[self._draws.index(len(self._population.ordinary))]
        lots, price = int(table.lots[row, market]), exchange.mark[market]
        fraction = self._draws.uniform(*TAKER_FRACTION)
        cap = spec.lots_for(TAKER_MAX_USD, price)
        if lots and self._draws.uniform() < 0.6:
            closing = abs(lots) if self._draws.uniform() < 0.1 else max(1, int(abs(lots) * fraction))
            exchange.market_order(row, market, min(closing, cap), is_buy=lots < 0)
            return
        if table.isolated[row, market]:
            return
        room_usd = self._opening_room_usd(exchange, row, market)
        opening = min(int(fraction * room_usd * MICROS_PER_USD) // price, cap)
        if opening > 0:
            is_buy = lots > 0 if lots else self._draws.uniform() < 0.5
            exchange.market_order(row, market, opening, is_buy=is_buy)

    def _opening_room_usd(self, exchange: Exchange, row: int, market: int) -> float:
        """Return how much notional the account's free margin carries in this market."""
        table, marks = self._table, exchange.mark
        value_usd = table.cross_value(row, marks) / MICROS_PER_USD
        used_usd = sum(
            abs(lots * marks[held]) / MICROS_PER_USD / table.markets[held].max_leverage
            for held, lots in table.positions(row)
            if not table.isolated[row, held]
        )
        return max(0.0, OPENING_LIMIT * value_usd - used_usd) * table.markets[market].max_leverage

    def _dump(self, exchange: Exchange, scenario: Scenario) -> None:
        """Sell what the scenario wants sold."""
        if not scenario.is_falling or exchange.time_ms < self._seller_due_ms:
            return
        self._seller_due_ms = exchange.time_ms + SELLER_INTERVAL_MS
        for market, rate in enumerate(scenario.dumped_usd_per_s()):
            notional_usd = rate * SELLER_INTERVAL_MS / 1_000 * self._draws.lognormal(1.0, 0.5)
            lots = exchange.markets[market].lots_for(notional_usd, exchange.mark[market])
            exchange.market_order(self._population.seller, market, lots, is_buy=False)

    def _unwind_vault(self, exchange: Exchange) -> None:
        """Work off what the vault has taken over."""
        if exchange.time_ms < self._vault_due_ms:
            return
        self._vault_due_ms = exchange.time_ms + VAULT_INTERVAL_MS
        for market, lots in self._table.positions(self._population.vault):
            most = exchange.markets[market].lots_for(VAULT_ORDER_USD, exchange.mark[market])
            exchange.market_order(self._population.vault, market, min(abs(lots), most), is_buy=lots < 0)
