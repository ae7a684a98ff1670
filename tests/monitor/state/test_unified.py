"""Unified accounts: a balance and the states of all pools make one account, a fill is carried once, and what is missing shows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from monitor.state.unified import UNIFIED_SKEW_NS
from tests.monitor.state.desk import NS, VENUE, Desk, position
from tests.monitor.state.walks import check_table


def unified(**at_s: Any) -> Desk:
    """Long 2 BTC and, isolated with 10 USD of its own, long 1 TSLA; 300 USDC."""
    desk = Desk()
    desk.mode("0xa", "unified")
    share(desk, **at_s)
    return desk


def share(desk: Desk, *, main_s: float = 100.0, dex_s: float = 100.0, balance_s: float = 100.0) -> None:
    desk.state("0xa", 1e9, position(2.0, mark_price=100.0), at_s=main_s)
    desk.state("0xa", 1e9, position(1.0, "xyz:TSLA", isolated_cash_usd=-10.0, mark_price=20.0), pool="xyz", at_s=dex_s)
    desk.balances("0xa", balance_s, USDC=300.0, HYPE=1e6)


def test_a_unified_account_is_worth_its_balance_less_what_isolated_positions_have() -> None:
    desk = unified()
    assert desk.surplus("0xa") == pytest.approx(300.0 - 10.0 - 2.5)
    [isolated] = desk.table.isolated[desk.row("0xa")]
    assert desk.table.legs.surplus_usd[isolated] == pytest.approx(10.0 - 1.0)
    desk.tick(0, 90.0)
    assert desk.surplus("0xa") == pytest.approx(300.0 - 10.0 - 20.0 - 2.25)
    check_table(desk.table)


@pytest.mark.parametrize("missing", ["main", "dex", "balance"])
def test_a_unified_account_is_unknown_while_anything_is_missing(missing: str) -> None:
    desk = Desk()
    desk.mode("0xa", "unified")
    if missing != "main":
        desk.state("0xa", 0.0, position(2.0, mark_price=100.0))
    if missing != "dex":
        desk.state("0xa", 0.0, position(1.0, "xyz:TSLA", mark_price=20.0), pool="xyz")
    else:
        desk.fill("0xa", 1.0, 20.0, 99.0, market=2)
    if missing != "balance":
        desk.balances("0xa", 100.0, USDC=300.0)
    assert math.isnan(desk.surplus("0xa"))


@pytest.mark.parametrize("late", ["main_s", "dex_s", "balance_s"])
@pytest.mark.parametrize("skew_s", [-11.0, -9.0, 9.0, 11.0])
def test_parts_of_a_unified_account_are_put_together_if_they_are_of_one_time(late: str, skew_s: float) -> None:
    desk = unified(**{late: 100.0 + skew_s})
    is_together = abs(skew_s) * NS <= UNIFIED_SKEW_NS
    assert math.isnan(desk.surplus("0xa", now_s=120.0)) != is_together


def test_a_unified_account_grows_old_with_its_oldest_part() -> None:
    desk = unified(main_s=92.0)
    assert not math.isnan(desk.surplus("0xa", now_s=692.0))
    assert math.isnan(desk.surplus("0xa", now_s=693.0))


def test_a_state_without_marks_cannot_be_put_together_with_a_balance() -> None:
    desk = unified()
    desk.state("0xa", 0.0, position(2.0), at_s=101.0)
    assert math.isnan(desk.surplus("0xa"))
    desk.state("0xa", 0.0, position(0.0), at_s=102.0)
    assert desk.surplus("0xa") == pytest.approx(290.0), "what is not there needs no mark"


def test_a_balance_without_the_coin_of_margin_is_a_balance_of_nothing() -> None:
    desk = unified()
    desk.balances("0xa", 100.0, HYPE=5.0)
    assert desk.surplus("0xa") == pytest.approx(-10.0 - 2.5)


def test_balances_of_an_account_never_seen_are_not_remembered() -> None:
    desk = Desk()
    desk.balances("0xa", 100.0, USDC=5.0)
    assert desk.table.account_count == 0


def test_a_fill_of_a_unified_account_is_carried_once_whatever_part_comes_again() -> None:
    desk = unified()
    desk.fill("0xa", 1.0, 100.0, 101.0)
    expected = 300.0 - 10.0 - 3.75
    assert desk.surplus("0xa") == pytest.approx(expected)
    desk.balances("0xa", 102.0, USDC=300.0)
    assert desk.sizes("0xa")["BTC"] == [3.0], "what was carried already is not carried again when a balance comes"
    assert desk.surplus("0xa") == pytest.approx(expected)
    desk.state("0xa", 0.0, position(1.0, "xyz:TSLA", isolated_cash_usd=-10.0, mark_price=20.0), pool="xyz", at_s=103.0)
    assert desk.sizes("0xa")["BTC"] == [3.0]
    assert desk.surplus("0xa") == pytest.approx(expected)
    desk.state("0xa", 0.0, position(3.0, mark_price=100.0), at_s=104.0)
    assert desk.surplus("0xa") == pytest.approx(expected)


def test_a_fill_that_only_the_later_of_two_states_has_is_not_carried_into_it_again() -> None:
    """The pools are of different times, each with fills of its own that it has and has not seen."""
    desk = Desk()
    desk.mode("0xa", "unified")
    desk.fill("0xa", 1.0, 20.0, 101.0, market=2)
    desk.fill("0xa", 1.0, 100.0, 101.5)
    desk.state("0xa", 0.0, position(2.0, mark_price=100.0), at_s=100.0, received_s=102.0)
    desk.state("0xa", 0.0, position(5.0, "xyz:TSLA", mark_price=20.0), pool="xyz", at_s=101.2, received_s=102.0)
    desk.balances("0xa", 102.0, USDC=300.0)
    assert desk.sizes("0xa") == {"BTC": [3.0], "xyz:TSLA": [5.0]}
    assert desk.surplus("0xa") == pytest.approx(300.0 - 3.75 - 5.0)


def test_a_fill_that_cannot_be_explained_is_not_forgotten_when_only_the_balance_comes_again() -> None:
    desk = unified()
    desk.fill("0xa", 1.0, 50.0, 101.0, market=1)
    assert math.isnan(desk.surplus("0xa"))
    desk.balances("0xa", 102.0, USDC=300.0)
    assert math.isnan(desk.surplus("0xa")), "the position in ETH is still not known"
    desk.state("0xa", 0.0, position(2.0, mark_price=100.0), position(1.0, "ETH", mark_price=50.0), at_s=103.0)
    assert desk.surplus("0xa") == pytest.approx(290.0 - 2.5 - 1.0)


def test_an_older_state_of_a_pool_does_not_take_the_place_of_a_newer_one() -> None:
    desk = unified(main_s=102.0)
    assert not desk.state("0xa", 0.0, position(9.0, mark_price=100.0), at_s=101.0, received_s=103.0)
    assert desk.sizes("0xa")["BTC"] == [2.0]


def test_a_fill_in_an_isolated_position_of_a_unified_account_makes_it_unknown() -> None:
    desk = unified()
    desk.fill("0xa", 1.0, 20.0, 101.0, market=2)
    assert math.isnan(desk.surplus("0xa"))


def test_a_unified_account_is_unknown_until_every_configured_dex_has_answered() -> None:
    """Its position on the dex whose answer failed would be missing, and nobody would know."""
    desk = Desk(dexes={VENUE: ("xyz", "flx")})
    desk.mode("0xa", "unified")
    share(desk)
    assert math.isnan(desk.surplus("0xa"))
    desk.state("0xa", 0.0, pool="flx", at_s=101.0)
    assert desk.surplus("0xa") == pytest.approx(300.0 - 10.0 - 2.5)
