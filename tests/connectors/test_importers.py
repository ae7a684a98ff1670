"""Foreign captures become the frames that our own recorder would have written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import zstandard

from connectors.frames import REST_PREFIX, Frame, RestExchange
from connectors.importers import Format, ImportCounts, open_recording, sniff, write_native
from connectors.recording import Recorder, RecorderError, RecordingError, read_merged


def read_all(*paths: Path, venue: str | None = None, expected: Format | None = None) -> tuple[list[Frame], ImportCounts]:
    counts = ImportCounts()
    return list(open_recording(paths, venue, counts=counts, expected=expected)), counts


def source_lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data).split(b"\n")
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read().split(b"\n")


def tally(frames: list[Frame]) -> dict[tuple[str, str], int]:
    return dict(Counter((frame.venue, frame.connection) for frame in frames))


def test_every_line_of_the_hftbacktest_captures_becomes_a_frame(shared_data: Path) -> None:
    folder = shared_data / "data" / "ws_raw_hftbacktest"
    first, second = folder / "usdm_btcusdt_20230404.dat.gz", folder / "usdm_btcusdt_20230405.dat.gz"
    # The order in which files are named does not matter.
    frames, counts = read_all(second, first)
    assert sniff(first) == "hftbacktest"
    assert tally(frames) == {("binance", "public"): 60_315, ("binance", "market"): 13_449, ("binance", "rest"): 1}
    lines = [line for path in (first, second) for line in source_lines(path) if line]
    assert counts.lines == len(lines) == len(frames) == 73_765
    for frame, line in zip(frames, lines, strict=True):
        stamp, payload = line.split(b" ", 1)
        assert frame.received_ns == int(stamp) * 1000
        assert frame.connection == "rest" or frame.payload == payload
    (snapshot,) = [frame for frame in frames if frame.connection == "rest"]
    assert snapshot.payload is not None
    assert snapshot.payload.startswith(REST_PREFIX)
    exchange = msgspec.json.decode(snapshot.payload, type=RestExchange)
    assert (exchange.request.method, exchange.request.path) == ("GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
    assert json.loads(bytes(exchange.response)) == json.loads(lines[16].split(b" ", 1)[1])


def test_nanosecond_captures_and_hyperliquid_are_recognised(shared_data: Path) -> None:
    folder = shared_data / "data" / "ws_raw_hftbacktest"
    frames, _ = read_all(folder / "usdm_ethusdt_20240718.gz")
    assert tally(frames) == {("binance", "public"): 12_362, ("binance", "market"): 1640, ("binance", "rest"): 1}
    assert frames[0].received_ns == 1_721_347_021_080_838_061
    rest = next(frame for frame in frames if frame.connection == "rest")
    assert b"symbol=ETHUSDT" in (rest.payload or b"")
    frames, _ = read_all(folder / "hyperliquid_btcusd_20250126.gz")
    assert tally(frames) == {("hyperliquid", "main"): 55}
    assert frames[0].received_ns == 1_737_918_843_893_903_000


@pytest.mark.parametrize(
    ("exchange", "expected", "others"),
    [
        ("BINANCE_FUTURES", {("binance", "public"): 1377, ("binance", "market"): 158, ("binance", "rest"): 5}, 3),
        ("BYBIT", {("bybit", "ws25"): 3342, ("bybit", "ws26"): 1098, ("bybit", "rest"): 1}, 27),
        ("DERIBIT", {("deribit", "ws1"): 136, ("deribit", "rest"): 4}, 4),
        ("DYDX", {("dydx", "ws1"): 4733, ("dydx", "rest"): 1}, 22),
        ("OKX", {("okx", "ws1"): 410, ("okx", "rest"): 25}, 5),
    ],
)
def test_cryptofeed_captures_are_joined_in_time_order(
    shared_data: Path, exchange: str, expected: dict[tuple[str, str], int], others: int
) -> None:
    paths = sorted((shared_data / "data" / "ws_raw_cryptofeed").glob(f"{exchange}.*"))
    frames, counts = read_all(*paths, expected="cryptofeed")
    assert tally(frames) == expected
    assert [frame.received_ns for frame in frames] == sorted(frame.received_ns for frame in frames)
    lines = [line for path in paths for line in source_lines(path)]
    told = sum(1 for line in lines if line) + counts.empty
    assert counts.lines == told == len(frames) + others
    assert counts.lines == counts.messages + counts.responses + counts.connects + counts.sent + counts.empty
    # No connection was lost in any of them: the first connect is not a reconnect.
    assert all(frame.payload is not None for frame in frames)
    received = {line.partition(b": ")[2] for line in lines if line[:1].isdigit()}
    assert all(frame.payload in received for frame in frames if frame.connection != "rest")


def test_cryptofeed_responses_carry_their_request(shared_data: Path) -> None:
    frames, _ = read_all(shared_data / "data" / "ws_raw_cryptofeed" / "BINANCE_FUTURES.http.0.0.zst")
    exchanges = [msgspec.json.decode(frame.payload or b"", type=RestExchange) for frame in frames]
    symbols = ["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"]
    assert [exchange.request.path for exchange in exchanges] == [f"/fapi/v1/depth?symbol={symbol}&limit=1000" for symbol in symbols]
    assert {exchange.request.weight for exchange in exchanges} == {20}
    assert frames[0].received_ns == 1_626_992_741_301_402_000
    assert json.loads(bytes(exchanges[0].response))["lastUpdateId"] == 600_859_605_926


def test_imported_captures_read_back_the_same_but_for_the_last_two_digits(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "data" / "ws_raw_cryptofeed").glob("BINANCE_FUTURES.*"))
    frames, _ = read_all(*paths)
    totals = write_native(iter(frames), tmp_path / "native")
    assert (totals.frames, totals.skipped) == (len(frames), 0)
    again, _ = read_all(tmp_path / "native", expected="recording")
    cut = [Frame(frame.venue, frame.connection, frame.received_ns // 100 * 100, frame.payload) for frame in frames]
    assert sorted(again, key=repr) == sorted(cut, key=repr)
    assert again == list(read_merged(list((tmp_path / "native").iterdir())))
    with pytest.raises(RecorderError, match="holds a recording already"):
        write_native(iter(frames), tmp_path / "native")


def test_a_second_connect_of_cryptofeed_is_a_lost_connection(tmp_path: Path) -> None:
    first = tmp_path / "BINANCE_FUTURES.ws.1.0"
    second = tmp_path / "BINANCE_FUTURES.ws.1.1"
    first.write_bytes(
        b"wss://fstream.binance.com/stream?streams=a@trade/a@depth <-> 1626992740.1\n"
        b'1626992741.5: {"stream":"ausdt@depth","data":{}}\n'
        b'1626992741.25: {"stream":"ausdt@trade","data":{}}\n'
    )
    second.write_bytes(
        b'1626992742: {"stream":"ausdt@depth","data":{}}\n'
        b"wss://fstream.binance.com/stream?streams=a@trade/a@depth <-> 1626992743.123456789\n"
        b'wss://fstream.binance.com/stream <- 1626992743.2: {"method":"SUBSCRIBE"}\n'
        b"wss://fstream.binance.com/stream <-> 1626992744.0\n"
    )
    frames, counts = read_all(second, first)
    base = 1_626_992_740_000_000_000
    assert [(frame.connection, frame.received_ns - base, frame.payload is None) for frame in frames] == [
        ("public", 1_500_000_000, False),
        ("market", 1_250_000_000, False),
        ("public", 2_000_000_000, False),
        ("public", 3_123_456_789, True),
        ("market", 3_123_456_789, True),
    ]
    assert (counts.connects, counts.sent, counts.messages) == (3, 1, 3)


def test_binary_messages_of_cryptofeed_are_restored(tmp_path: Path) -> None:
    message = b'{"topic":"x","data":[1.50]}'
    deflate = zlib.compressobj(wbits=-15)
    raw_deflated = deflate.compress(message) + deflate.flush()
    path = tmp_path / "HUOBI.ws.1.0"
    path.write_bytes(
        b"".join(b"1626992741.1: %a\n" % data for data in (gzip.compress(message), raw_deflated, message, b"\xff\x00junk"))
    )
    frames, _ = read_all(path, venue="huobi")
    assert [frame.payload for frame in frames] == [message, message, message, b"\xff\x00junk"]
    assert {frame.connection for frame in frames} == {"ws1"}
    path.write_bytes(b"1626992741.1: b'torn\n")
    with pytest.raises(RecordingError, match="damaged binary message"):
        read_all(path, venue="huobi")


def test_cryptofeed_headers_behind_a_body_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "X.http.0.0"
    path.write_bytes(b'https://fapi.binance.com/fapi/v1/time -> 1626992741.1: {"serverTime":1} header: {"a":"b"}\n')
    (frame,), _ = read_all(path)
    assert msgspec.json.decode(frame.payload or b"", type=RestExchange).response == msgspec.Raw(b'{"serverTime":1}')
    path.write_bytes(b"https://fapi.binance.com/fapi/v1/time -> 1626992741.1: <html>\n")
    with pytest.raises(RecordingError, match="/fapi/v1/time is not JSON"):
        read_all(path)


def test_tardis_files_are_spread_over_the_connections_of_today(tmp_path: Path) -> None:
    path = tmp_path / "binance-futures_2026-06-17"
    path.write_bytes(
        b"\n"
        b'2026-06-17T00:00:01.0000001Z {"stream":"btcusdt@depthSnapshot","generated":true,"data":{"lastUpdateId":1}}\n'
        b'2026-06-17T00:00:01.0000002Z {"stream":"btcusdt@depth@0ms","data":{}}\n'
        b'2026-06-17T00:00:01.0000003Z {"stream":"btcusdt@forceOrder","data":{}}\n'
        b"\n"
        b'2026-06-17T00:00:02.0000004Z {"stream":"!bookTicker","data":{}}\n'
    )
    later = tmp_path / "binance-futures_2026-06-18.gz"
    later.write_bytes(gzip.compress(b'2026-06-17T00:00:01.5000000Z {"stream":"btcusdt@openInterest","generated":true,"data":{}}\n'))
    frames, counts = read_all(later, path)
    assert [(frame.connection, frame.payload is None) for frame in frames] == [
        ("rest", False),
        ("public", False),
        ("market", False),
        ("public", True),
        ("market", True),
        ("rest", False),
        ("public", False),
    ]
    assert {frame.venue for frame in frames} == {"binance"}
    assert (counts.responses, counts.messages, counts.empty) == (2, 3, 1)


def test_the_hyperliquid_archive_is_unwrapped(tmp_path: Path) -> None:
    raw = b'{"channel":"l2Book","data":{"coin":"BTC","levels":[[],[]],"px":"1.50"}}'
    line = b'{"time":"2026-04-01T10:00:00.050123456","ver_num":1,"raw":' + raw + b"}\n"
    path = tmp_path / "BTC"
    path.write_bytes(zstandard.ZstdCompressor().compress(line + line.replace(b".050123456", b"")))
    frames, _ = read_all(path, expected="hyperliquid-archive")
    assert [(frame.venue, frame.connection, frame.payload) for frame in frames] == [("hyperliquid", "main", raw)] * 2
    assert [frame.received_ns for frame in frames] == [1_775_037_600_050_123_456, 1_775_037_600_000_000_000]
    path.write_bytes(line + b'{"time":"yesterday","ver_num":1,"raw":{}}\n')
    with pytest.raises(RecordingError) as caught:
        read_all(path)
    assert (caught.value.line, caught.value.offset) == (2, len(line))
    with pytest.raises(RecordingError, match="nothing of binance"):
        read_all(path, venue="binance")


def test_our_own_recordings_are_read_from_their_directory(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "recording")
    frames = [Frame("binance", "public", 100, b"1"), Frame("binance", "market", 200, b"2"), Frame("binance", "public", 300, None)]
    for frame in frames:
        recorder.write(frame)
    recorder.close()
    assert read_all(tmp_path / "recording")[0] == frames
    with pytest.raises(RecordingError, match="a directory without recordings"):
        read_all(tmp_path)
    capture = tmp_path / "capture.gz"
    capture.write_bytes(gzip.compress(b'1680652700423 {"stream":"x@trade","data":{}}\n'))
    mixed, _ = read_all(capture, tmp_path / "recording")
    assert [frame.received_ns for frame in mixed] == [100, 200, 300, 1_680_652_700_423_000_000]


def test_more_files_than_a_process_may_hold_open_are_joined(tmp_path: Path) -> None:
    for minute in range(1440):
        stamp = b"2026-06-17T%02d:%02d:00.0000000Z" % divmod(minute, 60)
        (tmp_path / f"{minute:04d}").write_bytes(stamp + b' {"channel":"trades","data":[%d]}\n' % minute)
    frames, counts = read_all(*sorted(tmp_path.iterdir(), reverse=True))
    assert [frame.payload for frame in frames] == [b'{"channel":"trades","data":[%d]}' % minute for minute in range(1440)]
    assert counts.messages == 1440


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"time,coin,funding\n",
        b'{"type":"trade","symbol":"XBTUSD","exchange":"bitmex"}\n',
        b"\x00\x01\x02\x03",
        b"1680652700423 hello\n",
        b"168065270042 {}\n",
        gzip.compress(b""),
    ],
)
def test_unknown_formats_say_what_was_expected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "unknown"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"expected a recording of this program, a tardis\.dev raw file") as caught:
        open_recording([path])
    assert (caught.value.path, caught.value.line, caught.value.offset) == (path, 1, 0)


def test_a_missing_file_a_wrong_format_and_an_unknown_venue_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        open_recording([tmp_path / "missing"])
    path = tmp_path / "capture"
    path.write_bytes(b'1680652700423 {"event":"?"}\n')
    with pytest.raises(RecordingError, match="format hftbacktest, not tardis"):
        open_recording([path], expected="tardis")
    with pytest.raises(RecordingError, match="venue cannot be told"):
        open_recording([path])
    assert [frame.venue for frame in open_recording([path], "kraken")] == ["kraken"]
    path.write_bytes(b'wss://example.com/ws <-> 1626992740.1\n1626992741.1: {"event":"?"}\n')
    with pytest.raises(RecordingError, match="host is not known"):
        list(open_recording([path]))


def test_a_snapshot_without_a_symbol_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    snapshot = b'1680652700423000 {"lastUpdateId":1,"bids":[],"asks":[]}\n'
    path.write_bytes(snapshot + b'1680652700424000 {"stream":"btcusdt@trade","data":{}}\n')
    assert b"symbol=BTCUSDT" in (read_all(path)[0][0].payload or b"")
    path.write_bytes(snapshot + b'1680652700424000 {"stream":"a@trade"}\n1680652700424000 {"stream":"b@trade"}\n')
    with pytest.raises(RecordingError, match="without a symbol"):
        read_all(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_torn_capture_yields_a_beginning_and_an_error(tmp_path: Path, compressed: bool) -> None:
    text = b"".join(b'1680652700423%03d {"stream":"btcusdt@trade","data":{"t":%d}}\n' % (number, number) for number in range(20))
    whole = gzip.compress(text, mtime=0) if compressed else text
    path = tmp_path / "capture"
    path.write_bytes(whole)
    expected, _ = read_all(path)
    assert len(expected) == 20
    for size in range(60, len(whole) - 1):
        path.write_bytes(whole[:size])
        frames: list[Frame] = []
        try:
            for frame in open_recording([path], "binance"):
                frames.append(frame)  # noqa: PERF402 - what was read before the error counts
        except RecordingError:
            pass
        else:
            # Only a cut between two lines of a plain file leaves nothing that could be noticed.
            assert not compressed
            assert whole[size - 1 : size] == b"\n" or whole[size : size + 1] == b"\n"
        assert frames == expected[: len(frames)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tape", b'1737918843893903000 {"channel":"l2Book","data":{}}\n'),
        ("raw", b'2026-06-17T00:00:01.0000001Z {"channel":"trades","data":[]}\n'),
        ("HL.ws.1.0", b'1626992741.5: {"channel":"trades","data":[]}\n'),
        ("HL.ws.1.0", b"wss://api.hyperliquid.xyz/ws <-> 1626992741.5\n"),
    ],
)
def test_a_capture_of_another_venue_than_was_named_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Taken at its word, it would become a recording of nothing but messages that nobody understands."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="of hyperliquid, not binance"):
        read_all(path, venue="binance")
    read_all(path, venue="hyperliquid")
