"""States, fills, deltas, balances: what is understood is carried forward, the rest makes an account unknown, nothing is guessed."""

from __future__ import annotations

import math

import pytest

from connectors.events import PositionReport
from monitor.state.fills import FILL_MEMORY_NS
from tests.monitor.state.desk import FEED, NS, PRICES, TERMS, VENUE, Desk, position
from tests.monitor.state.walks import Terms, check_table

# ------------------------------------------------------------------------------------------------------------------ states


def test_an_answer_older_than_the_state_in_place_is_ignored_with_all_it_says() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(1.0), at_s=100.0)
    assert not desk.state("0xa", 0.0, position(5.0), at_s=90.0, mode="portfolio", e_mode=3)
    assert desk.sizes("0xa") == {"BTC": [1.0]}
    assert desk.surplus("0xa") == pytest.approx(98.75)
    assert desk.table.categories == {}


def test_a_state_that_is_older_than_a_forgotten_fill_is_not_believed() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, position(1.0), at_s=100.0)
    desk.fill("0xa", 1.0, 10.0, 105.0)
    desk.fill("0xb", 1.0, 10.0, 106.0 + FILL_MEMORY_NS / NS)
    desk.state("0xa", 0.0, position(1.0), at_s=104.0, received_s=121.0)
    assert math.isnan(desk.surplus("0xa", now_s=122.0))
    desk.state("0xa", 0.0, position(2.0), at_s=106.0, received_s=122.0)
    assert desk.surplus("0xa", now_s=122.0) == pytest.approx(197.5)


@pytest.mark.parametrize("cash", [0.0, -100.0, -98.75, -5_000.0])
def test_an_account_without_equity_is_known_and_under_water(cash: float) -> None:
    desk = Desk()
    desk.known("0xa", cash, position(1.0))
    assert desk.surplus("0xa") == pytest.approx(cash + 98.75, abs=1e-12)


def test_positions_of_size_zero_and_holdings_of_nothing_are_no_legs() -> None:
    desk = Desk()
    desk.known("0xa", 5.0, position(0.0), position(-0.0, "ETH", isolated_cash_usd=3.0), holdings=[("WETH", 0.0)])
    assert desk.table.legs.leg_count == 0
    assert desk.surplus("0xa") == 5.0
    check_table(desk.table)


@pytest.mark.parametrize("leverage", [None, 0.0, -1.0, math.nan])
def test_the_leverage_that_a_venue_shows_is_not_relied_on(leverage: float | None) -> None:
    desk = Desk()
    desk.known("0xa", 5.0, position(1.0, leverage=leverage))
    assert desk.surplus("0xa") == pytest.approx(103.75)


@pytest.mark.parametrize("entry_price", [None, 0.0, -5.0])
def test_an_inverse_position_without_an_entry_price_makes_its_account_unknown(entry_price: float | None) -> None:
    desk = Desk()
    desk.known("0xa", 5.0, position(100.0, "BTCUSD", entry_price=entry_price))
    desk.known("0xb", 5.0, position(100.0, "BTCUSD", entry_price=100.0))
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xb") == pytest.approx(4.0)


def test_an_unknown_margin_table_makes_the_accounts_in_the_market_unknown_until_it_is_told() -> None:
    desk = Desk()
    desk.set_terms([TERMS[0], Terms(tiers=()), *TERMS[2:]])
    desk.known("0xa", 5.0, position(1.0), position(1.0, "ETH"))
    assert math.isnan(desk.surplus("0xa"))
    desk.fill("0xa", 1.0, 50.0, 101.0, market=1)
    assert math.isnan(desk.surplus("0xa"))
    desk.set_terms(TERMS)
    assert desk.surplus("0xa") == pytest.approx(5.0 + 98.75 - 50.0 + 100.0 - 2.0)


