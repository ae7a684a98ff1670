"""Whom to ask first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.state.poll_worth import AGE_MAX_S, SMALL_USD, poll_worth


def worth(**one: Any) -> float:
    account = {
        "age_s": 60.0,
        "distance_ratio": 0.1,
        "notional_usd": 0.0,
        "is_sound": True,
        "matters": True,
        "is_other_mode": False,
    } | one
    return float(poll_worth(**{name: np.array([value]) for name, value in account.items()})[0])


def test_worth_rises_with_age_and_with_closeness() -> None:
    assert worth(age_s=120.0) == 2.0 * worth()
    assert worth(distance_ratio=0.05) == 2.0 * worth()


def test_closer_than_half_a_percent_all_are_equal() -> None:
    assert worth(distance_ratio=0.001) == worth(distance_ratio=0.005)


def test_an_account_a_hundred_times_as_large_is_worth_ten_times_as_much_and_small_ones_are_all_small() -> None:
    assert worth(notional_usd=100.0 * SMALL_USD) == pytest.approx(10.0 * worth(notional_usd=SMALL_USD))
    assert worth(notional_usd=1.0) == worth(notional_usd=SMALL_USD)


def test_an_account_whose_state_is_doubtful_counts_as_close() -> None:
    assert worth(is_sound=False, distance_ratio=0.9) == worth(distance_ratio=0.0)


def test_who_holds_nothing_is_asked_late_and_who_cannot_be_projected_later() -> None:
    assert worth(matters=False, distance_ratio=0.01) == worth(distance_ratio=1.0)
    assert worth(is_other_mode=True) < worth(matters=False)


def test_age_is_bounded() -> None:
    assert worth(age_s=1e12) == worth(age_s=AGE_MAX_S)


@given(
    st.floats(0.0, 1e12),
    st.one_of(st.floats(0.0, 10.0), st.just(math.inf), st.just(math.nan)),
    st.floats(0.0, 1e12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_worth_is_always_a_number(
    age_s: float, distance: float, notional: float, is_sound: bool, matters: bool, is_other_mode: bool
) -> None:
    """Whoever is worth NaN comes last in every order and is never asked again."""
    given_one = worth(
        age_s=age_s,
        distance_ratio=distance,
        notional_usd=notional,
        is_sound=is_sound,
        matters=matters,
        is_other_mode=is_other_mode,
    )
    assert math.isfinite(given_one)
    assert given_one >= 0.0
