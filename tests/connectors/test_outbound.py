"""Waiting, weighing and giving up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.outbound import (
    MAX_REASONS,
    MAX_RETRY_AFTER_S,
    Backoff,
    TokenBucket,
    count_reason,
    is_fatal_status,
    is_loopback,
    retry_after_s,
)

NOON_NS = 1_704_110_400_000_000_000  # Mon, 01 Jan 2024 12:00:00 GMT


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("Mon, 01 Jan 2024 12:02:00 GMT", 120.0),
        ("Mon, 01 Jan 2024 12:02:00 -0000", 120.0),
        ("Mon, 01 Jan 2024 11:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", MAX_RETRY_AFTER_S),
        ("Mon, 99 Jan 2024 12:02:00 GMT", None),
        ("Mon, 01 Jan 99999999999999999999999 12:02:00 GMT", None),
        ("Mon, 01 Jan 2024 12:02:00 +999999999999999", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOON_NS) == wait_s


@given(st.text(max_size=60))
def test_no_header_breaks_the_reader(header: str) -> None:
    wait_s = retry_after_s(header, NOON_NS)
    assert wait_s is None or 0.0 <= wait_s <= MAX_RETRY_AFTER_S


def test_final_statuses_are_the_4xx_that_waiting_does_not_cure() -> None:
    assert [
        status for status in (200, 301, 400, 401, 403, 404, 408, 418, 422, 425, 429, 451, 500, 503) if is_fatal_status(status)
    ] == [
        400,
        401,
        403,
        404,
        422,
        451,
    ]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("ws://127.0.0.1:8080/ws", True),
        ("http://[::1]:8080", True),
        ("http://localhost/info", True),
        ("wss://api.hyperliquid.xyz/ws", False),
        ("http://127.0.0.1.example.com", False),
        ("http://[bad", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_told_from_others(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_reasons_beyond_the_table_count_as_other() -> None:
    table: dict[str, int] = {}
    for number in range(MAX_REASONS + 100):
        count_reason(table, f"reason{number}")
    count_reason(table, "reason0")
    assert len(table) == MAX_REASONS + 1
    assert (table["other"], table["reason0"]) == (100, 2)


def test_backoff_doubles_to_its_cap_and_starts_again_after_a_reset() -> None:
    backoff = Backoff(base_s=1.0, cap_s=60.0, draw=lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    backoff.reset()
    assert backoff.next_delay_s() == 1.0


def test_backoff_survives_years_of_refusals_and_jitters_over_the_whole_span() -> None:
    backoff = Backoff(base_s=1.0, cap_s=60.0, draw=random.Random(1).random)
    delays_s = [backoff.next_delay_s() for _ in range(5000)][100:]
    assert 0.0 <= min(delays_s) < 1.0
    assert 59.0 < max(delays_s) <= 60.0


@settings(max_examples=200)
@given(
    limit=st.integers(20, 6000),
    requests=st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 1.0)), max_size=60),
)
def test_no_minute_holds_more_than_the_limit(limit: int, requests: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(weight_per_minute=limit, now_s=0.0)
    now_s = 0.0
    sent: list[tuple[float, int]] = []
    for idle_s, share in requests:
        weight = max(int(share * bucket.burst), 1)
        now_s += idle_s
        now_s += bucket.wait_s(weight, now_s)
        bucket.take(weight, now_s)
        sent.append((now_s, weight))
    for start_s, _ in sent:
        assert sum(weight for moment_s, weight in sent if start_s <= moment_s < start_s + 60.0) <= limit + 1e-6


def test_sustained_rate_comes_near_the_limit() -> None:
    bucket = TokenBucket(weight_per_minute=1200, now_s=0.0)
    now_s = 0.0
    polls = 0
    while now_s < 600.0:
        now_s += bucket.wait_s(2, now_s)
        bucket.take(2, now_s)
        polls += 1
    # 19 of 20 parts of 600 polls a minute, and the first bucketful.
    assert polls / 10.0 == pytest.approx(573.0, abs=1.0)


def test_heavy_request_goes_when_the_bucket_is_full_and_leaves_a_debt() -> None:
    bucket = TokenBucket(weight_per_minute=1200, now_s=0.0)
    assert bucket.wait_s(100, 0.0) == 0.0
    bucket.take(100, 0.0)
    assert bucket.available(0.0) == -40.0
    assert bucket.wait_s(2, 0.0) == pytest.approx(42.0 / 19.0)


def test_drained_bucket_fills_again() -> None:
    bucket = TokenBucket(weight_per_minute=1200, now_s=0.0)
    bucket.drain(0.0)
    assert bucket.available(1.0) == pytest.approx(19.0)
    assert bucket.available(0.5) == pytest.approx(19.0)


@pytest.mark.parametrize(("limit", "burst"), [(1, None), (0, None), (100, 0), (100, 100)])
def test_limit_and_burst_must_make_sense(limit: int, burst: int | None) -> None:
    with pytest.raises(ValueError):
        TokenBucket(weight_per_minute=limit, now_s=0.0, burst=burst)
