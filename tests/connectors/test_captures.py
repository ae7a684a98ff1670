"""Times, venues and connections as they are told by other programs' captures."""

from __future__ import annotations

import pytest

from connectors.captures import connection_of, detect_venue, detect_venue_of_host, parse_epoch_ns, parse_iso_ns, symbol_of_stream


def test_times_are_parsed_to_the_nanosecond() -> None:
    assert parse_epoch_ns(b"1626992741.06217") == 1_626_992_741_062_170_000
    assert parse_epoch_ns(b"1652459224.5300605") == 1_652_459_224_530_060_500
    assert parse_epoch_ns(b"1626992741") == 1_626_992_741_000_000_000
    assert parse_iso_ns("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert parse_iso_ns("2026-04-01T10:00:00") == 1_775_037_600_000_000_000
    for bad in ("", "2026-04-01", "2026-04-01T10:00:00.x", "2026-04-01T10:00:00+01:00"):
        with pytest.raises(ValueError):
            parse_iso_ns(bad)


@pytest.mark.parametrize(
    ("payload", "venue", "connection"),
    [
        (b'{"stream":"btcusdt@depth@0ms","data":{}}', "binance", "public"),
        (b'{"stream":"btcusdt@depth20@100ms","data":{}}', "binance", "public"),
        (b'{"stream":"btcusdt@bookTicker","data":{}}', "binance", "public"),
        (b'{"stream":"!markPrice@arr@1s","data":[]}', "binance", "market"),
        (b'{"stream":"btcusdt@aggTrade","data":{}}', "binance", "market"),
        (b'{"e":"depthUpdate","E":1}', None, "public"),
        (b'{"e":"forceOrder","E":1}', None, "market"),
        (b'{"channel":"trades","data":[]}', "hyperliquid", "main"),
        (b'{"arg":{"channel":"trades"}}', "okx", "ws1"),
        (b'{"channel":"v4_trades","type":"subscribed"}', "dydx", "ws1"),
    ],
)
def test_messages_tell_their_venue_and_connection(payload: bytes, venue: str | None, connection: str) -> None:
    assert detect_venue(payload) == venue
    assert connection_of(venue or "binance", payload, "ws1") == connection


def test_hosts_and_streams_tell_venue_and_symbol() -> None:
    assert detect_venue_of_host("fstream.binance.com") == "binance"
    assert detect_venue_of_host("www.okex.com") == detect_venue_of_host("ws.okx.com:8443") == "okx"
    assert detect_venue_of_host("example.com") is None
    assert symbol_of_stream(b'{"stream":"btcusdt@trade","data":{}}') == "BTCUSDT"
    assert symbol_of_stream(b'{"stream":"!markPrice@arr","data":[]}') is None
    assert symbol_of_stream(b'{"e":"trade"}') is None
