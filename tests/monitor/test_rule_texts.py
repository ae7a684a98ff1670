from __future__ import annotations

import math

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from monitor.projection import BarrierPoint, FeedState
from monitor.rule_texts import (
    cluster_barrier,
    describe_barrier,
    describe_cluster,
    describe_missing,
    describe_stale,
    duration,
    number,
    percent,
    plain,
    usd,
)
from tests.monitor.projections import START_NS, cascade, cluster, market, stale


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (plain(60_123.456), "60,123.5"),
        (plain(1_234_567.0, 3), "1,234,567"),
        (plain(0.000012345, 3), "0.0000123"),
        (plain(0.0), "0"),
        (plain(-1.5), "-1.5"),
        (plain(None), "unknown"),
        (plain(math.nan), "unknown"),
        (usd(12_400_000.0), "$12.4M"),
        (usd(1.2e9), "$1.2B"),
        (usd(999.0), "$999"),
        (usd(50_000.0), "$50k"),
        (percent(0.018), "1.8 %"),
        (percent(1.0), "100 %"),
        (percent(None), "an unknown share"),
        (duration(45.0), "45 s"),
        (duration(119.0), "119 s"),
        (duration(600.0), "10 min"),
        (duration(86_400.0), "24 h"),
        (number(None), "unknown"),
        (number(math.inf), "unknown"),
        (number(12_400_000.0), "12400000"),
        (number(0.34), "0.34"),
    ],
)
def test_numbers_are_written_with_their_unit(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(1e-12, 1e18), st.integers(2, 8))
def test_plain_numbers_keep_their_significant_digits(value: float, digits: int) -> None:
    text = plain(value, digits)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits))


def test_a_cluster_is_described_in_full() -> None:
    summary, annotations = describe_cluster(cluster(), market(), 1 / 60)
    assert summary == (
        "BTC on hyperliquid: $12.4M of long positions (37 accounts, the largest 22 %) have liquidation prices from"
        " 59,000 to 58,000, the nearest 1.7 % below the reference price 60,000."
        " Observed positions cover 34 % of open interest, the oldest account read 4 min ago."
        " On the book as displayed, net sales of more than $12.6M, 210 base units (between 189 and 231) would reach it; a thinner"
        " book needs less."
    )
    assert annotations["notional_usd"] == "12400000"
    assert annotations["barrier_base"] == "210"
    assert annotations["barrier_lower_base"] == "189"
    assert annotations["coverage_ratio"] == "0.34"
    assert annotations["oldest_account_age_s"] == "240"
    assert annotations["largest_account_share"] == "0.22"
    assert annotations["stale"] == "false"


def test_what_is_not_known_of_a_cluster_is_said_to_be_unknown() -> None:
    bare = market(cascade_down=None, coverage_ratio=None, oldest_account_age_s=None)
    summary, annotations = describe_cluster(cluster(), bare, 1 / 60)
    assert "Observed positions cover an unknown share of open interest." in summary
    assert "book" not in summary
    assert annotations["barrier_base"] == annotations["coverage_ratio"] == annotations["oldest_account_age_s"] == "unknown"


def test_how_positions_are_known_is_said() -> None:
    assert "Estimated, not observed, positions." in describe_cluster(cluster(provenance="estimated"), market(), 0.01)[0]
    assert "Simulated positions cover" in describe_cluster(cluster(provenance="simulated"), market(), 0.01)[0]


def test_a_cluster_that_the_price_has_met_has_no_negative_distance_in_its_text() -> None:
    assert "the nearest already at or past the reference price" in describe_cluster(cluster(), market(), -0.002)[0]


def test_a_cluster_of_one_account_is_described_as_such() -> None:
    one = msgspec.structs.replace(cluster(), accounts=1, largest_account_share=1.0)
    assert "of long positions (1 account) have liquidation prices" in describe_cluster(one, market(), 0.01)[0]


def test_a_book_that_already_trades_at_a_cluster_needs_no_number() -> None:
    there = market(cascade_down=msgspec.structs.replace(cascade(), barrier=(BarrierPoint(58_900.0, 0.0, 0.0, 0.0),)))
    assert describe_cluster(cluster(), there, 0.01)[0].endswith(" On the book as displayed, the smallest net sales would reach it.")


def test_the_barrier_of_a_cluster_is_that_of_the_first_level_that_sets_it_off() -> None:
    falling = market()
    for edge, price in [(59_500.0, 59_400.0), (59_400.0, 59_400.0), (59_399.0, 58_900.0), (58_200.0, 58_200.0)]:
        point = cluster_barrier(msgspec.structs.replace(cluster(), nearest_price=edge), falling)
        assert point is not None
        assert point.price == price
    assert cluster_barrier(msgspec.structs.replace(cluster(), nearest_price=58_199.0), falling) is None
    rising = market(cascade_up=cascade(), cascade_down=None)
    point = cluster_barrier(msgspec.structs.replace(cluster(side="short"), nearest_price=58_300.0), rising)
    assert point is not None
    assert point.price == 58_900.0
    assert cluster_barrier(cluster(side="short", price=61_000.0), rising) is None


def test_a_barrier_is_described_as_a_state_and_with_its_reserves() -> None:
    solved = cascade(barrier_base=120.0)
    summary, annotations = describe_barrier(solved.gaps[0], solved, market(), "down")
    assert summary == (
        "BTC on hyperliquid: on the book as displayed, net selling of about $7.2M, 120 base units (1.2 typical minutes of net taker"
        " flow, 100 each) would start a fall from 59,400 that feeds itself, with 90 base units of forced selling."
        " Observed positions cover 34 % of open interest, the oldest account read 4 min ago; positions that are not seen and a"
        " thinner book make it easier. This is the present state, not a forecast."
    )
    assert annotations["barrier_multiple"] == "1.2"
    assert annotations["barrier_upper_base"] == "132"
    assert annotations["to_price"] == "58200"
    assert annotations["survival_ratio"] == "0.58"
    assert annotations["flow_window_covered_ratio"] == "1"


def test_a_barrier_of_nothing_is_described_without_numbers_that_make_no_sense() -> None:
    solved = cascade(barrier_base=0.0)
    summary, annotations = describe_barrier(solved.gaps[0], solved, market(typical_flow_base=0.0), "up")
    assert "the smallest net buying would start a rise" in summary
    assert annotations["barrier_multiple"] == "unknown"


def test_a_stale_market_is_described_with_reasons_and_ages() -> None:
    summary, annotations = describe_stale(stale(market()), 61.0)
    assert summary == (
        "BTC on hyperliquid: the market has been stale for 61 s (book: silent, last message 45 s ago)."
        " Its numbers are not live and its other alerts are held as they were."
    )
    assert annotations["stale_feeds"] == "book"
    assert annotations["as_of_ns"] == str(START_NS)


def test_a_feed_that_never_came_is_described() -> None:
    summary, _ = describe_stale(market(feeds=(FeedState("trades", None, stale=True, reason=""),)), 61.0)
    assert "feeds have been stale for 61 s (trades: never received)" in summary


def test_a_missing_market_is_described() -> None:
    summary, annotations = describe_missing("hyperliquid", "BTC", START_NS, 120.0)
    assert "has been missing from the projection for 2 min" in summary
    assert annotations["stale_s"] == "120"
