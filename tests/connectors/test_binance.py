from __future__ import annotations

import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.binance import Binance
from connectors.binance_brackets import Brackets, SymbolBrackets
from connectors.decoding import MAX_PAYLOAD_BYTES
from connectors.events import BookDelta, Gap, Instruments, MarginTier
from connectors.frames import RestRequest, wrap_rest_response
from connectors.venue import AccountQuestion, VenueSettings
from tests.connectors.payloads import NASTY, all_payloads, check_survives, damaged, parse, parse_rest, payload, reason_of

BINANCE = Binance()
CORPUS = all_payloads("binance")


def test_two_symbols_need_one_socket_on_each_half_of_the_host() -> None:
    public, market = BINANCE.connections(VenueSettings(symbols=("BTCUSDT", "ETHUSDT")))
    assert public.name == "public"
    assert public.url == (
        "wss://fstream.binance.com/public/stream?streams="
        "btcusdt@depth@100ms/btcusdt@bookTicker/ethusdt@depth@100ms/ethusdt@bookTicker"
    )
    assert public.expected == {"depth:BTCUSDT": 10.0, "bookTicker:BTCUSDT": None, "depth:ETHUSDT": 10.0, "bookTicker:ETHUSDT": None}
    assert market.name == "market"
    assert market.url.startswith(
        "wss://fstream.binance.com/market/stream?streams=btcusdt@aggTrade/btcusdt@markPrice@1s/btcusdt@forceOrder/"
    )
    assert market.expected["markPrice:ETHUSDT"] == 10.0
    assert market.expected["forceOrder:ETHUSDT"] is None
    assert public.subscribe == market.subscribe == ()
    assert public.heartbeat is None


def test_streams_are_spread_over_sockets_of_at_most_two_hundred() -> None:
    symbols = tuple(f"A{number}USDT" for number in range(101))
    plans = BINANCE.connections(VenueSettings(symbols=symbols))
    assert [plan.name for plan in plans] == ["public-0", "public-1", "market-0", "market-1"]
    assert max(plan.url.count("@bookTicker") + plan.url.count("@depth") for plan in plans) == 200
    keys = [key for plan in plans for key in plan.expected]
    assert len(keys) == len(set(keys)) == 5 * 101


def test_another_host_replaces_the_public_one_and_keeps_the_paths() -> None:
    plans = BINANCE.connections(VenueSettings(symbols=("BTCUSDT",), websocket_url="ws://127.0.0.1:9/"))
    assert [plan.url.split("?")[0] for plan in plans] == ["ws://127.0.0.1:9/public/stream", "ws://127.0.0.1:9/market/stream"]


def test_a_symbol_that_is_not_ascii_is_quoted_in_urls_and_found_in_keys() -> None:
    plan = BINANCE.connections(VenueSettings(symbols=("币安人生USDT",)))[0]
    assert "%E5%B8%81" in plan.url
    assert "depth:币安人生USDT" in plan.expected
    assert BINANCE.channel_key('{"stream":"币安人生usdt@depth@100ms","data":{'.encode()) == "depth:币安人生USDT"
    assert BINANCE.book_snapshot("币安人生USDT") == RestRequest(
        method="GET", path="/fapi/v1/depth?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT&limit=1000", weight=20
    )


@pytest.mark.parametrize("symbol", ["btcusdt", "BTC/USDT", "", "BTCUSDT@depth", "A?B"])
def test_a_misspelt_symbol_is_refused_before_connecting(symbol: str) -> None:
    with pytest.raises(ValueError, match="is not a symbol"):
        BINANCE.connections(VenueSettings(symbols=(symbol,)))


def test_no_symbols_need_no_sockets() -> None:
    assert BINANCE.connections(VenueSettings(symbols=())) == []


@pytest.mark.parametrize("count", [1, 5, 100, 300, 700])
def test_polling_stays_within_its_share_of_the_weight(count: int) -> None:
    requests = BINANCE.periodic(VenueSettings(symbols=tuple(f"A{number}USDT" for number in range(count))))
    assert sum(item.request.weight * 60 / item.interval_s for item in requests) <= 601
    assert min(item.interval_s for item in requests) >= 10.0
    assert sum(item.request.path.startswith("/fapi/v1/openInterest?symbol=") for item in requests) == count


def test_accounts_are_private() -> None:
    assert BINANCE.account_requests(AccountQuestion(account="0x1", mode=True, balances=True)) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("depth_update", "depth:BTCUSDT"),
        ("depth_update_raw", "depth:BTCUSDT"),
        ("book_ticker", "bookTicker:BTCUSDT"),
        ("agg_trade", "aggTrade:BTCUSDT"),
        ("mark_price", "markPrice:BTCUSDT"),
        ("mark_price_array", "markPrice:*"),
        ("force_order", "forceOrder:BTCUSDT"),
        ("force_order_combined", "forceOrder:XRPUSDT"),
        ("depth_snapshot_injected", "depthSnapshot:BTCUSDT"),
        ("acknowledgement", None),
        ("error", None),
        ("ticker", None),
        ("rest_depth", None),
    ],
)
def test_channels_are_named_after_kind_and_symbol(name: str, key: str | None) -> None:
    assert BINANCE.channel_key(CORPUS[name]) == key


