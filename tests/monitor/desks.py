"""A private desk with markets of every kind, told to an engine, and the slow reference that its accounts are reckoned with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from connectors.events import (
    AccountDelta,
    AccountSnapshot,
    Gap,
    HoldingReport,
    Instrument,
    Instruments,
    MarginTier,
    MarkPrice,
    PositionReport,
)
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.settings import ProjectionSettings, StalenessSettings
from tests.monitor import scalar_margin as scalar
from tests.monitor.scalar_margin import Leg, Tier
from tests.monitor.world import ns

FEED = "house"
DESK = "desk"

TIERS: dict[str, tuple[Tier, ...]] = {
    "BTC-PERP": ((0.0, 0.01, 0.0), (200_000.0, 0.02, 2_000.0), (1_000_000.0, 0.05, 32_000.0)),
    "ETH-PERP": ((0.0, 0.02, 0.0),),
    "BTC-USD": ((0.0, 0.005, 0.0), (5.0, 0.01, 0.025), (50.0, 0.025, 0.775)),
}
RATIOS = {"WETH": 0.83, "USDC": 0.95}
SYMBOLS = (*TIERS, *RATIOS)
COLUMNS = {symbol: column for column, symbol in enumerate(SYMBOLS)}
PRICES = {"BTC-PERP": 60_000.0, "ETH-PERP": 3_000.0, "BTC-USD": 60_100.0, "WETH": 3_010.0, "USDC": 1.0}


@dataclass(frozen=True)
class Held:
    """One position or holding as the desk tells it."""

    symbol: str
    size: float
    entry: float | None = None
    side: Literal["net", "long", "short"] = "net"
    venue_price: float | None = None
    is_coin: bool = False
    """The coin of an inverse contract, held under the name of its market."""

    @property
    def is_holding(self) -> bool:
        """Whether it is told as a holding."""
        return self.is_coin or self.symbol in RATIOS

    def leg(self) -> Leg:
        """Return it as the reference takes it."""
        contract: Any = "asset" if self.is_holding else "inverse" if self.symbol == "BTC-USD" else "linear"
        entry = float("nan") if self.entry is None else self.entry
        ratio = RATIOS.get(self.symbol, 1.0)
        return Leg(contract, self.size, TIERS.get(self.symbol, ()), entry, ratio, COLUMNS[self.symbol])


@dataclass(frozen=True)
class Margin:
    """A margin account in the words of the reference."""

    cash: float
    held: tuple[Held, ...]
    prices: dict[str, float] = field(default_factory=lambda: dict(PRICES))

    @property
    def legs(self) -> list[Leg]:
        """The legs as the reference takes them."""
        return [item.leg() for item in self.held]

    def _price(self, leg: Leg) -> float:
        return self.prices[SYMBOLS[leg.column]]

    def equity(self, move: float = 0.0) -> float:
        """Equity after all prices have moved together."""
        return self.cash + sum(scalar.equity(leg, self._price(leg) * (1.0 + move)) for leg in self.legs)

    def maintenance(self) -> float:
        """Maintenance at the present prices."""
        return sum(scalar.maintenance(leg, self._price(leg)) for leg in self.legs)

    def surplus(self, level: float = 0.0) -> float:
        """What is left above maintenance."""
        return scalar.surplus(self.legs, self.cash, self._price, level)

    def gross(self) -> float:
        """The size of the numbers that all others are made of."""
        return scalar.gross(self.legs, self.cash, self._price)

    def notional(self) -> float:
        """Size of all positions and debts in USD."""
        total = 0.0
        for leg in self.legs:
            if leg.contract == "inverse":
                total += abs(leg.size)
            elif leg.contract == "linear" or leg.size < 0.0:
                total += abs(leg.size) * self._price(leg)
        return total

    def distance(self, level: float = 0.0) -> float | None:
        """The nearer of the common fall and the common rise that liquidate it."""
        prices = [self.prices[symbol] for symbol in SYMBOLS]
        fall, rise = (scalar.trigger_shock(self.legs, self.cash, prices, [move] * len(prices), level) for move in (-1.0, 1.0))
        if fall is None or (rise is not None and rise < fall):
            return rise
        return -fall

    def liquidation_price(self, symbol: str) -> float | None:
        """The nearest price of one market that liquidates it, all others held; searched for by bisection."""
        column, present = COLUMNS[symbol], self.prices[symbol]

        def value(price: float) -> float:
            return scalar.surplus(self.legs, self.cash, lambda leg: price if leg.column == column else self._price(leg))

        changes = [change for leg in self.legs if leg.column == column for change in leg.prices_of_change()]
        if value(present) < 0.0:
            return None
        found = [
            price
            for far in (0.0, 1e4 * max([present, *changes]))
            if (price := scalar.first_negative(value, present, far, changes)) is not None
        ]
        return min(found, key=lambda price: abs(price - present), default=None)

    def bankruptcy_price(self, item: Held) -> float | None:
        """The price at which the equity is zero, on the side that hurts the position; searched for by bisection."""
        column, present = COLUMNS[item.symbol], self.prices[item.symbol]

        def value(price: float) -> float:
            return self.cash + sum(
                scalar.equity(leg, price if leg.column == column else self._price(leg)) for leg in self.legs if leg.size
            )

        return scalar.first_negative(value, present, 1e-9 if item.size > 0.0 else 1e9, []) if value(present) >= 0.0 else None


class Desk:
    """An engine that a private feed tells of everything."""

    def __init__(self, **settings: Any) -> None:
        self.engine = Engine(
            EngineSettings(
                symbols={DESK: SYMBOLS, "hyperliquid": ("BTC", "ETH")},
                projection=ProjectionSettings(),
                staleness=StalenessSettings(mark_s=1_000.0, account_s=600.0),
                feeds=(FEED,),
                **settings,
            )
        )
        self.sequences: dict[str, int] = {}

    def origin(self, at_s: float) -> dict[str, Any]:
        """Return the fields that all events have."""
        return {"venue": DESK, "connection": FEED, "received_ns": ns(at_s)}

    def open(self, at_s: float = 0.0) -> None:
        """Tell rules and prices, and have the engine take them over."""
        self.rules(at_s)
        self.prices(at_s, PRICES)
        self.look(at_s)

    def rules(self, at_s: float, without: Iterable[str] = ()) -> None:
        """Tell the rules of all markets, but no tiers or ratios of those ``without``."""
        instruments = [
            Instrument(
                symbol,
                () if symbol in without else tuple(MarginTier(*tier) for tier in tiers),
                contract="inverse" if symbol == "BTC-USD" else "linear",
            )
            for symbol, tiers in TIERS.items()
        ]
        instruments += [
            Instrument(symbol, (), contract="asset", collateral_ratio=None if symbol in without else ratio)
            for symbol, ratio in RATIOS.items()
        ]
        self.engine.apply(Instruments(**self.origin(at_s), instruments=tuple(instruments), complete=False))

    def prices(self, at_s: float, prices: dict[str, float]) -> None:
        """Tell marks."""
        for symbol, price in prices.items():
            self.engine.apply(MarkPrice(**self.origin(at_s), symbol=symbol, exchange_ns=None, mark_price=price))

    def look(self, at_s: float) -> None:
        """Have the engine take over prices, as it does before every evaluation."""
        self.engine.freeze(ns(at_s))

    def account(
        self, at_s: float, name: str, cash: float, *held: Held, isolated: Iterable[tuple[float, Held]] = (), **more: Any
    ) -> None:
        """Tell all of one account."""
        self.sequences[name] = self.sequences.get(name, -1) + 1
        positions = [position(item) for item in held if not item.is_holding]
        positions += [position(item, cash) for cash, item in isolated]
        fields: dict[str, Any] = {"mode": "standard", "sequence": self.sequences[name], "exchange_ns": ns(at_s)} | more
        self.engine.apply(
            AccountSnapshot(
                **self.origin(at_s),
                account=name,
                cross_cash_usd=cash,
                positions=tuple(positions),
                holdings=tuple(HoldingReport(item.symbol, item.size) for item in held if item.is_holding),
                **fields,
            )
        )

    def delta(self, at_s: float, name: str, sequence: int, *held: Held, cash: float | None = None) -> None:
        """Tell of a change in an account."""
        self.engine.apply(
            AccountDelta(
                **self.origin(at_s),
                account=name,
                exchange_ns=ns(at_s),
                sequence=sequence,
                cross_cash_usd=cash,
                positions=tuple(position(item) for item in held),
            )
        )

    def lose(self, at_s: float) -> None:
        """Lose the feed."""
        self.engine.apply(Gap(**self.origin(at_s), reason="disconnected"))


def position(item: Held, isolated_cash: float | None = None) -> PositionReport:
    """Return a position as the desk tells it."""
    return PositionReport(item.symbol, item.size, item.entry, isolated_cash, item.venue_price, None, item.side)
