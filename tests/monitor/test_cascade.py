"""The cascade against the vectors, against lot-by-lot runs, and its bounds against the books they summarise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import cascade
from monitor.cascade import Levels


def load(shared: Path, name: str) -> dict[str, Any]:
    return json.loads((shared / "vectors" / name).read_text())  # type: ignore[no-any-return]


def curve_of(vector: dict[str, Any]) -> cascade.BarrierCurve:
    bids = np.array(vector["bids"], dtype=np.float64)
    triggers = np.array(vector["triggers"], dtype=np.float64)
    return cascade.solve(Levels(bids[:, 0], bids[:, 0], bids[:, 1]), triggers[:, 0], triggers[:, 1])


class LandingPoint(NamedTuple):
    level: int
    forced: float
    unabsorbed: float


def land(curve: cascade.BarrierCurve, volume: float, *, at_touch: bool) -> LandingPoint:
    landings = cascade.land(curve, np.array([volume]), at_touch=at_touch)
    return LandingPoint(int(landings.level[0]), float(landings.forced[0]), float(landings.unabsorbed[0]))


def test_vector_a_curve_and_gaps(shared_data: Path) -> None:
    vector = load(shared_data, "A_one_asset_static_book.json")
    curve = curve_of(vector)
    assert curve.price.tolist() == vector["prices"]
    assert curve.depth_above.tolist() == vector["D_minus"]
    assert curve.forced.tolist() == vector["F"]
    assert curve.required.tolist() == vector["A"]
    assert curve.barrier.tolist() == vector["V_star"]
    assert curve.lower is curve.barrier
    assert curve.upper is curve.barrier
    found = [
        {"from_price": curve.price[g.first], "to_price": curve.price[g.last], "barrier": g.barrier} for g in cascade.gaps(curve)
    ]
    assert found == vector["gaps"]


def test_vector_a_landings_under_both_reference_rules(shared_data: Path) -> None:
    vector = load(shared_data, "A_one_asset_static_book.json")
    curve = curve_of(vector)
    for case in vector["cases"]:
        last = land(curve, case["V"], at_touch=False)
        touch = land(curve, case["V"], at_touch=True)
        assert curve.price[last.level] == case["last_trade_price"], case
        assert last.forced == case["forced"], case
        assert last.unabsorbed == case["unabsorbed"], case
        assert curve.price[touch.level] == case["best_bid_price"], case
        assert touch.forced == case["best_bid_forced"], case


def test_vector_f_survival_and_reach_probability(shared_data: Path) -> None:
    vector = load(shared_data, "F_depth_uncertainty.json")
    survival = cascade.survival_ratios(curve_of(vector), vector["V"])
    expected = [np.inf if w is None else w for w in vector["w_star"]]
    np.testing.assert_allclose(survival, expected, rtol=1e-15)
    probability = cascade.lognormal_reach_probability(survival, vector["lognormal_mu"], vector["lognormal_sigma"])
    np.testing.assert_allclose(probability, vector["p_reach"], rtol=1e-12)


def run_lot_by_lot(
    bids: list[tuple[int, int]], triggers: list[tuple[int, int]], volume: int, backlog: int, *, at_touch: bool
) -> tuple[int | None, int, int]:
    """Sell one lot at a time and fire triggers as the reference price touches them: the definition, without any formula.

    Returns the final reference price (None before anything happened), the forced lots that were released and the lots that found
    no bid.
    """
    book = [list(level) for level in bids]
    waiting = sorted(triggers, reverse=True)
    queue = volume + backlog
    forced = backlog
    reference: int | None = None
    if at_touch and book:
        reference = book[0][0]
    while True:
        while waiting and reference is not None and waiting[0][0] >= reference:
            size = waiting.pop(0)[1]
            queue += size
            forced += size
        if queue == 0 or not book:
            return reference, forced, queue
        price = book[0][0]
        book[0][1] -= 1
        queue -= 1
        if book[0][1] == 0:
            book.pop(0)
        reference = (book[0][0] if book else price) if at_touch else price


books = st.lists(st.tuples(st.integers(50, 99), st.integers(1, 12)), min_size=1, max_size=12, unique_by=lambda level: level[0]).map(
    lambda levels: sorted(levels, reverse=True)
)
trigger_lists = st.lists(st.tuples(st.integers(45, 99), st.integers(1, 9)), max_size=12)


def solve_integers(bids: list[tuple[int, int]], triggers: list[tuple[int, int]], backlog: int) -> cascade.BarrierCurve:
    ordered = np.array(sorted(triggers, reverse=True), dtype=np.float64).reshape(-1, 2)
    book = np.array(bids, dtype=np.float64)
    return cascade.solve(Levels(book[:, 0], book[:, 0], book[:, 1]), ordered[:, 0], ordered[:, 1], float(backlog))


@settings(max_examples=400, deadline=None)
@given(books, trigger_lists, st.integers(0, 120), st.integers(0, 10), st.booleans())
def test_landing_equals_a_lot_by_lot_run(
    bids: list[tuple[int, int]], triggers: list[tuple[int, int]], volume: int, backlog: int, at_touch: bool
) -> None:
    curve = solve_integers(bids, triggers, backlog)
    landing = land(curve, float(volume), at_touch=at_touch)
    price, forced, unabsorbed = run_lot_by_lot(bids, triggers, volume, backlog, at_touch=at_touch)
    assert (curve.price[landing.level] if landing.level >= 0 else None) == price
    assert landing.forced == forced
    assert landing.unabsorbed == unabsorbed


@settings(max_examples=200, deadline=None)
@given(books, trigger_lists, st.integers(0, 10))
def test_each_barrier_is_the_last_volume_that_does_not_print_its_level(
    bids: list[tuple[int, int]], triggers: list[tuple[int, int]], backlog: int
) -> None:
    curve = solve_integers(bids, triggers, backlog)
    for price, barrier in zip(curve.price, curve.barrier, strict=True):
        if barrier < 0:  # The backlog alone prints it.
            assert run_lot_by_lot(bids, triggers, 0, backlog, at_touch=False)[0] <= price
            continue
        below, _, _ = run_lot_by_lot(bids, triggers, int(barrier), backlog, at_touch=False)
        above, _, _ = run_lot_by_lot(bids, triggers, int(barrier) + 1, backlog, at_touch=False)
        assert below is None or below > price
        assert above is not None
        assert above <= price


@settings(max_examples=200, deadline=None)
@given(books, trigger_lists, st.integers(1, 60), st.sampled_from([0.1, 0.25, 0.5, 0.8, 1.0, 1.3, 2.0]))
def test_a_level_is_reached_exactly_when_the_surviving_share_is_below_its_ratio(
    bids: list[tuple[int, int]], triggers: list[tuple[int, int]], volume: int, share: float
) -> None:
    survival = cascade.survival_ratios(solve_integers(bids, triggers, 0), float(volume))
    book = np.array(bids, dtype=np.float64)
    ordered = np.array(sorted(triggers, reverse=True), dtype=np.float64).reshape(-1, 2)
    thinned = cascade.solve(Levels(book[:, 0], book[:, 0], book[:, 1] * share), ordered[:, 0], ordered[:, 1])
    clear = np.abs(survival - share) > 1e-9  # At equality the two sides differ by rounding only.
    reached = thinned.barrier < volume
    assert (reached[clear] == (share < survival)[clear]).all()


@settings(max_examples=400, deadline=None)
@given(books, trigger_lists, st.integers(0, 10), st.integers(2, 10))
def test_bounds_of_an_aggregated_book_hold_the_barrier_of_every_level_inside(
    bids: list[tuple[int, int]], triggers: list[tuple[int, int]], backlog: int, width: int
) -> None:
    exact = solve_integers(bids, triggers, backlog)
    buckets: dict[int, int] = {}
    for price, size in bids:
        buckets[price // width * width] = buckets.get(price // width * width, 0) + size
    far = np.array(sorted(buckets, reverse=True), dtype=np.float64)
    sizes = np.array([buckets[int(price)] for price in far], dtype=np.float64)
    ordered = np.array(sorted(triggers, reverse=True), dtype=np.float64).reshape(-1, 2)
    curve = cascade.solve(Levels(far + width - 1, far, sizes), ordered[:, 0], ordered[:, 1], float(backlog))
    assert (curve.lower <= curve.barrier).all()
    assert (curve.barrier <= curve.upper).all()
    for price, barrier in zip(exact.price, exact.barrier, strict=True):
        bucket = int(np.flatnonzero(far == price // width * width)[0])
        assert curve.lower[bucket] <= barrier <= curve.upper[bucket]


def test_an_empty_book_has_no_curve_and_leaves_everything_unabsorbed() -> None:
    empty = np.empty(0)
    curve = cascade.solve(Levels(empty, empty, empty), np.array([99.0]), np.array([5.0]), backlog=2.0)
    assert curve.barrier.size == 0
    assert cascade.gaps(curve) == []
    assert cascade.survival_ratios(curve, 3.0).size == 0
    assert land(curve, 3.0, at_touch=False) == LandingPoint(-1, 2.0, 3.0 + 2.0)


@pytest.mark.parametrize("at_touch", [False, True])
def test_the_rising_side_is_the_mirror_image(at_touch: bool) -> None:
    down = cascade.solve(
        Levels(np.array([99.0, 98.0, 97.0]), np.array([99.0, 98.0, 97.0]), np.ones(3)), np.array([98.0]), np.array([2.0])
    )
    asks = np.array([101.0, 102.0, 103.0])
    up = cascade.solve(Levels(-asks, -asks, np.ones(3)), np.array([-102.0]), np.array([2.0]))
    assert down.barrier.tolist() == up.barrier.tolist()
    assert land(down, 1.5, at_touch=at_touch) == land(up, 1.5, at_touch=at_touch)
