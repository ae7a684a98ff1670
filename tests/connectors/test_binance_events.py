from __future__ import annotations

from pathlib import Path

import pytest

from connectors.binance import Binance
from connectors.events import (
    BookDelta,
    BookSnapshot,
    Instrument,
    Instruments,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    Trade,
)
from connectors.frames import RestRequest
from connectors.venue import FeedError
from tests.connectors.payloads import RECEIVED_NS, all_payloads, parse, parse_rest, reason_of

BINANCE = Binance()
CORPUS = all_payloads("binance")
DEPTH = RestRequest(method="GET", path="/fapi/v1/depth?symbol=BTCUSDT&limit=1000", weight=20)


def test_a_depth_update_becomes_a_delta_with_its_three_numbers() -> None:
    assert parse(BINANCE, CORPUS["depth_update"], "public") == [
        BookDelta(
            venue="binance",
            connection="public",
            received_ns=RECEIVED_NS,
            symbol="BTCUSDT",
            exchange_ns=1_790_000_000_101_000_000,
            first_id=157,
            last_id=160,
            previous_id=149,
            bids=[(84000.10, 10.0), (83999.0, 0.0)],
            asks=[(84000.20, 100.0)],
        )
    ]


def test_the_raw_form_of_a_stream_gives_the_same_kind_of_event() -> None:
    (event,) = parse(BINANCE, CORPUS["depth_update_raw"])
    assert isinstance(event, BookDelta)
    assert event.asks == []


def test_a_book_ticker_becomes_a_quote_and_an_empty_side_none() -> None:
    (quote,) = parse(BINANCE, CORPUS["book_ticker"])
    assert isinstance(quote, Quote)
    assert (quote.bid, quote.ask, quote.update_id) == ((84788.2, 5.923), (84788.3, 2.824), 11730346419457)
    one_sided = CORPUS["book_ticker"].replace(b'"84788.30"', b'"0.00"').replace(b'"2.824"', b'"0.000"')
    (quote,) = parse(BINANCE, one_sided)
    assert isinstance(quote, Quote)
    assert quote.bid == (84788.2, 5.923)
    assert quote.ask is None
    assert reason_of(BINANCE, CORPUS["book_ticker"].replace(b'"84788.30"', b'"0.00"')) == "bad_number"


def test_a_trade_whose_buyer_was_the_maker_was_a_sale() -> None:
    (trade,) = parse(BINANCE, CORPUS["agg_trade"])
    assert isinstance(trade, Trade)
    assert (trade.aggressor, trade.price, trade.size, trade.trade_id) == ("sell", 84000.1, 0.25, 5933014)
    assert trade.exchange_ns == 1_790_000_000_785_000_000
    (trade,) = parse(BINANCE, CORPUS["trade"])
    assert isinstance(trade, Trade)
    assert (trade.aggressor, trade.trade_id) == ("buy", 3535186032)


@pytest.mark.parametrize("kind", [b"INSURANCE_FUND", b"ADL", b"NA"])
def test_fills_beside_the_book_are_no_trades(kind: bytes) -> None:
    assert parse(BINANCE, CORPUS["trade"].replace(b"MARKET", kind)) == []
    nothing = CORPUS["trade"].replace(b'"84000.10"', b'"0"').replace(b'"0.002"', b'"0"')
    assert parse(BINANCE, nothing.replace(b"MARKET", kind)) == []
    assert reason_of(BINANCE, nothing) == "bad_number"


def test_a_mark_price_carries_index_and_funding_but_not_the_settlement_estimate() -> None:
    assert parse(BINANCE, CORPUS["mark_price"]) == [
        MarkPrice(
            venue="binance",
            connection="main",
            received_ns=RECEIVED_NS,
            symbol="BTCUSDT",
            exchange_ns=1_790_000_001_000_000_000,
            mark_price=84794.15,
            index_price=84784.62659091,
            funding_rate=0.00038167,
            next_funding_ns=1_790_006_400_000_000_000,
        )
    ]


def test_a_delivery_contract_has_no_funding_and_a_new_one_no_index() -> None:
    perpetual, delivery = parse(BINANCE, CORPUS["mark_price_array"])
    assert isinstance(perpetual, MarkPrice)
    assert isinstance(delivery, MarkPrice)
    assert perpetual.funding_rate == 0.00038167
    assert (delivery.symbol, delivery.index_price, delivery.funding_rate, delivery.next_funding_ns) == (
        "BTCUSDT_261225",
        None,
        None,
        None,
    )


