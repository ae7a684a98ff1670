"""The margin sweep: all accounts at the present prices, and the price at which each leg would be liquidated.

One pass over flat arrays. The result of a leg is what venues publish as its liquidation price: the price of its own market at which
the account's surplus reaches zero while all other prices stay where they are, with the maintenance tier taken at that price.

Nearly all legs are *plain*: the only leg of their account in a linear market. Their value is ``slope * price`` in the first tier,
and all that is done to them is a handful of array operations. The others, marked by a second tier that begins at price 0, are
valued and solved by the general code of ``monitor/contracts.py``, together with the other legs of their account in the market.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.contracts import ColumnLegs, column_values, solve_column
from monitor.margin import ASSET, Array, Indices, TierTable, leg_value, solve_tiered_trigger

GENERAL = 0.0
"""The ``second_tier_price`` of a leg that is not plain."""


class Legs(NamedTuple):
    """Positions as parallel arrays of shape (N,); a free slot has size 0.

    ``account`` is the row of the margin account, ``market`` the market index, ``slope`` the leg's ``q - r|q|`` in the first tier,
    ``second_tier_price`` the price from which the first tier no longer holds, 0 for legs that are not plain. ``entry_price`` is
    looked at for inverse contracts only, and may be empty where there are none. ``is_holding`` marks assets that are held or owed,
    which are no contracts whatever the market is; it may be empty where there are none. Their slope is the quantity times the ratio
    that counts.
    """

    account: Indices | NDArray[np.int64]
    market: Indices
    size: Array
    slope: Array
    second_tier_price: Array
    entry_price: Array = np.empty(0)
    is_holding: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)

    def contracts(self, tiers: TierTable) -> NDArray[np.int8]:
        """Return what each leg is: the contract of its market, or an asset."""
        contract = np.zeros(self.size.size, dtype=np.int8) if tiers.contract is None else tiers.contract[self.market]
        if self.is_holding.size:
            contract[self.is_holding] = ASSET
        return contract

    def column_legs(self, chosen: NDArray[np.int64], group: NDArray[np.int64], tiers: TierTable) -> ColumnLegs:
        """Return the ``chosen`` legs as the general code takes them; legs of one ``group`` share an account and a market."""
        size, market = self.size[chosen], self.market[chosen]
        is_holding = self.is_holding[chosen] if self.is_holding.size else self.is_holding
        contract = self._replace(size=size, market=market, is_holding=is_holding).contracts(tiers)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(contract == ASSET, self.slope[chosen] / size, np.nan)
        entry = self.entry_price[chosen] if self.entry_price.size else np.full(chosen.size, np.nan)
        return ColumnLegs(group, contract, size, entry, ratio, market)


NO_LEGS = Legs(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), np.empty(0), np.empty(0), np.empty(0))


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
    value_legs(legs, price, tiers, out=value)
    surplus: Array = cash_usd + np.bincount(legs.account, weights=value, minlength=cash_usd.size)
    np.take(surplus, legs.account, out=shock, mode="clip")
    find_triggers(legs, price, value, tiers, shock=shock, trigger=trigger)
    return Sweep(surplus, trigger, shock)


def value_legs(legs: Legs, price: Array, tiers: TierTable, *, out: Array) -> None:
    """Write the surplus value of each leg at ``price`` (shape (N,)) into ``out``: what it adds to its account's surplus, in USD."""
    np.multiply(legs.slope, price, out=out)
    special = np.flatnonzero(price >= legs.second_tier_price)
    if special.size:
        out[special] = _special_values(legs, special, price[special], tiers)


def _special_values(legs: Legs, special: NDArray[np.int64], price: Array, tiers: TierTable) -> Array:
    """Value legs that have left the first tier, or are not plain, at a price each."""
    value, _ = leg_value(legs.size[special], price, legs.market[special], tiers)
    general = np.flatnonzero(legs.second_tier_price[special] == GENERAL)
    if general.size:
        columns = legs.column_legs(special[general], np.arange(general.size), tiers)
        value[general] = column_values(columns, price[general], tiers)[0]
    return value


def find_triggers(legs: Legs, price: Array, value: Array, tiers: TierTable, *, shock: Array, trigger: Array) -> None:
    """Find the trigger price of each leg.

    Args:
        legs: the positions.
        price: shape (N,), of each leg's market.
        value: shape (N,), what each leg adds to the surplus at that price.
        tiers: of all markets.
        shock: shape (N,); the surplus of each leg's account on entry, the shock on return.
        trigger: shape (N,); written.
    """
    beyond = price >= legs.second_tier_price
    special = np.flatnonzero(beyond)
    general = special[(legs.second_tier_price[special] == GENERAL) & (legs.size[special] != 0.0)]
    # The few that need it keep their surplus, which the plain formula overwrites.
    surplus_of_general = shock[general]
    # Free slots have value 0 and give NaN or infinity, which no comparison lets through; so may the smallest numbers there are.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        np.divide(shock, value, out=shock)
        np.negative(shock, out=shock)
        np.multiply(shock, price, out=trigger)
        np.add(trigger, price, out=trigger)
        np.greater_equal(trigger, legs.second_tier_price, out=beyond)
        beyond[special] = True
        tiered = np.flatnonzero(beyond)
        if tiered.size:
            # surplus = -shock * value, so what the others have is -value * (shock + 1).
            elsewhere = -value[tiered] * (shock[tiered] + 1.0)
            trigger[tiered] = solve_tiered_trigger(legs.size[tiered], legs.market[tiered], elsewhere, tiers)
            shock[tiered] = trigger[tiered] / price[tiered] - 1.0
    if general.size:
        sums = surplus_of_general, value[general]
        trigger[general] = _general_triggers(legs, general, price[general], sums, tiers)
        shock[general] = trigger[general] / price[general] - 1.0


def _general_triggers(legs: Legs, general: NDArray[np.int64], price: Array, sums: tuple[Array, Array], tiers: TierTable) -> Array:
    """Solve legs with the others of their account and market; where both a fall and a rise would do it, the nearer one.

    Args:
        legs: the positions.
        general: which of them are not plain.
        price: of each of those.
        sums: the surplus of the account of each, and the value of each itself.
        tiers: of all markets.
    """
    surplus, value = sums
    key = legs.account[general].astype(np.int64) * tiers.rate.shape[0] + legs.market[general]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    elsewhere = surplus[first] - np.bincount(group, weights=value)
    present = price[first]
    fall, rise = solve_column(legs.column_legs(general, group, tiers), elsewhere, present, tiers)
    nearer = np.where(np.isnan(rise) | (present - fall <= rise - present), fall, rise)
    return np.asarray(nearer, dtype=np.float64)[group]
