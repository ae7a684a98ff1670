"""Who is on the exchange when it opens.

Ordinary accounts have heavy-tailed notionals and lognormal leverage; makers hold the other side of what they do not hold among
themselves, so that the signed sizes of every market add up to 0 from the start.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

from connectors.simulated.accounts import AccountTable
from connectors.simulated.draws import Draws, Floats
from connectors.simulated.markets import MICROS_PER_USD, Market

LEVERAGE_MEDIAN: Final = 8.0
LEVERAGE_SIGMA: Final = 0.75
"""One account in a hundred wants more than 45x; the venue's limits cap it."""

LEVERAGE_MIN: Final = 1.05
LIMIT_SHARE: Final = 0.9
"""Nobody opens closer to the limit than this, so that nobody is liquidated by the first tick."""

MARGIN_CUSHION: Final = 1.2
"""Accounts start with at least this multiple of their maintenance."""

NOTIONAL_EXPONENT: Final = 1.2
NOTIONAL_LARGEST: Final = 0.12
"""The largest position is at most this share of a market's open interest."""

MARKETS_HELD_WEIGHTS: Final = (0.6, 0.25, 0.1, 0.05)
SAME_DIRECTION: Final = 0.7
MAKER_EQUITY_USD: Final = 150_000_000
HEDGED_EQUITY_USD: Final = 400_000_000
HEDGED_SHARES: Final = (0.4, 0.1)
"""What arbitrageur and outside seller hold at the start, as shares of the open interest: they are long here and short elsewhere, so
that selling out in a crash lowers the open interest, as crashes do."""
VAULT_EQUITY_USD: Final = 400_000_000
LEVERAGE_SETTINGS: Final = (1, 2, 3, 5, 10, 15, 20, 25, 40)


class PopulationConfig(msgspec.Struct, frozen=True):
    """How many of which kind; shares are fractions."""

    accounts: int = 400
    makers: int = 5
    isolated_share: float = 0.05
    """Of the notional."""
    unified_share: float = 0.05
    """Of the accounts."""
    markets_per_account_max: int = 4


HUNDRED_THOUSAND: Final = PopulationConfig(accounts=100_000, isolated_share=0.25, unified_share=0.2)
"""Many of every kind: of 160,000 positions 40,000 are isolated and 800 above the 100,000 USD that are closed in parts. A crash
closes out 23,000 accounts, 7 s of computing for 225 s of blocks."""


class Population(msgspec.Struct, frozen=True):
    """The account table and who plays which role, by row."""

    table: AccountTable
    ordinary: range
    makers: range
    arbitrageur: int
    seller: int
    vault: int


def build_population(markets: tuple[Market, ...], config: PopulationConfig, draws: Draws) -> Population:
    """Draw all accounts with their positions and cash at the markets' initial prices."""
    total = config.accounts + config.makers + 3
    table = AccountTable(markets, ["0x" + draws.hex_digits(40) for _ in range(total)])
    ordinary = range(config.accounts)
    makers = range(config.accounts, config.accounts + config.makers)
    arbitrageur, seller, vault = total - 3, total - 2, total - 1
    prices = [market.price(market.initial_price_usd) for market in markets]
    _draw_positions(table, prices, config, draws)
    for row, share in zip((arbitrageur, seller), HEDGED_SHARES, strict=True):
        for column, market in enumerate(markets):
            table.lots[row, column] = market.lots_for(share * market.open_interest_usd, prices[column])
    _balance(table, makers)
    _draw_entries(table, prices, draws)
    _choose_isolated(table, prices, config, draws)
    _fund(table, ordinary, prices, draws)
    _choose_unified(table, ordinary, prices, config.unified_share, draws)
    for row in makers:
        _set_equity(table, row, MAKER_EQUITY_USD * MICROS_PER_USD, prices)
    for row in (arbitrageur, seller):
        _set_equity(table, row, HEDGED_EQUITY_USD * MICROS_PER_USD, prices)
    _set_equity(table, vault, VAULT_EQUITY_USD * MICROS_PER_USD, prices)
    return Population(table=table, ordinary=ordinary, makers=makers, arbitrageur=arbitrageur, seller=seller, vault=vault)


