"""A slow reference for tests: one account at a time, in the words of the venues' own texts.

It shares no arithmetic with the code under test. Inverse contracts are reckoned in coin and turned into USD at the end; triggers
are found by bisection between the prices at which any leg changes its tier, with nothing assumed about the shape of the surplus.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Tier = tuple[float, float, float]
"""Lower bound, maintenance rate, deduction; in USD, or in coin for inverse contracts."""

Prices = float | Callable[["Leg"], float]
"""One price for all legs, or a price for each."""


@dataclass(frozen=True)
class Leg:
    """One position or holding; ``column`` is the price it depends on."""

    contract: Literal["linear", "inverse", "asset"]
    size: float
    tiers: tuple[Tier, ...] = ()
    entry: float = math.nan
    ratio: float = math.nan
    column: int = 0

    def measure(self, price: float) -> float:
        """The position's value, which decides the tier."""
        return abs(self.size) / price if self.contract == "inverse" else abs(self.size) * price

    def prices_of_change(self) -> list[float]:
        """The prices at which the tier changes."""
        bounds = [lower for lower, _, _ in self.tiers if lower > 0.0]
        if self.contract == "asset" or self.size == 0.0:
            return []
        return [abs(self.size) / bound if self.contract == "inverse" else bound / abs(self.size) for bound in bounds]


def maintenance(leg: Leg, price: float) -> float:
    """Position value times the rate of its tier, less the tier's deduction; in USD."""
    if leg.contract == "asset" or leg.size == 0.0:
        return 0.0
    value = leg.measure(price)
    _, rate, deduction = [tier for tier in leg.tiers if tier[0] <= value][-1]
    in_margin_currency = value * rate - deduction
    return in_margin_currency * price if leg.contract == "inverse" else in_margin_currency


def equity(leg: Leg, price: float) -> float:
    """What the leg is worth in USD, with the cash counted as for a purchase from nothing."""
    if leg.size == 0.0:
        return 0.0
    if leg.contract == "inverse":
        profit_in_coin = leg.size * (1.0 / leg.entry - 1.0 / price)
        return profit_in_coin * price
    return leg.size * price


def counted(leg: Leg, price: float) -> float:
    """What of the equity counts as margin: assets after their haircut, debts in full."""
    if leg.contract == "asset" and leg.size > 0.0:
        return leg.ratio * equity(leg, price)
    return equity(leg, price)


def surplus(legs: list[Leg], cash: float, prices: Prices, level: float = 0.0) -> float:
    """Margin above maintenance, the latter increased by the share ``level``."""
    total = cash
    for leg in legs:
        price = prices if isinstance(prices, float) else prices(leg)
        total += counted(leg, price) - (1.0 + level) * maintenance(leg, price)
    return total


def gross(legs: list[Leg], cash: float, prices: Prices) -> float:
    """The size of the numbers that the surplus is made of, against which rounding is judged."""
    total = abs(cash)
    for leg in legs:
        price = prices if isinstance(prices, float) else prices(leg)
        total += abs(equity(leg, price)) + abs(maintenance(leg, price))
    return total


def first_negative(value: Callable[[float], float], start: float, stop: float, changes: list[float]) -> float | None:
    """Walk from ``start`` towards ``stop`` and return the first place where ``value`` turns negative.

    ``value`` is monotone between two neighbouring ``changes``; ``start`` may be above or below ``stop``.
    """
    between = sorted((x for x in changes if min(start, stop) < x < max(start, stop)), reverse=stop < start)
    points = [start, *between, stop]
    for left, right in pairwise(points):
        # Just inside of the piece, so that the tiers are those of the piece and not of its ends.
        inner_left, inner_right = left + step_off(left, right), right + step_off(right, left)
        if value(inner_left) < 0.0:
            return left
        if value(inner_right) < 0.0:
            good, bad = inner_left, inner_right
            for _ in range(200):
                middle = 0.5 * (good + bad)
                if value(middle) < 0.0:
                    bad = middle
                else:
                    good = middle
            return bad
    return None


def step_off(end: float, other: float) -> float:
    """A step from one end of an interval towards the other, just beyond rounding."""
    return math.copysign(min(1e-11 * abs(other - end), 1e-12 * max(abs(end), 1e-3)), other - end)


def trigger_price(legs: list[Leg], cash: float, price: float, *, falling: bool) -> float | None:
    """The nearest price of a single column, on one side, at which the account is liquidated."""
    changes = [change for leg in legs for change in leg.prices_of_change()]
    far = 0.0 if falling else 1e6 * max([price, *changes])
    return first_negative(lambda p: surplus(legs, cash, p), price, far, changes)


def trigger_shock(legs: list[Leg], cash: float, prices: list[float], direction: list[float], level: float = 0.0) -> float | None:
    """The smallest shock along a direction at which the account is liquidated."""
    changes = []
    stop = 1e6
    for leg in legs:
        move, price = direction[leg.column], prices[leg.column]
        if leg.size != 0.0 and move != 0.0:
            changes += [(change / price - 1.0) / move for change in leg.prices_of_change()]
            if move < 0.0:
                stop = min(stop, -1.0 / move)

    def value(shock: float) -> float:
        return surplus(legs, cash, lambda leg: prices[leg.column] * (1.0 + direction[leg.column] * shock), level)

    return first_negative(value, 0.0, stop, changes)
