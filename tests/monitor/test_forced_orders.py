"""What forced orders bring to the market: hedges net, inverse contracts in coins, collateral not at all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from connectors.events import Contract, MarginTier
from monitor.clusters import make_grid, map_triggers
from monitor.forced_orders import base_sizes, first_of_account, forced_orders
from monitor.margin import TierTable, build_tier_table
from monitor.state.legs import LegTable
from monitor.triggers import Legs, Sweep, find_triggers, value_legs

FLAT = (MarginTier(0.0, 0.01, 0.0),)
PRICES = [100.0, 100.0, 10.0]
CONTRACTS: list[Contract] = ["linear", "inverse", "asset"]
TIERS = build_tier_table([FLAT, FLAT, ()], CONTRACTS)
LINEAR_ONLY = build_tier_table([FLAT])


class Book:
    """Accounts in a leg table, swept at the prices above."""

    def __init__(self, tiers: TierTable = TIERS) -> None:
        self.table = LegTable()
        self.table.set_terms(tiers, {(2, 0): 0.5} if tiers.contract is not None else {}, {})
        for market in range(tiers.rate.shape[0]):
            self.table.set_price(market, PRICES[market])

    def hold(self, cash: float, *legs: tuple[int, float], entry: float = 100.0) -> int:
        row = self.table.new_row()
        self.table.cash_usd[row] = cash
        for market, size in legs:
            self.table.add(row, market, size, entry_price=entry, is_holding=market == 2)
        self.table.settle(row)
        return row

    def orders(self, market: int) -> tuple[Legs, Sweep, Legs, Sweep]:
        """Return the legs of a market as they are and their sweep, and both as they reach the market."""
        self.table.sweep()
        legs = self.table.column(market).legs(market)
        price = np.full(legs.size.size, PRICES[market])
        value, trigger = np.empty(price.size), np.empty(price.size)
        value_legs(legs, price, self.table.tiers, out=value)
        surplus = self.table.surplus_usd[legs.account]
        shock = surplus.copy()
        find_triggers(legs, price, value, self.table.tiers, shock=shock, trigger=trigger)
        swept = Sweep(surplus, trigger, shock)
        return legs, swept, *forced_orders(legs, swept, price, self.table.tiers)


def backlog_and_forced(book: Book, market: int) -> tuple[list[float], dict[str, float]]:
    """Return the backlog of both sides, and what is sold and bought within half of the price."""
    *_, orders, due = book.orders(market)
    prices = np.array(PRICES[: book.table.tiers.rate.shape[0]])
    mapped = map_triggers(orders, due, prices, make_grid(0.001, 0.5), np.array([market]))
    sells = mapped.near.size[mapped.near.size > 0.0].sum()
    buys = -mapped.near.size[mapped.near.size < 0.0].sum()
    return mapped.backlog_base[0].tolist(), {"sold": float(sells), "bought": float(buys)}


def test_plain_legs_are_closed_as_they_stand_and_nothing_is_copied() -> None:
    book = Book(LINEAR_ONLY)
    book.hold(-800.0, (0, 10.0))
    book.hold(600.0, (0, -5.0))
    legs, swept, orders, due = book.orders(0)
    assert orders is legs
    assert due is swept
    assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 10.0, "bought": 5.0})


def test_the_sides_of_a_hedge_are_closed_against_one_another() -> None:
    for tiers in (LINEAR_ONLY, TIERS):
        book = Book(tiers)
        book.hold(-400.0, (0, 10.0), (0, -4.0))
        assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 6.0, "bought": 0.0})
        book = Book(tiers)
        book.hold(800.0, (0, 4.0), (0, -10.0))
        assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 0.0, "bought": 6.0})


def test_a_hedge_counts_as_one_account_in_its_cluster() -> None:
    book = Book()
    book.hold(-400.0, (0, 10.0), (0, -4.0))
    *_, orders, due = book.orders(0)
    mapped = map_triggers(orders, due, np.array(PRICES), make_grid(0.001, 0.5), np.array([0]))
    assert mapped.counts.sum() == 1
    legs = book.table.column(0).legs(0)
    assert first_of_account(legs, book.table.tiers).sum() == np.count_nonzero(legs.size) - 1


def test_a_hedge_under_water_is_backlog_on_the_side_of_its_excess() -> None:
    book = Book()
    book.hold(-700.0, (0, 10.0), (0, -4.0))
    book.hold(390.0, (0, 4.0), (0, -8.0))
    assert backlog_and_forced(book, 0) == ([6.0, 4.0], {"sold": 0.0, "bought": 0.0})


def test_a_hedge_that_dies_of_its_maintenance_is_neither_backlog_nor_sold_into_a_rise() -> None:
    """Long 10 and short 9.95: the excess gains 0.05 per dollar of a rise, and maintenance takes 0.2."""
    book = Book()
    book.hold(17.0, (0, 10.0), (0, -9.95))
    _, swept, _, _ = book.orders(0)
    [dies] = np.unique(swept.trigger_price[:2])
    assert dies == pytest.approx(17.0 / (0.1995 - 0.05))
    assert dies > 100.0
    assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 0.0, "bought": 0.0})


def test_a_hedge_of_equal_sides_brings_nothing_to_the_market() -> None:
    book = Book()
    book.hold(30.0, (0, 10.0), (0, -10.0))
    book.hold(3.0, (0, 10.0), (0, -10.0))
    assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 0.0, "bought": 0.0})


def test_inverse_contracts_are_closed_in_coins_at_the_price_of_their_trigger() -> None:
    """1,000 USD long from 100 with 200 USD of margin: 200 + 1,000 (p / 100 - 1) = 10 at 81."""
    book = Book()
    book.hold(200.0, (1, 1_000.0))
    book.hold(200.0, (1, -1_000.0))
    legs, swept, orders, _ = book.orders(1)
    assert swept.trigger_price[:2] == pytest.approx([81.0, 119.0])
    assert orders.size[:2] == pytest.approx([1_000.0 / 81.0, -1_000.0 / 119.0])
    backlog, forced = backlog_and_forced(book, 1)
    assert backlog == [0.0, 0.0]
    assert forced == pytest.approx({"sold": 1_000.0 / 81.0, "bought": 1_000.0 / 119.0})
    assert base_sizes(legs, np.full(legs.size.size, 100.0), TIERS)[:2] == pytest.approx([10.0, -10.0])


def test_inverse_contracts_under_water_are_backlog_at_the_present_price() -> None:
    book = Book()
    book.hold(5.0, (1, 1_000.0))
    assert backlog_and_forced(book, 1) == ([10.0, 0.0], {"sold": 0.0, "bought": 0.0})


def test_collateral_is_no_position() -> None:
    book = Book()
    book.hold(-120.0, (2, 10.0), (0, 1.0))
    book.hold(50.0, (2, -4.0))
    *_, orders, due = book.orders(2)
    assert not orders.size.any()
    assert np.isnan(due.shock).all()
    assert backlog_and_forced(book, 2) == ([0.0, 0.0], {"sold": 0.0, "bought": 0.0})
    assert backlog_and_forced(book, 0) == ([0.0, 0.0], {"sold": 1.0, "bought": 0.0})


def test_accounts_that_are_not_live_bring_nothing() -> None:
    book = Book()
    for cash in (math.nan, math.nan):
        book.hold(cash, (0, 10.0), (0, -4.0))
        book.hold(cash, (1, 1_000.0))
    for market in (0, 1):
        assert backlog_and_forced(book, market) == ([0.0, 0.0], {"sold": 0.0, "bought": 0.0})


def test_the_sweep_and_the_legs_that_are_given_stay_as_they_are() -> None:
    book = Book()
    book.hold(-700.0, (0, 10.0), (0, -4.0))
    legs, swept, orders, due = book.orders(0)
    assert sorted(legs.size[legs.size != 0.0]) == [-4.0, 10.0]
    assert np.isnan(swept.shock[:2]).all()
    assert orders.size is not legs.size
    assert due.shock is not swept.shock
