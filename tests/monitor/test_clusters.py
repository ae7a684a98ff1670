"""Histograms that add up, and hills that are where the legs are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.clusters import SMOOTHING_BUCKETS, TriggerMap, find_hills, make_grid, map_triggers, smooth
from monitor.margin import Array, Indices
from monitor.triggers import Legs, Sweep

GRID = make_grid(0.001, 0.25)
PRICES = np.array([100.0, 2_000.0])

Leg = tuple[int, float, float]
"""(market, signed size, trigger price)"""


def trigger_map(legs: list[Leg], prices: np.ndarray[tuple[int], np.dtype[np.float64]] = PRICES) -> TriggerMap:
    market = np.array([leg[0] for leg in legs], dtype=np.int32)
    size = np.array([leg[1] for leg in legs])
    trigger = np.array([leg[2] for leg in legs])
    swept = Sweep(np.zeros(1), trigger, trigger / prices[market] - 1.0 if len(legs) else np.empty(0))
    return map_triggers(positions(market, size), swept, prices, GRID)


def positions(market: Indices, size: Array) -> Legs:
    return Legs(np.zeros(market.size, dtype=np.int32), market, size, size, size)


legs_strategy = st.lists(
    st.tuples(st.integers(0, 1), st.floats(-50.0, 50.0).filter(lambda size: abs(size) > 1e-3), st.floats(0.7, 1.3)).map(
        lambda leg: (leg[0], leg[1], float(PRICES[leg[0]]) * leg[2])
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(legs_strategy, st.randoms(use_true_random=False))
def test_histograms_of_parts_add_up_exactly_in_any_order(legs: list[Leg], random: object) -> None:
    whole = trigger_map(legs).cents
    shuffled = list(legs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    middle = len(shuffled) // 3
    parts = trigger_map(shuffled[:middle]).cents + trigger_map(shuffled[middle:]).cents
    assert (whole == parts).all()


@settings(max_examples=100, deadline=None)
@given(legs_strategy)
def test_every_leg_ahead_within_reach_is_in_exactly_one_hill(legs: list[Leg]) -> None:
    triggers = trigger_map(legs)
    hills = find_hills(triggers, per_side=1_000)
    assert int(hills.accounts.sum()) == triggers.near.key.size
    assert hills.notional_usd.sum() * 100.0 == pytest.approx(triggers.near.cents.sum(), rel=1e-12)
    ahead = [leg for leg in legs if (leg[2] - PRICES[leg[0]]) * leg[1] < 0.0]
    behind = [leg for leg in legs if (leg[2] - PRICES[leg[0]]) * leg[1] >= 0.0]
    inside = [leg for leg in ahead if abs(leg[2] / PRICES[leg[0]] - 1.0) <= 0.25]
    assert triggers.near.key.size >= len(inside)
    assert triggers.near.key.size <= len(ahead)
    assert triggers.backlog_base.sum() == pytest.approx(sum(abs(leg[1]) for leg in behind), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(legs_strategy)
def test_a_hill_describes_its_own_legs(legs: list[Leg]) -> None:
    hills = find_hills(trigger_map(legs), per_side=1_000)
    for index in range(hills.price.size):
        market, side = int(hills.place[index]), int(hills.side[index])
        low, high = float(hills.low_price[index]), float(hills.high_price[index])
        mine = [
            leg
            for leg in legs
            if leg[0] == market
            and (leg[1] < 0.0) == bool(side)
            and low * (1 - 1e-12) <= leg[2] <= high * (1 + 1e-12)
            and (leg[2] - PRICES[market]) * leg[1] < 0.0
        ]
        notionals = [abs(leg[1]) * leg[2] for leg in mine]
        assert hills.accounts[index] == len(mine)
        assert hills.notional_usd[index] == pytest.approx(sum(notionals), rel=1e-3, abs=0.01 * len(mine))
        assert hills.largest_share[index] == pytest.approx(max(notionals) / sum(notionals), rel=1e-3, abs=1e-3)
        assert low <= hills.price[index] <= high


def test_two_groups_far_apart_are_two_clusters_and_the_larger_comes_first_when_only_one_is_kept() -> None:
    legs = [(0, 1.0, 95.0), (0, 1.0, 95.1), (0, 5.0, 90.0), (0, -2.0, 106.0)]
    hills = find_hills(trigger_map(legs), per_side=10)
    assert hills.side.tolist() == [0, 0, 1]
    assert hills.price == pytest.approx([90.0, 95.05, 106.0], rel=1e-3)
    assert hills.accounts.tolist() == [1, 2, 1]
    largest = find_hills(trigger_map(legs), per_side=1)
    assert largest.price == pytest.approx([90.0, 106.0])


def test_legs_side_by_side_are_one_cluster() -> None:
    legs = [(0, 1.0, 95.0 * 1.001**step) for step in range(-SMOOTHING_BUCKETS // 2, SMOOTHING_BUCKETS // 2)]
    hills = find_hills(trigger_map(legs), per_side=10)
    assert hills.accounts.tolist() == [len(legs)]


def test_small_hills_are_left_out_by_their_share() -> None:
    legs = [(0, 100.0, 90.0), (0, 0.5, 95.0)]
    assert find_hills(trigger_map(legs), per_side=10, min_share=0.01).accounts.tolist() == [1]
    assert find_hills(trigger_map(legs), per_side=10, min_share=0.001).accounts.tolist() == [1, 1]


def test_positions_under_water_are_backlog_and_no_cluster() -> None:
    triggers = trigger_map([(0, 3.0, 101.0), (1, -2.0, 1_999.0)])
    assert triggers.backlog_base.tolist() == [[3.0, 0.0], [0.0, 2.0]]
    assert find_hills(triggers, per_side=10).price.size == 0


def test_an_unknown_price_leaves_its_market_empty() -> None:
    prices = np.array([np.nan, 2_000.0])
    market = np.array([0, 1], dtype=np.int32)
    swept = Sweep(np.zeros(1), np.array([np.nan, 1_900.0]), np.array([np.nan, -0.05]))
    triggers = map_triggers(positions(market, np.array([1.0, 1.0])), swept, prices, GRID)
    assert triggers.cents[0].sum() == 0.0
    assert triggers.cents[1].sum() == 190_000.0


@settings(max_examples=50, deadline=None)
@given(legs_strategy)
def test_looking_at_one_market_gives_its_part_of_the_whole(legs: list[Leg]) -> None:
    market = np.array([leg[0] for leg in legs], dtype=np.int32)
    trigger = np.array([leg[2] for leg in legs])
    swept = Sweep(np.zeros(1), trigger, trigger / PRICES[market] - 1.0 if legs else np.empty(0))
    whole = trigger_map(legs)
    part = map_triggers(positions(market, np.array([leg[1] for leg in legs])), swept, PRICES, GRID, np.array([1]))
    assert (part.cents[0] == whole.cents[1]).all()
    assert (part.counts[0] == whole.counts[1]).all()
    assert part.backlog_base[0] == pytest.approx(whole.backlog_base[1])
    of_market = find_hills(whole, per_side=100).place == 1
    assert find_hills(part, per_side=100).price.tolist() == find_hills(whole, per_side=100).price[of_market].tolist()


def test_no_legs_no_hills() -> None:
    hills = find_hills(trigger_map([]), per_side=10)
    assert hills.price.size == 0


def test_smoothing_keeps_the_sum_of_what_it_spreads() -> None:
    histogram = np.zeros((1, 40))
    histogram[0, 20] = 7.0
    assert smooth(histogram).sum() == 7.0 * (SMOOTHING_BUCKETS + 1) ** 2
    assert smooth(histogram)[0, 20] == 7.0 * (SMOOTHING_BUCKETS + 1)


def test_the_grid_is_absolute_and_its_buckets_have_the_width_asked_for() -> None:
    grid = make_grid(0.01, 0.3)
    bucket = grid.bucket(np.array([50_000.0]))
    edges = grid.edge(np.array([bucket[0], bucket[0] + 1]))
    assert edges[0] <= 50_000.0 < edges[1]
    assert edges[1] / edges[0] == pytest.approx(1.01)
    assert math.exp(-grid.reach * grid.width) <= 0.7
