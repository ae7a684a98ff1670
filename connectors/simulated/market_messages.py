"""Public data of the simulated exchange in Hyperliquid's JSON (venues.md 1.5, 1.7): pure functions of the state between blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connectors.simulated.book import BookLevel, BookSide
from connectors.simulated.exchange import Exchange, Trade
from connectors.simulated.markets import MICROS_PER_USD, Market, decimal_text, float_text, margin_table, micro_text

Json = dict[str, object]

BOOK_LEVELS: Final = 20
FAST_BOOK_LEVELS: Final = 5
INTEREST_RATE_8H: Final = 0.0001
FUNDING_CLAMP_8H: Final = 0.0005
FUNDING_HOURS: Final = 8


def book_data(
    exchange: Exchange, market: int, *, significant_figures: int | None = None, mantissa: int | None = None, is_fast: bool = False
) -> Json:
    """Return an ``l2Book`` snapshot; prices of an aggregated one are rounded away from the middle."""
    spec, book = exchange.markets[market], exchange.books[market]
    limit = FAST_BOOK_LEVELS if is_fast else BOOK_LEVELS
    if significant_figures is None:
        bids, asks = book.bids.levels(limit), book.asks.levels(limit)
    else:
        bids = book.bids.aggregated(significant_figures, mantissa or 1, limit)
        asks = book.asks.aggregated(significant_figures, mantissa or 1, limit)
    data: Json = {
        "coin": spec.coin,
        "time": exchange.time_ms,
        "levels": [[_level(spec, level) for level in bids], [_level(spec, level) for level in asks]],
    }
    if significant_figures is not None and bids and asks:
        data["spread"] = spec.price_text(asks[0].price - bids[0].price)
    if is_fast:
        data["fast"] = True
    return data


def quote_data(exchange: Exchange, market: int) -> Json:
    """Return the best bid and ask, ``null`` where there is none."""
    spec, book = exchange.markets[market], exchange.books[market]
    best = [_level(spec, side.levels(1)[0]) if len(side) else None for side in (book.bids, book.asks)]
    return {"coin": spec.coin, "time": exchange.time_ms, "bbo": best}


def trades_data(exchange: Exchange, trades: Iterable[Trade]) -> list[Json]:
    """Return trades; ``users`` are buyer and seller.

    Transfers beside the book (backstop, deleveraging) are on the tape too, so that positions can be carried forward from it.
    """
    addresses = exchange.table.addresses
    data: list[Json] = []
    for trade in trades:
        spec = exchange.markets[trade.market]
        data.append(
            {
                "coin": spec.coin,
                "side": "B" if trade.taker_is_buyer else "A",
                "px": spec.price_text(trade.price),
                "sz": spec.size_text(trade.lots),
                "time": trade.time_ms,
                "hash": trade.transaction,
                "tid": trade.trade_id,
                "users": [addresses[trade.buyer.account], addresses[trade.seller.account]],
            }
        )
    return data


def recent_trades(exchange: Exchange, market: int, since_ms: int) -> list[Trade]:
    """Return what was traded in a market from a time on, oldest first, as far as it is kept."""
    newest_first = []
    for trade in reversed(exchange.recent_trades[market]):
        if trade.time_ms < since_ms:
            break
        newest_first.append(trade)
    return newest_first[::-1]


def context_data(exchange: Exchange, market: int) -> Json:
    """Return the asset context; funding is what one hour would cost now, but is not charged."""
    spec = exchange.markets[market]
    book, oracle = exchange.books[market], exchange.oracle[market]
    notional = round(spec.impact_notional_usd * MICROS_PER_USD)
    bid, ask = _impact_price(book.bids, notional), _impact_price(book.asks, notional)
    premium = None if bid is None or ask is None else (max(bid - oracle, 0.0) - max(oracle - ask, 0.0)) / oracle
    rate_8h = premium or 0.0
    rate_8h += min(max(INTEREST_RATE_8H - rate_8h, -FUNDING_CLAMP_8H), FUNDING_CLAMP_8H)
    mid = mid_text(exchange, market)
    return {
        "funding": float_text(rate_8h / FUNDING_HOURS),
        "openInterest": spec.size_text(exchange.table.open_interest(market)),
        "prevDayPx": spec.price_text(spec.price(spec.initial_price_usd)),
        "dayNtlVlm": micro_text(exchange.notional_traded[market]),
        "premium": None if premium is None else float_text(premium),
        "oraclePx": spec.price_text(oracle),
        "markPx": spec.price_text(exchange.mark[market]),
        "midPx": mid,
        "impactPxs": None if bid is None or ask is None else [spec.price_text(round(bid)), spec.price_text(round(ask))],
        "dayBaseVlm": spec.size_text(exchange.lots_traded[market]),
    }


def all_mids(exchange: Exchange) -> dict[str, str]:
    """Return the middle of every market; where a side of the book is empty, the mark."""
    return {
        spec.coin: mid_text(exchange, market) or spec.price_text(exchange.mark[market])
        for market, spec in enumerate(exchange.markets)
    }


def mid_text(exchange: Exchange, market: int) -> str | None:
    """Return the middle of best bid and ask, which may have one decimal more than a price."""
    bid, ask = exchange.books[market].bids.best(), exchange.books[market].asks.best()
    if bid is None or ask is None:
        return None
    return decimal_text((bid + ask) * 5, exchange.markets[market].price_decimals + 1)


def meta(exchange: Exchange) -> Json:
    """Return the universe with its margin tables."""
    universe = [
        {
            "szDecimals": spec.size_decimals,
            "name": spec.coin,
            "maxLeverage": spec.max_leverage,
            "marginTableId": spec.margin_table_id,
        }
        for spec in exchange.markets
    ]
    tables = sorted({spec.margin_table_id: margin_table(spec) for spec in exchange.markets}.items())
    return {"universe": universe, "marginTables": [list(item) for item in tables], "collateralToken": 0}


def _level(spec: Market, level: BookLevel) -> Json:
    return {"px": spec.price_text(level.price), "sz": spec.size_text(level.lots), "n": level.orders}


def _impact_price(side: BookSide, notional: int) -> float | None:
    """Return the average price in units of an order of some micro-USD, or ``None`` where the side does not hold as much."""
    left, lots = notional, 0.0
    for level in side.levels():
        available = level.price * level.lots
        if available >= left:
            return notional / (lots + left / level.price)
        left -= available
        lots += level.lots
    return None
