"""Liquidation prices in the closed forms that venues print, to be compared with and to explain what they show.

The daemon itself solves the affine form (:mod:`monitor.contracts`), which is the same arithmetic for every venue. These formulas
are what a trader finds in the help pages; tests hold the two against each other, and docstrings say where they must differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.margin import Array

Numbers = Array | float


class IsolatedPosition(NamedTuple):
    """An isolated position as Bybit's formulas take it, arrays of one shape.

    ``size`` is signed, in base units if linear and in USD if inverse; ``deduction`` and ``extra_margin`` are in USD or in coin.
    """

    size: Array
    entry_price: Array
    leverage: Array
    maintenance_rate: Array
    deduction: Array
    extra_margin: Array


def binance_liquidation_price(
    *,
    wallet_usd: Numbers,
    size: Numbers,
    entry_price: Numbers,
    rate: Numbers,
    deduction_usd: Numbers,
    other_maintenance_usd: Numbers = 0.0,
    other_profit_usd: Numbers = 0.0,
    hedge_sizes: tuple[Numbers, Numbers] = (0.0, 0.0),
    hedge_entries: tuple[Numbers, Numbers] = (0.0, 0.0),
    hedge_rates: tuple[Numbers, Numbers] = (0.0, 0.0),
    hedge_deductions_usd: tuple[Numbers, Numbers] = (0.0, 0.0),
) -> Array:
    """Return Binance's liquidation price in given brackets (venues.md 2.6).

    The general formula of its help pages with a one-way position B and the long and short of hedge mode, L and S. The caller looks
    after the bracket being the one that holds the position at the result; :func:`monitor.contracts.solve_column` does so itself.

    Args:
        wallet_usd: cross wallet balance, or the isolated one with nothing else.
        size: one-way position, signed.
        entry_price: of the one-way position.
        rate: maintenance rate of its bracket.
        deduction_usd: ``cum`` of its bracket.
        other_maintenance_usd: of all other contracts.
        other_profit_usd: unrealised, of all other contracts.
        hedge_sizes: magnitudes of the long and the short of hedge mode.
        hedge_entries: their entry prices.
        hedge_rates: their maintenance rates.
        hedge_deductions_usd: their ``cum``.

    Returns:
        NaN where no positive price exists.
    """
    one_way = np.asarray(size, dtype=float)
    sizes, entries = (one_way, hedge_sizes[0], -np.asarray(hedge_sizes[1])), (entry_price, *hedge_entries)
    rates, deductions = (rate, *hedge_rates), (deduction_usd, *hedge_deductions_usd)
    cash = np.asarray(wallet_usd, dtype=float) - other_maintenance_usd + other_profit_usd
    slope = np.zeros_like(one_way)
    for leg_size, leg_entry, leg_rate, leg_deduction in zip(sizes, entries, rates, deductions, strict=True):
        cash = cash + leg_deduction - leg_size * np.asarray(leg_entry)
        slope = slope + leg_rate * np.abs(leg_size) - leg_size
    with np.errstate(divide="ignore", invalid="ignore"):
        price = cash / slope
    return np.where(np.isfinite(price) & (price > 0.0), price, np.nan)


def bybit_isolated_linear(position: IsolatedPosition) -> Array:
    """Return Bybit's liquidation price of an isolated linear position (venues.md 3.6).

    ``entry - (IM - MM + extra) / size`` with the size signed and MM as at entry. It is what the venue shows, not the price at which
    maintenance, which moves with the price, is reached.
    """
    size, entry, leverage, rate, deduction, extra = position
    notional = np.abs(size) * entry
    return entry - (notional / leverage - (notional * rate - deduction) + extra) / size


def bybit_isolated_inverse_old(position: IsolatedPosition) -> Array:
    """Return Bybit's liquidation price of an isolated inverse position by its older page (venues.md 3.6).

    ``qty / (PV +- (IM - MM))`` with ``PV = qty / entry`` and MM as at entry. Extra margin is not part of that formula.
    """
    size, entry, leverage, rate, deduction, _ = position
    value = np.abs(size) / entry
    return np.abs(size) / (value + np.sign(size) * (value / leverage - (value * rate - deduction)))


def bybit_isolated_inverse(position: IsolatedPosition, fee_rate: float = 0.0) -> Array:
    """Return Bybit's liquidation price of an isolated inverse position by the page of 2026-05-27 (venues.md 3.6).

    Maintenance is that at the result, so this is the affine form of :mod:`monitor.contracts` with the margin held in coin.
    """
    size, entry, leverage, rate, deduction, extra = position
    side, value = np.sign(size), np.abs(size) / entry
    coins = value / leverage + extra / (1.0 + side * fee_rate) + deduction
    return np.abs(size) * (1.0 + side * rate) / (value + side * coins)
