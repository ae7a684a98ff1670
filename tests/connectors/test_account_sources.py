"""Account feeds over a websocket and from a file; MQTT is in test_account_sources_mqtt."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from connectors.account_lines import MAX_LINE_BYTES
from connectors.account_sources import BACKLOG_FRAMES
from connectors.account_tail import Tail
from connectors.frames import Frame
from connectors.recording import Recorder, read_merged
from tests.connectors.feed_sources import TIME_NS, delta, make, running, snapshot, told
from tests.connectors.loopback import serving, until

# --------------------------------------------------------------------------------------------------- websocket


async def test_a_websocket_delivers_a_frame_a_line_with_repetitions_and_holes_as_they_came() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(snapshot("a", 1) + b"\n" + snapshot("b", 1) + b"\r\n\n", text=True)
        for sequence in (2, 2, 4, 1):
            await peer.send(delta("a", sequence))
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames)):
        await until(lambda: len(frames) == 6)
        assert told(frames) == [("a", 1), ("b", 1), ("a", 2), ("a", 2), ("a", 4), ("a", 1)]
        assert {(frame.venue, frame.connection) for frame in frames} == {("desk", "desk")}
        assert frames[0].received_ns == TIME_NS + 100
        assert source.health().connection.state == "connected"
    assert frames[-1].payload is None, "what comes after the end of the daemon is not known to it"


async def test_a_lost_websocket_is_one_gap_and_the_server_starts_over() -> None:
    visits = 0

    async def handler(peer: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        await peer.send(snapshot("a", visits))
        if visits < 3:
            await peer.close(1012)
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames)):
        await until(lambda: len(frames) == 5)
        assert told(frames) == [("a", 1), None, ("a", 2), None, ("a", 3)]
        assert source.health().connection.disconnects == {"closed_1012": 2}


async def test_questions_go_out_on_the_same_socket_and_not_more_often_than_answers_can_come() -> None:
    asked: list[Any] = []

    async def handler(peer: ServerConnection) -> None:
        await peer.send(snapshot("a", 1))
        await peer.send(delta("a", 3))
        try:
            async for message in peer:
                question = json.loads(message)
                asked.append(question)
                await peer.send(snapshot(question["account"], 10))
        except ConnectionClosed:
            pass

    frames: list[Frame] = []
    source = make({"type": "websocket", "url": "ws://127.0.0.1:9"}, frames)
    assert not source.request_resync("a", 1), "nobody is connected"
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames)):
        await until(lambda: len(frames) == 2)
        assert all(source.request_resync("a", 1) for _ in range(5))
        assert source.request_resync("never seen", None)
        await until(lambda: len(frames) == 4)
        assert asked == [
            {"type": "resync", "account": "a", "after_sequence": 1},
            {"type": "resync", "account": "never seen", "after_sequence": None},
        ]
        assert told(frames) == [("a", 1), ("a", 3), ("a", 10), ("never seen", 10)]
        assert (source.health().resyncs_asked, source.health().resyncs_refused) == (2, 0)


async def test_over_a_new_socket_the_same_account_may_be_asked_for_at_once() -> None:
    asked: list[bytes] = []

    async def handler(peer: ServerConnection) -> None:
        await peer.send(b'{"type":"heartbeat"}')
        asked.append(await peer.recv(decode=False))
        await peer.close(1001)

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames)):
        for visit in (1, 2, 3):
            await until(lambda: source.request_resync("a", None) and len(asked) == visit)  # noqa: B023 - awaited in the loop
    assert len(set(asked)) == 1


async def test_a_token_that_is_missing_is_said_and_found_later(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def handler(peer: ServerConnection) -> None:
        assert peer.request is not None
        seen.append(peer.request.headers.get("Authorization"))
        await peer.send(b'{"type":"heartbeat"}')
        await peer.wait_closed()

    file = tmp_path / "token"
    frames: list[Frame] = []
    async with serving(handler) as url:
        source = make({"type": "websocket", "url": url, "bearer_token_file": str(file)}, frames)
        async with running(source):
            await until(lambda: source.health().connection.state == "failed")
            assert "No such file" in source.health().connection.detail
            assert not seen
            file.write_text("s3cret\n")
            await until(lambda: source.health().connection.state == "connected")
            assert seen == ["Bearer s3cret"]
            assert "s3cret" not in repr(source.health())
        named = make({"type": "websocket", "url": url, "bearer_token_env": "DESK"}, frames, environment={"DESK": "other"})
        async with running(named):
            await until(lambda: len(seen) == 2)
            assert seen[1] == "Bearer other"


async def test_a_silent_server_is_left_for_a_new_connection() -> None:
    visits = 0

    async def handler(peer: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        await peer.send(snapshot("a", visits))
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames, silence_s=1.0)):
        await until(lambda: visits == 2)
        assert told(frames[:2]) == [("a", 1), None]
        assert source.health().connection.disconnects == {"silent": 1}


async def test_heartbeats_are_no_silence() -> None:
    async def handler(peer: ServerConnection) -> None:
        while True:
            await peer.send(b'{"type":"heartbeat"}')
            await asyncio.sleep(0.2)

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames, silence_s=1.0)):
        await until(lambda: len(frames) >= 8)
        assert source.health().connection.disconnects == {}
        assert source.health().connection.connects == 1


async def test_a_message_beyond_all_bounds_ends_the_connection() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(snapshot("a", 1))
        await peer.send(b" " * (MAX_LINE_BYTES + 1))
        await peer.wait_closed()

    frames: list[Frame] = []
    async with serving(handler) as url, running(source := make({"type": "websocket", "url": url}, frames)):
        await until(lambda: source.health().connection.disconnects.get("oversized", 0) >= 1)
        assert told(frames[:2]) == [("a", 1), None]


# -------------------------------------------------------------------------------------------------------- file


def file_source(path: Path, frames: list[Frame], **options: Any) -> Any:
    return make({"type": "file", "path": str(path), "poll_interval_ms": 10}, frames, **options)


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


async def test_a_file_is_read_from_its_beginning_and_followed(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1), snapshot("b", 5))
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: len(frames) == 2)
        append(path, delta("a", 2), delta("a", 2))
        await until(lambda: len(frames) == 4)
        append(path, delta("a", 4))
        await until(lambda: len(frames) == 5)
        assert told(frames) == [("a", 1), ("b", 5), ("a", 2), ("a", 2), ("a", 4)]
        assert not source.request_resync("a", 2)
        status = source.health().connection
        assert (status.state, status.connects, status.messages, status.last_message_ns) == ("connected", 1, 5, TIME_NS + 100)
    assert frames[-1].payload is None


async def test_a_line_is_delivered_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    text = snapshot("a", 1) + b"\n"
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        with path.open("ab", buffering=0) as file:
            for start in range(0, len(text), 40):
                assert not frames
                file.write(text[start : start + 40])
                await until(lambda: source.health().connection.state == "connected")
                await asyncio.sleep(0)
        await until(lambda: bool(frames))
        assert [frame.payload for frame in frames] == [text[:-1]]


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later.jsonl"
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: source.health().connection.failures.get("missing", 0) >= 2)
        assert source.health().connection.state in {"waiting", "connecting"}
        assert source.health().connection.detail == "No such file or directory"
        append(path, snapshot("a", 1))
        await until(lambda: len(frames) == 1)
        assert told(frames) == [("a", 1)]


async def test_rotation_loses_nothing_and_is_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1))
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: len(frames) == 1)
        for turn in range(3):
            # Written to the old file after it was renamed and before there is a new one.
            old = path.rename(tmp_path / f"feed.{turn}")
            append(old, delta("a", 2 + 2 * turn))
            append(path, delta("a", 3 + 2 * turn))
            await until(lambda: len(frames) == 3 + 2 * turn)  # noqa: B023 - awaited in the loop
        assert told(frames) == [("a", sequence) for sequence in range(1, 8)]
        assert source.health().connection.connects == 4
        assert source.health().lines_torn == 0


async def test_what_is_written_while_the_file_is_being_rotated_is_read_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: after the end of the old file was seen, and before it is known that there is a new one."""
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1))
    frames: list[Frame] = []
    is_replaced = Tail.is_replaced

    def rotate_and_look(tail: Tail) -> bool:
        if not (tmp_path / "old").exists():
            append(path, delta("a", 2))
            path.rename(tmp_path / "old")
            append(path, delta("a", 3))
        return is_replaced(tail)

    monkeypatch.setattr(Tail, "is_replaced", rotate_and_look)
    async with running(file_source(path, frames)):
        await until(lambda: len(frames) == 3)
        assert told(frames) == [("a", 1), ("a", 2), ("a", 3)]


