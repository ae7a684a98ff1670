"""The markets of the simulated exchange: units, ticks and margin tables (venues.md 1.5, 1.7, 1.9).

Everything that is matched or settled is a whole number:

* a size is in **lots** of ``10 ** -size_decimals`` coins;
* a price is in **price units** of ``10 ** -(6 - size_decimals)`` USD, the finest step that the venue allows;
* so price times size is in **micro-USD**, exactly, and cash is kept in micro-USD too.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MICRO_DECIMALS: Final = 6
MICROS_PER_USD: Final = 10**MICRO_DECIMALS

SIGNIFICANT_FIGURES: Final = 5
"""Prices of orders have at most this many, except that whole numbers are always allowed."""


class MarginTier(msgspec.Struct, frozen=True):
    """The leverage allowed for notionals from ``lower_bound_usd`` on."""

    lower_bound_usd: int
    max_leverage: int


class Market(msgspec.Struct, frozen=True, dict=True):
    """One perpetual market."""

    coin: str
    size_decimals: int
    margin_table_id: int
    margin_table_name: str
    tiers: tuple[MarginTier, ...]
    initial_price_usd: float
    open_interest_usd: float
    """What ordinary accounts hold on each side at the start."""
    depth_one_percent_usd: float
    """What all makers together quote within 1 % of the middle, on each side, in quiet times."""
    beta: float
    """How far it moves when Bitcoin moves by 1."""
    impact_notional_usd: float
    """The size at which impact prices are measured (venues.md 1.8)."""

    @cached_property
    def price_decimals(self) -> int:
        """Decimals of a price unit."""
        return MICRO_DECIMALS - self.size_decimals

    @cached_property
    def price_scale(self) -> int:
        """Price units per USD."""
        return int(10**self.price_decimals)

    @cached_property
    def lot_scale(self) -> int:
        """Lots per coin."""
        return int(10**self.size_decimals)

    @cached_property
    def maintenance_lines(self) -> tuple[tuple[float, float], ...]:
        """(rate, deduction in USD) of each tier, with ``D(k) = D(k-1) + lower_bound * (rate(k) - rate(k-1))``."""
        lines = []
        rate, deduction = 0.0, 0.0
        for tier in self.tiers:
            tier_rate = 0.5 / tier.max_leverage
            deduction += tier.lower_bound_usd * (tier_rate - rate)
            rate = tier_rate
            lines.append((rate, deduction))
        return tuple(lines)

    @property
    def max_leverage(self) -> int:
        """The most that the smallest position may use."""
        return self.tiers[0].max_leverage

    def max_leverage_at(self, notional_usd: float) -> int:
        """Return the leverage limit of the tier that a notional falls in."""
        return [tier.max_leverage for tier in self.tiers if tier.lower_bound_usd <= notional_usd][-1]

    def maintenance_usd(self, notional_usd: float) -> float:
        """Return the maintenance margin of a notional.

        Rates rise with the tier and the steps are continuous, so the tier's line is the highest of all lines.
        """
        return max(rate * notional_usd - deduction for rate, deduction in self.maintenance_lines)

    def maintenance_array_usd(self, notionals_usd: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the maintenance margins of many notionals."""
        rate, deduction = self.maintenance_lines[0]
        highest = notionals_usd * rate - deduction
        for rate, deduction in self.maintenance_lines[1:]:
            np.maximum(highest, notionals_usd * rate - deduction, out=highest)
        return highest

    def tick(self, price: int) -> int:
        """Return the distance of neighbouring order prices at a price, in price units."""
        return min(int(10 ** max(0, len(str(price)) - SIGNIFICANT_FIGURES)), self.price_scale)

    def ticks(self, prices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return :meth:`tick` for many prices."""
        ticks = np.ones_like(prices)
        power = 10
        while power <= self.price_scale:
            ticks[prices >= power * 10 ** (SIGNIFICANT_FIGURES - 1)] = power
            power *= 10
        return ticks

    def price(self, usd: float) -> int:
        """Return the nearest price in units; at least one unit."""
        return max(1, round(usd * self.price_scale))

    def price_usd(self, price: int) -> float:
        """Return a price in USD, the float nearest to its decimal text."""
        return price / self.price_scale

    def lots_for(self, notional_usd: float, price: int) -> int:
        """Return the whole number of lots, at least one, closest to a notional at a price."""
        return max(1, round(notional_usd * MICROS_PER_USD / price))

    def price_text(self, price: int) -> str:
        """Write a price the way the venue does."""
        return decimal_text(price, self.price_decimals)

    def size_text(self, lots: int) -> str:
        """Write a size the way the venue does."""
        return decimal_text(lots, self.size_decimals)


def decimal_text(value: int, decimals: int) -> str:
    """Write ``value * 10 ** -decimals`` exactly, with at least one digit after the point."""
    sign = "-" if value < 0 else ""
    digits = str(abs(value)).rjust(decimals + 1, "0")
    whole, fraction = (digits[:-decimals], digits[-decimals:]) if decimals else (digits, "")
    return f"{sign}{whole}.{fraction.rstrip('0') or '0'}"


def micro_text(micros: int) -> str:
    """Write an amount of money exactly."""
    return decimal_text(micros, MICRO_DECIMALS)


def float_text(value: float) -> str:
    """Write the shortest decimal without exponent that reads back as the same float."""
    text = repr(value)
    if "e" in text:
        return str(np.format_float_positional(value, unique=True, trim="0"))
    return text


def margin_table(market: Market) -> dict[str, object]:
    """Return the market's margin table as the venue publishes it."""
    tiers = [{"lowerBound": f"{tier.lower_bound_usd}.0", "maxLeverage": tier.max_leverage} for tier in market.tiers]
    return {"description": market.margin_table_name, "marginTiers": tiers}


MARKETS: Final = (
    Market(
        coin="BTC",
        size_decimals=5,
        margin_table_id=56,
        margin_table_name="tiered 40x",
        tiers=(MarginTier(0, 40), MarginTier(150_000_000, 20)),
        initial_price_usd=84_140.0,
        open_interest_usd=250e6,
        depth_one_percent_usd=60e6,
        beta=1.0,
        impact_notional_usd=20_000.0,
    ),
    Market(
        coin="ETH",
        size_decimals=4,
        margin_table_id=55,
        margin_table_name="tiered 25x",
        tiers=(MarginTier(0, 25), MarginTier(100_000_000, 15)),
        initial_price_usd=2_986.0,
        open_interest_usd=150e6,
        depth_one_percent_usd=36e6,
        beta=1.1,
        impact_notional_usd=20_000.0,
    ),
    Market(
        coin="SOL",
        size_decimals=2,
        margin_table_id=54,
        margin_table_name="tiered 20x (2)",
        tiers=(MarginTier(0, 20), MarginTier(70_000_000, 10)),
        initial_price_usd=141.5,
        open_interest_usd=80e6,
        depth_one_percent_usd=18e6,
        beta=1.2,
        impact_notional_usd=6_000.0,
    ),
    Market(
        coin="HYPE",
        size_decimals=2,
        margin_table_id=52,
        margin_table_name="tiered 10x (2)",
        tiers=(MarginTier(0, 10), MarginTier(20_000_000, 5)),
        initial_price_usd=34.8,
        open_interest_usd=50e6,
        depth_one_percent_usd=10e6,
        beta=1.3,
        impact_notional_usd=6_000.0,
    ),
)
"""Margin tables as on the main network; prices, sizes and depths are invented but of the right order."""
