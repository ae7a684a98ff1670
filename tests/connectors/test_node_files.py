from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import node_files
from connectors.events import AccountFill
from connectors.frames import Frame
from connectors.hyperliquid import Hyperliquid
from connectors.node_files import MAX_REPEATS, READ_BYTES, NodeFillsTail
from connectors.node_files_hours import HourFile, hour_files
from tests.connectors.payloads import payload

NS = 1_000_000_000
BY_BLOCK = "node_fills_by_block"
STREAMING = "node_fills_streaming"
SINGLE = "node_fills"


class Node:
    """A data folder, a clock that moves half a second per poll, and what was delivered."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path
        self.now_ns = 1_790_000_000 * NS
        self.frames: list[Frame] = []
        self.tail = NodeFillsTail(path, self.frames.append, lambda: self.now_ns, **settings)  # type: ignore[arg-type]

    def file(self, hour: str, folder: str = BY_BLOCK) -> Path:
        path = self.path / folder / "hourly" / hour
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def write(self, hour: str, content: bytes, folder: str = BY_BLOCK) -> None:
        with self.file(hour, folder).open("ab") as file:
            file.write(content)

    def poll(self, times: int = 1) -> list[bytes | None]:
        """Poll and return the payloads of the frames that came with it."""
        before = len(self.frames)
        for _ in range(times):
            self.now_ns += NS // 2
            self.tail.poll()
        return [frame.payload for frame in self.frames[before:]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data")
    yield node
    node.tail.close()


def line(number: int, rest: str = "[]") -> bytes:
    stamps = '"local_time":"2026-06-10T13:10:56.723695057","block_time":"2026-06-10T12:56:15.035481067"'
    return f'{{{stamps},"block_number":{number},"events":{rest}}}'.encode()


def lines(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


def numbers_of(payloads: list[bytes | None]) -> list[int | None]:
    """The block numbers, ``None`` for a gap."""
    return [None if item is None else int(item.split(b'"block_number":')[1].split(b",")[0]) for item in payloads]


def test_what_was_written_before_the_start_is_history(node: Node) -> None:
    node.write("20260610/9", lines(1, 2))
    node.write("20260610/10", lines(3, 4))
    assert node.poll() == []
    node.write("20260610/10", lines(5, 6))
    assert numbers_of(node.poll()) == [5, 6]
    frame = node.frames[0]
    assert (frame.venue, frame.connection, frame.received_ns, frame.payload) == ("hyperliquid", "node", node.now_ns, line(5))
    assert node.poll() == []
    health = node.tail.health()
    assert (health.state, health.lines, health.gaps, health.block_number) == ("connected", 2, {}, 6)
    assert health.path.endswith("20260610/10")
    assert health.block_ns == 1_781_096_175_035_481_067
    assert health.last_message_ns == frame.received_ns


def test_lines_that_are_written_piece_by_piece_are_delivered_when_they_end(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    content = line(7)
    for start in range(0, len(content), 40):
        node.write("20260610/9", content[start : start + 40])
        assert node.poll() == []
    node.write("20260610/9", b"\n" + line(8)[:30])
    assert node.poll() == [content]
    node.write("20260610/9", line(8)[30:] + b"\n\n" + lines(9))
    assert numbers_of(node.poll()) == [8, 9]


def test_a_line_that_was_begun_before_the_start_is_taken_whole(node: Node) -> None:
    node.write("20260610/9", lines(1) + line(2)[:50])
    assert node.poll() == []
    node.write("20260610/9", line(2)[50:] + b"\n")
    assert node.poll() == [line(2)]


def test_a_long_line_that_was_begun_before_the_start_is_found_by_its_beginning(node: Node) -> None:
    long = line(2, '["' + "x" * (3 * READ_BYTES) + '"]')
    node.write("20260610/9", lines(1) + long[:-5])
    node.poll(5)
    node.write("20260610/9", long[-5:] + b"\n")
    assert node.poll() == [long]


def test_the_next_hour_is_followed_from_its_beginning_and_over_midnight(node: Node) -> None:
    node.write("20260630/22", lines(1))
    node.poll()
    node.write("20260630/22", lines(2))
    node.write("20260630/23", lines(3))
    node.write("20260701/0", lines(4))
    node.write("20260701/1", lines(5))
    assert numbers_of(node.poll(5)) == [2, 3, 4, 5]
    assert node.tail.health().gaps == {}


def test_what_the_node_wrote_last_into_the_old_file_is_not_left_behind(node: Node) -> None:
    node.write("20260610/9", lines(1))
    node.poll()
    node.write("20260610/10", b"")
    node.write("20260610/9", lines(2))
    assert numbers_of(node.poll(2)) == [2]
    node.write("20260610/10", lines(3))
    assert numbers_of(node.poll()) == [3]


def test_a_block_that_is_written_while_the_next_file_is_found_is_not_left_behind(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node finishes one file and begins the next just between the reading of the old one and the look at the folder."""
    node.write("20260610/9", lines(1))
    node.poll()

    def look(path: Path, since: date | None) -> list[HourFile]:
        monkeypatch.undo()
        node.write("20260610/9", lines(2))
        node.write("20260610/10", lines(3))
        return hour_files(path, since)

    monkeypatch.setattr(node_files, "hour_files", look)
    assert numbers_of(node.poll(3)) == [2, 3]
    assert node.tail.health().gaps == {}


