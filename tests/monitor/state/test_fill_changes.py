"""Fills carry positions and cash forward; one that does not explain itself makes the account unknown."""

from __future__ import annotations

import math

import pytest

from tests.monitor.state.desk import Desk, position


def test_a_fill_after_the_poll_carries_position_and_cash() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", -0.5, 110.0, 100.5)
    assert desk.sizes("0xa") == {"BTC": [1.5]}
    assert desk.surplus("0xa") == pytest.approx(1_000.0 + 55.0 + 150.0 * (1 - 0.0125))


def test_fees_are_paid_from_the_cash_and_rebates_go_there() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", 1.0, 100.0, 101.0, fee_usd=3.0)
    desk.fill("0xa", -1.0, 100.0, 102.0, fee_usd=-1.0)
    assert desk.surplus("0xa") == pytest.approx(998.0 + 200.0 * (1 - 0.0125))


def test_a_fill_whose_fee_was_paid_in_another_token_makes_the_account_unknown() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", 1.0, 100.0, 101.0, fee_usd=None)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.changes.unexplained == 1


def test_a_fill_that_the_poll_already_includes_is_not_applied_twice() -> None:
    desk = Desk()
    desk.fill("0xa", 2.0, 100.0, 99.0)
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", 2.0, 100.0, 100.0)
    assert desk.sizes("0xa") == {"BTC": [2.0]}


def test_fills_that_overtook_a_slow_poll_are_replayed_on_top_of_it() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(1.0), at_s=100.0)
    desk.fill("0xa", 1.0, 10.0, 105.0)
    desk.fill("0xa", 1.0, 20.0, 107.0)
    # The state at 106 s arrives after the fill at 107 s did.
    desk.known("0xa", -10.0, position(2.0), at_s=106.0, received_s=108.0)
    assert desk.sizes("0xa") == {"BTC": [3.0]}
    assert desk.surplus("0xa", now_s=108.0) == pytest.approx(-30.0 + 300.0 * (1 - 0.0125))


def test_a_split_of_a_position_over_two_fills_equals_one() -> None:
    once, twice = Desk(), Desk()
    for desk in (once, twice):
        desk.known("0xa", 1_000.0, position(3.0), position(-1.0, "ETH"))
    once.fill("0xa", 5.0, 90.0, 101.0)
    twice.fill("0xa", 2.0, 90.0, 101.0)
    twice.fill("0xa", 3.0, 90.0, 101.0)
    assert once.surplus("0xa") == pytest.approx(twice.surplus("0xa"), abs=1e-9)
    assert once.sizes("0xa") == twice.sizes("0xa")


def test_a_closed_position_frees_its_slot_for_the_next() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(0.3))
    desk.fill("0xa", -0.1, 100.0, 101.0)
    desk.fill("0xa", -0.2, 100.0, 102.0)
    assert desk.sizes("0xa") == {}
    assert desk.surplus("0xa") == pytest.approx(30.0), "rounding of what was closed must not stay as a position"
    slots = desk.table.legs.column(0).count
    desk.known("0xb", 0.0, position(1.0))
    assert desk.table.legs.column(0).count == slots


def test_a_position_that_turns_over_is_carried_through_zero() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(2.0, entry_price=80.0))
    desk.fill("0xa", -5.0, 90.0, 101.0)
    assert desk.sizes("0xa") == {"BTC": [-3.0]}
    assert desk.surplus("0xa") == pytest.approx(450.0 - 300.0 * 1.0125)
    assert entry(desk) == 90.0


@pytest.mark.parametrize(("size", "price", "expected"), [(2.0, 100.0, 90.0), (-1.0, 100.0, 80.0), (-3.0, 100.0, 100.0)])
def test_the_entry_price_is_averaged_kept_or_replaced(size: float, price: float, expected: float) -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(2.0, entry_price=80.0))
    desk.fill("0xa", size, price, 101.0)
    assert entry(desk) == pytest.approx(expected)


def entry(desk: Desk) -> float:
    [(market, slot)] = desk.table.legs.legs_of(desk.row("0xa"))
    return float(desk.table.legs.column(market).entry_price[slot])