def test_a_forced_sale_is_a_long_that_died_at_the_average_price_and_filled_size() -> None:
    assert parse(BINANCE, CORPUS["force_order"]) == [
        Liquidation(
            venue="binance",
            connection="main",
            received_ns=RECEIVED_NS,
            symbol="BTCUSDT",
            exchange_ns=1_790_000_000_890_000_000,
            side="long",
            price=83915.5,
            size=0.014,
            completeness="sampled",
        )
    ]
    (event,) = parse(BINANCE, CORPUS["force_order_combined"])
    assert isinstance(event, Liquidation)
    assert (event.side, event.symbol) == ("short", "XRPUSDT")


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"FILLED"', b'"NEW"'), (b'"FILLED"', b'"EXPIRED"'), (b'"z":"0.014"', b'"z":"0"'), (b'"st":1', b'"st":2')],
    ids=["new", "expired", "unfilled", "coin-margined"],
)
def test_forced_orders_that_closed_nothing_here_are_left_out(old: bytes, new: bytes) -> None:
    assert parse(BINANCE, CORPUS["force_order"].replace(old, new)) == []
    assert parse(BINANCE, CORPUS["force_order_combined"].replace(old, new).replace(b'"z":"127.2"', b'"z":"0"')) == []


def test_a_fill_at_no_price_is_refused() -> None:
    assert reason_of(BINANCE, CORPUS["force_order"].replace(b'"ap":"83915.5"', b'"ap":"0"')) == "bad_number"
    assert reason_of(BINANCE, CORPUS["force_order"].replace(b'"ap":"83915.5",', b"")) == "bad_number"


@pytest.mark.parametrize("name", ["depth_update", "book_ticker", "agg_trade", "mark_price"])
def test_markets_that_count_contracts_are_left_out(name: str) -> None:
    assert parse(BINANCE, CORPUS[name].replace(b'"st":1', b'"st":2')) == []
    assert reason_of(BINANCE, CORPUS[name].replace(b'"st":1', b'"st":3')) == "wrong_type"


def test_an_order_that_is_still_being_filled_is_not_counted_beside_its_end() -> None:
    """``z`` is cumulative and the message names no order, so the parts could not be told from a second order."""
    partly = CORPUS["force_order"].replace(b'"X":"FILLED"', b'"X":"PARTIALLY_FILLED"')
    assert partly != CORPUS["force_order"]
    assert parse(BINANCE, partly) == []


def test_real_liquidations_of_2026_are_read(shared_data: Path) -> None:
    lines = (shared_data / "data" / "venue_liq_frames" / "frames.txt").read_bytes().splitlines()
    events = [event for line in lines if b"forceOrder" in line for event in parse(BINANCE, line)]
    assert [(event.symbol, event.side, event.price, event.size) for event in events if isinstance(event, Liquidation)] == [
        ("COTIUSDT", "short", 0.021912, 288183.0),
        ("PAIRUSDT", "long", 0.0044461, 28448.0),
        ("XRPUSDT", "short", 1.4912, 127.2),
        ("MANTAUSDT", "long", 0.0722187, 2049.1),
    ]
    (quote,) = [event for line in lines if b"bookTicker" in line for event in parse(BINANCE, line)]
    assert isinstance(quote, Quote)


@pytest.mark.parametrize("name", ["kline", "ticker", "acknowledgement", "error"])
def test_legitimate_messages_without_use_give_nothing(name: str) -> None:
    assert parse(BINANCE, CORPUS[name]) == []


def test_a_list_of_mixed_events_gives_those_of_use_in_order() -> None:
    listed = b"[" + b",".join([CORPUS["ticker"], CORPUS["force_order"], CORPUS["depth_update_raw"]]) + b"]"
    assert [type(event) for event in parse(BINANCE, listed)] == [Liquidation, BookDelta]
    combined = b'{"stream":"!x@arr","data":' + listed + b"}"
    assert [type(event) for event in parse(BINANCE, combined)] == [Liquidation, BookDelta]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"stream":"btcusdt@new","data":{"e":"somethingNew","s":"BTCUSDT"}}', "unknown_message"),
        (b'{"e":"somethingNew"}', "unknown_message"),
        (b'{"hello":"world"}', "unknown_message"),
        (b'{"stream":"btcusdt@depth"}', "unknown_message"),
        (b'{"stream":"btcusdt@depth","data":{}}', "wrong_type"),
        (b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate"}}', "wrong_type"),
        (b'{"type":"channel_data","id":"BTC-USD","contents":{}}', "unknown_message"),
        (b'"text"', "wrong_type"),
        (b"[1]", "wrong_type"),
        (b"text", "not_json"),
        (b'{"generated":true,"request":5}', "wrong_type"),
        (b'{"stream":"btcusdt@depth","data":{"e":"depth', "not_json"),
    ],
)
def test_other_messages_are_refused_with_a_reason(content: bytes, reason: str) -> None:
    assert reason_of(BINANCE, content) == reason


