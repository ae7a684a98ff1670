from __future__ import annotations

import numpy as np

from connectors.simulated.draws import Draws


def test_a_seed_decides_everything() -> None:
    def some(seed: int) -> tuple[object, ...]:
        draws = Draws(seed)
        return (
            draws.uniform(),
            draws.normals(3).tolist(),
            draws.order(10),
            draws.hex_digits(40),
            draws.poisson(3.0),
            draws.index(7),
            draws.weighted_index([1.0, 2.0]),
            draws.lognormal(2.0, 0.5),
            draws.paretos(2, 1.2).tolist(),
        )

    assert some(5) == some(5)
    assert some(5) != some(6)


def test_weighted_indices_come_in_proportion() -> None:
    draws = Draws(1)
    counts = np.bincount([draws.weighted_index([1.0, 0.0, 3.0]) for _ in range(4_000)], minlength=3)
    assert counts[1] == 0
    assert 0.22 < counts[0] / 4_000 < 0.28


def test_paretos_start_at_one_and_have_the_stated_tail() -> None:
    sizes = Draws(2).paretos(20_000, 1.2)
    assert sizes.min() >= 1.0
    assert abs(np.mean(sizes > 10.0) - 10.0**-1.2) < 0.005
