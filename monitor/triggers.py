"""The margin sweep: all accounts at the present prices, and the price at which each leg would be liquidated.

One pass over flat arrays. The result of a leg is what venues publish as its liquidation price: the price of its own market at which
the account's surplus reaches zero while all other prices stay where they are, with the maintenance tier taken at that price.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.margin import Array, Indices, TierTable, leg_value, solve_tiered_trigger


class Legs(NamedTuple):
    """Positions as parallel arrays of shape (N,); a free slot has size 0.

    ``account`` is the row of the margin account, ``market`` the market index, ``slope`` the leg's ``q - r|q|`` in the first tier,
    ``second_tier_price`` the price from which the first tier no longer holds.
    """

    account: Indices
    market: Indices
    size: Array
    slope: Array
    second_tier_price: Array


class Sweep(NamedTuple):
    """The result: surplus per margin account, shape (A,), and trigger price per leg, shape (N,).

    ``shock`` is the relative move of the leg's own price to its trigger, negative for falls: ``trigger = price * (1 + shock)``.
    NaN where the account is unknown. A leg is *triggered already* when the surplus of its account is negative.
    """

    surplus_usd: Array
    trigger_price: Array
    shock: Array


class Workspace:
    """Arrays that are written anew in every sweep, kept so that a sweep allocates nothing."""

    __slots__ = ("price", "shock", "trigger", "value")

    def __init__(self, legs: int) -> None:
        self.price = np.empty(legs)
        self.value = np.empty(legs)
        self.shock = np.empty(legs)
        self.trigger = np.empty(legs)

    def fits(self, legs: int) -> bool:
        """Tell whether the arrays hold ``legs`` rows."""
        return self.price.size >= legs


def sweep(legs: Legs, cash_usd: Array, prices: Array, tiers: TierTable, workspace: Workspace | None = None) -> Sweep:
    """Compute surplus and trigger prices.

    Args:
        legs: the positions.
        cash_usd: shape (A,), NaN for accounts that are not to be projected.
        prices: shape (M,), the price each market's margin is computed at; NaN where unknown or stale.
        tiers: of all M markets.
        workspace: reused arrays; the returned leg arrays are views of it and live until its next use.
    """
    count = legs.size.size
    if workspace is None or not workspace.fits(count):
        workspace = Workspace(count)
    price, value = workspace.price[:count], workspace.value[:count]
    shock, trigger = workspace.shock[:count], workspace.trigger[:count]
    # Every index is in range by construction, and mode="clip" spares take() a buffered copy to be able to raise.
    np.take(prices, legs.market, out=price, mode="clip")
    np.multiply(legs.slope, price, out=value)
    large = np.flatnonzero(price >= legs.second_tier_price)
    if large.size:
        value[large], _ = leg_value(legs.size[large], price[large], legs.market[large], tiers)
    surplus: Array = cash_usd + np.bincount(legs.account, weights=value, minlength=cash_usd.size)
    # Free slots have value 0 and give NaN or infinity, which no comparison lets through.
    with np.errstate(divide="ignore", invalid="ignore"):
        np.take(surplus, legs.account, out=shock, mode="clip")
        np.divide(shock, value, out=shock)
        np.negative(shock, out=shock)
        np.multiply(shock, price, out=trigger)
        np.add(trigger, price, out=trigger)
        tiered = np.flatnonzero((price >= legs.second_tier_price) | (trigger >= legs.second_tier_price))
        if tiered.size:
            elsewhere = surplus[legs.account[tiered]] - value[tiered]
            trigger[tiered] = solve_tiered_trigger(legs.size[tiered], legs.market[tiered], elsewhere, tiers)
            shock[tiered] = trigger[tiered] / price[tiered] - 1.0
    return Sweep(surplus, trigger, shock)
