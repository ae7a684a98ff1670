"""What venues do with an account that is short of margin: one small table per venue.

The margin arithmetic itself is the same everywhere (:mod:`monitor.contracts`); venues differ in whether an account dies *at* zero
surplus or below it, in how much they close at once and at which price, and in who takes what is left. A field that is ``None`` is
not known, and ``unverified`` names the fields that rest on secondary sources; nobody should bet on either. The closed forms that
venues print in their help pages are in :mod:`monitor.venue_formulas`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.margin import Array

Numbers = Array | float

OrderLimit = Literal["market", "bankruptcy_price", "fillable_price", "collateral_sale"]
"""The worst price of a forced order: none, the price where equity is zero, dYdX's price between the two, or no order at all: a
liquidator pays the debt and takes collateral at a discount."""

PartialStep = Literal["all", "share", "two_tiers", "steps", "close_factor"]
"""How much is closed at once: everything; ``partial_share`` of the position; as much as lowers it by two tiers; venue-chosen steps;
at most a close factor of the debt (:mod:`monitor.lending`)."""

AdlRanking = Literal["mark_over_entry_times_leverage", "profit_times_leverage", "random", "none"]
"""Who is closed against a bankrupt account: by (mark/entry) x leverage, by profit ratio x leverage, anybody; or there is no ADL."""


class MarginRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one venue; ``source`` is the section of venues.md they were read from."""

    venue: str
    source: str
    dies_at_zero: bool | None
    """Liquidated at a surplus of exactly zero (``<=``), or only below it (``<``)."""
    margin_price: Literal["mark", "oracle"] | None
    order_limit: OrderLimit | None
    partial_step: PartialStep | None
    partial_share: float | None = None
    """The share of the position that is closed at once, and the notional up to which all of it is."""
    partial_above_usd: float | None = None
    partial_most_usd: float | None = None
    """The most that is closed at once, whatever the share."""
    cooldown_s: float | None = None
    """Time after a partial liquidation in which forced orders are for the **whole** position (not a pause)."""
    backstop_below: float | None = None
    """The backstop takes the account when equity is below this share of maintenance."""
    liquidation_fee_rate: float | None = None
    """The most that the venue keeps, as a share of the closed notional; ``None`` also where it differs per asset."""
    closing_fee_in_maintenance: bool | None = None
    """Maintenance includes the estimated fee of closing, so the account dies a little earlier than its tiers say."""
    tiers_jump: bool | None = None
    """A tier's rate applies to the whole position, so maintenance jumps where a tier begins."""
    tier_measure: Literal["notional", "contracts"] | None = None
    """What tiers are bounded in. Contracts do not change with the price, and so neither does the tier."""
    adl_ranking: AdlRanking | None = None
    adl_price: Literal["previous_mark", "bankruptcy_price"] | None = None
    portfolio_level: float | None = None
    """Accounts in portfolio mode die when requirement over value exceeds this ..."""
    portfolio_floor_usd: float | None = None
    """... with this much added to the requirement of each token."""
    unverified: tuple[str, ...] = ()


HYPERLIQUID = MarginRules(
    venue="hyperliquid",
    source="1.9",
    dies_at_zero=False,
    margin_price="mark",
    order_limit="market",
    partial_step="share",
    partial_share=0.2,
    partial_above_usd=100_000.0,
    cooldown_s=30.0,
    backstop_below=2.0 / 3.0,
    liquidation_fee_rate=0.0,
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    tier_measure="notional",
    adl_ranking="mark_over_entry_times_leverage",
    adl_price="previous_mark",
    portfolio_level=0.95,
    portfolio_floor_usd=20.0,
    unverified=("adl_ranking",),
)

BINANCE = MarginRules(
    venue="binance",
    source="2.6",
    dies_at_zero=True,
    margin_price="mark",
    order_limit="bankruptcy_price",
    partial_step="steps",
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    tier_measure="notional",
    adl_ranking="profit_times_leverage",
    adl_price="bankruptcy_price",
    unverified=("order_limit", "partial_step", "adl_ranking", "adl_price"),
)

BYBIT = MarginRules(
    venue="bybit",
    source="3.4, 3.6",
    dies_at_zero=True,
    margin_price="mark",
    order_limit="bankruptcy_price",
    partial_step=None,
    closing_fee_in_maintenance=True,
    tiers_jump=False,
    tier_measure="notional",
)