def test_every_expected_channel_can_be_seen() -> None:
    plans = BINANCE.connections(VenueSettings(symbols=("BTCUSDT",)))
    samples = ["depth_update", "book_ticker", "agg_trade", "mark_price"]
    seen = {BINANCE.channel_key(CORPUS[name]) for name in samples} | {"forceOrder:BTCUSDT"}
    assert {key for plan in plans for key in plan.expected} == seen


def test_a_lost_connection_is_a_gap() -> None:
    (event,) = parse(BINANCE, None, "market")
    assert isinstance(event, Gap)
    assert (event.connection, event.symbol, event.reason) == ("market", None, "disconnected")


def test_an_oversized_message_is_not_even_decoded() -> None:
    assert reason_of(BINANCE, b"[" * (MAX_PAYLOAD_BYTES + 1)) == "oversized"


def test_tiers_of_other_brackets_go_into_the_instruments() -> None:
    tier = MarginTier(lower_bound_usd=0.0, maintenance_rate=0.02, deduction_usd=0.0, max_leverage=25.0)
    brackets = Brackets(version="1", source="test", symbols={"OLDUSDT": SymbolBrackets(tiers=(tier,), cap_usd=None)})
    (event,) = parse_rest(
        Binance(brackets), BINANCE.bootstrap(VenueSettings(symbols=()))[0], payload("binance", "rest_exchange_info")
    )
    assert isinstance(event, Instruments)
    assert [item.tiers for item in event.instruments] == [(), (tier,)]


@pytest.mark.parametrize("content", NASTY)
def test_hostile_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    check_survives(BINANCE, content)


@settings(max_examples=400, deadline=None)
@given(
    damaged([*CORPUS.values(), wrap_rest_response(RestRequest(method="GET", path="/fapi/v1/depth?symbol=A"), CORPUS["rest_depth"])])
)
def test_damaged_messages_give_finite_events_or_a_feed_error(content: bytes) -> None:
    check_survives(BINANCE, content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_gives_a_feed_error(noise: bytes) -> None:
    check_survives(BINANCE, noise)
    check_survives(BINANCE, b'{"stream":"' + noise)
    check_survives(BINANCE, b'{"e":"' + noise)
    check_survives(BINANCE, b'{"generated":true,"request":' + noise)


def hftbacktest_payloads(path: Path, symbol: str) -> Iterator[bytes]:
    with gzip.open(path) as lines:
        for line in lines:
            content = line.split(b" ", 1)[1].strip()
            if content.startswith(b'{"lastUpdateId"'):
                request = BINANCE.book_snapshot(symbol)
                assert request is not None
                content = wrap_rest_response(request, content)
            yield content


@pytest.mark.parametrize(
    ("name", "symbol", "counts"),
    [
        (
            "usdm_btcusdt_20230404.dat.gz",
            "BTCUSDT",
            {"Quote": 6765, "Trade": 2197, "BookSnapshot": 1, "BookDelta": 4322, "MarkPrice": 99},
        ),
        ("usdm_btcusdt_20230405.dat.gz", "BTCUSDT", {"Quote": 37440, "Trade": 10737, "BookDelta": 11788, "MarkPrice": 415}),
        ("usdm_ethusdt_20240718.gz", "ETHUSDT", {"Quote": 9089, "Trade": 1640, "BookSnapshot": 1, "BookDelta": 3273}),
        ("usdm_ethusdt_20240719.gz", "ETHUSDT", {"Quote": 38239, "Trade": 12015, "BookDelta": 5656}),
    ],
)
def test_every_frame_of_a_recording_is_understood(shared_data: Path, name: str, symbol: str, counts: dict[str, int]) -> None:
    """All lines are events, but for the one fill of the insurance fund on the second day."""
    found: Counter[str] = Counter()
    previous_id = None
    for content in hftbacktest_payloads(shared_data / "data" / "ws_raw_hftbacktest" / name, symbol):
        for event in parse(BINANCE, content):
            found[type(event).__name__] += 1
            assert getattr(event, "symbol", symbol) == symbol
            if isinstance(event, BookDelta):
                assert previous_id is None or event.previous_id == previous_id, "the recording has no gap"
                previous_id = event.last_id
    assert found == counts


def test_every_frame_of_the_four_symbol_recording_of_2021_is_understood(shared_data: Path) -> None:
    found: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for name in ("BINANCE_FUTURES.0.zst", "BINANCE_FUTURES.http.0.0.zst", "BINANCE_FUTURES.ws.1.0.zst"):
        packed = (shared_data / "data" / "ws_raw_cryptofeed" / name).read_bytes()
        for line in zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read().splitlines():
            if response := re.match(rb"https://[^/]+(\S+) -> [\d.]+: (.*?)(?: header: .*)?$", line):
                events = parse_rest(BINANCE, RestRequest(method="GET", path=response[1].decode()), response[2])
            elif message := re.match(rb"[\d.]+: (.*)$", line):
                events = parse(BINANCE, message[1])
                keys[(BINANCE.channel_key(message[1]) or "").split(":")[0]] += 1
            else:
                continue
            found.update(type(event).__name__ for event in events)
    assert found == {"Instruments": 1, "BookSnapshot": 4, "Quote": 613, "BookDelta": 764, "Trade": 91}
    assert keys == {"depth": 764, "bookTicker": 613, "aggTrade": 91, "kline_1m": 67}
