"""How far prices have to move together until an account is liquidated, along any direction.

A **direction** gives every price its relative move per unit of shock: at shock ``s`` the price of market ``j`` is
``p_j (1 + direction_j s)``. All prices falling together is -1 everywhere, one market alone is zero elsewhere, a stablecoin that
loses its peg is -1 in the columns of that coin. The shock that liquidates an account is the smallest ``s > 0`` at which its surplus
falls below zero, with all margin tiers taken there (design.md 3).

Prices are affine in ``s``, and what a leg is worth is affine in its price while its tier stays, so the surplus is piecewise affine
in ``s``. It is solved exactly by :func:`monitor.contracts.first_shortfall`, which looks at every piece on the way and therefore
handles maintenance that jumps at a tier's bound as well. (Newton's method from the far side would need fewer steps on concave
surpluses, but finds the wrong crossing or none where they are not.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.contracts import Codes, ColumnLegs, Integers, Path, first_shortfall
from monitor.margin import Array, TierTable


class AccountLegs(NamedTuple):
    """Legs of whole accounts as parallel arrays of shape (N,), in any order.

    ``row`` is the margin account, ``market`` the column of the leg's price and the row of its tiers; the rest is as in
    :class:`monitor.contracts.ColumnLegs`.
    """

    row: Integers
    market: Integers
    contract: Codes
    size: Array
    entry_price: Array
    ratio: Array


def trigger_shocks(
    legs: AccountLegs,
    cash_usd: Array,
    prices: Array,
    direction: Array,
    tiers: TierTable,
    *,
    level_usd: float = 0.0,
    level_ratio: float = 0.0,
) -> Array:
    """Return the smallest shock at which each account reaches liquidation, or a level above it.

    An account is at the level where ``surplus < level_usd + level_ratio * maintenance``; with both at 0 that is liquidation, with
    one above 0 a margin call that comes before it.

    Args:
        legs: the legs of A accounts.
        cash_usd: shape (A,).
        prices: shape (M,), present margin prices.
        direction: shape (M,), relative move of each price per unit of shock.
        tiers: of all M markets.
        level_usd: distance of the level above liquidation, in USD, not negative.
        level_ratio: the same as a share of maintenance, not negative.

    Returns:
        Shape (A,), not negative. 0 for an account that is below the level already; ``inf`` for one that never reaches it while all
        of **its** prices are above zero (the shock ends where the first of them would be zero, since a scenario with prices of
        zero says nothing); NaN where cash, a price, a tier, an entry price or a ratio that is needed is not known.

    Raises:
        ValueError: if a level is negative: it would lie below liquidation.
    """
    if level_usd < 0.0 or level_ratio < 0.0:
        raise ValueError(f"a margin call level of {level_usd} USD and {level_ratio} of maintenance lies below liquidation")
    accounts = cash_usd.size
    price, move = prices[legs.market], direction[legs.market]
    column_legs = ColumnLegs(legs.row, legs.contract, legs.size, legs.entry_price, legs.ratio, legs.market)
    return first_shortfall(
        column_legs,
        Path(price, price * move, np.zeros(accounts), _largest_shock(legs.row, legs.size, move, accounts)),
        cash_usd - level_usd,
        tiers,
        maintenance_factor=1.0 + level_ratio,
    )


def together(markets: int, move: float = -1.0) -> Array:
    """Return the direction in which all prices move by the same ratio; by default they fall."""
    return np.full(markets, move)


def alone(markets: int, columns: Integers, move: float = -1.0) -> Array:
    """Return the direction in which only these columns move: one market, or every column of an asset that loses its peg."""
    direction = np.zeros(markets)
    direction[columns] = move
    return direction


def _largest_shock(row: Integers, size: Array, move: Array, accounts: int) -> Array:
    """Return the shock at which the first price of each account would reach zero, ``inf`` if none falls."""
    falling = np.flatnonzero((move < 0.0) & (size != 0.0))
    largest = np.full(accounts, np.inf)
    with np.errstate(over="ignore"):
        np.minimum.at(largest, row[falling], -1.0 / move[falling])
    return largest
