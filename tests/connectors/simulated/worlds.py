"""Small exchanges for the tests of this directory."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.simulated.accounts import AccountTable
from connectors.simulated.exchange import Exchange, ExchangeConfig
from connectors.simulated.liquidation import LiquidationEngine
from connectors.simulated.markets import MARKETS, MICROS_PER_USD, MarginTier, Market
from connectors.simulated.scenario import CrashShape

START_MS = 1_760_000_000_000

HYPE = MARKETS[3]

ROUND = Market(
    coin="ROUND",
    size_decimals=2,
    margin_table_id=52,
    margin_table_name="tiered 10x (2)",
    tiers=(MarginTier(0, 10), MarginTier(20_000_000, 5)),
    initial_price_usd=100.0,
    open_interest_usd=1e6,
    depth_one_percent_usd=1e5,
    beta=1.0,
    impact_notional_usd=6_000.0,
)
"""100 USD a coin, 5 % maintenance up to 20 million: figures that can be checked by hand."""

QUICK_CRASH = CrashShape(begins_s=2.0, falls_for_s=15.0, recovers_for_s=10.0)
"""The crash of the demo in a fifth of the time."""


def address(row: int) -> str:
    return f"0x{row:040x}"


def world(
    markets: tuple[Market, ...] = (ROUND,), accounts: int = 4, config: ExchangeConfig | None = None
) -> tuple[Exchange, LiquidationEngine]:
    """Return an exchange of empty accounts of which the last is the vault; account 0 is rich, to quote."""
    table = AccountTable(markets, [address(row) for row in range(accounts)])
    table.raw[0] = 10**9 * MICROS_PER_USD
    table.raw[accounts - 1] = 10**9 * MICROS_PER_USD
    exchange = Exchange(table, START_MS, config)
    return exchange, LiquidationEngine(exchange, accounts - 1)


def give(exchange: Exchange, row: int, market: int, size: float, equity_usd: float, *, isolated: bool = False) -> None:
    """Give an account a position at the mark with a margin, and account 0 the other side."""
    table, spec = exchange.table, exchange.markets[market]
    lots, price = round(size * spec.lot_scale), exchange.mark[market]
    for holder, signed in ((row, lots), (0, -lots)):
        table.lots[holder, market] += signed
        table.cost[holder, market] += signed * price
        table.touched.add(holder)
    table.raw[0] += lots * price
    equity = round(equity_usd * MICROS_PER_USD)
    if isolated:
        table.isolated[row, market] = True
        table.isolated_raw[row, market] = equity - lots * price
    else:
        table.raw[row] += equity - lots * price


def quote(exchange: Exchange, market: int, levels: Sequence[tuple[float, float]], *, is_bid: bool, owner: int = 0) -> None:
    """Rest orders given as (price in USD, coins)."""
    spec = exchange.markets[market]
    for price_usd, size in levels:
        assert exchange.quote(owner, market, spec.price(price_usd), round(size * spec.lot_scale), is_bid=is_bid)


def set_mark(exchange: Exchange, market: int, price_usd: float) -> None:
    """Move the mark of one market by hand."""
    exchange.previous_mark = list(exchange.mark)
    exchange.mark = list(exchange.mark)
    exchange.mark[market] = exchange.markets[market].price(price_usd)
