"""The one place where random numbers are drawn; everything else in the simulated exchange takes a :class:`Draws`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Draws:
    """A seeded stream of random numbers; the same seed and the same calls give the same numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return one number, uniform in [low, high)."""
        return float(self._generator.uniform(low, high))

    def uniforms(self, count: int, low: float = 0.0, high: float = 1.0) -> Floats:
        """Return ``count`` numbers, uniform in [low, high)."""
        return self._generator.uniform(low, high, count)

    def normals(self, count: int) -> Floats:
        """Return ``count`` standard normal numbers."""
        return self._generator.standard_normal(count)

    def lognormal(self, median: float, sigma: float) -> float:
        """Return one lognormal number."""
        return float(median * np.exp(sigma * self._generator.standard_normal()))

    def lognormals(self, count: int, median: float, sigma: float) -> Floats:
        """Return ``count`` lognormal numbers."""
        return np.asarray(median * np.exp(sigma * self._generator.standard_normal(count)), dtype=np.float64)

    def paretos(self, count: int, exponent: float) -> Floats:
        """Return ``count`` Pareto numbers from 1 up, with tail ``P(x > t) = t ** -exponent``."""
        return np.asarray(self._generator.pareto(exponent, count) + 1.0, dtype=np.float64)

    def poisson(self, mean: float) -> int:
        """Return one Poisson count."""
        return int(self._generator.poisson(mean))

    def index(self, count: int) -> int:
        """Return an integer, uniform in [0, count)."""
        return int(self._generator.integers(count))

    def weighted_index(self, weights: Sequence[float]) -> int:
        """Return an index with a probability in proportion to its weight."""
        target = self._generator.uniform(0.0, sum(weights))
        for index, weight in enumerate(weights):
            target -= weight
            if target < 0.0:
                return index
        return len(weights) - 1

    def order(self, count: int) -> list[int]:
        """Return 0 ... count - 1 in random order."""
        return [int(index) for index in self._generator.permutation(count)]

    def hex_digits(self, count: int) -> str:
        """Return ``count`` random hexadecimal digits; ``count`` is even."""
        return self._generator.bytes(count // 2).hex()
