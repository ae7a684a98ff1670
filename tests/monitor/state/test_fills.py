"""Fills are remembered for as long as an answer may be on its way, and it is known when one was forgotten."""

from __future__ import annotations

import time

import pytest

from monitor.state import fills as fills_module
from monitor.state.fills import FILL_MEMORY_NS, Fill, FillMemory


def fill(exchange_ns: int) -> Fill:
    return Fill(exchange_ns, 0, 1.0, 100.0)


def times(memory: FillMemory, row: int) -> list[int]:
    return [one.exchange_ns for one in memory.of(row)]


def test_fills_of_an_account_come_back_in_order_and_those_of_others_do_not() -> None:
    memory = FillMemory()
    memory.add(1, fill(10), 10)
    memory.add(2, fill(11), 11)
    memory.add(1, fill(12), 12)
    assert times(memory, 1) == [10, 12]
    assert memory.of(3) == ()


def test_old_fills_are_forgotten_and_the_newest_forgotten_one_is_known() -> None:
    memory = FillMemory()
    memory.add(1, fill(10), 10)
    memory.add(1, fill(20), 20)
    memory.add(2, fill(30), 20 + FILL_MEMORY_NS)
    assert times(memory, 1) == [20]
    assert (memory.forgotten_until_ns(1), memory.forgotten_until_ns(2)) == (10, 0)
    memory.add(2, fill(40), 21 + FILL_MEMORY_NS)
    assert memory.of(1) == ()
    assert memory.forgotten_until_ns(1) == 20


def test_the_latest_of_the_forgotten_counts_although_they_came_out_of_order() -> None:
    memory = FillMemory()
    memory.add(1, fill(50), 10)
    memory.add(1, fill(20), 11)
    memory.add(2, fill(99), 12 + FILL_MEMORY_NS)
    assert memory.forgotten_until_ns(1) == 50


def test_no_more_fills_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that catches up tells hours in seconds: the oldest go, and it is known that they did."""
    monkeypatch.setattr(fills_module, "FILLS_MAX", 3)
    memory = FillMemory()
    for number in range(1, 6):
        memory.add(1, fill(number), 1)
    assert times(memory, 1) == [3, 4, 5]
    assert memory.forgotten_until_ns(1) == 2


def test_an_account_that_leaves_the_table_leaves_nothing_behind() -> None:
    memory = FillMemory()
    memory.add(1, fill(10), 10)
    memory.add(2, fill(11), 11)
    memory.forget(1)
    # Its row goes to somebody else, while the fill of the one before it still stands in the order.
    memory.add(1, fill(30), 12)
    assert times(memory, 1) == [30]
    memory.add(2, fill(40), 11 + FILL_MEMORY_NS)
    assert times(memory, 1) == [30], "the fill that is forgotten now was of the account before it"
    assert memory.forgotten_until_ns(1) == 0
    assert times(memory, 2) == [11, 40]
    memory.add(2, fill(50), 13 + FILL_MEMORY_NS)
    assert (times(memory, 1), memory.forgotten_until_ns(1)) == ([], 30)


def test_accounts_that_leave_do_not_cost_a_walk_over_all_fills() -> None:
    """A thousand accounts leave at a time, while a hundred thousand fills are remembered."""
    memory = FillMemory()
    for row in range(100_000):
        memory.add(row, fill(1), 1)
    began = time.perf_counter()
    for row in range(1_000):
        memory.forget(row)
    # A walk for each would take a thousand times five milliseconds.
    assert time.perf_counter() - began < 1.0
