"""The accounts of the simulated exchange, as columns: cash, positions, margin.

Sign convention: long positive. ``raw`` is the cash left after paying for every position in full (the venue's ``totalRawUsd``), so
that ``account value = raw + sum(lots * mark)``, in micro-USD and exact. The sum of ``lots`` over all accounts is 0 in every market,
hence the sum of all account values is the sum of all cash, whatever the marks are.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from connectors.simulated.markets import MICROS_PER_USD, Market

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Margins(msgspec.Struct, frozen=True):
    """Value (micro-USD) and maintenance (USD) of every margin account at one set of marks.

    ``cross_*`` have one entry per account; ``isolated_*`` one per account and market, 0 where the position is not isolated.
    ``cross_value`` counts the spot collateral of unified accounts, which their published account value does not.
    """

    cross_value: Integers
    cross_maintenance_usd: Floats
    isolated_value: Integers
    isolated_maintenance_usd: Floats

    def cross_short(self) -> NDArray[np.bool_]:
        """Tell which accounts are below their cross maintenance (strictly)."""
        return np.asarray(self.cross_value < self.cross_maintenance_usd * MICROS_PER_USD, dtype=np.bool_)

    def isolated_short(self) -> NDArray[np.bool_]:
        """Tell which isolated positions are below their maintenance (strictly)."""
        return np.asarray(self.isolated_value < self.isolated_maintenance_usd * MICROS_PER_USD, dtype=np.bool_)


class AccountTable:
    """All accounts.

    Attributes:
        addresses: Account names by row.
        rows: Rows by account name.
        raw: Cross cash (micro-USD).
        collateral: Spot cash that backs the positions of unified accounts (micro-USD).
        unified: Whether the account is in the ``unifiedAccount`` mode.
        lots: Signed position sizes, one column per market.
        cost: What the open positions cost (micro-USD, signed like ``lots``), so that the entry price is ``cost / lots``.
        isolated: Whether the position is isolated.
        isolated_raw: Cash of the isolated positions (micro-USD).
        leverage: The leverage setting per market.
        touched: Accounts whose columns were written since the :class:`~connectors.simulated.margin_board.MarginBoard` last looked;
            whoever writes columns directly, and not through a method, adds the row here.
    """

    def __init__(self, markets: tuple[Market, ...], addresses: Sequence[str]) -> None:
        count = len(addresses)
        self.markets = markets
        self.addresses = tuple(addresses)
        self.rows = {address: row for row, address in enumerate(addresses)}
        assert len(self.rows) == count, "addresses are unique"
        shape = (count, len(markets))
        self.touched: set[int] = set()
        self.raw: Integers = np.zeros(count, np.int64)
        self.collateral: Integers = np.zeros(count, np.int64)
        self.unified: NDArray[np.bool_] = np.zeros(count, np.bool_)
        # Sweeps go over all accounts of one market, hence one market after the other in memory.
        self.lots: Integers = np.zeros(shape, np.int64, order="F")
        self.cost: Integers = np.zeros(shape, np.int64, order="F")
        self.isolated: NDArray[np.bool_] = np.zeros(shape, np.bool_, order="F")
        self.isolated_raw: Integers = np.zeros(shape, np.int64, order="F")
        self.leverage: Integers = np.zeros(shape, np.int64, order="F")
        self.leverage[:] = [market.max_leverage for market in markets]

    def __len__(self) -> int:
        return len(self.addresses)

    def total_cash(self) -> int:
        """Return all cash in micro-USD; only fees change it."""
        return int(self.raw.sum() + self.collateral.sum() + self.isolated_raw.sum())

    def open_interest(self, market: int) -> int:
        """Return the sum of long positions in lots."""
        column = self.lots[:, market]
        return int(column[column > 0].sum())

    def margins(self, marks: Sequence[int], rows: Integers | None = None) -> Margins:
        """Return the margin of every account, or of the given rows, at these marks (price units).

        An account's figures are the same to the last bit, whichever others are asked for with it: sums go market by market.
        """
        chosen: slice | Integers = slice(None) if rows is None else rows
        cross_value = self.raw[chosen] + self.collateral[chosen]
        shape = (cross_value.size, len(self.markets))
        cross_maintenance = np.zeros(cross_value.size, np.float64)
        isolated_value = np.zeros(shape, np.int64, order="F")
        isolated_maintenance = np.zeros(shape, np.float64, order="F")
        for column, market in enumerate(self.markets):
            notional = self.lots[chosen, column] * marks[column]
            maintenance = market.maintenance_array_usd(np.abs(notional) / MICROS_PER_USD)
            isolated = self.isolated[chosen, column]
            if isolated.any():
                isolated_value[:, column] = np.where(isolated, self.isolated_raw[chosen, column] + notional, 0)
                isolated_maintenance[:, column] = np.where(isolated, maintenance, 0.0)
                notional[isolated] = 0
                maintenance[isolated] = 0.0
            cross_value += notional
            cross_maintenance += maintenance
        return Margins(
            cross_value=cross_value,
            cross_maintenance_usd=cross_maintenance,
            isolated_value=isolated_value,
            isolated_maintenance_usd=isolated_maintenance,
        )

    def cross_value(self, row: int, marks: Sequence[int]) -> int:
        """Return the cross account value of one account in micro-USD, with the collateral of a unified account."""
        value = int(self.raw[row]) + int(self.collateral[row])
        for market, lots in self.positions(row):
            if not self.isolated[row, market]:
                value += lots * marks[market]
        return value

    def cross_maintenance_usd(self, row: int, marks: Sequence[int], *, without: int | None = None) -> float:
        """Return the maintenance margin of the cross positions of one account, optionally without one market."""
        return sum(
            (
                self.markets[market].maintenance_usd(abs(lots * marks[market]) / MICROS_PER_USD)
                for market, lots in self.positions(row)
                if market != without and not self.isolated[row, market]
            ),
            0.0,
        )

    def isolated_value(self, row: int, market: int, mark: int) -> int:
        """Return the value of one isolated position in micro-USD."""
        return int(self.isolated_raw[row, market]) + int(self.lots[row, market]) * mark

    def positions(self, row: int) -> list[tuple[int, int]]:
        """Return (market, signed lots) of every open position."""
        return [(market, int(lots)) for market, lots in enumerate(self.lots[row].tolist()) if lots]

    def entry_price(self, row: int, market: int) -> float:
        """Return the average entry price in price units; the position must be open."""
        return int(self.cost[row, market]) / int(self.lots[row, market])

    def apply_fill(self, row: int, market: int, signed_lots: int, price: int, fee: int) -> int:
        """Settle one fill and return the closed profit in micro-USD, before the fee.

        Args:
            row: The account.
            market: The market.
            signed_lots: Bought (positive) or sold lots, not 0.
            price: In price units.
            fee: In micro-USD, charged to the same cash that pays for the position.
        """
        self.touched.add(row)
        before = int(self.lots[row, market])
        cost = int(self.cost[row, market])
        closing = 0
        if before * signed_lots < 0:
            closing = signed_lots if abs(signed_lots) <= abs(before) else -before
        # The cost that leaves with the closed part is rounded to a micro-USD; it is for display, cash does not depend on it.
        closed_cost = -cost * closing // before if closing else 0
        closed_profit = -closing * price - closed_cost
        after = before + signed_lots
        self.lots[row, market] = after
        self.cost[row, market] = cost - closed_cost + (signed_lots - closing) * price
        cash = -signed_lots * price - fee
        if not self.isolated[row, market]:
            self.raw[row] += cash
            return closed_profit
        self.isolated_raw[row, market] += cash
        opening = abs(signed_lots - closing) * price // int(self.leverage[row, market])
        self.isolated_raw[row, market] += opening
        self.raw[row] -= opening
        if after == 0 and self.isolated_raw[row, market] >= 0:
            # A position that was closed at a loss beyond its margin stays until the liquidation engine covers the debt.
            self.release_isolated(row, market)
        return closed_profit

    def release_isolated(self, row: int, market: int) -> None:
        """Return the cash of a closed isolated position to the cross account."""
        assert self.lots[row, market] == 0, "only a closed position gives its margin back"
        self.touched.add(row)
        self.raw[row] += self.isolated_raw[row, market]
        self.isolated_raw[row, market] = 0
        self.isolated[row, market] = False
