"""An account table with three markets and short ways to tell it what sources tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from connectors.events import AccountBalances, AccountDelta, AccountMode, AccountSnapshot, HoldingReport, MarginTier, PositionReport
from monitor.margin import build_tier_table
from monitor.state.account_changes import AccountChanges
from monitor.state.accounts import AccountCounts, AccountTable
from monitor.state.fills import Fill
from tests.monitor.state.walks import Terms

NS = 1_000_000_000
AGE_MAX_NS = 600 * NS
VENUE = "hyperliquid"
FEED = "desk"

SYMBOLS = ("BTC", "ETH", "xyz:TSLA", "BTCUSD", "WETH")
TERMS = [
    Terms(tiers=(MarginTier(0.0, 0.0125, 0.0),)),
    Terms(tiers=(MarginTier(0.0, 0.02, 0.0),)),
    Terms(tiers=(MarginTier(0.0, 0.05, 0.0),)),
    Terms("inverse", (MarginTier(0.0, 0.01, 0.0),)),
    Terms("asset", (), 0.8),
]
PRICES = [100.0, 50.0, 20.0, 100.0, 10.0]


def ns(at_s: float) -> int:
    return round(at_s * 1e3) * 1_000_000


def position(size: float, symbol: str = "BTC", **more: Any) -> PositionReport:
    fields: dict[str, Any] = {"entry_price": None, "isolated_cash_usd": None, "liquidation_price": None, "leverage": None, **more}
    return PositionReport(symbol, size, **fields)


class Desk:
    """The table, and what is told to it; times are in seconds, and everything arrives when it happens unless it says otherwise."""

    def __init__(self, accounts_max: int = 100, dexes: Mapping[str, tuple[str, ...]] = MappingProxyType({})) -> None:
        self.table = AccountTable(accounts_max)
        self.pools = [symbol.partition(":")[0] if ":" in symbol else "" for symbol in SYMBOLS]
        self.changes = AccountChanges(self.table, self.pools, dexes)
        self.set_terms(TERMS)
        self.prices = list(PRICES)
        for market, price in enumerate(PRICES):
            self.tick(market, price)
        self.table.legs.sweep()

    def set_terms(self, terms: list[Terms]) -> None:
        self.terms = terms
        ratios = {(market, 0): item.ratio for market, item in enumerate(terms) if item.ratio is not None}
        tiers = build_tier_table([item.tiers for item in terms], [item.contract for item in terms])
        self.table.legs.set_terms(tiers, ratios, self.table.categories)

    def tick(self, market: int, price: float) -> None:
        self.prices[market] = price
        self.table.legs.set_price(market, price)

    def state(self, account: str, cash: float, *positions: PositionReport, at_s: float = 100.0, **more: Any) -> bool:
        """A snapshot; ``received_s`` is when it arrives, ``holdings`` are (symbol, quantity)."""
        received_s = more.pop("received_s", at_s)
        holdings = tuple(HoldingReport(*item) for item in more.pop("holdings", ()))
        event = AccountSnapshot(
            venue=VENUE,
            connection=more.pop("connection", "rest"),
            received_ns=ns(received_s),
            account=account,
            exchange_ns=ns(at_s),
            cross_cash_usd=cash,
            positions=positions,
            holdings=holdings,
            **more,
        )
        return self.changes.apply_snapshot(event, *self._indices(event))

    def known(self, account: str, cash: float, *positions: PositionReport, at_s: float = 100.0, **more: Any) -> None:
        """A snapshot and a mode after it."""
        self.state(account, cash, *positions, at_s=at_s, **more)
        self.mode(account, "standard", at_s=at_s)

    def mode(self, account: str, mode: AccountMode, at_s: float = 100.0) -> None:
        self.table.set_mode(VENUE, account, mode, ns(at_s))

    def fed(self, account: str, sequence: int, cash: float, *positions: PositionReport, at_s: float = 100.0, **more: Any) -> bool:
        """A snapshot from a private feed."""
        more = {"connection": FEED, "mode": "standard", **more}
        return self.state(account, cash, *positions, at_s=at_s, sequence=sequence, **more)

    def delta(
        self, account: str, sequence: int, *positions: PositionReport, cash: float | None = None, at_s: float = 101.0, **more: Any
    ) -> bool:
        event = AccountDelta(
            venue=VENUE,
            connection=more.pop("connection", FEED),
            received_ns=ns(at_s),
            account=account,
            exchange_ns=ns(at_s),
            sequence=sequence,
            cross_cash_usd=cash,
            positions=positions,
            holdings=tuple(HoldingReport(*item) for item in more.pop("holdings", ())),
        )
        return self.changes.apply_delta(event, *self._indices(event))

    def balances(self, account: str, at_s: float, **tokens: float) -> None:
        held = tuple(HoldingReport(symbol, quantity) for symbol, quantity in tokens.items())
        self.changes.apply_balances(
            AccountBalances(venue=VENUE, connection="rest", received_ns=ns(at_s), account=account, balances=held)
        )

    def fill(self, account: str, size: float, price: float, at_s: float, market: int = 0, **more: Any) -> None:
        received_s = more.pop("received_s", at_s)
        self.changes.apply_fill(VENUE, account, Fill(ns(at_s), market, size, price, **more), ns(received_s))

    def _indices(self, event: AccountSnapshot | AccountDelta) -> tuple[list[int], list[int]]:
        return [SYMBOLS.index(one.symbol) for one in event.positions], [SYMBOLS.index(one.symbol) for one in event.holdings]

    def row(self, account: str) -> int:
        row = self.table.row_of(VENUE, account, create=False)
        assert row is not None, f"{account} is not in the table"
        return row

    def surplus(self, account: str, *, now_s: float = 110.0, pool: str = "") -> float:
        """Return the surplus of an account as a projection would use it: NaN if it is not live."""
        if self.table.legs.outdated:
            self.table.legs.sweep()
        row = self.table.cross_row(self.row(account), pool, create=False)
        if row is None or not self.table.is_live(np.array([row]), ns(now_s), AGE_MAX_NS)[0]:
            return math.nan
        return float(self.table.legs.surplus_usd[row])

    def sizes(self, account: str) -> dict[str, list[float]]:
        """Return the sizes that are held by symbol, isolated ones included."""
        held: dict[str, list[float]] = {}
        for row in self.table.rows_of_account(self.row(account)):
            for market, slot in self.table.legs.legs_of(row):
                held.setdefault(SYMBOLS[market], []).append(float(self.table.legs.column(market).size[slot]))
        return {symbol: sorted(sizes) for symbol, sizes in held.items()}

    def counts(self, now_s: float = 101.0) -> AccountCounts:
        return self.table.counts(VENUE, ns(now_s), AGE_MAX_NS)