def test_a_collateral_asset_without_a_price_makes_the_account_unknown_and_nobody_else() -> None:
    desk = Desk()
    desk.known("0xa", 5.0, position(1.0), holdings=[("WETH", 10.0)])
    desk.known("0xb", 5.0, position(1.0))
    assert desk.surplus("0xa") == pytest.approx(5.0 + 98.75 + 80.0)
    desk.tick(4, math.nan)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xb") == pytest.approx(103.75)
    desk.tick(4, 20.0)
    assert desk.surplus("0xa") == pytest.approx(5.0 + 98.75 + 160.0)


def test_a_holding_in_what_is_no_asset_and_a_position_in_what_is_one_are_unknown() -> None:
    """A coin and the contract on it may have the same name; a coin that is taken for a contract would need margin."""
    desk = Desk()
    desk.known("0xcoin", 5.0, position(-1.0), holdings=[("BTC", 1.0)])
    desk.known("0xcontract", 5.0, position(1.0, "WETH"))
    assert math.isnan(desk.surplus("0xcoin"))
    assert math.isnan(desk.surplus("0xcontract"))
    check_table(desk.table)


def test_an_account_that_learns_late_that_a_symbol_is_an_asset_is_right_from_then_on() -> None:
    desk = Desk()
    desk.set_terms([*TERMS[:4], Terms(tiers=())])
    desk.known("0xa", 5.0, holdings=[("WETH", 10.0)])
    desk.fed("0xfed", 1, 5.0, holdings=[("WETH", 10.0)])
    desk.delta("0xfed", 2, holdings=[("WETH", 20.0)])
    assert math.isnan(desk.surplus("0xa"))
    desk.set_terms(TERMS)
    assert desk.surplus("0xa") == pytest.approx(85.0)
    assert desk.sizes("0xfed") == {"WETH": [20.0]}, "the new quantity takes the place of the old one, whatever the symbol is"
    assert desk.surplus("0xfed") == pytest.approx(165.0)


def test_a_market_that_turns_into_another_contract_makes_its_positions_unknown_where_they_lack_something() -> None:
    desk = Desk()
    desk.known("0xa", 500.0, position(100.0))
    desk.known("0xb", 500.0, position(100.0, entry_price=80.0))
    desk.set_terms([Terms("inverse", TERMS[1].tiers), *TERMS[1:]])
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xb") == pytest.approx(500.0 + 25.0 - 2.0)
    desk.set_terms([Terms("asset", (), 0.5), *TERMS[1:]])
    assert math.isnan(desk.surplus("0xb"))
    desk.set_terms(TERMS)
    assert desk.surplus("0xa") == pytest.approx(500.0 + 9_875.0)
    check_table(desk.table)


def test_a_lending_category_goes_when_the_next_state_does_not_name_it() -> None:
    desk = Desk()
    desk.known("0xa", 0.0, holdings=[("WETH", 1.0)], e_mode=2)
    assert desk.table.categories == {desk.row("0xa"): 2}
    desk.state("0xa", 0.0, holdings=[("WETH", 1.0)], at_s=101.0)
    assert desk.table.categories == {}


def test_a_snapshot_whose_cash_is_not_that_of_its_positions_makes_the_mode_be_asked() -> None:
    desk = Desk()
    desk.known("0xa", 10.0, position(1.0))
    desk.state("0xa", 1e9, position(1.0), at_s=101.0, mode="unknown")
    assert math.isnan(desk.surplus("0xa"))
    desk.mode("0xa", "standard", at_s=102.0)
    assert math.isnan(desk.surplus("0xa")), "the cash of that state was not to be used"
    desk.state("0xa", 10.0, position(1.0), at_s=103.0)
    assert desk.surplus("0xa") == pytest.approx(108.75)


# ------------------------------------------------------------------------------------------------------------- private feeds


def fed() -> Desk:
    desk = Desk()
    assert desk.fed("0xa", 5, 1_000.0, position(2.0), position(1.0, "ETH"), holdings=[("WETH", 3.0)])
    return desk