async def test_a_line_that_was_never_ended_before_the_rotation_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(snapshot("a", 1) + b"\n" + delta("a", 2)[:30])
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: len(frames) == 1)
        path.rename(tmp_path / "old")
        append(path, snapshot("a", 3))
        await until(lambda: len(frames) == 3)
        assert told(frames) == [("a", 1), None, ("a", 3)]
        assert source.health().lines_torn == 1


async def test_truncation_is_a_gap_and_the_file_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1), delta("a", 2))
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: len(frames) == 2)
        os.truncate(path, 0)
        append(path, snapshot("a", 3))
        await until(lambda: len(frames) == 4)
        assert told(frames) == [("a", 1), ("a", 2), None, ("a", 3)]
        # Written anew and longer than before: the size alone does not show it.
        path.write_bytes(b"".join(delta("a", sequence) + b"\n" for sequence in range(10, 15)))
        await until(lambda: len(frames) == 10)
        assert told(frames)[4:] == [None, *(("a", sequence) for sequence in range(10, 15))]
        # A line that had begun went with the rest, and what follows is no end of it.
        with path.open("ab") as file:
            file.write(delta("a", 15)[:30])
        await until(lambda: source._lines.held_bytes == 30)
        path.write_bytes(snapshot("a", 20) + b"\n")
        await until(lambda: len(frames) == 12)
        assert told(frames)[10:] == [None, ("a", 20)]
        assert source.health().truncations == 3


