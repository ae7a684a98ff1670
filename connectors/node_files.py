"""Follow the files in which a Hyperliquid node writes every fill of every account (venues.md 1.10).

A node that was started with ``--write-fills`` appends lines to ``node_fills/hourly/{YYYYMMDD}/{H}`` under its data folder, with
``--batch-by-block`` one line per block to ``node_fills_by_block``, and with ``--stream-with-block-info`` parts of blocks to
``node_fills_streaming``. Each line leaves as a :class:`~connectors.frames.Frame`, and what was lost as one without payload.

Following starts at the end of the newest file: what was written before is history, and accounts are polled anyway. Blocks are
numbered, so that those that are missing or come again are noticed; single fills are not, and only the ``by_block`` files can prove
that nothing is missing. Files are read in the event loop, at most ``READ_BYTES`` at a time; they were written a moment ago and come
from the page cache.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from connectors.frames import Frame
from connectors.hyperliquid_node import NODE_CONNECTION
from connectors.node_files_hours import Folder, HourFile, hour_files

READ_BYTES: Final = 1024 * 1024
"""About 1 ms of copying. The busiest hour on record wrote 2 GB, 0.6 MB a second, and a poll comes 20 times a second."""

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""A block of 16,000 fills of 500 bytes; blocks of the busiest hour on record had 46 kB on average."""

MAX_REPEATS: Final = 100_000
"""Blocks in a row that were seen before: two hours' worth at 12 a second. After that it is the last number that was wrong."""

HEAD_BYTES: Final = 256
"""The block's number and time stand in front of its events."""

SILENCE_S: Final = 30.0
"""A node writes ten blocks a second and some fills in nearly each of them."""

POLL_S: Final = 0.05
"""Half the time between two blocks; looking at a file that has not grown costs some 5 µs."""

LOOK_NS: Final = 250_000_000
"""Least time between two looks for the next hour's file. With the files of two months there, one takes 0.3 ms."""

RETRY_NS: Final = 1_000_000_000
"""Pause after the system failed to list, open or read."""

GapReason = Literal[
    "attached_late",
    "missing_blocks",
    "missing_hour",
    "overlong_line",
    "read_error",
    "replaced",
    "silent",
    "torn_line",
    "truncated",
    "wrong_numbers",
]
"""Why something was or may have been lost.

``attached_late``: following began, or began again, at the end of a file of which a part may have been written since the first look.
``missing_blocks``: a number was left out. ``missing_hour``: an hour has no file. ``overlong_line``: a line above the limit was
skipped. ``read_error``: the system failed to read. ``replaced``: the file is another one than before, or the node writes to another
folder by now. ``silent``: nothing came for so long that the node must be stuck. ``torn_line``: a file ended within a line.
``truncated``: the file became shorter. ``wrong_numbers``: so many blocks in a row were older than the last one that its number must
have been wrong.
"""

_BLOCK_NUMBER: Final = re.compile(rb'"block_number":\s*(\d{1,18})\b')
_BLOCK_TIME: Final = re.compile(rb'"block_time":\s*"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?')


class NodeFilesStatus(msgspec.Struct, frozen=True):
    """What the tail is doing and has done since the start.

    ``state`` is ``waiting`` while there is no file and ``degraded`` while the node is silent. ``gaps`` counts by :data:`GapReason`,
    ``missing_blocks`` the blocks that were left out, ``repeated_blocks`` those that came again and were dropped. ``block_ns`` is
    the venue's time of the last block: as far as it lies behind the clock, so far does the node.
    """

    venue: str
    connection: str
    state: Literal["waiting", "connected", "degraded"]
    detail: str
    path: str
    lines: int
    bytes: int
    gaps: dict[str, int]
    missing_blocks: int
    repeated_blocks: int
    last_message_ns: int | None
    block_number: int | None
    block_ns: int | None


