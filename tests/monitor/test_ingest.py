"""Frames of several venues into one engine: what is counted, what is dropped, and that the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.decoding import FEED_REASONS
from connectors.frames import Frame
from connectors.registry import VENUES
from monitor.engine import Engine, EngineSettings
from monitor.ingest import Ingest
from monitor.settings import ProjectionSettings, StalenessSettings

START = 1_700_000_000_000_000_000
PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"


def engine(**symbols: tuple[str, ...]) -> Engine:
    known = symbols or {"binance": ("BTCUSDT",), "hyperliquid": ("BTC",)}
    return Engine(EngineSettings(symbols=known, projection=ProjectionSettings(), staleness=StalenessSettings()))


def frame(venue: str, payload: bytes | None, *, milliseconds: int = 0) -> Frame:
    return Frame(venue, "main", START + milliseconds * 1_000_000, payload)


def binance_mark(price: str, symbol: str = "BTCUSDT") -> bytes:
    return (
        f'{{"e":"markPriceUpdate","E":1700000000000,"s":"{symbol}","p":"{price}","i":"{price}","r":"0","T":1700000000000}}'.encode()
    )


HYPERLIQUID_BOOK = (
    b'{"channel":"l2Book","data":{"coin":"BTC","time":1700000000000,'
    b'"levels":[[{"px":"99.0","sz":"1.0","n":1}],[{"px":"101.0","sz":"1.0","n":1}]]}}'
)


def test_frames_reach_the_market_that_they_are_about() -> None:
    fed = engine()
    ingest = Ingest(fed, VENUES)
    ingest.apply_all([frame("binance", binance_mark("100")), frame("hyperliquid", HYPERLIQUID_BOOK)])
    ingest.apply(frame("binance", binance_mark("101")))
    markets = {market.venue: market for market in fed.project(START).markets}
    assert markets["binance"].reference_price == 101.0
    assert (markets["hyperliquid"].best_bid, markets["hyperliquid"].best_ask) == (99.0, 101.0)
    assert {name: (count.frames, count.events) for name, count in fed.counters.items()} == {
        "binance": (2, 2),
        "hyperliquid": (1, 1),
    }


def test_what_cannot_be_used_is_counted_by_venue_and_reason_and_the_rest_goes_on() -> None:
    fed = engine()
    bad = [b"", b"{", b"\xff\xfe", b"[1,2]", binance_mark("NaN"), binance_mark("-1"), binance_mark("1e999"), b'{"e":"new"}']
    frames = [frame("binance", binance_mark("100")), *(frame("binance", payload) for payload in bad)]
    frames += [frame("hyperliquid", b"{}"), frame("binance", binance_mark("102"))]
    Ingest(fed, VENUES).apply_all(frames)
    errors = fed.counters["binance"].parse_errors
    assert sum(errors.values()) == len(bad)
    assert set(errors) <= set(FEED_REASONS)
    assert errors["bad_number"] == 3
    assert errors["not_json"] == 3
    assert sum(fed.counters["hyperliquid"].parse_errors.values()) == 1
    assert fed.counters["binance"].frames == len(bad) + 2
    assert fed.counters["binance"].events == 2
    assert [market.reference_price for market in fed.project(START).markets] == [102.0, None]


def test_a_frame_without_payload_is_a_gap_of_its_connection() -> None:
    fed = engine()
    ingest = Ingest(fed, VENUES)
    ingest.apply_all([frame("binance", binance_mark("100")), frame("binance", None)])
    assert (fed.counters["binance"].gaps, fed.counters["hyperliquid"].gaps) == (1, 0)
    market = fed.project(START).markets[0]
    assert (market.reference_price, market.stale_reasons[-1]) == (None, "mark: disconnected")


def test_an_event_about_an_unknown_symbol_is_counted_and_the_others_of_its_message_are_used() -> None:
    fed = engine()
    both = b"[" + binance_mark("5", "DOGEUSDT") + b"," + binance_mark("100") + b"]"
    Ingest(fed, VENUES).apply(frame("binance", b'{"stream":"!markPrice@arr@1s","data":' + both + b"}"))
    count = fed.counters["binance"]
    assert (count.frames, count.events, count.parse_errors) == (1, 2, {"unknown_symbol": 1})
    assert fed.project(START).markets[0].reference_price == 100.0


def test_a_venue_that_the_engine_does_not_have_is_a_mistake_of_ours_and_no_bad_message() -> None:
    with pytest.raises(KeyError, match="binance"):
        Ingest(engine(hyperliquid=("BTC",)), VENUES).apply(frame("binance", b"{}"))


@pytest.mark.parametrize("venue", sorted(VENUES))
@pytest.mark.parametrize(
    "start", [b"", b'{"stream":"btcusdt@depth","data":', b'{"e":"', b'{"channel":"', b'{"generated":true,"request":']
)
@given(rest=st.binary(max_size=80))
def test_no_bytes_whatever_stop_the_ingest(venue: str, start: bytes, rest: bytes) -> None:
    fed = engine()
    Ingest(fed, VENUES).apply_all([frame(venue, start + rest), frame("binance", binance_mark("100"))])
    assert fed.project(START).markets[0].reference_price == 100.0
    assert fed.counters[venue].frames == 1 + (venue == "binance")


@pytest.mark.parametrize("path", sorted(PAYLOADS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_known_message_of_a_venue_is_either_used_or_refused_by_name(path: Path) -> None:
    fed = engine()
    Ingest(fed, VENUES).apply(frame(path.parent.name, path.read_bytes().strip()))
    errors = fed.counters[path.parent.name].parse_errors
    assert set(errors) <= {*FEED_REASONS, "unknown_symbol"}
    fed.project(START)
