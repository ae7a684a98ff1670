"""What the page draws over time."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.projection import Histogram, MarketProjection
from monitor.web.history import (
    COARSE_SAMPLES,
    FINE_SAMPLES,
    HEAT_RANGE_RATIO,
    ROWS,
    MarketHistory,
    decode_heat,
    encode_heat,
    heat_rows,
    row_log_width,
)
from tests.monitor.web.builder import START_NS, World

MARKET = World().step().markets[0]


def market(second: float, **changes: Any) -> MarketProjection:
    return msgspec.structs.replace(MARKET, as_of_ns=START_NS + round(second * 1e9), **changes)


def test_one_sample_a_second_however_often_it_is_evaluated() -> None:
    history = MarketHistory()
    samples = [history.observe(market(tenth / 10)) for tenth in range(50)]
    assert [index for index, sample in enumerate(samples) if sample is not None] == [0, 10, 20, 30, 40]
    assert len(history.query(600, 720).second) == 5


def test_the_oldest_sample_is_told_whatever_is_asked_for() -> None:
    history = MarketHistory()
    assert history.query(600, 10).begins_second is None
    for second in range(FINE_SAMPLES + 300):
        sample = history.observe(market(second))
        assert sample is not None
        assert sample.begins_second == START_NS // 10**9
    assert history.query(10, 10).begins_second == START_NS // 10**9


def test_extremes_and_liquidations_between_samples_are_kept() -> None:
    history = MarketHistory()
    history.observe(market(0.0, reference_price=100.0, liquidated_long_usd=10.0))
    history.observe(market(0.3, reference_price=90.0, liquidated_long_usd=15.0))
    history.observe(market(0.6, reference_price=120.0, liquidated_long_usd=17.0))
    sample = history.observe(market(1.0, reference_price=101.0, liquidated_long_usd=18.0))
    assert sample is not None
    assert (sample.price, sample.low, sample.high) == ([101.0], [90.0], [120.0])
    assert sample.liquidated_long_usd == [8.0]


def test_a_total_that_fell_was_counted_from_zero_again() -> None:
    history = MarketHistory()
    history.observe(market(0, liquidated_short_usd=100.0))
    sample = history.observe(market(1, liquidated_short_usd=7.0))
    assert sample is not None
    assert sample.liquidated_short_usd == [7.0]


def test_a_stale_market_leaves_a_hole() -> None:
    history = MarketHistory()
    history.observe(market(0))
    sample = history.observe(market(1, stale=True, stale_reasons=("book silent",)))
    assert sample is not None
    assert (sample.price, sample.low, sample.first_row, sample.stale) == ([None], [None], [None], [True])
    assert sample.long_usd == [[]]


def test_an_unknown_price_or_histogram_leaves_a_hole() -> None:
    history = MarketHistory()
    history.observe(market(0))
    no_price = history.observe(market(1, reference_price=None))
    no_histogram = history.observe(market(2, histogram=None))
    assert no_price is not None
    assert no_histogram is not None
    assert (no_price.price, no_price.first_row) == ([None], [None])
    assert no_histogram.first_row == [None]
    assert no_histogram.price != [None]


def test_heat_lies_where_the_histogram_says() -> None:
    history = MarketHistory()
    sample = history.observe(market(0))
    assert sample is not None
    assert MARKET.histogram is not None
    width, first = sample.row_log_width, sample.first_row[0]
    assert width is not None
    assert first is not None
    low, high = math.exp(first * width), math.exp((first + ROWS) * width)
    assert low < MARKET.reference_price * (1 - HEAT_RANGE_RATIO)  # type: ignore[operator]
    assert high > MARKET.reference_price * (1 + HEAT_RANGE_RATIO)  # type: ignore[operator]
    for got, usd in ((sample.long_usd[0], MARKET.histogram.long_usd), (sample.short_usd[0], MARKET.histogram.short_usd)):
        expected = [0.0] * ROWS
        for price, notional in zip(MARKET.histogram.price, usd, strict=True):
            row = math.floor(math.log(price) / width) - first
            if 0 <= row < ROWS:
                expected[row] += notional
        assert got == pytest.approx(expected, rel=1e-3, abs=1.0)
        assert sum(got) > 0


@given(st.floats(min_value=1.0, max_value=1e12))
def test_stored_heat_is_exact_to_a_twentieth_of_a_percent(usd: float) -> None:
    stored = int(decode_heat(encode_heat(np.array([usd])))[0])
    assert abs(stored - usd) <= max(0.51, usd * 0.0005)


def test_heat_that_is_no_number_is_stored_as_nothing() -> None:
    assert decode_heat(encode_heat(np.array([0.0, 0.4, -5.0, math.nan, -math.inf, math.inf]))).tolist() == [0, 0, 0, 0, 0, 10**12]


@given(st.floats(min_value=0.0001, max_value=0.05), st.floats(min_value=1e-6, max_value=1e6))
def test_rows_cover_the_range_at_every_bucket_width(bucket_ratio: float, price: float) -> None:
    width = row_log_width(bucket_ratio)
    first = math.floor(math.log(price) / width) - ROWS // 2
    assert math.exp(first * width) <= price * (1 - HEAT_RANGE_RATIO) * (1 + 1e-9)
    assert math.exp((first + ROWS) * width) >= price * (1 + HEAT_RANGE_RATIO) * (1 - 2 * width)
    assert heat_rows(Histogram(bucket_ratio, [price], [5.0], [7.0]), first, width).sum() == 12.0


def test_memory_is_bounded_and_the_past_gets_coarser() -> None:
    history = MarketHistory()
    seconds = 8 * 3_600
    for second in range(seconds):
        history.observe(market(second, liquidated_long_usd=float(second)))
    answer = history.query(21_600, 720)
    assert len(answer.second) <= 720
    everything = history._merged()
    assert len(everything) <= FINE_SAMPLES + COARSE_SAMPLES
    assert everything.dtype.itemsize == 437
    # Nothing is counted twice or lost where the coarse past meets the fine present.
    span = int(everything["second"][-1] - everything["second"][0])
    assert everything["liquidated_long_usd"][1:].sum() == pytest.approx(span)


def test_fewer_columns_keep_extremes_and_sums() -> None:
    history = MarketHistory()
    for second in range(120):
        price = 100.0 + (50.0 if second == 33 else 0.0)
        history.observe(market(second, reference_price=price, liquidated_short_usd=float(second)))
    fine, coarse = history.query(100, 720), history.query(100, 10)
    assert len(fine.second) == 100
    assert len(coarse.second) in {10, 11}
    assert max(high for high in coarse.high if high is not None) == 150.0
    assert sum(coarse.liquidated_short_usd) == sum(fine.liquidated_short_usd)


def test_a_clock_that_is_set_back_starts_the_history_anew() -> None:
    history = MarketHistory()
    for second in (100, 101, 102, 50, 51):
        history.observe(market(second))
    assert len(history.query(600, 720).second) == 2


def test_another_bucket_width_starts_the_history_anew() -> None:
    history = MarketHistory()
    assert MARKET.histogram is not None
    history.observe(market(0))
    history.observe(market(1, histogram=msgspec.structs.replace(MARKET.histogram, bucket_ratio=0.01)))
    assert len(history.query(600, 720).second) == 1


def test_an_empty_history_answers_with_empty_columns() -> None:
    answer = MarketHistory().query(1_800, 360)
    assert (answer.second, answer.long_usd, answer.row_log_width) == ([], [], None)
