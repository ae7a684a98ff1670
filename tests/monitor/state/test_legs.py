"""What ticks and fills add up equals a full sweep and a slow scalar account, whatever the history; rows and slots come back."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connectors.events import MarginTier
from monitor.margin import TierTable, build_tier_table
from monitor.state import legs as legs_module
from monitor.state.legs import LegTable
from monitor.triggers import GENERAL, Legs, sweep
from tests.monitor.state.walks import Leg, Terms, check_legs, scalar_surplus

TIERED = (MarginTier(0.0, 0.0125, 0.0), MarginTier(500.0, 0.025, 6.25), MarginTier(5_000.0, 0.1, 381.25))
FLAT = (MarginTier(0.0, 0.02, 0.0),)
COINS = (MarginTier(0.0, 0.01, 0.0), MarginTier(2.0, 0.05, 0.08))
"""Of an inverse contract: bounds and deductions in the coin."""

CHOICES = {
    "linear": (TIERED, FLAT, ()),
    "inverse": (COINS, FLAT, ()),
    "asset": ((),),
}


def table_of(terms: list[Terms]) -> TierTable:
    contracts = [item.contract for item in terms]
    return build_tier_table([item.tiers for item in terms], None if set(contracts) == {"linear"} else contracts)


def apply_terms(legs: LegTable, terms: list[Terms]) -> None:
    ratios = {(market, 0): item.ratio for market, item in enumerate(terms) if item.ratio is not None}
    legs.set_terms(table_of(terms), ratios, {})


def made(*terms: Terms) -> LegTable:
    legs = LegTable()
    apply_terms(legs, list(terms))
    return legs


def hold(legs: LegTable, cash: float, *held: Leg) -> int:
    row = legs.new_row()
    legs.cash_usd[row] = cash
    for leg in held:
        legs.add(row, leg.market, leg.size, entry_price=leg.entry_price, is_holding=leg.is_holding)
    legs.settle(row)
    return row


def swept(legs: LegTable) -> float:
    return legs.sweep().largest_ratio


some_terms = st.sampled_from(sorted(CHOICES)).flatmap(
    lambda contract: st.builds(
        Terms,
        contract=st.just(contract),
        tiers=st.sampled_from(CHOICES[contract]),
        ratio=st.sampled_from((None, 0.0, 0.5, 0.9)) if contract == "asset" else st.none(),
    )
)
sizes = st.floats(0.001, 200.0).flatmap(lambda size: st.sampled_from((size, -size)))
prices = st.one_of(st.floats(0.5, 2_000.0), st.just(math.nan))


class Histories(RuleBasedStateMachine):
    """Legs come, grow, shrink and go in markets of all kinds, prices tick and vanish, and terms change under them."""

    def __init__(self) -> None:
        super().__init__()
        self.legs = LegTable()
        self.cash: dict[int, float] = {}
        self.held: dict[int, dict[tuple[int, int], Leg]] = {}
        self.prices: list[float] = []
        self.terms: list[Terms] = []

    @initialize(terms=st.lists(some_terms, min_size=2, max_size=4))
    def begin(self, terms: list[Terms]) -> None:
        self.terms = terms
        self.prices = [100.0] * len(terms)
        apply_terms(self.legs, terms)
        for market in range(len(terms)):
            self.legs.set_price(market, 100.0)
        for number in range(3):
            self.open_row(1_000.0 * number)
            for market, item in enumerate(terms):
                self.put(number + 1, Leg(market, 5.0 - 3.0 * number, 90.0, item.contract == "asset"))

    def pick(self, data: st.DataObject) -> tuple[int, tuple[int, int]]:
        row = data.draw(st.sampled_from(sorted(row for row, held in self.held.items() if held)))
        return row, data.draw(st.sampled_from(sorted(self.held[row])))

    @rule(cash=st.one_of(st.floats(-1e5, 1e5), st.just(math.nan)))
    def open_row(self, cash: float) -> None:
        row = self.legs.new_row()
        assert row not in self.cash
        self.cash[row], self.held[row] = cash, {}
        self.legs.cash_usd[row] = cash
        self.legs.settle(row)

    @precondition(lambda self: self.cash)
    @rule(data=st.data(), size=sizes, entry=st.one_of(st.floats(1.0, 500.0), st.just(math.nan)), is_odd=st.booleans())
    def add(self, data: st.DataObject, size: float, entry: float, is_odd: bool) -> None:
        row = data.draw(st.sampled_from(sorted(self.cash)))
        market = data.draw(st.integers(0, len(self.terms) - 1))
        is_holding = (self.terms[market].contract == "asset") != (is_odd and data.draw(st.booleans()))
        self.put(row, Leg(market, size, entry, is_holding))

    def put(self, row: int, leg: Leg) -> None:
        slot = self.legs.add(row, leg.market, leg.size, entry_price=leg.entry_price, is_holding=leg.is_holding)
        assert (leg.market, slot) not in {place for held in self.held.values() for place in held}
        self.held[row][leg.market, slot] = leg
        self.legs.settle(row)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), size=sizes, entry=st.floats(1.0, 500.0), paid=st.floats(-1e4, 1e4))
    def fill(self, data: st.DataObject, size: float, entry: float, paid: float) -> None:
        row, (market, slot) = self.pick(data)
        leg = self.held[row][market, slot]
        if leg.is_holding:
            return
        self.legs.resize(market, slot, size, entry)
        self.held[row][market, slot] = leg._replace(size=size, entry_price=entry)
        self.cash[row] += paid
        self.legs.cash_usd[row] += paid
        self.legs.settle(row)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        row, (market, slot) = self.pick(data)
        self.legs.remove(row, market, slot)
        del self.held[row][market, slot]
        self.legs.settle(row)

    @precondition(lambda self: len(self.cash) > 2)
    @rule(data=st.data(), is_left=st.booleans())
    def clear(self, data: st.DataObject, is_left: bool) -> None:
        row = data.draw(st.sampled_from(sorted(self.cash)))
        self.legs.clear(row)
        self.held[row] = {}
        if is_left:
            self.legs.free_row(row)
            del self.cash[row], self.held[row]
        else:
            self.legs.settle(row)

    @rule(factors=st.lists(st.sampled_from((0.05, 0.5, 0.99, 1.01, 2.0, 20.0)), min_size=1, max_size=4))
    def ticks(self, factors: list[float]) -> None:
        """Moves of all prices that are known, within what a price can be."""
        for factor in factors:
            for market, price in enumerate(self.prices):
                if 0.5 <= price * factor <= 2_000.0:
                    self.prices[market] = price * factor
                    self.legs.set_price(market, price * factor)
                    self.running_sums_are_right()

    @rule(data=st.data(), price=prices)
    def tick(self, data: st.DataObject, price: float) -> None:
        market = data.draw(st.integers(0, len(self.terms) - 1))
        self.prices[market] = price
        self.legs.set_price(market, price)

    @rule(data=st.data(), terms=some_terms)
    def change_terms(self, data: st.DataObject, terms: Terms) -> None:
        market = data.draw(st.integers(0, len(self.terms)))
        if market == len(self.terms):
            self.prices.append(math.nan)
            self.terms = [*self.terms, terms]
        else:
            self.terms = [terms if place == market else item for place, item in enumerate(self.terms)]
        apply_terms(self.legs, self.terms)

    @rule()
    def sweep(self) -> None:
        assert self.legs.sweep().largest_ratio <= 1e-9

    @invariant()
    def running_sums_are_right(self) -> None:
        if self.legs.outdated:
            # As the engine does before it looks at anything.
            assert self.legs.sweep().largest_ratio <= 1e-9
        for row, cash in self.cash.items():
            expected, gross = scalar_surplus(cash, self.held[row].values(), self.prices, self.terms)
            assert self.legs.surplus_usd[row] == pytest.approx(expected, abs=1e-9 * max(gross, 2_000.0), nan_ok=True)

    @invariant()
    def every_list_is_whole(self) -> None:
        check_legs(self.legs)

    def teardown(self) -> None:
        self.legs.sweep()
        for row, cash in self.cash.items():
            expected, gross = scalar_surplus(cash, self.held[row].values(), self.prices, self.terms)
            assert self.legs.surplus_usd[row] == pytest.approx(expected, abs=1e-11 * max(gross, 1.0), nan_ok=True)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


# ------------------------------------------------------------------------------------------------------------------ by hand


def test_a_tick_over_a_tier_and_back_leaves_no_trace() -> None:
    legs = made(Terms(tiers=TIERED))
    row = hold(legs, 100.0, Leg(0, 10.0))
    for price in (10.0, 49.9, 50.0, 600.0, 50.0, 49.0, 10.0, 600.0, 20.0, 60.0, 50.0, 700.0, 300.0, 10.0):
        legs.set_price(0, price)
        if legs.outdated:
            legs.sweep()
        expected, _ = scalar_surplus(100.0, [Leg(0, 10.0)], [price], [Terms(tiers=TIERED)])
        assert legs.surplus_usd[row] == pytest.approx(expected, abs=1e-9)


def test_a_price_that_vanishes_makes_its_accounts_unknown_and_heals_when_it_is_back() -> None:
    legs = made(Terms(), Terms())
    both, other = hold(legs, 10.0, Leg(0, 1.0), Leg(1, 1.0)), hold(legs, 10.0, Leg(1, 1.0))
    for market, price in ((0, 100.0), (1, 50.0)):
        legs.set_price(market, price)
    legs.sweep()
    legs.set_price(0, math.nan)
    legs.set_price(1, 60.0)
    assert math.isnan(legs.surplus_usd[both])
    assert legs.surplus_usd[other] == pytest.approx(10.0 + 60.0 * 0.99)
    legs.set_price(0, 90.0)
    assert legs.outdated, "what is unknown cannot be added to"
    drift = legs.sweep()
    assert legs.surplus_usd[both] == pytest.approx(10.0 + 90.0 * 0.99 + 60.0 * 0.99)
    assert drift.rows == 1
    assert drift.largest_ratio <= 1e-15


def test_new_margin_tables_are_no_drift_and_leave_no_old_figure_standing() -> None:
    legs = made(Terms(), Terms())
    legs.set_price(0, 100.0)
    legs.set_price(1, 100.0)
    changed, untouched = hold(legs, 0.0, Leg(0, 1.0)), hold(legs, 0.0, Leg(1, 1.0))
    legs.sweep()
    apply_terms(legs, [Terms(tiers=(MarginTier(0.0, 0.5, 0.0),)), Terms()])
    assert math.isnan(legs.surplus_usd[changed]), "the sum with the old table in it is not to be shown"
    assert legs.surplus_usd[untouched] == 99.0
    assert swept(legs) == 0.0
    assert legs.surplus_usd[changed] == 50.0


def test_terms_that_say_nothing_new_cost_no_sweep() -> None:
    legs = made(Terms(tiers=TIERED), Terms("asset", (), 0.5))
    hold(legs, 0.0, Leg(0, 1.0), Leg(1, 1.0, is_holding=True))
    legs.sweep()
    apply_terms(legs, [Terms(tiers=TIERED), Terms("asset", (), 0.5)])
    assert not legs.outdated
    apply_terms(
        legs,
        [
            Terms(tiers=TIERED),
            Terms("asset", (), 0.5),
            Terms("inverse", COINS),
            Terms(tiers=(*TIERED, MarginTier(1e6, 0.2, 100_381.25))),
        ],
    )
    assert not legs.outdated, "a new market, or a table with more columns, changes nothing for those there are"


def test_a_haircut_that_changes_in_the_same_dictionary_is_noticed() -> None:
    legs = LegTable()
    ratios = {(0, 0): 0.5}
    tiers = build_tier_table([()], ["asset"])
    legs.set_terms(tiers, ratios, {})
    legs.set_price(0, 10.0)
    row = hold(legs, 0.0, Leg(0, 2.0, is_holding=True))
    assert legs.surplus_usd[row] == 10.0
    ratios[0, 0] = 0.25
    legs.set_terms(tiers, ratios, {})
    legs.sweep()
    assert legs.surplus_usd[row] == 5.0


def test_a_lending_category_without_a_ratio_of_its_own_takes_the_ordinary_one() -> None:
    legs = LegTable()
    tiers = build_tier_table([(), ()], ["asset", "asset"])
    legs.set_terms(tiers, {(0, 0): 0.5, (0, 7): 0.9, (1, 7): 0.8}, {})
    for market in (0, 1):
        legs.set_price(market, 10.0)
    rows = {}
    for category in (0, 7, 8):
        rows[category] = legs.new_row()
        legs.cash_usd[rows[category]] = 0.0
        legs.add(rows[category], 0, 1.0, is_holding=True, category=category)
        legs.add(rows[category], 0, -0.1, is_holding=True, category=category)
        legs.settle(rows[category])
    assert [legs.surplus_usd[row] for row in rows.values()] == pytest.approx([4.0, 8.0, 4.0])
    # The same after the terms were told again with a change elsewhere in the market.
    legs.set_terms(tiers, {(0, 0): 0.4, (0, 7): 0.9}, {rows[7]: 7, rows[8]: 8})
    legs.sweep()
    assert [legs.surplus_usd[row] for row in rows.values()] == pytest.approx([3.0, 8.0, 3.0])
    legs.add(rows[0], 1, 1.0, is_holding=True)
    legs.settle(rows[0])
    assert math.isnan(legs.surplus_usd[rows[0]]), "no ratio at all is unknown, not nothing"


def test_a_debt_counts_in_full_whatever_the_haircut() -> None:
    legs = made(Terms("asset", (), 0.5))
    legs.set_price(0, 10.0)
    assert legs.surplus_usd[hold(legs, 100.0, Leg(0, -3.0, is_holding=True))] == 70.0


def test_what_is_held_without_a_ratio_and_a_position_in_an_asset_are_worth_nothing_known() -> None:
    legs = made(Terms("asset", (), 0.5), Terms())
    for market in range(2):
        legs.set_price(market, 10.0)
    wrong = [Leg(0, 1.0), Leg(1, 1.0, is_holding=True)]
    rows = [hold(legs, 5.0, leg) for leg in wrong] + [hold(legs, 5.0, leg, leg) for leg in wrong]
    assert np.isnan(legs.surplus_usd[rows]).all()
    legs.sweep()
    assert np.isnan(legs.surplus_usd[rows]).all()
    # When the terms turn out to be others, the same legs are worth something.
    apply_terms(legs, [Terms(), Terms("asset", (), 0.5)])
    legs.sweep()
    assert legs.surplus_usd[rows] == pytest.approx([14.9, 10.0, 24.8, 15.0])


def test_the_coin_of_an_inverse_contract_is_held_at_its_price_and_counts_in_full() -> None:
    legs = made(Terms("inverse", FLAT))
    legs.set_price(0, 10.0)
    coin, long = Leg(0, 3.0, is_holding=True), Leg(0, 20.0, 8.0)
    row = hold(legs, 0.0, coin, long)
    for price in (10.0, 12.0, 7.0):
        legs.set_price(0, price)
        expected, _ = scalar_surplus(0.0, [coin, long], [price], [Terms("inverse", FLAT)])
        assert legs.surplus_usd[row] == pytest.approx(expected, rel=1e-12)
    assert legs.sweep().largest_ratio < 1e-12


def test_a_contract_that_changes_its_kind_is_valued_by_the_new_one() -> None:
    legs = made(Terms())
    legs.set_price(0, 20.0)
    row = hold(legs, 5.0, Leg(0, 10.0, 10.0))
    for terms in (Terms("inverse", FLAT), Terms("asset", (), 0.5), Terms("inverse", COINS), Terms(tiers=())):
        apply_terms(legs, [terms])
        legs.sweep()
        expected, _ = scalar_surplus(5.0, [Leg(0, 10.0, 10.0)], [20.0], [terms])
        assert legs.surplus_usd[row] == pytest.approx(expected, nan_ok=True)
        check_legs(legs)


def test_a_hedge_stays_one_through_changes_of_its_contract() -> None:
    legs = made(Terms())
    legs.set_price(0, 10.0)
    row = hold(legs, 50.0, Leg(0, 3.0, 10.0), Leg(0, -2.0, 10.0))
    for terms in (Terms("asset", (), 0.5), Terms("inverse", FLAT), Terms(tiers=TIERED)):
        apply_terms(legs, [terms])
    legs.sweep()
    column = legs.column(0)
    assert [column.second[slot] for _, slot in legs.legs_of(row)] == [GENERAL, GENERAL]
    # Net long 1, maintenance of 5: 50 + p - 0.0125 * 5 p only reaches zero far above, where the third tier holds.
    assert legs.surplus_usd[row] == pytest.approx(50.0 + 10.0 - 0.0125 * 50.0)


def test_raising_the_mark_never_worsens_a_long_only_account() -> None:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.floats(0.001, 200.0)), min_size=1, max_size=6),
        st.floats(1.0, 1_000.0),
        st.floats(1.0, 5.0),
    )
    def raised(held: list[tuple[int, float]], price: float, factor: float) -> None:
        terms = [Terms(tiers=TIERED), Terms("inverse", FLAT), Terms("asset", (), 0.7)]
        legs = made(*terms)
        for market in range(3):
            legs.set_price(market, price)
        row = hold(legs, -100.0, *(Leg(market, size, 50.0, market == 2) for market, size in held))
        before = float(legs.surplus_usd[row])
        for market in range(3):
            legs.set_price(market, price * factor)
        assert legs.surplus_usd[row] >= before - 1e-9 * max(abs(before), 1.0)

    raised()


def test_churn_does_not_make_the_table_grow() -> None:
    legs = made(Terms(), Terms("inverse", FLAT))
    for market in (0, 1):
        legs.set_price(market, 10.0)
    for _ in range(3):
        rows = [hold(legs, 1.0, Leg(0, 1.0), Leg(1, 1.0, 5.0), Leg(0, -1.0)) for _ in range(100)]
        for row in reversed(rows):
            legs.clear(row)
            legs.free_row(row)
    size = legs.nbytes, legs.row_count, legs.column(0).count
    for round_number in range(20):
        rows = [hold(legs, 1.0, Leg(0, 1.0), Leg(1, 1.0, 5.0), Leg(0, -1.0)) for _ in range(100)]
        for row in rows[:: 1 if round_number % 2 else -1]:
            legs.clear(row)
            legs.free_row(row)
    assert (legs.nbytes, legs.row_count, legs.column(0).count) == size
    assert legs.leg_count == 0
    check_legs(legs)


def test_a_recycled_slot_is_plain_again() -> None:
    legs = made(Terms())
    legs.set_price(0, 100.0)
    hedge = hold(legs, 10.0, Leg(0, 1.0), Leg(0, -1.0))
    legs.clear(hedge)
    plain = hold(legs, -50.0, Leg(0, 1.0))
    [(market, slot)] = legs.legs_of(plain)
    assert legs.column(market).second[slot] == np.inf
    legs.sweep()
    assert legs.distance_ratio[plain] == pytest.approx(1.0 - 50.0 / 99.0)


def test_memory_per_leg_and_row_is_as_stated() -> None:
    legs = made(Terms())
    rows = [hold(legs, 1.0, Leg(0, 1.0)) for _ in range(20_000)]
    column = legs.column(0)
    assert legs_module.__doc__ is not None
    stated = {what: int(size) for size, what in re.findall(r"(\d+) B per (\w+)", legs_module.__doc__)}
    assert column.nbytes / column.size.size == stated["leg"]
    assert (legs.nbytes - column.nbytes) / legs.cash_usd.size == stated["row"]
    assert legs.nbytes / len(rows) <= 1.2 * sum(stated.values()) + 1.0
    assert sum(stated.values()) <= 100


# -------------------------------------------------------------------------------------------------------------- many legs


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_end_wherever_they_like(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several markets share a block, and one market takes several."""
    monkeypatch.setattr(legs_module, "BLOCK", block)
    compare_with_the_plain_sweep(np.random.default_rng(block), rows=40, legs=150)


