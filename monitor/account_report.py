"""What is told of accounts: one account in full, and the list of those at risk. Plain values, made on request by the core.

Distances are signed relative moves: -0.03 is a fall of 3 %. ``None`` is unknown or does not exist, and the field says which.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from connectors.events import AccountMode, Contract
from monitor.projection import DisagreementFigure

AccountState = Literal["live", "stale", "unknown"]
"""Live: the numbers hold now. Stale: they held once, and are given as of then. Unknown: there are none."""

AtRiskOrder = Literal["distance", "notional", "bad_debt"]


class LegReport(msgspec.Struct, frozen=True):
    """One position or holding of an account.

    ``liquidation_price`` is the price of this market, all others held, at which the margin account is liquidated, ``None`` if there
    is no such price; ``bankruptcy_price`` the one at which its equity is zero. ``disagreement_ratio`` is ours over the venue's own
    liquidation price minus one, ``None`` where the venue gave none that still holds.
    """

    symbol: str
    contract: Contract
    size: float
    """Signed; base units, USD for inverse contracts, units of the asset for holdings."""
    entry_price: float | None
    price: float | None
    """The mark or oracle price that margin is computed at, ``None`` while it is not known."""
    notional_usd: float | None
    unrealized_usd: float | None
    maintenance_usd: float | None
    liquidation_price: float | None
    distance_ratio: float | None
    bankruptcy_price: float | None
    venue_liquidation_price: float | None
    disagreement_ratio: float | None


class MarginReport(msgspec.Struct, frozen=True):
    """One margin account: the cross positions of a pool, or one isolated position.

    ``distance_ratio`` is the common move of all its prices that liquidates it, ``margin_call_distance_ratio`` the one that brings
    the surplus down to the configured level above liquidation. ``margin_usage_ratio`` is what of the equity is not
    free (maintenance and haircuts) over the equity.
    """

    kind: Literal["cross", "isolated"]
    pool: str
    cash_usd: float | None
    equity_usd: float | None
    maintenance_usd: float | None
    surplus_usd: float | None
    margin_usage_ratio: float | None
    distance_ratio: float | None
    margin_call_distance_ratio: float | None
    legs: tuple[LegReport, ...]


class AccountReport(msgspec.Struct, frozen=True):
    """One account in full; ``reasons`` says why it is not live."""

    as_of_ns: int
    venue: str
    account: str
    state: AccountState
    reasons: tuple[str, ...]
    mode: AccountMode | None
    age_s: float | None
    """Time since the venue's last word on it, fills aside."""
    sequence: int | None
    simulated: bool
    margins: tuple[MarginReport, ...]


class AccountAtRisk(msgspec.Struct, frozen=True):
    """One margin account of the list.

    ``symbol`` and ``liquidation_price`` are of the leg whose own liquidation price is nearest. ``bad_debt_usd`` is what the account
    would owe if all prices gapped by the move that was asked for, nothing being closed on the way.
    """

    venue: str
    account: str
    kind: Literal["cross", "isolated"]
    pool: str
    notional_usd: float
    equity_usd: float
    maintenance_usd: float
    margin_usage_ratio: float | None
    distance_ratio: float | None
    bad_debt_usd: float
    symbol: str | None
    liquidation_price: float | None
    leg_distance_ratio: float | None
    legs: int
    age_s: float | None


class AccountQuery(msgspec.Struct, frozen=True):
    """Which accounts, in which order: the nearest, the largest, or the deepest under water after ``move_ratio`` first."""

    venue: str | None = None
    symbol: str | None = None
    order: AtRiskOrder = "distance"
    move_ratio: float = -0.1
    limit: int = 50


class AccountsAtRisk(msgspec.Struct, frozen=True):
    """The list. ``live`` margin accounts were looked at; ``unknown`` accounts with positions are not in it."""

    as_of_ns: int
    move_ratio: float
    live: int
    unknown: int
    bad_debt_usd: float
    """Sum over all live margin accounts that were looked at, not only those listed."""
    accounts: tuple[AccountAtRisk, ...]


class Disagreement(msgspec.Struct, frozen=True):
    """One figure of the venue that ours does not match; ``difference_ratio`` is ours over theirs minus one."""

    venue: str
    account: str
    figure: DisagreementFigure
    symbol: str | None
    ours: float
    theirs: float
    difference_ratio: float
    compared_ns: int


class Disagreements(msgspec.Struct, frozen=True):
    """The worst recent disagreements, largest first."""

    as_of_ns: int
    worst: tuple[Disagreement, ...]