def test_hours_are_numbers_and_not_texts(node: Node) -> None:
    for hour in ("9", "10", "2", "24", "11.lz4", "x", ".tmp"):
        node.file(f"20260610/{hour}")
    node.file("2026061/5")
    node.file("20261340/5")
    (node.path / BY_BLOCK / "hourly" / "20260611").touch()
    assert [file.hour for file in hour_files(node.path, None)] == []
    (node.path / BY_BLOCK / "hourly" / "20260611").unlink()
    assert [file.hour for file in hour_files(node.path, None)] == [2, 9, 10]


def test_an_hour_without_a_file_is_a_gap(node: Node) -> None:
    node.write("20260610/9", lines(1))
    node.poll()
    node.write("20260610/11", lines(2))
    assert numbers_of(node.poll()) == [None, 2]
    assert node.tail.health().gaps == {"missing_hour": 1}


def test_a_number_that_is_left_out_is_a_gap_before_the_block(node: Node) -> None:
    node.write("20260610/9", lines(1))
    node.poll()
    node.write("20260610/9", lines(5, 6, 9, 10))
    assert numbers_of(node.poll()) == [5, 6, None, 9, 10], "nothing is known of what came before the first one"
    health = node.tail.health()
    assert (health.gaps, health.missing_blocks) == ({"missing_blocks": 1}, 2)


def test_a_node_that_leaves_empty_blocks_out_may_be_followed_without_gaps(tmp_path: Path) -> None:
    node = Node(tmp_path, consecutive_blocks=False)
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(5, 9, 8, 12))
    assert numbers_of(node.poll()) == [5, 9, 12]
    assert (node.tail.health().gaps, node.tail.health().repeated_blocks) == ({}, 1)
    node.tail.close()


def test_parts_of_a_block_share_its_number(node: Node) -> None:
    node.write("20260610/9", b"", STREAMING)
    node.poll()
    node.write("20260610/9", lines(5, 5, 5, 8, 8), STREAMING)
    assert numbers_of(node.poll()) == [5, 5, 5, 8, 8]
    assert {frame.connection for frame in node.frames} == {"node-stream"}
    assert node.tail.health().block_number == 8


def test_a_file_that_became_shorter_is_a_gap_and_blocks_that_come_again_are_dropped(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1, 2, 3))
    node.poll()
    path = node.file("20260610/9")
    path.write_bytes(lines(2))
    assert numbers_of(node.poll()) == [None]
    node.write("20260610/9", lines(3, 4))
    assert numbers_of(node.poll()) == [4]
    health = node.tail.health()
    assert (health.gaps, health.repeated_blocks) == ({"truncated": 1}, 2)


def test_a_file_that_was_replaced_is_read_from_its_beginning(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1, 2))
    node.poll()
    path = node.file("20260610/9")
    other = path.with_name("other")
    other.write_bytes(lines(2, 3, 4, 5))
    other.rename(path)
    assert numbers_of(node.poll(2)) == [None, 3, 4, 5]
    assert node.tail.health().gaps == {"replaced": 1}


