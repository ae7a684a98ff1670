from __future__ import annotations

import pytest

from connectors.simulated.exchange import ExchangeConfig
from connectors.simulated.liquidation import COOLDOWN_MS
from connectors.simulated.markets import MICROS_PER_USD
from tests.connectors.simulated.worlds import HYPE, ROUND, START_MS, give, quote, set_mark, world

FREE = ExchangeConfig(taker_fee_ppm=0, maker_fee_ppm=0)


def test_a_small_position_is_closed_in_full_by_a_market_order() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0)
    quote(exchange, 0, [(95.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.74)
    assert not engine.run()
    # Maintenance is 5 %: 1,000 - 100 d < 5 * (100 - d) once d > 5.263.
    set_mark(exchange, 0, 94.73)
    assert engine.run()
    assert exchange.table.lots[1, 0] == 0
    assert exchange.table.raw[1] == 500 * MICROS_PER_USD
    (trade,) = exchange.trades
    assert trade.forced is not None
    assert (trade.forced.method, trade.forced.account, trade.forced.is_long) == ("market", 1, True)
    assert not trade.taker_is_buyer


def test_a_short_is_closed_by_buying() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, -100.0, 1_000.0)
    quote(exchange, 0, [(105.0, 1_000.0)], is_bid=False)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 105.0)
    assert engine.run()
    assert exchange.table.raw[1] == 500 * MICROS_PER_USD
    assert exchange.trades[0].taker_is_buyer


def test_a_large_position_sends_a_fifth_first_and_then_everything_for_half_a_minute() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 10_000.0, 100_000.0)
    quote(exchange, 0, [(95.0, 2_500.0)], is_bid=True)
    exchange.begin_block(START_MS + 1_000)
    set_mark(exchange, 0, 94.70)
    assert engine.run()
    assert exchange.table.lots[1, 0] == 800_000
    # The maintenance fell with the size, so the account is fine until the mark falls on.
    exchange.begin_block(START_MS + 1_100)
    assert not engine.run()
    set_mark(exchange, 0, 93.30)
    exchange.begin_block(START_MS + 1_000 + COOLDOWN_MS)
    assert engine.run()
    assert engine.records[-1].lots_before == 800_000
    assert engine.records[-1].lots_closed == 50_000
    assert exchange.table.lots[1, 0] == 750_000


def test_after_the_cooldown_a_fifth_is_sent_again() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 10_000.0, 100_000.0)
    quote(exchange, 0, [(95.0, 10_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1_000)
    set_mark(exchange, 0, 94.70)
    engine.run()
    set_mark(exchange, 0, 93.30)
    exchange.begin_block(START_MS + 1_001 + COOLDOWN_MS)
    assert engine.run()
    assert [record.lots_closed for record in engine.records] == [200_000, 160_000]


def test_positions_of_a_hundred_thousand_dollars_are_not_split() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 1_000.0, 10_000.0)
    quote(exchange, 0, [(95.0, 10_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.70)
    engine.run()
    assert [record.lots_closed for record in engine.records] == [100_000]


@pytest.mark.parametrize(
    ("price_usd", "method"), [(93.11, "market"), (93.09, "backstop"), (90.01, "backstop"), (89.99, "deleveraging")]
)
def test_what_happens_depends_on_how_little_is_left(price_usd: float, method: str) -> None:
    # 100 coins with 1,000 of equity: two thirds of the maintenance at 93.103, nothing at 90.
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0)
    quote(exchange, 0, [(89.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, price_usd)
    cash = exchange.table.total_cash()
    engine.run()
    assert [record.method for record in engine.records] == [method]
    assert exchange.table.total_cash() == cash
    if method == "market":
        # The limit is the bankruptcy price of 90, so the bid at 89 is not hit.
        assert exchange.table.lots[1, 0] == 10_000
    else:
        assert exchange.table.lots[1, 0] == 0


def test_the_backstop_takes_positions_and_margin() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0)
    exchange.table.unified[1] = True
    exchange.table.collateral[1] = 600 * MICROS_PER_USD
    exchange.table.raw[1] -= 600 * MICROS_PER_USD
    vault_before = exchange.table.cross_value(engine.vault, exchange.mark)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 92.0)
    engine.run()
    assert exchange.table.lots[engine.vault, 0] == 10_000
    assert exchange.table.cross_value(engine.vault, exchange.mark) == vault_before + 200 * MICROS_PER_USD
    assert exchange.table.cross_value(1, exchange.mark) == 0
    assert exchange.table.collateral[1] == 0
    (trade,) = exchange.trades
    assert (trade.price, trade.buyer.account) == (920_000, engine.vault)


def test_deleveraging_hits_the_highest_ranked_winner_at_the_previous_mark() -> None:
    exchange, engine = world(accounts=6, config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0)
    give(exchange, 2, 0, -60.0, 2_000.0)
    give(exchange, 3, 0, -60.0, 800.0)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 91.0)
    set_mark(exchange, 0, 89.5)
    engine.run()
    # Account 3 has the least value for its size, account 2 comes next, the maker last.
    assert [(trade.buyer.account, trade.lots, trade.price) for trade in exchange.trades] == [
        (3, 6_000, 910_000),
        (2, 4_000, 910_000),
    ]
    assert exchange.table.raw[1] == 100 * MICROS_PER_USD
    assert exchange.table.lots[2, 0] == -2_000
    assert exchange.last_price == [None]


def test_what_an_account_owes_after_its_last_position_is_paid_by_the_vault() -> None:
    exchange, engine = world(config=ExchangeConfig(taker_fee_ppm=0, maker_fee_ppm=0, bankruptcy_limit=False))
    give(exchange, 1, 0, 100.0, 1_000.0)
    quote(exchange, 0, [(80.0, 1_000.0)], is_bid=True)
    vault_before = int(exchange.table.raw[engine.vault])
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.0)
    engine.run()
    assert engine.bad_debt == 1_000 * MICROS_PER_USD
    assert exchange.table.raw[1] == 0
    assert exchange.table.raw[engine.vault] == vault_before - engine.bad_debt


