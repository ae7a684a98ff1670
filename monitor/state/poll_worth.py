"""How much it is worth to ask a venue about each account."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array

NEAR_RATIO = 0.005
"""Accounts closer to liquidation than this are all equally urgent."""

AGE_MAX_S = 86_400.0
"""What has waited for a day is as urgent as can be."""

SMALL_USD = 10_000.0
"""Accounts below this size are all equally small. Above it the worth grows with the square root: an account a hundred times as
large is asked for ten times as often, and the many small ones, which make up a cluster together, are still seen."""


def poll_worth(
    *,
    age_s: Array,
    distance_ratio: Array,
    notional_usd: Array,
    is_sound: NDArray[np.bool_],
    matters: NDArray[np.bool_],
    is_other_mode: NDArray[np.bool_],
) -> Array:
    """Return the worth of a poll: it rises with time and size, and falls with the distance to liquidation.

    Args:
        age_s: shape (N,), time since the account was last polled or asked for, in seconds.
        distance_ratio: shape (N,), smallest relative move of a price that liquidates it; infinite or NaN where there is none.
        notional_usd: shape (N,), gross value of its positions, 0 where unknown.
        is_sound: its state is known and nothing unexplained has happened since; the others count as if they were close.
        matters: it holds something or is pinned; the others matter only through what they might open.
        is_other_mode: its mode cannot be projected, so a poll is of little use.
    """
    reach = np.nan_to_num(distance_ratio, nan=1.0, posinf=1.0)
    closeness = np.where(is_sound, np.clip(reach, NEAR_RATIO, 1.0), NEAR_RATIO)
    closeness = np.where(is_sound & ~matters, 1.0, closeness)
    closeness = np.where(is_other_mode, 10.0, closeness)
    size = np.sqrt(np.maximum(notional_usd, SMALL_USD) / SMALL_USD)
    worth: Array = np.minimum(age_s, AGE_MAX_S) * size / closeness
    return worth
