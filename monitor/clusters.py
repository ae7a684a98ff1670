"""Where liquidation prices cluster.

Trigger prices are counted on a fixed absolute grid of log prices in integer US cents, so that the histograms of parts of the
accounts add up to the histogram of all of them exactly, in any order. A cluster is one hill of that histogram, from valley to
valley, after a little smoothing, so that a few legs side by side are one cluster and not five.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array
from monitor.triggers import Legs, Sweep

SMOOTHING_BUCKETS = 4
"""Half-width of the triangular smoothing window: with buckets of 10 basis points, legs within about 40 belong together."""

CENTS = 100.0


class Grid(NamedTuple):
    """The absolute grid: bucket ``i`` holds the prices ``p`` with ``floor(log(p) / width) == i``."""

    width: float
    """In log price: ``log(1 + bucket_ratio)``."""
    reach: int
    """Buckets kept on each side of the reference price."""

    @property
    def reach_ratio(self) -> float:
        """The furthest move that is kept: one bucket less, so that rounding cannot push a trigger out of its row."""
        return 1.0 - math.exp(-(self.reach - 1) * self.width)

    def bucket(self, price: Array) -> NDArray[np.int64]:
        """Return the bucket of each price (positive and finite)."""
        return np.floor(np.log(price) / self.width).astype(np.int64)

    def edge(self, bucket: NDArray[np.int64]) -> Array:
        """Return the lower edge price of each bucket."""
        edges: Array = np.exp(bucket * self.width)
        return edges


def make_grid(bucket_ratio: float, distance_ratio: float) -> Grid:
    """Return the grid with buckets of ``bucket_ratio`` that covers moves of ``distance_ratio`` in both directions."""
    width = math.log1p(bucket_ratio)
    return Grid(width, math.ceil(-math.log1p(-distance_ratio) / width) + 2)


class NearLegs(NamedTuple):
    """Legs of known accounts whose trigger lies ahead within the grid; arrays of shape (N',).

    ``key`` is the position of the leg's bucket in the flattened histogram, ``cents`` its notional at the trigger price as a whole
    number of US cents. ``size`` is signed. Legs that are triggered already are in the backlog instead.
    """

    key: NDArray[np.int64]
    price: Array
    size: Array
    cents: Array


class TriggerMap(NamedTuple):
    """The histogram of the chosen markets: ``cents`` and ``counts`` of shape (C, 2, buckets); ``first_bucket`` of shape (C,).

    ``markets`` of shape (C,) are the market indices, ascending; ``backlog_base`` of shape (C, 2) is the size of legs whose account
    is under water already.
    """

    grid: Grid
    markets: NDArray[np.int64]
    first_bucket: NDArray[np.int64]
    cents: Array
    counts: NDArray[np.int64]
    near: NearLegs
    backlog_base: Array


def map_triggers(legs: Legs, swept: Sweep, prices: Array, grid: Grid, markets: NDArray[np.int64] | None = None) -> TriggerMap:
    """Count the triggers of the legs in some markets.

    Args:
        legs: all positions.
        swept: their trigger prices and shocks.
        prices: shape (M,), reference prices, NaN where unknown.
        grid: the buckets.
        markets: the market indices to look at, ascending; all M by default.
    """
    chosen = np.arange(prices.size) if markets is None else markets
    count, columns = chosen.size, 2 * grid.reach + 1
    reference = prices[chosen]
    first_bucket = grid.bucket(np.where(np.isfinite(reference), reference, 1.0)) - grid.reach
    shock, size = swept.shock, legs.size
    held: NDArray[np.int64] | slice = slice(None)
    if count < prices.size:
        is_chosen = np.zeros(prices.size, dtype=np.bool_)
        is_chosen[chosen] = True
        held = np.flatnonzero(is_chosen[legs.market])
        shock, size = shock[held], size[held]
    # A long leg is triggered by a fall: its shock is negative while its account is above water.
    outward = np.copysign(shock, shock * size)
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero(outward >= -grid.reach_ratio)
    ahead = outward[inside] < 0.0
    leg = inside if isinstance(held, slice) else held[inside]
    place = np.zeros(prices.size, dtype=np.int64)
    place[chosen] = np.arange(count)
    size = size[inside]
    row = place[legs.market[leg]] * 2 + (size < 0.0)
    backlog = np.bincount(row[~ahead], weights=np.abs(size[~ahead]), minlength=count * 2)
    leg, row, size = leg[ahead], row[ahead], size[ahead]
    price = swept.trigger_price[leg]
    key = row * columns + (grid.bucket(price) - first_bucket[row // 2])
    cents = np.rint(np.abs(size) * price * CENTS)
    histogram = np.bincount(key, weights=cents, minlength=count * 2 * columns)
    counts = np.bincount(key, minlength=count * 2 * columns)
    return TriggerMap(
        grid,
        chosen,
        first_bucket,
        np.asarray(histogram, dtype=np.float64).reshape(count, 2, columns),
        counts.reshape(count, 2, columns),
        NearLegs(key, price, size, cents),
        np.asarray(backlog, dtype=np.float64).reshape(count, 2),
    )


class Hills(NamedTuple):
    """Clusters as parallel arrays, ordered by market, side and price; ``place`` is the market's row in the histogram."""

    place: NDArray[np.int64]
    side: NDArray[np.int64]
    price: Array
    notional_usd: Array
    accounts: NDArray[np.int64]
    largest_share: Array
    low_price: Array
    high_price: Array


def smooth(histogram: Array) -> Array:
    """Smooth the last axis with an integer triangular window (exact: no rounding, whatever the order of summation)."""
    padded = np.pad(histogram, [(0, 0)] * (histogram.ndim - 1) + [(SMOOTHING_BUCKETS, SMOOTHING_BUCKETS)])
    result = np.zeros_like(histogram)
    length = histogram.shape[-1]
    for offset in range(-SMOOTHING_BUCKETS, SMOOTHING_BUCKETS + 1):
        weight = SMOOTHING_BUCKETS + 1 - abs(offset)
        start = SMOOTHING_BUCKETS + offset
        result += weight * padded[..., start : start + length]
    return result


def find_hills(triggers: TriggerMap, *, per_side: int, min_share: float = 0.0) -> Hills:
    """Cut the histogram into hills and keep the largest of each side of each market.

    A hill ends where the smoothed histogram is empty or turns from falling to rising; the bucket at the very bottom of a valley
    belongs to the hill before it.

    Args:
        triggers: the histogram of all markets.
        per_side: how many hills to keep per market and side.
        min_share: the smallest hill to keep, as a share of its side's notional within the grid.
    """
    shape = triggers.cents.shape
    columns = shape[2]
    starts = _hill_starts(smooth(triggers.cents).reshape(-1, columns))
    hill_of_bucket = np.cumsum(starts.reshape(-1)) - 1
    cents = triggers.cents.reshape(-1)
    occupied = np.flatnonzero(cents)
    hill = hill_of_bucket[occupied]
    count = int(hill_of_bucket[-1]) + 1 if hill_of_bucket.size else 0
    total = np.asarray(np.bincount(hill, weights=cents[occupied], minlength=count), dtype=np.float64)
    row = np.zeros(count, dtype=np.int64)
    row[hill] = occupied // columns
    least = min_share * triggers.cents.sum(axis=2).reshape(-1)
    kept = _largest_per_row(row, np.where(total >= least[row], total, 0.0), per_side)
    # From here on only buckets and legs of kept hills matter.
    slot = np.full(count + 1, -1, dtype=np.int64)
    slot[kept] = np.arange(kept.size)
    slot_of_bucket = slot[hill_of_bucket]
    bucket_slot = slot_of_bucket[occupied]
    occupied, bucket_slot = occupied[bucket_slot >= 0], bucket_slot[bucket_slot >= 0]
    low = np.full(kept.size, columns)
    high = np.zeros(kept.size, dtype=np.int64)
    np.minimum.at(low, bucket_slot, occupied % columns)
    np.maximum.at(high, bucket_slot, occupied % columns)
    accounts = np.zeros(kept.size, dtype=np.int64)
    np.add.at(accounts, bucket_slot, triggers.counts.reshape(-1)[occupied])
    leg_slot = slot_of_bucket[triggers.near.key]
    inside = np.flatnonzero(leg_slot >= 0)
    leg_slot, leg_cents = leg_slot[inside], triggers.near.cents[inside]
    largest = np.zeros(kept.size)
    np.maximum.at(largest, leg_slot, leg_cents)
    weighted = np.bincount(leg_slot, weights=leg_cents * triggers.near.price[inside], minlength=kept.size)
    place = row[kept] // 2
    first = triggers.first_bucket[place]
    return Hills(
        place,
        row[kept] % 2,
        weighted / total[kept],
        total[kept] / CENTS,
        accounts,
        largest / total[kept],
        triggers.grid.edge(first + low),
        triggers.grid.edge(first + high + 1),
    )


def _hill_starts(heights: Array) -> NDArray[np.bool_]:
    """Mark the buckets of each row where a hill begins: out of emptiness, or where a fall turns into a rise."""
    before = np.zeros_like(heights)
    before[:, 1:] = heights[:, :-1]
    slope = np.sign(heights - before).astype(np.int8)
    # On a plateau the last real slope counts, or a step in a rise would pass for a valley.
    last_change = np.where(slope != 0, np.arange(heights.shape[1], dtype=np.int32), 0)
    last_change = np.maximum.accumulate(last_change, axis=1)
    previous = np.zeros_like(slope)
    previous[:, 1:] = np.take_along_axis(slope, last_change, axis=1)[:, :-1]
    starts: NDArray[np.bool_] = (slope > 0) & ((before == 0.0) | (previous < 0))
    return starts


def _largest_per_row(row: NDArray[np.int64], total: Array, per_side: int) -> NDArray[np.int64]:
    """Return the indices of the ``per_side`` largest positive totals of each row, ascending."""
    positive = np.flatnonzero(total > 0.0)
    order = positive[np.lexsort((positive, -total[positive], row[positive]))]
    rank = np.arange(order.size) - np.searchsorted(row[order], row[order], side="left")
    return np.sort(order[rank < per_side])
