"""What is known of the positions in each market: how much, of how many accounts, and how old the reports are."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.forced_orders import base_sizes, first_of_account
from monitor.margin import ASSET, Array, TierTable
from monitor.triggers import Legs


class Totals(NamedTuple):
    """Sums over the positions of each market looked at, in their order; arrays of shape (C,), ``observed_base`` (C, 2)."""

    observed_base: Array
    accounts_live: NDArray[np.int64]
    accounts_excluded: NDArray[np.int64]
    accounts_lost: NDArray[np.int64]
    lost_base: Array
    oldest_age_s: Array
    median_age_s: Array


class Positions(NamedTuple):
    """The legs of all markets looked at, one market after the other; ``place`` is the market's position among them."""

    legs: Legs
    place: NDArray[np.int64]
    ends: list[int]
    price: Array
    surplus_usd: Array
    lost: NDArray[np.bool_]
    polled_ns: NDArray[np.int64]


def sum_positions(positions: Positions, count: int, tiers: TierTable, now_ns: int) -> Totals:
    """Sum the observed positions of each of ``count`` markets, and the ages of the accounts behind them.

    Collateral is no position. An account in hedge mode has positions on both sides, and is one account all the same.
    """
    legs = positions.legs
    known, held = ~np.isnan(positions.surplus_usd), legs.size != 0.0
    if tiers.contract is not None or legs.is_holding.size:
        held &= legs.contracts(tiers) != ASSET
    live, excluded = held & known, held & ~known
    lost = excluded & positions.lost
    alone = first_of_account(legs, tiers)
    size = base_sizes(legs, positions.price, tiers)
    magnitude = np.abs(size)
    observed = np.bincount(positions.place * 2 + (size < 0.0), weights=np.where(live, magnitude, 0.0), minlength=count * 2)
    totals = Totals(
        observed_base=np.asarray(observed, dtype=np.float64).reshape(count, 2),
        accounts_live=np.zeros(count, dtype=np.int64),
        accounts_excluded=np.zeros(count, dtype=np.int64),
        accounts_lost=np.zeros(count, dtype=np.int64),
        lost_base=np.zeros(count),
        oldest_age_s=np.full(count, np.nan),
        median_age_s=np.full(count, np.nan),
    )
    # Markets lie one after the other, and most have none that is excluded: slices are quicker than sums by index.
    for place, (start, end) in enumerate(itertools.pairwise((0, *positions.ends))):
        mine = slice(start, end)
        totals.accounts_live[place] = np.count_nonzero(live[mine] & alone[mine])
        totals.accounts_excluded[place] = np.count_nonzero(excluded[mine] & alone[mine])
        if totals.accounts_excluded[place]:
            totals.accounts_lost[place] = np.count_nonzero(lost[mine] & alone[mine])
            totals.lost_base[place] = magnitude[mine][lost[mine]].sum()
        if totals.accounts_live[place]:
            polled_ns = positions.polled_ns[mine][live[mine]]
            # The upper of the two middle ages, where there are two: half a million of them are not worth a mean.
            middle = polled_ns.size - 1 - polled_ns.size // 2
            totals.oldest_age_s[place] = (now_ns - polled_ns.min()) / 1e9
            totals.median_age_s[place] = (now_ns - np.partition(polled_ns, middle)[middle]) / 1e9
    return totals
