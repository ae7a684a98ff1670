"""Races between polls, fills, holes, modes and feeds: whatever is not certain of an account is not shown as live."""

from __future__ import annotations

import math
from typing import Any

import pytest

from connectors.events import (
    AccountBalances,
    AccountFill,
    AccountModeReport,
    AccountSnapshot,
    AnyEvent,
    HoldingReport,
    Instrument,
    Instruments,
    Liquidation,
    PositionReport,
    SubscriptionNotice,
)
from connectors.hyperliquid_markets import margin_tiers
from connectors.venue import AccountQuestion
from monitor.account_queries import AccountQueries
from monitor.state.polls import REFRESH, PollDemand
from tests.monitor.desks import DESK, Held
from tests.monitor.desks import Desk as FedDesk
from tests.monitor.state.desk import Desk, position
from tests.monitor.world import VENUE, World, ns

WHALE = "0xwhale"


class Exchange(World):
    """BTC, ETH and a stock of another dex, and answers of the venue that arrive when the test wants them to."""

    def __init__(self, *symbols: str, **settings: Any) -> None:
        super().__init__(*(symbols or ("BTC", "ETH", "xyz:TSLA")), **{"dexes": {VENUE: ("xyz",)}} | settings)
        self.instruments(0, "BTC", "ETH", "xyz:TSLA")
        self.marks(0)

    def marks(self, at_s: float) -> None:
        for symbol in ("BTC", "ETH", "xyz:TSLA"):
            self.mark(at_s, 100.0, symbol)

    def answer(
        self,
        at_s: float,
        cash: float,
        *held: tuple[str, float],
        of_s: float | None = None,
        pool: str = "",
        isolated: float | None = None,
    ) -> None:
        """One dex of the account as it was at ``of_s``, arriving at ``at_s``."""
        reports = tuple(PositionReport(symbol, size, 100.0, isolated, None, 10.0, mark_price=100.0) for symbol, size in held)
        self.tell(
            AccountSnapshot(
                **self.origin(at_s, "rest"),
                account=WHALE,
                exchange_ns=ns(at_s if of_s is None else of_s),
                cross_cash_usd=cash,
                positions=reports,
                pool=pool,
            )
        )

    def mode(self, at_s: float, mode: Any) -> None:
        self.tell(AccountModeReport(**self.origin(at_s, "rest"), account=WHALE, mode=mode))

    def balance(self, at_s: float, usdc: float) -> None:
        self.tell(AccountBalances(**self.origin(at_s, "rest"), account=WHALE, balances=(HoldingReport("USDC", usdc),)))

    def ask(self, at_s: float, *pools: str) -> None:
        self.engine.polls.note_asked(PollDemand(VENUE, AccountQuestion(WHALE, pools), REFRESH), ns(at_s))

    def forced(self, at_s: float, symbol: str = "BTC", method: Any = "backstop") -> None:
        """The account loses a position beside the book."""
        self.tell(
            Liquidation(
                **self.origin(at_s),
                symbol=symbol,
                exchange_ns=ns(at_s),
                side="long",
                price=90.0,
                size=10.0,
                completeness="partial",
                method=method,
                account=WHALE,
            )
        )

    def node_fill(
        self, at_s: float, size: float, price: float, start: float | None, tid: int = 1, received_s: float | None = None
    ) -> None:
        self.tell(
            AccountFill(
                **self.origin(at_s if received_s is None else received_s, "node"),
                account=WHALE,
                symbol="BTC",
                exchange_ns=ns(at_s),
                price=price,
                size=size,
                trade_id=tid,
                start_size=start,
            )
        )

    def tell(self, event: AnyEvent) -> None:
        self.engine.apply(event)

    def equity(self, at_s: float, pool: str = "") -> float | None:
        """Equity of the cross account of a pool as it is shown as live; ``None`` while the account is not live."""
        self.marks(at_s)
        self.engine.project(ns(at_s))
        answer = AccountQueries(self.engine).account(VENUE, WHALE, ns(at_s))
        assert answer is not None
        if answer.state != "live":
            return None
        found = [margin.equity_usd for margin in answer.margins if margin.pool == pool and margin.kind == "cross"]
        assert len(found) == 1
        return found[0]

    def observed(self, at_s: float, symbol: str = "BTC") -> float:
        """Long size in a market that projections count with."""
        self.marks(at_s)
        return self.market(at_s, symbol).observed_long_base


# ---------------------------------------------------------------------------------------------------- liquidations