def test_an_isolated_position_dies_alone() -> None:
    exchange, engine = world((ROUND, HYPE), config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0, isolated=True)
    give(exchange, 1, 1, 100.0, 400.0)
    exchange.table.raw[1] += 50_000 * MICROS_PER_USD
    quote(exchange, 0, [(94.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    before = int(exchange.table.raw[1])
    set_mark(exchange, 0, 94.5)
    engine.run()
    assert exchange.table.lots[1].tolist() == [0, 10_000]
    assert exchange.table.raw[1] == before + 400 * MICROS_PER_USD
    assert [record.is_isolated for record in engine.records] == [True]


def test_an_isolated_backstop_leaves_the_cross_account_alone() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0, isolated=True)
    exchange.table.raw[1] = 77
    vault_before = exchange.table.cross_value(engine.vault, exchange.mark)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 92.0)
    engine.run()
    assert exchange.table.raw[1] == 77
    assert exchange.table.cross_value(engine.vault, exchange.mark) == vault_before + 200 * MICROS_PER_USD


def test_an_isolated_debt_is_covered_and_not_taken_from_the_cross_account() -> None:
    exchange, engine = world(config=ExchangeConfig(taker_fee_ppm=0, maker_fee_ppm=0, bankruptcy_limit=False))
    give(exchange, 1, 0, 100.0, 1_000.0, isolated=True)
    exchange.table.raw[1] = 77
    quote(exchange, 0, [(80.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.0)
    engine.run()
    assert exchange.table.raw[1] == 77
    assert engine.bad_debt == 1_000 * MICROS_PER_USD
    assert not exchange.table.isolated[1, 0]


def test_a_cross_account_stops_selling_once_it_has_margin_enough() -> None:
    exchange, engine = world((ROUND, HYPE), config=FREE)
    give(exchange, 1, 0, 500.0, 2_500.0)
    give(exchange, 1, 1, 100.0, 200.0)
    quote(exchange, 0, [(99.9, 10_000.0)], is_bid=True)
    quote(exchange, 1, [(34.7, 10_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 99.8)
    engine.run()
    # The larger position went; the smaller one could stay.
    assert exchange.table.lots[1].tolist() == [0, 10_000]


def test_resting_orders_of_a_liquidated_account_are_cancelled() -> None:
    exchange, engine = world(config=FREE)
    give(exchange, 1, 0, 100.0, 1_000.0)
    quote(exchange, 0, [(94.5, 1_000.0)], is_bid=True, owner=1)
    quote(exchange, 0, [(94.0, 1_000.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    set_mark(exchange, 0, 94.6)
    engine.run()
    assert [level.price for level in exchange.books[0].bids.levels()] == [940_000]
    assert exchange.table.lots[1, 0] == 0