class NodeFillsTail:
    """Follows the fills of one node.

    Args:
        path: the node's data folder, usually ``~/hl/data``.
        deliver: takes each frame; it must be quick and must not raise.
        clock_ns: wall clock for the stamps.
        venue: the name on the frames.
        consecutive_blocks: whether every block has a line of its own, even one without fills, as ``--batch-by-block`` means it.
            If a node leaves empty blocks out, this has to be false, and holes between blocks are not noticed any more.
        silence_s: how long nothing may come before that counts as a loss; ``None`` for a network where it may be quiet for long.
        max_line_bytes: the longest line that is taken.
    """

    def __init__(
        self,
        path: Path,
        deliver: Callable[[Frame], None],
        clock_ns: Callable[[], int] = time.time_ns,
        *,
        venue: str = "hyperliquid",
        consecutive_blocks: bool = True,
        silence_s: float | None = SILENCE_S,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._path = path
        self._deliver = deliver
        self._clock_ns = clock_ns
        self._venue = venue
        self._consecutive_blocks = consecutive_blocks
        self._silence_ns = None if silence_s is None else int(silence_s * 1e9)
        self._max_line_bytes = max_line_bytes
        self._hour: HourFile | None = None
        self._file: BinaryIO | None = None
        self._position = 0
        self._partial = bytearray()
        self._skips_line = False
        self._polled_before = False
        self._is_silent = False
        self._heard_ns = self._looked_ns = 0
        self._failed_ns = -RETRY_NS
        self._detail = "not started"
        self._lines = self._bytes = self._missing_blocks = self._repeated_blocks = self._repeats = 0
        self._gaps: dict[str, int] = {}
        self._last_message_ns: int | None = None
        self._block_number: int | None = None
        self._block_ns: int | None = None

    async def run(self, poll_s: float = POLL_S) -> None:
        """Follow until cancelled."""
        try:
            while True:
                has_more = self.poll() >= READ_BYTES
                await asyncio.sleep(0.0 if has_more else poll_s)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; the next poll begins anew with a gap."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def health(self) -> NodeFilesStatus:
        """Return the present state and the counters."""
        return NodeFilesStatus(
            venue=self._venue,
            connection=self._connection,
            state="waiting" if self._file is None else "degraded" if self._is_silent else "connected",
            detail=self._detail,
            path="" if self._hour is None else str(self._hour.path),
            lines=self._lines,
            bytes=self._bytes,
            gaps=dict(self._gaps),
            missing_blocks=self._missing_blocks,
            repeated_blocks=self._repeated_blocks,
            last_message_ns=self._last_message_ns,
            block_number=self._block_number,
            block_ns=self._block_ns,
        )

    def poll(self) -> int:
        """Deliver the whole lines that were appended since the last call, and move on to the next hour's file if there is one.

        Returns:
            How many bytes were read, at most ``READ_BYTES``.
        """
        now_ns = self._clock_ns()
        if abs(now_ns - self._failed_ns) < RETRY_NS:
            return 0
        try:
            read_bytes = self._follow(now_ns) if self._file is not None else self._attach(now_ns)
        except OSError as error:
            if self._file is not None:
                self._lose("read_error", now_ns)
                self.close()
            self._detail = f"{type(error).__name__}: {error.strerror or 'cannot be read'}"
            self._failed_ns = now_ns
            read_bytes = 0
        self._polled_before = True
        self._mind_silence(now_ns)
        return read_bytes

    @property
    def _connection(self) -> str:
        return NODE_CONNECTION if self._hour is None else self._hour.folder.connection

    def _attach(self, now_ns: int) -> int:
        """Open the newest file at its end, or, after it had to be closed, begin again there: what lies between is lost."""
        hours = hour_files(self._path, None)
        if not hours:
            self._detail = f"no files of fills in {self._path}; the node has to run with --write-fills"
            return 0
        newest = hours[-1]
        self._open(newest)
        assert self._file is not None
        self._position = _last_line_start(self._file, self._max_line_bytes)
        self._heard_ns = now_ns
        if self._polled_before:
            self._lose("attached_late", now_ns)
        return self._read(now_ns)

    def _follow(self, now_ns: int) -> int:
        read_bytes = self._read(now_ns)
        if read_bytes:
            return read_bytes
        if abs(now_ns - self._looked_ns) < LOOK_NS:  # Whichever way the clock is set.
            return 0
        self._looked_ns = now_ns
        assert self._hour is not None
        following = self._next_hour(self._hour)
        if following is not None:
            # The node closed this file before it opened the next; what it wrote in between this read and the look at the folder
            # is there now.
            read_bytes = self._read(now_ns)
            return read_bytes or self._move_on(self._hour, following, now_ns)
        self._check_identity(self._hour, now_ns)
        return 0

    def _next_hour(self, current: HourFile) -> HourFile | None:
        """Return the next file of the same folder, or the newest of another folder that the node writes to by now."""
        newer = [hour for hour in hour_files(self._path, current.day) if hour.number > current.number]
        same = [hour for hour in newer if hour.folder == current.folder]
        return same[0] if same else newer[-1] if newer else None

    def _move_on(self, current: HourFile, following: HourFile, now_ns: int) -> int:
        if self._partial or self._skips_line:
            self._lose("torn_line", now_ns)
        if following.folder != current.folder:
            self._lose("replaced", now_ns)
            self._block_number = None
        elif following.number > current.number + 1:
            self._lose("missing_hour", now_ns)
        self._open(following)
        return self._read(now_ns)

    def _check_identity(self, hour: HourFile, now_ns: int) -> None:
        """Notice that the path leads to another file by now. One that was only deleted may be read to its end."""
        assert self._file is not None
        try:
            there = hour.path.stat()
        except FileNotFoundError:
            return
        ours = os.fstat(self._file.fileno())
        if (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            self._lose("replaced", now_ns)
            self._open(hour)

    def _open(self, hour: HourFile) -> None:
        opened = hour.path.open("rb", buffering=0)
        self.close()
        self._file = opened
        self._hour = hour
        self._detail = ""
        self._position = 0
        self._partial.clear()
        self._skips_line = False

    def _read(self, now_ns: int) -> int:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._position:
            self._lose("truncated", now_ns)
            self._position = 0
            self._partial.clear()
            self._skips_line = False
        self._file.seek(self._position)
        content = self._file.read(READ_BYTES)
        if not content:
            return 0
        self._position += len(content)
        self._bytes += len(content)
        *whole, rest = content.split(b"\n")
        for piece in whole:
            self._end_line(piece, now_ns)
        if not self._skips_line:
            self._partial += rest
            if len(self._partial) > self._max_line_bytes:
                self._lose("overlong_line", now_ns)
                self._partial.clear()
                self._skips_line = True
        return len(content)

    def _end_line(self, piece: bytes, now_ns: int) -> None:
        """Take the end of a line, of which a part may have come before."""
        line = bytes(self._partial) + piece if self._partial else piece
        self._partial.clear()
        if self._skips_line:
            self._skips_line = False
        elif len(line) > self._max_line_bytes:
            self._lose("overlong_line", now_ns)
        elif line.strip():
            self._take(line, now_ns)

    def _take(self, line: bytes, now_ns: int) -> None:
        head = line[:HEAD_BYTES]
        found = _BLOCK_NUMBER.search(head)
        if found is not None and self._hour is not None and not self._is_new(int(found[1]), self._hour.folder, now_ns):
            return
        stamp = _BLOCK_TIME.search(head)
        if stamp is not None:
            self._block_ns = _nanoseconds(stamp[1], stamp[2]) or self._block_ns
        self._lines += 1
        self._last_message_ns = self._heard_ns = now_ns
        if self._is_silent:
            self._is_silent = False
            self._detail = ""
        self._deliver(Frame(self._venue, self._connection, now_ns, line))

    def _is_new(self, number: int, folder: Folder, now_ns: int) -> bool:
        """Tell whether a block is to be delivered, after a gap if some before it are missing."""
        last = self._block_number
        if folder.has_whole_blocks and last is not None:
            if number <= last:
                self._repeated_blocks += 1
                self._repeats += 1
                if self._repeats <= MAX_REPEATS:
                    return False
                self._lose("wrong_numbers", now_ns)
            elif number > last + 1 and self._consecutive_blocks:
                self._missing_blocks += number - last - 1
                self._lose("missing_blocks", now_ns)
        self._repeats = 0
        self._block_number = number
        return True

    def _mind_silence(self, now_ns: int) -> None:
        if self._file is None or self._silence_ns is None or self._is_silent or now_ns - self._heard_ns <= self._silence_ns:
            return
        self._is_silent = True
        self._detail = f"nothing new for {self._silence_ns / 1e9:g} s"
        self._lose("silent", now_ns)

    def _lose(self, reason: GapReason, now_ns: int) -> None:
        self._gaps[reason] = self._gaps.get(reason, 0) + 1
        self._deliver(Frame(self._venue, self._connection, now_ns, None))


def _last_line_start(file: BinaryIO, max_line_bytes: int) -> int:
    """Return where the line begins that is being written; the end of the file if that is where the last one ended."""
    size = end = file.seek(0, os.SEEK_END)
    while end > max(0, size - max_line_bytes):
        start = max(0, end - READ_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return end


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _nanoseconds(seconds: bytes, fraction: bytes | None) -> int | None:
    try:
        whole = datetime.fromisoformat(seconds.decode()).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (whole - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
