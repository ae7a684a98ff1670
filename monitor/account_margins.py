"""All that is said of some margin accounts: their legs gathered from the columns, and every figure computed in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.contracts import ColumnLegs, LegValues, bankruptcy_prices, column_values
from monitor.margin import ASSET, INVERSE, Array, TierTable
from monitor.shocks import AccountLegs, together, trigger_shocks
from monitor.state.legs import LegTable
from monitor.triggers import Legs, find_triggers, value_legs


class MarginFigures(NamedTuple):
    """Some margin rows and their legs, at the present prices; NaN is what is not known or does not exist.

    Per leg, shape (N,): ``group`` is the place of its row among those asked for and rises, ``value_usd`` what the leg adds to the
    surplus and ``equity_value_usd`` what it adds to the equity, ``exposure_usd`` what the equity gains if the price doubles,
    ``notional_usd`` is not signed. ``trigger_price`` is the price of the leg's market at which its account is liquidated,
    ``bankruptcy_price`` the one at which the equity is zero on the side that hurts the leg.

    Per row, shape (G,): ``notional_sum_usd`` is that of positions and debts. ``distance_ratio`` is the common move of all prices
    that liquidates it, negative for a fall and 0 for one that is liquidatable already, ``margin_call_ratio`` the one that brings it
    down to the level of a margin call.
    """

    rows: tuple[int, ...]
    group: NDArray[np.int64]
    market: NDArray[np.int32]
    contract: NDArray[np.int8]
    size: Array
    entry_price: Array
    price: Array
    venue_price: Array
    value_usd: Array
    equity_value_usd: Array
    maintenance_usd: Array
    exposure_usd: Array
    notional_usd: Array
    trigger_price: Array
    bankruptcy_price: Array
    cash_usd: Array
    equity_usd: Array
    maintenance_sum_usd: Array
    surplus_usd: Array
    notional_sum_usd: Array
    exposure_sum_usd: Array
    distance_ratio: Array
    margin_call_ratio: Array

    def legs_at(self, place: int) -> slice:
        """Return where the legs of the row at ``place`` stand."""
        first, last = np.searchsorted(self.group, (place, place + 1)).tolist()
        return slice(first, last)


def margin_figures(table: LegTable, rows: Sequence[int], margin_call_level: float) -> MarginFigures:
    """Compute everything about some margin rows.

    Args:
        table: the rows and their legs, with prices and tiers.
        rows: which rows, each once.
        margin_call_level: a margin call comes when the surplus falls below this multiple of the maintenance.
    """
    tiers, groups = table.tiers, len(rows)
    legs, group, price, venue_price = _gathered(table, rows)
    every = np.arange(group.size)
    columns = legs.column_legs(every, group, tiers)
    values = column_values(columns, price, tiers)
    # A position in what is an asset by the venue's rules is worth nothing known.
    unknown = ~legs.is_holding & (columns.contract == ASSET)
    values = LegValues(*(np.where(unknown, np.nan, array) for array in values))
    value, trigger = np.empty(group.size), np.empty(group.size)
    value_legs(legs, price, tiers, out=value)
    cash = table.cash_usd[np.asarray(rows, dtype=np.int64)]
    surplus, equity = cash + _sums(group, value, groups), cash + _sums(group, values.equity_usd, groups)
    find_triggers(legs, price, value, tiers, shock=np.asarray(surplus[group], dtype=np.float64), trigger=trigger)
    # An account that is past its price already has none ahead.
    trigger = np.where((surplus[group] >= 0.0) & (trigger > 0.0) & np.isfinite(trigger), trigger, np.nan)
    exposure, notional = exposures(columns, price)
    return MarginFigures(
        rows=tuple(rows),
        group=group,
        market=np.asarray(legs.market, dtype=np.int32),
        contract=np.asarray(columns.contract, dtype=np.int8),
        size=legs.size,
        entry_price=legs.entry_price,
        price=price,
        venue_price=venue_price,
        value_usd=value,
        equity_value_usd=values.equity_usd,
        maintenance_usd=values.maintenance_usd,
        exposure_usd=exposure,
        notional_usd=notional,
        trigger_price=trigger,
        bankruptcy_price=_bankruptcies(columns, equity, values.equity_usd, price),
        cash_usd=cash,
        equity_usd=equity,
        maintenance_sum_usd=_sums(group, values.maintenance_usd, groups),
        surplus_usd=surplus,
        # What is owned is no position; what is owed is as good as one.
        notional_sum_usd=_sums(group, np.where((columns.contract == ASSET) & (legs.size > 0.0), 0.0, notional), groups),
        exposure_sum_usd=_sums(group, exposure, groups),
        distance_ratio=np.where(np.isnan(surplus), np.nan, _common_move(table, columns, cash, 0.0)),
        margin_call_ratio=np.where(np.isnan(surplus), np.nan, _common_move(table, columns, cash, margin_call_level)),
    )


def exposures(legs: ColumnLegs, price: Array) -> tuple[Array, Array]:
    """Return what the equity gains from each leg if its price doubles, and the absolute notional; both in USD."""
    is_inverse = legs.contract == INVERSE
    with np.errstate(divide="ignore", invalid="ignore"):
        base = np.where(is_inverse, legs.size / legs.entry_price, legs.size)
        exposure, notional = base * price, np.abs(np.where(is_inverse, legs.size, legs.size * price))
    # A free slot holds nothing, whatever the price.
    is_free = legs.size == 0.0
    return np.where(is_free, 0.0, exposure), np.where(is_free, 0.0, notional)


class _Gathered(NamedTuple):
    """Legs of some rows: the place of each one's row, its price, and the venue's liquidation price."""

    legs: Legs
    group: NDArray[np.int64]
    price: Array
    venue_price: Array


def _gathered(table: LegTable, rows: Sequence[int]) -> _Gathered:
    places = [(place, market, slot) for place, row in enumerate(rows) for market, slot in table.legs_of(row)]
    group = np.array([place for place, _, _ in places], dtype=np.int64)
    market = np.array([index for _, index, _ in places], dtype=np.int32)
    at = [(table.column(index), slot) for _, index, slot in places]
    legs = Legs(
        group,
        market,
        _array(column.size[slot] for column, slot in at),
        _array(column.slope[slot] for column, slot in at),
        _array(column.second[slot] for column, slot in at),
        _array(column.entry_price[slot] for column, slot in at),
        np.array([bool(column.is_holding[slot]) for column, slot in at], dtype=np.bool_),
    )
    return _Gathered(
        legs,
        group,
        _array(column.price for column, _ in at),
        _array(column.venue_price[slot] for column, slot in at),
    )


def _bankruptcies(columns: ColumnLegs, equity: Array, equity_value: Array, price: Array) -> Array:
    """Return for each leg the price of its market at which the equity of its account is zero, on the side that hurts the leg."""
    if not price.size:
        return np.empty(0)
    key = np.asarray(columns.group, dtype=np.int64) * (int(columns.market.max()) + 1) + columns.market
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    # The long and the short leg of a market move together.
    elsewhere = equity[columns.group[first]] - _sums(place, equity_value, first.size)
    nearest = bankruptcy_prices(columns._replace(group=place), elsewhere, price[first])
    return np.where(columns.size > 0.0, nearest.fall[place], nearest.rise[place])


def _common_move(table: LegTable, columns: ColumnLegs, cash: Array, level_ratio: float) -> Array:
    """Return the nearer of the fall and the rise of all prices together at which each account is at a level; NaN if none."""
    tiers: TierTable = table.tiers
    count = tiers.rate.shape[0]
    prices = np.array([table.price_of(index) for index in range(count)])
    held = AccountLegs(columns.group, columns.market, columns.contract, columns.size, columns.entry_price, columns.ratio)
    fall, rise = (trigger_shocks(held, cash, prices, together(count, move), tiers, level_ratio=level_ratio) for move in (-1.0, 1.0))
    # Adding zero turns the minus zero of an account that is there already into a plain one.
    nearer = np.where(np.isfinite(fall) & ~(rise < fall), -fall, rise) + 0.0
    return np.where(np.isfinite(nearer), nearer, np.nan)


def _sums(group: NDArray[np.int64], values: Array, groups: int) -> Array:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


def _array(values: Iterable[float]) -> Array:
    return np.fromiter(values, np.float64)