def _draw_positions(table: AccountTable, prices: list[int], config: PopulationConfig, draws: Draws) -> None:
    """Draw who is long or short of what, and scale each side of each market to its open interest."""
    width = min(config.markets_per_account_max, len(table.markets))
    popularity = [market.open_interest_usd**0.5 for market in table.markets]
    weights = np.zeros((config.accounts, len(table.markets)))
    sizes = draws.paretos(config.accounts, NOTIONAL_EXPONENT)
    for row in range(config.accounts):
        held = 1 + draws.weighted_index(MARKETS_HELD_WEIGHTS[:width])
        direction = 1.0 if draws.uniform() < 0.5 else -1.0
        chosen: list[int] = []
        while len(chosen) < held:
            market = draws.weighted_index(popularity)
            if market not in chosen:
                chosen.append(market)
        for place, market in enumerate(chosen):
            same = place == 0 or draws.uniform() < SAME_DIRECTION
            weights[row, market] = sizes[row] * draws.uniform(0.3, 1.0) * (direction if same else -direction)
    for column, spec in enumerate(table.markets):
        for side in (1.0, -1.0):
            rows = np.flatnonzero(weights[:, column] * side > 0)
            if rows.size == 0:
                continue
            shares = _capped_shares(np.abs(weights[rows, column]))
            for row, share in zip(rows.tolist(), shares.tolist(), strict=True):
                lots = spec.lots_for(share * spec.open_interest_usd, prices[column])
                table.lots[row, column] = lots if side > 0 else -lots


def _capped_shares(weights: Floats) -> Floats:
    """Return shares that add up to 1, none above the cap unless there are too few to share out."""
    cap = max(NOTIONAL_LARGEST, 1.5 / weights.size)
    shares: Floats = weights / weights.sum()
    for _ in range(weights.size):
        shares = np.minimum(shares, cap)
        shares = shares / shares.sum()
        if shares.max() <= cap * 1.001:
            break
    return shares


def _balance(table: AccountTable, makers: range) -> None:
    """Give the makers the opposite of everyone's sum."""
    for column in range(len(table.markets)):
        rest = -int(table.lots[:, column].sum())
        for place, row in enumerate(makers):
            part = rest // (len(makers) - place)
            table.lots[row, column] = part
            rest -= part
        assert int(table.lots[:, column].sum()) == 0, "every position has a counterparty"


def _draw_entries(table: AccountTable, prices: list[int], draws: Draws) -> None:
    """Let positions have been opened at prices of the recent past."""
    for column, price in enumerate(prices):
        entries = np.maximum(1, np.rint(price * np.exp(0.03 * draws.normals(len(table))))).astype(np.int64)
        table.cost[:, column] = table.lots[:, column] * entries


def _choose_isolated(table: AccountTable, prices: list[int], config: PopulationConfig, draws: Draws) -> None:
    """Make ordinary positions isolated until their share of the notional is reached; large ones are passed over."""
    notional = np.abs(table.lots[: config.accounts] * np.asarray(prices, np.int64))
    wanted = config.isolated_share * float(notional.sum())
    reached = 0.0
    for row in draws.order(config.accounts):
        if reached >= wanted:
            break
        for column in np.flatnonzero(notional[row]).tolist():
            if reached + notional[row, column] <= wanted * 1.02:
                table.isolated[row, column] = True
                reached += float(notional[row, column])


def _fund(table: AccountTable, ordinary: range, prices: list[int], draws: Draws) -> None:
    """Give every ordinary account the cash that its leverage leaves it, and set its leverage switch."""
    leverages = draws.lognormals(len(ordinary), LEVERAGE_MEDIAN, LEVERAGE_SIGMA)
    for row in ordinary:
        wanted = float(leverages[row])
        cross_equity = 0.0
        for column, lots in table.positions(row):
            spec = table.markets[column]
            notional_usd = abs(lots * prices[column]) / MICROS_PER_USD
            limit = spec.max_leverage_at(notional_usd)
            leverage = min(max(wanted, LEVERAGE_MIN), LIMIT_SHARE * limit)
            table.leverage[row, column] = min([s for s in LEVERAGE_SETTINGS if s >= leverage] + [limit])
            equity = max(notional_usd / leverage, MARGIN_CUSHION * spec.maintenance_usd(notional_usd))
            if table.isolated[row, column]:
                table.isolated_raw[row, column] = math.ceil(equity * MICROS_PER_USD) - lots * prices[column]
            else:
                cross_equity += equity
        spare = draws.uniform(20.0, 2_000.0) if cross_equity == 0.0 else 0.0
        _set_equity(table, row, math.ceil((cross_equity + spare) * MICROS_PER_USD), prices)


def _set_equity(table: AccountTable, row: int, equity: int, prices: list[int]) -> None:
    """Choose the cash such that the cross account value is ``equity`` micro-USD."""
    table.raw[row] = 0
    table.raw[row] = equity - table.cross_value(row, prices)


def _choose_unified(table: AccountTable, ordinary: range, prices: list[int], share: float, draws: Draws) -> None:
    """Move the collateral of some accounts to their spot balance, which leaves their published account value without meaning."""
    for row in draws.order(len(ordinary))[: round(share * len(ordinary))]:
        collateral = round(table.cross_value(row, prices) * draws.uniform(0.9, 1.0))
        table.unified[row] = True
        table.collateral[row] = collateral
        table.raw[row] -= collateral
