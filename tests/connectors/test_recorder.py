"""What the recorder puts on disk, and what it does when the disk is full."""

from __future__ import annotations

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

from connectors.frames import Frame
from connectors.recording import Recorder, RecorderError, read_merged, read_recording

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


def test_names_and_stamps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for bad in (Frame("../etc", "main", 0, b"1"), Frame("x", "a.b", 0, b"1"), Frame("x", "", 0, b"1"), Frame("x", "y", -1, b"1")):
        with pytest.raises(ValueError):
            recorder.write(bad)
    recorder.write(frame(0, b"1"))
    recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_fresh_recording_does_not_mix_with_an_old_one(tmp_path: Path) -> None:
    record(tmp_path, [frame(0, b"1")])
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
