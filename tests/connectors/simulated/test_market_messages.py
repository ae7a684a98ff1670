from __future__ import annotations

import pytest

from connectors.simulated.market_messages import all_mids, book_data, context_data, quote_data, recent_trades, trades_data
from tests.connectors.simulated.worlds import ROUND, START_MS, give, quote, world


def test_a_book_frame_has_levels_best_first() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.5, 1.25), (99.0, 2.0)], is_bid=True)
    quote(exchange, 0, [(100.5, 1.0)], is_bid=False)
    quote(exchange, 0, [(99.5, 1.0)], is_bid=True, owner=1)
    assert book_data(exchange, 0) == {
        "coin": "ROUND",
        "time": START_MS,
        "levels": [
            [{"px": "99.5", "sz": "2.25", "n": 2}, {"px": "99.0", "sz": "2.0", "n": 1}],
            [{"px": "100.5", "sz": "1.0", "n": 1}],
        ],
    }


def test_a_rounded_book_says_its_spread_and_a_fast_one_that_it_is_fast() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.7 - index / 10, 1.0) for index in range(30)], is_bid=True)
    quote(exchange, 0, [(100.1 + index / 10, 1.0) for index in range(30)], is_bid=False)
    rounded = book_data(exchange, 0, significant_figures=2)
    assert rounded["spread"] == "11.0"
    assert rounded["levels"] == [
        [{"px": f"{99 - index}.0", "sz": size, "n": int(float(size))} for index, size in enumerate(("8.0", "10.0", "10.0", "2.0"))],
        [{"px": "110.0", "sz": "30.0", "n": 30}],
    ]
    fast = book_data(exchange, 0, is_fast=True)
    assert fast["fast"] is True
    levels = fast["levels"]
    assert isinstance(levels, list)
    assert [len(side) for side in levels] == [5, 5]
    full = book_data(exchange, 0)["levels"]
    assert isinstance(full, list)
    assert [len(side) for side in full] == [20, 20]


def test_an_empty_side_is_null() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.5, 1.25)], is_bid=True)
    assert quote_data(exchange, 0)["bbo"] == [{"px": "99.5", "sz": "1.25", "n": 1}, None]
    context = context_data(exchange, 0)
    assert context["midPx"] is None
    assert context["premium"] is None
    assert context["impactPxs"] is None
    assert all_mids(exchange) == {"ROUND": "100.0"}


def test_trades_name_buyer_and_seller_and_the_aggressor() -> None:
    exchange, _ = world()
    quote(exchange, 0, [(99.5, 1.25)], is_bid=True)
    exchange.begin_block(START_MS + 5)
    exchange.market_order(2, 0, 25, is_buy=False)
    (trade,) = trades_data(exchange, exchange.trades)
    assert trade["users"] == [exchange.table.addresses[0], exchange.table.addresses[2]]
    assert (trade["side"], trade["px"], trade["sz"], trade["time"]) == ("A", "99.5", "0.25", START_MS + 5)
    assert isinstance(trade["hash"], str)
    assert len(trade["hash"]) == 66
    assert recent_trades(exchange, 0, START_MS + 5) == exchange.trades
    assert recent_trades(exchange, 0, START_MS + 6) == []


def test_the_context_counts_open_interest_on_one_side_and_prices_an_impact() -> None:
    exchange, _ = world()
    give(exchange, 1, 0, 30.0, 1_000.0)
    give(exchange, 2, 0, -10.0, 1_000.0)
    quote(exchange, 0, [(100.2, 30.0), (100.0, 100.0)], is_bid=True)
    quote(exchange, 0, [(100.4, 1_000.0)], is_bid=False)
    context = context_data(exchange, 0)
    assert context["openInterest"] == "30.0"
    assert context["midPx"] == "100.3"
    # 6,000 USD: 30 coins at 100.2 and the rest at 100.0.
    assert context["impactPxs"] == ["100.1001", "100.4"]
    premium = context["premium"]
    assert isinstance(premium, str)
    assert float(premium) == pytest.approx(0.001001, rel=1e-3)
    funding = context["funding"]
    assert isinstance(funding, str)
    assert float(funding) == pytest.approx((0.001001 - 0.0005) / 8, rel=1e-3)
    assert context["markPx"] == context["oraclePx"] == ROUND.price_text(1_000_000) == "100.0"
