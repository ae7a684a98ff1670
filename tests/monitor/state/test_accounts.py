"""Accounts: who there is, how far each can be believed, whom a full table lets go, and what its rows leave behind."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from connectors.events import AccountMode
from monitor.state.accounts import MODE_OTHER, MODE_STANDARD, MODE_UNIFIED, AccountTable
from monitor.state.fills import Fill
from tests.monitor.state.desk import AGE_MAX_NS, NS, VENUE, Desk, ns, position
from tests.monitor.state.walks import check_table

# ----------------------------------------------------------------------------------------------------------------- standing


def test_a_polled_account_is_projected_from_its_cash_and_positions() -> None:
    desk = Desk()
    desk.known("0xa", -700.0, position(10.0))
    assert desk.surplus("0xa") == pytest.approx(300.0 - 12.5)
    assert desk.counts() == (1, 1, 0, 0)


def test_an_isolated_position_is_an_account_of_its_own() -> None:
    desk = Desk()
    desk.known("0xa", 5_000.0, position(1.0, isolated_cash_usd=-90.0), position(2.0, "ETH"))
    main = desk.row("0xa")
    [isolated] = desk.table.isolated[main]
    assert desk.surplus("0xa") == pytest.approx(5_000.0 + 100.0 - 2.0)
    assert desk.table.legs.surplus_usd[isolated] == pytest.approx(100.0 - 90.0 - 1.25)
    assert (desk.table.owner(isolated), desk.table.name(isolated)) == (main, (VENUE, "0xa"))
    assert desk.table.is_live(np.array([main, isolated]), ns(110.0), AGE_MAX_NS).all()


def test_an_account_seen_only_on_the_tape_is_known_by_name_and_projected_by_nobody() -> None:
    desk = Desk()
    desk.fill("0xa", 1.0, 100.0, 99.0)
    assert desk.counts(100.0) == (1, 0, 0, 0)
    assert desk.sizes("0xa") == {}


@pytest.mark.parametrize("mode", ["unified", "portfolio", "unknown"])
def test_an_account_of_unknown_or_other_mode_is_not_projected(mode: AccountMode) -> None:
    desk = Desk()
    desk.state("0xa", 10.0, position(1.0))
    assert math.isnan(desk.surplus("0xa"))
    desk.mode("0xa", mode)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.counts() == (1, 0, 0, 1)


def test_an_account_that_was_not_polled_for_too_long_is_stale() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0), at_s=100.0)
    assert desk.counts(700.0) == (1, 1, 0, 0)
    assert desk.counts(701.0) == (1, 0, 1, 0)


def test_a_fed_account_does_not_grow_old_as_long_as_no_message_is_missing() -> None:
    """Whose account does not change has nothing to tell; the feed's silence is found by its transport."""
    desk = Desk()
    desk.fed("0xa", 1, 1_000.0, position(1.0), at_s=100.0)
    assert desk.surplus("0xa", now_s=9_000.0) == pytest.approx(1_098.75)
    desk.changes.lose_feed("desk")
    assert math.isnan(desk.surplus("0xa", now_s=9_000.0))


def test_a_gap_in_the_tape_makes_all_accounts_of_the_venue_stale_but_for_those_with_a_feed() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0))
    desk.known("0xb", 1_000.0, position(1.0))
    desk.state("0xb", 1_000.0, position(1.0, "xyz:TSLA"), pool="xyz")
    desk.fed("0xc", 1, 1_000.0, position(1.0))
    assert desk.table.invalidate("binance") == 0
    assert desk.table.invalidate(VENUE) == 3
    assert desk.counts() == (3, 1, 2, 0)
    rows = np.array([desk.row("0xa"), desk.row("0xb"), desk.table.pools[desk.row("0xb")]["xyz"]])
    assert desk.table.was_live(rows).all()
    assert not desk.table.is_live(rows, ns(101.0), AGE_MAX_NS).any()
    assert desk.table.invalidate(VENUE) == 0


def test_states_of_a_unified_account_from_before_a_gap_are_not_completed_after_it() -> None:
    desk = Desk()
    desk.mode("0xa", "unified")
    desk.state("0xa", 0.0, position(1.0, mark_price=100.0), at_s=100.0)
    desk.table.invalidate(VENUE)
    desk.balances("0xa", 101.0, USDC=500.0)
    assert math.isnan(desk.surplus("0xa")), "the position may have been closed in the gap"
    desk.state("0xa", 0.0, position(1.0, mark_price=100.0), at_s=102.0)
    assert desk.surplus("0xa") == pytest.approx(500.0 - 1.25)


