"""The exchange: orders meet the book, fills move cash and positions, marks follow. Pure, synchronous, in whole numbers.

Time comes in blocks, as on the real venue. Everything that happens in a block carries the block's time, and block times rise
strictly, so an account state served between two blocks is the state after all trades up to its ``time`` and before all later ones.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Final, Literal

import msgspec

from connectors.simulated.accounts import AccountTable
from connectors.simulated.book import Book

RECENT_TRADES_MAX: Final = 10_000
"""Per market. The replay on subscription wants 20 s: up to 2,000 trades in a crash of hundreds of accounts, 11,000 in one of a
hundred thousand. At 0.33 kB each the frame stays below the 4 MB that clients accept."""

FILLS_MAX: Final = 2_000
"""Per account, the number that the venue returns at most."""

MARK_EMA_S: Final = 150.0
"""Time constant of the average of (mid - oracle) (venues.md 1.8)."""

TRADE_ID_BITS: Final = 50
TRADE_ID_FACTOR: Final = 0x2545F4914F6CDD1D
"""Any odd number: multiplying by it permutes the 50-bit integers, so ids are unique and look as unordered as real ones."""


class ExchangeConfig(msgspec.Struct, frozen=True):
    """The rules that tests may switch.

    ``mark_rule`` is ``median`` as on the real venue, or ``last_trade``, where the last print is the mark at once, as in the
    definition of a cascade (models.md 2.1).
    """

    taker_fee_ppm: int = 450
    maker_fee_ppm: int = 150
    mark_rule: Literal["median", "last_trade"] = "median"
    mark_interval_ms: int = 3_000
    """How often oracle and marks are set under the ``median`` rule (venues.md 1.8)."""
    partial_liquidation: bool = True
    bankruptcy_limit: bool = True
    """Whether forced orders are limited at the price that leaves the account with nothing (models.md 3.3).

    The venue's documents do not say.
    """
    backstop: bool = True
    deleveraging: bool = True


DEFINITION_RULES: Final = ExchangeConfig(
    taker_fee_ppm=0,
    maker_fee_ppm=0,
    mark_rule="last_trade",
    partial_liquidation=False,
    bankruptcy_limit=False,
    backstop=False,
    deleveraging=False,
)
"""The rules under which a cascade on a static book is exactly that of models.md 2.1: every position closes in full on the book."""


class ForcedClose(msgspec.Struct, frozen=True, gc=False):
    """Why a trade was made, if somebody was forced to."""

    account: int
    method: Literal["market", "backstop", "deleveraging"]
    mark: int
    is_isolated: bool
    is_long: bool


class Party(msgspec.Struct, frozen=True, gc=False):
    """One side of a trade; money is in micro-USD and ``start_lots`` is the position before it."""

    account: int
    order_id: int
    is_taker: bool
    start_lots: int
    closed_profit: int
    fee: int


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One fill; ``transaction`` is the same for all fills of one order."""

    market: int
    time_ms: int
    trade_id: int
    transaction: str
    price: int
    lots: int
    taker_is_buyer: bool
    buyer: Party
    seller: Party
    forced: ForcedClose | None = None


