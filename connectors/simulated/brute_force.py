"""The definition of a one-market cascade, executed one lot at a time (models.md 2.1).

Somebody sells a volume into a frozen book. After every single lot the reference price is looked at, every position whose
liquidation price it has touched sends its whole size as a further market order, and nothing refills the book. This is slow and
obviously right, and serves as the oracle for whatever computes the same in closed form.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from connectors.simulated.exchange import Exchange
from connectors.simulated.liquidation_price import liquidation_prices

Reference = Literal["last_trade", "best_bid"]
"""Which price fires triggers: the last print, or the best price left on the side that is eaten."""


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """A position that is closed in full at a price."""

    price_usd: float
    lots: int
    account: str


class MarketSnapshot(msgspec.Struct, frozen=True):
    """One market, frozen.

    Levels are (price in USD, lots), best first. ``long_triggers`` fire when the price falls to them, highest first;
    ``short_triggers`` when it rises to them, lowest first. Positions that are never liquidated have no trigger.
    """

    coin: str
    time_ms: int
    lots_per_coin: int
    bids: list[tuple[float, int]]
    asks: list[tuple[float, int]]
    long_triggers: list[Trigger]
    short_triggers: list[Trigger]


class ExchangeSnapshot(msgspec.Struct, frozen=True):
    """All markets of a running exchange, frozen at the end of a block; encodes to JSON as it is."""

    time_ms: int
    markets: dict[str, MarketSnapshot]


class BruteForceResult(msgspec.Struct, frozen=True):
    """What one exogenous order set off.

    Attributes:
        landing_price: Under ``last_trade`` the last price that printed, under ``best_bid`` the best price left (the last level when
            the book was emptied); ``None`` when nothing was sold.
        levels_printed: Number of different prices that printed.
        forced_lots: Size of all positions that fired.
        liquidated: The accounts that fired, in that order.
        unabsorbed: Lots that found no order.
    """

    landing_price: float | None
    levels_printed: int
    forced_lots: int
    liquidated: list[str]
    unabsorbed: int


def snapshot(exchange: Exchange) -> ExchangeSnapshot:
    """Freeze books and liquidation prices as they are between two blocks."""
    markets = {spec.coin: _market_snapshot(exchange, market) for market, spec in enumerate(exchange.markets)}
    return ExchangeSnapshot(time_ms=exchange.time_ms, markets=markets)


def _market_snapshot(exchange: Exchange, market: int) -> MarketSnapshot:
    spec, table, book = exchange.markets[market], exchange.table, exchange.books[market]
    long_triggers: list[Trigger] = []
    short_triggers: list[Trigger] = []
    prices_usd = liquidation_prices(table, market, exchange.mark)
    rows = np.flatnonzero(np.isfinite(prices_usd))
    for row, lots, price_usd in zip(rows.tolist(), table.lots[rows, market].tolist(), prices_usd[rows].tolist(), strict=True):
        (long_triggers if lots > 0 else short_triggers).append(Trigger(price_usd, abs(lots), table.addresses[row]))
    # Sorting is stable, so positions that fire at the same price do so in the order of their rows.
    return MarketSnapshot(
        coin=spec.coin,
        time_ms=exchange.time_ms,
        lots_per_coin=spec.lot_scale,
        bids=[(spec.price_usd(level.price), level.lots) for level in book.bids.levels()],
        asks=[(spec.price_usd(level.price), level.lots) for level in book.asks.levels()],
        long_triggers=sorted(long_triggers, key=lambda trigger: -trigger.price_usd),
        short_triggers=sorted(short_triggers, key=lambda trigger: trigger.price_usd),
    )


def run_exogenous_sell(
    state: ExchangeSnapshot, coin: str, volume_lots: int, reference: Reference = "last_trade", *, one_lot_at_a_time: bool = True
) -> BruteForceResult:
    """Sell ``volume_lots`` into the frozen bids and let the longs' triggers fire (``trigger >= reference``).

    Args:
        state: A frozen exchange; it is not changed.
        coin: The market.
        volume_lots: Exogenous volume; with 0 nothing happens, whatever the triggers.
        reference: What fires triggers.
        one_lot_at_a_time: About 5 million lots take a second. With ``False`` runs of lots between which the reference cannot
            move are sold at once, which gives the same result.
    """
    market = state.markets[coin]
    triggers = [(-trigger.price_usd, trigger.lots, trigger.account) for trigger in market.long_triggers]
    levels = [(-price, lots) for price, lots in market.bids]
    return _run(levels, triggers, volume_lots, sign=-1.0, reference=reference, one_lot_at_a_time=one_lot_at_a_time)


def run_exogenous_buy(
    state: ExchangeSnapshot, coin: str, volume_lots: int, reference: Reference = "last_trade", *, one_lot_at_a_time: bool = True
) -> BruteForceResult:
    """Buy ``volume_lots`` from the frozen asks and let the shorts' triggers fire (``trigger <= reference``).

    The mirror image of :func:`run_exogenous_sell`; ``best_bid`` then means the best ask.
    """
    market = state.markets[coin]
    triggers = [(trigger.price_usd, trigger.lots, trigger.account) for trigger in market.short_triggers]
    return _run(list(market.asks), triggers, volume_lots, sign=1.0, reference=reference, one_lot_at_a_time=one_lot_at_a_time)


def _run(
    levels: list[tuple[float, int]],
    triggers: list[tuple[float, int, str]],
    volume_lots: int,
    *,
    sign: float,
    reference: Reference,
    one_lot_at_a_time: bool,
) -> BruteForceResult:
    """Run the cascade with prices signed such that they rise on the way; a trigger fires when it is at or below the reference."""
    use_last_trade = reference == "last_trade"
    waiting = volume_lots
    level, left = 0, levels[0][1] if levels else 0
    fired, forced_lots = 0, 0
    landing: float | None = None
    printed = 0
    printed_level = -1
    while waiting > 0 and level < len(levels):
        lots = 1 if one_lot_at_a_time else min(waiting, left)
        price = levels[level][0]
        if printed_level != level:
            printed_level = level
            printed += 1
        waiting -= lots
        left -= lots
        if left == 0:
            level += 1
            left = levels[level][1] if level < len(levels) else 0
        # With an empty book there is no best price; the last level stays the reference.
        landing = price if use_last_trade else levels[min(level, len(levels) - 1)][0]
        while fired < len(triggers) and triggers[fired][0] <= landing:
            waiting += triggers[fired][1]
            forced_lots += triggers[fired][1]
            fired += 1
    return BruteForceResult(
        landing_price=None if landing is None else sign * landing,
        levels_printed=printed,
        forced_lots=forced_lots,
        liquidated=[account for _, _, account in triggers[:fired]],
        unabsorbed=waiting,
    )
