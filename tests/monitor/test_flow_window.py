"""Typical flow: minutes that nobody watched are not minutes without trades."""

from __future__ import annotations

from monitor.state.markets import NS_PER_MINUTE, Flow

MINUTE = NS_PER_MINUTE


def _busy(flow: Flow, first: int, last: int) -> None:
    for minute in range(first, last):
        flow.add(minute * MINUTE + 1, 10.0)
        flow.add(minute * MINUTE + 2, 10.0)
    flow.advance(last * MINUTE)


def test_minutes_of_an_outage_are_not_watched_minutes_of_zero_flow() -> None:
    flow = Flow()
    _busy(flow, 100, 106)
    assert flow.typical_base() == 20.0
    flow.interrupt()
    for minute in range(107, 127):
        flow.advance(minute * MINUTE)
    assert flow.typical_base() == 20.0
    assert flow.covered_ratio() < 0.25


def test_minutes_before_the_first_trade_of_a_run_are_not_watched() -> None:
    """The daemon evaluates from its first second, long before a venue that is down is subscribed to."""
    flow = Flow()
    for minute in range(100, 110):
        flow.advance(minute * MINUTE)
    assert flow.typical_base() is None
    assert flow.covered_ratio() == 0.0


def test_minutes_of_long_ago_are_no_recent_window() -> None:
    flow = Flow()
    _busy(flow, 100, 106)
    flow.interrupt()
    flow.advance(400 * MINUTE)
    assert flow.covered_ratio() == 0.0
    assert flow.typical_base() is None