def test_new_margin_tables_change_the_coefficients_of_positions_already_held() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(1.0))
    desk.set_terms([desk.terms[1], *desk.terms[1:]])
    assert desk.surplus("0xa") == pytest.approx(98.0)


def test_coverage_of_polls_is_a_share_of_what_is_known_of_the_notional() -> None:
    """A position without a price must not make the coverage of everybody NaN."""
    desk = Desk()
    desk.known("0xold", 0.0, position(3.0), at_s=100.0)
    desk.known("0xnew", 0.0, position(1.0), at_s=190.0)
    desk.tick(1, math.nan)
    desk.known("0xdark", 0.0, position(1.0, "ETH"), at_s=190.0)
    desk.table.legs.sweep()
    assert desk.table.poll_coverage(VENUE, ns(200.0), [60 * NS, 300 * NS]) == pytest.approx([0.25, 1.0])
    assert desk.table.poll_coverage("binance", ns(200.0), [60 * NS]) == [0.0]


def test_the_rows_that_a_projection_copies_say_which_accounts_were_lost() -> None:
    desk = Desk()
    desk.known("0xa", 1_000.0, position(1.0), at_s=100.0)
    desk.known("0xb", 1_000.0, position(2.0), at_s=650.0)
    desk.state("0xc", 1_000.0, position(3.0), at_s=650.0)
    legs = desk.table.market_legs([[0]], ns(701.0), AGE_MAX_NS)
    by_size = {size: (surplus, lost) for size, surplus, lost in zip(legs.legs.size, legs.surplus_usd, legs.lost, strict=True)}
    assert by_size[2.0] == (pytest.approx(1_197.5), False)
    assert math.isnan(by_size[1.0][0])
    assert by_size[1.0][1]
    assert math.isnan(by_size[3.0][0])
    assert not by_size[3.0][1], "an account of unknown mode never was live"
    legs.legs.size[:] = 0.0
    assert desk.sizes("0xa") == {"BTC": [1.0]}


# -------------------------------------------------------------------------------------------------------------------- modes


MODES: list[AccountMode] = ["standard", "unified", "portfolio", "unknown"]


@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("after", MODES)
def test_a_change_of_mode_needs_a_new_state_whatever_pools_and_isolated_positions_there_are(
    before: AccountMode, after: AccountMode
) -> None:
    desk = Desk()
    desk.state("0xa", 500.0, position(1.0, mark_price=100.0), position(1.0, "ETH", isolated_cash_usd=-40.0, mark_price=50.0))
    desk.mode("0xa", before)
    desk.balances("0xa", 100.0, USDC=800.0)
    desk.state("0xa", 500.0, position(1.0, mark_price=100.0), position(1.0, "ETH", isolated_cash_usd=-40.0, mark_price=50.0))
    desk.state("0xa", 30.0, position(2.0, "xyz:TSLA", mark_price=20.0), pool="xyz")
    desk.state("0xa", 30.0, position(1.0, "xyz:TSLA", mark_price=20.0, isolated_cash_usd=-15.0), at_s=101.0, pool="xyz")
    check_table(desk.table)
    was_live = desk.counts().live == 1
    assert was_live == (before in {"standard", "unified"})
    desk.mode("0xa", after, at_s=101.0)
    check_table(desk.table)
    if before == after:
        assert (desk.counts().live == 1) == was_live
        return
    assert desk.counts().live == 0 or (before, after) == ("standard", "standard")
    # A new state of everything, and the balance, is all it takes.
    desk.state("0xa", 500.0, position(1.0, mark_price=100.0), at_s=102.0)
    desk.state("0xa", 30.0, position(2.0, "xyz:TSLA", mark_price=20.0), pool="xyz", at_s=102.0)
    desk.balances("0xa", 102.0, USDC=800.0)
    check_table(desk.table)
    assert desk.sizes("0xa") == {"BTC": [1.0], "xyz:TSLA": [2.0]}
    expected = {"standard": 500.0 + 98.75, "unified": 800.0 - 1.25 - 2.0}
    assert desk.surplus("0xa") == pytest.approx(expected.get(after, math.nan), nan_ok=True)