@pytest.mark.parametrize("method", ["backstop", "deleveraging"])
def test_a_state_from_before_a_take_over_that_arrives_after_it_is_not_believed(method: str) -> None:
    world = Exchange()
    world.answer(0, -900.0, ("BTC", 10.0))
    world.mode(0, "standard")
    assert world.equity(0.5) == pytest.approx(100.0)
    world.forced(1.0, method=method)
    world.answer(1.2, -900.0, ("BTC", 10.0), of_s=0.9)
    assert world.equity(1.3) is None
    assert world.observed(1.3) == 0.0
    world.answer(1.5, 0.0, of_s=1.4)
    assert world.equity(1.6) == pytest.approx(0.0)


def test_a_balance_does_not_heal_a_unified_account_that_lost_a_position_beside_the_book() -> None:
    world = Exchange("BTC", dexes={})
    world.mode(0, "unified")
    world.answer(0, 0.0, ("BTC", 10.0))
    world.balance(0.1, 500.0)
    assert world.equity(0.5) == pytest.approx(500.0)
    world.forced(1.0)
    world.balance(1.2, 500.0)
    assert world.equity(1.3) is None
    world.answer(1.4, 0.0)
    world.balance(1.5, 20.0)
    assert world.equity(1.6) == pytest.approx(20.0)


# ------------------------------------------------------------------------------------------------------------ holes


def test_an_answer_of_another_dex_from_before_a_hole_is_not_taken_for_one_to_the_question_after_it() -> None:
    world = Exchange()
    world.mode(0, "standard")
    world.trade(0, 100.0, 1.0, "0xa", "0xb")
    world.ask(1.0, "", "xyz")
    world.answer(1.2, 500.0)
    world.gap(2.0)
    world.trade(2.5, 100.0, 1.0, "0xa", "0xb")
    # The main dex was answered, so that the account is asked again while the other answer is still under way.
    world.ask(3.0, "", "xyz")
    world.answer(3.1, -900.0, ("xyz:TSLA", 10.0), of_s=1.1, pool="xyz")
    assert world.observed(3.2, "xyz:TSLA") == 0.0
    world.answer(3.3, 90.0, ("xyz:TSLA", 1.0), of_s=3.15, pool="xyz")
    assert world.observed(3.4, "xyz:TSLA") == 1.0


def test_the_tape_of_one_coin_does_not_vouch_for_the_coins_that_are_not_subscribed_to_yet() -> None:
    world = Exchange()
    world.answer(0, -900.0, ("ETH", 10.0))
    world.mode(0, "standard")
    world.trade(0, 100.0, 1.0, "0xa", "0xb")
    world.gap(1.0)
    world.tell(SubscriptionNotice(**world.origin(2.0), channel="trades:BTC", accepted=True))
    world.ask(2.1, "")
    world.answer(2.2, -900.0, ("ETH", 10.0))
    # What happened in ETH before its own subscription nobody has told.
    world.tell(SubscriptionNotice(**world.origin(3.0), channel="trades:ETH", accepted=True))
    assert world.observed(3.1, "ETH") == 0.0
    world.ask(3.2, "")
    world.answer(3.3, 90.0, ("ETH", 1.0))
    assert world.observed(3.4, "ETH") == 1.0


# ------------------------------------------------------------------------------------------------------------ fills


def node_exchange() -> Exchange:
    world = Exchange(node_venues=frozenset({VENUE}))
    world.node_fill(0, 1.0, 100.0, 9.0)
    world.answer(0.1, -900.0, ("BTC", 10.0))
    world.mode(0.1, "standard")
    assert world.equity(0.2) == pytest.approx(100.0)
    return world


@pytest.mark.parametrize("later_s", [3.0, 40.0])
def test_fills_that_a_node_tells_again_are_not_paid_for_twice(later_s: float) -> None:
    world = node_exchange()
    for received_s in (2.0, later_s):
        world.node_fill(1.0, 5.0, 80.0, 10.0, 2, received_s)
        world.node_fill(1.5, -5.0, 100.0, 15.0, 3, received_s)
    shown = world.equity(later_s + 0.1)
    assert shown is None or shown == pytest.approx(200.0)
    world.answer(later_s + 0.2, -800.0, ("BTC", 10.0))
    assert world.equity(later_s + 0.3) == pytest.approx(200.0)


def test_fills_within_one_block_that_come_again_are_not_paid_for_twice() -> None:
    world = node_exchange()
    for received_s in (1.0, 2.0):
        world.node_fill(1.0, 5.0, 80.0, 10.0, 2, received_s)
        world.node_fill(1.0, -5.0, 100.0, 15.0, 3, received_s)
    shown = world.equity(2.1)
    assert shown is None or shown == pytest.approx(200.0)


def test_several_fills_of_one_block_are_all_carried_forward() -> None:
    world = node_exchange()
    for place in range(4):
        world.node_fill(1.0, 1.0, 90.0, 10.0 + place, 2 + place)
    assert world.equity(1.1) == pytest.approx(140.0)


