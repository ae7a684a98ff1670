"""What the rest of the world does: the price everywhere else, how deep makers quote, and how much is dumped on the book."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
import numpy as np

from connectors.simulated.draws import Draws, Floats
from connectors.simulated.markets import Market

ScenarioName = Literal["calm", "trend", "crash"]

NOISE_SIGMA_PER_ROOT_S: Final = 0.00006
"""About 0.3 % in an hour's standard deviation per market if it were not pulled back."""
NOISE_PULL_S: Final = 120.0
BASIS_SIGMA_PER_ROOT_S: Final = 0.00001
"""The oracle is a spot price and wanders about the perpetuals by a basis point or so."""
COMMON_NOISE_SHARE: Final = 0.7

TREND_PERIOD_S: Final = 1_200.0
TREND_AMPLITUDE: Final = 0.04
"""Up 4 % in ten minutes and down again, so that it can go on for ever."""

IMPACT_SHARE: Final = 0.2
"""How much of the move that a forced order would make in an undisturbed book the rest of the world follows."""
IMPACT_HALF_LIFE_S: Final = 90.0
IMPACT_MAX: Final = 0.04


class CrashShape(msgspec.Struct, frozen=True):
    """When and how far prices fall; the fall is for a market with beta 1."""

    begins_s: float = 25.0
    falls_for_s: float = 75.0
    fall_ratio: float = 0.09
    gap_ratio: float = 0.25
    """Share of the fall that comes within ``gap_s``, just past the middle: too fast for anybody to be closed in time."""
    gap_s: float = 1.0
    recovers_for_s: float = 120.0
    recovery_ratio: float = 0.35
    thinnest: float = 0.3
    """Share of the usual depth that makers quote at the worst."""
    dumped_share: float = 0.2
    """What is sold outright during the fall, as a multiple of the usual depth within 1 %."""


class Scenario:
    """One course of events, advanced block by block.

    Attributes:
        reference_usd: The price of each market's perpetual contract elsewhere.
        oracle_usd: The spot price of each market.
    """

    def __init__(self, name: ScenarioName, markets: tuple[Market, ...], draws: Draws, crash: CrashShape | None = None) -> None:
        self.name = name
        self.crash = crash or CrashShape()
        self._markets = markets
        self._draws = draws
        self._initial = np.asarray([market.initial_price_usd for market in markets])
        self._beta = np.asarray([market.beta for market in markets])
        self._depth = np.asarray([market.depth_one_percent_usd for market in markets])
        self._noise: Floats = np.zeros(len(markets))
        self._impact: Floats = np.zeros(len(markets))
        self._elapsed_s = 0.0
        self._basis: Floats = np.zeros(len(markets))
        self.reference_usd: list[float] = self._initial.tolist()
        self.oracle_usd: list[float] = self._initial.tolist()

    def advance(self, elapsed_s: float, forced_usd: Floats) -> None:
        """Go on to ``elapsed_s`` seconds after the start.

        Args:
            elapsed_s: Never less than before.
            forced_usd: Per market, what liquidated accounts bought (positive) or sold on the book since the last call.
        """
        step_s = elapsed_s - self._elapsed_s
        assert step_s >= 0.0, "time does not run backwards"
        self._elapsed_s = elapsed_s
        count = len(self._markets)
        draws = self._draws.normals(2 * count + 1)
        mixed = COMMON_NOISE_SHARE * draws[0] + math.sqrt(1.0 - COMMON_NOISE_SHARE**2) * draws[1 : count + 1]
        pull, root_s = math.exp(-step_s / NOISE_PULL_S), math.sqrt(step_s)
        self._noise = self._noise * pull + NOISE_SIGMA_PER_ROOT_S * root_s * self._beta * mixed
        self._basis = self._basis * pull + BASIS_SIGMA_PER_ROOT_S * root_s * draws[count + 1 :]
        self._impact = self._impact * 0.5 ** (step_s / IMPACT_HALF_LIFE_S)
        # A volume as large as the depth within 1 % moves an undisturbed book by 1 %.
        self._impact = np.clip(self._impact + IMPACT_SHARE * 0.01 * forced_usd / self._depth, -IMPACT_MAX, IMPACT_MAX)
        level = np.maximum(1.0 + self._beta * self._base_move(), 0.05)
        reference = self._initial * level * np.exp(self._noise + self._impact)
        self.reference_usd = reference.tolist()
        self.oracle_usd = (reference * np.exp(self._basis)).tolist()

    @property
    def is_falling(self) -> bool:
        """Whether the crash is under way."""
        begun_s = self._elapsed_s - self.crash.begins_s
        return self.name == "crash" and 0.0 <= begun_s < self.crash.falls_for_s

    def depth_ratio(self) -> float:
        """Return the share of the usual depth that makers quote now."""
        if self.name != "crash":
            return 1.0
        return 1.0 - (1.0 - self.crash.thinnest) * self._stress()

    def dumped_usd_per_s(self) -> list[float]:
        """Return how much an outside seller dumps on each book per second."""
        if not self.is_falling:
            return [0.0] * len(self._markets)
        rate = self.crash.dumped_share / self.crash.falls_for_s
        return [rate * market.depth_one_percent_usd for market in self._markets]

    def _stress(self) -> float:
        """Return 0 before the crash, 1 at its worst, and something in between on the way back."""
        begun_s = self._elapsed_s - self.crash.begins_s
        if begun_s <= 0.0:
            return 0.0
        if begun_s < self.crash.falls_for_s:
            return min(1.0, 3.0 * begun_s / self.crash.falls_for_s)
        return math.exp2(-(begun_s - self.crash.falls_for_s) / (0.4 * self.crash.recovers_for_s))

    def _base_move(self) -> float:
        """Return the exogenous move of a market with beta 1, as a ratio to the initial price."""
        if self.name == "calm":
            return 0.0
        if self.name == "trend":
            phase = self._elapsed_s / TREND_PERIOD_S % 1.0
            return TREND_AMPLITUDE * (1.0 - abs(2.0 * phase - 1.0))
        shape = self.crash
        begun_s = self._elapsed_s - shape.begins_s
        if begun_s <= 0.0:
            return 0.0
        if begun_s < shape.falls_for_s:
            part = begun_s / shape.falls_for_s
            # Three waves on the way down: it never falls evenly.
            gap = min(1.0, max(0.0, (begun_s - 0.55 * shape.falls_for_s) / shape.gap_s))
            wave = part + 0.08 * math.sin(6.0 * math.pi * part)
            return -shape.fall_ratio * ((1.0 - shape.gap_ratio) * wave + shape.gap_ratio * gap)
        part = min(1.0, (begun_s - shape.falls_for_s) / shape.recovers_for_s)
        return -shape.fall_ratio * (1.0 - shape.recovery_ratio * part)