def test_cash_of_an_account_in_another_mode_is_not_used_when_it_turns_standard() -> None:
    """Its state was taken while the cash meant nothing (venues.md 1.9)."""
    desk = Desk()
    desk.mode("0xa", "portfolio")
    desk.state("0xa", 1e9, position(1.0))
    desk.mode("0xa", "standard")
    assert math.isnan(desk.surplus("0xa"))
    desk.state("0xa", 10.0, position(1.0), at_s=101.0)
    assert desk.surplus("0xa") == pytest.approx(108.75)


def test_a_snapshot_may_tell_the_mode() -> None:
    desk = Desk()
    for mode, code in (("unified", MODE_UNIFIED), ("portfolio", MODE_OTHER), ("standard", MODE_STANDARD)):
        desk.state("0xa", 10.0, position(1.0), mode=mode)
        assert desk.table.mode[desk.row("0xa")] == code
        check_table(desk.table)
    assert desk.surplus("0xa") == pytest.approx(108.75)


def test_a_unified_account_that_a_state_of_a_dex_calls_standard_keeps_nothing_of_its_shared_row() -> None:
    desk = Desk()
    desk.mode("0xa", "unified")
    desk.state("0xa", 0.0, position(1.0, mark_price=100.0))
    desk.state("0xa", 0.0, position(1.0, "xyz:TSLA", mark_price=20.0), pool="xyz")
    desk.balances("0xa", 100.0, USDC=500.0)
    desk.state("0xa", 5.0, position(1.0, "xyz:TSLA"), pool="xyz", at_s=101.0, mode="standard")
    check_table(desk.table)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xa", pool="xyz") == pytest.approx(5.0 + 19.0)
    assert desk.sizes("0xa") == {"xyz:TSLA": [1.0]}


# -------------------------------------------------------------------------------------------------------------- a full table


def test_a_full_table_refuses_further_accounts_and_counts_them() -> None:
    desk = Desk(1)
    desk.known("0xa", 1.0, position(1.0))
    desk.fill("0xb", 1.0, 100.0, 99.0)
    desk.state("0xc", 1_000.0, position(1.0))
    desk.delta("0xd", 1, position(1.0))
    desk.mode("0xe", "standard")
    assert desk.table.account_count == 1
    assert desk.table.refused == 4
    assert desk.changes.resync_demands() == []
    check_table(desk.table)


def test_who_holds_nothing_makes_room_those_first_whom_the_venue_said_so_of_longest_ago() -> None:
    desk = Desk(5)
    desk.fill("0xnever", 1.0, 100.0, 50.0)
    desk.known("0xholds", 1.0, position(1.0), at_s=10.0)
    desk.known("0xisolated", 1.0, position(1.0, isolated_cash_usd=-50.0), at_s=11.0)
    desk.known("0xlate", 1.0, at_s=30.0)
    desk.known("0xearly", 1.0, at_s=20.0)
    desk.fill("0xnew", 1.0, 100.0, 60.0)
    assert names(desk.table) == {"0xnever", "0xholds", "0xisolated", "0xlate", "0xnew"}
    desk.fill("0xnewer", 1.0, 100.0, 61.0)
    assert names(desk.table) == {"0xnever", "0xholds", "0xisolated", "0xnew", "0xnewer"}
    desk.fill("0xnewest", 1.0, 100.0, 62.0)
    assert names(desk.table) == {"0xholds", "0xisolated", "0xnew", "0xnewer", "0xnewest"}
    assert (desk.table.evicted, desk.table.refused) == (3, 0)
    check_table(desk.table)


def names(table: AccountTable) -> set[str]:
    return {table.name(int(row))[1] for row in table.rows_of(VENUE)}


def test_pinned_and_fed_accounts_and_those_with_positions_in_any_pool_stay() -> None:
    desk = Desk(5)
    desk.table.pin(VENUE, "0xpinned")
    desk.fed("0xfed", 1, 10.0)
    desk.state("0xpool", 10.0, position(1.0, "xyz:TSLA"), pool="xyz")
    desk.state("0xlent", 10.0, holdings=[("WETH", 1.0)])
    desk.known("0xempty", 10.0)
    desk.known("0xnew", 1.0, position(1.0))
    assert names(desk.table) == {"0xpinned", "0xfed", "0xpool", "0xlent", "0xnew"}
    desk.known("0xmore", 1.0, position(1.0))
    assert "0xmore" not in names(desk.table)
    check_table(desk.table)


