from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import binance_wire as wire
from connectors.binance import Binance
from tests.connectors.payloads import all_payloads, reason_of

CORPUS = all_payloads("binance")

HOSTILE_NUMBERS = [b'"NaN"', b'"nan"', b'"inf"', b'"-inf"', b'"-84000.10"', b'"1e30"', b"-1", b"1e400"]
NUMBERS = [
    ("depth_update", b'"84000.10"'),
    ("depth_update", b'"100"'),
    ("depth_update", b"1790000000101"),
    ("depth_update", b"157"),
    ("book_ticker", b'"84788.20"'),
    ("book_ticker", b'"5.923"'),
    ("agg_trade", b'"84000.1"'),
    ("agg_trade", b'"0.25"'),
    ("trade", b'"0.002"'),
    ("mark_price", b'"84794.15"'),
    ("mark_price", b'"84784.62659091"'),
    ("force_order", b'"83915.5"'),
    ("force_order", b'"z":"0.014"'),
    ("open_interest_injected", b'"10659.509"'),
    ("depth_snapshot_injected", b'"431.0"'),
]


@pytest.mark.parametrize("hostile", HOSTILE_NUMBERS)
@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_numbers_that_cannot_be_are_refused_in_every_field(name: str, number: bytes, hostile: bytes) -> None:
    prefix, colon, _ = number.rpartition(b":")
    content = CORPUS[name].replace(number, prefix + colon + hostile)
    assert content != CORPUS[name]
    assert reason_of(Binance(), content) in {"bad_number", "wrong_type"}
    if b"n" in hostile:
        assert reason_of(Binance(), content) == ("wrong_type" if number.isdigit() or b"179" in number else "bad_number")


@pytest.mark.parametrize("name", ["depth_update", "agg_trade", "mark_price"])
def test_a_price_of_zero_is_refused(name: str) -> None:
    number = {"depth_update": b'"84000.10"', "agg_trade": b'"84000.1"', "mark_price": b'"84794.15"'}[name]
    assert reason_of(Binance(), CORPUS[name].replace(number, b'"0.00"')) == "bad_number"


@given(price=st.floats(1e-9, 1e14), size=st.floats(0.0, 1e17))
def test_prices_written_as_text_are_the_floats_that_they_name(price: float, size: float) -> None:
    content = CORPUS["depth_update"].replace(b'["84000.20","100"]', f'["{price!r}","{size!r}"]'.encode())
    data = wire.decode_combined(content).data
    assert isinstance(data, wire.DepthUpdate)
    assert data.asks == [(price, size)]


def test_known_events_are_those_that_decode() -> None:
    assert wire.KNOWN_EVENTS.isdisjoint(wire.IGNORED_EVENTS)
    tags = {kind.__struct_config__.tag for kind in (wire.DepthUpdate, wire.BookTicker, wire.AggregateTrade, wire.SingleTrade)}
    assert {*tags, "markPriceUpdate", "forceOrder"} == wire.KNOWN_EVENTS
