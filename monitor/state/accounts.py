"""Margin accounts and their positions in flat numpy tables.

Every account has one *cross* row; each isolated position is a margin account of its own with a row that names the cross row as its
owner. Legs (positions) hang on rows in a linked list kept in the arrays themselves: 44 B per leg and 43 B per row, and the index
of addresses beside them.

An account is *live* when its venue state is known, its collateral mode is standard, and nothing has happened since that the public
tape cannot explain. Only live accounts enter a projection; the others are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.events import AccountMode, AccountSnapshot
from monitor.margin import Array, TierTable, base_coefficient, second_tier_price
from monitor.state.fills import Fill, FillMemory
from monitor.state.poll_worth import poll_worth
from monitor.triggers import Legs

NOBODY = 0
"""Row 0 belongs to no account: free leg slots point to it, so that they cannot disturb anybody's sums."""

MODE_AGE_MAX_NS = 6 * 3_600 * 1_000_000_000
"""After this long the mode is asked again: a change is rare, and the question costs ten times a poll."""

MODE_UNASKED, MODE_STANDARD, MODE_OTHER = 0, 1, 2
_FREE = -1
_ROW_ARRAYS = (
    "_cash_usd",
    "_owner",
    "_first_leg",
    "_as_of_ns",
    "_polled_ns",
    "_asked_ns",
    "_mode",
    "_mode_ns",
    "_sound",
    "_pinned",
)
_LEG_ARRAYS = ("_leg_row", "_leg_market", "_leg_next", "_size", "_slope", "_second_tier_price", "_venue_liquidation_price")


class PollDemand(NamedTuple):
    """An account worth asking the venue about; ``mode_known`` says whether its collateral mode has to be asked too."""

    venue: str
    account: str
    mode_known: bool