def test_polls_that_a_recorder_injected_as_streams_are_read() -> None:
    (book,) = parse(BINANCE, CORPUS["depth_snapshot_injected"])
    (interest,) = parse(BINANCE, CORPUS["open_interest_injected"])
    assert isinstance(book, BookSnapshot)
    assert isinstance(interest, OpenInterest)
    assert (book.symbol, book.last_id) == ("BTCUSDT", 1027024)
    assert (interest.symbol, interest.open_interest_base) == ("BTCUSDT", 10659.509)


def test_other_polls_that_a_recorder_injected_give_nothing() -> None:
    content = b'{"stream":"btcusdt@topLongShortPositionRatio","generated":true,"data":{"symbol":"BTCUSDT","longShortRatio":"1.4"}}'
    assert parse(BINANCE, content) == []
    assert reason_of(BINANCE, content.replace(b'"generated":true,', b"")) == "wrong_type"


def test_a_snapshot_takes_its_symbol_from_the_request() -> None:
    assert parse_rest(BINANCE, DEPTH, CORPUS["rest_depth"]) == [
        BookSnapshot(
            venue="binance",
            connection="rest",
            received_ns=RECEIVED_NS,
            symbol="BTCUSDT",
            exchange_ns=1_790_000_000_101_000_000,
            bids=[(84000.1, 431.0), (84000.0, 2.0)],
            asks=[(84000.2, 12.0), (84000.3, 1.0)],
            last_id=1027024,
        )
    ]


@pytest.mark.parametrize(
    ("request_path", "response", "reason"),
    [
        (DEPTH.path, CORPUS["rest_error"], "refused"),
        ("/fapi/v1/openInterest?symbol=NOPE", CORPUS["rest_error"], "refused"),
        ("/fapi/v1/exchangeInfo", CORPUS["rest_error"], "refused"),
        ("/fapi/v1/depth", CORPUS["rest_depth"], "wrong_type"),
        (DEPTH.path, CORPUS["rest_depth"].replace(b"84000.20", b"84000.10"), "inconsistent"),
        (DEPTH.path, CORPUS["rest_depth"].replace(b"84000.00", b"84001.00"), "inconsistent"),
        (DEPTH.path, CORPUS["rest_depth"].replace(b"431.0", b"NaN"), "bad_number"),
        (DEPTH.path, CORPUS["rest_depth"].replace(b"1027024", b"-1"), "bad_number"),
        (DEPTH.path, CORPUS["rest_depth"][:-5], "not_json"),
        (DEPTH.path, b"null", "wrong_type"),
    ],
)
def test_unusable_responses_are_refused_with_a_reason(request_path: str, response: bytes, reason: str) -> None:
    with pytest.raises(FeedError) as caught:
        parse_rest(BINANCE, RestRequest(method="GET", path=request_path), response)
    assert caught.value.reason == reason


def test_open_interest_is_in_base_units() -> None:
    (event,) = parse_rest(
        BINANCE, RestRequest(method="GET", path="/fapi/v1/openInterest?symbol=BTCUSDT"), CORPUS["rest_open_interest"]
    )
    assert isinstance(event, OpenInterest)
    assert (event.open_interest_base, event.exchange_ns) == (10659.509, 1_790_000_000_011_000_000)


def test_premium_index_gives_marks_of_all_symbols_that_have_one() -> None:
    (event,) = parse_rest(BINANCE, RestRequest(method="GET", path="/fapi/v1/premiumIndex"), CORPUS["rest_premium_index"])
    assert isinstance(event, MarkPrice)
    assert (event.symbol, event.mark_price, event.funding_rate) == ("BTCUSDT", 84793.6331818, 0.00038246)


def test_instruments_take_steps_from_the_filters_and_tiers_from_the_brackets() -> None:
    (event,) = parse_rest(BINANCE, RestRequest(method="GET", path="/fapi/v1/exchangeInfo"), CORPUS["rest_exchange_info"])
    assert isinstance(event, Instruments)
    assert event.complete
    bitcoin, old = event.instruments
    assert (bitcoin.price_step, bitcoin.size_step, bitcoin.delisted) == (0.1, 0.001, False)
    assert [tier.maintenance_rate for tier in bitcoin.tiers] == [0.004, 0.005, 0.0065, 0.01]
    assert old == Instrument(symbol="OLDUSDT", tiers=(), delisted=True)


def test_brackets_in_dollars_are_not_used_for_markets_quoted_in_bitcoin() -> None:
    content = CORPUS["rest_exchange_info"].replace(b'"quoteAsset":"USDT","marginAsset"', b'"quoteAsset":"BTC","marginAsset"')
    (event,) = parse_rest(BINANCE, RestRequest(method="GET", path="/fapi/v1/exchangeInfo"), content)
    assert isinstance(event, Instruments)
    assert event.instruments[0].tiers == ()


def test_responses_to_requests_that_are_not_ours_give_nothing() -> None:
    assert parse_rest(BINANCE, RestRequest(method="GET", path="/fapi/v1/ping"), b"{}") == []
