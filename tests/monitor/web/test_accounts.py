"""How often a source is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.web.accounts import COMPUTE_BURST_S, COMPUTE_SHARE, KEEP_S, KEPT_ANSWERS, BusyError, Ration
from tests.monitor.web.running import Clock


def taking(clock: Clock, seconds: float, answer: int = 0) -> Callable[[], int]:
    """Return a computation that takes so long."""

    def compute() -> int:
        clock.seconds += seconds
        return answer

    return compute


def test_the_same_question_is_computed_once_a_second_and_the_answer_has_an_age() -> None:
    clock = Clock()
    ration = Ration(clock)
    assert ration.ask_once("q", taking(clock, 0.0, 1)) == (1, 0.0)
    clock.seconds += KEEP_S * 0.75
    assert ration.ask_once("q", taking(clock, 0.0, 2)) == (1, KEEP_S * 0.75)
    assert ration.ask_once("other", taking(clock, 0.0, 3)) == (3, 0.0)
    clock.seconds += KEEP_S * 0.25
    assert ration.ask_once("q", taking(clock, 0.0, 4)) == (4, 0.0)
    assert ration.asked == 3


def test_what_took_long_to_compute_is_as_old_as_its_beginning() -> None:
    clock = Clock()
    ration = Ration(clock)
    ration.ask_once("q", taking(clock, 0.25))
    assert ration.ask_once("q", taking(clock, 0.0))[1] == 0.25


def test_kept_answers_are_few_and_the_oldest_goes_first() -> None:
    clock = Clock()
    ration = Ration(clock)
    for number in range(KEPT_ANSWERS + 1):
        ration.ask_once(number, taking(clock, 0.0))
    ration.ask_once(KEPT_ANSWERS, taking(clock, 0.0))
    ration.ask_once(1, taking(clock, 0.0))
    assert ration.asked == KEPT_ANSWERS + 1
    ration.ask_once(0, taking(clock, 0.0))
    assert ration.asked == KEPT_ANSWERS + 2


def test_a_failed_question_is_not_kept_and_its_time_counts() -> None:
    clock = Clock()
    ration = Ration(clock)

    def fail() -> int:
        clock.seconds += 2 * COMPUTE_BURST_S
        raise KeyError("broken")

    with pytest.raises(KeyError):
        ration.ask_once("q", fail)
    with pytest.raises(BusyError):
        ration.ask_once("q", taking(clock, 0.0))
    assert (ration.asked, ration.refused) == (1, 1)


def test_a_refusal_says_when_there_is_time_again_and_that_is_true() -> None:
    clock = Clock()
    ration = Ration(clock)
    ration.ask(taking(clock, 1.0))
    with pytest.raises(BusyError) as caught:
        ration.ask(taking(clock, 0.0))
    assert caught.value.retry_s == pytest.approx((1.0 - COMPUTE_BURST_S) / COMPUTE_SHARE - 1.0)
    clock.seconds += caught.value.retry_s * 0.99
    with pytest.raises(BusyError):
        ration.ask(taking(clock, 0.0))
    clock.seconds += caught.value.retry_s * 0.02
    assert ration.ask(taking(clock, 0.0, 5)) == 5


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(0.0001, 0.05)), max_size=200))
def test_questions_never_take_more_than_their_share_of_the_time(arrivals: list[tuple[float, float]]) -> None:
    clock = Clock()
    ration = Ration(clock)
    started_s, used_s, longest_s = clock.seconds, 0.0, 0.0
    for pause_s, cost_s in arrivals:
        clock.seconds += pause_s
        try:
            ration.ask(taking(clock, cost_s))
        except BusyError:
            continue
        used_s, longest_s = used_s + cost_s, max(longest_s, cost_s)
        # The last question may overdraw by what it costs itself.
        allowed_s = COMPUTE_BURST_S + COMPUTE_SHARE * (clock.seconds - started_s) + longest_s
        assert used_s <= allowed_s + 1e-9
