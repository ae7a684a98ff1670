"""Accounts and positions as a large venue has them, drawn once from a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from connectors.events import AccountModeReport, AccountSnapshot, AnyEvent, MarginTier, PositionReport
from connectors.hyperliquid_markets import margin_tiers
from monitor.margin import Array, Indices, TierTable, base_coefficient, build_tier_table, leg_value, second_tier_price
from monitor.triggers import Legs

TIER_BOUNDS_USD = [0.0, 3_000_000.0]
TIER_LEVERAGES = [40.0, 20.0]
"""Two tiers, as most larger markets of Hyperliquid have them."""

MARKETS = 200

POSITIONS_PER_ACCOUNT = 3


class Population(NamedTuple):
    """Positions sorted by account, at most one per account and market; ``account`` counts from 0."""

    account: Indices
    market: Indices
    size: Array
    cash_usd: Array
    price: Array

    @property
    def tiers(self) -> list[tuple[MarginTier, ...]]:
        """The margin tiers of every market."""
        return [margin_tiers(TIER_BOUNDS_USD, TIER_LEVERAGES)] * self.price.size


def draw_population(positions: int, markets: int = MARKETS, seed: int = 1) -> Population:
    """Draw positions with heavy tails: a few markets hold most of them, a few accounts most of the notional.

    Account leverage is lognormal around 8, at most 38, which leaves every account above maintenance at the start.
    """
    random = np.random.default_rng(seed)
    accounts = max(1, positions // POSITIONS_PER_ACCOUNT)
    price = np.exp(random.normal(3.0, 2.0, markets))
    # Pairs that are drawn twice are one position; draw until there are enough, then drop the surplus evenly.
    pairs = np.empty(0, dtype=np.int64)
    while pairs.size < positions:
        owner = random.integers(0, accounts, positions)
        drawn = owner * np.int64(markets) + (random.zipf(1.3, positions) - 1) % markets
        # np.unique() goes by hashes, which takes seven times as long where nearly all are different.
        drawn = np.sort(np.concatenate((pairs, drawn)))
        pairs = drawn[np.diff(drawn, prepend=-1) > 0]
    pairs = np.sort(random.choice(pairs, positions, replace=False))
    account, market = (pairs // markets).astype(np.int32), (pairs % markets).astype(np.int32)
    notional_usd = 50.0 + random.pareto(1.2, positions) * 2_000.0
    size = notional_usd / price[market] * random.choice([-1.0, 1.0], positions)
    value = size * price[market]
    gross = np.bincount(account, weights=np.abs(value), minlength=accounts)
    leverage = (8.0 * random.lognormal(0.0, 0.6, accounts)).clip(1.0, 38.0)
    equity = np.maximum(gross / leverage, 1.05 * _maintenance(account, market, size, price, accounts))
    return Population(account, market, size, equity - np.bincount(account, weights=value, minlength=accounts), price)


def _maintenance(account: Indices, market: Indices, size: Array, price: Array, accounts: int) -> Array:
    table = build_tier_table([margin_tiers(TIER_BOUNDS_USD, TIER_LEVERAGES)] * price.size)
    _, maintenance = leg_value(size, price[market], market, table)
    return np.asarray(np.bincount(account, weights=maintenance, minlength=accounts), dtype=np.float64)


def as_legs(population: Population) -> tuple[Legs, TierTable]:
    """Return what a margin sweep takes."""
    tiers = build_tier_table(population.tiers)
    size, market = population.size, population.market
    slope = np.asarray(base_coefficient(size, tiers.rate[market, 0]), dtype=np.float64)
    return Legs(population.account, market, size, slope, second_tier_price(size, market, tiers)), tiers


def account_name(number: int) -> str:
    """Return the address of an account."""
    return f"0x{number:040x}"


def account_events(population: Population, venue: str, symbols: list[str], now_ns: int) -> Iterator[AnyEvent]:
    """Report every account as the venue would: its state, then its mode."""
    starts = np.searchsorted(population.account, np.arange(population.cash_usd.size + 1)).tolist()
    market, size, cash = population.market.tolist(), population.size.tolist(), population.cash_usd.tolist()
    for number, cash_usd in enumerate(cash):
        name = account_name(number)
        yield AccountSnapshot(
            venue=venue,
            connection="rest",
            received_ns=now_ns,
            account=name,
            exchange_ns=now_ns,
            cross_cash_usd=cash_usd,
            positions=tuple(
                PositionReport(symbols[market[leg]], size[leg], None, None, None, None)
                for leg in range(starts[number], starts[number + 1])
            ),
        )
        yield AccountModeReport(venue=venue, connection="rest", received_ns=now_ns, account=name, mode="standard")