class Exchange:
    """Books, accounts and prices.

    Attributes:
        table: The accounts.
        books: One per market.
        time_ms: The time of the block that is open or was finished last.
        trades: What was traded in this block.
        oracle: Oracle prices, in price units, given from outside.
        external: Prices of the same contract elsewhere, given from outside.
        mark: Mark prices.
        previous_mark: The marks before the last change, at which accounts are deleveraged.
        last_price: Last price on the book; off-book transfers do not count.
        fees: All fees so far, in micro-USD.
        notional_traded: Per market, in micro-USD.
        lots_traded: Per market.
    """

    def __init__(self, table: AccountTable, start_ms: int, config: ExchangeConfig | None = None) -> None:
        self.table = table
        self.markets = table.markets
        self.config = config or ExchangeConfig()
        self.books = [Book() for _ in self.markets]
        self.time_ms = start_ms
        self.trades: list[Trade] = []
        self.oracle = [market.price(market.initial_price_usd) for market in self.markets]
        self.external = list(self.oracle)
        self.mark = list(self.oracle)
        self.previous_mark = list(self.oracle)
        self.last_price: list[int | None] = [None] * len(self.markets)
        self.fees = 0
        self.notional_traded = [0] * len(self.markets)
        self.lots_traded = [0] * len(self.markets)
        self.recent_trades: list[deque[Trade]] = [deque(maxlen=RECENT_TRADES_MAX) for _ in self.markets]
        self.fills: dict[int, deque[Trade]] = {}
        self._premium = [0.0] * len(self.markets)
        self._premium_weight = [0.0] * len(self.markets)
        self._marked_ms: int | None = None
        self._sequence = 0
        self._order_ids = 0

    def begin_block(self, now_ms: int) -> None:
        """Open the next block.

        Raises:
            ValueError: the time is not after the last block's.
        """
        if now_ms <= self.time_ms:
            raise ValueError(f"block times must rise: {now_ms} after {self.time_ms}")
        self.time_ms = now_ms
        self.trades = []

    def quote(self, owner: int, market: int, price: int, lots: int, *, is_bid: bool) -> bool:
        """Rest a post-only order; return whether it was taken (it is refused where it would trade at once)."""
        assert price % self.markets[market].tick(price) == 0, "order prices have five significant figures"
        book = self.books[market]
        if book.crosses(price, is_bid=is_bid):
            return False
        self._order_ids += 1
        book.side(is_bid=is_bid).add(owner, price, lots, self._order_ids)
        return True

    def market_order(
        self, taker: int, market: int, lots: int, *, is_buy: bool, limit_price: int | None = None, forced: ForcedClose | None = None
    ) -> int:
        """Execute an immediate-or-cancel order and return the lots that were filled."""
        matches = self.books[market].side(is_bid=not is_buy).take(taker, lots, limit_price)
        if not matches:
            return 0
        self._order_ids += 1
        order_id, transaction = self._order_ids, self._transaction()
        filled = 0
        for match in matches:
            notional = match.price * match.lots
            taker_fee = notional * self.config.taker_fee_ppm // 1_000_000
            maker_fee = notional * self.config.maker_fee_ppm // 1_000_000
            self._settle(
                market,
                match.price,
                match.lots,
                accounts=(taker, match.owner) if is_buy else (match.owner, taker),
                fees=(taker_fee, maker_fee) if is_buy else (maker_fee, taker_fee),
                orders=(order_id, match.order_id) if is_buy else (match.order_id, order_id),
                transaction=transaction,
                taker_is_buyer=is_buy,
                forced=forced,
            )
            filled += match.lots
        self.last_price[market] = matches[-1].price
        return filled

    def transfer(self, market: int, *, buyer: int, seller: int, lots: int, price: int, forced: ForcedClose) -> None:
        """Move a position between two accounts beside the book, free of fees."""
        self._order_ids += 2
        orders = (self._order_ids - 1, self._order_ids)
        self._settle(
            market,
            price,
            lots,
            accounts=(buyer, seller),
            fees=(0, 0),
            orders=orders,
            transaction=self._transaction(),
            taker_is_buyer=not forced.is_long,
            forced=forced,
        )

    def mid(self, market: int) -> float | None:
        """Return the middle of best bid and ask in price units."""
        bid, ask = self.books[market].bids.best(), self.books[market].asks.best()
        return None if bid is None or ask is None else 0.5 * (bid + ask)

    def set_references(self, oracle: Sequence[int], external: Sequence[int]) -> None:
        """Take the prices that come from outside."""
        self.oracle = list(oracle)
        self.external = list(external)

    @property
    def references_are_due(self) -> bool:
        """Whether oracle and marks change in this block under the ``median`` rule."""
        return self._marked_ms is None or self.time_ms - self._marked_ms >= self.config.mark_interval_ms

    def update_marks(self) -> bool:
        """Set the mark prices, if they are due, and return whether one changed."""
        if self.config.mark_rule == "last_trade":
            marks = [self.mark[i] if last is None else last for i, last in enumerate(self.last_price)]
        elif self.references_are_due:
            elapsed_s = 0.0 if self._marked_ms is None else (self.time_ms - self._marked_ms) / 1_000
            marks = [self._median_mark(market, elapsed_s) for market in range(len(self.markets))]
            self._marked_ms = self.time_ms
        else:
            return False
        if marks == self.mark:
            return False
        self.previous_mark = self.mark
        self.mark = marks
        return True

    def _median_mark(self, market: int, elapsed_s: float) -> int:
        """Return the median of oracle with average premium, own quotes and last trade, and the price elsewhere (venues.md 1.8)."""
        mid = self.mid(market)
        decay = math.exp(-elapsed_s / MARK_EMA_S)
        if mid is not None:
            self._premium[market] = self._premium[market] * decay + (mid - self.oracle[market]) * elapsed_s
            self._premium_weight[market] = self._premium_weight[market] * decay + elapsed_s
        weight = self._premium_weight[market]
        premium = self._premium[market] / weight if weight > 0.0 else 0.0
        book = self.books[market]
        local = [price for price in (book.bids.best(), book.asks.best(), self.last_price[market]) if price is not None]
        candidates = [self.oracle[market] + premium, float(self.external[market])]
        if local:
            candidates.append(float(median(local)))
        return max(1, round(median(candidates)))

    def _transaction(self) -> str:
        self._sequence += 1
        return "0x" + hashlib.blake2b(self._sequence.to_bytes(8, "big"), digest_size=32).hexdigest()

    def _settle(
        self,
        market: int,
        price: int,
        lots: int,
        *,
        accounts: tuple[int, int],
        fees: tuple[int, int],
        orders: tuple[int, int],
        transaction: str,
        taker_is_buyer: bool,
        forced: ForcedClose | None,
    ) -> None:
        """Book one fill for (buyer, seller)."""
        is_transfer = forced is not None and forced.method != "market"
        parties = []
        for side, signed_lots in ((0, lots), (1, -lots)):
            row = accounts[side]
            start_lots = int(self.table.lots[row, market])
            profit = self.table.apply_fill(row, market, signed_lots, price, fees[side])
            is_taker = is_transfer or taker_is_buyer == (side == 0)
            parties.append(Party(row, orders[side], is_taker, start_lots, profit, fees[side]))
        self._sequence += 1
        trade = Trade(
            market=market,
            time_ms=self.time_ms,
            trade_id=self._sequence * TRADE_ID_FACTOR % 2**TRADE_ID_BITS,
            transaction=transaction,
            price=price,
            lots=lots,
            taker_is_buyer=taker_is_buyer,
            buyer=parties[0],
            seller=parties[1],
            forced=forced,
        )
        self.fees += fees[0] + fees[1]
        self.notional_traded[market] += price * lots
        self.lots_traded[market] += lots
        self.trades.append(trade)
        self.recent_trades[market].append(trade)
        for row in accounts:
            self.fills.setdefault(row, deque(maxlen=FILLS_MAX)).append(trade)
