"""What the page draws over time: price, liquidation heat and liquidations of the last hours, in bounded memory.

Times come from the projections. A market that is stale, or has no reference price, leaves a hole instead of a number.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.projection import Histogram, MarketProjection

FINE_SAMPLES = 1_800
"""One a second: 30 minutes."""
COARSE_INTERVAL_S = 60
COARSE_SAMPLES = 360
"""One a minute: 6 hours. A sample is 53 bytes + 2 sides x 96 rows x 2 bytes = 437 bytes, so one market costs
(1,800 + 360) x 437 B = 0.94 MB, and the default of 64 markets at most 61 MB."""
ROWS = 96
"""Price rows of one heat column, around the price of its moment."""
HEAT_RANGE_RATIO = 0.12
"""The rows reach at least this far up and down."""

# Heat is stored as 16-bit logarithm between 1 and 1e12 USD; one step is exp(ln(1e12) / 65534) - 1 = 0.042 %.
_LOG_SPAN = math.log(1e12)
_LOG_STEPS = 65_534
_NO_HEAT = -(2**31)

_SAMPLE = np.dtype(
    [
        ("second", np.int64),
        ("price", np.float64),
        ("low", np.float64),
        ("high", np.float64),
        ("liquidated_long_usd", np.float64),
        ("liquidated_short_usd", np.float64),
        ("stale", np.bool_),
        ("first_row", np.int32),
        ("heat", np.uint16, (2, ROWS)),
    ]
)

Samples = NDArray[np.void]


class HistoryColumns(msgspec.Struct, frozen=True):
    """Samples as columns, ascending in time; every list has one entry per sample.

    ``price`` is the last reference price of the sample and ``low``/``high`` its extremes, ``null`` while unknown or stale. The
    liquidated totals are what was added since the sample before. Heat row ``r`` covers prices from ``exp(r * row_log_width)`` to
    ``exp((r + 1) * row_log_width)``; ``long_usd[i][k]`` is the forced notional of long positions in row ``first_row[i] + k``.
    ``first_row`` is ``null`` where no heat is known. ``begins_second`` is that of the oldest sample that is kept.
    """

    second: list[int]
    price: list[float | None]
    low: list[float | None]
    high: list[float | None]
    liquidated_long_usd: list[float]
    liquidated_short_usd: list[float]
    stale: list[bool]
    row_log_width: float | None
    first_row: list[int | None]
    long_usd: list[list[int]]
    short_usd: list[list[int]]
    begins_second: int | None


class Ring:
    """The last ``capacity`` samples, oldest first; memory pages are touched as samples arrive."""

    def __init__(self, capacity: int) -> None:
        self._rows: Samples = np.zeros(capacity, dtype=_SAMPLE)
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, sample: Samples) -> None:
        """Add one sample and drop the oldest when full."""
        self._rows[self._next] = sample[0]
        self._next = (self._next + 1) % len(self._rows)
        self._size = min(self._size + 1, len(self._rows))

    def first_second(self) -> int | None:
        """Return the time of the oldest sample."""
        if not self._size:
            return None
        return int(self._rows["second"][self._next if self._size == len(self._rows) else 0])

    def ordered(self) -> Samples:
        """Return a copy of the samples, oldest first."""
        if self._size < len(self._rows):
            return self._rows[: self._size].copy()
        return np.concatenate([self._rows[self._next :], self._rows[: self._next]])


class MarketHistory:
    """The history of one market. Call ``observe`` with every projection of it."""

    def __init__(self) -> None:
        self._start_anew()

    def _start_anew(self) -> None:
        self._fine = Ring(FINE_SAMPLES)
        self._coarse = Ring(COARSE_SAMPLES)
        self._row_log_width: float | None = None
        self._bucket_ratio: float | None = None
        self._last_totals: tuple[float, float] | None = None
        self._last_second: int | None = None
        self._open_fine = _Accumulator()
        self._open_coarse = _Accumulator()

    def observe(self, market: MarketProjection) -> HistoryColumns | None:
        """Take one projection in; return the new sample when a second is complete, else ``None``.

        A projection older than the last one (the wall clock was set back, or a replay starts over) starts the history anew, and so
        does a change of the histogram's bucket width.
        """
        second = market.as_of_ns // 1_000_000_000
        if self._last_second is not None and second < self._last_second:
            self._start_anew()
        if market.histogram is not None and market.histogram.bucket_ratio != self._bucket_ratio:
            if self._bucket_ratio is not None:
                self._start_anew()
            self._bucket_ratio = market.histogram.bucket_ratio
            self._row_log_width = row_log_width(market.histogram.bucket_ratio)
        price = None if market.stale else market.reference_price
        added = self._liquidations_since_last(market)
        for accumulator in (self._open_fine, self._open_coarse):
            accumulator.add(price, *added)
        if second == self._last_second:
            return None
        sample = self._sample(market, price, second, self._open_fine)
        self._fine.append(sample)
        self._open_fine = _Accumulator()
        if self._last_second is None or second // COARSE_INTERVAL_S != self._last_second // COARSE_INTERVAL_S:
            self._coarse.append(self._sample(market, price, second, self._open_coarse))
            self._open_coarse = _Accumulator()
        self._last_second = second
        return self._columns(sample)

    def query(self, seconds: int, columns: int) -> HistoryColumns:
        """Return the last ``seconds`` in at most ``columns`` equal spans of time, each represented by its last sample.

        Extremes and liquidations of a span are those of all its samples, so nothing is lost by asking for fewer columns.
        """
        samples = self._merged()
        if not len(samples):
            return self._columns(samples)
        end = int(samples["second"][-1]) + 1
        samples = samples[samples["second"] >= end - seconds]
        span = max(1, math.ceil(seconds / columns))
        return self._columns(_reduced(samples, span))

    def _merged(self) -> Samples:
        fine, coarse = self._fine.ordered(), self._coarse.ordered()
        if not len(fine):
            return coarse
        before = coarse["second"] < fine["second"][0]
        overlapping = coarse[~before]
        if len(overlapping):
            # The first fine sample now follows a coarse one, so it has to account for everything since that one.
            within = (fine["second"] > fine["second"][0]) & (fine["second"] <= overlapping["second"][0])
            for name in ("liquidated_long_usd", "liquidated_short_usd"):
                fine[name][0] = max(0.0, overlapping[name][0] - fine[name][within].sum())
        return np.concatenate([coarse[before], fine])

    def _liquidations_since_last(self, market: MarketProjection) -> tuple[float, float]:
        totals = (market.liquidated_long_usd, market.liquidated_short_usd)
        if not all(math.isfinite(total) for total in totals):
            return 0.0, 0.0
        before, self._last_totals = self._last_totals, totals
        return (0.0, 0.0) if before is None else (_added(totals[0], before[0]), _added(totals[1], before[1]))

    def _sample(self, market: MarketProjection, price: float | None, second: int, extremes: _Accumulator) -> Samples:
        sample: Samples = np.zeros(1, dtype=_SAMPLE)
        sample["second"] = second
        sample["price"] = np.nan if price is None else price
        sample["low"], sample["high"] = extremes.low, extremes.high
        sample["liquidated_long_usd"], sample["liquidated_short_usd"] = extremes.long_usd, extremes.short_usd
        sample["stale"] = market.stale
        sample["first_row"] = _NO_HEAT
        if market.histogram is not None and price is not None and self._row_log_width is not None:
            first_row = math.floor(math.log(price) / self._row_log_width) - ROWS // 2
            sample["first_row"] = first_row
            sample["heat"][0] = encode_heat(heat_rows(market.histogram, first_row, self._row_log_width))
        return sample

    def _columns(self, samples: Samples) -> HistoryColumns:
        known = samples["first_row"] != _NO_HEAT
        heat = decode_heat(samples["heat"])
        rows = [row if has else [[], []] for row, has in zip(heat.tolist(), known.tolist(), strict=True)]
        return HistoryColumns(
            second=samples["second"].tolist(),
            price=_or_none(samples["price"]),
            low=_or_none(samples["low"]),
            high=_or_none(samples["high"]),
            liquidated_long_usd=samples["liquidated_long_usd"].tolist(),
            liquidated_short_usd=samples["liquidated_short_usd"].tolist(),
            stale=samples["stale"].tolist(),
            row_log_width=self._row_log_width,
            first_row=[row if has else None for row, has in zip(samples["first_row"].tolist(), known.tolist(), strict=True)],
            long_usd=[row[0] for row in rows],
            short_usd=[row[1] for row in rows],
            begins_second=self._coarse.first_second(),
        )


class _Accumulator:
    """Extremes and sums since the last sample; the extremes are NaN while no price was known."""

    def __init__(self) -> None:
        self.low = math.nan
        self.high = math.nan
        self.long_usd = 0.0
        self.short_usd = 0.0

    def add(self, price: float | None, long_usd: float, short_usd: float) -> None:
        """Take one projection's price and newly liquidated notional in."""
        if price is not None:
            self.low = price if math.isnan(self.low) else min(self.low, price)
            self.high = price if math.isnan(self.high) else max(self.high, price)
        self.long_usd += long_usd
        self.short_usd += short_usd