FED = 1_000.0 + 197.5 + 49.0 + 24.0


def test_a_fed_account_is_live_at_once_and_follows_its_deltas() -> None:
    desk = fed()
    assert desk.surplus("0xa") == pytest.approx(FED)
    assert desk.delta("0xa", 6, position(3.0), cash=900.0)
    assert desk.surplus("0xa") == pytest.approx(FED - 100.0 + 98.75)
    assert desk.delta("0xa", 7, position(0.0), position(-1.0, "BTCUSD", entry_price=100.0), holdings=[("WETH", 0.0)])
    assert desk.sizes("0xa") == {"ETH": [1.0], "BTCUSD": [-1.0]}
    assert desk.surplus("0xa") == pytest.approx(900.0 + 49.0 - 0.01)
    check_table(desk.table)


def test_an_empty_delta_changes_nothing_but_the_number() -> None:
    desk = fed()
    assert desk.delta("0xa", 6)
    assert desk.delta("0xa", 7, cash=1_000.0)
    assert desk.surplus("0xa") == pytest.approx(FED)


def test_a_delta_that_comes_again_is_ignored() -> None:
    desk = fed()
    desk.delta("0xa", 6, position(3.0))
    assert not desk.delta("0xa", 6, position(3.0))
    assert not desk.delta("0xa", 5, position(9.0))
    assert (desk.changes.repeated, desk.changes.sequence_gaps) == (2, 0)
    assert desk.surplus("0xa") == pytest.approx(FED + 98.75)


def test_a_delta_out_of_sequence_makes_the_account_unknown_and_asks_for_a_snapshot_once() -> None:
    desk = fed()
    for sequence in (8, 9, 6, 7):
        assert not desk.delta("0xa", sequence, position(3.0))
    assert desk.changes.sequence_gaps == 1
    [demand] = desk.changes.resync_demands()
    assert demand == (FEED, VENUE, "0xa", 5)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.counts() == (1, 0, 1, 0)
    desk.fed("0xa", 12, 50.0, position(1.0), at_s=102.0)
    assert desk.changes.resync_demands() == []
    assert desk.surplus("0xa") == pytest.approx(148.75)
    assert desk.delta("0xa", 13, cash=60.0, at_s=103.0)
    assert desk.surplus("0xa") == pytest.approx(158.75)


def test_a_delta_of_an_account_never_seen_asks_for_a_snapshot() -> None:
    desk = Desk()
    assert not desk.delta("0xa", 3, position(1.0), cash=10.0)
    assert [demand.after_sequence for demand in desk.changes.resync_demands()] == [-1]
    assert desk.counts() == (1, 0, 0, 0)
    assert desk.sizes("0xa") == {}


def test_after_an_interruption_of_the_feed_deltas_wait_for_a_snapshot_although_none_is_missing() -> None:
    """A delta that nobody numbered, or a restart of the numbers, would pass for the next one."""
    desk = fed()
    desk.fed("0xb", 1, 10.0, position(1.0))
    desk.fed("0xother", 1, 10.0, position(1.0), connection="another")
    assert desk.changes.lose_feed(FEED) == 2
    assert not desk.delta("0xa", 6, position(3.0))
    assert math.isnan(desk.surplus("0xa"))
    assert desk.surplus("0xother") == pytest.approx(108.75)
    assert sorted(demand.account for demand in desk.changes.resync_demands()) == ["0xa", "0xb"]
    # Nothing happened meanwhile, so the snapshot has the number that is known already.
    assert desk.fed("0xb", 1, 10.0, position(1.0))
    assert desk.surplus("0xb") == pytest.approx(108.75)
    assert desk.changes.lose_feed("nobody") == 0


