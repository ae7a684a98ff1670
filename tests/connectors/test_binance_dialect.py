"""What a client of Binance gets from a recording."""

from __future__ import annotations

import json

import pytest

from connectors.binance_dialect import BinanceDialect
from connectors.dialects import MAX_SUBSCRIPTIONS, Feed
from connectors.frames import Frame


def feed(payload: bytes) -> Feed | None:
    return BinanceDialect().feed_of(Frame("binance", "public", 1, payload))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"stream":"btcusdt@depth@0ms","data":{}}', Feed("depth", "BTCUSDT")),
        (b'{"stream": "btcusdt@depth20@100ms", "data": {}}', Feed("depth20", "BTCUSDT")),
        (b'{"stream":"!forceOrder@arr","data":{}}', Feed("!forceOrder", "*")),
        (b'{"e":"markPriceUpdate","E":1,"s":"ETHUSDT"}', Feed("markPrice", "ETHUSDT")),
        (b'{"e":"forceOrder","E":1,"o":{"s":"ETHUSDT"}}', Feed("forceOrder", "ETHUSDT")),
        (b'{"result":null,"id":1}', None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_speed_does_not_count_but_depth_does(payload: bytes, expected: Feed | None) -> None:
    assert feed(payload) == expected


def test_each_kind_of_trades_is_itself_when_both_were_recorded() -> None:
    dialect = BinanceDialect()
    trade, aggregate = Feed("trade", "BTCUSDT"), Feed("aggTrade", "BTCUSDT")
    dialect.learn(Frame("binance", "market", 1, b'{"stream":"btcusdt@trade","data":{}}'), None)
    client = dialect.opened("/market/ws/btcusdt@aggTrade", "")
    assert client.wants(trade)
    dialect.learn(Frame("binance", "market", 1, b'{"stream":"btcusdt@aggTrade","data":{}}'), None)
    assert client.wants(aggregate)
    assert not client.wants(trade)
    assert not client.wants(Feed("trade", "ETHUSDT"))


@pytest.mark.parametrize(
    ("path", "query", "depth", "tape"),
    [
        ("/public/stream", "streams=a@depth/a@aggTrade", True, False),
        ("/market/stream", "streams=a@depth/a@aggTrade", False, True),
        ("/public/ws/a@depth/a@aggTrade", "", True, False),
        ("/stream", "streams=a@depth/a@aggTrade", True, False),
        ("/ws/a@aggTrade", "", False, False),
        ("/private/ws/a@depth/a@aggTrade", "", False, False),
        ("/", "", False, False),
        ("/public/stream", "nonsense", False, False),
    ],
)
def test_a_socket_carries_the_streams_of_its_route_only(path: str, query: str, depth: bool, tape: bool) -> None:
    client = BinanceDialect().opened(path, query)
    assert client.wants(Feed("depth", "A")) is depth
    assert client.wants(Feed("aggTrade", "A")) is tape


def test_unsubscribing_one_speed_keeps_the_other() -> None:
    client = BinanceDialect().opened("/public/ws", "")
    client.receive(b'{"method":"SUBSCRIBE","params":["a@depth","a@depth@500ms"],"id":1}')
    client.receive(b'{"method":"UNSUBSCRIBE","params":["a@depth","never@subscribed"],"id":2}')
    assert client.wants(Feed("depth", "A"))
    client.receive(b'{"method":"UNSUBSCRIBE","params":["a@depth@500ms"],"id":3}')
    assert not client.wants(Feed("depth", "A"))
    assert not client.subscribed


def test_subscriptions_are_bounded() -> None:
    client = BinanceDialect().opened("/public/ws", "")
    streams = [f"s{number}@depth" for number in range(MAX_SUBSCRIPTIONS + 1)]
    (reply,) = client.receive(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}).encode()).replies
    assert "more than" in json.loads(reply)["error"]["msg"]
    assert not client.subscribed


@pytest.mark.parametrize(
    "message", [b"", b"{", b"[]", b'{"method":1}', b'{"method":"SUBSCRIBE","params":[1]}', b"\xff", b"[" * 5000]
)
def test_malformed_requests_are_errors_and_change_nothing(message: bytes) -> None:
    client = BinanceDialect().opened("/public/ws", "")
    answer = client.receive(message)
    assert not answer.drop
    assert json.loads(answer.replies[0])["error"]["code"] == 2
    assert not client.subscribed