class AccountTable:
    """The accounts of all venues; ``market`` indices are the engine's."""

    def __init__(self, accounts_max: int) -> None:
        self.accounts_max = accounts_max
        self.refused = 0
        """Accounts that found the table full."""
        self.unexplained = 0
        """Fills that made an account unknown: in an isolated position, or in a market it was not known to be in."""
        self._rows: dict[str, dict[str, int]] = {}
        self._row_arrays: dict[str, NDArray[np.int64]] = {}
        self._names: list[str] = [""]
        self._venue_of: list[str] = [""]
        self._recent = FillMemory()
        self._isolated: dict[int, list[int]] = {}
        self._copied: Legs | None = None
        self._free_legs: list[int] = []
        self._free_rows: list[int] = []
        rows, legs = 1_024, 4_096
        self._row_count = 1
        self._leg_count = 0
        # Per row.
        self._cash_usd = np.full(rows, np.nan)
        self._owner = np.zeros(rows, dtype=np.int32)
        self._first_leg = np.full(rows, _FREE, dtype=np.int32)
        # Per row, meaningful for cross rows.
        self._as_of_ns = np.zeros(rows, dtype=np.int64)
        self._polled_ns = np.zeros(rows, dtype=np.int64)
        self._asked_ns = np.zeros(rows, dtype=np.int64)
        self._mode = np.zeros(rows, dtype=np.int8)
        self._mode_ns = np.zeros(rows, dtype=np.int64)
        self._sound = np.zeros(rows, dtype=np.bool_)
        self._pinned = np.zeros(rows, dtype=np.bool_)
        # Per leg.
        self._leg_row = np.zeros(legs, dtype=np.int32)
        self._leg_market = np.zeros(legs, dtype=np.int32)
        self._leg_next = np.full(legs, _FREE, dtype=np.int32)
        self._size = np.zeros(legs)
        self._slope = np.zeros(legs)
        self._second_tier_price = np.full(legs, np.inf)
        self._venue_liquidation_price = np.full(legs, np.nan)

    # ------------------------------------------------------------------------------------------------ accounts

    def row_of(self, venue: str, account: str, *, create: bool) -> int | None:
        """Return the cross row of an account; ``None`` if it is unknown (or the table is full, which is counted)."""
        rows = self._rows.setdefault(venue, {})
        row = rows.get(account)
        if row is None and create:
            if self.account_count >= self.accounts_max:
                self.refused += 1
                return None
            row = self._new_row()
            self._owner[row] = row
            rows[account] = row
            self._names[row] = account
            self._venue_of[row] = venue
        return row

    def pin(self, venue: str, account: str) -> None:
        """Have an account polled whether or not it ever shows up on the tape."""
        row = self.row_of(venue, account, create=True)
        if row is not None:
            self._pinned[row] = True

    def _rows_of(self, venue: str) -> NDArray[np.int64]:
        """Return the cross rows of a venue; made anew only after an account was added."""
        rows = self._rows.get(venue, {})
        cached = self._row_arrays.get(venue)
        if cached is None or cached.size != len(rows):
            cached = self._row_arrays[venue] = np.fromiter(rows.values(), np.int64)
        return cached

    @property
    def account_count(self) -> int:
        """Number of accounts ever seen."""
        return sum(map(len, self._rows.values()))

    @property
    def leg_count(self) -> int:
        """Number of leg slots in use or free in between."""
        return self._leg_count

    def name(self, row: int) -> tuple[str, str]:
        """Return (venue, account) of the account that ``row`` belongs to."""
        owner = int(self._owner[row])
        return self._venue_of[owner], self._names[owner]

    def set_mode(self, venue: str, account: str, mode: AccountMode, received_ns: int) -> None:
        """Remember where an account keeps its collateral, which it can change: it is asked again now and then."""
        row = self.row_of(venue, account, create=True)
        if row is not None:
            self._mode[row] = MODE_STANDARD if mode == "standard" else MODE_OTHER
            self._mode_ns[row] = received_ns

    def invalidate(self, venue: str) -> int:
        """Distrust all accounts of a venue, as fills may have been missed, until each is polled; return how many were sound."""
        rows = self._rows_of(venue)
        hit = int(self._sound[rows].sum())
        self._sound[rows] = False
        return hit

    def apply_snapshot(self, event: AccountSnapshot, markets: Sequence[int], tiers: TierTable) -> None:
        """Replace everything known of one account, then replay the fills that are newer than the snapshot.

        Args:
            event: the account as the venue reports it.
            markets: the market index of each of its positions.
            tiers: maintenance tiers of all markets.
        """
        row = self.row_of(event.venue, event.account, create=True)
        if row is None or event.exchange_ns < self._as_of_ns[row]:
            return
        self._drop_legs(row)
        self._cash_usd[row] = event.cross_cash_usd
        self._as_of_ns[row] = event.exchange_ns
        self._polled_ns[row] = event.received_ns
        # What was forgotten and is newer than the answer may or may not be in it.
        self._sound[row] = event.exchange_ns >= self._recent.forgotten_until_ns(row)
        for position, market in zip(event.positions, markets, strict=True):
            holder = row
            if position.isolated_cash_usd is not None:
                holder = self._new_row()
                self._owner[holder] = row
                self._isolated.setdefault(row, []).append(holder)
                self._cash_usd[holder] = position.isolated_cash_usd
            leg = self._new_leg(holder, market, position.size, tiers)
            self._venue_liquidation_price[leg] = np.nan if position.liquidation_price is None else position.liquidation_price
        for fill in self._recent.of(row):
            self._carry(row, fill, tiers)

    def apply_fill(self, venue: str, account: str, fill: Fill, received_ns: int, tiers: TierTable) -> None:
        """Carry a position forward by one side of a public trade; an account that was never seen is discovered."""
        row = self.row_of(venue, account, create=True)
        if row is None:
            return
        self._recent.add(row, fill, received_ns)
        self._carry(row, fill, tiers)

    def _carry(self, row: int, fill: Fill, tiers: TierTable) -> None:
        if not self._sound[row] or fill.exchange_ns <= self._as_of_ns[row]:
            return
        leg = self._find_leg(row, fill.market)
        if leg is None or self._leg_row[leg] != row:
            # Whether a new position is cross or isolated, and how much margin moves with an isolated one, the tape does not say.
            self._sound[row] = False
            self.unexplained += 1
            return
        self._cash_usd[row] -= fill.size * fill.price
        before = float(self._size[leg])
        after = before + fill.size
        # What is left of a closed position is rounding of the sum, many orders below any lot.
        if abs(after) <= 1e-9 * max(abs(before), abs(fill.size)):
            self._unlink(row, leg)
        else:
            self._size[leg] = after
            self._prepare(np.array([leg]), tiers)
        self._venue_liquidation_price[leg] = np.nan

    # ---------------------------------------------------------------------------------------------------- slots

    def _new_row(self) -> int:
        if self._free_rows:
            return self._free_rows.pop()
        row = self._row_count
        if row == self._cash_usd.size:
            for name in _ROW_ARRAYS:
                setattr(self, name, _grown(getattr(self, name)))
            self._first_leg[row:] = _FREE
            self._cash_usd[row:] = np.nan
        self._row_count += 1
        self._names.append("")
        self._venue_of.append("")
        return row

    def _new_leg(self, row: int, market: int, size: float, tiers: TierTable) -> int:
        if self._free_legs:
            leg = self._free_legs.pop()
        else:
            leg = self._leg_count
            if leg == self._size.size:
                for name in _LEG_ARRAYS:
                    setattr(self, name, _grown(getattr(self, name)))
            self._leg_count += 1
        self._leg_row[leg] = row
        self._leg_market[leg] = market
        self._size[leg] = size
        self._leg_next[leg] = self._first_leg[row]
        self._first_leg[row] = leg
        self._venue_liquidation_price[leg] = np.nan
        self._prepare(np.array([leg]), tiers)
        return leg

    def _find_leg(self, row: int, market: int) -> int | None:
        """Return the leg of an account in a market: cross if it has one, else isolated."""
        leg = int(self._first_leg[row])
        while leg != _FREE:
            if self._leg_market[leg] == market:
                return leg
            leg = int(self._leg_next[leg])
        for holder in self._isolated.get(row, ()):
            leg = int(self._first_leg[holder])
            if leg != _FREE and self._leg_market[leg] == market:
                return leg
        return None

    def _unlink(self, row: int, leg: int) -> None:
        following = int(self._leg_next[leg])
        previous = int(self._first_leg[row])
        if previous == leg:
            self._first_leg[row] = following
        else:
            while int(self._leg_next[previous]) != leg:
                previous = int(self._leg_next[previous])
            self._leg_next[previous] = following
        self._release(leg)

    def _release(self, leg: int) -> None:
        self._copied = None
        self._leg_row[leg] = NOBODY
        self._size[leg] = self._slope[leg] = 0.0
        self._second_tier_price[leg] = np.inf
        self._venue_liquidation_price[leg] = np.nan
        self._leg_next[leg] = _FREE
        self._free_legs.append(leg)

    def _drop_legs(self, row: int) -> None:
        for holder in [row, *self._isolated.pop(row, ())]:
            leg = int(self._first_leg[holder])
            while leg != _FREE:
                following = int(self._leg_next[leg])
                self._release(leg)
                leg = following
            self._first_leg[holder] = _FREE
            if holder != row:
                self._owner[holder] = NOBODY
                self._cash_usd[holder] = np.nan
                self._free_rows.append(holder)

    def _prepare(self, legs: NDArray[np.int64], tiers: TierTable) -> None:
        """Cache what the sweep needs of these legs, which have changed."""
        self._copied = None
        size, market = self._size[legs], self._leg_market[legs]
        self._slope[legs] = base_coefficient(size, tiers.rate[market, 0])
        self._second_tier_price[legs] = second_tier_price(size, market, tiers)

    def refresh_tiers(self, tiers: TierTable) -> None:
        """Recompute the cached coefficients of all legs after margin tables changed."""
        used = np.flatnonzero(self._leg_row[: self._leg_count] != NOBODY)
        if used.size:
            self._prepare(used, tiers)

    # --------------------------------------------------------------------------------------------------- reading

    def legs(self, *, copy: bool) -> Legs:
        """Return the legs for a sweep: views, or a copy for a sweep that runs beside further changes; it serves until the next."""
        if copy and self._copied is not None:
            return self._copied
        count = self._leg_count
        arrays = (self._leg_row, self._leg_market, self._size, self._slope, self._second_tier_price)
        if not copy:
            return Legs(*(array[:count] for array in arrays))  # type: ignore[arg-type]
        self._copied = Legs(*(array[:count].copy() for array in arrays))  # type: ignore[arg-type]
        return self._copied

    def projectable_cash(self, now_ns: int, age_max_ns: int) -> Array:
        """Return the cash per row, NaN for every account that is not live at ``now_ns``."""
        live = self._live(now_ns, age_max_ns)
        return np.where(live[self._owner[: self._row_count]], self._cash_usd[: self._row_count], np.nan)

    def _live(self, now_ns: int, age_max_ns: int) -> NDArray[np.bool_]:
        count = self._row_count
        live: NDArray[np.bool_] = self._sound[:count] & (self._mode[:count] == MODE_STANDARD)
        live &= self._polled_ns[:count] >= now_ns - age_max_ns
        live[NOBODY] = False
        return live

    def lost(self, now_ns: int, age_max_ns: int) -> NDArray[np.bool_]:
        """Mark the rows of accounts that could be projected once and cannot any more, until they are polled again."""
        count = self._row_count
        lost = (self._polled_ns[:count] > 0) & (self._mode[:count] == MODE_STANDARD) & ~self._live(now_ns, age_max_ns)
        lost[NOBODY] = False
        marked: NDArray[np.bool_] = lost[self._owner[:count]]
        return marked

    def ages_ns(self, now_ns: int) -> NDArray[np.int64]:
        """Return the age of the last poll of each row's account."""
        count = self._row_count
        return now_ns - self._polled_ns[self._owner[:count]]

    def venue_liquidation_prices(self) -> Array:
        """Return the venue's own liquidation price per leg, NaN where it published none or the position changed since."""
        return self._venue_liquidation_price[: self._leg_count]

    def counts(self, venue: str, now_ns: int, age_max_ns: int) -> tuple[int, int, int, int]:
        """Return how many accounts of a venue are known, live, stale (live once), and of a mode that cannot be projected."""
        rows = self._rows_of(venue)
        live = self._live(now_ns, age_max_ns)[rows]
        lost = self.lost(now_ns, age_max_ns)[rows]
        return rows.size, int(live.sum()), int(lost.sum()), int((self._mode[rows] == MODE_OTHER).sum())

    # ------------------------------------------------------------------------------------------------- scheduling

    def poll_order(self, venue: str, now_ns: int, limit: int, shock: Array | None, *, pause_ns: int) -> list[PollDemand]:
        """List the accounts whose refresh is worth most, best first.

        The worth of a poll rises with the time since the last one and falls with the distance to liquidation; accounts that are
        not sound come before sound ones of the same age. Accounts asked for within ``pause_ns`` are left alone.

        Args:
            venue: whose accounts.
            now_ns: the time.
            limit: how many at most.
            shock: relative distance to liquidation per leg from the last sweep, if it is of this table's present legs.
            pause_ns: how long an unanswered question is waited for.
        """
        rows = self._rows_of(venue)
        used = np.flatnonzero(self._size[: self._leg_count])
        holds = np.zeros(self._row_count, dtype=np.bool_)
        holds[self._owner[self._leg_row[used]]] = True
        unasked = (self._mode[rows] == MODE_UNASKED) | (self._mode_ns[rows] < now_ns - MODE_AGE_MAX_NS)
        asks_mode = unasked & (self._polled_ns[rows] > 0) & holds[rows]
        # What is waited for is left alone, and so is what was answered a moment ago and left no question.
        answered = self._asked_ns[rows] <= self._polled_ns[rows]
        open_question = ~self._sound[rows] | asks_mode
        due = (answered & open_question) | (self._asked_ns[rows] <= now_ns - pause_ns)
        rows, asks_mode = rows[due], asks_mode[due]
        if not rows.size or limit <= 0:
            return []
        distance = np.full(self._row_count, 1.0)
        if shock is not None:
            count = min(shock.size, self._leg_count)
            reach = np.nan_to_num(np.abs(shock[:count]), nan=1.0, posinf=1.0)
            np.minimum.at(distance, self._owner[self._leg_row[:count]], reach)
        # A question counts like its answer, or accounts whose answers cannot be used would take all polls.
        age_s = (now_ns - np.maximum(self._polled_ns[rows], self._asked_ns[rows])) / 1e9
        worth = poll_worth(
            age_s=age_s,
            distance_ratio=distance[rows],
            is_sound=self._sound[rows],
            asks_mode=asks_mode,
            matters=holds[rows] | self._pinned[rows],
            is_other_mode=self._mode[rows] == MODE_OTHER,
        )
        best = np.argsort(-worth, kind="stable")[:limit]
        # The mode costs ten times the state, so it is asked only of accounts that turned out to hold something.
        return [
            PollDemand(venue, self._names[row], mode_known=not ask)
            for row, ask in zip(rows[best].tolist(), asks_mode[best].tolist(), strict=True)
        ]

    def note_asked(self, demand: PollDemand, now_ns: int) -> None:
        """Remember when an account was asked for."""
        row = self.row_of(demand.venue, demand.account, create=False)
        if row is not None:
            self._asked_ns[row] = now_ns


def _grown(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a copy of twice the length; the new half is zero."""
    return np.concatenate((array, np.zeros_like(array)))
