"""Margin arithmetic: positions become coefficients of an affine function of prices.

For a margin account *i* (a cross account, or one isolated position) the surplus over maintenance at prices *p* is
``S_i(p) = cash_i + sum_j value_ij(p_j)`` with, per leg,

    value(p) = q*p - maintenance(|q|*p) = (q - r|q|) * p + D

``q`` the signed size in base units, ``r`` and ``D`` the maintenance rate and deduction of the tier that holds ``|q|*p``. The
account is liquidatable when ``S_i < 0``. Cash is such that ``equity = cash + sum q*p``, so no entry price is needed. Unknown
cash, price or tier is NaN, which makes the account, and only that account, unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.events import Contract, MarginTier

Array = NDArray[np.float64]
Indices = NDArray[np.int32]


LINEAR, INVERSE, ASSET = 0, 1, 2
"""Codes of :data:`connectors.events.Contract` in arrays."""

CONTRACT_CODE: dict[Contract, int] = {"linear": LINEAR, "inverse": INVERSE, "asset": ASSET}


class TierTable(NamedTuple):
    """Maintenance tiers of all markets: arrays of shape (markets, tiers), padded with an unreachable lower bound.

    A market whose tiers are unknown has a rate of NaN. ``contract`` of shape (markets,) holds the codes of the contracts; without
    it all are linear. Bounds and deductions of inverse contracts are in the coin.
    """

    lower_bound_usd: Array
    rate: Array
    deduction_usd: Array
    contract: NDArray[np.int8] | None = None


class TierError(ValueError):
    """A tier list that cannot be a venue's: names the market and the row."""


def check_tiers(symbol: str, tiers: Sequence[MarginTier], *, may_jump: bool = False) -> None:
    """Raise :class:`TierError` unless lower bounds start at 0 and rise, rates lie in (0, 1), and maintenance has no jumps.

    With ``may_jump`` maintenance may jump upwards where a tier begins, as it does where a venue has no deductions.
    """
    for row, tier in enumerate(tiers):
        if row == 0 and tier.lower_bound_usd != 0.0:
            raise TierError(f"{symbol}: the first margin tier starts at {tier.lower_bound_usd}, not at 0")
        if row and tier.lower_bound_usd <= tiers[row - 1].lower_bound_usd:
            raise TierError(f"{symbol}: margin tier {row} does not start above tier {row - 1}")
        if not 0.0 < tier.maintenance_rate < 1.0:
            raise TierError(f"{symbol}: margin tier {row} has a maintenance rate of {tier.maintenance_rate}")
        before = tiers[row - 1] if row else tier
        step = tier.lower_bound_usd * (tier.maintenance_rate - before.maintenance_rate)
        jump = tier.deduction_usd - (before.deduction_usd if row else 0.0) - step
        tolerance = 1e-6 * max(1.0, tier.lower_bound_usd * tier.maintenance_rate)
        if not abs(jump) <= tolerance and not (may_jump and jump < 0.0):
            raise TierError(f"{symbol}: maintenance jumps by {-jump} where margin tier {row} begins")


def build_tier_table(markets: Sequence[Sequence[MarginTier]], contracts: Sequence[Contract] | None = None) -> TierTable:
    """Lay out the tiers of all markets (by market index; an empty list means unknown); without ``contracts`` all are linear."""
    depth = max((len(tiers) for tiers in markets), default=1) or 1
    table = TierTable(
        np.full((len(markets), depth), np.inf),
        np.full((len(markets), depth), np.nan),
        np.full((len(markets), depth), np.nan),
        None if contracts is None else np.array([CONTRACT_CODE[contract] for contract in contracts], dtype=np.int8),
    )
    for index, tiers in enumerate(markets):
        for row, tier in enumerate(tiers):
            table.lower_bound_usd[index, row] = tier.lower_bound_usd
            table.rate[index, row] = tier.maintenance_rate
            table.deduction_usd[index, row] = tier.deduction_usd
    return table


def has_jumps(tiers: TierTable) -> NDArray[np.bool_]:
    """Tell in which markets maintenance jumps where a tier begins, shape (M,): triggers may lie at such a bound and on no line."""
    lower, rate, deduction = tiers.lower_bound_usd[:, 1:], tiers.rate, tiers.deduction_usd
    with np.errstate(invalid="ignore"):
        step = lower * (rate[:, 1:] - rate[:, :-1])
        jump = np.abs(deduction[:, 1:] - deduction[:, :-1] - step)
        # The tolerance of check_tiers(); what is beyond a table's last tier is NaN and no jump.
        jumps = jump > 1e-6 * np.maximum(1.0, lower * rate[:, 1:])
    return np.asarray(jumps.any(axis=1), dtype=np.bool_)


def base_coefficient(size: Array | float, rate: Array | float) -> Array | float:
    """Return ``q - r|q|``, the slope of a leg's value in its price at maintenance rate ``r``."""
    return size - rate * np.abs(size)


def second_tier_price(size: Array, market: Indices, tiers: TierTable) -> Array:
    """Return the price at which each leg leaves the first tier (``inf`` where there is one tier only)."""
    if tiers.lower_bound_usd.shape[1] < 2:
        return np.full(size.shape, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound: Array = tiers.lower_bound_usd[market, 1] / np.abs(size)
    return bound


def leg_value(size: Array, price: Array, market: Indices, tiers: TierTable) -> tuple[Array, Array]:
    """Return ``value(p)`` of legs with the tier looked up at ``price``, and the tier's maintenance margin."""
    notional = np.abs(size) * price
    tier = (tiers.lower_bound_usd[market] <= notional[:, None]).sum(axis=1) - 1
    maintenance = notional * tiers.rate[market, tier] - tiers.deduction_usd[market, tier]
    return size * price - maintenance, maintenance


def solve_tiered_trigger(size: Array, market: Indices, equity_elsewhere: Array, tiers: TierTable) -> Array:
    """Return the price at which ``equity_elsewhere + value(p) = 0`` with the tier taken at that price.

    ``equity_elsewhere`` is the account's surplus without this leg: cash plus the value of all other legs at their present prices.
    As maintenance is continuous and its rate below one, the function of p is strictly monotone, so exactly one tier holds its own
    root. Tables with jumps, where none might, are refused by :func:`check_tiers`.

    Returns:
        Shape (N,); not positive or NaN where no such price exists.
    """
    result = np.full(size.shape, np.nan)
    magnitude = np.abs(size)
    for tier in range(tiers.rate.shape[1]):
        slope = size - tiers.rate[market, tier] * magnitude
        with np.errstate(divide="ignore", invalid="ignore"):
            root = -(equity_elsewhere + tiers.deduction_usd[market, tier]) / slope
        lower = tiers.lower_bound_usd[market, tier]
        upper = tiers.lower_bound_usd[market, tier + 1] if tier + 1 < tiers.rate.shape[1] else np.inf
        notional = magnitude * root
        # Rounding may put a root that lies on a bound a hair outside of both tiers; continuity makes either right.
        slack = 1e-12 * np.maximum(np.abs(notional), 1.0)
        holds = (notional >= lower - slack) & (notional < upper + slack)
        if tier == 0:
            holds |= notional < 0.0  # No positive price; kept as is, the caller drops it.
        result = np.where(np.isnan(result) & holds, root, result)
    return result
