"""The general margin account: contracts of every kind in one price column, and what that price would have to do.

:mod:`monitor.margin` has the short cut for accounts of single linear legs. This module is the long way round, for the few accounts
that are not plain: hedge mode (a long and a short leg of one market), inverse contracts, collateral with a haircut, lending pools.

Every leg is worth an affine function of its price as long as its margin tier stays the same (design.md 3):

=========  ==================  ============================  =================================================================
contract   equity              maintenance                   source
=========  ==================  ============================  =================================================================
linear     ``q p``             ``r|q| p - D``                cash is such that the entry price is not needed
inverse    ``q p/entry - q``   ``r|q| - D p``                in coin ``q/entry - q/p`` and ``r|q|/p - D``, both times ``p``
asset      ``q p``             none                          counts ``ratio q p`` if owned, ``q p`` if borrowed
=========  ==================  ============================  =================================================================

with ``q`` the signed size, ``r`` and ``D`` of the tier that holds ``|q| p`` (inverse: ``|q|/p``, bounds and deductions in coin).
The *surplus* of an account is its cash, plus what counts of its equity, minus its maintenance; it is liquidatable below zero.

**Shape of the surplus.** Where maintenance is continuous and rates do not fall with size, it is the largest of its tiers' lines,
``max_k (r_k n - D_k)``. Minus that, at ``n = |q| p`` or times ``p`` at ``n = |q|/p``, is a smallest of lines in ``p``, hence
concave, and so is the surplus: it is not negative on one interval, whose two ends are the triggers. Where a tier's rate applies to
the whole position without deduction (venues.md 4.5) the surplus drops at the tier's bound, and the nearest trigger may be that
bound. :func:`first_shortfall` needs none of this: it walks from one change of tier to the next and solves each piece exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.margin import ASSET, INVERSE, Array, TierTable

# A sum of a few dozen doubles that cancel is off by some ulps (1.1e-16) of the largest.
ROUNDING = 1e-14

Codes = NDArray[np.int8]
Integers = NDArray[np.integer]
Mask = NDArray[np.bool_]


class ColumnLegs(NamedTuple):
    """Legs as parallel arrays of shape (N,), in any order.

    ``group`` is the margin account (0 .. G-1), ``contract`` one of the codes of :mod:`monitor.margin`. ``size`` is signed: base
    units if linear, USD if inverse, a quantity if an asset (negative: borrowed). ``entry_price`` is looked at for inverse contracts
    only, ``ratio`` (the share of an asset's value that counts) for owned assets only; elsewhere both may be NaN. ``market`` is the
    row of the leg's tiers in the :class:`~monitor.margin.TierTable`, any valid row for assets. A leg of size 0 is worth nothing,
    whatever else it says.
    """

    group: Integers
    contract: Codes
    size: Array
    entry_price: Array
    ratio: Array
    market: Integers


class LegValues(NamedTuple):
    """What legs are worth, each of shape (N,), in USD; NaN where something is not known.

    ``surplus_usd`` is what counts of the equity (assets after their haircut) less maintenance; ``equity_usd`` is before haircuts.
    """

    surplus_usd: Array
    equity_usd: Array
    maintenance_usd: Array


class Path(NamedTuple):
    """A straight path of prices: that of leg ``i`` is ``base[i] + step[i] * t``, for ``t`` in [start, stop) of its group.

    ``base`` and ``step`` have shape (N,), ``start`` and ``stop`` shape (G,). Prices must be positive on the way.
    """

    base: Array
    step: Array
    start: Array
    stop: Array


class NearestPrices(NamedTuple):
    """The nearest price below and above the present one at which something happens, shape (G,), NaN where there is none."""

    fall: Array
    rise: Array


class _Lines(NamedTuple):
    """Affine functions ``slope * p + intercept``, one per leg."""

    slope: Array
    intercept: Array


def column_values(legs: ColumnLegs, price: Array, tiers: TierTable) -> LegValues:
    """Value legs at their prices, shape (N,), with the margin tier taken at that price.

    A price that is not positive and finite, an entry price that an inverse contract lacks, a ratio that an owned asset lacks, and
    tiers that are not known give NaN.
    """
    usable = _usable(price)
    tier = _tier_at(legs, usable, tiers)
    equity, counted, maintenance = _equity_lines(legs), _counted_share(legs), _maintenance_lines(legs, tier, tiers)
    equity_usd = _at(equity, usable, legs)
    maintenance_usd = _at(maintenance, usable, legs)
    # The weight of an empty leg may be unknown, which must not make nothing into something.
    surplus_usd = np.where(legs.size == 0.0, 0.0, counted * equity_usd - maintenance_usd)
    return LegValues(surplus_usd, equity_usd, maintenance_usd)


def solve_column(legs: ColumnLegs, elsewhere: Array, price: Array, tiers: TierTable) -> NearestPrices:
    """Return the nearest prices of the column at which the surplus of its accounts falls below zero, all other prices held.

    The tier is taken at the trigger price, and the result is exact: the root of the affine piece it lies on, or the bound of the
    tier at which the surplus drops below zero.

    Args:
        legs: the legs that depend on this price, of G accounts.
        elsewhere: shape (G,), the surplus without these legs: cash and the value of all other legs.
        price: shape (G,), the present price.
        tiers: of all markets.

    Returns:
        NaN where no such price is positive and finite, where something is not known, and on **both** sides of an account whose
        surplus is negative already: its trigger lies behind it, and the sign of the surplus says so.
    """
    groups = elsewhere.size
    values = column_values(legs, price[legs.group], tiers)
    surplus = elsewhere + _sums(legs.group, values.surplus_usd, groups)
    solvent = surplus >= 0.0
    count = legs.size.size
    nothing, one = np.zeros(count), np.ones(count)
    # Falling prices are walked as rising t = -price, so that roots are roots of the price itself and lose no digits.
    fall = -first_shortfall(legs, Path(nothing, -one, -price, np.zeros(groups)), elsewhere, tiers)
    rise = first_shortfall(legs, Path(nothing, one, price, np.full(groups, np.inf)), elsewhere, tiers)
    return NearestPrices(
        np.where(solvent & np.isfinite(fall), fall, np.nan),
        np.where(solvent & np.isfinite(rise), rise, np.nan),
    )


def bankruptcy_prices(legs: ColumnLegs, equity_elsewhere: Array, price: Array) -> NearestPrices:
    """Return the prices of the column at which the equity of its accounts crosses zero, all other prices held.

    Equity is affine in the price and knows neither tiers nor haircuts, so at most one of the two exists. NaN where there is none
    that is positive and finite, where something is not known, and where the equity is negative already.
    """
    groups = equity_elsewhere.size
    lines = _equity_lines(legs)
    slope = _net_slopes(legs.group, lines.slope, groups)
    intercept = equity_elsewhere + _sums(legs.group, lines.intercept, groups)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        solvent = (slope * price + intercept >= 0.0) & (price > 0.0) & np.isfinite(price)
        root = -intercept / slope
    # Rounding may put the root of an account without equity a hair to the wrong side.
    fall = np.where(solvent & (slope > 0.0) & (root > 0.0), np.minimum(root, price), np.nan)
    rise = np.where(solvent & (slope < 0.0) & np.isfinite(root), np.maximum(root, price), np.nan)
    return NearestPrices(fall, rise)


def first_shortfall(
    legs: ColumnLegs,
    path: Path,
    elsewhere: Array,
    tiers: TierTable,
    *,
    maintenance_factor: float = 1.0,
) -> Array:
    """Walk along a path of prices and return where the surplus of each account first falls below zero.

    Between two changes of tier the surplus is affine in ``t``. The walk goes from change to change, all accounts at once, each
    until its shortfall is found: at the beginning of a piece if the surplus is negative there (a drop at a tier's bound), otherwise
    at the root of its line if that lies before the next change. A leg's tier moves in one direction along a straight path, so an
    account of K legs with T tiers each is done after at most ``K (T - 1) + 1`` steps; nearly all are after the first.

    Args:
        legs: the legs of G accounts.
        path: the prices; a shortfall exactly where it stops does not count.
        elsewhere: shape (G,), the surplus without these legs.
        tiers: of all markets.
        maintenance_factor: what maintenance is multiplied by, above 1 for a level above liquidation.

    Returns:
        Shape (G,): the infimum of all ``t`` in [start, stop) with a negative surplus, ``inf`` where there is none, NaN where the
        surplus is not known. A surplus that is negative at once gives ``start``.
    """
    result = np.full(elsewhere.size, np.inf)
    walk = _Walk(legs, path, elsewhere, tiers, maintenance_factor)
    while walk.group_ids.size:
        slope, intercept, end = walk.piece()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            at_begin = slope * walk.begin + intercept
            root = -intercept / slope
            # A surplus of zero may round to either side, and must not be a shortfall where the account is about to gain.
            below = at_begin < -ROUNDING * (np.abs(slope * walk.begin) + np.abs(intercept))
        crossing = (slope < 0.0) & (root < end) & ~below
        unknown = np.isnan(at_begin)
        ids = walk.group_ids
        result[ids[below]] = walk.begin[below]
        result[ids[crossing]] = np.maximum(root[crossing], walk.begin[crossing])
        result[ids[unknown]] = np.nan
        walk.advance(end, ~(below | crossing | unknown) & (end < walk.path.stop))
    return result


class _Walk:
    """Where each account that is still under way stands: its next piece, and the tier of each of its legs."""

    __slots__ = ("begin", "elsewhere", "factor", "group_ids", "legs", "lines", "next", "path", "rising", "tier", "tiers")

    def __init__(self, legs: ColumnLegs, path: Path, elsewhere: Array, tiers: TierTable, factor: float) -> None:
        real = np.flatnonzero(legs.size != 0.0)
        self.legs = _taken(legs, real, legs.group[real])
        self.path = Path(path.base[real], path.step[real], path.start, path.stop)
        self.tiers, self.factor = tiers, factor
        self.group_ids = np.arange(elsewhere.size)
        self.elsewhere, self.begin = elsewhere, path.start
        with np.errstate(invalid="ignore", over="ignore"):
            price = self.path.base + self.path.step * path.start[self.legs.group]
        price = _usable(price)
        # The measure that tiers are bounded in grows with the price of a linear contract and against that of an inverse one.
        self.rising: Mask = np.where(self.legs.contract == INVERSE, self.path.step <= 0.0, self.path.step >= 0.0)
        # A leg that stands on a bound and is about to leave its tier downwards begins with a piece of no length.
        self.tier = _tier_at(self.legs, price, tiers)
        # An unknown price must make the account unknown although no line depends on where it is evaluated.
        equity, share = _equity_lines(self.legs), np.where(np.isnan(price), np.nan, _counted_share(self.legs))
        self.lines = _Lines(share * equity.slope, share * equity.intercept)
        self.next = self._next_change(np.arange(real.size))

    def piece(self) -> tuple[Array, Array, Array]:
        """Return slope and intercept in ``t`` of each account's present piece, and where the piece ends."""
        groups, group = self.group_ids.size, self.legs.group
        maintenance = _maintenance_lines(self.legs, self.tier, self.tiers)
        slope = self.lines.slope - self.factor * maintenance.slope
        intercept = self.lines.intercept - self.factor * maintenance.intercept
        with np.errstate(invalid="ignore", over="ignore"):
            total_slope = _net_slopes(group, slope * self.path.step, groups)
            total_intercept = self.elsewhere + _sums(group, slope * self.path.base + intercept, groups)
        end = self.path.stop.copy()
        np.minimum.at(end, group, self.next)
        return total_slope, total_intercept, np.maximum(end, self.begin)

    def advance(self, end: Array, alive: Mask) -> None:
        """Go on to the end of the piece with the accounts that are ``alive``, and forget the others."""
        kept = np.flatnonzero(alive)
        number = np.zeros(alive.size, dtype=np.intp)
        number[kept] = np.arange(kept.size)
        rows = np.flatnonzero(alive[self.legs.group])
        self.group_ids, self.elsewhere, self.begin = self.group_ids[kept], self.elsewhere[kept], end[kept]
        self.legs = _taken(self.legs, rows, number[self.legs.group[rows]])
        self.path = Path(self.path.base[rows], self.path.step[rows], self.path.start[kept], self.path.stop[kept])
        self.lines = _Lines(self.lines.slope[rows], self.lines.intercept[rows])
        self.rising, self.tier, self.next = self.rising[rows], self.tier[rows], self.next[rows]
        changed = np.flatnonzero(self.next <= self.begin[self.legs.group])
        self.tier[changed] += np.where(self.rising[changed], 1, -1)
        self.next[changed] = self._next_change(changed)

    def _next_change(self, rows: NDArray[np.intp]) -> Array:
        """Return the ``t`` at which each of these legs leaves its tier, ``inf`` where it never does."""
        market, tier, magnitude = self.legs.market[rows], self.tier[rows], np.abs(self.legs.size[rows])
        inverse, rising = self.legs.contract[rows] == INVERSE, self.rising[rows]
        bounds = self.tiers.lower_bound_usd
        last = bounds.shape[1] - 1
        bound = np.where(rising, bounds[market, np.minimum(tier + 1, last)], bounds[market, tier])
        exists = np.where(rising, tier < last, tier > 0) & np.isfinite(bound) & (self.legs.contract[rows] != ASSET)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            price = np.where(inverse, magnitude / bound, bound / magnitude)
            change = (price - self.path.base[rows]) / self.path.step[rows]
        return np.where(exists & (self.path.step[rows] != 0.0), change, np.inf)


def _usable(price: Array) -> Array:
    """Return prices with NaN for those that are none: not positive, or not finite."""
    return np.where((price > 0.0) & np.isfinite(price), price, np.nan)


def _sums(group: Integers, values: Array, groups: int) -> Array:
    """Sum the values of each group."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


def _net_slopes(group: Integers, slope: Array, groups: int) -> Array:
    """Sum the slopes of each group, with those that cancel but for rounding as zero.

    A perfect hedge does not depend on the price, and must not seem to die at a price of 1e20 because 0.1 + 0.2 is not 0.3.
    """
    net = _sums(group, slope, groups)
    return np.where(np.abs(net) <= ROUNDING * _sums(group, np.abs(slope), groups), 0.0, net)


def _taken(legs: ColumnLegs, rows: NDArray[np.intp], group: Integers) -> ColumnLegs:
    """Return some of the legs, with new numbers for their groups."""
    return ColumnLegs(group, legs.contract[rows], legs.size[rows], legs.entry_price[rows], legs.ratio[rows], legs.market[rows])


def _tier_at(legs: ColumnLegs, price: Array, tiers: TierTable) -> NDArray[np.intp]:
    """Return the tier of each leg at its price, exactly on a bound the upper one."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        measure = np.where(legs.contract == INVERSE, np.abs(legs.size) / price, np.abs(legs.size) * price)
    tier = np.zeros(measure.size, dtype=np.intp)
    # Almost all legs are in the first tier, so each round looks at those that reached the tier before; a (legs, tiers) array of a
    # million legs and fifty tiers would take 400 MB.
    reached = np.flatnonzero(legs.contract != ASSET)
    for level in range(1, tiers.rate.shape[1]):
        reached = reached[tiers.lower_bound_usd[legs.market[reached], level] <= measure[reached]]
        if not reached.size:
            break
        tier[reached] = level
    return tier


def _equity_lines(legs: ColumnLegs) -> _Lines:
    """Return equity before haircuts as a function of the price."""
    inverse = legs.contract == INVERSE
    entry = np.where(legs.entry_price > 0.0, legs.entry_price, np.nan)
    slope = np.where(inverse, legs.size / entry, legs.size)
    # Minus zero would be harmless, but reads badly in a report.
    return _Lines(np.where(legs.size == 0.0, 0.0, slope), np.where(inverse & (legs.size != 0.0), -legs.size, 0.0))


def _counted_share(legs: ColumnLegs) -> Array:
    """Return the share of a leg's equity that counts as collateral: 1 but for owned assets; a debt counts in full."""
    share: Array = np.where((legs.contract == ASSET) & ~(legs.size < 0.0), legs.ratio, 1.0)
    return share


def _maintenance_lines(legs: ColumnLegs, tier: NDArray[np.intp], tiers: TierTable) -> _Lines:
    """Return maintenance in these tiers as a function of the price."""
    rate, deduction = tiers.rate[legs.market, tier], tiers.deduction_usd[legs.market, tier]
    required = rate * np.abs(legs.size)
    inverse, none = legs.contract == INVERSE, (legs.contract == ASSET) | (legs.size == 0.0)
    slope = np.where(inverse, -deduction, required)
    intercept = np.where(inverse, required, -deduction)
    return _Lines(np.where(none, 0.0, slope), np.where(none, 0.0, intercept))


def _at(lines: _Lines, price: Array, legs: ColumnLegs) -> Array:
    """Evaluate lines at prices; a leg of size 0 is worth nothing even at a price that is not known."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = lines.slope * price + lines.intercept
    return np.where(legs.size == 0.0, 0.0, values)
