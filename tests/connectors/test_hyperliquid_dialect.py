"""What a client of Hyperliquid gets from a recording."""

from __future__ import annotations

import json

import pytest

from connectors.dialects import MAX_SUBSCRIPTIONS, Feed
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.hyperliquid_dialect import HyperliquidDialect
from connectors.recorded_rest import RecordedRest, exchange_of
from tests.connectors.payloads import payload


def frame(payload: bytes, connection: str = "main") -> Frame:
    return Frame("hyperliquid", connection, 1, payload)


def subscribe(**fields: object) -> bytes:
    return json.dumps({"method": "subscribe", "subscription": fields}).encode()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"channel":"l2Book","data":{"coin":"BTC","levels":[]}}', Feed("l2Book", "BTC")),
        (b'{"data":{"levels":[],"fast":true,"coin":"BTC"},"channel":"l2Book"}', Feed("l2Book", "BTC", "fast")),
        (b'{"channel":"fastBook","data":{"coin":"BTC","levels":[]}}', Feed("l2Book", "BTC", "fast")),
        (b'{"channel":"trades","data":[{"coin":"ETH","px":"1"},{"coin":"ETH"}]}', Feed("trades", "ETH")),
        (b'{"channel":"trades","data":[]}', None),
        (b'{"channel":"candle","data":{"s":"BTC","i":"1m","t":1}}', Feed("candle", "BTC", "1m")),
        (b'{"channel":"allMids","data":{"mids":{}}}', Feed("allMids", "")),
        (b'{"channel":"fastAssetCtxs","data":"eJw="}', Feed("fastAssetCtxs", "")),
        (b'{"channel":"clearinghouseState","data":{"user":"0xAB","dex":""}}', Feed("clearinghouseState", "0xab")),
        (b'{"channel":"subscriptionResponse","data":{}}', None),
        (b'{"channel":"pong"}', None),
        (b"Websocket connection established.", None),
        (b'{"channel":"l2Book","data":{"coin":null}}', None),
        (b"\xff", None),
    ],
)
def test_messages_tell_channel_and_name_in_any_order_of_fields(payload: bytes, expected: Feed | None) -> None:
    assert HyperliquidDialect().feed_of(frame(payload)) == expected


@pytest.mark.parametrize(
    "body",
    [b'{"universe":[{"name":"BTC"},{"name":"kPEPE"}],"marginTables":[]}', b'[{"universe":[{"name":"BTC"},{"name":"kPEPE"}]},[{}]]'],
)
def test_coins_are_learnt_from_both_lists_of_instruments(body: bytes) -> None:
    dialect = HyperliquidDialect()
    recorded = frame(wrap_rest_response(RestRequest("POST", "/info", body='{"type":"meta"}'), body), "rest")
    dialect.learn(recorded, exchange_of(recorded))
    client = dialect.opened("/ws", "")
    assert not client.receive(subscribe(type="bbo", coin="kPEPE")).drop
    assert client.receive(subscribe(type="bbo", coin="kpepe")).drop


@pytest.mark.parametrize("name", ["xyz:TSLA", "TSLA"])
def test_coins_of_another_dex_are_learnt_under_their_full_names(name: str) -> None:
    dialect = HyperliquidDialect()
    request = RestRequest("POST", "/info", body='{"type":"metaAndAssetCtxs","dex":"xyz"}')
    recorded = frame(wrap_rest_response(request, json.dumps([{"universe": [{"name": name}]}, [{}]]).encode()), "rest")
    dialect.learn(recorded, exchange_of(recorded))
    client = dialect.opened("/ws", "")
    assert not client.receive(subscribe(type="bbo", coin="xyz:TSLA")).drop
    assert client.receive(subscribe(type="bbo", coin="TSLA")).drop
    assert client.wants(Feed("bbo", "xyz:TSLA"))


def test_each_dex_is_answered_with_its_own_list_and_each_pool_with_its_own_state() -> None:
    rest = RecordedRest()
    for kind in ('"type":"metaAndAssetCtxs"', '"type":"clearinghouseState","user":"0xab"'):
        for dex in ("", "xyz", "flx"):
            body = "{" + kind + (f',"dex":"{dex}"' if dex else "") + "}"
            exchange = exchange_of(
                frame(wrap_rest_response(RestRequest("POST", "/info", body=body), f'["{dex}"]'.encode()), "rest")
            )
            assert exchange is not None
            rest.learn(exchange)
            rest.advance(exchange)
        for dex in ("", "xyz", "flx"):
            key = rest.find("POST", "/info", ("{" + kind + f',"dex":"{dex}"' + "}").encode())
            assert key is not None
            assert rest.answer(key) == f'["{dex}"]'.encode()
        assert rest.find("POST", "/info", ("{" + kind + ',"dex":"km"}').encode()) is None


def test_lines_of_a_node_are_no_message_of_the_socket() -> None:
    dialect = HyperliquidDialect()
    for line in (payload("hyperliquid", "node_block"), b'["0x1",{"coin":"BTC","px":"1"}]'):
        dialect.learn(frame(line, "node"), None)
        assert dialect.feed_of(frame(line, "node")) is None
    assert dialect.coins == set()


def test_a_book_is_known_by_the_rounding_that_was_acknowledged_on_its_connection() -> None:
    dialect = HyperliquidDialect()
    acknowledged = b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":%b}}'
    wanted = b'{"type":"l2Book","coin":"BTC","nSigFigs":5,"mantissa":2,"fast":false}'
    dialect.learn(frame(acknowledged % wanted, "x"), None)
    book = b'{"channel":"l2Book","data":{"coin":"BTC","levels":[]}}'
    assert dialect.feed_of(frame(book, "x")) == Feed("l2Book", "BTC", "5/2")
    assert dialect.feed_of(frame(book, "y")) == Feed("l2Book", "BTC", "")
    assert dialect.feed_of(frame(book, "book-3")) == Feed("l2Book", "BTC", "3")
    dialect.learn(frame(book, "x"), None)
    client = dialect.opened("/ws", "")
    client.receive(subscribe(type="l2Book", coin="BTC", nSigFigs=5))
    assert not client.wants(Feed("l2Book", "BTC", "5/2"))
    assert not client.wants(Feed("l2Book", "BTC", ""))
    client.receive(subscribe(type="l2Book", coin="BTC", mantissa=2, nSigFigs=5))
    assert client.wants(Feed("l2Book", "BTC", "5/2"))


def test_a_subscription_spelled_with_its_defaults_is_the_same_one() -> None:
    dialect = HyperliquidDialect()
    dialect.learn(frame(b'{"channel":"l2Book","data":{"coin":"BTC","levels":[]}}'), None)
    client = dialect.opened("/ws", "")
    client.receive(subscribe(type="l2Book", coin="BTC"))
    again = client.receive(subscribe(type="l2Book", coin="BTC", nSigFigs=None))
    assert json.loads(again.replies[0])["data"].startswith("Already subscribed")


def test_subscriptions_are_bounded() -> None:
    client = HyperliquidDialect().opened("/ws", "")
    for number in range(MAX_SUBSCRIPTIONS):
        assert b"subscriptionResponse" in client.receive(subscribe(type="trades", coin=f"C{number}")).replies[0]
    assert b'"error"' in client.receive(subscribe(type="trades", coin="one more")).replies[0]
