"""Accounts at a venue, sources that are late, lose and repeat, and one claim: what is shown as live is what an account is worth."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import PositionReport
from monitor.state.polls import PollPlanner
from tests.monitor.state.desk import FEED, PRICES, SYMBOLS, VENUE, Desk, ns, position
from tests.monitor.state.walks import Leg, check_table, scalar_surplus

PERPETUALS = (0, 1, 2)
KINDS = ("standard", "node", "unified", "fed")
POLLED = KINDS[:3]
STEP_S = 0.25


class Fill(NamedTuple):
    account: str
    market: int
    size: float
    price: float
    at_s: float
    start_size: float


class Answer(NamedTuple):
    """What a poll will have found: made when the venue looked, delivered when it arrives."""

    account: str
    pool: str
    cash: float
    positions: tuple[PositionReport, ...]
    at_s: float
    balance: float | None
    ticks: int


class Truth:
    """One account at the venue: cash by pool, or one for all, and positions by market, isolated ones with cash of their own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.cash = {"": 1_000.0, "xyz": 500.0}
        self.cross: dict[int, float] = {0: 10.0, 1: -10.0} | ({} if kind == "fed" else {2: 10.0})
        self.isolated: dict[int, tuple[float, float]] = {}
        self.sequence = 0
        self.unheard = False
        """Whether something was lost, and nothing has come since that could tell."""
        self.missing: dict[int, float] = {}
        """By market, when the last fill there was that nobody was told of and nothing has contradicted."""

    def pool_of(self, market: int) -> str:
        return "" if self.kind == "unified" else ("xyz" if market == 2 else "")

    def trade(self, market: int, size: float, price: float, *, isolated: bool) -> None:
        if market in self.isolated or (isolated and market not in self.cross):
            held, cash = self.isolated.pop(market, (0.0, 0.0))
            if held == 0.0:
                # Its margin moves over from the cross cash.
                self.cash[self.pool_of(market)] -= 50.0
                cash = 50.0
            cash -= size * price
            if held + size:
                self.isolated[market] = (held + size, cash)
            else:
                self.cash[self.pool_of(market)] += cash
            return
        self.cash[self.pool_of(market)] -= size * price
        after = self.cross.pop(market, 0.0) + size
        if after:
            self.cross[market] = after

    def size(self, market: int) -> float:
        return self.cross.get(market, self.isolated.get(market, (0.0, 0.0))[0])

    def positions(self, pool: str, prices: list[float]) -> tuple[PositionReport, ...]:
        here = [market for market in PERPETUALS if (market == 2) == (pool == "xyz")]
        cross = [
            position(self.cross[market], SYMBOLS[market], mark_price=prices[market]) for market in here if market in self.cross
        ]
        isolated = [
            position(size, SYMBOLS[market], mark_price=prices[market], isolated_cash_usd=cash)
            for market, (size, cash) in self.isolated.items()
            if market in here
        ]
        return (*cross, *isolated)

    def spot_usd(self, prices: list[float]) -> float:
        value = self.cash[""] + sum(size * prices[market] for market, size in self.cross.items())
        return value + sum(cash + size * prices[market] for market, (size, cash) in self.isolated.items())


