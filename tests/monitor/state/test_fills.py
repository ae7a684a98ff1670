"""Fills are remembered for as long as an answer may be on its way, and it is known when one was forgotten."""

from __future__ import annotations

from monitor.state.fills import FILL_MEMORY_NS, Fill, FillMemory


def fill(exchange_ns: int) -> Fill:
    return Fill(exchange_ns, 0, 1.0, 100.0)


def test_fills_of_an_account_come_back_in_order_and_those_of_others_do_not() -> None:
    memory = FillMemory()
    memory.add(1, fill(10), 10)
    memory.add(2, fill(11), 11)
    memory.add(1, fill(12), 12)
    assert [one.exchange_ns for one in memory.of(1)] == [10, 12]
    assert memory.of(3) == ()


def test_old_fills_are_forgotten_and_the_newest_forgotten_one_is_known() -> None:
    memory = FillMemory()
    memory.add(1, fill(10), 10)
    memory.add(1, fill(20), 20)
    memory.add(2, fill(30), 20 + FILL_MEMORY_NS)
    assert [one.exchange_ns for one in memory.of(1)] == [20]
    assert (memory.forgotten_until_ns(1), memory.forgotten_until_ns(2)) == (10, 0)
    memory.add(2, fill(40), 21 + FILL_MEMORY_NS)
    assert memory.of(1) == ()
    assert memory.forgotten_until_ns(1) == 20
