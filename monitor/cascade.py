"""How much exogenous volume a book takes before forced orders carry the price on, and how far they carry it.

One market, one direction, a static book: the exact solution of models.md section 2 (a running maximum of depth minus forced
volume), the closed form for uncertain depth of section 3.5, and the bounds of the bucketed form where the venue shows only an
aggregated book.

All functions look *down* the bids. The rising side is the same problem with prices negated: pass ``-ask_prices`` and
``-trigger_prices`` of the shorts. Levels are ordered from the touch outwards, sizes and volumes are in base units, and nothing is
extrapolated beyond the last level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Levels(NamedTuple):
    """A side of a book, best first, as float64 arrays of shape (K,).

    A level at full resolution has ``far == near``. A level of an aggregated book stands for orders somewhere between ``near`` (the
    end next to the touch) and ``far`` (the price that the venue publishes). ``near`` and ``far`` strictly fall from level to level
    and never overlap; sizes are positive.
    """

    near: Array
    far: Array
    size: Array


class BarrierCurve(NamedTuple):
    """The solution at every level; arrays of shape (K,), ``K`` levels of the book.

    ``required`` is A_k, the net exogenous volume needed at level k itself; ``barrier`` its running maximum V*_k, the volume
    above which level k prints; ``lower`` and ``upper`` bracket it where the book is aggregated and equal it where it is not.
    ``forced`` is F_k, the forced volume that is out once level k has printed, and ``depth_above`` the depth strictly above it.
    """

    price: Array
    depth_above: Array
    forced: Array
    required: Array
    barrier: Array
    lower: Array
    upper: Array
    depth_total: float
    backlog: float


class Gap(NamedTuple):
    """Levels ``first`` to ``last`` (indices) are reached together: once ``first`` prints, no further selling is needed."""

    first: int
    last: int
    barrier: float
    forced: float


class Landings(NamedTuple):
    """Where exogenous volumes end, arrays of one entry per volume; a level index of -1 means that nothing is reached."""

    level: NDArray[np.int64]
    forced: Array
    unabsorbed: Array


def forced_volume(prices: Array, trigger_prices: Array, trigger_sizes: Array, backlog: float = 0.0) -> Array:
    """Return the forced volume outstanding once each of ``prices`` has printed: ``backlog + sum{size: trigger >= price}``.

    Args:
        prices: shape (K,), any order.
        trigger_prices: shape (N,), **descending** (nearest to the touch first).
        trigger_sizes: shape (N,), base units.
        backlog: volume that is already triggered and is not among the triggers.
    """
    return _forced_volume(prices, -trigger_prices, _running_sum(trigger_sizes, backlog))


def _running_sum(trigger_sizes: Array, backlog: float) -> Array:
    sums = np.empty(trigger_sizes.size + 1)
    sums[0] = 0.0
    np.cumsum(trigger_sizes, out=sums[1:])
    return np.add(sums, backlog, out=sums)


def _forced_volume(prices: Array, mirrored_triggers: Array, sums: Array) -> Array:
    # Triggers fire at a touch (T >= p), hence the right side of equal prices in the ascending mirror image.
    forced: Array = sums[mirrored_triggers.searchsorted(-prices, side="right")]
    return forced


def solve(levels: Levels, trigger_prices: Array, trigger_sizes: Array, backlog: float = 0.0) -> BarrierCurve:
    """Solve one side of one book (models.md 2.1; bounds of 2.3 for aggregated levels).

    Args:
        levels: the book, best first.
        trigger_prices: shape (N,), descending.
        trigger_sizes: shape (N,), base units.
        backlog: F_init, forced volume that is already triggered.

    Returns:
        The curve; with an empty book every array is empty.
    """
    depth_after = np.cumsum(levels.size)
    depth_above = depth_after - levels.size
    mirrored, sums = -trigger_prices, _running_sum(trigger_sizes, backlog)
    forced_far = _forced_volume(levels.far, mirrored, sums)
    forced_before = np.concatenate(([backlog], forced_far[:-1]))[: levels.size.size]
    required = depth_above - forced_before
    barrier = np.maximum.accumulate(required)
    wide = levels.near != levels.far
    if wide.any():
        forced_near = _forced_volume(levels.near, mirrored, sums)
        # Orders of a bucket may stand anywhere in it: the first of them is met after the previous bucket's forced volume, which is
        # known only between that bucket's two ends, and later ones after some of this bucket's own.
        lower = depth_above - np.where(wide, forced_far, forced_before)
        first_in_bucket = depth_above - np.concatenate(([backlog], forced_near[:-1]))
        upper = np.where(wide, np.maximum(first_in_bucket, depth_after - forced_near), first_in_bucket)
        lower, upper = np.maximum.accumulate(lower), np.maximum.accumulate(upper)
    else:
        lower = upper = barrier
    total = float(depth_after[-1]) if depth_after.size else 0.0
    return BarrierCurve(levels.far, depth_above, forced_far, required, barrier, lower, upper, total, backlog)


def land(curve: BarrierCurve, volumes: Array, *, at_touch: bool) -> Landings:
    """Return where exogenous ``volumes`` end.

    Args:
        curve: the solved side.
        volumes: V >= 0 in base units, on top of the backlog.
        at_touch: the reference price is the best quote (level k counts as soon as it *is* the touch, ``V >= V*``); otherwise the
            last trade (level k must have traded, ``V > V*``).
    """
    level = landing_levels(curve.barrier, volumes, at_touch=at_touch)
    # Index -1 takes the last entry, which is what is out before any level has printed.
    forced = np.concatenate((curve.forced, (curve.backlog,)))[level]
    return Landings(level, forced, np.maximum(0.0, volumes + forced - curve.depth_total))


def landing_levels(barrier: Array, volumes: Array, *, at_touch: bool) -> NDArray[np.int64]:
    """Return only the levels of :func:`land`, for any of the three barriers of a curve."""
    return barrier.searchsorted(volumes, side="right" if at_touch else "left") - 1


def gaps(curve: BarrierCurve) -> list[Gap]:
    """List the runs of two or more levels that share one barrier: the price falls through them on forced orders alone."""
    if curve.barrier.size < 2:
        return []
    # What the backlog alone reaches needs nothing from outside: one run from the touch on.
    barrier = np.maximum(curve.barrier, 0.0)
    rises = np.flatnonzero(barrier[1:] > barrier[:-1])
    if rises.size == barrier.size - 1:
        return []
    firsts = np.concatenate(([0], rises + 1))
    lasts = np.concatenate((rises, [barrier.size - 1]))
    result = []
    for first, last in zip(firsts[lasts > firsts].tolist(), lasts[lasts > firsts].tolist(), strict=True):
        before = float(curve.forced[first - 1]) if first else 0.0
        result.append(Gap(first, last, float(barrier[first]), float(curve.forced[last]) - before))
    return result


def survival_ratios(curve: BarrierCurve, volume: float) -> Array:
    """Return w*_k, the share of displayed depth below which level k is reached by ``volume`` (models.md 3.5).

    The touch (and any level with no depth above it) is reached however deep the book is: ``inf``.
    """
    forced_before = np.concatenate(([curve.backlog], curve.forced[:-1]))[: curve.forced.size]
    with np.errstate(divide="ignore"):
        ratio = np.where(curve.depth_above > 0.0, (volume + forced_before) / curve.depth_above, np.inf)
    return np.minimum.accumulate(ratio)


def lognormal_reach_probability(survival: Array, mu: float, sigma: float) -> Array:
    """Return P(level is reached) for a share of surviving depth ``W ~ lognormal(mu, sigma)``: ``G_W(w*)``."""
    return np.array(
        [1.0 if math.isinf(w) else 0.5 * (1.0 + math.erf((math.log(w) - mu) / (sigma * math.sqrt(2.0)))) for w in survival]
    )