def test_fills_of_a_node_do_not_come_on_top_of_the_tape_in_a_replay_that_does_not_know_of_it() -> None:
    world = Exchange()
    world.answer(0, -900.0, ("BTC", 10.0))
    world.mode(0, "standard")
    world.trade(1.0, 90.0, 2.0, WHALE, "0xb")
    world.node_fill(1.0, 2.0, 90.0, 10.0)
    assert world.equity(1.1) is None
    world.answer(1.2, -1_080.0, ("BTC", 12.0))
    world.trade(2.0, 90.0, 1.0, WHALE, "0xb")
    world.node_fill(2.0, 1.0, 90.0, 12.0)
    assert world.equity(2.1) == pytest.approx(130.0)


def test_what_was_on_its_way_when_an_account_left_the_table_is_not_believed_when_it_comes_back() -> None:
    desk = Desk(accounts_max=2)
    desk.known("a", -900.0, position(10.0))
    desk.fill("a", -10.0, 100.0, 101.0)
    desk.fill("b", 1.0, 100.0, 101.5)
    for number in range(3):
        desk.fill(f"c{number}", 1.0, 100.0, 102.0 + number)
    assert desk.table.row_of(VENUE, "a", create=False) is None
    # Both answers were under way, from before the position was closed.
    desk.mode("a", "standard", 105.0)
    desk.state("a", -900.0, position(10.0), at_s=100.5, received_s=105.1)
    assert math.isnan(desk.surplus("a"))
    desk.state("a", 100.0, at_s=105.2)
    assert desk.surplus("a") == pytest.approx(100.0)


def test_fills_of_an_account_that_found_no_room_are_not_missing_from_what_is_shown_later() -> None:
    desk = Desk(accounts_max=1)
    desk.known("a", -900.0, position(10.0))
    desk.fill("b", 5.0, 100.0, 101.0)
    assert desk.table.row_of(VENUE, "b", create=False) is None
    desk.fill("a", -10.0, 100.0, 102.0)
    desk.fill("c", 1.0, 100.0, 103.0)
    desk.fill("c", 1.0, 100.0, 104.0)
    desk.fill("b", 1.0, 100.0, 105.0)
    desk.known("b", 0.0, position(5.0), at_s=100.9, received_s=105.1)
    assert math.isnan(desk.surplus("b"))


# ------------------------------------------------------------------------------------------------------------ modes


@pytest.mark.parametrize("before", ["unified", "portfolio"])
def test_a_state_that_was_asked_for_under_another_mode_is_not_believed(before: Any) -> None:
    world = Exchange("BTC", dexes={})
    world.mode(0, before)
    world.ask(1.0, "")
    # The account becomes a standard one between the two answers to one question.
    world.mode(1.5, "standard")
    world.answer(2.0, -1_000.0, ("BTC", 10.0), of_s=1.2)
    assert world.equity(2.1) is None
    world.ask(3.0, "")
    world.answer(3.2, -500.0, ("BTC", 10.0))
    assert world.equity(3.3) == pytest.approx(500.0)


def test_an_account_with_a_part_that_was_never_reported_is_not_shown_as_live() -> None:
    world = Exchange()
    world.answer(0, -900.0, ("BTC", 10.0))
    world.mode(0, "standard")
    world.trade(1.0, 100.0, 3.0, WHALE, "0xb", symbol="xyz:TSLA")
    assert world.equity(1.1) is None, "it holds something on the other dex, and nobody knows what"
    world.answer(2.0, -200.0, ("xyz:TSLA", 3.0), pool="xyz")
    assert world.equity(2.1) == pytest.approx(100.0)
    assert world.equity(2.1, "xyz") == pytest.approx(100.0)


# --------------------------------------------------------------------------------------------------- margin tables


def tabled(*, max_leverage: float) -> Exchange:
    world = Exchange("BTC")
    world.tell(
        Instruments(**world.origin(0, "rest"), instruments=(Instrument("BTC", margin_tiers([0.0, 100_000.0], [10.0, 5.0])),))
    )
    held = PositionReport("BTC", 10.0, 100.0, None, None, 10.0, mark_price=100.0, max_leverage=max_leverage)
    world.tell(
        AccountSnapshot(**world.origin(0, "rest"), account=WHALE, exchange_ns=ns(0), cross_cash_usd=-800.0, positions=(held,))
    )
    world.mode(0, "standard")
    assert world.equity(0.5) == pytest.approx(200.0)
    return world


def test_a_position_that_grows_under_a_table_that_is_not_known_leaves_its_account_unknown() -> None:
    """Only the rate at its present size was told: beyond it the older table may have another."""
    world = tabled(max_leverage=50.0)
    world.trade(1, 100.0, 5_000.0, WHALE, "0xb")
    assert world.equity(1.1) is None


