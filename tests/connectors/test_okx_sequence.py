from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.okx_sequence import SNAPSHOT, Verdict, judge

CASES: dict[str, tuple[int | None, int, int, Verdict]] = {
    "a snapshot starts a book": (None, -1, 10, "snapshot"),
    "a snapshot replaces a book": (99, -1, 10, "snapshot"),
    "an update that names the one before": (10, 10, 15, "update"),
    "a keep-alive": (15, 15, 15, "keep_alive"),
    "numbers set back after maintenance": (15, 15, 3, "reset"),
    "an update before any snapshot": (None, 10, 15, "resync"),
    "a lost message": (10, 12, 15, "resync"),
    "a message that comes twice": (15, 10, 15, "resync"),
    "a keep-alive of another number": (10, 15, 15, "resync"),
    "numbers set back without a match": (10, 15, 3, "resync"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_message_is_judged_by_the_number_it_names(name: str) -> None:
    last_id, previous_id, sequence_id, verdict = CASES[name]
    assert judge(last_id, previous_id, sequence_id) == verdict


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_an_update_is_accepted_exactly_if_it_names_the_last_number(last_id: int, previous_id: int, sequence_id: int) -> None:
    assert (judge(last_id, previous_id, sequence_id) != "resync") == (previous_id == last_id)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20), st.data())
def test_a_chain_with_a_message_missing_is_noticed_at_the_next_one(numbers: list[int], data: st.DataObject) -> None:
    chain = [(SNAPSHOT, numbers[0]), *pairwise(numbers)]
    missing = data.draw(st.integers(1, len(chain) - 1))
    last_id: int | None = None
    for position, (previous_id, sequence_id) in enumerate(chain):
        if position == missing:
            # Without a change of number nothing was lost.
            if previous_id == sequence_id:
                return
            continue
        verdict = judge(last_id, previous_id, sequence_id)
        if position == missing + 1:
            assert verdict == "resync"
            return
        assert verdict != "resync"
        last_id = sequence_id
