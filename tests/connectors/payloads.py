"""Small payloads written after the venues' own samples, one file each, and what tests do with them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from connectors.decoding import EXCERPT_CHARACTERS, FEED_REASONS
from connectors.events import AnyEvent
from connectors.frames import REST_CONNECTION, Frame, RestRequest, wrap_rest_response
from connectors.venue import FeedError, Venue

PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"

RECEIVED_NS = 1_790_000_002_000_000_000

HOSTILE_VALUES = [
    b'"NaN"',
    b'"inf"',
    b'"-1"',
    b'"0"',
    b'"1e30"',
    b'"abc"',
    b"null",
    b"1e999",
    b"[]",
    b"{}",
    b"NaN",
    b"-5",
    b'"\xff"',
    b"true",
]


def payload(venue: str, name: str) -> bytes:
    """One stored payload, without its line end."""
    return (PAYLOADS / venue / f"{name}.json").read_bytes().rstrip(b"\n")


def all_payloads(venue: str) -> dict[str, bytes]:
    return {path.stem: payload(venue, path.stem) for path in sorted((PAYLOADS / venue).glob("*.json"))}


def parse(venue: Venue, content: bytes | None, connection: str = "main") -> list[AnyEvent]:
    return venue.parse(Frame(venue=venue.name, connection=connection, received_ns=RECEIVED_NS, payload=content))


def parse_rest(venue: Venue, request: RestRequest, response: bytes) -> list[AnyEvent]:
    return parse(venue, wrap_rest_response(request, response), REST_CONNECTION)


def reason_of(venue: Venue, content: bytes, connection: str = "main") -> str:
    """The reason for which ``content`` is refused; "" if it is not."""
    try:
        parse(venue, content, connection)
    except FeedError as error:
        check_error(venue, error)
        return error.reason
    return ""


def check_error(venue: Venue, error: FeedError) -> None:
    assert error.venue == venue.name
    assert error.reason in FEED_REASONS
    assert len(error.excerpt) <= EXCERPT_CHARACTERS
    assert error.excerpt.isascii()
    assert error.excerpt.isprintable() or not error.excerpt


def floats_of(value: object) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        return [number for item in value.values() for number in floats_of(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in floats_of(item)]
    return []


def check_survives(venue: Venue, content: bytes) -> None:
    """Whatever the bytes: events with finite numbers, or a FeedError from the fixed set, and a channel key or none."""
    key = venue.channel_key(content)
    assert key is None or isinstance(key, str)
    try:
        events = parse(venue, content)
    except FeedError as error:
        check_error(venue, error)
    else:
        assert all(math.isfinite(number) for event in events for number in floats_of(msgspec.to_builtins(event)))


@st.composite
def damaged(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """A payload with bytes cut, changed, put in or doubled, or a value replaced by a hostile one."""
    content = draw(st.sampled_from(corpus))
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.integers(0, 12)))
    match draw(st.sampled_from(["cut", "tear", "change", "double", "value", "key"])):
        case "cut":
            return content[:start] + content[end:]
        case "tear":
            return content[:start]
        case "change":
            return content[:start] + draw(st.binary(max_size=8)) + content[end:]
        case "double":
            return content[:end] + content[start:]
        case "key":
            return content.replace(
                b'":', b'":0,"' + draw(st.sampled_from([b"e", b"s", b"data", b"coin", b"px", b"levels"])) + b'":', 1
            )
        case _:
            colons = [index for index, byte in enumerate(content) if byte == ord(":")]
            colon = draw(st.sampled_from(colons))
            comma = content.find(b",", colon)
            rest = content[comma:] if comma > 0 else b"}"
            return content[: colon + 1] + draw(st.sampled_from(HOSTILE_VALUES)) + rest


NASTY = [
    b"",
    b"\x00",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"[" * 100_000,
    b'{"stream":"a@b","data":' + b"[" * 5_000,
    b'{"stream":"a@depth","data":{"e":"depthUpdate","x":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}}",
    b'{"channel":"l2Book","data":{"coin":"BTC","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}}",
    b'{"channel":"\xff"}',
    b'{"stream":"\xff","data":{}}',
    b'{"e":"depthUpdate","e":5,"s":"\xe2\x82',
    b'{"generated":true,"request":{"method":"GET","path":"/fapi/v1/depth","body":"\xff"},"response":{}}',
    b'{"generated":true,"request":{"method":"POST","path":"/info","body":"{","weight":1},"response":null}',
    b'{"generated":true,"request":5}',
    b"(1, 2)",
    b"Websocket connection established",
]