def test_a_column_longer_than_a_block_is_swept_and_ticked_whole() -> None:
    compare_with_the_plain_sweep(np.random.default_rng(5), rows=70_000, legs=140_000)


def compare_with_the_plain_sweep(random: np.random.Generator, *, rows: int, legs: int) -> None:
    terms = [Terms(tiers=TIERED), Terms(tiers=FLAT), Terms(tiers=TIERED)]
    table = made(*terms)
    cash = random.uniform(-1e3, 1e4, rows)
    held = [table.new_row() for _ in range(rows)]
    table.cash_usd[held] = cash
    owner, market = random.integers(0, rows, legs), random.choice(3, legs, p=[0.9, 0.05, 0.05])
    # One leg per account and market, so that the plain sweep is right.
    _, first = np.unique(owner * 3 + market, return_index=True)
    owner, market = owner[first], market[first]
    size = random.uniform(-100.0, 100.0, first.size)
    for row, index, amount in zip(owner.tolist(), market.tolist(), size.tolist(), strict=True):
        table.add(held[row], index, amount)
    for moment in ([100.0, 20.0, 3.0], [90.0, 25.0, 3.3], [1.0, 400.0, 5.0]):
        for index, price in enumerate(moment):
            table.set_price(index, price)
        if table.outdated:
            table.sweep()
        at = np.array(held)
        parts = [table.column(index).legs(index) for index in range(3)]
        plain_legs = Legs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        assert not (plain_legs.second_tier_price == GENERAL).any()
        every = np.full(table.row_count, np.nan)
        every[at] = cash
        expected = sweep(plain_legs, every, np.array(moment), table.tiers)
        gross = np.bincount(
            plain_legs.account, weights=np.abs(plain_legs.size) * np.array(moment)[plain_legs.market], minlength=table.row_count
        )
        assert (np.abs(table.surplus_usd[at] - expected.surplus_usd[at]) <= 1e-9 * (gross[at] + np.abs(cash) + 1.0)).all()
        drift = table.sweep()
        assert drift.largest_ratio <= 1e-9
        assert drift.rows == rows
        nearest = np.full(table.row_count, np.inf)
        # Beyond a doubling a distance is not told any more: no fall goes that far.
        reach = np.where((expected.trigger_price > 0.0) & (np.abs(expected.shock) < 1.0), np.abs(expected.shock), np.inf)
        np.minimum.at(nearest, plain_legs.account, reach)
        nearest[0] = table.distance_ratio[0]
        assert table.distance_ratio[: table.row_count] == pytest.approx(nearest, rel=1e-6)


