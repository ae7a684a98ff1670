"""Unified accounts: one balance stands behind the positions of all pools, and is told apart from them (venues.md 1.9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from connectors.events import AccountBalances, AccountSnapshot
from monitor.state.accounts import MODE_UNIFIED, AccountTable, PoolState
from monitor.state.fill_changes import FillChanges
from monitor.state.fills import Fill

UNIFIED_SKEW_NS = 10_000_000_000
"""The balance of a unified account and the states of its pools are put together if they arrived within this time: they are asked
for together, and the positions' own marks are used, so that a move of prices in between shifts the equity by what it moved."""

COLLATERAL_COIN = "USDC"


class UnifiedAccounts:
    """Puts the balance of an account and the states of its pools together.

    Args:
        table: the accounts.
        fills: what applies fills to positions.
        market_pools: by market index, the pool that each market belongs to (a live sequence).
        dexes: by venue, the further pools that an account may have positions in.
    """

    def __init__(
        self, table: AccountTable, fills: FillChanges, market_pools: Sequence[str], dexes: Mapping[str, Sequence[str]]
    ) -> None:
        self._table = table
        self._fills = fills
        self._market_pools = market_pools
        self._dexes = dexes

    def apply_balances(self, event: AccountBalances) -> None:
        """Take the balances of a unified account: its spot total is the value behind all its positions (venues.md 1.9)."""
        main = self._table.row_of(event.venue, event.account, create=False)
        if main is None:
            return
        total = sum(balance.quantity for balance in event.balances if balance.symbol == COLLATERAL_COIN)
        self._table.balances[main] = (event.received_ns, total)
        self._table.has_balance[main] = True
        if self._table.mode[main] == MODE_UNIFIED:
            self._settle(main)

    def note_pool(self, main: int, event: AccountSnapshot) -> None:
        """Remember what a pool's positions are worth at the marks of the state itself; unknown without those marks."""
        value: float | None = 0.0
        for position in event.positions:
            if position.size and position.mark_price is None:
                value = None
            elif value is not None and position.mark_price is not None:
                value += position.size * position.mark_price + (position.isolated_cash_usd or 0.0)
        is_complete = self._fills.remembers_since(main, event.exchange_ns)
        states = self._table.pool_states.setdefault(main, {})
        states[event.pool] = PoolState(event.received_ns, event.exchange_ns, value, is_explained=is_complete)
        for fill in self._fills.fills_of(main, event.pool):
            self.carry(main, fill)
        self._settle(main)

    def _settle(self, main: int) -> None:
        """Put balance and pools together, if all of them are there and of about the same time."""
        table = self._table
        states = table.pool_states.get(main, {})
        received_ns, total_usd = table.balances.get(main, (0, 0.0))
        held = {self._market_pools[market] for row in table.rows_of_account(main) for market, _ in table.legs.legs_of(row)}
        times = [received_ns, *(state.received_ns for state in states.values())]
        values = [state.value_usd for state in states.values() if state.value_usd is not None and state.is_explained]
        # A pool that has not been heard of may hold positions too.
        needed = held.union(("",), self._dexes.get(table.name(main)[0], ()))
        is_complete = needed <= states.keys() and len(values) == len(states)
        is_usable = is_complete and max(times) - min(times) <= UNIFIED_SKEW_NS
        table.legs.cash_usd[main] = math.nan
        if is_usable:
            # Positions are as they are now: what they were worth by the states, and what was paid for them since.
            paid_usd = sum(state.carried_usd for state in states.values())
            table.legs.cash_usd[main] = total_usd - sum(values) - paid_usd
            table.polled_ns[main] = min(times)
            table.as_of_ns[main] = min(state.exchange_ns for state in states.values())
        table.sound[main] = is_usable
        table.legs.settle(main)

    def doubt(self, main: int) -> None:
        """Have an account wait for new states of all its pools; a balance alone does not heal it."""
        states = self._table.pool_states.get(main, {})
        for pool, state in states.items():
            states[pool] = state._replace(is_explained=False)

    def carry(self, main: int, fill: Fill) -> None:
        """Carry one pool of a unified account forward by a fill that the state of that pool does not have yet."""
        table = self._table
        pool = self._market_pools[fill.market]
        states = table.pool_states.setdefault(main, {})
        # Where no state of the pool has been seen, one is missing from now on.
        state = states.setdefault(pool, PoolState(0, 0, None, is_explained=False))
        if not state.is_explained or fill.exchange_ns <= state.exchange_ns:
            table.sound[main] &= state.is_explained
            return
        paid_usd = self._fills.exchange(main, fill)
        if paid_usd is None:
            states[pool] = state._replace(is_explained=False)
            table.sound[main] = False
        else:
            states[pool] = state._replace(carried_usd=state.carried_usd + paid_usd)