def test_nothing_of_an_evicted_account_is_left_to_whom_its_row_goes() -> None:
    desk = Desk(2)
    desk.known("0xstays", 1.0, position(1.0))
    desk.known("0xa", 0.0, position(1.0, isolated_cash_usd=-40.0), e_mode=3)
    desk.state("0xa", 0.0, position(1.0, "xyz:TSLA"), pool="xyz", e_mode=4)
    desk.mode("0xa", "unified")
    desk.balances("0xa", 100.0, USDC=10.0)
    desk.state("0xa", 0.0, position(1.0, "xyz:TSLA", mark_price=20.0), pool="xyz", at_s=101.0)
    desk.fill("0xa", 1.0, 100.0, 102.0)
    row = desk.row("0xa")
    # It closes everything, gets a delta that nobody can place, and has to go.
    desk.state("0xa", 0.0, at_s=103.0)
    desk.state("0xa", 0.0, at_s=103.0, pool="xyz")
    desk.delta("0xa", 5)
    assert [demand.account for demand in desk.changes.resync_demands()] == ["0xa"]
    desk.fill("0xb", 1.0, 100.0, 104.0)
    assert desk.row("0xb") == row
    check_table(desk.table)
    table = desk.table
    assert [one.exchange_ns for one in table.recent.of(row)] == [ns(104.0)]
    for by_row in (table.isolated, table.pools, table.categories, table.balances, table.pool_states, table.feeds, table.resync):
        assert row not in by_row
    assert desk.changes.resync_demands() == []
    assert desk.counts() == (2, 1, 0, 0)
    # The feed of the one before it goes down: the new owner has nothing to do with it.
    desk.state("0xb", 1.0, position(2.0), at_s=105.0, mode="standard")
    assert desk.changes.lose_feed("desk") == 0
    assert desk.surplus("0xb") == pytest.approx(198.5)


def test_churn_does_not_make_the_table_grow() -> None:
    desk = Desk(50)

    def round_trip(first: int) -> None:
        for number in range(first, first + 60):
            name, at_s = f"0x{number}", 100.0 + number
            desk.known(name, 1.0, position(1.0), position(-2.0, "ETH", isolated_cash_usd=120.0), at_s=at_s)
            desk.state(name, 1.0, position(1.0, "xyz:TSLA"), pool="xyz", at_s=at_s)
            desk.fill(name, 1.0, 100.0, at_s + 0.1)
            desk.known(name, 1.0, at_s=at_s + 0.2)
            desk.state(name, 1.0, pool="xyz", at_s=at_s + 0.2)

    round_trip(0)
    round_trip(60)
    before = desk.table.nbytes, desk.table.legs.row_count, len(desk.table._names)
    for start in range(120, 1_200, 60):
        round_trip(start)
    assert (desk.table.nbytes, desk.table.legs.row_count, len(desk.table._names)) == before
    assert desk.table.evicted == 1_150
    check_table(desk.table)


def test_a_table_full_of_holders_refuses_strangers_without_searching_each_time() -> None:
    """Every trade of a stranger would otherwise cost a walk over all accounts: at a thousand trades a second the daemon stands."""
    desk = Desk(20_000)
    for number in range(20_000):
        desk.state(f"0x{number}", 1.0, position(1.0))
    began = time.perf_counter()
    for number in range(5_000):
        desk.changes.apply_fill(VENUE, f"0xstranger{number}", Fill(ns(100.0), 0, 1.0, 100.0), ns(100.0))
    assert time.perf_counter() - began < 1.0
    assert desk.table.refused == 5_000
    # Room that comes up later is found again.
    for number in range(300):
        desk.state(f"0x{number}", 1.0, at_s=101.0)
    for number in range(500):
        desk.fill(f"0xlater{number}", 1.0, 100.0, 102.0)
    assert desk.table.evicted > 0
    assert "0xlater499" in names(desk.table)


def test_a_flood_of_strangers_makes_room_for_itself_in_time() -> None:
    desk = Desk(20_000)
    for number in range(20_000):
        desk.fill(f"0x{number}", 1.0, 100.0, 100.0)
    began = time.perf_counter()
    for number in range(20_000, 25_000):
        desk.fill(f"0x{number}", 1.0, 100.0, 101.0)
    assert time.perf_counter() - began < 2.0
    assert desk.table.evicted == 5_000
    assert desk.table.account_count == 20_000
    check_table(desk.table)


def test_memory_of_a_row_is_known() -> None:
    table = AccountTable(100)
    assert (table.nbytes - table.legs.nbytes) / table.main_row.size == 46.0
