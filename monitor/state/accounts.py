"""Who there is, how far each account can be believed, and what its positions come to.

Every account has a *main* row. A pool of it with cash of its own (another dex) has a cross row too, and each isolated position is a
margin account of its own with a row that names the cross row it belongs to as its owner. Positions hang on rows (``legs.py``).

An account is *live* when its venue state is known, its collateral mode is one that can be projected, and nothing has happened since
that its sources cannot explain. Only live accounts enter a projection; the others are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.events import AccountMode
from monitor.margin import Array, Indices
from monitor.state.fills import FillMemory
from monitor.state.legs import NOBODY, LegTable
from monitor.triggers import Legs

MODE_UNASKED, MODE_STANDARD, MODE_UNIFIED, MODE_OTHER = 0, 1, 2, 3
_MODE_CODES: dict[AccountMode, int] = {"standard": MODE_STANDARD, "unified": MODE_UNIFIED}
"""The modes that can be projected; all others are :data:`MODE_OTHER`."""

_CLOCKS = ("as_of_ns", "polled_ns", "asked_ns", "mode_ns")
_GROWING = ("owner_row", "main_row", "mode", "sound", "pinned", "fed", "has_balance", *_CLOCKS)


class MarketLegs(NamedTuple):
    """The legs of some markets, one market after the other, copied for an evaluation; arrays of shape (N,).

    ``counts`` holds the number of legs of each market, free slots included. ``surplus_usd`` is that of each leg's margin account,
    NaN for those that are not live. ``lost`` marks legs of accounts that could be projected once and cannot any more.
    ``polled_ns`` is when the venue last reported the account.
    """

    legs: Legs
    counts: NDArray[np.int64]
    surplus_usd: Array
    lost: NDArray[np.bool_]
    polled_ns: NDArray[np.int64]


class PoolState(NamedTuple):
    """What one pool adds to a unified account as of its last state.

    ``value_usd`` is what its positions were worth, isolated ones with their cash; ``None`` where the state did not tell its marks.
    ``carried_usd`` is what the account has paid in fills since, ``is_explained`` whether all of those could be explained.
    """

    received_ns: int
    exchange_ns: int
    value_usd: float | None
    carried_usd: float = 0.0
    is_explained: bool = True


class AccountCounts(NamedTuple):
    """How many accounts of a venue are known, live, stale (live once), and have their collateral where it is not known."""

    known: int
    live: int
    stale: int
    unknown_mode: int


class AccountTable:
    """The accounts of all venues.

    Attributes:
        legs: the margin rows and positions; a row here is a row there.
        main_row: per row, the main row of its account; ``owner_row`` is the cross row it belongs to.
        as_of_ns: per cross row, the venue's time of the last state.
        polled_ns: per cross row, when that state arrived.
        asked_ns: per main row, when it was last asked for.
        mode: per main row, a ``MODE_`` code; ``mode_ns`` is when it was learned.
        sound: per cross row, whether nothing unexplained happened since the last state.
        pinned: per main row, whether it is polled in any case.
        fed: per main row, whether its source numbers its messages, so that a missing one shows.
        has_balance: per main row, whether the balance behind a unified account is known.
        recent: fills of the last seconds.
        refused: accounts that found the table full of accounts with positions.
        evicted: accounts without positions that made room for others.
    """

    def __init__(self, accounts_max: int) -> None:
        self.accounts_max = accounts_max
        self.legs = LegTable()
        self.recent = FillMemory()
        self.refused = 0
        self.evicted = 0
        self.base_of: Mapping[int, int] = {}
        """By index of a variant, the market that it is of (a live mapping)."""
        self.isolated: dict[int, list[int]] = {}
        """By cross row, the rows of its isolated positions."""
        self.pools: dict[int, dict[str, int]] = {}
        """By main row, the cross rows of its other pools."""
        self.categories: dict[int, int] = {}
        """By row, the lending category of accounts that are in one."""
        self.sequences: dict[int, int] = {}
        """By main row, the number of the last message of accounts whose source numbers them."""
        self.feeds: dict[int, str] = {}
        """By main row, the feed that last told of an account."""
        self.resync: dict[int, int] = {}
        """By main row of accounts whose feed has to send a snapshot, the number of the last message that was good, or -1."""
        self.balances: dict[int, tuple[int, float]] = {}
        """By main row of unified accounts, when their balance arrived and how much it is in USD."""
        self.pool_states: dict[int, dict[str, PoolState]] = {}
        """By main row of unified accounts, the last state of each pool."""
        self._rows: dict[str, dict[str, int]] = {}
        self._row_arrays: dict[str, NDArray[np.int64]] = {}
        # An array, because the garbage collector would walk through a list of all names.
        self._names: NDArray[np.object_] = np.full(1_024, "", dtype=np.object_)
        self._venues: list[str] = [""]
        self._venue_code: NDArray[np.uint8] = np.zeros(1_024, dtype=np.uint8)
        rows = 1_024
        self.owner_row = np.zeros(rows, dtype=np.int32)
        self.main_row = np.zeros(rows, dtype=np.int32)
        self.as_of_ns, self.polled_ns, self.asked_ns, self.mode_ns = (np.zeros(rows, dtype=np.int64) for _ in _CLOCKS)
        self.mode = np.zeros(rows, dtype=np.int8)
        self.sound = np.zeros(rows, dtype=np.bool_)
        self.pinned = np.zeros(rows, dtype=np.bool_)
        self.fed = np.zeros(rows, dtype=np.bool_)
        self.has_balance = np.zeros(rows, dtype=np.bool_)
        self._refusals_left = 0
        # By venue when its tape had a hole, by main row when the answers about an account began to mean something else.
        self._hole_ns: dict[str, int] = {}
        self._account_hole_ns: dict[int, int] = {}
        self.untold: set[str] = set()
        """Venues whose tape does not run: what happens to an account after it was reported is not told."""

    # ------------------------------------------------------------------------------------------------------ rows

    def row_of(self, venue: str, account: str, *, create: bool) -> int | None:
        """Return the main row of an account; ``None`` if it is unknown (or the table is full, which is counted)."""
        rows = self._rows.setdefault(venue, {})
        row = rows.get(account)
        if row is None and create:
            if self.account_count >= self.accounts_max and not self._evict():
                self.refused += 1
                return None
            row = self._take_row()
            self.owner_row[row] = self.main_row[row] = row
            rows[account] = row
            self.recent.meet(row)
            self._row_arrays.pop(venue, None)
            self._names[row] = account
            if venue not in self._venues:
                self._venues.append(venue)
            self._venue_code[row] = self._code_of(venue)
        return row

    def cross_row(self, main: int, pool: str, *, create: bool) -> int | None:
        """Return the row that holds the cross positions of a pool; with unified collateral all pools share the main row."""
        if not pool or self.mode[main] == MODE_UNIFIED:
            return main
        row = self.pools.get(main, {}).get(pool)
        if row is None and create:
            row = self._take_row()
            self.owner_row[row], self.main_row[row] = row, main
            self.pools.setdefault(main, {})[pool] = row
        return row

    def add_isolated(self, cross: int) -> int:
        """Return a new row for an isolated position that belongs to a cross row."""
        row = self._take_row()
        self.owner_row[row], self.main_row[row] = cross, self.main_row[cross]
        self.isolated.setdefault(cross, []).append(row)
        return row

    def drop_isolated(self, cross: int, row: int) -> None:
        """Take back the row of an isolated position together with its leg."""
        self.isolated[cross].remove(row)
        if not self.isolated[cross]:
            del self.isolated[cross]
        self._give_back(row)

    def rows_of_account(self, main: int) -> list[int]:
        """Return all margin rows of an account: main, other pools, isolated positions."""
        cross = [main, *self.pools.get(main, {}).values()]
        return [*cross, *(row for holder in cross for row in self.isolated.get(holder, ()))]

    def clear(self, main: int) -> None:
        """Forget all positions of an account and all its rows but the main one; it is unknown until its next state."""
        for row in self.rows_of_account(main)[1:]:
            self.isolated.pop(row, None)
            self._give_back(row)
        for by_row in (self.isolated, self.pools, self.categories, self.balances, self.pool_states):
            by_row.pop(main, None)
        self.has_balance[main] = False
        self.legs.clear(main)
        self.legs.cash_usd[main] = np.nan
        self.legs.settle(main)
        self.sound[main] = False

    def _take_row(self) -> int:
        row = self.legs.new_row()
        if row >= self.owner_row.size:
            room = row // 5
            for name in (*_GROWING, "_venue_code"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate((array, np.zeros(room, dtype=array.dtype))))
            self._names = np.concatenate((self._names, np.full(room, "", dtype=np.object_)))
        return row

    def _give_back(self, row: int) -> None:
        self.legs.clear(row)
        self.legs.free_row(row)
        self.categories.pop(row, None)
        self._names[row] = ""
        for name in _GROWING:
            getattr(self, name)[row] = 0

    def _evict(self) -> bool:
        """Make room by dropping accounts that hold nothing; tell whether there were any.

        Those go first that the venue said so of, longest ago first, then those that nobody has asked for yet. One in a hundred goes
        at a time, and after a search that found fewer as many are refused without one, so that the search is worth its cost.
        """
        if self._refusals_left:
            self._refusals_left -= 1
            return False
        share = max(1, self.accounts_max // 100)
        kept = self.pinned[: self.legs.row_count] | self.fed[: self.legs.row_count]
        kept[self.main_row[self.legs.rows_with_legs()]] = True
        mine = np.concatenate([self.rows_of(venue) for venue in self._rows])
        empty = mine[~kept[mine]]
        polled_ns = self.polled_ns[empty]
        chosen = empty[np.lexsort((polled_ns, polled_ns == 0))[:share]]
        for row in chosen.tolist():
            venue, name = self.name(row)
            del self._rows[venue][name]
            self._row_arrays.pop(venue, None)
            self.clear(row)
            self.recent.forget(row)
            for by_row in (self.sequences, self.feeds, self.resync, self._account_hole_ns):
                by_row.pop(row, None)
            self._give_back(row)
        self.evicted += chosen.size
        if chosen.size < share:
            self._refusals_left = share
        return bool(chosen.size)

    def rows_of(self, venue: str) -> NDArray[np.int64]:
        """Return the main rows of a venue; made anew only after accounts came or went."""
        cached = self._row_arrays.get(venue)
        if cached is None:
            rows = self._rows.get(venue, {})
            cached = self._row_arrays[venue] = np.fromiter(rows.values(), np.int64, len(rows))
        return cached

    @property
    def account_count(self) -> int:
        """Number of accounts in the table."""
        return sum(map(len, self._rows.values()))

    @property
    def nbytes(self) -> int:
        """Memory of all arrays; names and their index come on top."""
        arrays: list[NDArray[np.generic]] = [getattr(self, name) for name in (*_GROWING, "_venue_code")]
        return self.legs.nbytes + sum(array.nbytes for array in arrays)

    def name(self, row: int) -> tuple[str, str]:
        """Return (venue, account) of the account that ``row`` belongs to."""
        main = int(self.main_row[row])
        return self._venues[self._venue_code[main]], self._names[main]

    def markets_of(self, venue: str, account: str) -> set[int]:
        """Return the indices of the markets that an account has legs in."""
        main = self.row_of(venue, account, create=False)
        rows = [] if main is None else self.rows_of_account(main)
        return {market for row in rows for market, _ in self.legs.legs_of(row)}

    def owner(self, row: int) -> int:
        """Return the cross row that a row belongs to: itself unless it is isolated."""
        return int(self.owner_row[row])

    def pool_of(self, row: int) -> str:
        """Return the pool of a row."""
        cross = self.owner(row)
        return next((pool for pool, held in self.pools.get(int(self.main_row[row]), {}).items() if held == cross), "")

    # -------------------------------------------------------------------------------------------------- standing

    def pin(self, venue: str, account: str) -> None:
        """Have an account polled whether or not it ever shows up on the tape."""
        row = self.row_of(venue, account, create=True)
        if row is not None:
            self.pinned[row] = True

    def set_mode(self, venue: str, account: str, mode: AccountMode, received_ns: int) -> None:
        """Remember where an account keeps its collateral, which it can change: it is asked again now and then."""
        row = self.row_of(venue, account, create=True)
        if row is not None and not self.fed[row]:
            self.change_mode(row, mode, received_ns)

    def change_mode(self, main: int, mode: AccountMode, received_ns: int) -> None:
        """Take over a mode; what an account was worth by another one says nothing any more."""
        before, code = int(self.mode[main]), _MODE_CODES.get(mode, MODE_OTHER)
        self.mode[main], self.mode_ns[main] = code, received_ns
        if code == before:
            return
        if before in {MODE_UNIFIED, MODE_OTHER}:
            # Answers to what was asked before may be under way, with the meaningless cash of the mode before.
            self._account_hole_ns[main] = received_ns
        if before == MODE_UNIFIED:
            # The positions of all pools share its row, where they cannot stay.
            self.clear(main)
        elif code == MODE_UNIFIED:
            self._share_row(main)
        elif before == MODE_OTHER:
            # Its cash was the meaningless one of an account whose collateral is elsewhere.
            self.distrust(main)

    def distrust(self, main: int) -> int:
        """Distrust an account in all its pools; return in how many it was sound."""
        rows = [row for row in (main, *self.pools.get(main, {}).values()) if self.sound[row]]
        self.sound[rows] = False
        return len(rows)

    def _share_row(self, main: int) -> None:
        """Prepare the main row for the positions of all pools; its own stay, and are worth nothing known until the balance is."""
        for row in self.pools.pop(main, {}).values():
            for isolated in list(self.isolated.get(row, ())):
                self.drop_isolated(row, isolated)
            self._give_back(row)
        self.legs.cash_usd[main] = np.nan
        self.legs.settle(main)
        self.sound[main] = False

    def invalidate(self, venue: str, received_ns: int = 0) -> int:
        """Distrust all accounts of a venue, as fills may have been missed, until each is polled; return how many were sound.

        Answers that are on their way at ``received_ns`` do not count: the fills between them and now may be among the missed.
        """
        self._hole_ns[venue] = received_ns
        rows = np.flatnonzero(self.sound[: self.legs.row_count])
        # Accounts whose source numbers its messages do not depend on the tape.
        rows = rows[self.is_of_venue(rows, venue) & ~self.fed[self.main_row[rows]]]
        self.sound[rows] = False
        # The states of pools that a unified account waits with for the others are from before the hole.
        for main in [main for main in self.pool_states if self._venue_code[main] == self._code_of(venue)]:
            del self.pool_states[main]
        return int(rows.size)

    def was_asked_since_hole(self, main: int) -> bool:
        """Tell whether an account's answers are from after the last hole in the tape; those that nobody asked for count as such."""
        asked_ns = self.asked_ns.item(main)
        return self.name(main)[0] not in self.untold and (not asked_ns or asked_ns >= self.hole_ns(main))

    def hole_ns(self, main: int) -> int:
        """Return since when what an account is reported to be can be carried forward and understood; 0 for always."""
        return max(self._hole_ns.get(self.name(main)[0], 0), self._account_hole_ns.get(main, 0))

    def distrust_holders(self, market: int) -> list[int]:
        """Distrust the accounts that no feed tells of and that hold a market; return the main rows of those that were sound."""
        owner = self.owner_row[self.legs.column(market).legs(market).account]
        owner = owner[self.sound[owner] & ~self.fed[self.main_row[owner]]]
        self.sound[owner] = False
        return [int(main) for main in np.unique(self.main_row[owner])]

    def is_live(self, rows: NDArray[np.int64] | Indices, now_ns: int, age_max_ns: int) -> NDArray[np.bool_]:
        """Tell which margin rows can be projected at ``now_ns``, as far as their accounts are concerned.

        A state grows old because fills or transfers may have been missed. Of a fed account none was, as long as it is sound.
        """
        return self._standing(rows, now_ns, age_max_ns)[0]

    def was_live(self, rows: NDArray[np.int64] | Indices) -> NDArray[np.bool_]:
        """Tell which margin rows could be projected once: their account was polled and has a mode that can be projected."""
        return self._standing(rows, 0, 0)[1]

    def _standing(
        self, rows: NDArray[np.int64] | Indices, now_ns: int, age_max_ns: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """Return which rows are live, which were once, and when their accounts were polled; every array is looked up once."""
        owner, main = self.owner_row[rows], self.main_row[rows]
        mode, polled_ns = self.mode[main], self.polled_ns[owner]
        is_standard, is_unified = mode == MODE_STANDARD, mode == MODE_UNIFIED
        live: NDArray[np.bool_] = self.sound[owner] & (is_standard | is_unified) & (rows != NOBODY)
        live &= (polled_ns >= now_ns - age_max_ns) | self.fed[main]
        # Without its balance an account with shared collateral never was.
        was_live: NDArray[np.bool_] = (is_standard | (is_unified & self.has_balance[main])) & (polled_ns > 0) & (rows != NOBODY)
        return live, was_live, polled_ns

    def counts(self, venue: str, now_ns: int, age_max_ns: int) -> AccountCounts:
        """Count the accounts of a venue by their standing."""
        rows = self.rows_of(venue)
        live, was_live, _ = self._standing(rows, now_ns, age_max_ns)
        mode = self.mode[rows]
        unknown_mode = (mode == MODE_OTHER) | ((mode == MODE_UNIFIED) & ~was_live & ~live)
        return AccountCounts(rows.size, int(live.sum()), int((was_live & ~live).sum()), int(unknown_mode.sum()))

    def poll_coverage(self, venue: str, now_ns: int, ages_ns: Sequence[int]) -> list[float]:
        """Return, for each age, the share of the notional ever reported that was reported within it; 0 where there is none."""
        held = self.legs.rows_with_legs()
        held = held[self.is_of_venue(held, venue)]
        held = held[self.polled_ns[self.owner_row[held]] > 0]
        notional = self.legs.gross_usd[held]
        total = float(notional.sum())
        polled_ns = self.polled_ns[self.owner_row[held]]
        return [float(notional[polled_ns >= now_ns - age_ns].sum()) / total if total else 0.0 for age_ns in ages_ns]

    def is_of_venue(self, rows: NDArray[np.int64], venue: str) -> NDArray[np.bool_]:
        """Tell which rows belong to accounts of a venue."""
        of_venue: NDArray[np.bool_] = self._venue_code[self.main_row[rows]] == self._code_of(venue)
        return of_venue

    def _code_of(self, venue: str) -> int:
        return self._venues.index(venue) if venue in self._venues else len(self._venues)

    def market_legs(self, markets: Sequence[Sequence[int]], now_ns: int, age_max_ns: int) -> MarketLegs:
        """Copy the legs of some markets, each with its variants, with what is known of their accounts."""
        legs, counts = self.legs.copy_legs(markets)
        live, was_live, polled_ns = self._standing(legs.account, now_ns, age_max_ns)
        surplus = np.where(live, self.legs.surplus_usd[legs.account], np.nan)
        return MarketLegs(legs, counts, surplus, was_live & np.isnan(surplus), polled_ns)
