from __future__ import annotations

import msgspec
import pytest

from connectors.decoding import FEED_REASONS, decoding_error, feed_error, is_ordered_book
from connectors.events import Price


class _Item(msgspec.Struct):
    price: Price
    name: str = ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"price":"1"', "not_json"),
        (b'{"price":"1"}x', "not_json"),
        (b'{"price":1,"name":"\xff"}', "not_json"),
        (b'{"price":NaN}', "not_json"),
        (b'{"price":[]}', "wrong_type"),
        (b'{"name":"a"}', "wrong_type"),
        (b'{"price":"abc"}', "wrong_type"),
        (b'{"price":"NaN"}', "bad_number"),
        (b'{"price":"inf"}', "bad_number"),
        (b'{"price":"0"}', "bad_number"),
        (b'{"price":-1}', "bad_number"),
        (b'{"price":1e30}', "bad_number"),
        (b'{"price":1e999}', "bad_number"),
        (b'{"name":' + b"[" * 3000, "wrong_type"),
        (b'{"unknown":' + b"[" * 3000, "oversized"),
    ],
)
def test_every_complaint_of_the_decoder_has_a_reason_of_the_fixed_set(content: bytes, reason: str) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)) as caught:
        msgspec.json.decode(content, type=_Item, strict=False)
    assert decoding_error("venue", caught.value, content).reason == reason
    assert reason in FEED_REASONS


def test_a_text_that_talks_of_ranges_is_not_taken_for_a_bad_number() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"price":1,"name":5}', type=_Item)
    assert decoding_error("venue", caught.value, b"Expected `float` > 0").reason == "wrong_type"


def test_the_excerpt_is_short_and_printable_whatever_the_bytes() -> None:
    error = feed_error("venue", "not_json", bytes(range(256)) * 10)
    assert len(error.excerpt) == 120
    assert error.excerpt.isprintable()
    assert feed_error("venue", "not_json", msgspec.Raw(b"\x1b[31m'\"")).excerpt == "\\x1b[31m\\'\""


@pytest.mark.parametrize(
    ("bids", "asks", "expected"),
    [
        ([(2.0, 1.0), (1.0, 1.0)], [(3.0, 1.0), (4.0, 1.0)], True),
        ([], [], True),
        ([], [(3.0, 1.0)], True),
        ([(2.0, 1.0)], [], True),
        ([(2.0, 1.0)], [(2.0, 1.0)], False),
        ([(3.0, 1.0)], [(2.0, 1.0)], False),
        ([(1.0, 1.0), (2.0, 1.0)], [(3.0, 1.0)], False),
        ([(2.0, 1.0), (2.0, 1.0)], [(3.0, 1.0)], False),
        ([(2.0, 1.0)], [(4.0, 1.0), (3.0, 1.0)], False),
    ],
)
def test_a_book_is_ordered_when_no_two_orders_could_match(
    bids: list[tuple[float, float]], asks: list[tuple[float, float]], *, expected: bool
) -> None:
    assert is_ordered_book(bids, asks) is expected
