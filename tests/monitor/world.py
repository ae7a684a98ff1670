"""A small world for tests of the core: one venue, a few markets, and events written in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from connectors.events import (
    AccountModeReport,
    AccountSnapshot,
    BookDelta,
    BookSnapshot,
    Gap,
    Instrument,
    Instruments,
    Level,
    Liquidation,
    MarginTier,
    MarkPrice,
    OpenInterest,
    PositionReport,
    Quote,
    Trade,
)
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.projection import MarketProjection
from monitor.settings import ProjectionSettings, StalenessSettings

NS = 1_000_000_000
START_S = 1_700_000_000.0
VENUE = "hyperliquid"


def ns(at_s: float) -> int:
    """Nanoseconds of a moment that is ``at_s`` seconds into the test."""
    return round((START_S + at_s) * 1e3) * 1_000_000


class World:
    """An engine with BTC and ETH at 1 % maintenance, and short ways to tell it what happens."""

    def __init__(self, *symbols: str, **settings: Any) -> None:
        self.engine = Engine(
            EngineSettings(
                symbols={VENUE: symbols or ("BTC", "ETH")},
                projection=ProjectionSettings(
                    exogenous_notional_usd=(1_000.0,), exogenous_flow_multiples=(1.0,), cluster_min_share=0.0
                ),
                staleness=StalenessSettings(book_s=10.0, mark_s=10.0, open_interest_s=60.0, account_s=600.0),
                **settings,
            )
        )
        self.trade_id = 0

    def origin(self, at_s: float, connection: str = "main") -> dict[str, Any]:
        return {"venue": VENUE, "connection": connection, "received_ns": ns(at_s)}

    def instruments(self, at_s: float, *symbols: str, rate: float = 0.01) -> None:
        items = tuple(Instrument(symbol, (MarginTier(0.0, rate, 0.0),)) for symbol in symbols or ("BTC", "ETH"))
        self.engine.apply(Instruments(**self.origin(at_s, "rest"), instruments=items))

    def mark(self, at_s: float, price: float, symbol: str = "BTC") -> None:
        self.engine.apply(MarkPrice(**self.origin(at_s), symbol=symbol, exchange_ns=None, mark_price=price))

    def interest(self, at_s: float, size: float, symbol: str = "BTC") -> None:
        self.engine.apply(OpenInterest(**self.origin(at_s), symbol=symbol, exchange_ns=None, open_interest_base=size))

    def book(self, at_s: float, bids: list[Level], asks: list[Level], symbol: str = "BTC", connection: str = "main") -> None:
        self.engine.apply(
            BookSnapshot(**self.origin(at_s, connection), symbol=symbol, exchange_ns=ns(at_s), bids=bids, asks=asks, layer="fast")
        )

    def sequenced(self, at_s: float, last_id: int, bids: list[Level], asks: list[Level], symbol: str = "BTC") -> None:
        self.engine.apply(
            BookSnapshot(
                **self.origin(at_s, "rest"),
                symbol=symbol,
                exchange_ns=ns(at_s),
                bids=bids,
                asks=asks,
                last_id=last_id,
            )
        )

    def delta(self, at_s: float, ids: tuple[int, int, int], bids: list[Level], asks: list[Level], symbol: str = "BTC") -> None:
        first, last, previous = ids
        self.engine.apply(
            BookDelta(
                **self.origin(at_s),
                symbol=symbol,
                exchange_ns=ns(at_s),
                first_id=first,
                last_id=last,
                previous_id=previous,
                bids=bids,
                asks=asks,
            )
        )

    def quote(self, at_s: float, bid: Level | None, ask: Level | None, symbol: str = "BTC") -> None:
        self.engine.apply(Quote(**self.origin(at_s), symbol=symbol, exchange_ns=ns(at_s), bid=bid, ask=ask))

    def trade(
        self,
        at_s: float,
        price: float,
        size: float,
        buyer: str | None = None,
        seller: str | None = None,
        symbol: str = "BTC",
        **more: Any,
    ) -> None:
        self.trade_id += 1
        fields: dict[str, Any] = {"aggressor": "sell", "trade_id": self.trade_id, "exchange_ns": ns(at_s), **more}
        self.engine.apply(Trade(**self.origin(at_s), symbol=symbol, price=price, size=size, buyer=buyer, seller=seller, **fields))

    def account(self, at_s: float, name: str, cash: float, *positions: tuple[str, float], mode: Any = "standard") -> None:
        self.engine.apply(
            AccountSnapshot(
                **self.origin(at_s, "rest"),
                account=name,
                exchange_ns=ns(at_s),
                cross_cash_usd=cash,
                positions=tuple(PositionReport(symbol, size, None, None, None, None) for symbol, size in positions),
            )
        )
        self.engine.apply(AccountModeReport(**self.origin(at_s, "rest"), account=name, mode=mode))

    def liquidation(
        self,
        at_s: float,
        side: Literal["long", "short"],
        price: float,
        size: float,
        fill_id: int | None,
        account: str | None = None,
    ) -> None:
        self.engine.apply(
            Liquidation(
                **self.origin(at_s),
                symbol="BTC",
                exchange_ns=ns(at_s),
                side=side,
                price=price,
                size=size,
                completeness="partial",
                fill_id=fill_id,
                account=account,
            )
        )

    def gap(self, at_s: float, connection: str = "main", symbol: str | None = None) -> None:
        self.engine.apply(Gap(**self.origin(at_s, connection), reason="disconnected", symbol=symbol))

    def market(self, at_s: float, symbol: str = "BTC") -> MarketProjection:
        """Project and return one market."""
        projection = self.engine.project(ns(at_s))
        return next(market for market in projection.markets if market.symbol == symbol)


def ladder(best: float, step: float, count: int, size: float = 1.0) -> list[Level]:
    """Levels of equal size from ``best`` in steps of ``step`` (negative for bids)."""
    return [(best + step * number, size) for number in range(count)]


def reasons(market: MarketProjection) -> Sequence[str]:
    """Why a market is stale, without the details behind the colon."""
    return [reason.split(":")[0] for reason in market.stale_reasons]
