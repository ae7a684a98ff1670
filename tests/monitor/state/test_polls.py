"""Whom to ask next: what is known stays true, what was lost comes back, what is new is looked at, and nobody starves."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from connectors.hyperliquid_requests import account_requests
from connectors.venue import AccountQuestion
from monitor.state.polls import DISCOVER, MODE, REFRESH, RESTORE, SHARES, PollDemand, PollPlanner
from tests.monitor.state.desk import NS, VENUE, Desk, ns, position

WEIGHT_PER_MINUTE = 1_080


class Room:
    """A desk and its planner."""

    def __init__(self, dexes: Mapping[str, tuple[str, ...]] | None = None, accounts_max: int = 1_000) -> None:
        self.desk = Desk(accounts_max)
        self.planner = PollPlanner(self.desk.table, dexes or {})

    def plan(self, now_s: float, limit: int = 10, *, pause_s: float = 5.0) -> list[PollDemand]:
        return self.planner.plan(VENUE, ns(now_s), limit, pause_ns=round(pause_s * NS))

    def next(self, now_s: float, limit: int = 10) -> list[str]:
        """Plan, and ask all of it."""
        demands = self.plan(now_s, limit)
        for demand in demands:
            self.planner.note_asked(demand, ns(now_s))
        return [demand.question.account for demand in demands]

    def add(self, account: str, *, trigger: float = 50.0, size: float = 1.0, at_s: float = 100.0) -> None:
        """A long that is liquidated at ``trigger``, while the price is 100."""
        self.desk.known(account, -trigger * size * 0.9875, position(size), at_s=at_s)
        self.desk.table.legs.sweep()


def test_polls_go_to_the_closest_of_equal_age_and_to_the_oldest_of_equal_closeness() -> None:
    room = Room()
    room.add("0xfar", trigger=50.0)
    room.add("0xnear", trigger=98.0)
    assert room.next(200.0) == ["0xnear", "0xfar"]
    room = Room()
    room.add("0xyoung", trigger=90.0, at_s=150.0)
    room.add("0xold", trigger=90.0, at_s=100.0)
    assert room.next(200.0) == ["0xold", "0xyoung"]


def test_the_larger_of_two_that_are_as_old_and_as_close_comes_first() -> None:
    room = Room()
    room.add("0xsmall", size=10.0)
    room.add("0xlarge", size=10_000.0)
    assert room.next(200.0) == ["0xlarge", "0xsmall"]


def test_far_accounts_are_polled_too_once_they_are_old_enough() -> None:
    room = Room()
    room.add("0xfar", trigger=50.0, at_s=1.0)
    room.add("0xnear", trigger=95.0, at_s=195.0)
    assert room.next(200.0, limit=1) == ["0xfar"]


def test_an_account_that_is_waited_for_is_not_asked_for_again_at_once() -> None:
    room = Room()
    room.add("0xa")
    assert room.next(200.0) == ["0xa"]
    assert room.next(202.0) == []
    assert room.next(205.0) == ["0xa"]


def test_a_doubtful_account_that_was_answered_is_asked_again_without_a_pause() -> None:
    room = Room()
    room.add("0xa")
    assert room.next(200.0) == ["0xa"]
    room.desk.state("0xa", 0.0, position(1.0), at_s=201.0)
    assert room.next(201.5) == []
    room.desk.fill("0xa", 1.0, 50.0, 201.6, market=1)
    assert room.next(201.7) == ["0xa"]
    assert room.next(201.8) == []


def test_a_discovered_account_is_looked_at_and_its_mode_is_asked_once_it_turned_out_to_hold_something() -> None:
    room = Room()
    room.desk.fill("0xnew", 1.0, 100.0, 101.0)
    [first] = room.plan(110.0)
    assert (first.question, first.kind) == (AccountQuestion("0xnew", ("",)), DISCOVER)
    room.planner.note_asked(first, ns(110.0))
    room.desk.state("0xnew", 0.0, position(1.0), at_s=111.0)
    [second] = room.plan(111.5)
    assert (second.question, second.kind) == (AccountQuestion("0xnew", ("",), mode=True), MODE)
    room.planner.note_asked(second, ns(111.5))
    room.desk.known("0xnew", 0.0, position(1.0), at_s=112.0)
    assert room.plan(112.5) == []


def test_an_account_that_holds_nothing_is_not_worth_the_question_of_its_mode() -> None:
    room = Room()
    room.desk.state("0xnew", 0.0, at_s=100.0)
    [demand] = room.plan(110.0)
    assert (demand.question.mode, demand.kind) == (False, REFRESH)


def test_the_mode_is_asked_again_after_hours() -> None:
    room = Room()
    room.add("0xa", at_s=100.0)
    [soon], [later] = room.plan(3_600.0), room.plan(30_000.0)
    assert (soon.question.mode, later.question.mode) == (False, True)


def test_the_mode_of_an_account_with_isolated_positions_only_is_asked_too() -> None:
    room = Room()
    room.desk.state("0xa", 0.0, position(1.0, isolated_cash_usd=-50.0))
    [demand] = room.plan(112.0)
    assert demand.question.mode


def test_an_account_is_asked_for_the_pools_it_was_seen_in_and_a_unified_one_for_all_and_its_balance() -> None:
    room = Room({VENUE: ("xyz", "flx")})
    room.add("0xmain")
    room.add("0xdex")
    room.desk.state("0xdex", 0.0, position(1.0, "xyz:TSLA"), pool="xyz")
    room.desk.state("0xshared", 0.0, position(1.0, mark_price=100.0))
    room.desk.mode("0xshared", "unified")
    asked = {demand.question.account: demand.question for demand in room.plan(200.0)}
    assert asked == {
        "0xmain": AccountQuestion("0xmain", ("",)),
        "0xdex": AccountQuestion("0xdex", ("", "xyz")),
        "0xshared": AccountQuestion("0xshared", ("", "xyz", "flx"), balances=True),
    }


def test_the_weight_of_a_demand_is_that_of_its_requests() -> None:
    for pools in (("",), ("", "xyz")):
        for mode in (False, True):
            for balances in (False, True):
                question = AccountQuestion("0x" + "a" * 40, pools, mode=mode, balances=balances)
                demand = PollDemand(VENUE, question, REFRESH)
                assert demand.weight == sum(request.weight for request in account_requests(question))


def test_a_pool_that_is_in_doubt_has_its_account_restored() -> None:
    room = Room()
    room.add("0xa")
    room.desk.state("0xa", 0.0, position(1.0, "xyz:TSLA"), pool="xyz")
    room.add("0xb")
    assert {demand.kind for demand in room.plan(200.0)} == {REFRESH}
    room.desk.fill("0xa", 1.0, 20.0, 199.0, market=2)
    assert {demand.kind for demand in room.plan(200.0)} == {REFRESH}, "that fill explains itself"
    room.desk.table.sound[room.desk.table.pools[room.desk.row("0xa")]["xyz"]] = False
    assert {demand.question.account: demand.kind for demand in room.plan(200.0)} == {"0xa": RESTORE, "0xb": REFRESH}


def test_accounts_that_a_feed_tells_of_are_not_asked_for() -> None:
    room = Room()
    room.desk.fed("0xfed", 1, 0.0, position(1.0))
    room.desk.changes.lose_feed("desk")
    assert room.plan(5_000.0) == []


def test_an_account_whose_position_has_no_price_is_asked_for_like_others() -> None:
    room = Room()
    room.add("0xa")
    room.desk.tick(1, math.nan)
    room.desk.known("0xdark", 0.0, position(1.0), position(1.0, "ETH"))
    room.desk.table.legs.sweep()
    assert sorted(room.next(200.0, limit=2)) == ["0xa", "0xdark"]
    for number in range(20):
        room.add(f"0x{number}", at_s=200.0)
    asked = Counter(name for step in range(60) for name in room.next(205.0 + 5.0 * step, limit=2))
    # How far it is from liquidation is not known, so it is as urgent as one that is far: half as much as the others.
    assert asked["0xdark"] >= 2
    assert asked["0xdark"] == pytest.approx(120 / 20.5 / 2, abs=1.0)


def test_a_pinned_account_is_polled_although_nobody_has_ever_seen_it() -> None:
    room = Room(accounts_max=50_000)
    for number in range(5_000):
        room.desk.fill(f"0x{number}", 1.0, 100.0, 100.0)
    room.desk.table.pin(VENUE, "0xpinned")
    for number in range(5_000, 10_000):
        room.desk.fill(f"0x{number}", 1.0, 100.0, 100.0)
    assert "0xpinned" in room.next(101.0, limit=5)


def test_no_demand_where_there_is_nobody_or_no_room() -> None:
    room = Room()
    assert room.plan(100.0) == []
    room.add("0xa")
    assert room.plan(200.0, limit=0) == []
    assert room.planner.plan("binance", ns(200.0), 10, pause_ns=NS) == []


def test_kinds_get_their_shares_and_what_one_does_not_need_goes_to_the_others() -> None:
    room = Room(accounts_max=100_000)
    for number in range(3_000):
        room.add(f"0xsound{number}")
        room.desk.fill(f"0xnew{number}", 1.0, 100.0, 100.0)
    for number in range(3_000):
        room.desk.state(f"0xmode{number}", 0.0, position(1.0))
        room.desk.known(f"0xlost{number}", 0.0, position(1.0))
        room.desk.fill(f"0xlost{number}", 1.0, 50.0, 101.0, market=1)
    spent: Counter[int] = Counter()
    for step in range(60):
        for demand in room.plan(200.0 + step, limit=100):
            room.planner.note_asked(demand, ns(200.0 + step))
            spent[demand.kind] += demand.weight
    total = sum(spent.values())
    assert {kind: spent[kind] / total for kind in SHARES} == pytest.approx(SHARES, abs=0.03)
    # Nobody waits for its mode any more: the others take over what it does not use.
    for number in range(3_000):
        room.desk.mode(f"0xmode{number}", "standard", at_s=200.0)
    kinds = Counter(demand.kind for demand in room.plan(270.0, limit=200))
    assert kinds[MODE] == 0
    assert kinds[REFRESH] / 200 == pytest.approx(SHARES[REFRESH] / 0.8, abs=0.05)


class Market:
    """Minutes of a venue whose accounts answer a second later: who is refreshed how often when the tape brings ever new ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.room = Room(accounts_max=20_000)
        self.now_s = 1_000.0
        self.answers: list[tuple[float, PollDemand]] = []
        self.weight = 0.0
        # Forty whales hold most, as they do: four thousand accounts altogether.
        self.size = {f"0xw{number}": 2_000.0 for number in range(40)} | {f"0xs{number}": 1.0 for number in range(4_000)}
        self.trigger = {name: self.random.uniform(55.0, 97.0) for name in self.size}
        for name in self.size:
            self.tell(name, "standard")
        self.strangers = 0
        self.room.desk.table.legs.sweep()

    def tell(self, name: str, mode: str | None) -> None:
        size, desk = self.size.get(name, 0.5), self.room.desk
        desk.state(name, -self.trigger.get(name, 60.0) * size * 0.9875, position(size), at_s=self.now_s)
        if mode is not None:
            desk.mode(name, "standard", at_s=self.now_s)

    def second(self, strangers: int, broken: int) -> None:
        self.now_s += 1.0
        desk = self.room.desk
        for _ in range(strangers):
            self.strangers += 1
            desk.fill(f"0xn{self.strangers}", 1.0, 100.0, self.now_s)
        for name in self.random.sample(sorted(self.size), broken):
            desk.fill(name, 1.0, 50.0, self.now_s, market=1)
        due = [demand for at_s, demand in self.answers if at_s <= self.now_s]
        self.answers = [(at_s, demand) for at_s, demand in self.answers if at_s > self.now_s]
        for demand in due:
            self.tell(demand.question.account, "standard" if demand.question.mode else None)
        self.weight += WEIGHT_PER_MINUTE / 60.0
        for demand in self.room.plan(self.now_s, 20, pause_s=10.0):
            if self.weight <= 0.0:
                break
            self.weight -= demand.weight
            self.room.planner.note_asked(demand, ns(self.now_s))
            self.answers.append((self.now_s + 1.0, demand))
        if round(self.now_s) % 5 == 0:
            desk.table.legs.sweep()

    def coverage(self, age_s: float) -> float:
        [share] = self.room.desk.table.poll_coverage(VENUE, ns(self.now_s), [round(age_s * NS)])
        return share

    def live_share(self) -> float:
        table = self.room.desk.table
        rows = np.array([self.room.desk.row(name) for name in self.size])
        weights = np.array(list(self.size.values()))
        return float(weights[table.is_live(rows, ns(self.now_s), 600 * NS)].sum() / weights.sum())


