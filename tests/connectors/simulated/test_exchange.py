from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.simulated.exchange import Exchange, ExchangeConfig
from connectors.simulated.liquidation import LiquidationEngine
from connectors.simulated.markets import MARKETS, MICROS_PER_USD
from tests.connectors.simulated.worlds import ROUND, START_MS, give, quote, world


def test_an_order_walks_the_book_and_pays_fees() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.0, 1.0), (98.0, 2.0)], is_bid=True)
    exchange.begin_block(START_MS + 100)
    assert exchange.market_order(1, 0, 250, is_buy=False) == 250
    assert [(trade.price, trade.lots) for trade in exchange.trades] == [(990_000, 100), (980_000, 150)]
    assert exchange.last_price[0] == 980_000
    paid = 99 * MICROS_PER_USD + 147 * MICROS_PER_USD
    assert exchange.table.raw[1] == paid - paid * 450 // 1_000_000
    assert exchange.fees == paid * 450 // 1_000_000 + paid * 150 // 1_000_000
    assert {trade.transaction for trade in exchange.trades} == {exchange.trades[0].transaction}
    assert len({trade.trade_id for trade in exchange.trades}) == 2
    assert all(0 <= trade.trade_id < 2**50 for trade in exchange.trades)


def test_what_the_book_does_not_hold_is_not_filled() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.0, 1.0), (97.0, 1.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    assert exchange.market_order(1, 0, 500, is_buy=False, limit_price=980_000) == 100
    assert exchange.market_order(1, 0, 500, is_buy=True) == 0
    assert exchange.table.lots[1, 0] == -100


def test_a_quote_that_would_trade_is_refused() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.0, 1.0)], is_bid=True)
    assert not exchange.quote(1, 0, 990_000, 5, is_bid=False)
    assert not exchange.books[0].asks.levels()


@pytest.mark.parametrize("now_ms", [START_MS, START_MS - 1])
def test_block_times_must_rise(now_ms: int) -> None:
    exchange, _ = world()
    with pytest.raises(ValueError, match="must rise"):
        exchange.begin_block(now_ms)


def test_the_mark_is_the_median_of_three_prices() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.0, 1.0)], is_bid=True)
    quote(exchange, 0, [(101.0, 1.0)], is_bid=False)
    exchange.begin_block(START_MS + 1)
    # Oracle 90 without an average premium yet, own quotes 99 and 101, elsewhere 95.
    exchange.set_references([900_000], [950_000])
    assert exchange.update_marks()
    assert exchange.mark == [950_000]
    assert exchange.previous_mark == [1_000_000]
    # Marks stay until they are due again; then the premium of 10 has been seen for three seconds.
    exchange.begin_block(START_MS + 3_000)
    exchange.set_references([900_000], [1_200_000])
    assert not exchange.update_marks()
    exchange.begin_block(START_MS + 3_001)
    assert exchange.update_marks()
    assert exchange.mark == [1_000_000]


def test_the_average_premium_forgets_with_its_time_constant() -> None:
    exchange, _ = world(config=ExchangeConfig(mark_interval_ms=1))
    quote(exchange, 0, [(109.0, 1.0)], is_bid=True)
    quote(exchange, 0, [(111.0, 1.0)], is_bid=False)
    exchange.last_price[0] = 1_300_000
    for second in range(1, 602):
        exchange.begin_block(START_MS + second * 1_000)
        # Premium 10 for 451 s, then 0 for 150 s; elsewhere far below, own median 111, so the mark is oracle + premium.
        exchange.set_references([1_000_000 if second <= 451 else 1_100_000], [500_000])
        exchange.update_marks()
    # Both sums decay with exp(-t / 150 s): 100,000 * (e^-1 - e^-4) / (1 - e^-4), with one-second samples. It is above the own
    # median of 111, which is therefore the middle one.
    assert exchange.mark[0] == 1_110_000
    exchange.set_references([1_060_000], [500_000])
    exchange.begin_block(START_MS + 602_000)
    exchange.update_marks()
    assert exchange.mark[0] == pytest.approx(1_060_000 + 36_000, abs=1_500)


def test_under_the_last_trade_rule_the_mark_is_the_last_print() -> None:
    exchange, _ = world(config=ExchangeConfig(mark_rule="last_trade"))
    quote(exchange, 0, [(99.0, 1.0), (98.0, 1.0)], is_bid=True)
    exchange.begin_block(START_MS + 1)
    assert not exchange.update_marks()
    exchange.market_order(1, 0, 101, is_buy=False)
    assert exchange.update_marks()
    assert exchange.mark == [980_000]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["bid", "ask", "buy", "sell", "cancel", "mark"]),
        st.integers(0, 6),
        st.integers(0, 1),
        st.integers(1, 400),
        st.integers(-600, 600),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(
    ACTIONS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(-900, 900), st.floats(0.06, 0.5), st.booleans()), min_size=5, max_size=5),
)
def test_positions_cancel_out_and_money_is_neither_made_nor_lost(
    actions: list[tuple[str, int, int, int, int]],
    partial: bool,
    backstop: bool,
    deleveraging: bool,
    limited: bool,
    holdings: list[tuple[int, float, bool]],
) -> None:
    config = ExchangeConfig(
        partial_liquidation=partial, backstop=backstop, deleveraging=deleveraging, bankruptcy_limit=limited, mark_interval_ms=1
    )
    exchange, engine = world((ROUND, MARKETS[3]), accounts=8, config=config)
    for row, (size, margin, isolated) in enumerate(holdings, start=1):
        market = row % 2
        if size:
            notional_usd = abs(size) * exchange.mark[market] / exchange.markets[market].price_scale
            give(exchange, row, market, size, notional_usd * margin, isolated=isolated)
    cash = exchange.table.total_cash()
    now_ms = START_MS
    for kind, row, market, lots, offset in actions:
        now_ms += 100
        _act(exchange, engine, now_ms, kind, row, market, lots, offset)
        table = exchange.table
        assert table.lots.sum(axis=0).tolist() == [0, 0]
        assert table.total_cash() + exchange.fees == cash
        values = sum(table.cross_value(each, exchange.mark) for each in range(len(table)))
        values += int(table.margins(exchange.mark).isolated_value.sum())
        assert values + exchange.fees == cash
        assert (table.collateral >= 0).all()
        for book in exchange.books:
            bid, ask = book.bids.best(), book.asks.best()
            assert bid is None or ask is None or bid < ask


def _act(
    exchange: Exchange, engine: LiquidationEngine, now_ms: int, kind: str, row: int, market: int, lots: int, offset: int
) -> None:
    spec = exchange.markets[market]
    exchange.begin_block(now_ms)
    price = exchange.mark[market] * (1_000 + offset // 10) // 1_000
    price -= price % spec.tick(price)
    if kind in {"bid", "ask"}:
        exchange.quote(row, market, price, lots * 50, is_bid=kind == "bid")
    elif kind in {"buy", "sell"}:
        exchange.market_order(row, market, lots * 50, is_buy=kind == "buy")
    elif kind == "cancel":
        exchange.books[market].cancel_all(row)
    else:
        moved = [max(1, mark * (2_000 + offset) // 2_000) for mark in exchange.mark]
        exchange.set_references(moved, moved)
        exchange.update_marks()
    engine.run()
