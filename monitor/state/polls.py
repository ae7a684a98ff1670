"""Which accounts to ask a venue about next.

The weight that a venue allows is shared out in fixed parts, so that no kind of question can starve the others: refreshing what is
known, restoring what was lost, looking at accounts that were never seen, and learning the collateral mode of those that turned out
to hold something. What one kind does not need is left to the others. Within a kind, what changes the answer most comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.venue import AccountQuestion
from monitor.margin import Array
from monitor.state.accounts import MODE_OTHER, MODE_UNASKED, MODE_UNIFIED, AccountTable
from monitor.state.poll_worth import poll_worth

MODE_AGE_MAX_NS = 6 * 3_600 * 1_000_000_000
"""After this long the mode is asked again: a change is rare, and the question costs ten times a poll."""

REFRESH_PAUSE_NS = 10 * 1_000_000_000
"""An account that was answered and left no question is left alone for this long, however much weight there is."""

REFRESH, RESTORE, DISCOVER, MODE = range(4)

SHARES: Mapping[int, float] = {REFRESH: 0.35, RESTORE: 0.3, DISCOVER: 0.15, MODE: 0.2}
"""Parts of the weight by kind of question. What is known has to stay true, and what was lost in a crash has to come back soon."""

PINNED_WORTH = 10.0
"""An account that the operator asked for counts this many times; among ten thousand strangers it would never have its turn."""

STATE_WEIGHT = 2
MODE_WEIGHT = 20
"""What the questions cost on Hyperliquid, the one venue whose accounts are asked for (venues.md 1.3)."""


class PollDemand(NamedTuple):
    """An account worth asking the venue about, and the kind of question that it counts as."""

    venue: str
    question: AccountQuestion
    kind: int

    @property
    def weight(self) -> int:
        """What the question costs."""
        question = self.question
        return STATE_WEIGHT * (len(question.pools) + question.balances) + MODE_WEIGHT * question.mode


class PollPlanner:
    """Lists what to ask; remembers what was asked.

    Args:
        table: the accounts.
        dexes: by venue, the further pools that the accounts of the venue may have positions in.
    """

    def __init__(self, table: AccountTable, dexes: Mapping[str, tuple[str, ...]]) -> None:
        self._table = table
        self._dexes = dexes
        self._served = dict.fromkeys(SHARES, 0.0)

    def plan(self, venue: str, now_ns: int, limit: int, *, pause_ns: int) -> list[PollDemand]:
        """List the accounts whose refresh is worth most, best first; a list of ``limit`` serves until it is used up.

        The worth of a poll rises with the time since the last one and with the account's size, and falls with the distance to
        liquidation. Accounts asked for within ``pause_ns`` are left alone until they are answered.
        """
        table = self._table
        rows = table.rows_of(venue)
        # A feed tells of its accounts unasked, and polls of them are not used.
        rows = rows[~table.fed[rows]]
        if not rows.size or limit <= 0:
            return []
        held = table.legs.rows_with_legs()
        main_of_held = table.main_row[held]
        count = table.legs.row_count
        holds = np.zeros(count, dtype=np.bool_)
        holds[main_of_held] = True
        polled_ns = table.polled_ns[rows]
        mode = table.mode[rows]
        unasked = (mode == MODE_UNASKED) | (table.mode_ns[rows] < now_ns - MODE_AGE_MAX_NS)
        asks_mode = unasked & (polled_ns > 0) & holds[rows]
        is_sound = self._all_sound(rows, count)
        # What is waited for is left alone, and so is what was answered a moment ago and left no question.
        asked_ns = table.asked_ns[rows]
        is_answered = asked_ns <= polled_ns
        rest_ns = np.where(is_answered, min(REFRESH_PAUSE_NS, pause_ns), pause_ns)
        due = (is_answered & (~is_sound | asks_mode)) | (asked_ns <= now_ns - rest_ns)
        if not due.any():
            return []
        distance, notional = np.full(count, 1.0), np.zeros(count)
        np.minimum.at(distance, main_of_held, table.legs.distance_ratio[held])
        np.add.at(notional, main_of_held, table.legs.gross_usd[held])
        worth = poll_worth(
            # A question counts like its answer, or accounts whose answers cannot be used would take all polls.
            age_s=(now_ns - np.maximum(polled_ns, asked_ns)) / 1e9,
            distance_ratio=distance[rows],
            notional_usd=notional[rows],
            is_sound=is_sound,
            matters=holds[rows] | table.pinned[rows],
            is_other_mode=mode == MODE_OTHER,
        ) * np.where(table.pinned[rows], PINNED_WORTH, 1.0)
        kind = np.select([asks_mode, polled_ns == 0, ~is_sound & (mode != MODE_OTHER)], [MODE, DISCOVER, RESTORE], REFRESH)
        queues = {each: self._best(np.flatnonzero(due & (kind == each)), worth, limit) for each in SHARES}
        return self._shared_out(venue, rows, queues, limit)

    def _all_sound(self, rows: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
        """Tell which accounts are sound in all their pools."""
        sound = np.ones(count, dtype=np.bool_)
        # Isolated rows share the standing of their cross row and have none of their own.
        doubtful = np.flatnonzero(~self._table.sound[:count] & (self._table.owner_row[:count] == np.arange(count)))
        sound[self._table.main_row[doubtful]] = False
        return np.asarray(sound[rows])

    @staticmethod
    def _best(candidates: NDArray[np.int64], worth: Array, limit: int) -> list[int]:
        if candidates.size > limit:
            candidates = np.sort(candidates[np.argpartition(-worth[candidates], limit)[:limit]])
        order = np.argsort(-worth[candidates], kind="stable")
        best: list[int] = candidates[order].tolist()
        return best

    def _shared_out(self, venue: str, rows: NDArray[np.int64], queues: dict[int, list[int]], limit: int) -> list[PollDemand]:
        """Take from the kind that has had least of its share so far, until the list is long enough."""
        active = [kind for kind, queue in queues.items() if queue]
        # What a kind did not need while it had nothing to ask is gone.
        least = min(self._served[kind] / SHARES[kind] for kind in active) if active else 0.0
        for kind, share in SHARES.items():
            if kind not in active:
                self._served[kind] = max(self._served[kind], least * share)
        served = dict(self._served)
        places = dict.fromkeys(active, 0)
        demands: list[PollDemand] = []
        while active and len(demands) < limit:
            kind = min(active, key=lambda each: served[each] / SHARES[each])
            demand = self._demand(venue, int(rows[queues[kind][places[kind]]]), kind)
            demands.append(demand)
            served[kind] += demand.weight
            places[kind] += 1
            if places[kind] == len(queues[kind]):
                active.remove(kind)
        return demands

    def _demand(self, venue: str, row: int, kind: int) -> PollDemand:
        table = self._table
        is_unified = bool(table.mode[row] == MODE_UNIFIED)
        # The margin of a unified account hangs on all pools; elsewhere those count in which it was seen.
        pools = ("", *self._dexes.get(venue, ())) if is_unified else ("", *table.pools.get(row, {}))
        question = AccountQuestion(table.name(row)[1], pools, mode=kind == MODE, balances=is_unified)
        return PollDemand(venue, question, kind)

    def note_asked(self, demand: PollDemand, now_ns: int) -> None:
        """Remember that and when an account was asked for."""
        row = self._table.row_of(demand.venue, demand.question.account, create=False)
        if row is not None:
            self._table.asked_ns[row] = now_ns
        self._served[demand.kind] += demand.weight