def test_what_was_opened_under_a_market_s_table_is_not_known_once_the_venue_changes_it() -> None:
    world = tabled(max_leverage=10.0)
    world.instruments(1, "ETH")
    assert world.equity(1.1) == pytest.approx(200.0), "another market's rules are no concern of it"
    world.tell(Instruments(**world.origin(2, "rest"), instruments=(Instrument("BTC", margin_tiers([0.0], [3.0])),)))
    assert world.equity(2.1) is None, "it keeps the table that it was opened under, unless it does not"
    held = PositionReport("BTC", 10.0, 100.0, None, None, 10.0, mark_price=100.0, max_leverage=10.0)
    world.tell(
        AccountSnapshot(**world.origin(3, "rest"), account=WHALE, exchange_ns=ns(3), cross_cash_usd=-800.0, positions=(held,))
    )
    assert world.equity(3.1) == pytest.approx(200.0)


# --------------------------------------------------------------------------------------------------- private feeds


def test_a_feed_that_counts_anew_without_a_new_state_is_not_taken_for_one_that_repeats_itself() -> None:
    desk = Desk()
    desk.fed("a", 50, 1_000.0, position(1.0), at_s=100.0)
    # After its restart the source tells the last change with the time that it had.
    desk.fed("a", 0, 1_000.0, position(1.0), at_s=100.0, received_s=160.0)
    desk.delta("a", 1, position(5.0), cash=600.0, at_s=170.0)
    shown = desk.surplus("a", now_s=171.0)
    assert math.isnan(shown) or desk.sizes("a") == {"BTC": [5.0]}
    assert desk.changes.resync_demands() or desk.sizes("a") == {"BTC": [5.0]}
    desk.fed("a", 1, 600.0, position(5.0), at_s=170.0)
    assert desk.surplus("a", now_s=171.0) == pytest.approx(600.0 + 500.0 * 0.9875)


def test_a_message_that_is_delivered_twice_changes_nothing() -> None:
    desk = Desk()
    desk.fed("a", 50, 1_000.0, position(1.0), at_s=100.0)
    desk.delta("a", 51, position(2.0), cash=900.0, at_s=101.0)
    for _ in range(2):
        desk.delta("a", 51, position(2.0), cash=900.0, at_s=101.0)
        desk.fed("a", 50, 1_000.0, position(1.0), at_s=100.0)
    assert desk.surplus("a") == pytest.approx(900.0 + 200.0 * 0.9875)
    assert desk.changes.resync_demands() == []


def test_a_change_from_one_feed_does_not_continue_the_numbers_of_another() -> None:
    desk = Desk()
    desk.fed("a", 1, 1_000.0, position(1.0), connection="first")
    # The second feed's own first message, with the positions, was not the state that is known.
    desk.delta("a", 2, position(3.0, "ETH"), connection="second")
    assert math.isnan(desk.surplus("a")), "what the first message of the second feed said is not known"
    assert [(item.feed, item.account) for item in desk.changes.resync_demands()] == [("second", "a")]


def test_of_two_feeds_the_later_state_counts_whatever_its_number() -> None:
    desk = Desk()
    desk.fed("a", 7, 1_000.0, position(1.0), at_s=105.0, connection="first")
    desk.fed("a", 900, 0.0, position(9.0), at_s=101.0, connection="second")
    shown = desk.surplus("a")
    assert math.isnan(shown) or desk.sizes("a") == {"BTC": [1.0]}


@pytest.mark.parametrize("closed_first", [True, False])
def test_the_two_positions_of_a_market_told_in_one_delta_do_not_close_each_other(closed_first: bool) -> None:
    desk = Desk()
    desk.fed("a", 1, 1_000.0, position(5.0, isolated_cash_usd=-400.0))
    cross, isolated = position(0.0), position(6.0, isolated_cash_usd=-490.0)
    desk.delta("a", 2, *((cross, isolated) if closed_first else (isolated, cross)))
    assert desk.sizes("a") == {"BTC": [6.0]}


def test_marks_of_a_public_venue_that_go_stale_take_the_accounts_of_its_feed_with_them() -> None:
    desk = FedDesk()
    desk.open()
    desk.account(0, "a", -40_000.0, Held("BTC-PERP", 1.0, 60_000.0))
    desk.look(1)
    answer = AccountQueries(desk.engine).account(DESK, "a", ns(1))
    assert answer is not None
    assert answer.state == "live"
    desk.look(2_000)
    answer = AccountQueries(desk.engine).account(DESK, "a", ns(2_000))
    assert answer is not None
    assert (answer.state, answer.margins[0].equity_usd) == ("stale", None)
