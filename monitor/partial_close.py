"""Partial liquidation: how much of a position is left when each move of the price sells just enough to stay at the threshold.

Closed forms of models.md 3.2 (b), exact for continuous paths:

    perpetual   Q(p) = Q0 (p/pT) ** ((1 - mu)/(mu - fee))           a long, falling below its trigger pT
                Q(p) = Q0 (p/pT) ** (-(1 + mu)/(mu - fee))          a short, rising above it
    lending     C(p) = C0 (p/pT) ** kappa,  kappa = LT(1+b)/(1 - LT(1+b))

The perpetual's follows from equity ``mu Q p`` being kept while selling ``-dQ`` at ``p`` costs the fee:
``mu d(Q p) = +-Q dp + fee p dQ``. Whether such an equilibrium exists is checked: with a fee as large as the margin, or a threshold
that leaves no room for the bonus, selling does not help and the account cannot be kept at its threshold.
"""

from __future__ import annotations

import numpy as np

from monitor.margin import Array

Numbers = Array | float


def perpetual_exponent(maintenance_rate: Numbers, fee_rate: Numbers, *, long: bool = True) -> Array:
    """Return the exponent of ``p/pT`` in the share that is kept: positive for longs, negative for shorts.

    Raises:
        ValueError: unless ``0 <= fee < mu < 1``.
    """
    rate, fee = np.asarray(maintenance_rate, dtype=float), np.asarray(fee_rate, dtype=float)
    if not np.all((fee >= 0.0) & (fee < rate) & (rate < 1.0)):
        raise ValueError(f"selling cannot restore a margin of {rate} at a fee of {fee}: 0 <= fee < margin < 1 is needed")
    exponent: Array = (1.0 - rate) / (rate - fee) if long else -(1.0 + rate) / (rate - fee)
    return exponent


def perpetual_share_kept(
    price: Numbers, trigger_price: Numbers, maintenance_rate: Numbers, fee_rate: Numbers = 0.0, *, long: bool = True
) -> Array:
    """Return the share of a position that is left at ``price``: 1 on the safe side of the trigger.

    Raises:
        ValueError: unless prices are positive and ``0 <= fee < mu < 1``.
    """
    return _power(price, trigger_price, perpetual_exponent(maintenance_rate, fee_rate, long=long))


def lending_exponent(threshold: Numbers, bonus: Numbers) -> Array:
    """Return ``kappa = LT(1+b)/(1 - LT(1+b))``.

    Raises:
        ValueError: unless ``0 < LT(1+b) < 1`` and the bonus is not negative.
    """
    sold = np.asarray(threshold, dtype=float) * (1.0 + np.asarray(bonus, dtype=float))
    if not np.all((sold > 0.0) & (sold < 1.0) & (np.asarray(bonus) >= 0.0)):
        raise ValueError(f"calls cannot restore health: LT(1+b) is {sold}, and 0 < LT(1+b) < 1 with b >= 0 is needed")
    kappa: Array = sold / (1.0 - sold)
    return kappa


def lending_share_kept(price: Numbers, trigger_price: Numbers, threshold: Numbers, bonus: Numbers) -> Array:
    """Return the share of the collateral that is left at ``price``: 1 above the trigger.

    Raises:
        ValueError: unless prices are positive and ``0 < LT(1+b) < 1``.
    """
    return _power(price, trigger_price, lending_exponent(threshold, bonus))


def forced_density(size: Numbers, price: Numbers, exponent: Numbers) -> Array:
    """Return the forced volume per unit of price of an account that is at its threshold: ``|exponent| Q / p``, in base units.

    For a perpetual this is ``Q (1 - mu)/((mu - fee) p)``; divided by the book's density it is the account's part of the branching
    ratio R (models.md 3.2).
    """
    density: Array = np.abs(exponent) * np.abs(size) / np.asarray(price, dtype=float)
    return density


def slice_to_restore(
    size: Numbers,
    equity_usd: Numbers,
    price: Numbers,
    *,
    maintenance_rate: Numbers,
    execution_price: Numbers,
    fee_rate: Numbers = 0.0,
) -> Array:
    """Return the least amount to close at once so that equity is back at maintenance, with costs taken into account.

    ``(mu p |q| - e) / (side (execution - p) - fee p + mu p)``. It may be more than there is: then closing everything does not
    restore the margin, and the caller closes everything.

    Args:
        size: signed position.
        equity_usd: before the slice, at ``price``.
        price: mark.
        maintenance_rate: ``mu``.
        execution_price: average price of the slice.
        fee_rate: share of the slice's notional at mark.

    Returns:
        A magnitude in base units; 0 where nothing is missing, ``inf`` where a slice of any size costs more margin than it frees.
    """
    size, price = np.asarray(size, dtype=float), np.asarray(price, dtype=float)
    missing = maintenance_rate * price * np.abs(size) - equity_usd
    freed = np.sign(size) * (execution_price - price) - fee_rate * price + maintenance_rate * price
    with np.errstate(divide="ignore", invalid="ignore"):
        amount = np.where(freed > 0.0, missing / freed, np.where(np.isnan(freed), np.nan, np.inf))
    return np.where(missing <= 0.0, 0.0, amount)


def shortfall_usd(size: Numbers, bankruptcy_price: Numbers, execution_price: Numbers) -> Array:
    """Return the bad debt of a slice closed beyond the bankruptcy price: ``max(0, side (bankruptcy - execution)) |slice|``.

    Args:
        size: the closed part, signed as the position it closes.
        bankruptcy_price: where the position's equity is zero, counted from its **entry**: ``entry - side c/|q|`` (models.md 3.3).
        execution_price: average price of the slice.
    """
    return np.maximum(0.0, np.asarray(size, dtype=float) * (np.asarray(bankruptcy_price) - execution_price))


def closing_fee_usd(
    size: Numbers, mark_price: Numbers, execution_price: Numbers, mark_fee_rate: Numbers, execution_fee_rate: Numbers
) -> Array:
    """Return what a forced slice costs where the venue charges on the notional at mark and on that at execution."""
    fee: Array = np.abs(size) * (mark_fee_rate * np.asarray(mark_price) + execution_fee_rate * np.asarray(execution_price))
    return fee


def _power(price: Numbers, trigger_price: Numbers, exponent: Array) -> Array:
    """Return ``(p/pT) ** exponent``, and 1 where the price has not reached the trigger."""
    price, trigger = np.asarray(price, dtype=float), np.asarray(trigger_price, dtype=float)
    if np.any(price <= 0.0) or np.any(trigger <= 0.0):
        raise ValueError(f"prices of {price} and {trigger}: both must be positive")
    kept: Array = np.minimum(1.0, (price / trigger) ** exponent)
    return kept
