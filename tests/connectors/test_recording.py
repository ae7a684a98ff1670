"""Recordings: exact round trips, and files that were torn, damaged or cut short by a full disk."""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.compressed import ContainerError, Note, encode_note, read_text, split_lines
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.recording import Recorder, RecorderError, RecordingError, read_merged, read_recording

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


def test_hours_get_files_of_their_own_and_join_without_a_gap(tmp_path: Path) -> None:
    frames = [frame(hour * HOUR_NS + minute * 60 * SECOND_NS, b"{}") for hour in range(3) for minute in (0, 30, 59)]
    # A small step back of the clock stays in its file; an hour that was quiet has none.
    frames.append(frame(4 * HOUR_NS, b"{}"))
    frames.append(frame(4 * HOUR_NS - SECOND_NS, b"{}"))
    paths = record(tmp_path, frames)
    assert [path.name for path in paths] == [f"hyperliquid.main.2026-07-14T{hour:02d}.zst" for hour in (3, 4, 5, 7)]
    assert list(read_merged(paths)) == frames


def test_a_quiet_connection_is_flushed_and_its_hour_finished_by_the_frames_of_another(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(frame(0, b'"quiet"', connection="main"))
    recorder.write(frame(0, b'"busy"', connection="rest"))
    quiet = tmp_path / f"{NAME}.partial"
    assert list(read_recording(quiet)) == []
    recorder.write(frame(6 * SECOND_NS, b'"busy"', connection="rest"))
    reader = read_recording(quiet)
    assert [item.payload for item in reader] == [b'"quiet"']
    assert not reader.complete
    recorder.write(frame(HOUR_NS + 61 * SECOND_NS, b'"busy"', connection="rest"))
    assert (tmp_path / NAME).exists()
    recorder.close()


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


@pytest.mark.parametrize(
    "payload",
    [
        b"Websocket connection established.",
        b"",
        b"\n",
        b'{"a":1',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\n"}',
        b'{"a":1}\n2026-07-14T03:00:00.0000001Z {"forged":true}',
        b"\x00\x01\x02",
        b"[" * 2000 + b"]" * 2000,
    ],
)
def test_what_is_not_json_is_counted_and_left_out(tmp_path: Path, payload: bytes) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(frame(0, b"1"))
    recorder.write(frame(100, payload))
    recorder.write(frame(200, b"2"))
    recorder.close()
    assert (recorder.frames_written_total, recorder.frames_skipped_total) == (2, 1)
    reader = read_recording(tmp_path / NAME)
    assert [item.payload for item in reader] == [b"1", b"2"]
    assert reader.skipped == 1


def test_json_over_several_lines_is_written_on_one_with_its_numbers_untouched(tmp_path: Path) -> None:
    pretty = b'{\r\n  "px": 1.50000000000000000001,\n  "big": 123456789012345678901234567890,\n  "s": "a\\nb"\n}\n'
    record(tmp_path, [frame(0, pretty)])
    (item,) = read_recording(tmp_path / NAME)
    assert item.payload == b'{"px":1.50000000000000000001,"big":123456789012345678901234567890,"s":"a\\nb"}'


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


def test_lines_are_cut_the_same_however_the_text_is_cut_into_pieces() -> None:
    text = b"\nab\n\nc\nlast"
    for size in range(1, len(text) + 1):
        pieces: list[bytes | Note] = [text[start : start + size] for start in range(0, len(text), size)]
        lines = [line for batch in split_lines(iter(pieces)) if isinstance(batch, list) for line in batch]
        assert lines == [b"", b"ab", b"", b"c", b"last"], size


def test_notes_and_unknown_parts_of_zstd_files(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(encode_note(b"one") + compress(b"a\n") + encode_note(b"") + compress(b"") + compress(b"b\n"))
    assert list(read_text(path)) == [Note(b"one"), b"a\n", Note(b""), b"b\n"]
    path.write_bytes(compress(b"a\n") + b"rest of something else")
    with pytest.raises(ContainerError, match="neither a zstd frame"):
        list(read_text(path))
    with pytest.raises(ValueError, match="too long"):
        encode_note(bytes(100_000))


def test_lz4_without_its_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    path = tmp_path / "BTC.lz4"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(20))
    with pytest.raises(RecordingError, match="lz4 -d"):
        list(read_recording(path, "hyperliquid"))


def test_names_and_stamps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for bad in (Frame("../etc", "main", 0, b"1"), Frame("x", "a.b", 0, b"1"), Frame("x", "", 0, b"1"), Frame("x", "y", -1, b"1")):
        with pytest.raises(ValueError):
            recorder.write(bad)
    recorder.write(frame(0, b"1"))
    recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_fresh_recording_does_not_mix_with_an_old_one(tmp_path: Path) -> None:
    record(tmp_path, SMALL)
    with pytest.raises(RecorderError, match="holds a recording already"):
        Recorder(tmp_path, fresh=True)
    with pytest.raises(RecorderError, match="cannot record into"):
        Recorder(tmp_path / NAME)


def test_connections_are_bounded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for number in range(64):
        recorder.write(frame(0, b"1", connection=f"c{number}"))
    with pytest.raises(RecorderError, match="more than 64"):
        recorder.write(frame(0, b"1", connection="c64"))
    with pytest.raises(RecorderError):
        recorder.write(frame(0, b"1"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where mounting one is allowed."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    directory = tmp_path / "disk"
    directory.mkdir()
    if mount is None or umount is None:
        pytest.skip("no mount command here")
    command = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here; the file size limit is tested instead")
    try:
        yield directory
    finally:
        subprocess.run([umount, str(directory)], check=True)


def noise(number: int) -> bytes:
    """A payload that does not compress to nothing."""
    return json.dumps({"n": number, "x": str(pow(3, number % 1000 + 500))}).encode()


def test_a_full_disk_stops_the_recorder_and_what_was_written_stays_readable(small_disk: Path) -> None:
    recorder = Recorder(small_disk / "recording")
    frames = []
    with pytest.raises(RecorderError, match="No space left"):  # noqa: PT012 - the write that fails is not known before
        for number in range(100_000):
            item = frame(number * 10_000_000, noise(number), connection="main" if number % 3 else "public")
            frames.append(item)
            recorder.write(item)
    with pytest.raises(RecorderError, match="No space left"):
        recorder.write(frames[-1])
    recorder.close()
    paths = sorted((small_disk / "recording").iterdir())
    assert all(path.name.endswith(".partial") for path in paths)
    for path in paths:
        reader = read_recording(path)
        readable = list(reader)
        assert not reader.complete
        mine = [item for item in frames if item.connection == reader.connection]
        assert len(readable) > 100
        assert readable == mine[: len(readable)]
    # Space is freed, and a new recorder goes on; the hole between the two is visible.
    paths[0].unlink()
    again = Recorder(small_disk / "recording")
    again.write(frame(HOUR_NS - 100, b'"again"', connection=read_recording(paths[1]).connection))
    again.close()
    *_, gap, last = read_merged([paths[1], *(small_disk / "recording").glob("*.zst")])
    assert gap.payload is None
    assert last.payload == b'"again"'


def test_a_file_size_limit_acts_like_a_full_disk(tmp_path: Path) -> None:
    script = f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
        from pathlib import Path
        from connectors.frames import Frame
        from connectors.recording import Recorder, RecorderError, read_recording
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        recorder = Recorder(Path({str(tmp_path)!r}))
        try:
            for number in range(100_000):
                recorder.write(Frame("v", "main", number * 10_000_000, b'"%d"' % pow(3, number % 1000 + 500)))
        except RecorderError as error:
            print(number, error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    number, reason = result.stdout.split(" ", 1)
    assert "File too large" in reason
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 100_000
    frames = list(read_recording(path))
    assert 100 < len(frames) <= int(number)
    assert [item.received_ns for item in frames] == [number * 10_000_000 for number in range(len(frames))]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_killed_recorder_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
        from pathlib import Path
        from connectors.frames import Frame
        from connectors.recording import Recorder
        recorder = Recorder(Path({str(tmp_path)!r}))
        for number in range(1000):
            recorder.write(Frame("v", "main", number * 1_000_000_000, b"%d" % number))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert result.returncode == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    frames = list(read_recording(path))
    assert [item.payload for item in frames] == [b"%d" % number for number in range(len(frames))]
    assert len(frames) >= 1000 - 6


def test_real_frames_survive_a_round_trip(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "data" / "ws_raw_hftbacktest" / "usdm_ethusdt_20240718.gz"
    with gzip.open(source) as file:
        lines = [line.rstrip(b"\n").split(b" ", 1) for line in file]
    frames = [Frame("binance", "public", int(stamp) // 100 * 100, payload) for stamp, payload in lines]
    assert len(frames) == 14_003
    paths = record(tmp_path, frames)
    assert sorted(read_merged(paths), key=lambda item: item.received_ns) == sorted(frames, key=lambda item: item.received_ns)
