"""Lending pools: health, what one liquidation call may take, and what is left when calls cannot keep up.

A borrower with collateral of value ``C_a`` at liquidation thresholds ``LT_a`` and debts of value ``B`` has the health factor
``HF = sum LT_a C_a / B`` and may be liquidated below 1, which is ``sum LT_a C_a - B < 0``: the surplus of
:mod:`monitor.contracts` with every asset a leg and the threshold as its ratio. Thresholds, triggers and shocks of lending accounts
come from there; here is what the affine form does not know. Models: models.md 3.9; rules of Aave, Compound and Morpho: venues.md 7.

All functions work elementwise on arrays or floats; values are in one currency, ratios are fractions, unknown is NaN. ``bonus`` is
the liquidator's share on top of the repaid debt (0.05 for 5 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array

Numbers = Array | float
Mask = NDArray[np.bool_]

CloseFactorRule = Literal["aave_3_3", "aave_before_3_3", "all"]
"""How much of a debt one call may repay; Spark forked before 3.3, Morpho and Compound have no limit (venues.md 7.2 - 7.4)."""

# The constants of LiquidationLogic.sol, in the pool's base currency (venues.md 7.2).
CLOSE_FACTOR = 0.5
CLOSE_FACTOR_HEALTH = 0.95
FULL_CLOSE_BELOW_USD = 2_000.0
DUST_USD = 1_000.0

MORPHO_INCENTIVE_MAX = 1.15
MORPHO_INCENTIVE_CURSOR = 0.3
MORPHO_PRICE_SCALE = 1e36

# A halving debt of a trillion dollars is below a billionth of a dollar after 70 calls; vector I needs 37.
CALLS_MAX = 100


class CallSeries(NamedTuple):
    """The outcome of repeated liquidation calls, arrays of one shape.

    ``calls`` is how many calls were made; ``bad_debt`` the debt that is left without any collateral behind it, NaN where
    :data:`CALLS_MAX` calls were not enough to tell.
    """

    collateral: Array
    debt: Array
    calls: NDArray[np.int64]
    bad_debt: Array


def effective_threshold(own: float | None, category: int, category_thresholds: Sequence[tuple[int, float]]) -> float | None:
    """Return the liquidation threshold of an asset for a borrower in an e-mode category (0 is none).

    The category's threshold counts only for assets in its collateral bitmap; all others keep their own (venues.md 7.2).

    Args:
        own: the asset's own threshold, ``None`` if unknown.
        category: of the borrower.
        category_thresholds: (category, threshold) of the categories that have the asset in their bitmap, as in
            :class:`connectors.events.Instrument`.
    """
    if category:
        for number, threshold in category_thresholds:
            if number == category:
                return threshold
    return own


def is_in_bitmap(bitmap: int, reserve: int) -> bool:
    """Tell whether a reserve's bit is set in a category's collateral bitmap (bit 0 is reserve 0)."""
    return reserve >= 0 and bool(bitmap >> reserve & 1)


def health_factor(collateral: Array, threshold: Array, debt: Array) -> Array:
    """Return ``sum(collateral * threshold) / sum(debt)`` over the last axis, for display; ``inf`` without debt.

    Args:
        collateral: values of the assets that are enabled as collateral, shape (..., assets).
        threshold: their liquidation thresholds; of an asset without value it may be NaN.
        debt: values of the debts, shape (..., debts).
    """
    covered = np.where(collateral == 0.0, 0.0, collateral * threshold).sum(axis=-1)
    owed = np.asarray(debt, dtype=float).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = covered / owed
    return np.where((owed == 0.0) & ~np.isnan(covered), np.inf, ratio)


def is_lending_liquidatable(collateral: Array, threshold: Array, debt: Array) -> Mask:
    """Tell whether ``HF < 1``, by comparing and not by dividing; False where something is not known."""
    covered = np.where(collateral == 0.0, 0.0, collateral * threshold).sum(axis=-1)
    liquidatable: Mask = covered < np.asarray(debt, dtype=float).sum(axis=-1)
    return liquidatable


def repayable_debt(
    rule: CloseFactorRule, health: Numbers, debt_reserve: Numbers, collateral_reserve: Numbers, total_debt: Numbers
) -> Array:
    """Return the most of one debt reserve that one call may repay (venues.md 7.2).

    Since Aave 3.3 all of it, unless the health factor is above 0.95 **and** both the debt reserve and the collateral reserve are
    worth 2,000 or more: then half of the borrower's *total* debt, so a reserve that is less than that can still be closed whole.
    Before: half of the reserve, all of it at a health factor of 0.95 or less.

    Args:
        rule: which version.
        health: the borrower's health factor.
        debt_reserve: value of the debt that is repaid.
        collateral_reserve: value of the collateral that is taken.
        total_debt: value of all debts of the borrower.

    Returns:
        0 for a healthy borrower, NaN where the health factor is not known.
    """
    health, debt_reserve = np.asarray(health, dtype=float), np.asarray(debt_reserve, dtype=float)
    if rule == "aave_3_3":
        halved = (
            (health > CLOSE_FACTOR_HEALTH)
            & (np.asarray(collateral_reserve) >= FULL_CLOSE_BELOW_USD)
            & (debt_reserve >= FULL_CLOSE_BELOW_USD)
        )
        limit = np.where(halved, np.minimum(debt_reserve, CLOSE_FACTOR * np.asarray(total_debt)), debt_reserve)
    elif rule == "aave_before_3_3":
        limit = np.where(health > CLOSE_FACTOR_HEALTH, CLOSE_FACTOR * debt_reserve, debt_reserve)
    else:
        limit = debt_reserve
    return np.where(np.isnan(health), np.nan, np.where(health < 1.0, limit, 0.0))


def seized_collateral(repaid: Numbers, bonus: Numbers, debt_price: Numbers = 1.0, collateral_price: Numbers = 1.0) -> Array:
    """Return the units of collateral that a liquidator gets for repaying ``repaid`` units of debt."""
    seized: Array = np.asarray(repaid, dtype=float) * debt_price / collateral_price * (1.0 + np.asarray(bonus))
    return seized


def repayment_for(collateral: Numbers, bonus: Numbers) -> Array:
    """Return the value of debt whose repayment takes all of the collateral: what a call is scaled down to if that is less."""
    repaid: Array = np.asarray(collateral, dtype=float) / (1.0 + np.asarray(bonus))
    return repaid


def leaves_dust(collateral_left: Numbers, debt_left: Numbers) -> Mask:
    """Tell which calls Aave since 3.3 refuses: they would leave collateral or debt of less than 1,000, but not nothing."""
    dust: Mask = np.zeros(np.broadcast(collateral_left, debt_left).shape, dtype=np.bool_)
    for left in (np.asarray(collateral_left), np.asarray(debt_left)):
        dust = dust | ((left > 0.0) & (left < DUST_USD))
    return dust


def repayment_to_health(target: Numbers, collateral: Numbers, debt: Numbers, threshold: Numbers, bonus: Numbers) -> Array:
    """Return the debt to repay so that the health factor becomes ``target``: ``(h B - LT C) / (h - LT (1 + b))``.

    Returns:
        0 where it is that high already; NaN where no repayment gets there, because calls lower the health (toxic) or because the
        collateral is used up before.
    """
    target, collateral, debt = np.asarray(target, dtype=float), np.asarray(collateral), np.asarray(debt)
    threshold, bonus = np.asarray(threshold), np.asarray(bonus)
    missing = target * debt - threshold * collateral
    gain = target - threshold * (1.0 + bonus)
    with np.errstate(divide="ignore", invalid="ignore"):
        repaid = missing / gain
    reachable = (gain > 0.0) & (repaid * (1.0 + bonus) <= collateral)
    return np.where(missing <= 0.0, 0.0, np.where(reachable, repaid, np.nan))


def is_toxic(collateral: Numbers, debt: Numbers, bonus: Numbers) -> Mask:
    """Tell whether a call makes the borrower worse: ``LTV > 1/(1+b)``, the same as ``HF < LT (1+b)`` (models.md 3.9)."""
    toxic: Mask = np.asarray(debt) * (1.0 + np.asarray(bonus)) > np.asarray(collateral)
    return toxic


def bad_debt_after_calls(collateral: Numbers, debt: Numbers, bonus: Numbers) -> Array:
    """Return what remains owed after calls have taken all collateral of toxic borrowers, ``B - C/(1+b)``; 0 for others."""
    return np.maximum(0.0, np.asarray(debt) - repayment_for(collateral, bonus))


def bad_debt_if_halted(collateral: Numbers, debt: Numbers) -> Array:
    """Return what the pool would lose if nobody liquidated and all collateral were worth just its price: ``max(0, B - C)``."""
    return np.maximum(0.0, np.asarray(debt, dtype=float) - collateral)


def eligible_drop(health: Numbers) -> Array:
    """Return the fall of the collateral's price, as a positive ratio, at which the borrower may be liquidated: ``1 - 1/HF``."""
    with np.errstate(divide="ignore"):
        return np.maximum(0.0, 1.0 - 1.0 / np.asarray(health, dtype=float))


