"""Accounts: discovered on the tape, known from polls, carried by fills, and honest about what they cannot know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import AccountSnapshot, MarginTier, PositionReport
from monitor.margin import build_tier_table
from monitor.state.accounts import AccountTable, PollDemand
from monitor.state.fills import Fill
from monitor.triggers import sweep

TIERS = build_tier_table([(MarginTier(0.0, 0.0125, 0.0),), (MarginTier(0.0, 0.02, 0.0),)])
NS = 1_000_000_000
AGE_MAX = 600 * NS


def position(
    size: float, isolated_cash: float | None = None, symbol: str = "BTC", venue_price: float | None = None
) -> PositionReport:
    return PositionReport(symbol, size, None, isolated_cash, venue_price, None)


def report(account: str, cash: float, *positions: PositionReport, at_s: float = 100.0) -> AccountSnapshot:
    return AccountSnapshot(
        venue="hyperliquid",
        connection="rest",
        received_ns=int(at_s * NS),
        account=account,
        exchange_ns=int(at_s * NS),
        cross_cash_usd=cash,
        positions=positions,
    )


def known(table: AccountTable, account: str, cash: float, *positions: PositionReport, at_s: float = 100.0) -> None:
    markets = [0 if item.symbol == "BTC" else 1 for item in positions]
    table.apply_snapshot(report(account, cash, *positions, at_s=at_s), markets, TIERS)
    table.set_mode("hyperliquid", account, "standard", int(at_s * NS))


def fill(table: AccountTable, account: str, size: float, price: float, at_s: float, market: int = 0) -> None:
    table.apply_fill("hyperliquid", account, Fill(int(at_s * NS), market, size, price), int(at_s * NS), TIERS)


def surplus(table: AccountTable, *prices: float, now_s: float = 101.0) -> dict[str, float]:
    cash = table.projectable_cash(int(now_s * NS), AGE_MAX)
    swept = sweep(table.legs(copy=False), cash, np.array(prices), TIERS)
    return {table.name(row)[1]: float(swept.surplus_usd[row]) for row in range(1, cash.size) if table.name(row)[1]}


def sizes(table: AccountTable) -> list[float]:
    legs = table.legs(copy=False)
    return sorted(legs.size[legs.size != 0.0].tolist())


def test_a_polled_account_is_projected_from_its_cash_and_positions() -> None:
    table = AccountTable(10)
    known(table, "0xa", -700_000.0, position(10.0))
    assert surplus(table, 80_000.0, 1.0) == {"0xa": pytest.approx(100_000.0 - 10_000.0)}


def test_an_isolated_position_is_an_account_of_its_own() -> None:
    table = AccountTable(10)
    known(table, "0xa", 5_000.0, position(1.0, isolated_cash=-900.0), position(2.0, symbol="ETH"))
    cash = table.projectable_cash(101 * NS, AGE_MAX)
    swept = sweep(table.legs(copy=False), cash, np.array([1_000.0, 50.0]), TIERS)
    values = sorted(value for value in swept.surplus_usd.tolist() if not np.isnan(value))
    assert values == pytest.approx(sorted([1_000.0 - 900.0 - 12.5, 5_000.0 + 100.0 - 2.0]))


def test_an_account_seen_only_on_the_tape_is_known_by_name_and_projected_by_nobody() -> None:
    table = AccountTable(10)
    fill(table, "0xa", 1.0, 100.0, 99.0)
    assert table.counts("hyperliquid", 100 * NS, AGE_MAX) == (1, 0, 0, 0)
    assert sizes(table) == []


def test_an_account_of_unknown_or_other_mode_is_not_projected() -> None:
    table = AccountTable(10)
    table.apply_snapshot(report("0xa", 10.0, position(1.0)), [0], TIERS)
    assert np.isnan(surplus(table, 100.0, 1.0)["0xa"])
    table.set_mode("hyperliquid", "0xa", "unified", 0)
    assert np.isnan(surplus(table, 100.0, 1.0)["0xa"])
    assert table.counts("hyperliquid", 101 * NS, AGE_MAX) == (1, 0, 0, 1)


def test_a_fill_after_the_poll_carries_position_and_cash() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(2.0))
    fill(table, "0xa", -0.5, 110.0, 100.5)
    assert sizes(table) == [1.5]
    assert surplus(table, 100.0, 1.0)["0xa"] == pytest.approx(1_000.0 + 55.0 + 150.0 * (1 - 0.0125))


def test_a_fill_that_the_poll_already_includes_is_not_applied_twice() -> None:
    table = AccountTable(10)
    fill(table, "0xa", 2.0, 100.0, 99.0)
    known(table, "0xa", 1_000.0, position(2.0))
    fill(table, "0xa", 2.0, 100.0, 100.0)
    assert sizes(table) == [2.0]


def test_fills_that_overtook_a_slow_poll_are_replayed_on_top_of_it() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(1.0), at_s=100.0)
    fill(table, "0xa", 1.0, 10.0, 105.0)
    fill(table, "0xa", 1.0, 20.0, 107.0)
    # The state at 106 s arrives after the fill at 107 s did.
    known(table, "0xa", -10.0, position(2.0), at_s=106.0)
    assert sizes(table) == [3.0]
    assert surplus(table, 100.0, 1.0, now_s=108.0)["0xa"] == pytest.approx(-30.0 + 300.0 * (1 - 0.0125))


def test_an_answer_older_than_the_state_in_place_is_ignored() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(1.0), at_s=100.0)
    known(table, "0xa", 0.0, position(5.0), at_s=90.0)
    assert sizes(table) == [1.0]


def test_a_closed_position_frees_its_slot_for_the_next() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(0.3))
    fill(table, "0xa", -0.1, 100.0, 101.0)
    fill(table, "0xa", -0.2, 100.0, 102.0)
    assert sizes(table) == []
    slots = table.leg_count
    known(table, "0xb", 0.0, position(1.0))
    assert table.leg_count == slots


def test_a_fill_in_a_new_market_makes_the_account_unknown_until_it_is_polled() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(1.0))
    fill(table, "0xa", 1.0, 50.0, 101.0, market=1)
    assert np.isnan(surplus(table, 100.0, 50.0)["0xa"])
    assert table.unexplained == 1
    assert table.counts("hyperliquid", 101 * NS, AGE_MAX) == (1, 0, 1, 0)
    known(table, "0xa", 950.0, position(1.0), position(1.0, symbol="ETH"), at_s=102.0)
    assert table.counts("hyperliquid", 103 * NS, AGE_MAX) == (1, 1, 0, 0)


def test_a_fill_in_an_isolated_position_makes_the_account_unknown_until_it_is_polled() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(1.0, isolated_cash=-50.0))
    fill(table, "0xa", 1.0, 100.0, 101.0)
    assert np.isnan(surplus(table, 100.0, 50.0)["0xa"])


def test_a_gap_in_the_tape_makes_all_accounts_of_the_venue_stale() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(1.0))
    known(table, "0xb", 1_000.0, position(1.0))
    assert table.invalidate("hyperliquid") == 2
    assert table.counts("hyperliquid", 101 * NS, AGE_MAX) == (2, 0, 2, 0)
    assert table.lost(101 * NS, AGE_MAX).sum() == 2


def test_an_account_that_was_not_polled_for_too_long_is_stale() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(1.0), at_s=100.0)
    assert table.counts("hyperliquid", 700 * NS, AGE_MAX) == (1, 1, 0, 0)
    assert table.counts("hyperliquid", 701 * NS, AGE_MAX) == (1, 0, 1, 0)


def test_a_full_table_refuses_further_accounts_and_counts_them() -> None:
    table = AccountTable(1)
    fill(table, "0xa", 1.0, 100.0, 99.0)
    fill(table, "0xb", 1.0, 100.0, 99.0)
    known(table, "0xc", 1_000.0, position(1.0))
    assert table.account_count == 1
    assert table.refused == 3


def test_the_venues_own_liquidation_price_is_kept_until_the_position_changes() -> None:
    table = AccountTable(10)
    known(table, "0xa", 1_000.0, position(1.0, venue_price=60.0))
    assert table.venue_liquidation_prices().tolist() == [60.0]
    fill(table, "0xa", 1.0, 100.0, 101.0)
    assert np.isnan(table.venue_liquidation_prices()).all()


def test_new_margin_tables_change_the_coefficients_of_positions_already_held() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(1.0))
    table.refresh_tiers(build_tier_table([(MarginTier(0.0, 0.1, 0.0),), (MarginTier(0.0, 0.02, 0.0),)]))
    assert table.legs(copy=False).slope.tolist() == [0.9]


class Order:
    """A table of polled accounts, and what it wants polled next."""

    def __init__(self) -> None:
        self.table = AccountTable(100)
        self.shocks: list[float] = []

    def add(self, account: str, shock: float, at_s: float) -> None:
        known(self.table, account, 0.0, position(1.0), at_s=at_s)
        self.shocks.append(shock)

    def next(self, now_s: float, limit: int = 10) -> list[str]:
        demands = self.table.poll_order("hyperliquid", int(now_s * NS), limit, np.array(self.shocks), pause_ns=5 * NS)
        for demand in demands:
            self.table.note_asked(demand, int(now_s * NS))
        return [demand.account for demand in demands]


def test_polls_go_to_the_closest_of_equal_age_and_to_the_oldest_of_equal_closeness() -> None:
    order = Order()
    order.add("0xfar", -0.5, 100.0)
    order.add("0xnear", 0.02, 100.0)
    assert order.next(200.0) == ["0xnear", "0xfar"]
    order = Order()
    order.add("0xyoung", -0.1, 150.0)
    order.add("0xold", -0.1, 100.0)
    assert order.next(200.0) == ["0xold", "0xyoung"]


def test_far_accounts_are_polled_too_once_they_are_old_enough() -> None:
    order = Order()
    order.add("0xfar", -0.5, 0.0)
    order.add("0xnear", -0.05, 195.0)
    assert order.next(200.0, limit=1) == ["0xfar"]


def test_an_account_that_is_waited_for_is_not_asked_for_again_at_once() -> None:
    order = Order()
    order.add("0xa", -0.1, 100.0)
    assert order.next(200.0) == ["0xa"]
    assert order.next(202.0) == []
    assert order.next(205.0) == ["0xa"]


def test_discovered_accounts_come_before_known_ones_and_the_mode_is_asked_once_the_state_is_known() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(1.0), at_s=100.0)
    fill(table, "0xnew", 1.0, 100.0, 101.0)
    first = table.poll_order("hyperliquid", 110 * NS, 10, None, pause_ns=NS)
    assert first[0] == PollDemand("hyperliquid", "0xnew", mode_known=True)
    table.apply_snapshot(report("0xnew", 0.0, position(1.0), at_s=111.0), [0], TIERS)
    again = {demand.account: demand.mode_known for demand in table.poll_order("hyperliquid", 112 * NS, 10, None, pause_ns=NS)}
    assert again == {"0xnew": False, "0xa": True}


def test_the_mode_is_asked_again_after_hours() -> None:
    table = AccountTable(10)
    known(table, "0xa", 0.0, position(1.0), at_s=100.0)
    (soon,) = table.poll_order("hyperliquid", 3_600 * NS, 10, None, pause_ns=NS)
    (later,) = table.poll_order("hyperliquid", 30_000 * NS, 10, None, pause_ns=NS)
    assert (soon.mode_known, later.mode_known) == (True, False)


def test_the_mode_of_an_account_with_isolated_positions_only_is_asked_too() -> None:
    table = AccountTable(10)
    table.apply_snapshot(report("0xa", 0.0, position(1.0, isolated_cash=-50.0)), [0], TIERS)
    (demand,) = table.poll_order("hyperliquid", 112 * NS, 10, None, pause_ns=NS)
    assert not demand.mode_known


moves = st.lists(
    st.tuples(
        st.sampled_from(["0xa", "0xb", "0xc"]),
        st.sampled_from(["poll", "fill", "fill", "fill"]),
        st.integers(-5, 5).filter(bool),
        st.integers(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_the_table_agrees_with_plain_dictionaries_after_any_history(history: list[tuple[str, str, int, int]]) -> None:
    table = AccountTable(10)
    truth: dict[str, dict[int, float]] = {}
    cash: dict[str, float] = {}
    for step, (account, kind, size, market) in enumerate(history, start=1):
        held = truth.setdefault(account, {})
        cash.setdefault(account, 0.0)
        if kind == "fill":
            held[market] = held.get(market, 0.0) + size
            cash[account] -= size * 10.0
            fill(table, account, float(size), 10.0, float(step), market)
        else:
            held = {index: amount for index, amount in held.items() if amount}
            truth[account] = held
            known(
                table,
                account,
                cash[account],
                *(position(amount, symbol="BTC" if index == 0 else "ETH") for index, amount in held.items()),
                at_s=float(step),
            )
    now_s = float(len(history) + 1)
    for account, value in surplus(table, 10.0, 10.0, now_s=now_s).items():
        if np.isnan(value):
            continue  # Unknown is always allowed; a wrong number is not.
        rates = (0.0125, 0.02)
        expected = cash[account] + sum(size * 10.0 - abs(size) * 10.0 * rates[index] for index, size in truth[account].items())
        assert value == pytest.approx(expected, abs=1e-9)