def row_log_width(bucket_ratio: float) -> float:
    """Return the logarithmic height of a heat row: a whole number of histogram buckets, so that ``ROWS`` cover the range."""
    bucket = math.log1p(bucket_ratio)
    span = 2 * -math.log1p(-HEAT_RANGE_RATIO)
    return bucket * max(1, math.ceil(span / (ROWS * bucket)))


def heat_rows(histogram: Histogram, first_row: int, width: float) -> NDArray[np.float64]:
    """Sum the histogram into ``ROWS`` rows from ``first_row`` up: long positions first, then short ones, in USD."""
    rows = np.zeros((2, ROWS))
    if histogram.price:
        index = np.floor(np.log(np.asarray(histogram.price)) / width).astype(np.int64) - first_row
        inside = (index >= 0) & (index < ROWS)
        for side, notional in enumerate((histogram.long_usd, histogram.short_usd)):
            rows[side] = np.bincount(index[inside], weights=np.asarray(notional)[inside], minlength=ROWS)
    return rows


def encode_heat(notional_usd: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Store notionals as 16-bit logarithms, exact to 0.05 % between 1 and 1e12 USD; less than 1 USD is nothing."""
    usd = np.nan_to_num(notional_usd, nan=0.0, posinf=1e12, neginf=0.0)
    codes = 1 + np.rint(np.log(np.clip(usd, 1.0, 1e12)) / _LOG_SPAN * _LOG_STEPS)
    return np.where(usd < 1.0, 0, codes).astype(np.uint16)


def decode_heat(codes: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the whole dollars that ``encode_heat`` stored."""
    usd = np.exp((codes.astype(np.float64) - 1) / _LOG_STEPS * _LOG_SPAN)
    return np.where(codes == 0, 0, np.rint(usd)).astype(np.int64)


def _reduced(samples: Samples, span_s: int) -> Samples:
    """Keep the last sample of each span of time, with the extremes and sums of the whole span."""
    spans = samples["second"] // span_s
    starts = np.flatnonzero(np.r_[True, spans[1:] != spans[:-1]])
    if len(starts) == len(samples):
        return samples
    ends = np.r_[starts[1:], len(samples)] - 1
    reduced: Samples = samples[ends].copy()
    # fmin and fmax ignore the NaN of unknown prices.
    reduced["low"] = np.fmin.reduceat(samples["low"], starts)
    reduced["high"] = np.fmax.reduceat(samples["high"], starts)
    for name in ("liquidated_long_usd", "liquidated_short_usd"):
        reduced[name] = np.add.reduceat(samples[name], starts)
    return reduced


def _added(now: float, before: float) -> float:
    """Return the growth of a total; one that fell was counted from zero again."""
    return now - before if now >= before else now


def _or_none(values: NDArray[Any]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
