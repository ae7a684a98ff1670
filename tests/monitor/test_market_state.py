"""The flat state of a market, as MQTT subscribers read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.market_state import barrier_at, encode_state, market_state
from monitor.projection import Histogram
from tests.monitor.full_market import market_projection
from tests.monitor.projections import cascade, cluster, market, stale

HISTOGRAM = Histogram(0.001, [57_000.0, 59_000.0, 60_500.0], [5e6, 12e6, 0.0], [0.0, 0.0, 3e6])


def decoded(one: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(encode_state(one))
    return result


def test_a_live_market_is_told_in_flat_numbers() -> None:
    hills = [cluster(58_500.0, 20e6), cluster(57_500.0, 30e6), cluster(50_000.0, 90e6), cluster(61_000.0, 4e6, side="short")]
    state = decoded(market(hills, histogram=HISTOGRAM, cascade_down=cascade(barrier_base=120.0), liquidated_long_usd=7e6))
    assert state["reference_price"] == 60_000.0
    # The largest within 5 %, not the largest of all.
    assert (state["long_cluster_price"], state["long_cluster_usd"]) == (57_500.0, 30e6)
    assert (state["short_cluster_price"], state["short_cluster_usd"]) == (61_000.0, 4e6)
    assert (state["long_within_2_percent_usd"], state["short_within_2_percent_usd"]) == (12e6, 3e6)
    # 2 % below 60,000 is 58,800; the first level not short of it is 58,200, with 260 base units.
    assert state["fall_2_percent_usd"] == pytest.approx(260.0 * 60_000.0)
    assert state["rise_2_percent_usd"] is None
    assert (state["gap_down_price"], state["gap_down_opens_at_usd"]) == (59_400.0, 120.0 * 60_000.0)
    assert state["liquidated_long_usd"] == 7e6
    assert {type(value) for name, value in state.items() if name != "stale_reasons"} <= {int, float, str, bool, type(None)}


def test_a_stale_market_says_why_and_gives_no_number() -> None:
    state = decoded(stale(market([cluster()], histogram=HISTOGRAM)))
    assert state["stale"] is True
    assert state["stale_reasons"] == ["book: silent"]
    known = {name for name, value in state.items() if value is not None}
    assert known == {
        "as_of_ns",
        "venue",
        "symbol",
        "provenance",
        "stale",
        "stale_reasons",
        "reference_source",
        "liquidation_completeness",
    }
    assert state.keys() == decoded(market()).keys()


def test_nothing_seen_is_not_zero() -> None:
    state = market_state(market(histogram=None, liquidation_completeness="none"))
    assert (state.long_within_2_percent_usd, state.liquidated_long_usd, state.long_cluster_usd) == (None, None, None)


def test_it_stays_small() -> None:
    assert len(encode_state(market_projection())) < 1_500


def test_the_barrier_of_a_move_is_that_of_the_first_level_at_or_beyond_it() -> None:
    falling = cascade()
    for move, price in ((-0.005, 59_700.0), (-0.0051, 59_400.0), (-0.03, 58_200.0)):
        point = barrier_at(falling, 60_000.0, move)
        assert point is not None
        assert point.price == price
    assert barrier_at(falling, 60_000.0, -0.031) is None
    assert barrier_at(None, 60_000.0, -0.01) is None