def test_only_the_accounts_of_a_line_that_could_not_be_used_are_in_doubt() -> None:
    desk = fed()
    desk.fed("0xb", 1, 10.0, position(1.0))
    assert desk.changes.doubt_fed(FEED, VENUE, ["0xb", "0xnobody"]) == 1
    assert desk.changes.doubt_fed("another", VENUE, ["0xa"]) == 0
    assert math.isnan(desk.surplus("0xb"))
    assert desk.surplus("0xa") == pytest.approx(FED)
    assert desk.table.account_count == 2


def test_a_snapshot_delivered_again_does_not_turn_the_account_back() -> None:
    """A broker delivers at least once: what it sends again after a reconnect may be long overtaken."""
    desk = fed()
    desk.delta("0xa", 6, position(3.0), at_s=100.0)
    assert not desk.fed("0xa", 5, 1_000.0, position(2.0), at_s=100.0)
    assert desk.sizes("0xa")["BTC"] == [3.0]
    desk.changes.lose_feed(FEED)
    assert not desk.fed("0xa", 5, 1_000.0, position(2.0), at_s=100.0)
    assert math.isnan(desk.surplus("0xa"))
    assert desk.changes.resync_demands() != []


def test_a_snapshot_with_a_higher_number_is_taken_although_its_clock_is_behind() -> None:
    desk = fed()
    assert desk.fed("0xa", 6, 10.0, position(1.0), at_s=90.0, received_s=101.0)
    assert desk.surplus("0xa") == pytest.approx(108.75)


def test_a_source_that_begins_to_count_anew_is_followed_if_its_time_has_gone_on() -> None:
    desk = fed()
    assert desk.fed("0xa", 1, 10.0, position(1.0), at_s=101.0)
    assert desk.delta("0xa", 2, cash=20.0, at_s=102.0)
    assert desk.surplus("0xa") == pytest.approx(118.75)


def test_a_poll_a_mode_and_fills_of_a_fed_account_are_ignored() -> None:
    desk = Desk()
    desk.fill("0xa", 1.0, 100.0, 101.0)
    desk.fed("0xa", 5, 1_000.0, position(2.0), at_s=100.0)
    assert desk.sizes("0xa") == {"BTC": [2.0]}, "a fill from before it was fed is in the snapshot or in the next delta"
    assert not desk.state("0xa", 5.0, position(9.0), at_s=110.0)
    desk.fill("0xa", 1.0, 100.0, 111.0)
    desk.mode("0xa", "unified", at_s=112.0)
    desk.balances("0xa", 112.0, USDC=1.0)
    assert desk.sizes("0xa") == {"BTC": [2.0]}
    assert desk.surplus("0xa", now_s=112.0) == pytest.approx(1_197.5)


def test_fills_that_were_forgotten_before_an_account_was_fed_do_not_matter() -> None:
    desk = Desk()
    desk.fill("0xa", 1.0, 100.0, 105.0)
    desk.fill("0xb", 1.0, 100.0, 125.0)
    assert desk.table.recent.forgotten_until_ns(desk.row("0xa")) > 0
    desk.fed("0xa", 5, 1_000.0, position(2.0), at_s=100.0, received_s=126.0)
    assert desk.surplus("0xa", now_s=126.0) == pytest.approx(1_197.5)


def test_deltas_of_a_hedge_change_the_side_that_they_name() -> None:
    desk = Desk()
    desk.fed("0xa", 1, 100.0, position(3.0, position_side="long"), position(-2.0, position_side="short"))
    assert desk.surplus("0xa") == pytest.approx(100.0 + 100.0 - 0.0125 * 500.0)
    desk.delta("0xa", 2, position(-4.0, position_side="short"))
    assert desk.sizes("0xa") == {"BTC": [-4.0, 3.0]}
    desk.delta("0xa", 3, position(0.0, position_side="long"))
    assert desk.sizes("0xa") == {"BTC": [-4.0]}
    desk.delta("0xa", 4, position(0.0, position_side="long"))
    assert desk.sizes("0xa") == {"BTC": [-4.0]}
    desk.delta("0xa", 5, position(1.0, position_side="long"))
    desk.delta("0xa", 6, position(7.0))
    assert desk.sizes("0xa") == {"BTC": [7.0]}, "in one-way mode there is only one"
    check_table(desk.table)