def test_a_file_that_was_deleted_is_read_to_its_end_and_then_the_next(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    path = node.file("20260610/9")
    with path.open("ab", buffering=0) as file:
        file.write(lines(1))
        path.unlink()
        assert numbers_of(node.poll(3)) == [1]
        file.write(lines(2))
    node.write("20260610/10", lines(3))
    assert numbers_of(node.poll(2)) == [2, 3]
    assert node.tail.health().gaps == {}


def test_a_file_that_ends_within_a_line_is_a_gap(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1) + line(2)[:40])
    node.write("20260610/10", lines(3))
    assert node.poll(2) == [line(1), None, None, line(3)]
    assert node.tail.health().gaps == {"torn_line": 1, "missing_blocks": 1}


def test_a_folder_that_is_missing_is_waited_for_and_what_it_held_by_then_is_in_doubt(node: Node) -> None:
    assert node.poll(3) == []
    assert node.tail.health().state == "waiting"
    assert "--write-fills" in node.tail.health().detail
    node.write("20260610/9", lines(1, 2))
    assert node.poll(2) == [None]
    node.write("20260610/9", lines(3))
    assert numbers_of(node.poll()) == [3]
    health = node.tail.health()
    assert (health.state, health.detail, health.gaps) == ("connected", "", {"attached_late": 1})


def test_a_folder_that_cannot_be_listed_is_said_so_and_tried_again(node: Node) -> None:
    path = node.path / BY_BLOCK
    path.mkdir(parents=True)
    (path / "hourly").touch()
    assert node.poll(4) == []
    assert (node.tail.health().state, node.tail.health().gaps) == ("waiting", {})
    assert node.tail.health().detail == "NotADirectoryError: Not a directory"
    (path / "hourly").unlink()
    node.write("20260610/9", lines(1))
    assert node.poll(4) == [None]
    assert node.tail.health().state == "connected"


def test_a_file_that_cannot_be_read_any_more_is_a_gap_and_not_twenty_a_second(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    assert node.tail._file is not None
    opened = os.open(node.path, os.O_RDONLY)
    try:
        os.dup2(opened, node.tail._file.fileno())  # Reading a folder fails.
        node.write("20260610/9", lines(1))
        assert node.poll() == [None]
    finally:
        os.close(opened)
    assert (node.tail.health().state, node.tail.health().gaps) == ("waiting", {"read_error": 1})
    assert node.tail.health().detail.startswith("IsADirectoryError")
    assert node.poll() == []
    assert node.poll(3) == [None]
    node.write("20260610/9", lines(2))
    assert numbers_of(node.poll()) == [2]


def test_a_line_beyond_the_limit_is_skipped_and_counted(tmp_path: Path) -> None:
    node = Node(tmp_path, max_line_bytes=1000)
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1) + line(2, "[" + " " * 2000 + "]") + b"\n" + lines(3))
    assert numbers_of(node.poll()) == [1, None, None, 3], "the limit, and the number that is missing for it"
    node.write("20260610/9", line(4)[:40] + b" " * 2000)
    assert node.poll() == [None]
    node.write("20260610/9", b" " * 2000)
    assert node.poll() == [], "one gap for one line"
    node.write("20260610/9", b"]}\n" + lines(5))
    assert numbers_of(node.poll()) == [None, 5]
    assert node.tail.health().gaps == {"overlong_line": 2, "missing_blocks": 2}
    assert node.tail._partial == b""
    node.tail.close()


def test_a_poll_reads_no_more_than_its_share(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    numbers = range(1, 20_001)
    node.write("20260610/9", lines(*numbers))
    node.now_ns += NS
    assert node.tail.poll() == READ_BYTES
    while node.tail.poll():
        pass
    assert numbers_of([frame.payload for frame in node.frames]) == list(numbers)


def test_a_node_that_falls_silent_is_degraded_and_its_accounts_in_doubt(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1))
    assert numbers_of(node.poll(60)) == [1]
    assert node.tail.health().state == "connected"
    assert node.poll(100) == [None]
    health = node.tail.health()
    assert (health.state, health.detail, health.gaps) == ("degraded", "nothing new for 30 s", {"silent": 1})
    node.write("20260610/9", lines(2))
    assert numbers_of(node.poll()) == [2]
    assert (node.tail.health().state, node.tail.health().detail) == ("connected", "")


def test_a_quiet_network_may_be_quiet(tmp_path: Path) -> None:
    node = Node(tmp_path, silence_s=None)
    node.write("20260610/9", b"")
    assert node.poll(500) == []
    node.tail.close()