def test_the_notional_stays_covered_under_a_flood_of_new_and_broken_accounts_and_questions() -> None:
    """Ten virtual minutes at 1,080 weights: each second 40 strangers and 10 accounts that break, eleven times what can be asked."""
    market = Market(1)
    lowest = 1.0
    for second in range(600):
        market.second(strangers=40, broken=10)
        if second >= 120:
            lowest = min(lowest, market.coverage(300.0))
    # Forty whales hold 95 % of the notional and are refreshed with 0.4 of the weight: 216 polls a minute.
    assert lowest > 0.9
    # Each whale breaks every seven minutes and is restored before two thirds of those that are as old.
    assert market.live_share() > 0.7


def test_without_a_flood_all_that_is_known_is_refreshed() -> None:
    market = Market(2)
    for _ in range(540):
        market.second(strangers=0, broken=0)
    # 540 polls a minute for 4,040 accounts, the whales four and a half times as often: eight minutes for all, two for the whales.
    assert market.coverage(150.0) > 0.75
    assert market.coverage(300.0) > 0.95
    assert market.live_share() == 1.0
    table, desk = market.room.desk.table, market.room.desk
    age_s = {name: market.now_s - table.polled_ns[desk.row(name)] / 1e9 for name in market.size}
    near = [age for name, age in age_s.items() if market.trigger[name] > 90.0]
    far = [age for name, age in age_s.items() if market.trigger[name] < 70.0]
    assert max(near) < 300.0
    assert np.median(near) < 0.3 * np.median(far)


def test_a_plan_over_a_hundred_thousand_accounts_takes_milliseconds() -> None:
    """It is made four times a second beside the event loop."""
    room = Room({VENUE: ("xyz",)}, accounts_max=200_000)
    table = room.desk.table
    for number in range(100_000):
        row = table.row_of(VENUE, f"0x{number}", create=True)
        assert row is not None
        table.legs.add(row, number % 2, 1.0)
        pool = table.cross_row(row, "xyz", create=True)
        assert pool is not None
        table.legs.add(pool, 2, 1.0)
    table.polled_ns[:], table.mode[:] = ns(100.0), 1
    table.legs.sweep()
    took = []
    for step in range(5):
        began = time.perf_counter()
        assert len(room.plan(1_000.0 + step, limit=100)) == 100
        took.append(time.perf_counter() - began)
    assert min(took) < 0.1, f"{min(took):.3f} s"
