"""Room in a column is made by a fifth at a time, used again when it is free, and counted."""

from __future__ import annotations

import numpy as np

from monitor.state.columns import Column, grown


def test_slots_are_used_again_and_room_grows_by_a_fifth() -> None:
    column = Column()
    sizes = set()
    for slot in range(1_000):
        assert column.take_slot() == slot
        sizes.add(column.size.size)
    assert all(later <= earlier + 8 + earlier // 5 for earlier, later in zip(sorted(sizes), sorted(sizes)[1:], strict=False))
    column.free += [7, 3]
    assert [column.take_slot() for _ in range(3)] == [3, 7, 1_000]
    assert column.count == 1_001


def test_growing_keeps_what_is_there() -> None:
    array = grown(np.array([1.5, 2.5], dtype=np.float32), 3, np.nan)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([1.5, 2.5, np.nan, np.nan, np.nan], dtype=np.float32))


def test_legs_are_views_and_what_is_picked_is_a_copy() -> None:
    column = Column()
    for number in range(3):
        slot = column.take_slot()
        column.size[slot], column.row[slot] = number + 1.0, number + 10
    views, picked = column.legs(5), column.pick(5, np.array([2, 0]))
    column.size[:3] = -1.0
    assert views.size.tolist() == [-1.0, -1.0, -1.0]
    assert views.market.tolist() == [5, 5, 5]
    assert picked.size.tolist() == [3.0, 1.0]
    assert picked.account.tolist() == [12, 10]
    assert picked.market.tolist() == [5, 5]


def test_all_arrays_are_counted() -> None:
    column = Column()
    column.take_slot()
    arrays = [getattr(column, name) for name in Column.__slots__ if isinstance(getattr(column, name), np.ndarray)]
    assert column.nbytes == sum(array.nbytes for array in arrays)
