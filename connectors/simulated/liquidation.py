"""The exchange's liquidation engine: who is closed out, how much of it, and at whose expense (venues.md 1.9).

The rules, all on the mark price:

1. An account is short of margin when its value is strictly below its maintenance; isolated positions each count for themselves.
2. A position is closed by a market order on the book, limited at the price that leaves nothing. Above 100,000 USD it sends a fifth
   first; for 30 s after that every order of the account is for the whole position.
3. Below two thirds of the maintenance the liquidator vault takes over positions and margin as they are.
4. Below zero the positions are closed against the most profitable and most levered opposite accounts, at the previous mark.
5. What a closed account still owes is paid by the vault, so that money is neither made nor lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

import msgspec

from connectors.simulated.exchange import Exchange, ForcedClose
from connectors.simulated.margin_board import MarginBoard
from connectors.simulated.markets import MICROS_PER_USD

PARTIAL_ABOVE_USD: Final = 100_000
PARTIAL_DIVISOR: Final = 5
COOLDOWN_MS: Final = 30_000
RECORDS_MAX: Final = 100_000
"""Forced closes kept for inspection; a crash of a hundred thousand accounts makes about 30,000."""


class ForcedCloseRecord(msgspec.Struct, frozen=True, gc=False):
    """One forced close of (part of) a position; lots are absolute, ``lots_closed`` is 0 where the book was empty."""

    time_ms: int
    account: int
    market: int
    method: Literal["market", "backstop", "deleveraging"]
    is_long: bool
    is_isolated: bool
    lots_before: int
    lots_closed: int
    mark: int


class LiquidationEngine:
    """Watches all accounts of one exchange.

    Attributes:
        records: The last forced closes, oldest first.
        records_total: All forced closes, also those that are no longer kept.
        bad_debt: What the vault paid for accounts that were closed below zero, in micro-USD.
        vault: The row of the liquidator vault, the only account that is never closed.
    """

    def __init__(self, exchange: Exchange, vault: int) -> None:
        self.vault = vault
        self.records: deque[ForcedCloseRecord] = deque(maxlen=RECORDS_MAX)
        self.records_total = 0
        self.bad_debt = 0
        self._exchange = exchange
        self._table = exchange.table
        self._config = exchange.config
        self._board = MarginBoard(exchange.table)
        self._partial_ms: dict[int, int] = {}

    def run(self) -> bool:
        """Go over all accounts once, in the order of their rows, and return whether a position changed."""
        self._board.refresh(self._exchange.mark)
        cross, isolated = self._board.cross_short(), self._board.isolated_short()
        changed = False
        for row in cross:
            if row != self.vault:
                changed |= self._close_cross(row)
        for row, market in isolated:
            changed |= self._close_isolated(row, market)
        return changed

    def _close_cross(self, row: int) -> bool:
        """Deal with one account that was short when the block's check was made."""
        marks = self._exchange.mark
        value = self._table.cross_value(row, marks)
        maintenance = self._table.cross_maintenance_usd(row, marks) * MICROS_PER_USD
        if value >= maintenance:
            return False
        self._cancel_orders(row)
        # The largest position first: it is the one that frees most margin.
        markets = [market for market, _ in self._table.positions(row) if not self._table.isolated[row, market]]
        markets.sort(key=lambda market: -abs(int(self._table.lots[row, market]) * marks[market]))
        changed = False
        if value < 0 and self._config.deleveraging:
            for market in markets:
                changed |= self._deleverage(row, market)
        elif 3 * value < 2 * maintenance and self._config.backstop:
            for market in markets:
                self._hand_over(row, market)
            changed = bool(markets)
            margin = int(self._table.raw[row]) + int(self._table.collateral[row])
            if margin > 0:
                self._pay(row, -margin)
        else:
            for market in markets:
                changed |= self._send_market_order(row, market)
                if self._table.cross_value(row, marks) >= self._table.cross_maintenance_usd(row, marks) * MICROS_PER_USD:
                    break
        if all(self._table.isolated[row, market] for market, _ in self._table.positions(row)):
            self._cover_debt(row)
        return changed

    def _close_isolated(self, row: int, market: int) -> bool:
        """Deal with one isolated position that was short when the block's check was made."""
        table, mark = self._table, self._exchange.mark[market]
        if not table.isolated[row, market]:
            return False
        value = table.isolated_value(row, market, mark)
        notional_usd = abs(int(table.lots[row, market])) * mark / MICROS_PER_USD
        maintenance = table.markets[market].maintenance_usd(notional_usd) * MICROS_PER_USD
        if not value < maintenance:
            return False
        changed = False
        if table.lots[row, market] == 0:
            pass
        elif value < 0 and self._config.deleveraging:
            changed = self._deleverage(row, market)
        elif 3 * value < 2 * maintenance and self._config.backstop:
            self._take_isolated_margin(row, market, mark)
            changed = True
        else:
            changed = self._send_market_order(row, market)
        if table.isolated[row, market] and table.lots[row, market] == 0:
            debt = -int(table.isolated_raw[row, market])
            assert debt >= 0, "a closed isolated position keeps its cash only when it is a debt"
            table.isolated_raw[row, market] += debt
            table.raw[self.vault] -= debt
            table.touched.add(self.vault)
            self.bad_debt += debt
            table.release_isolated(row, market)
        return changed

    def _send_market_order(self, row: int, market: int) -> bool:
        exchange = self._exchange
        lots = int(self._table.lots[row, market])
        order_lots = abs(lots)
        last_partial_ms = self._partial_ms.get(row)
        is_cooling = last_partial_ms is not None and exchange.time_ms - last_partial_ms <= COOLDOWN_MS
        is_large = abs(lots) * exchange.mark[market] > PARTIAL_ABOVE_USD * MICROS_PER_USD
        # The cooldown counts from the block of the partial order, so other positions closed in that block are partial as well.
        if self._config.partial_liquidation and is_large and (not is_cooling or last_partial_ms == exchange.time_ms):
            order_lots = -(-order_lots // PARTIAL_DIVISOR)
            self._partial_ms[row] = exchange.time_ms
        forced = self._forced(row, market, "market")
        limit = self._bankruptcy_price(row, market) if self._config.bankruptcy_limit else None
        filled = exchange.market_order(row, market, order_lots, is_buy=lots < 0, limit_price=limit, forced=forced)
        self._record(forced, market, abs(lots), filled)
        return filled > 0

    def _bankruptcy_price(self, row: int, market: int) -> int:
        """Return the worst price at which closing the whole position leaves nothing negative, before the fee."""
        table, marks = self._table, self._exchange.mark
        lots = int(table.lots[row, market])
        value = table.isolated_value(row, market, marks[market]) if table.isolated[row, market] else table.cross_value(row, marks)
        room = max(0, value) // abs(lots)
        return max(1, marks[market] - room) if lots > 0 else marks[market] + room

    def _hand_over(self, row: int, market: int) -> None:
        """Move one position to the vault at the mark, which changes neither account's value."""
        lots = int(self._table.lots[row, market])
        forced = self._forced(row, market, "backstop")
        buyer, seller = (self.vault, row) if lots > 0 else (row, self.vault)
        mark = self._exchange.mark[market]
        self._exchange.transfer(market, buyer=buyer, seller=seller, lots=abs(lots), price=mark, forced=forced)
        self._record(forced, market, abs(lots), abs(lots))

    def _take_isolated_margin(self, row: int, market: int, mark: int) -> None:
        """Move an isolated position and its margin to the vault."""
        margin = self._table.isolated_value(row, market, mark)
        self._hand_over(row, market)
        if margin > 0:
            self._pay(row, -margin)

    def _deleverage(self, row: int, market: int) -> bool:
        """Close one position against the opposite side, the highest ranked first, at the previous mark."""
        table, exchange = self._table, self._exchange
        lots = int(table.lots[row, market])
        left = abs(lots)
        forced = self._forced(row, market, "deleveraging")
        while left > 0:
            self._board.refresh(exchange.mark)
            other = self._board.first_against(market, is_long=lots < 0)
            if other is None:
                break
            part = min(left, abs(int(table.lots[other, market])))
            buyer, seller = (other, row) if lots > 0 else (row, other)
            exchange.transfer(market, buyer=buyer, seller=seller, lots=part, price=exchange.previous_mark[market], forced=forced)
            left -= part
        self._record(forced, market, abs(lots), abs(lots) - left)
        return left < abs(lots)

    def _cover_debt(self, row: int) -> None:
        """Let the vault pay what an account without cross positions owes."""
        debt = -(int(self._table.raw[row]) + int(self._table.collateral[row]))
        if debt > 0:
            self._pay(row, debt)
            self.bad_debt += debt

    def _pay(self, row: int, amount: int) -> None:
        """Move cash from the vault to an account, or back when negative; spot collateral goes last."""
        self._table.touched.update((self.vault, row))
        self._table.raw[self.vault] -= amount
        self._table.raw[row] += amount
        if self._table.raw[row] < 0 < self._table.collateral[row]:
            moved = min(int(self._table.collateral[row]), -int(self._table.raw[row]))
            self._table.collateral[row] -= moved
            self._table.raw[row] += moved

    def _cancel_orders(self, row: int) -> None:
        for book in self._exchange.books:
            book.cancel_all(row)

    def _forced(self, row: int, market: int, method: Literal["market", "backstop", "deleveraging"]) -> ForcedClose:
        return ForcedClose(
            account=row,
            method=method,
            mark=self._exchange.mark[market],
            is_isolated=bool(self._table.isolated[row, market]),
            is_long=bool(self._table.lots[row, market] > 0),
        )

    def _record(self, forced: ForcedClose, market: int, lots_before: int, lots_closed: int) -> None:
        self.records_total += 1
        self.records.append(
            ForcedCloseRecord(
                time_ms=self._exchange.time_ms,
                account=forced.account,
                market=market,
                method=forced.method,
                is_long=forced.is_long,
                is_isolated=forced.is_isolated,
                lots_before=lots_before,
                lots_closed=lots_closed,
                mark=forced.mark,
            )
        )
