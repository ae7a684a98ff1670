from __future__ import annotations

from typing import get_args

import pytest

from connectors import hyperliquid_wire as wire
from connectors.hyperliquid import Hyperliquid
from tests.connectors.payloads import all_payloads, reason_of

CORPUS = all_payloads("hyperliquid")

NUMBERS = [
    ("l2_book", b'"84143.0"'),
    ("l2_book", b'"10.25923"'),
    ("bbo", b'"84144.0"'),
    ("trades", b'"84143.0"'),
    ("trades", b'"0.00036"'),
    ("active_asset_ctx", b'"84148.0"'),
    ("active_asset_ctx", b'"84198.0"'),
    ("active_asset_ctx", b'"36585.31848"'),
    ("user_fills_maker", b'"66653.0"'),
    ("user_fills_maker", b'"0.001"'),
]


@pytest.mark.parametrize("hostile", [b'"NaN"', b'"nan"', b'"inf"', b'"-inf"', b'"-1"', b'"1e30"', b"1e400"])
@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_numbers_that_cannot_be_are_refused_in_every_field(name: str, number: bytes, hostile: bytes) -> None:
    assert number in CORPUS[name]
    assert reason_of(Hyperliquid(), CORPUS[name].replace(number, hostile)) == "bad_number"


def test_known_channels_are_those_that_decode() -> None:
    assert {kind.__struct_config__.tag for kind in get_args(wire.Message)} == wire.KNOWN_CHANNELS
    assert wire.KNOWN_CHANNELS.isdisjoint(wire.IGNORED_CHANNELS)


def test_the_order_of_fields_does_not_matter() -> None:
    message = wire.decode_message(
        b'{"data":{"time":1790232236546,"levels":[[{"sz":"1","n":1,"px":"2"}],[]],"coin":"BTC"},"channel":"l2Book"}'
    )
    assert isinstance(message, wire.BookMessage)
    assert message.data.levels[0] == [wire.WireLevel(price=2.0, size=1.0)]