def test_isolated_and_cross_positions_of_one_market_are_closed_apart() -> None:
    desk = Desk()
    desk.fed("0xa", 1, 100.0, position(3.0), position(2.0, isolated_cash_usd=-150.0))
    desk.delta("0xa", 2, position(4.0))
    desk.delta("0xa", 3, position(5.0, isolated_cash_usd=-400.0))
    assert desk.sizes("0xa") == {"BTC": [4.0, 5.0]}
    desk.delta("0xa", 4, position(0.0))
    assert desk.sizes("0xa") == {"BTC": [5.0]}, "closed without a word on its margin is the cross one"
    desk.delta("0xa", 5, position(0.0))
    assert desk.sizes("0xa") == {}, "and where there is none the isolated one"
    desk.delta("0xa", 6, position(3.0), position(2.0, isolated_cash_usd=-150.0))
    desk.delta("0xa", 7, position(0.0, isolated_cash_usd=0.0))
    assert desk.sizes("0xa") == {"BTC": [3.0]}
    check_table(desk.table)


def moved(first: PositionReport, second: PositionReport) -> Desk:
    desk = Desk()
    desk.fed("0xa", 1, 100.0, position(3.0))
    desk.delta("0xa", 2, first, second)
    return desk


def test_a_position_that_moves_into_a_margin_of_its_own_is_there_once_whatever_the_order() -> None:
    closed, opened = position(0.0), position(3.0, isolated_cash_usd=-250.0)
    for desk in (moved(closed, opened), moved(opened, closed)):
        assert desk.sizes("0xa") == {"BTC": [3.0]}
        [isolated] = desk.table.isolated[desk.row("0xa")]
        assert desk.table.legs.surplus_usd[isolated] == pytest.approx(50.0 - 3.75)


def test_a_snapshot_of_one_pool_that_jumps_over_messages_puts_the_other_pools_in_doubt() -> None:
    desk = Desk()
    desk.fed("0xa", 1, 100.0, position(1.0))
    desk.fed("0xa", 2, 50.0, position(1.0, "xyz:TSLA"), pool="xyz")
    assert [desk.surplus("0xa", pool=pool) for pool in ("", "xyz")] == pytest.approx([198.75, 69.0])
    desk.fed("0xa", 4, 60.0, position(1.0, "xyz:TSLA"), pool="xyz", at_s=101.0)
    assert math.isnan(desk.surplus("0xa")), "message 3 may have been of the main pool"
    assert desk.surplus("0xa", pool="xyz") == pytest.approx(79.0)
    assert [demand.after_sequence for demand in desk.changes.resync_demands()] == [4]
    desk.fed("0xa", 5, 100.0, position(1.0), at_s=102.0)
    assert desk.changes.resync_demands() == []
    assert desk.surplus("0xa") == pytest.approx(198.75)
    assert desk.surplus("0xa", pool="xyz") == pytest.approx(79.0)


def test_an_interruption_puts_all_pools_of_an_account_in_doubt() -> None:
    desk = Desk()
    desk.fed("0xa", 1, 100.0, position(1.0))
    desk.fed("0xa", 2, 50.0, position(1.0, "xyz:TSLA"), pool="xyz")
    assert desk.changes.lose_feed(FEED) == 2
    assert math.isnan(desk.surplus("0xa", pool="xyz"))


def test_a_fed_account_in_the_same_table_as_one_of_another_venue_is_another_account() -> None:
    desk = fed()
    assert desk.table.row_of("binance", "0xa", create=False) is None
    assert desk.surplus("0xa") == pytest.approx(FED)
    assert PRICES[0] == desk.prices[0]
