"""Recordings: exact round trips, and files that were torn, damaged or cut short by a full disk."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.compressed import read_text
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.recording import Recorder, RecordingError, read_merged, read_recording

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
START_NS = 1_784_000_000 * SECOND_NS // HOUR_NS * HOUR_NS
NAME = "hyperliquid.main.2026-07-14T03.zst"


def frame(offset_ns: int, payload: bytes | None, *, venue: str = "hyperliquid", connection: str = "main") -> Frame:
    return Frame(venue, connection, START_NS + offset_ns, payload)


def record(directory: Path, frames: list[Frame]) -> list[Path]:
    recorder = Recorder(directory)
    for item in frames:
        recorder.write(item)
    recorder.close()
    return sorted(directory.iterdir())


def read_until_error(path: Path) -> tuple[list[Frame], RecordingError | None]:
    frames: list[Frame] = []
    try:
        for item in read_recording(path):
            frames.append(item)  # noqa: PERF402 - what was read before the error counts
    except RecordingError as error:
        return frames, error
    return frames, None


def facts(frames: list[Frame]) -> list[tuple[int | None, bytes | None]]:
    """All that a frame tells but the moment of a lost connection."""
    return [(None if item.payload is None else item.received_ns, item.payload) for item in frames]


SMALL = [
    frame(100, b'{"channel":"subscriptionResponse","data":{}}'),
    frame(SECOND_NS, b'{"channel":"trades","data":[{"px":"1.0"}]}'),
    frame(2 * SECOND_NS + 123_456_700, None),
    frame(9 * SECOND_NS, b'{"channel":"pong"}'),
    frame(9 * SECOND_NS, b'{"channel":"pong","n":"\xc3\xa9"}'),
    frame(20 * SECOND_NS, b"[1, 2.50]"),
    frame(21 * SECOND_NS, b'{"last":true}'),
]


def test_frames_come_back_exactly_and_the_text_is_what_tardis_readers_expect(tmp_path: Path) -> None:
    (path,) = record(tmp_path, SMALL)
    assert path.name == NAME
    reader = read_recording(path)
    assert list(reader) == SMALL
    assert reader.complete
    assert (reader.venue, reader.connection, reader.skipped) == ("hyperliquid", "main", 0)
    text = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout if shutil.which("zstd") else None
    with path.open("rb") as file:
        streamed = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert text in (None, streamed)
    lines = streamed.split(b"\n")
    assert lines[0] == b'2026-07-14T03:00:00.0000001Z {"channel":"subscriptionResponse","data":{}}'
    assert lines[2] == b""
    assert len(lines) == len(SMALL) + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=3 * HOUR_NS // 100),
            st.sampled_from(["main", "public", "rest"]),
            st.none() | json_values.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="replace")),
        ),
        max_size=30,
    )
)
def test_any_frames_come_back_in_their_merged_order(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, str, bytes | None]]
) -> None:
    directory = tmp_path_factory.mktemp("round-trip")
    frames = [
        frame(tick * 100, payload, connection=connection) for tick, connection, payload in sorted(items, key=lambda item: item[0])
    ]
    paths = record(directory, frames)
    expected = sorted(frames, key=lambda item: (item.received_ns, item.connection))
    assert list(read_merged(paths[::-1])) == expected
    assert all(path.name.endswith(".zst") for path in paths)


def test_a_restart_shows_as_a_lost_connection_and_a_new_file(tmp_path: Path) -> None:
    record(tmp_path, [frame(100, b"1"), frame(100, b"1", connection="rest")])
    record(tmp_path, [frame(SECOND_NS, b"2"), frame(SECOND_NS, b"2", connection="rest")])
    crashed = Recorder(tmp_path / "elsewhere")
    crashed.write(frame(2 * SECOND_NS, b"3"))
    crashed.flush()
    crashed.write(frame(3 * SECOND_NS, b'"not on disk when the process dies"'))
    shutil.copy(tmp_path / "elsewhere" / f"{NAME}.partial", tmp_path / NAME.replace(".zst", ".2.zst.partial"))
    crashed.close()
    shutil.rmtree(tmp_path / "elsewhere")
    record(tmp_path, [frame(4 * SECOND_NS, None), frame(5 * SECOND_NS, b"4")])
    names = sorted(path.name for path in tmp_path.iterdir() if ".main." in path.name)
    stem = NAME.removesuffix(".zst")
    assert names == [f"{stem}.1.zst", f"{stem}.2.zst.partial", f"{stem}.3.zst", NAME]
    main = [item for item in read_merged(list(tmp_path.iterdir())) if item.connection == "main"]
    assert [(item.received_ns - START_NS, item.payload) for item in main] == [
        (100, b"1"),
        (100, None),
        (SECOND_NS, b"2"),
        (SECOND_NS, None),
        (2 * SECOND_NS, b"3"),
        (2 * SECOND_NS, None),
        (4 * SECOND_NS, None),
        (5 * SECOND_NS, b"4"),
    ]
    # REST needs no connection, so none can be lost.
    assert [item.payload for item in read_merged(list(tmp_path.iterdir())) if item.connection == "rest"] == [b"1", b"2"]


def test_a_wrapped_rest_response_survives(tmp_path: Path) -> None:
    payload = wrap_rest_response(RestRequest("POST", "/info", body='{"type":"meta"}', weight=20), b'{"universe":[]}')
    record(tmp_path, [frame(0, payload, connection="rest")])
    (item,) = read_recording(tmp_path / NAME.replace("main", "rest"))
    assert item == frame(0, payload, connection="rest")


def test_a_file_torn_at_any_byte_yields_a_beginning_and_says_so(tmp_path: Path) -> None:
    (source,) = record(tmp_path / "whole", SMALL)
    data = source.read_bytes()
    torn = tmp_path / NAME
    partial = tmp_path / f"{NAME}.partial"
    lengths = set()
    for size in range(len(data)):
        torn.write_bytes(data[:size])
        frames, error = read_until_error(torn)
        assert error is not None, size
        # The moment of a lost connection may be torn off; then it counts from the last message.
        assert facts(frames) == facts(SMALL)[: len(frames)], size
        assert error.path == torn
        assert error.line <= len(SMALL) + 1
        partial.write_bytes(data[:size])
        reader = read_recording(partial)
        unfinished = list(reader)
        assert not reader.complete
        assert unfinished == frames or unfinished[:-1] == frames
        assert facts(unfinished) == facts(SMALL)[: len(unfinished)]
        lengths.add(len(frames))
    # There is a zstd frame per flush: at the disconnect, by age, and at the end.
    assert lengths == {0, 2, 3, 6, 7}
    torn.write_bytes(data)
    assert read_until_error(torn) == (SMALL, None)
    partial.write_bytes(data)
    reader = read_recording(partial)
    assert list(reader) == SMALL
    assert reader.complete


def test_a_flipped_bit_anywhere_is_noticed_and_never_becomes_a_frame(tmp_path: Path) -> None:
    (source,) = record(tmp_path / "whole", SMALL)
    data = source.read_bytes()
    damaged = tmp_path / NAME
    for position in range(len(data)):
        for bit in (0, 3, 7):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            damaged.write_bytes(flipped)
            frames, error = read_until_error(damaged)
            assert facts(frames) == facts(SMALL)[: len(frames)], (position, bit)
            # Some bits of a zstd header mean nothing; all others are under a checksum.
            assert error is not None or frames == SMALL, (position, bit)


def test_a_cut_in_the_middle_or_a_repeated_part_does_not_pass_as_whole(tmp_path: Path) -> None:
    (source,) = record(tmp_path / "whole", SMALL)
    data = source.read_bytes()
    second = data.index(b"\x28\xb5\x2f\xfd", 60)
    third = data.index(b"\x28\xb5\x2f\xfd", second + 4)
    path = tmp_path / NAME
    for broken in (data[:second] + data[third:], data[:third] + data[second:], data + data):
        path.write_bytes(broken)
        _, error = read_until_error(path)
        assert error is not None
        assert "footer" in error.reason


def test_errors_name_file_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "tardis.txt"
    good = b"2026-07-14T03:00:00.0000001Z {}\n"
    path.write_bytes(good + b"\n" + good + b"2026-07-14 03:00:00.0000001Z {}\n")
    frames: list[Frame] = []
    with pytest.raises(RecordingError) as caught:
        frames.extend(read_recording(path, "binance"))
    assert (caught.value.path, caught.value.line, caught.value.offset) == (path, 4, 65)
    assert "28-character" in str(caught.value)
    with pytest.raises(RecordingError, match="venue"):
        read_recording(path)
    with pytest.raises(RecordingError, match="No such file"):
        list(read_recording(tmp_path / "missing", "binance"))


@pytest.mark.parametrize(
    "line",
    [
        b"2026-07-14T03:00:00.0000001Z",
        b"2026-07-14T03:00:00.000001Z {}",
        b"2026-07-14T03:00:00.00000012Z {}",
        b"2026-13-14T03:00:00.0000001Z {}",
        b"2026-07-14T03:00:60.0000001Z {}",
        b"2026-07-14T03:00:00.+000001Z {}",
        b"1969-12-31T23:59:5x.0000001Z {}",
        b'{"channel":"trades"}',
        b"\x00" * 40,
        b"2026-07-14T03:00:00.0000001Z {",
    ],
)
def test_foreign_or_torn_lines_are_errors(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(line)
    with pytest.raises(RecordingError) as caught:
        list(read_recording(path, "binance"))
    assert (caught.value.line, caught.value.offset) == (1, 0)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_tardis_files_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    text = (
        b"\n"
        b'2026-06-17T00:00:01.1234567Z {"channel":"trades","data":[]}\n'
        b"\n"
        b"\n"
        b'2026-06-17T00:00:09.0000001Z {"channel":"subscriptionResponse","data":{}}\n'
        b"\n"
    )
    path = tmp_path / f"2026-06-17{suffix}"
    packed = {"": text, ".gz": gzip.compress(text), ".zst": zstandard.ZstdCompressor().compress(text)}
    path.write_bytes(packed[suffix])
    first, second = 1_781_654_401_123_456_700, 1_781_654_409_000_000_100
    reader = read_recording(path, "hyperliquid")
    assert [(item.connection, item.received_ns, item.payload) for item in reader] == [
        ("main", first, b'{"channel":"trades","data":[]}'),
        ("main", first, None),
        ("main", first, None),
        ("main", second, b'{"channel":"subscriptionResponse","data":{}}'),
        ("main", second, None),
    ]
    assert reader.complete
    for size in range(1, len(path.read_bytes()) - 1):
        torn = tmp_path / f"torn{suffix}"
        torn.write_bytes(path.read_bytes()[:size])
        reader = read_recording(torn, "hyperliquid")
        if suffix:
            with pytest.raises(RecordingError):
                list(reader)


def test_a_million_lines_in_one_zstd_frame_are_streamed(tmp_path: Path) -> None:
    line = b'2026-06-17T00:00:01.1234567Z {"channel":"trades","data":[]}\n'
    path = tmp_path / "big"
    path.write_bytes(zstandard.ZstdCompressor().compress(line * 200_000))
    pieces = [item for item in read_text(path) if isinstance(item, bytes)]
    assert sum(map(len, pieces)) == len(line) * 200_000
    assert sum(1 for _ in read_recording(path, "hyperliquid")) == 200_000


def test_a_bomb_is_stopped_by_the_line_limit(tmp_path: Path) -> None:
    path = tmp_path / NAME
    compressor = zstandard.ZstdCompressor().compressobj()
    data = b"".join(compressor.compress(bytes(16 * 1024 * 1024)) for _ in range(40)) + compressor.flush()
    assert len(data) < 100_000
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="holds more than"):
        list(read_recording(path))
    foreign = tmp_path / "foreign"
    foreign.write_bytes(data)
    with pytest.raises(RecordingError, match="a line is longer"):
        list(read_recording(foreign, "binance"))


def test_lz4_without_its_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    path = tmp_path / "BTC.lz4"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    with pytest.raises(RecordingError, match="lz4 -d"):
        list(read_recording(path, "hyperliquid"))


def test_real_frames_survive_a_round_trip(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "data" / "ws_raw_hftbacktest" / "usdm_ethusdt_20240718.gz"
    with gzip.open(source) as file:
        lines = [line.rstrip(b"\n").split(b" ", 1) for line in file]
    frames = [Frame("binance", "public", int(stamp) // 100 * 100, payload) for stamp, payload in lines]
    assert len(frames) == 14_003
    paths = record(tmp_path, frames)
    assert sorted(read_merged(paths), key=lambda item: item.received_ns) == sorted(frames, key=lambda item: item.received_ns)