OKX = MarginRules(
    venue="okx",
    source="4.4, 4.5",
    dies_at_zero=True,
    margin_price="mark",
    order_limit="bankruptcy_price",
    partial_step="two_tiers",
    closing_fee_in_maintenance=True,
    tiers_jump=True,
    tier_measure="contracts",
    unverified=("dies_at_zero", "order_limit", "partial_step", "closing_fee_in_maintenance", "tiers_jump"),
)

DYDX = MarginRules(
    venue="dydx",
    source="5.3",
    dies_at_zero=False,
    margin_price="oracle",
    order_limit="fillable_price",
    partial_step="share",
    partial_share=0.1,
    partial_above_usd=1_000.0,
    partial_most_usd=100_000.0,
    liquidation_fee_rate=0.015,
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    adl_ranking="random",
    adl_price="bankruptcy_price",
    unverified=("partial_share", "partial_above_usd", "partial_most_usd", "liquidation_fee_rate"),
)

DERIBIT = MarginRules(
    venue="deribit",
    source="6.1",
    dies_at_zero=None,
    margin_price=None,
    order_limit=None,
    partial_step="steps",
    liquidation_fee_rate=0.0075,
    unverified=("liquidation_fee_rate",),
)

BITMEX = MarginRules(
    venue="bitmex",
    source="6.2",
    dies_at_zero=None,
    margin_price="mark",
    order_limit=None,
    partial_step=None,
    unverified=("margin_price",),
)

AAVE = MarginRules(
    venue="aave",
    source="7.2",
    dies_at_zero=False,
    margin_price="oracle",
    order_limit="collateral_sale",
    partial_step="close_factor",
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    adl_ranking="none",
)

COMPOUND = MarginRules(
    venue="compound",
    source="7.3",
    dies_at_zero=False,
    margin_price="oracle",
    order_limit="collateral_sale",
    partial_step="all",
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    adl_ranking="none",
)

MORPHO = MarginRules(
    venue="morpho",
    source="7.4",
    dies_at_zero=False,
    margin_price="oracle",
    order_limit="collateral_sale",
    partial_step="all",
    closing_fee_in_maintenance=False,
    tiers_jump=False,
    adl_ranking="none",
)

RULES: dict[str, MarginRules] = {
    rules.venue: rules for rules in (HYPERLIQUID, BINANCE, BYBIT, OKX, DYDX, DERIBIT, BITMEX, AAVE, COMPOUND, MORPHO)
}


def rules_of(venue: str) -> MarginRules:
    """Return the rules of a venue by its name.

    A private venue, whose accounts an operator feeds in himself, gets rules under which nothing is assumed: an account is
    liquidatable at a surplus of zero, which is the earlier of the two, and all else is ``None``.
    """
    known = RULES.get(venue)
    if known is not None:
        return known
    unknown = ("dies_at_zero", "margin_price", "order_limit", "partial_step")
    return MarginRules(venue=venue, source="", **dict.fromkeys(unknown), unverified=("dies_at_zero",))


def is_liquidatable(surplus_usd: Array, rules: MarginRules) -> NDArray[np.bool_]:
    """Tell which accounts may be liquidated; where the rule is not known, zero counts as too little.

    Meant for accounts that have something to liquidate. An unknown surplus (NaN) gives False, as there is nothing to act on.
    """
    return surplus_usd < 0.0 if rules.dies_at_zero is False else surplus_usd <= 0.0


def is_portfolio_liquidatable(requirement_usd: Array, value_usd: Array, rules: MarginRules) -> NDArray[np.bool_]:
    """Tell which accounts in portfolio mode may be liquidated: requirement over value above the level, compared without dividing.

    Args:
        requirement_usd: portfolio margin requirement, **without** the floor that the rules add.
        value_usd: portfolio liquidation value; without any, every account that has a requirement is liquidatable.
        rules: of a venue that has a portfolio level.

    Raises:
        ValueError: if the venue has no portfolio level.
    """
    if rules.portfolio_level is None:
        raise ValueError(f"{rules.venue}: there is no portfolio margin level")
    required = requirement_usd + (rules.portfolio_floor_usd or 0.0)
    return (requirement_usd > 0.0) & (required > rules.portfolio_level * value_usd)


