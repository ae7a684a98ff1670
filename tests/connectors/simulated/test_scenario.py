from __future__ import annotations

import numpy as np
import pytest

from connectors.simulated.draws import Draws
from connectors.simulated.markets import MARKETS
from connectors.simulated.scenario import CrashShape, Scenario, ScenarioName

INITIAL = np.asarray([market.initial_price_usd for market in MARKETS])
NO_FLOW = np.zeros(len(MARKETS))


def path(name: ScenarioName, seconds: int, seed: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the price ratios to the start, one row a second."""
    scenario = Scenario(name, MARKETS, Draws(seed))
    rows = []
    for second in range(1, seconds + 1):
        scenario.advance(float(second), NO_FLOW)
        rows.append(np.asarray(scenario.reference_usd) / INITIAL)
    return np.asarray(rows)


def test_calm_stays_within_a_fraction_of_a_percent() -> None:
    ratios = path("calm", 1_800)
    assert abs(ratios - 1.0).max() < 0.006
    assert ratios.std(axis=0).min() > 1e-5


def test_trend_rises_steadily_and_comes_back() -> None:
    ratios = path("trend", 1_200)
    assert ratios[599, 0] == pytest.approx(1.04, abs=0.005)
    assert ratios[299, 0] == pytest.approx(1.02, abs=0.005)
    assert ratios[-1, 0] == pytest.approx(1.0, abs=0.005)


def test_a_crash_is_calm_then_falls_then_recovers_in_part() -> None:
    ratios = path("crash", 300)
    shape = CrashShape()
    assert abs(ratios[:25] - 1.0).max() < 0.003
    bottom = round(shape.begins_s + shape.falls_for_s)
    assert ratios[bottom - 1, 0] == pytest.approx(1.0 - shape.fall_ratio, abs=0.004)
    assert ratios[bottom - 1, 3] == pytest.approx(1.0 - 1.3 * shape.fall_ratio, abs=0.006)
    assert ratios[-1, 0] == pytest.approx(1.0 - shape.fall_ratio * (1.0 - shape.recovery_ratio), abs=0.005)
    # The gap: no other second moves as much.
    steps = np.diff(ratios[:, 0])
    assert steps.min() < -0.015
    assert np.sort(steps)[2] > -0.008


def test_depth_thins_and_comes_back() -> None:
    scenario = Scenario("crash", MARKETS, Draws(1))
    depths = []
    for second in range(1, 400):
        scenario.advance(float(second), NO_FLOW)
        depths.append(scenario.depth_ratio())
        assert scenario.is_falling == (25 <= second < 100)
        assert (sum(scenario.dumped_usd_per_s()) > 0) == scenario.is_falling
    assert depths[20] == 1.0
    assert min(depths) == pytest.approx(CrashShape().thinnest)
    assert depths[-1] > 0.95


def test_forced_flow_moves_the_rest_of_the_world_and_is_forgotten() -> None:
    quiet, pushed = (Scenario("calm", MARKETS, Draws(1)) for _ in range(2))
    depth = np.asarray([market.depth_one_percent_usd for market in MARKETS])
    quiet.advance(1.0, NO_FLOW)
    pushed.advance(1.0, -depth)
    assert np.asarray(pushed.reference_usd) / np.asarray(quiet.reference_usd) == pytest.approx(np.exp(-0.002), rel=1e-6)
    quiet.advance(901.0, NO_FLOW)
    pushed.advance(901.0, NO_FLOW)
    assert np.asarray(pushed.reference_usd) / np.asarray(quiet.reference_usd) == pytest.approx(1.0, abs=2e-6)
    pushed.advance(902.0, -1e6 * depth)
    assert pushed.reference_usd[0] > 0.94 * INITIAL[0]
