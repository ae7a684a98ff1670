"""Fills as changes of positions and cash: what was known is carried forward, and what does not explain itself is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monitor.margin import LINEAR
from monitor.state.accounts import AccountTable
from monitor.state.fills import Fill

ROUNDING_RATIO = 1e-9
"""What is left of a closed position is rounding of the sum, many orders below any lot."""

STATE_LAG_NS = 1_000_000_000
"""A state has the time of its block and a hole that of its frame, which arrives some 0.2 s later and by another clock."""

Side = Literal["net", "long", "short"]


class FillChanges:
    """Applies fills to the positions of an :class:`AccountTable`.

    Args:
        table: the accounts.
        market_pools: by market index, the pool that each market belongs to (a live sequence).

    Attributes:
        unexplained: fills that made an account unknown: in an isolated position, or in a market it was not known to be in.
        contradicted: fills that started from another position than the known one, or that were told before.
    """

    def __init__(self, table: AccountTable, market_pools: Sequence[str]) -> None:
        self._table = table
        self._market_pools = market_pools
        self.unexplained = 0
        self.contradicted = 0

    def remembers_since(self, main: int, as_of_ns: int) -> bool:
        """Tell whether a state of this moment can be completed: no fill since has been forgotten, or missed in a hole of the tape.

        A forgotten fill that is newer than the state may or may not be in it, and so may what happened in a hole in which it was
        asked for.
        """
        table = self._table
        if table.fed[main]:
            return True
        # An answer to an earlier question may come after the account was asked again, hence the second look at the time.
        since_ns = max(table.recent.forgotten_until_ns(main), table.hole_ns(main) - STATE_LAG_NS)
        return as_of_ns >= since_ns and table.was_asked_since_hole(main)

    def fills_of(self, main: int, pool: str) -> list[Fill]:
        """Return the remembered fills of an account in one pool; a fed account is carried by its feed alone."""
        if self._table.fed[main]:
            return []
        return [fill for fill in self._table.recent.of(main) if self._market_pools[fill.market] == pool]

    def exchange(self, cross: int, fill: Fill) -> float | None:
        """Change position and cash of a row by a fill; return what was paid, ``None`` if the fill does not explain itself."""
        table = self._table
        slots = self.find(cross, fill.market, "net")
        if len(slots) != 1 or not self._is_linear(fill.market) or fill.fee_usd is None:
            # Whether a new position is cross or isolated, and how much margin moves with an isolated one, no fill says.
            self.unexplained += 1
            return None
        [(market, slot)] = slots
        column = table.legs.column(market)
        before = column.size.item(slot)
        if fill.start_size is not None and abs(fill.start_size - before) > ROUNDING_RATIO * max(abs(before), abs(fill.size)):
            self.contradicted += 1
            return None
        if market != fill.market and (before * (before + fill.size) < 0.0 or abs(before + fill.size) > abs(before)):
            # What is on the other side now was opened under the market's present table, and of the older one only the rate at the
            # size that was reported is known.
            self.unexplained += 1
            return None
        paid_usd = fill.size * fill.price + fill.fee_usd
        table.legs.cash_usd[cross] -= paid_usd
        after = before + fill.size
        if abs(after) <= ROUNDING_RATIO * max(abs(before), abs(fill.size)):
            table.legs.remove(cross, market, slot)
        else:
            table.legs.resize(market, slot, after, _entry_after(before, column.entry_price.item(slot), fill))
        table.legs.settle(cross)
        return paid_usd

    def find(self, row: int, market: int, side: Side) -> list[tuple[int, int]]:
        """Return (index, slot) of the positions of a row in a market: all of them, or in hedge mode the long or the short one.

        The index is that of the market, or of its variant for a position with a margin table of its own.
        """
        legs, base_of = self._table.legs, self._table.base_of
        found = []
        for held, slot in legs.legs_of(row):
            if base_of.get(held, held) != market:
                continue
            column = legs.column(held)
            if not column.is_holding.item(slot) and (side == "net" or (column.size.item(slot) > 0.0) == (side == "long")):
                found.append((held, slot))
        return found

    def _is_linear(self, market: int) -> bool:
        contract = self._table.legs.tiers.contract
        return contract is None or contract.item(market) == LINEAR


def _entry_after(before: float, entry_price: float, fill: Fill) -> float:
    """Return the entry price after a fill: averaged when it adds, kept when it closes, the fill's own when it turns over."""
    after = before + fill.size
    if before * fill.size > 0.0:
        return (before * entry_price + fill.size * fill.price) / after
    return entry_price if before * after > 0.0 else fill.price