def margin_usage_ratio(maintenance_usd: Numbers, equity_usd: Numbers) -> Array:
    """Return maintenance over equity, for display only: 1 is liquidation, 0 no positions, ``inf`` no equity left."""
    maintenance, equity = np.asarray(maintenance_usd, dtype=float), np.asarray(equity_usd, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(equity > 0.0, maintenance / equity, np.inf)
    unknown = np.isnan(maintenance) | np.isnan(equity)
    return np.where(unknown, np.nan, np.where((maintenance == 0.0) & (equity >= 0.0), 0.0, ratio))


def maintenance_cover_ratio(maintenance_usd: Numbers, equity_usd: Numbers) -> Array:
    """Return equity over maintenance, the way OKX shows it: 1 is liquidation, ``inf`` without positions. For display only."""
    maintenance, equity = np.asarray(maintenance_usd, dtype=float), np.asarray(equity_usd, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = equity / maintenance
    return np.where(maintenance == 0.0, np.where(np.isnan(equity), np.nan, np.inf), ratio)


def is_taken_by_backstop(equity_usd: Array, maintenance_usd: Array, rules: MarginRules) -> NDArray[np.bool_]:
    """Tell which accounts the backstop takes over; none where the venue has no such threshold."""
    if rules.backstop_below is None:
        return np.zeros(equity_usd.shape, dtype=np.bool_)
    return equity_usd < rules.backstop_below * maintenance_usd


def hyperliquid_order_size(size: Array, price: Array, in_cooldown: NDArray[np.bool_]) -> Array:
    """Return the size of Hyperliquid's next forced order, signed as the position (venues.md 1.9).

    20 % of a position above 100,000 USDC; all of a smaller one; all of any position within 30 s of a partial liquidation.
    """
    share, above = HYPERLIQUID.partial_share, HYPERLIQUID.partial_above_usd
    assert share is not None
    assert above is not None
    # Unknown prices must not pass for small positions.
    notional = np.abs(size) * price
    partial = np.where(notional > above, share * size, size)
    return np.where(in_cooldown, size, np.where(np.isnan(notional), np.nan, partial))


def dydx_order_size(size: Array, price: Array) -> Array:
    """Return the most that dYdX closes of a position in one block, signed as the position (venues.md 5.3, genesis values).

    10 % of it, but not less than 1,000 nor more than 100,000 USDC, and never more than there is.
    """
    share, least, most = DYDX.partial_share, DYDX.partial_above_usd, DYDX.partial_most_usd
    assert share is not None
    assert least is not None
    notional = np.abs(size) * price
    with np.errstate(invalid="ignore", divide="ignore"):
        closed = np.minimum(np.clip(share * notional, least, most), notional) / notional
    return np.where(size == 0.0, 0.0, size * closed)


def hyperliquid_adl_score(mark_price: Array, entry_price: Array, notional_usd: Array, account_value_usd: Array) -> Array:
    """Return the rank of winners for automatic deleveraging, highest first, by the words of the documentation (venues.md 1.9).

    ``(mark / entry) * (notional / account value)``. Taken literally this ranks *losing* shorts first; a third party has found a
    different score in use, so the order among shorts is not to be relied on.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        score = mark_price / entry_price * (notional_usd / account_value_usd)
    return np.where((entry_price > 0.0) & (account_value_usd > 0.0), score, np.nan)


def dydx_fillable_price(
    price: Array,
    size: Array,
    maintenance_rate: Array,
    equity_usd: Array,
    maintenance_usd: Array,
    *,
    bankruptcy_adjustment: float = 1.0,
    spread_to_maintenance: float = 1.5,
) -> Array:
    """Return the limit of dYdX's forced orders, ``p (1 - sign(size) rating spread rate)``: below the price for longs.

    The code's form, which turns round for shorts (venues.md 5.3). The bankruptcy rating is ``adjustment (1 - equity /
    maintenance)``, between 0 and 1; both are of the whole subaccount. The defaults are those of genesis, which governance may have
    changed.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rating = np.clip(bankruptcy_adjustment * (1.0 - equity_usd / maintenance_usd), 0.0, 1.0)
    limit: Array = price * (1.0 - np.sign(size) * rating * spread_to_maintenance * maintenance_rate)
    return limit