def test_a_number_that_was_wrong_does_not_silence_the_node_for_ever(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", lines(1, 10**17))
    node.poll()
    node.write("20260610/9", lines(*range(2, MAX_REPEATS + 5)))
    payloads = node.poll(40)
    assert numbers_of(payloads) == [None, MAX_REPEATS + 2, MAX_REPEATS + 3, MAX_REPEATS + 4]
    assert node.tail.health().gaps == {"missing_blocks": 1, "wrong_numbers": 1}


def test_single_fills_have_no_numbers_and_are_all_taken(node: Node) -> None:
    node.write("20260610/9", b"", SINGLE)
    node.poll()
    node.write("20260610/9", b'["0x1",{"coin":"BTC"}]\n' * 3, SINGLE)
    assert node.poll() == [b'["0x1",{"coin":"BTC"}]'] * 3
    assert (node.tail.health().block_number, node.tail.health().block_ns) == (None, None)


def test_the_newest_of_several_folders_is_followed_and_the_better_one_of_equals(node: Node) -> None:
    node.write("20260601/5", b"")
    node.write("20260610/9", b"", SINGLE)
    node.poll()
    assert f"/{SINGLE}/" in node.tail.health().path
    node.write("20260610/10", lines(7))
    assert numbers_of(node.poll(2)) == [None, 7]
    assert f"/{BY_BLOCK}/" in node.tail.health().path
    assert node.tail.health().gaps == {"replaced": 1}
    equals = Node(node.path)
    equals.file("20260610/10", SINGLE)
    equals.poll()
    assert f"/{BY_BLOCK}/" in equals.tail.health().path
    equals.tail.close()


def test_a_stamp_that_is_no_time_is_passed_over(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll()
    node.write("20260610/9", line(1).replace(b"2026-06-10T12", b"2026-13-40T12") + b"\n")
    node.write("20260610/9", b'{"events":[]}\n')
    assert len(node.poll()) == 2
    assert (node.tail.health().block_ns, node.tail.health().block_number) == (None, 1)


def test_the_clock_may_be_set_back(node: Node) -> None:
    node.write("20260610/9", b"")
    node.poll(2)
    node.now_ns -= 3600 * NS
    node.write("20260610/9", lines(1))
    node.write("20260610/10", lines(2))
    assert numbers_of(node.poll(2)) == [1, 2]


def test_what_is_delivered_is_what_the_venue_file_reads(node: Node) -> None:
    node.write("20251010/21", b"")
    node.poll()
    node.write("20251010/21", payload("hyperliquid", "node_block") + b"\n")
    node.poll()
    assert isinstance(Hyperliquid().parse(node.frames[0])[0], AccountFill)
    assert node.tail.health().block_ns == 1_760_130_964_687_000_000


async def test_running_follows_until_cancelled_and_closes_the_file(node: Node) -> None:
    node.write("20260610/9", b"")
    arrived: asyncio.Queue[Frame] = asyncio.Queue()
    tail = NodeFillsTail(node.path, arrived.put_nowait)
    tail.poll()
    task = asyncio.create_task(tail.run(poll_s=0.001))
    node.write("20260610/9", lines(1, 2))
    async with asyncio.timeout(5):
        assert [(await arrived.get()).payload for _ in range(2)] == [line(1), line(2)]
    assert tail.health().state == "connected"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tail.health().state == "waiting"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.lists(st.integers(0, 29), max_size=5, unique=True))
def test_however_the_node_writes_every_line_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[int], rollovers: list[int]
) -> None:
    """Pieces of any length, with a new hour begun after some whole lines."""
    node = Node(tmp_path_factory.mktemp("data"))
    hour = 0
    node.write(f"20260610/{hour}", b"")
    node.poll()
    rest = b""
    for number, size in enumerate(pieces):
        rest += line(number, "[" + "1," * size + "1]") + b"\n"
        node.write(f"20260610/{hour}", rest[: size * 3])
        rest = rest[size * 3 :]
        node.poll()
        if number in rollovers:
            node.write(f"20260610/{hour}", rest)
            rest = b""
            hour += 1
            node.write(f"20260610/{hour}", b"")
    node.write(f"20260610/{hour}", rest)
    node.poll(10)
    assert numbers_of([frame.payload for frame in node.frames]) == list(range(len(pieces)))
    node.tail.close()
