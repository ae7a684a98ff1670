"""Whom to ask first."""

from __future__ import annotations

from typing import Any

import numpy as np

from monitor.state.poll_worth import AGE_MAX_S, poll_worth


def worth(**one: Any) -> float:
    account = {
        "age_s": 60.0,
        "distance_ratio": 0.1,
        "is_sound": True,
        "asks_mode": False,
        "matters": True,
        "is_other_mode": False,
    } | one
    return float(poll_worth(**{name: np.array([value]) for name, value in account.items()})[0])


def test_worth_rises_with_age_and_with_closeness() -> None:
    assert worth(age_s=120.0) == 2.0 * worth()
    assert worth(distance_ratio=0.05) == 2.0 * worth()


def test_closer_than_half_a_percent_all_are_equal() -> None:
    assert worth(distance_ratio=0.001) == worth(distance_ratio=0.005)


def test_an_account_whose_state_is_doubtful_counts_as_close() -> None:
    assert worth(is_sound=False, distance_ratio=0.9) == worth(distance_ratio=0.0)


def test_what_was_begun_is_finished_before_anything_new_is_asked() -> None:
    assert worth(asks_mode=True, age_s=0.0) >= worth(is_sound=False, age_s=1e9)


def test_who_holds_nothing_is_asked_late_and_who_cannot_be_projected_later() -> None:
    assert worth(matters=False, distance_ratio=0.01) == worth(distance_ratio=1.0)
    assert worth(is_other_mode=True) < worth(matters=False)


def test_age_is_bounded() -> None:
    assert worth(age_s=1e12) == worth(age_s=AGE_MAX_S)