class History:
    """A standard, a unified and a fed account trade; the tape and the answers come late, the feed loses and repeats."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.desk = Desk(dexes={VENUE: ("xyz",)})
        self.planner = PollPlanner(self.desk.table, {VENUE: ("xyz",)})
        self.prices = list(PRICES)
        self.truths = {kind: Truth(kind) for kind in KINDS}
        self.tape: list[Fill] = []
        self.answers: list[Answer] = []
        self.is_tape_lost = False
        self.ticks = 0
        self.parts: dict[tuple[str, str], int] = {}
        self.shown: dict[str, int] = {}
        """By kind of account, how often a figure was compared."""
        self.now_s = 100.0
        self.desk.mode("unified", "unified", self.now_s)
        self.desk.mode("standard", "standard", self.now_s)
        self.desk.mode("node", "standard", self.now_s)
        self.snapshot_of_feed()
        for kind in POLLED:
            self.ask(kind)
            self.deliver(self.answers)

    def later(self) -> float:
        self.now_s += STEP_S
        return self.now_s

    # -------------------------------------------------------------------------------------------------------- the venue

    def trade(self) -> None:
        """Somebody trades; mostly in what it holds, and mostly so that something is left."""
        kind, market = self.random.choice(sorted(self.truths)), self.random.choice(PERPETUALS)
        held = self.truths[kind].size(market)
        size = -held if held and not self.random.randrange(8) else self.random.choice((-3.0, -2.0, -1.0, 1.0, 2.0, 3.0))
        isolated = bool(self.random.randrange(2))
        if kind == "fed" and market == 2:
            return
        is_lost = not self.random.randrange(5)
        truth, at_s, price = self.truths[kind], self.later(), self.prices[market]
        start_size = truth.size(market)
        truth.trade(market, size, price, isolated=isolated)
        if kind == "fed":
            truth.sequence += 1
            truth.unheard |= is_lost
            if not is_lost:
                self.tell_delta(market)
            return
        if self.is_tape_lost:
            return
        if kind == "node" and is_lost:
            # Nobody says so, but the next fill in this market starts from another size.
            truth.missing[market] = at_s
        else:
            self.tape.append(Fill(kind, market, size, price, at_s, start_size))

    def tick(self) -> None:
        market, factor = self.random.choice(PERPETUALS), self.random.choice((0.5, 0.9, 1.0 / 0.9, 2.0))
        self.ticks += 1
        self.prices[market] *= factor
        self.desk.tick(market, self.prices[market])

    # ---------------------------------------------------------------------------------------------------------- the tape

    def hear_all(self) -> None:
        while self.tape:
            self.hear_tape()

    def hear_tape(self) -> None:
        if not self.tape:
            return
        account, market, size, price, at_s, start_size = self.tape.pop(0)
        truth = self.truths[account]
        start = start_size if account == "node" else self.random.choice((start_size, None))
        if at_s > truth.missing.get(market, math.inf):
            del truth.missing[market]
        self.desk.fill(account, size, price, at_s, market, start_size=start, received_s=self.later())

    def lose_tape(self) -> None:
        """What was on its way is lost, and so is what happens until the tape is back."""
        self.tape.clear()
        self.is_tape_lost = True
        self.desk.table.untold.add(VENUE)
        self.desk.table.invalidate(VENUE, ns(self.later()))

    def find_tape(self) -> None:
        if not self.is_tape_lost:
            return
        self.is_tape_lost = False
        self.desk.table.untold.discard(VENUE)
        self.desk.table.invalidate(VENUE, ns(self.later()))
        for kind in POLLED:
            self.truths[kind].missing.clear()

    def wait(self) -> None:
        """Long enough for fills to be forgotten; the tape itself is never that late."""
        self.hear_all()
        self.now_s += 20.0
        self.desk.fill("0xsomebody", 1.0, self.prices[0], self.now_s)

    # --------------------------------------------------------------------------------------------------------- the polls

    def ask_somebody(self) -> None:
        self.ask(self.random.choice(POLLED))

    def ask(self, kind: str) -> None:
        truth, at_s = self.truths[kind], self.later()
        row = self.desk.table.row_of(VENUE, kind, create=True)
        assert row is not None
        self.desk.table.asked_ns[row] = ns(at_s)
        # Nobody is asked again before the answer is there or given up.
        self.answers = [one for one in self.answers if one.account != kind]
        for pool in ("", "xyz"):
            cash = 1e9 if kind == "unified" else truth.cash[pool]
            self.answers.append(Answer(kind, pool, cash, truth.positions(pool, self.prices), at_s, None, self.ticks))
        if kind == "unified":
            self.answers.append(Answer(kind, "", 0.0, (), at_s, truth.spot_usd(self.prices), self.ticks))

    def answer(self) -> None:
        """Some of the answers come, in any order, and some of the tape between them; an answer that does not come, comes later."""
        for chosen in self.random.sample(self.answers, len(self.answers)):
            for _ in range(self.random.randrange(3)):
                self.hear_tape()
            if self.random.randrange(6):
                self.deliver([chosen])

    def deliver(self, answers: list[Answer]) -> None:
        self.answers = [one for one in self.answers if one not in answers]
        for one in answers:
            received_s = self.later()
            if one.balance is not None:
                self.desk.balances(one.account, received_s, USDC=one.balance)
                self.parts[one.account, "balance"] = one.ticks
            elif self.desk.state(one.account, one.cash, *one.positions, at_s=one.at_s, received_s=received_s, pool=one.pool):
                self.parts[one.account, one.pool] = one.ticks

    # ---------------------------------------------------------------------------------------------------------- the feed

    def tell_delta(self, market: int) -> None:
        truth = self.truths["fed"]
        is_isolated = market in truth.isolated
        size, cash = truth.isolated.get(market, (truth.cross.get(market, 0.0), math.nan))
        told = [position(size, SYMBOLS[market], isolated_cash_usd=cash if is_isolated else None)]
        self.desk.delta("fed", truth.sequence, *told, cash=truth.cash[""], at_s=self.now_s)
        self.heard()

    def heard(self) -> None:
        self.truths["fed"].unheard = False

    def snapshot_of_feed(self) -> None:
        truth = self.truths["fed"]
        truth.sequence += 1
        self.desk.fed("fed", truth.sequence, truth.cash[""], *truth.positions("", self.prices), at_s=self.later())
        self.heard()

    def empty_delta(self) -> None:
        truth = self.truths["fed"]
        truth.sequence += 1
        self.desk.delta("fed", truth.sequence, at_s=self.later())
        self.heard()

    def repeat_delta(self) -> None:
        truth, back = self.truths["fed"], self.random.randrange(4)
        if not truth.unheard:
            # What is delivered twice has the time that it had.
            told_ns = int(self.desk.table.as_of_ns[self.desk.row("fed")])
            self.desk.delta("fed", max(truth.sequence - back, 1), position(77.0), cash=1e6, at_s=told_ns / 1e9 - back * STEP_S)

    def interrupt_feed(self) -> None:
        self.desk.changes.lose_feed(FEED)
        self.heard()

    # --------------------------------------------------------------------------------------------------------- the claim

    def what_is_live_is_right(self) -> None:
        desk = self.desk
        for kind, truth in self.truths.items():
            if desk.table.row_of(VENUE, kind, create=False) is None or truth.unheard or truth.missing:
                continue
            if any(fill.account == kind for fill in self.tape):
                continue  # Being a moment late is not being wrong.
            for pool in ("",) if kind in {"unified", "fed"} else ("", "xyz"):
                shown = desk.surplus(kind, now_s=self.now_s, pool=pool)
                if math.isnan(shown):
                    continue
                if kind == "unified" and len({self.parts[kind, part] for part in ("", "xyz", "balance")}) > 1:
                    continue  # Its parts were seen at different prices.
                cross = [Leg(market, size) for market, size in truth.cross.items() if truth.pool_of(market) == pool]
                expected, gross = scalar_surplus(truth.cash[pool], cross, self.prices, desk.terms)
                self.shown[kind] = self.shown.get(kind, 0) + 1
                assert shown == pytest.approx(expected, abs=1e-9 * max(gross, 1e3)), f"{kind} {pool}"

    def the_table_is_whole(self) -> None:
        check_table(self.desk.table)

    def end(self) -> None:
        """Whatever has happened, one round of answers on a tape that runs makes everything live and right again."""
        self.lose_tape()
        self.find_tape()
        self.now_s += 20.0
        self.answers.clear()
        self.snapshot_of_feed()
        for kind in POLLED:
            self.ask(kind)
            self.deliver(self.answers)
        self.what_is_live_is_right()
        assert self.desk.counts(self.now_s).live == len(KINDS)
        assert self.desk.table.legs.sweep().largest_ratio <= 1e-9
        # Rows are there for what is held now, not for what was.
        assert self.desk.table.legs.leg_count == sum(len(truth.cross) + len(truth.isolated) for truth in self.truths.values())

    def run(self, steps: int) -> None:
        often = (self.trade, self.trade, self.trade, self.hear_tape, self.hear_tape, self.hear_all, self.ask_somebody, self.answer)
        sometimes = (self.tick, self.empty_delta, self.repeat_delta, self.find_tape, self.find_tape)
        seldom = (self.lose_tape, self.wait, self.snapshot_of_feed, self.interrupt_feed)
        ways = (*often * 4, *sometimes * 2, *seldom)
        for _ in range(steps):
            self.random.choice(ways)()
            self.what_is_live_is_right()
        self.the_table_is_whole()
        self.end()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 150))
def test_what_is_live_is_right_whatever_happens(seed: int, steps: int) -> None:
    history = History(seed)
    history.run(steps)


def test_the_claim_is_not_an_empty_one() -> None:
    """In these histories all kinds of account are live most of the time, and every reason for doubt comes up."""
    shown = dict.fromkeys(KINDS, 0)
    doubts = {"unexplained": 0, "contradicted": 0, "sequence_gaps": 0, "repeated": 0}
    for seed in range(60):
        history = History(seed)
        history.run(100)
        for kind in shown:
            shown[kind] += history.shown.get(kind, 0)
        for name in doubts:
            doubts[name] += getattr(history.desk.changes, name)
    assert min(shown.values()) > 1_000, shown
    assert min(doubts.values()) >= 10, doubts
