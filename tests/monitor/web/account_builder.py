"""A book of made-up accounts whose every figure follows from its positions, for tests of what lists and shows them.

Equity is cash plus size times price over the legs, maintenance a rate of the notional; liquidation prices and distances are solved
from these in plain loops, so that the numbers on the page can be checked against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from monitor.account_report import (
    AccountAtRisk,
    AccountQuery,
    AccountReport,
    AccountsAtRisk,
    AccountState,
    Disagreement,
    Disagreements,
    LegReport,
    MarginReport,
)

RATE = 0.0125
PRICES = {"BTC": 65_000.0, "ETH": 3_200.0, "xyz:TSLA": 251.0}


@dataclass
class Margin:
    """One margin account: cash and signed positions."""

    kind: str
    cash: float
    legs: dict[str, float]

    def equity(self, prices: dict[str, float], move: float = 0.0) -> float:
        return self.cash + sum(size * prices[symbol] * (1 + move) for symbol, size in self.legs.items())

    def notional(self, prices: dict[str, float]) -> float:
        return sum(abs(size) * prices[symbol] for symbol, size in self.legs.items())

    def surplus(self, prices: dict[str, float]) -> float:
        return self.equity(prices) - RATE * self.notional(prices)

    def distance(self, prices: dict[str, float], level: float = 1.0) -> float | None:
        surplus = self.equity(prices) - level * RATE * self.notional(prices)
        slope = sum((size - level * RATE * abs(size)) * prices[symbol] for symbol, size in self.legs.items())
        move = -surplus / slope if slope else float("nan")
        return move if move > -1 else None

    def leg_price(self, symbol: str, prices: dict[str, float], rate: float = RATE) -> float | None:
        surplus = self.equity(prices) - rate * self.notional(prices)
        slope = self.legs[symbol] - rate * abs(self.legs[symbol])
        price = prices[symbol] - surplus / slope
        return price if price > 0 else None


@dataclass
class Account:
    """One account of the book."""

    name: str
    margins: list[Margin]
    state: AccountState = "live"
    reasons: tuple[str, ...] = ()
    age_s: float = 12.0
    venue: str = "hyperliquid"
    simulated: bool = False


@dataclass
class Book:
    """An ``AccountSource`` over a list of accounts; ``asked`` counts the calls of each method."""

    accounts: list[Account]
    prices: dict[str, float] = field(default_factory=lambda: dict(PRICES))
    asked: list[str] = field(default_factory=list)

    def at_risk(self, query: AccountQuery, now_ns: int) -> AccountsAtRisk:
        self.asked.append("at_risk")
        chosen = [
            (account, margin)
            for account in self.accounts
            for margin in account.margins
            if query.venue in {None, account.venue} and (query.symbol is None or query.symbol in margin.legs)
        ]
        rows = [self._row(account, margin, query.move_ratio) for account, margin in chosen if account.state == "live"]
        order = {
            "distance": lambda row: abs(row.distance_ratio) if row.distance_ratio is not None else float("inf"),
            "notional": lambda row: -row.notional_usd,
            "bad_debt": lambda row: -row.bad_debt_usd,
        }[query.order]
        return AccountsAtRisk(
            as_of_ns=now_ns,
            move_ratio=query.move_ratio,
            live=len(rows),
            unknown=len({account.name for account, _ in chosen if account.state != "live"}),
            bad_debt_usd=sum(row.bad_debt_usd for row in rows),
            accounts=tuple(sorted(rows, key=order)[: query.limit]),
        )

    def account(self, venue: str, account: str, now_ns: int) -> AccountReport | None:
        self.asked.append(f"account {account}")
        found = next((known for known in self.accounts if (known.venue, known.name) == (venue, account)), None)
        if found is None:
            return None
        return AccountReport(
            as_of_ns=now_ns,
            venue=venue,
            account=account,
            state=found.state,
            reasons=found.reasons,
            mode="standard" if found.state != "unknown" else "unified",
            age_s=found.age_s,
            sequence=None,
            simulated=found.simulated,
            margins=tuple(self._margin(margin, known=found.state != "unknown") for margin in found.margins),
        )

    def disagreements(self, now_ns: int, limit: int) -> Disagreements:
        self.asked.append("disagreements")
        worst = tuple(
            Disagreement(
                account.venue, account.name, "liquidation_price", "BTC", 60_000.0 + index, 60_000.0, index / 60_000.0, now_ns
            )
            for index, account in enumerate(self.accounts[:limit])
        )
        return Disagreements(as_of_ns=now_ns, worst=worst[::-1])

    def _row(self, account: Account, margin: Margin, move: float) -> AccountAtRisk:
        near = [
            (abs(price / self.prices[symbol] - 1), symbol, price)
            for symbol in margin.legs
            if (price := margin.leg_price(symbol, self.prices)) is not None
        ]
        _, symbol, price = min(near) if near else (None, None, None)
        notional, equity = margin.notional(self.prices), margin.equity(self.prices)
        return AccountAtRisk(
            venue=account.venue,
            account=account.name,
            kind="isolated" if margin.kind == "isolated" else "cross",
            pool="",
            notional_usd=notional,
            equity_usd=equity,
            maintenance_usd=RATE * notional,
            margin_usage_ratio=RATE * notional / equity if equity > 0 else None,
            distance_ratio=margin.distance(self.prices),
            bad_debt_usd=max(0.0, -margin.equity(self.prices, move)),
            symbol=symbol,
            liquidation_price=price,
            leg_distance_ratio=price / self.prices[symbol] - 1 if symbol is not None and price is not None else None,
            legs=len(margin.legs),
            age_s=account.age_s,
        )

    def _margin(self, margin: Margin, *, known: bool) -> MarginReport:
        notional, equity = margin.notional(self.prices), margin.equity(self.prices)
        report = MarginReport(
            kind="isolated" if margin.kind == "isolated" else "cross",
            pool="",
            cash_usd=margin.cash,
            equity_usd=equity,
            maintenance_usd=RATE * notional,
            surplus_usd=equity - RATE * notional,
            margin_usage_ratio=RATE * notional / equity if equity > 0 else None,
            distance_ratio=margin.distance(self.prices),
            margin_call_distance_ratio=margin.distance(self.prices, 1.25),
            legs=tuple(self._leg(margin, symbol, size, known=known) for symbol, size in margin.legs.items()),
        )
        if known:
            return report
        figures = [name for name in report.__struct_fields__ if name.endswith(("_usd", "_ratio"))]
        return msgspec.structs.replace(report, **dict.fromkeys(figures))

    def _leg(self, margin: Margin, symbol: str, size: float, *, known: bool) -> LegReport:
        price = self.prices[symbol]
        liquidation = margin.leg_price(symbol, self.prices)
        theirs = liquidation * 1.0002 if liquidation is not None and symbol == "BTC" else None
        return LegReport(
            symbol=symbol,
            contract="linear",
            size=size,
            entry_price=price * 0.98,
            price=price,
            notional_usd=abs(size) * price,
            unrealized_usd=size * price * 0.02,
            maintenance_usd=RATE * abs(size) * price,
            liquidation_price=liquidation if known else None,
            distance_ratio=liquidation / price - 1 if known and liquidation is not None else None,
            bankruptcy_price=margin.leg_price(symbol, self.prices, 0.0) if known else None,
            venue_liquidation_price=theirs,
            disagreement_ratio=liquidation / theirs - 1 if known and theirs is not None and liquidation is not None else None,
        )


def address(number: int) -> str:
    """Return the address of an account of the book."""
    return f"0x{number * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276B & (1 << 160) - 1:040x}"


def book(count: int = 120, seed: int = 7, *, simulated: bool = False) -> Book:
    """Return a book in which some accounts are stale and some unknown; the first has two legs and an isolated position."""
    random = np.random.default_rng(seed)
    accounts = []
    for number in range(1, count + 1):
        leverage = float(random.uniform(3, 35))
        symbols = [name for name in PRICES if random.random() < 0.5] or ["BTC"]
        usd = float(random.lognormal(12.0, 1.6))
        legs = {name: float(random.choice([-1, 1])) * usd / PRICES[name] for name in symbols}
        if number == 1:
            legs = {"BTC": 40.0, "ETH": -150.0}
        gross = sum(abs(size) * PRICES[name] for name, size in legs.items())
        cash = gross / leverage - sum(size * PRICES[name] for name, size in legs.items())
        margins = [Margin("cross", cash, legs)]
        if number % 9 == 1:
            margins.append(Margin("isolated", -5.0 * PRICES["ETH"] * 0.9, {"ETH": 5.0}))
        accounts.append(Account(address(number), margins, age_s=float(random.uniform(0.3, 400)), simulated=simulated))
    accounts[1].state, accounts[1].reasons = "stale", (f"fills of {accounts[1].name} were missed while the feed was down",)
    accounts[2].state, accounts[2].reasons = "unknown", ("unified mode, and its spot balance is not known",)
    return Book(accounts)
