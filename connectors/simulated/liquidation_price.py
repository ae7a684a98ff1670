"""The price at which the exchange itself would liquidate a position, other marks held where they are.

It is found by bisecting the account's own surplus as a function of the one price, without solving any equation. The surplus rises
with the price for a long and falls for a short, because no maintenance rate reaches 1; the tier is the one at the trial price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from connectors.simulated.accounts import AccountTable
from connectors.simulated.markets import MICROS_PER_USD

SEARCH_LIMIT_USD: Final = 1e15
"""No price is beyond this; a short whose surplus is still positive here is as good as never liquidated."""


def liquidation_price(table: AccountTable, row: int, market: int, marks: Sequence[int]) -> float | None:
    """Return the liquidation price in USD, or ``None`` where no positive price has the surplus at 0.

    Args:
        table: The accounts.
        row: The account.
        market: The market of the position, which must be open.
        marks: Mark prices in price units.
    """
    spec = table.markets[market]
    lots = int(table.lots[row, market])
    assert lots, "only an open position has a liquidation price"
    size = lots / spec.lot_scale
    if table.isolated[row, market]:
        fixed_usd = int(table.isolated_raw[row, market]) / MICROS_PER_USD
    else:
        # What does not depend on this market's price. The integer part is exact; only the others' maintenance is a float.
        value_without = table.cross_value(row, marks) - lots * marks[market]
        fixed_usd = value_without / MICROS_PER_USD - table.cross_maintenance_usd(row, marks, without=market)

    def surplus_usd(price_usd: float) -> float:
        return fixed_usd + size * price_usd - spec.maintenance_usd(abs(size) * price_usd)

    if size > 0:
        return None if fixed_usd >= 0.0 else _crossing(lambda price: surplus_usd(price) >= 0.0)
    return None if fixed_usd <= 0.0 else _crossing(lambda price: surplus_usd(price) < 0.0)


def _crossing(beyond: Callable[[float], bool]) -> float | None:
    """Return the lowest float at which ``beyond`` holds, given that it is false at 0 and never false again."""
    low, high = 0.0, 1.0
    while not beyond(high):
        low, high = high, high * 2.0
        if high > SEARCH_LIMIT_USD:
            return None
    while True:
        middle = 0.5 * (low + high)
        if middle in {low, high}:
            return high
        if beyond(middle):
            high = middle
        else:
            low = middle