def exhaustion_drop(health: Numbers, threshold: Numbers, bonus: Numbers) -> Array:
    """Return the fall D* at which calls stop helping: ``max(1 - 1/HF, 1 - (1+b) LT/HF)`` on a continuous path (models.md 3.9).

    Below it the borrower is toxic and every further call leaves bad debt. The first term is the larger one only where the threshold
    leaves no room for the bonus, ``LT (1+b) > 1``: then calls never help.
    """
    health = np.asarray(health, dtype=float)
    with np.errstate(divide="ignore"):
        exhausted = 1.0 - (1.0 + np.asarray(bonus)) * threshold / health
    return np.maximum(eligible_drop(health), exhausted)


def simulate_calls(
    collateral: Numbers,
    debt: Numbers,
    threshold: Numbers,
    bonus: Numbers,
    *,
    close_factor: float = CLOSE_FACTOR,
    floor: float = 1e-9,
) -> CallSeries:
    """Liquidate borrowers call by call at a standing price until they are healthy or have nothing left (models.md 3.9).

    One call repays ``close_factor`` of the debt, or as much as all collateral pays for, and takes ``1 + bonus`` times its value.

    Args:
        collateral: value, one asset per borrower.
        debt: value.
        threshold: liquidation threshold.
        bonus: of the liquidator.
        close_factor: share of the debt per call, in (0, 1].
        floor: collateral or debt of no more than this counts as gone.

    Raises:
        ValueError: if the close factor is not in (0, 1].
    """
    if not 0.0 < close_factor <= 1.0:
        raise ValueError(f"a close factor of {close_factor} is not in (0, 1]")
    columns = np.broadcast_arrays(*(np.asarray(column, dtype=float) for column in (collateral, debt, threshold, bonus)))
    left, owed, threshold, bonus = (np.array(column) for column in columns)
    calls = np.zeros(left.shape, dtype=np.int64)
    for _ in range(CALLS_MAX):
        active = (threshold * left < owed) & (left > floor) & (owed > floor)
        if not active.any():
            break
        repaid = np.where(active, np.minimum(close_factor * owed, left / (1.0 + bonus)), 0.0)
        exhausted = active & (repaid < close_factor * owed)
        # All of the collateral is taken then; a difference of two equal numbers might leave a grain.
        left = np.where(exhausted, 0.0, left - repaid * (1.0 + bonus))
        owed = owed - repaid
        calls += active
    unfinished = (threshold * left < owed) & (left > floor) & (owed > floor)
    return CallSeries(left, owed, calls, np.where(unfinished, np.nan, np.where(left > 0.0, 0.0, owed)))


