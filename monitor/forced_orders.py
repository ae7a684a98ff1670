"""What forced orders bring to the market: how much of each leg is sold or bought at its trigger, in base units.

Nearly all legs are closed as they stand. The others are few: legs of inverse contracts, whose size is in USD; collateral, which is
no position; and the two legs of an account in hedge mode, which are closed against one another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.margin import ASSET, INVERSE, Array, TierTable
from monitor.triggers import GENERAL, Legs, Sweep


def base_sizes(legs: Legs, price: Array, tiers: TierTable) -> Array:
    """Return signed sizes in base units: those of inverse contracts are in USD and divided by ``price``."""
    if tiers.contract is None:
        return legs.size
    is_inverse = legs.contracts(tiers) == INVERSE
    return np.where(is_inverse, legs.size / price, legs.size) if is_inverse.any() else legs.size


def first_of_account(legs: Legs, tiers: TierTable) -> NDArray[np.bool_]:
    """Tell which legs are not further ones of their account in their market."""
    is_first = np.ones(legs.size.size, dtype=np.bool_)
    general = np.flatnonzero(legs.second_tier_price == GENERAL)
    if general.size:
        is_first[general] = False
        is_first[general[np.unique(_keys(legs, general, tiers), return_index=True)[1]]] = True
    return is_first


def forced_orders(legs: Legs, swept: Sweep, price: Array, tiers: TierTable) -> tuple[Legs, Sweep]:
    """Return the legs with the sizes that reach the market, and the sweep with no shock where nothing does.

    Args:
        legs: the positions.
        swept: the surplus of each leg's **own** account, shape (N,), triggers and shocks.
        price: shape (N,), of each leg's market.
        tiers: of all markets.

    Of the legs that an account has in one market only the sum reaches it, which is given to the first of them. An account that is
    under water has no trigger ahead, but its legs are due: their shock is 0. A hedge whose maintenance outgrows its small excess
    may be liquidated by a move that the excess gains from; what it closes then works against the move, and is left out.
    """
    general = np.flatnonzero((legs.second_tier_price == GENERAL) & (legs.size != 0.0))
    if tiers.contract is None and not general.size and not legs.is_holding.any():
        return legs, swept
    size = base_sizes(legs, np.where(swept.trigger_price > 0.0, swept.trigger_price, price), tiers).copy()
    if tiers.contract is not None or legs.is_holding.size:
        size[legs.contracts(tiers) == ASSET] = 0.0
    _, first, group = np.unique(_keys(legs, general, tiers), return_index=True, return_inverse=True)
    net = np.bincount(group, weights=size[general])
    size[general] = 0.0
    size[general[first]] = net
    shock = swept.shock.copy()
    shock[general] = np.where(swept.surplus_usd[general] < 0.0, 0.0, shock[general])
    shock[general[size[general] * shock[general] > 0.0]] = np.nan
    shock[size == 0.0] = np.nan
    return legs._replace(size=size), swept._replace(shock=shock)


def _keys(legs: Legs, chosen: NDArray[np.int64], tiers: TierTable) -> NDArray[np.int64]:
    """Return a number for the account and market of each chosen leg."""
    return np.asarray(legs.account[chosen].astype(np.int64) * tiers.rate.shape[0] + legs.market[chosen], dtype=np.int64)