def test_a_missing_entry_price_does_no_harm_to_a_linear_position() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(2.0))
    desk.fill("0xa", 1.0, 90.0, 101.0)
    assert math.isnan(entry(desk))
    assert desk.surplus("0xa") == pytest.approx(-90.0 + 300.0 * (1 - 0.0125))


def test_the_venues_own_liquidation_price_is_kept_until_the_position_changes() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0, liquidation_price=60.0))
    [(market, slot)] = desk.table.legs.legs_of(desk.row("0xa"))
    assert desk.table.legs.column(market).venue_price[slot] == 60.0
    desk.fill("0xa", 1.0, 100.0, 101.0)
    assert math.isnan(desk.table.legs.column(market).venue_price[slot])


def test_a_fill_in_a_new_market_makes_the_account_unknown_until_it_is_polled() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0))
    desk.fill("0xa", 1.0, 50.0, 101.0, market=1)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.changes.unexplained == 1
    assert desk.counts() == (1, 0, 1, 0)
    desk.known("0xa", 950.0, position(1.0), position(1.0, "ETH"), at_s=102.0)
    assert desk.counts(103.0) == (1, 1, 0, 0)


def test_a_fill_in_an_isolated_position_makes_the_account_unknown_until_it_is_polled() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0, isolated_cash_usd=-50.0))
    desk.fill("0xa", 1.0, 100.0, 101.0)
    assert math.isnan(desk.surplus("0xa"))


def test_a_fill_on_one_dex_leaves_the_other_pools_alone() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0))
    desk.state("0xa", 10.0, position(1.0, "xyz:TSLA"), pool="xyz")
    desk.fill("0xa", 1.0, 20.0, 101.0, market=2)
    assert desk.surplus("0xa") == pytest.approx(1_098.75)
    assert desk.surplus("0xa", pool="xyz") == pytest.approx(-10.0 + 38.0)
    desk.fill("0xa", 1.0, 50.0, 102.0, market=1)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xa", pool="xyz") == pytest.approx(28.0)


@pytest.mark.parametrize("start_size", [0.0, 1.0, -2.0, 2.0001])
def test_a_fill_that_contradicts_the_known_position_makes_the_account_unknown(start_size: float) -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", 1.0, 100.0, 101.0, start_size=start_size)
    assert math.isnan(desk.surplus("0xa"))
    assert (desk.changes.contradicted, desk.changes.unexplained) == (1, 0)
    assert desk.sizes("0xa") == {"BTC": [2.0]}, "nothing of it was applied"


def test_a_fill_of_an_own_node_that_comes_twice_contradicts_itself() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(2.0))
    desk.fill("0xa", 1.0, 100.0, 101.0, start_size=2.0)
    assert desk.surplus("0xa") == pytest.approx(900.0 + 300.0 * (1 - 0.0125))
    desk.fill("0xa", 1.0, 100.0, 101.0, start_size=2.0)
    assert math.isnan(desk.surplus("0xa"))


def test_a_fill_of_an_account_never_seen_discovers_it() -> None:
    desk = Desk()
    desk.fill("0xa", 1.0, 100.0, 101.0, start_size=7.0)
    assert desk.counts() == (1, 0, 0, 0)
    assert (desk.changes.contradicted, desk.changes.unexplained) == (0, 0)
    desk.known("0xa", 10.0, position(8.0), at_s=102.0)
    assert desk.surplus("0xa") == pytest.approx(810.0 - 10.0)


def test_a_fill_in_an_inverse_market_makes_the_account_unknown() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(500.0, "BTCUSD", entry_price=90.0))
    assert desk.surplus("0xa") == pytest.approx(1_000.0 + 500.0 * (100.0 / 90.0 - 1.0) - 5.0)
    desk.fill("0xa", 100.0, 100.0, 101.0, market=3)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.changes.unexplained == 1


def test_a_fill_of_an_account_in_hedge_mode_without_saying_which_side_makes_it_unknown() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(3.0, position_side="long"), position(-2.0, position_side="short"))
    desk.fill("0xa", -1.0, 100.0, 101.0)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.sizes("0xa") == {"BTC": [-2.0, 3.0]}
