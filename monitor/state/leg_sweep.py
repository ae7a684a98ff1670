"""The full sweep over a table of legs that is stored by market: sums of all margin accounts, and their distances to liquidation.

One pass. Where all legs are in the first tier the nearest trigger needs no trigger prices: the leg with the largest value of a row
is the one whose price has to move least, by ``|surplus| / |value|``. Only legs that are not plain, or whose second tier begins in
sight (below twice the price), are looked at one by one, all together at the end.

What costs most is the access to the sums of a leg's row, which are spread over all of memory. The three of a row therefore lie
side by side, so that they are fetched once. Gross value and largest leg have half the length: seven digits will do to rank by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array, TierTable
from monitor.state.columns import Column
from monitor.triggers import NO_LEGS, Legs, find_triggers, value_legs

SIGHT = 2.0
"""Distances are known up to a doubling of the price, which is as far as a fall can go."""


_SUMS = np.dtype([("surplus", np.float64), ("gross", np.float32), ("largest", np.float32)])


class RowSums(NamedTuple):
    """By margin row, arrays of shape (rows,): the cash that is given, the running surplus on entry, and what a sweep writes.

    ``surplus_usd`` is NaN where cash or a leg's value is. ``gross_usd`` is the sum of the absolute values of the legs as far as
    they are known. ``distance_ratio`` is the least absolute relative move of one price that liquidates the row, infinite where that
    is 1 or more. Both are good to seven digits.
    """

    cash_usd: Array
    surplus_usd: Array
    gross_usd: Array
    distance_ratio: Array


class Drift(NamedTuple):
    """How far what was added up tick by tick is from a full sweep; relative to the gross value of the account."""

    largest_ratio: float
    rows: int
    """How many margin accounts were compared."""


class _Part(NamedTuple):
    """Legs of one column that stand side by side."""

    market: int
    column: Column
    block: slice


class _Chosen(NamedTuple):
    """Some legs of one column."""

    market: int
    column: Column
    slots: NDArray[np.int64]


class Sweeper:
    """Sweeps tables, block by block; keeps its arrays for the next time.

    Args:
        legs: how many legs a block holds. Markets with few legs share one.
    """

    def __init__(self, legs: int) -> None:
        self._room = legs
        self._row = np.empty(legs, dtype=np.int64)
        self._value = np.empty(legs)
        self._magnitude = np.empty(legs, dtype=np.float32)

    def sweep(self, columns: Sequence[Column], tiers: TierTable, rows: RowSums) -> Drift:
        """Sum up all legs at the prices of their columns, and return how far the running sums were off."""
        sums = np.zeros(rows.cash_usd.size, dtype=_SUMS)
        surplus, gross, largest = sums["surplus"], sums["gross"], sums["largest"]
        np.copyto(surplus, rows.cash_usd)
        special: list[_Chosen] = []
        for parts in self._cut(columns):
            row, value = self._value_block(parts, special)
            magnitude = np.abs(value, out=self._magnitude[: row.size], casting="same_kind")
            # A leg without a known value must not hide how large the rest of the account is: fmax() takes NaN for nothing.
            np.fmax(magnitude, 0.0, out=magnitude)
            np.add.at(surplus, row, value)
            np.add.at(gross, row, magnitude)
            np.maximum.at(largest, row, magnitude)
        legs, price = _gather(special)
        value = np.empty(price.size)
        value_legs(legs, price, tiers, out=value)
        np.add.at(surplus, legs.account, value)
        np.add.at(gross, legs.account, np.fmax(np.abs(value), 0.0).astype(np.float32))
        drift = self._finish(sums, rows)
        shock, trigger = np.asarray(surplus[legs.account], dtype=np.float64), np.empty(price.size)
        find_triggers(legs, price, value, tiers, shock=shock, trigger=trigger)
        inside = np.flatnonzero((trigger > 0.0) & (trigger < SIGHT * price))
        np.minimum.at(rows.distance_ratio, legs.account[inside], np.abs(shock[inside]))
        return drift

    def _finish(self, sums: NDArray[np.void], rows: RowSums) -> Drift:
        """Compare the sums with the running ones, which they replace, and find the distances as far as plain legs tell."""
        largest_ratio, compared = 0.0, 0
        for start in range(0, sums.size, self._room):
            block = sums[start : start + self._room]
            cash, running, gross, distance = (array[start : start + self._room] for array in rows)
            surplus = self._value[: block.size]
            np.copyto(surplus, block["surplus"])
            np.copyto(gross, block["gross"])
            drift = np.abs(running - surplus) / np.maximum(np.abs(cash) + gross, 1.0)
            # What is or was unknown is NaN, which fmax() passes over.
            largest_ratio = max(largest_ratio, float(np.fmax.reduce(drift, initial=0.0)))
            compared += block.size - int(np.count_nonzero(np.isnan(drift)))
            np.copyto(running, surplus)
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(np.abs(surplus, out=surplus), block["largest"], out=distance)
                np.putmask(distance, ~(distance < SIGHT - 1.0), np.inf)
        return Drift(largest_ratio, compared)

    def _cut(self, columns: Sequence[Column]) -> Iterator[list[_Part]]:
        """Divide all legs into blocks."""
        parts: list[_Part] = []
        room = self._room
        for market, column in enumerate(columns):
            start = 0
            while start < column.count:
                end = min(start + room, column.count)
                parts.append(_Part(market, column, slice(start, end)))
                room -= end - start
                start = end
                if not room:
                    yield parts
                    parts, room = [], self._room
        if parts:
            yield parts

    def _value_block(self, parts: Sequence[_Part], special: list[_Chosen]) -> tuple[NDArray[np.int64], Array]:
        """Return rows and values of the legs of a block; those to be looked at later count 0 and are added to ``special``."""
        start = 0
        for market, column, block in parts:
            end = start + block.stop - block.start
            value = np.multiply(column.slope[block], column.price, out=self._value[start:end])
            slots = np.flatnonzero(column.second[block] <= SIGHT * column.price)
            if slots.size:
                value[slots] = 0.0
                special.append(_Chosen(market, column, slots + block.start))
            start = end
        row = np.concatenate([column.row[block] for _, column, block in parts], out=self._row[:start])
        return row, self._value[:start]


def _gather(chosen: Sequence[_Chosen]) -> tuple[Legs, Array]:
    """Return the chosen legs and their prices."""
    if not chosen:
        return NO_LEGS, np.empty(0)
    legs = Legs(*map(np.concatenate, zip(*(column.pick(market, slots) for market, column, slots in chosen), strict=True)))
    prices = np.array([column.price for _, column, _ in chosen])
    return legs, np.repeat(prices, [slots.size for _, _, slots in chosen])
