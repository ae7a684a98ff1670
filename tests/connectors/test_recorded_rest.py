"""Which request a recorded response answers."""

from __future__ import annotations

import msgspec
import pytest

from connectors import recorded_rest
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.recorded_rest import Exchange, RecordedRest, exchange_of, request_keys


def exchange(path: str, body: bytes, *, method: str = "GET", request_body: str = "") -> Exchange:
    payload = wrap_rest_response(RestRequest(method, path, body=request_body), body)
    found = exchange_of(Frame("binance", "rest", 1, payload))
    assert found is not None
    return found


def test_requests_are_equal_when_they_say_the_same() -> None:
    assert request_keys("get", "/x?b=2&a=1", b"") == request_keys("GET", "/x?a=1&b=2", "")
    assert request_keys("GET", "/x?a=%40", b"")[0] == request_keys("GET", "/x?a=@", b"")[0]
    assert request_keys("POST", "/info", b'{"a": 1, "b": [1.5]}') == request_keys("POST", "/info", '{"b":[1.5],"a":1}')
    assert request_keys("POST", "/info", b'{"a":1}') != request_keys("POST", "/info", b'{"a":2}')
    assert request_keys("GET", "/x?a=1", b"")[0] != request_keys("GET", "/x?a=2", b"")[0]
    assert request_keys("GET", "/x?limit=5", b"")[0] != request_keys("GET", "/x", b"")[0]
    assert request_keys("GET", "/x?limit=5", b"")[1] == request_keys("GET", "/x", b"")[1]
    assert request_keys("POST", "/info", b"{torn")[0] == request_keys("POST", "/info", b"{torn")[0]


def test_an_exact_request_is_preferred_to_one_with_another_limit() -> None:
    rest = RecordedRest()
    deep, shallow = (
        exchange("/fapi/v1/depth?symbol=A&limit=1000", b'"deep"'),
        exchange("/fapi/v1/depth?symbol=A&limit=5", b'"shallow"'),
    )
    for item in (deep, shallow):
        rest.learn(item)
    asked = {limit: rest.find("GET", f"/fapi/v1/depth?limit={limit}&symbol=A", b"") for limit in (5, 100, 1000)}
    assert all(asked.values())
    assert rest.find("GET", "/fapi/v1/depth?symbol=B&limit=5", b"") is None
    assert rest.answer(asked[1000] or "") is None
    rest.advance(deep)
    assert rest.answer(asked[5] or "") is None
    rest.advance(shallow)
    assert [rest.answer(asked[limit] or "") for limit in (5, 100, 1000)] == [b'"shallow"', b'"shallow"', b'"deep"']


def test_only_snapshots_of_books_that_changes_continue_are_marked() -> None:
    assert exchange("/fapi/v1/depth?symbol=BTCUSDT&limit=1000", b"{}").book_symbol == "BTCUSDT"
    assert exchange("/fapi/v1/openInterest?symbol=BTCUSDT", b"{}").book_symbol is None
    assert exchange("/info", b"{}", method="POST", request_body='{"type":"l2Book","coin":"BTC"}').book_symbol is None


def test_messages_are_no_exchanges_and_damaged_ones_are_errors() -> None:
    assert exchange_of(Frame("binance", "public", 1, None)) is None
    assert exchange_of(Frame("binance", "public", 1, b'{"stream":"a@depth","data":{}}')) is None
    assert exchange_of(Frame("binance", "rest", 1, b'{"stream":"a@trade","generated":true,"data":{}}')) is None
    with pytest.raises(msgspec.DecodeError):
        exchange_of(Frame("binance", "rest", 1, b'{"generated":true,"request":{'))


def test_remembered_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_rest, "MAX_REQUESTS", 2)
    rest = RecordedRest()
    for number in range(4):
        rest.learn(exchange(f"/x?n={number}", b"{}"))
    assert rest.refused_keys_total == 2
    assert [rest.find("GET", f"/x?n={number}", b"") is not None for number in range(4)] == [True, True, False, False]
