"""How much it is worth to ask a venue about each account."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array

NEAR_RATIO = 0.005
"""Accounts closer to liquidation than this are all equally urgent."""

AGE_MAX_S = 86_400.0
"""What has waited for a day is as urgent as can be."""


def poll_worth(
    *,
    age_s: Array,
    distance_ratio: Array,
    is_sound: NDArray[np.bool_],
    asks_mode: NDArray[np.bool_],
    matters: NDArray[np.bool_],
    is_other_mode: NDArray[np.bool_],
) -> Array:
    """Return the worth of a poll: it rises with the time since the last one and falls with the distance to liquidation.

    Args:
        age_s: shape (N,), time since the account was last polled or asked for, in seconds.
        distance_ratio: shape (N,), smallest relative move of a price that liquidates it.
        is_sound: its state is known and nothing unexplained has happened since; the others count as if they were close.
        asks_mode: it holds something and its collateral mode is still to be asked: what was begun is finished first.
        matters: it holds something or is pinned; the others matter only through what they might open.
        is_other_mode: its mode cannot be projected, so a poll is of little use.
    """
    closeness = np.where(is_sound & ~asks_mode, np.clip(distance_ratio, NEAR_RATIO, 1.0), NEAR_RATIO)
    closeness = np.where(is_sound & ~matters, 1.0, closeness)
    closeness = np.where(is_other_mode, 10.0, closeness)
    worth: Array = np.where(asks_mode, AGE_MAX_S, np.minimum(age_s, AGE_MAX_S)) / closeness
    return worth
