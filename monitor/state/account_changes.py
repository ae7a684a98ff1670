"""How accounts change: states, deltas, fills and balances are applied to the account table.

What cannot be explained makes the account unknown until its source is asked again; nothing is guessed. The outcomes, each counted:

* a fill in an isolated position, or in a market that the account was not known to be in: unknown (``unexplained``);
* a fill that starts from another position than the known one, or that a node tells again: unknown (``contradicted``);
* a delta out of sequence, or of another feed than the state: unknown, and the source is asked for a snapshot (``sequence_gaps``);
  one that repeats is ignored, and so it has no later time than the state;
* a state that is older than the present one: ignored. Numbered ones are ordered by number; a lower one than the present counts
  only with a later time, as it has after its source began to count anew;
* a poll or a fill of an account that a feed tells of: ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from connectors.events import AccountBalances, AccountDelta, AccountSnapshot, HoldingReport, PositionReport
from monitor.state.accounts import MODE_STANDARD, MODE_UNASKED, MODE_UNIFIED, AccountTable
from monitor.state.fill_changes import FillChanges
from monitor.state.fills import Fill
from monitor.state.unified import UnifiedAccounts


class ResyncDemand(NamedTuple):
    """An account whose source has to send a snapshot: its feed, its venue and name, and the last sequence number that was good."""

    feed: str
    venue: str
    account: str
    after_sequence: int


class AccountChanges:
    """Applies what sources tell to an :class:`AccountTable`.

    Attributes:
        fills: applies fills, and counts those that it could not.
        unified: puts unified accounts together.
        sequence_gaps: deltas that came out of sequence.
        repeated: deltas that had been applied already.
    """

    def __init__(
        self, table: AccountTable, pools: Sequence[str], dexes: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        """Take the table, by market index the pool of each market (a live sequence), and by venue the pools that are asked for."""
        self._table = table
        self._market_pools = pools
        self.fills = FillChanges(table, pools)
        self.unified = UnifiedAccounts(table, self.fills, pools, dexes)
        self.sequence_gaps = 0
        self.repeated = 0

    @property
    def unexplained(self) -> int:
        """Number of fills that made an account unknown: in an isolated position, or in a market it was not known to be in."""
        return self.fills.unexplained

    @property
    def contradicted(self) -> int:
        """Number of fills that started from another position than the known one."""
        return self.fills.contradicted

    def apply_balances(self, event: AccountBalances) -> None:
        """Take the balances of a unified account (see :meth:`UnifiedAccounts.apply_balances`)."""
        self.unified.apply_balances(event)

    # ----------------------------------------------------------------------------------------------------- states

    def apply_snapshot(self, event: AccountSnapshot, markets: Sequence[int], assets: Sequence[int]) -> bool:
        """Replace everything known of one pool of an account, then replay the fills that are newer than the snapshot.

        Args:
            event: the pool as the venue reports it.
            markets: the market index of each of its positions.
            assets: the market index of each of its holdings.

        Returns:
            Whether it was applied: not if it is older than the present state, or the table is full.
        """
        table = self._table
        main = table.row_of(event.venue, event.account, create=True)
        if main is None:
            return False
        if self._is_outdone(main, event):
            return False
        if event.mode == "unknown":
            if table.mode[main] == MODE_STANDARD:
                table.mode[main] = MODE_UNASKED
        elif event.mode is not None:
            table.change_mode(main, event.mode, event.received_ns)
        cross = table.cross_row(main, event.pool, create=True)
        assert cross is not None, "rows are made without limit for accounts that are in"
        is_unified = bool(table.mode[main] == MODE_UNIFIED)
        self._drop_pool(cross, event.pool, all_of_it=not is_unified)
        self._put_positions(cross, event.positions, markets)
        if event.e_mode:
            table.categories[cross] = event.e_mode
        else:
            table.categories.pop(cross, None)
        for holding, market in zip(event.holdings, assets, strict=True):
            self._put_holding(cross, holding, market)
        table.polled_ns[cross] = event.received_ns
        if event.sequence is not None:
            self._note_number(main, cross, event)
        if is_unified:
            self.unified.note_pool(main, event)
            return True
        is_usable = event.mode != "unknown"
        table.legs.cash_usd[cross] = event.cross_cash_usd if is_usable else math.nan
        table.legs.settle(cross)
        table.as_of_ns[cross] = event.exchange_ns
        table.sound[cross] = is_usable and self.fills.remembers_since(main, event.exchange_ns)
        for fill in self.fills.fills_of(main, event.pool):
            self._carry(cross, fill)
        return True

    def _is_outdone(self, main: int, event: AccountSnapshot) -> bool:
        """Tell whether something better is known of a pool than a snapshot that has come."""
        table = self._table
        known = table.sequences.get(main)
        if event.sequence is None and known is not None:
            # A numbered source knows the account better than a poll, which would break its sequence.
            return True
        if table.mode[main] == MODE_UNIFIED:
            state = table.pool_states.get(main, {}).get(event.pool)
            as_of_ns = 0 if state is None else state.exchange_ns
        else:
            cross = table.cross_row(main, event.pool, create=False)
            as_of_ns = 0 if cross is None else table.as_of_ns.item(cross)
        if known is not None and event.sequence is not None and table.feeds.get(main) == event.connection:
            return event.sequence < known and event.exchange_ns <= as_of_ns
        return event.exchange_ns < as_of_ns

    def _note_number(self, main: int, cross: int, event: AccountSnapshot) -> None:
        """Go on from the number of a snapshot; what it has jumped over was of other pools, which are then in doubt."""
        table = self._table
        known, number, is_same = table.sequences.get(main), event.sequence, table.feeds.get(main) == event.connection
        assert number is not None, "only snapshots with a number come here"
        table.sequences[main], table.fed[main], table.feeds[main] = number, True, event.connection
        table.resync.pop(main, None)
        if known is not None and not (is_same and number in {known, known + 1}):
            others = [row for row in (main, *table.pools.get(main, {}).values()) if row != cross and table.sound[row]]
            if others:
                table.sound[others] = False
                table.resync[main] = number

    def _drop_pool(self, cross: int, pool: str, *, all_of_it: bool) -> None:
        """Remove the positions of a pool; on the shared row of a unified account only those in markets of that pool."""
        legs = self._table.legs
        for row in list(self._table.isolated.get(cross, ())):
            if all_of_it or all(self._market_pools[market] == pool for market, _ in legs.legs_of(row)):
                self._table.drop_isolated(cross, row)
        if all_of_it:
            legs.clear(cross)
            return
        for market, slot in list(legs.legs_of(cross)):
            if self._market_pools[market] == pool:
                legs.remove(cross, market, slot)

    def _put_positions(self, cross: int, positions: Sequence[PositionReport], markets: Sequence[int]) -> None:
        for position, market in zip(positions, markets, strict=True):
            if not position.size:
                continue
            row = cross
            if position.isolated_cash_usd is not None:
                row = self._table.add_isolated(cross)
                self._table.legs.cash_usd[row] = position.isolated_cash_usd
            self._table.legs.add(
                row,
                market,
                position.size,
                entry_price=math.nan if position.entry_price is None else position.entry_price,
                venue_price=math.nan if position.liquidation_price is None else position.liquidation_price,
            )
            if row != cross:
                self._table.legs.settle(row)

    def _put_holding(self, row: int, holding: HoldingReport, market: int) -> None:
        if holding.quantity:
            category = self._table.categories.get(row, 0)
            self._table.legs.add(row, market, holding.quantity, is_holding=True, category=category)

    # ----------------------------------------------------------------------------------------------------- deltas

    def apply_delta(self, event: AccountDelta, markets: Sequence[int], assets: Sequence[int]) -> bool:
        """Apply new values to an account whose source numbers its messages; return whether they were applied."""
        table = self._table
        main = table.row_of(event.venue, event.account, create=True)
        if main is None:
            return False
        # The numbers of another feed are others.
        known = table.sequences.get(main) if table.feeds.get(main) == event.connection else None
        if known is not None and event.sequence <= known and event.exchange_ns <= table.as_of_ns[main]:
            self.repeated += 1
            return False
        if known is None or event.sequence != known + 1 or main in table.resync:
            self.sequence_gaps += main not in table.resync
            self._demand_resync(event.connection, main, known if known is not None else -1)
            return False
        legs = table.legs
        # What is closed goes first, so that it cannot be taken for what the same delta opens in the market.
        for position, market in sorted(zip(event.positions, markets, strict=True), key=lambda told: told[0].size != 0.0):
            self._replace_position(main, position, market)
        for holding, market in zip(event.holdings, assets, strict=True):
            for held, slot in list(legs.legs_of(main)):
                if held == market and legs.column(held).is_holding[slot]:
                    legs.remove(main, held, slot)
            self._put_holding(main, holding, market)
        if event.cross_cash_usd is not None:
            legs.cash_usd[main] = event.cross_cash_usd
        legs.settle(main)
        table.sequences[main] = event.sequence
        table.as_of_ns[main], table.polled_ns[main] = event.exchange_ns, event.received_ns
        return True

    def _replace_position(self, main: int, position: PositionReport, market: int) -> None:
        """Put a position in the place of the one before it, cross and isolated ones apart.

        What is closed without a word on its margin is the cross one, or where there is none the isolated one.
        """
        table = self._table
        cross = self.fills.find(main, market, position.position_side)
        if position.isolated_cash_usd is None:
            for held, slot in cross:
                table.legs.remove(main, held, slot)
        if position.isolated_cash_usd is not None or not (position.size or cross):
            for row in list(table.isolated.get(main, ())):
                if self.fills.find(row, market, position.position_side):
                    table.drop_isolated(main, row)
        self._put_positions(main, [position], [market])

    def _demand_resync(self, feed: str, main: int, after_sequence: int) -> int:
        self._table.feeds[main], self._table.resync[main] = feed, after_sequence
        return self._table.distrust(main)

    def resync_demands(self) -> list[ResyncDemand]:
        """List the accounts whose source has to be asked for a snapshot."""
        table = self._table
        return [ResyncDemand(table.feeds[main], *table.name(main), after) for main, after in table.resync.items()]

    def doubt(self, venue: str, account: str, exchange_ns: int) -> None:
        """Distrust an account to which something happened that no message tells, and states of it from before that."""
        main = self._table.row_of(venue, account, create=False)
        if main is not None and main not in self._table.sequences:
            self._table.distrust(main)
            self._table.recent.forget_until(main, exchange_ns)
            self.unified.doubt(main)

    def doubt_holders(self, market: int) -> bool:
        """Distrust the polled accounts in a market whose margin table changed; tell whether there were any.

        A venue may leave open positions under the table that they were opened under; only its next report tells.
        """
        held = self._table.distrust_holders(market)
        for main in held:
            self.unified.doubt(main)
        return bool(held)

    def doubt_fed(self, feed: str, venue: str, accounts: Sequence[str]) -> int:
        """Distrust some accounts of a feed and ask for them; return how many were sound."""
        hit = 0
        for account in accounts:
            main = self._table.row_of(venue, account, create=False)
            if main is not None and self._table.feeds.get(main) == feed:
                hit += self._demand_resync(feed, main, self._table.sequences.get(main, -1))
        return hit

    def lose_feed(self, feed: str) -> int:
        """Distrust the accounts of a feed that was interrupted, and ask for all of them; return how many were sound."""
        hit = 0
        for main in [main for main, name in self._table.feeds.items() if name == feed]:
            hit += self._demand_resync(feed, main, self._table.sequences.get(main, -1))
        return hit

    # ------------------------------------------------------------------------------------------------------ fills

    def apply_fill(self, venue: str, account: str, fill: Fill, received_ns: int) -> None:
        """Carry a position forward by one account's side of a fill; an account that was never seen is discovered."""
        table = self._table
        main = table.row_of(venue, account, create=True)
        if main is None:
            table.recent.drop(fill)
        if main is None or table.fed[main]:
            return
        if fill.start_size is not None and table.recent.repeats(main, fill):
            # Cash that came back to where it was would have been paid twice, and no start of a fill shows it.
            self.fills.contradicted += 1
            self.doubt(venue, account, fill.exchange_ns)
            return
        table.recent.add(main, fill, received_ns)
        if table.mode[main] == MODE_UNIFIED:
            self.unified.carry(main, fill)
            return
        cross = table.cross_row(main, self._market_pools[fill.market], create=True)
        assert cross is not None, "rows are made without limit for accounts that are in"
        self._carry(cross, fill)

    def _carry(self, cross: int, fill: Fill) -> None:
        """Carry a row forward by a fill that its state does not have yet."""
        table = self._table
        if table.sound[cross] and fill.exchange_ns > table.as_of_ns[cross]:
            table.sound[cross] = self.fills.exchange(cross, fill) is not None
