from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from monitor.hysteresis import Latch, Watch

SECOND_NS = 1_000_000_000
LEVELS = {0: (False, False), 1: (False, True), 2: (True, True)}
"""What rises and what holds: below both thresholds, between them, above both."""


def run(latch: Latch, levels: list[int], *, for_s: float = 0.0, clear_for_s: float = 0.0) -> list[bool]:
    """Step once a second."""
    return [
        latch.step(second * SECOND_NS, rises=LEVELS[level][0], holds=LEVELS[level][1], for_s=for_s, clear_for_s=clear_for_s)
        for second, level in enumerate(levels)
    ]


def test_nothing_changes_between_the_thresholds() -> None:
    assert run(Latch(), [1, 2, 1, 2, 1, 0, 1, 2]) == [False, True, True, True, True, False, False, True]


def test_a_condition_has_to_last_without_interruption() -> None:
    assert run(Latch(), [2, 2, 1, 2, 2, 2, 2], for_s=3) == [False] * 6 + [True]
    latch = Latch(on=True)
    assert run(latch, [0, 0, 1, 0, 0, 0, 0], clear_for_s=3) == [True] * 6 + [False]


def test_time_in_which_nothing_is_known_does_not_count() -> None:
    latch = Latch()
    latch.step(0, rises=True, holds=True, for_s=3, clear_for_s=0)
    latch.hold()
    assert not latch.step(10 * SECOND_NS, rises=True, holds=True, for_s=3, clear_for_s=0)
    assert latch.step(13 * SECOND_NS, rises=True, holds=True, for_s=3, clear_for_s=0)


def test_a_clock_that_jumps_back_does_not_stop_the_wait() -> None:
    latch = Latch()
    latch.step(7200 * SECOND_NS, rises=True, holds=True, for_s=3, clear_for_s=0)
    assert not latch.step(0, rises=True, holds=True, for_s=3, clear_for_s=0)
    assert latch.step(3 * SECOND_NS, rises=True, holds=True, for_s=3, clear_for_s=0)


@given(st.lists(st.sampled_from([0, 1, 2]), max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_a_latch_changes_only_after_the_full_wait(levels: list[int], for_s: int, clear_for_s: int) -> None:
    states = run(Latch(), levels, for_s=for_s, clear_for_s=clear_for_s)
    before = False
    for index, state in enumerate(states):
        if state and not before:
            assert levels[max(index - for_s, 0) : index + 1] == [2] * (for_s + 1)
        if before and not state:
            assert levels[max(index - clear_for_s, 0) : index + 1] == [0] * (clear_for_s + 1)
        before = state


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 3), st.integers(0, 3))
def test_notifications_alternate_and_tell_the_present_severity(levels: list[int], for_s: int, clear_for_s: int) -> None:
    """Levels 0 to 4: clear, holds as warning, warning, holds as critical, critical."""
    watch = Watch("Rule", {"venue": "v"})
    told: str | None = None
    keys: list[str] = []
    for second, level in enumerate(levels):
        change = watch.step(
            second * SECOND_NS,
            rises=(level >= 2, level >= 4),
            holds=(level >= 1, level >= 3),
            for_s=(for_s, for_s),
            clear_for_s=clear_for_s,
            describe=lambda level=level: (f"level {level}", {}),  # type: ignore[misc]
            ending=lambda: ("over", "it is over"),
        )
        if change is not None:
            keys.append(change.delivery_key)
            assert change.resolved == (watch.alert is None)
            assert (told is not None) if change.resolved else (told != change.severity)
            told = None if change.resolved else change.severity
        assert told == (None if watch.alert is None else watch.alert.severity)
    assert len(keys) == len(set(keys))
