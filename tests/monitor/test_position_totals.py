"""What is known of the positions in each market: each in its own unit, each account once, and how old the reports are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from connectors.events import MarginTier
from monitor.margin import build_tier_table
from monitor.position_totals import Positions, Totals, sum_positions
from monitor.triggers import GENERAL, Legs

FLAT = (MarginTier(0.0, 0.01, 0.0),)
TIERS = build_tier_table([FLAT, FLAT, ()], ["linear", "inverse", "asset"])
PRICES = np.array([100.0, 50.0, 10.0])
NS = 1_000_000_000


def totals(*held: tuple[int, int, float, float, int], lost: tuple[int, ...] = (), ends: list[int] | None = None) -> Totals:
    """Sum legs of (account, market, size, surplus, polled at second); ``lost`` are places of legs that were live once."""
    account, market, size, surplus, polled = (np.array(column) for column in zip(*held, strict=True))
    keys = list(zip(account.tolist(), market.tolist(), strict=True))
    second = np.where((market == 1) | np.array([keys.count(key) > 1 for key in keys]), GENERAL, np.inf)
    is_holding = market == 2
    legs = Legs(account, market.astype(np.int32), size, size, second, np.full(size.size, 50.0), is_holding)
    by_market = np.searchsorted(market, np.arange(3), side="right").tolist() if ends is None else ends
    positions = Positions(
        legs, market.astype(np.int64), by_market, PRICES[market], surplus, np.isin(np.arange(size.size), lost), polled * NS
    )
    return sum_positions(positions, 3, TIERS, 100 * NS)


def test_sizes_are_summed_by_side_in_base_units() -> None:
    found = totals(
        (1, 0, 3.0, 5.0, 90), (2, 0, -4.0, 5.0, 80), (3, 0, 2.0, 5.0, 70), (1, 1, 500.0, 5.0, 90), (2, 1, -100.0, 5.0, 90)
    )
    assert found.observed_base.tolist() == [[5.0, 4.0], [10.0, 2.0], [0.0, 0.0]]
    assert found.accounts_live.tolist() == [3, 2, 0]
    assert found.oldest_age_s.tolist()[:2] == [30.0, 10.0]
    assert found.median_age_s.tolist()[:2] == [20.0, 10.0]
    assert math.isnan(found.oldest_age_s[2])


def test_a_hedge_has_two_positions_and_is_one_account() -> None:
    found = totals((1, 0, 3.0, 5.0, 90), (1, 0, -2.0, 5.0, 90), (2, 0, 1.0, 5.0, 90))
    assert found.observed_base[0].tolist() == [4.0, 2.0]
    assert found.accounts_live.tolist() == [2, 0, 0]


def test_collateral_is_no_position() -> None:
    found = totals((1, 2, 30.0, 5.0, 90), (2, 2, 30.0, math.nan, 90))
    assert not found.observed_base.any()
    assert found.accounts_live.tolist() == found.accounts_excluded.tolist() == [0, 0, 0]


def test_what_is_not_live_is_counted_and_what_was_live_once_is_measured() -> None:
    nan = math.nan
    found = totals((1, 0, 3.0, 5.0, 90), (2, 0, 4.0, nan, 90), (3, 0, 5.0, nan, 90), (4, 0, -6.0, nan, 90), lost=(2, 3))
    assert found.observed_base[0].tolist() == [3.0, 0.0]
    assert (found.accounts_live[0], found.accounts_excluded[0], found.accounts_lost[0]) == (1, 3, 2)
    assert found.lost_base[0] == 11.0


def test_free_slots_are_nobody() -> None:
    found = totals((0, 0, 0.0, math.nan, 0), (1, 0, 2.0, 5.0, 90), (0, 0, 0.0, math.nan, 0))
    assert (found.accounts_live[0], found.accounts_excluded[0], found.oldest_age_s[0]) == (1, 0, 10.0)


def test_an_account_under_water_is_observed_like_any_other() -> None:
    assert totals((1, 0, 2.0, -5.0, 90)).observed_base[0].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_median_is_the_upper_of_the_two_in_the_middle(count: int) -> None:
    found = totals(*[(number, 0, 1.0, 5.0, 100 - 10 * number) for number in range(1, count + 1)])
    assert found.median_age_s[0] == 10.0 * (count // 2 + 1)
