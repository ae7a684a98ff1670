"""When sums are brought up to date by steps, when by a sweep, and what is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from connectors.events import MarginTier
from monitor.margin import build_tier_table
from monitor.state import survey as survey_module
from monitor.state.accounts import MODE_STANDARD, AccountTable
from monitor.state.survey import NS, POLL_COVERAGE_S, SWEEP_EVERY_NS, AccountSurvey

VENUE, OTHER = "hyperliquid", "desk"
START_NS = 1_700_000_000 * NS
AGE_MAX_NS = 900 * NS
TIERS = build_tier_table([(MarginTier(0.0, 0.01, 0.0),), (MarginTier(0.0, 0.02, 0.0),)])


def table_of(*accounts: tuple[str, float, dict[int, float]], polled_ns: int = START_NS) -> AccountTable:
    """Return live accounts of cash and positions by market."""
    table = AccountTable(1_000)
    table.legs.set_terms(TIERS, {}, {})
    for name, cash, positions in accounts:
        row = table.row_of(VENUE, name, create=True)
        assert row is not None
        table.legs.cash_usd[row] = cash
        table.mode[row], table.sound[row], table.polled_ns[row] = MODE_STANDARD, True, polled_ns
        for market, size in positions.items():
            table.legs.add(row, market, size)
        table.legs.settle(row)
    return table


def survey_of(table: AccountTable) -> AccountSurvey:
    return AccountSurvey(table, (VENUE, OTHER))


def reprice(survey: AccountSurvey, at_s: float, *prices: float) -> None:
    survey.reprice(np.array(prices), START_NS + round(at_s * NS), AGE_MAX_NS)


def surplus(table: AccountTable, name: str) -> float:
    row = table.row_of(VENUE, name, create=False)
    assert row is not None
    return float(table.legs.surplus_usd[row])


def test_the_first_prices_are_taken_over_with_a_sweep_and_counts() -> None:
    table = table_of(("a", -900.0, {0: 10.0}), ("b", 500.0, {1: -4.0}))
    survey = survey_of(table)
    assert survey.sweeps.sweeps == 0
    reprice(survey, 0.0, 100.0, 50.0)
    assert surplus(table, "a") == pytest.approx(1_000.0 * 0.99 - 900.0)
    assert surplus(table, "b") == pytest.approx(500.0 - 200.0 * 1.02)
    assert (survey.sweeps.sweeps, survey.swept_ns) == (1, START_NS)
    assert survey.counts[VENUE] == (2, 2, 0, 0)
    assert survey.counts[OTHER] == (0, 0, 0, 0)


def test_between_sweeps_prices_are_added_up() -> None:
    table = table_of(("a", -900.0, {0: 10.0}))
    survey = survey_of(table)
    reprice(survey, 0.0, 100.0, 50.0)
    for step in range(1, 50):
        reprice(survey, step / 10.0, 100.0 + step / 7.0, 50.0)
        assert surplus(table, "a") == pytest.approx((100.0 + step / 7.0) * 9.9 - 900.0)
    assert survey.sweeps.sweeps == 1


def test_a_sweep_comes_every_few_seconds_and_says_how_far_the_sums_were_off() -> None:
    table = table_of(("a", -900.0, {0: 10.0}), ("b", 500.0, {1: -4.0}))
    survey = survey_of(table)
    reprice(survey, 0.0, 100.0, 50.0)
    reprice(survey, SWEEP_EVERY_NS / NS - 0.001, 101.0, 50.0)
    assert survey.sweeps.sweeps == 1
    reprice(survey, SWEEP_EVERY_NS / NS, 102.0, 50.0)
    assert (survey.sweeps.sweeps, survey.sweeps.rows_compared) == (2, 2)
    assert survey.sweeps.last_drift_ratio < 1e-12
    # What somebody breaks in between is found, put right, and remembered as the largest.
    row = table.row_of(VENUE, "a", create=False)
    assert row is not None
    table.legs.surplus_usd[row] += 1.0
    reprice(survey, 2 * SWEEP_EVERY_NS / NS, 102.0, 50.0)
    assert surplus(table, "a") == pytest.approx(102.0 * 9.9 - 900.0)
    found = 1.0 / (102.0 * 9.9 + 900.0)
    assert survey.sweeps.last_drift_ratio == pytest.approx(found)
    reprice(survey, 3 * SWEEP_EVERY_NS / NS, 102.0, 50.0)
    assert survey.sweeps.last_drift_ratio < 1e-12
    assert survey.sweeps.largest_drift_ratio == pytest.approx(found)


def test_what_cannot_be_added_to_is_swept_at_once() -> None:
    table = table_of(("a", -900.0, {0: 10.0}), ("b", 500.0, {1: -4.0}))
    survey = survey_of(table)
    reprice(survey, 0.0, 100.0, math.nan)
    assert math.isnan(surplus(table, "b"))
    reprice(survey, 0.1, 100.0, 50.0)
    assert surplus(table, "b") == pytest.approx(500.0 - 200.0 * 1.02)
    assert survey.sweeps.sweeps == 2
    # A price that is lost makes its accounts unknown without a sweep; the others stay.
    reprice(survey, 0.2, math.nan, 50.0)
    assert math.isnan(surplus(table, "a"))
    assert surplus(table, "b") == pytest.approx(500.0 - 200.0 * 1.02)
    assert survey.sweeps.sweeps == 2
    # New margin rules change every sum in the market.
    table.legs.set_terms(build_tier_table([(MarginTier(0.0, 0.05, 0.0),), (MarginTier(0.0, 0.1, 0.0),)]), {}, {})
    reprice(survey, 0.3, 100.0, 50.0)
    assert surplus(table, "b") == pytest.approx(500.0 - 200.0 * 1.1)
    assert survey.sweeps.largest_drift_ratio < 1e-12, "sums under other rules are no drift"


def test_accounts_are_counted_with_every_look_while_they_are_few_and_with_every_sweep_when_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = table_of(("a", -900.0, {0: 10.0}), ("b", 500.0, {1: -4.0}))
    survey = survey_of(table)
    reprice(survey, 0.0, 100.0, 50.0)
    table.invalidate(VENUE)
    reprice(survey, 0.1, 100.0, 50.0)
    assert survey.counts[VENUE] == (2, 0, 2, 0)
    monkeypatch.setattr(survey_module, "SURVEY_AT_ONCE", 1)
    table.sound[:] = True
    reprice(survey, 0.2, 100.0, 50.0)
    assert survey.counts[VENUE].live == 0
    reprice(survey, SWEEP_EVERY_NS / NS, 100.0, 50.0)
    assert survey.counts[VENUE].live == 2


def test_poll_coverage_is_the_share_of_the_notional_that_was_reported_lately() -> None:
    table = table_of(("a", -900.0, {0: 30.0}), ("b", 500.0, {0: 10.0}))
    survey = survey_of(table)
    row = table.row_of(VENUE, "b", create=False)
    assert row is not None
    table.polled_ns[row] = START_NS - 200 * NS
    reprice(survey, 0.0, 100.0, 50.0)
    assert POLL_COVERAGE_S == (60, 300, 900)
    assert survey.poll_coverage[VENUE] == {"60s": pytest.approx(0.75), "300s": 1.0, "900s": 1.0}
    assert survey.poll_coverage[OTHER] == {"60s": 0.0, "300s": 0.0, "900s": 0.0}
    reprice(survey, 150.0, 100.0, 50.0)
    assert survey.poll_coverage[VENUE] == {"60s": 0.0, "300s": pytest.approx(0.75), "900s": 1.0}
    assert survey.counts[VENUE].live == 2
    reprice(survey, 800.0, 100.0, 50.0)
    assert survey.counts[VENUE] == (2, 1, 1, 0), "one has not been reported for longer than is allowed"


def test_an_empty_table_is_swept_without_complaint() -> None:
    survey = survey_of(table_of())
    reprice(survey, 0.0)
    reprice(survey, 10.0, 100.0)
    assert survey.counts[VENUE] == (0, 0, 0, 0)
    assert survey.sweeps.rows_compared == 0