def is_comet_liquidatable(base_value: Array, collateral: Array, factor: Array) -> Mask:
    """Tell whether a Compound v3 account may be absorbed: ``base + sum(collateral * liquidateCollateralFactor) < 0``.

    Args:
        base_value: value of the base balance, negative for a borrower, shape (...).
        collateral: values, shape (..., assets).
        factor: liquidate collateral factors; of an asset without value it may be NaN.
    """
    covered = np.where(collateral == 0.0, 0.0, collateral * factor).sum(axis=-1)
    liquidatable: Mask = (base_value < 0.0) & (base_value + covered < 0.0)
    return liquidatable


def comet_absorption(base_value: Array, collateral: Array, liquidation_factor: Array) -> Array:
    """Return the base balance after an absorption: all collateral is credited at its liquidation factor, and no debt remains."""
    credited = np.where(collateral == 0.0, 0.0, collateral * liquidation_factor).sum(axis=-1)
    balance: Array = np.maximum(0.0, base_value + credited)
    return balance


def morpho_incentive(lltv: Numbers) -> Array:
    """Return Morpho's liquidation incentive factor, ``min(1.15, 1/(1 - 0.3 (1 - lltv)))``; the bonus is this minus one."""
    return np.minimum(MORPHO_INCENTIVE_MAX, 1.0 / (1.0 - MORPHO_INCENTIVE_CURSOR * (1.0 - np.asarray(lltv, dtype=float))))


def is_morpho_healthy(collateral: Numbers, oracle_price: Numbers, lltv: Numbers, borrowed: Numbers) -> Mask:
    """Tell whether ``collateral * price / 1e36 * lltv >= borrowed``, in raw token units and the oracle's scaled price."""
    healthy: Mask = np.asarray(collateral) * (np.asarray(oracle_price) / MORPHO_PRICE_SCALE) * lltv >= np.asarray(borrowed)
    return healthy