async def test_a_line_beyond_all_bounds_is_a_gap_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1), b"x" * (MAX_LINE_BYTES + 1), snapshot("a", 2))
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: len(frames) == 3)
        assert told(frames) == [("a", 1), None, ("a", 2)]
        assert source.health().lines_oversized == 1


async def test_a_folder_in_place_of_the_file_is_said_and_survived(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.mkdir()
    frames: list[Frame] = []
    async with running(source := file_source(path, frames)):
        await until(lambda: source.health().connection.failures.get("unreadable", 0) >= 1)
        assert source.health().connection.detail == "is no regular file"
        path.rmdir()
        append(path, snapshot("a", 1))
        await until(lambda: len(frames) == 1)


async def test_a_file_that_stops_growing_is_a_gap_after_the_silence(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1))
    frames: list[Frame] = []
    async with running(source := file_source(path, frames, silence_s=1.0)):
        await until(lambda: len(frames) == 2)
        assert told(frames) == [("a", 1), None]
        assert source.health().connection.state == "degraded"
        append(path, snapshot("a", 2))
        await until(lambda: len(frames) == 3)
        assert source.health().connection.state == "connected"


async def test_a_long_file_is_read_no_faster_than_it_is_worked_off(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    count = 3 * BACKLOG_FRAMES
    path.write_bytes(b"".join(delta("a", sequence) + b"\n" for sequence in range(count)))
    frames: list[Frame] = []
    waiting = 0
    longest = 0

    def backlog() -> int:
        nonlocal longest
        longest = max(longest, len(frames) - waiting)
        return len(frames) - waiting

    async with running(file_source(path, frames, backlog=backlog)):
        for part in range(1, 4):
            await until(lambda: len(frames) > min(part * BACKLOG_FRAMES, count - 1))  # noqa: B023 - awaited in the loop
            for _ in range(20):
                await asyncio.sleep(0)
            waiting = len(frames)
        await until(lambda: len(frames) == count)
    assert BACKLOG_FRAMES < longest <= BACKLOG_FRAMES + 2_000, "the queue's own bound and one chunk"
    assert told(frames[:count]) == [("a", sequence) for sequence in range(count)]


async def test_stopping_leaves_no_open_file_and_no_task(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        frames: list[Frame] = []
        async with running(file_source(path, frames)):
            await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_what_was_recorded_of_a_feed_is_what_it_delivered(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    append(path, snapshot("a", 1), b"this is no JSON", snapshot("b", 1))
    frames: list[Frame] = []
    async with running(file_source(path, frames)):
        await until(lambda: len(frames) == 3)
    recorder = Recorder(tmp_path / "recording")
    for frame in frames:
        recorder.write(frame)
    recorder.close()
    again = list(read_merged(sorted((tmp_path / "recording").iterdir())))
    assert again == [frame for frame in frames if frame.payload != b"this is no JSON"]
