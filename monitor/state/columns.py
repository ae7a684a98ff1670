"""The legs of one market in parallel arrays."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array, Indices
from monitor.triggers import Legs

_Number = TypeVar("_Number", bound=np.generic)

_ARRAYS = ("row", "following", "size", "slope", "second", "entry_price", "venue_price", "is_holding")


class Column:
    """The legs of one market in parallel arrays; a free slot has row 0 and size 0."""

    __slots__ = ("count", "free", "price", *_ARRAYS)

    def __init__(self) -> None:
        self.count = 0
        self.free: list[int] = []
        self.price = math.nan
        self.row: Indices = np.zeros(0, dtype=np.int32)
        self.following: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.size: Array = np.zeros(0)
        self.slope: Array = np.zeros(0)
        self.second: Array = np.zeros(0)
        self.entry_price: Array = np.zeros(0)
        self.venue_price: Array = np.zeros(0)
        self.is_holding: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def take_slot(self) -> int:
        """Return a free slot, making room if there is none."""
        if self.free:
            return self.free.pop()
        if self.count == self.size.size:
            room = 8 + self.count // 5
            for name in _ARRAYS:
                setattr(self, name, grown(getattr(self, name), room))
        self.count += 1
        return self.count - 1

    def legs(self, market: int) -> Legs:
        """Return views of the legs, free slots included."""
        count = self.count
        return Legs(
            self.row[:count],
            np.broadcast_to(np.int32(market), count),
            self.size[:count],
            self.slope[:count],
            self.second[:count],
            self.entry_price[:count],
            self.is_holding[:count],
        )

    def pick(self, market: int, slots: NDArray[np.int64]) -> Legs:
        """Return copies of some legs."""
        return Legs(
            self.row[slots],
            np.full(slots.size, market, dtype=np.int32),
            self.size[slots],
            self.slope[slots],
            self.second[slots],
            self.entry_price[slots],
            self.is_holding[slots],
        )

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, room to grow included."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)


def grown(array: NDArray[_Number], room: int, fill: float = 0) -> NDArray[_Number]:
    """Return a copy with ``room`` more entries of ``fill``."""
    return np.concatenate((array, np.full(room, fill, dtype=array.dtype)))