def test_gross_counts_what_is_known_and_takes_the_rest_for_nothing() -> None:
    """One position without a price must not hide the size of an account, nor that of everybody (see poll_coverage)."""
    legs = made(Terms(), Terms())
    legs.set_price(0, 100.0)
    row = hold(legs, 10.0, Leg(0, 5.0), Leg(1, 1.0))
    legs.sweep()
    assert math.isnan(legs.surplus_usd[row])
    assert legs.gross_usd[row] == pytest.approx(495.0)


def test_the_first_row_and_the_first_slot_of_the_first_market_are_like_all_others() -> None:
    legs = made(Terms())
    legs.set_price(0, 10.0)
    first = hold(legs, 1.0, Leg(0, 1.0))
    assert (first, list(legs.legs_of(first))) == (1, [(0, 0)])
    assert legs.has_legs(first)
    legs.remove(first, 0, 0)
    assert not legs.has_legs(first)
    assert legs.column(0).free == [0]
    check_legs(legs)


def test_legs_leave_the_list_from_its_head_its_middle_and_its_end() -> None:
    terms = [Terms()] * 3
    for gone in range(3):
        legs = made(*terms)
        row = hold(legs, 1.0, *(Leg(market, 1.0) for market in range(3)))
        market, slot = list(legs.legs_of(row))[gone]
        legs.remove(row, market, slot)
        check_legs(legs)
        assert {held for held, _ in legs.legs_of(row)} == set(range(3)) - {market}


def test_an_inverse_leg_without_an_entry_price_makes_its_account_unknown() -> None:
    legs = made(Terms("inverse", FLAT))
    legs.set_price(0, 10.0)
    rows = [hold(legs, 5.0, Leg(0, 100.0, entry)) for entry in (math.nan, 0.0, -3.0, 10.0)]
    assert np.isnan(legs.surplus_usd[rows]).tolist() == [True, True, True, False]


def test_a_side_of_a_hedge_that_is_filled_stays_one() -> None:
    legs = made(Terms())
    legs.set_price(0, 100.0)
    row = hold(legs, -100.0, Leg(0, 5.0), Leg(0, -1.0))
    [_, (market, slot)] = legs.legs_of(row)
    legs.resize(market, slot, 3.0, 100.0)
    legs.settle(row)
    check_legs(legs)
    legs.sweep()
    # -100 + 2 p = 0.01 * 4 p
    assert legs.distance_ratio[row] == pytest.approx(1.0 - 1.0 / 1.96)
