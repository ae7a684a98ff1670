"""Captures made by other programs, as the frames that this one would have recorded.

Formats are told apart by content, never by name: our own recordings and tardis.dev raw files (venues.md 8.1), hftbacktest's
collector (``<microseconds or nanoseconds> <JSON>``), cryptofeed's raw capture (venues.md 8.3), and the Hyperliquid archive
(venues.md 8.4). How each is read is in :mod:`connectors.captures`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.captures import (
    CRYPTOFEED_NAME,
    ImportCounts,
    Lines,
    agreed_venue,
    detect_venue,
    parse_epoch_ns,
    parse_iso_ns,
    read_archive,
    read_cryptofeed,
    read_hftbacktest,
    read_tardis,
    symbol_of_stream,
)
from connectors.frames import Frame
from connectors.recorder import RECORDING_NAME, Recorder
from connectors.recording import RecordingError, read_merged

__all__ = ["Format", "ImportCounts", "NativeTotals", "open_recording", "sniff", "write_native"]

Format = Literal["recording", "tardis", "hftbacktest", "cryptofeed", "hyperliquid-archive"]

HEAD_LINES: Final = 2000
"""Lines looked at to find out what a file is; a stream name comes within the first dozen of a busy market."""

HEAD_BYTES: Final = 8 * 1024 * 1024
"""The same limit for files that begin with large REST bodies (an instrument list has 3 MB)."""

_TARDIS_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z ")
_HFTBACKTEST_LINE = re.compile(rb"(\d{13}|\d{16}|\d{19}) [\[{]")
_CRYPTOFEED_LINE = re.compile(rb"configuration: |(wss?|https?)://\S+ (<->|<-|->) \d+(\.\d+)?|\d{9,10}(\.\d+)?: ")
_CRYPTOFEED_STAMP = re.compile(rb"((wss?|https?)://\S+ (<->|<-|->) )?(?P<stamp>\d{9,10}(\.\d+)?)(: |$)")
_ARCHIVE_LINE = re.compile(rb'\{"time":\s?"\d{4}-\d\d-\d\dT[0-9:.]+Z?",\s?"ver_num":')

_EXPECTED: Final = (
    "expected a recording of this program, a tardis.dev raw file (<28-character UTC time> <JSON>), a capture of hftbacktest "
    "(<epoch in us or ns> <JSON>) or cryptofeed (<url> <-> <epoch>, <epoch>: <JSON>), or the Hyperliquid archive "
    '({"time":...,"ver_num":...,"raw":{...}})'
)


class _Source(msgspec.Struct):
    """One stream of frames, which is not opened before its time has come."""

    first_ns: int
    frames: Callable[[], Iterator[Frame]]


def open_recording(
    paths: Sequence[Path], venue: str | None = None, *, counts: ImportCounts | None = None, expected: Format | None = None
) -> Iterator[Frame]:
    """Yield the frames of any recording, in the order in which they were received.

    Args:
        paths: Files, and directories of our own recordings. Several files of one capture are joined in time order; files of
            different captures and formats may be mixed.
        venue: The venue, where the content does not tell it.
        counts: Filled while iterating over foreign files.
        expected: Refuse files of any other format.

    Raises:
        RecordingError: a file is of no known format or not the expected one, its venue cannot be told, or it is torn or damaged
            (after the frames before the damage).
    """
    counts = ImportCounts() if counts is None else counts
    recordings: list[Path] = []
    sources: list[_Source] = []
    captures: dict[tuple[Path, str, str, int], list[tuple[int, Path, list[bytes]]]] = {}
    for path in _expanded(paths):
        found, head = _sniff(path)
        if expected not in {None, found}:
            raise RecordingError(path, 1, 0, f"this is a file of format {found}, not {expected}")
        if found == "recording":
            recordings.append(path)
        elif found == "cryptofeed":
            name = CRYPTOFEED_NAME.fullmatch(path.name)
            key = (path.parent, name["capture"], name["kind"] or "", int(name["number"] or 0)) if name else (path, "", "ws", 0)
            captures.setdefault(key, []).append((int(name["rotation"]) if name else 0, path, head))
        else:
            sources.append(_source(path, found, head, venue, counts))
    sources.extend(_cryptofeed_source(key[2:], sorted(captures[key]), venue, counts) for key in sorted(captures))
    if recordings:
        merged = read_merged(recordings)
        if not sources:
            return merged
        sources.append(_Source(0, lambda: merged))
    return _merge(sources)


def sniff(path: Path) -> Format:
    """Tell the format of one file by its first lines.

    Raises:
        RecordingError: the file cannot be read or is of no known format.
    """
    return _sniff(path)[0]


def _expanded(paths: Sequence[Path]) -> list[Path]:
    """Put the recordings of a directory in its place."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if RECORDING_NAME.fullmatch(entry.name))
            if not inside:
                raise RecordingError(path, 1, 0, "a directory without recordings (<venue>.<connection>.<hour>.zst)")
            found.extend(inside)
        else:
            found.append(path)
    return sorted(set(found))


def _sniff(path: Path) -> tuple[Format, list[bytes]]:
    """Tell the format, and hand out the lines that were looked at; a tear after the first line is left to whoever reads on."""
    if RECORDING_NAME.fullmatch(path.name):
        return "recording", []
    head: list[bytes] = []
    lines = Lines(path, ImportCounts())
    try:
        for line in lines:
            if line:
                head.append(line)
            if lines.number >= HEAD_LINES or lines.offset > HEAD_BYTES:
                break
    except RecordingError:
        if not head:
            raise
    first = head[0] if head else b""
    patterns: tuple[tuple[re.Pattern[bytes], Format], ...] = (
        (_TARDIS_LINE, "tardis"),
        (_HFTBACKTEST_LINE, "hftbacktest"),
        (_CRYPTOFEED_LINE, "cryptofeed"),
        (_ARCHIVE_LINE, "hyperliquid-archive"),
    )
    for pattern, found in patterns:
        if pattern.match(first):
            return found, head
    raise RecordingError(path, 1, 0, _EXPECTED if head else f"the file is empty; {_EXPECTED}")


def _source(path: Path, found: Format, head: list[bytes], venue: str | None, counts: ImportCounts) -> _Source:
    """Prepare a tardis, hftbacktest or archive file, each of which stands for itself."""
    if found == "hyperliquid-archive":
        if venue not in {None, "hyperliquid"}:
            raise RecordingError(path, 1, 0, f"the Hyperliquid archive holds nothing of {venue}")
        first = next(read_archive(path, ImportCounts()))
        return _Source(first.received_ns, lambda: read_archive(path, counts))
    known = agreed_venue(Lines(path, counts), venue, next(filter(None, map(detect_venue, head)), None))
    if known is None:
        raise RecordingError(path, 1, 0, "the venue cannot be told from the first messages and must be given")
    if found == "tardis":
        return _Source(parse_iso_ns(head[0][:28].decode()), lambda: read_tardis(path, known, counts))
    symbols = set(filter(None, map(symbol_of_stream, head)))
    symbol = symbols.pop() if len(symbols) == 1 else None
    stamp = head[0].partition(b" ")[0]
    return _Source(int(stamp.ljust(19, b"0")), lambda: read_hftbacktest(path, known, symbol, counts))


def _cryptofeed_source(
    connection: tuple[str, int], files: list[tuple[int, Path, list[bytes]]], venue: str | None, counts: ImportCounts
) -> _Source:
    """Prepare the files of one connection, in the order in which they were filled."""
    kind, number = connection
    paths = [path for _, path, _ in files]
    stamps = [match["stamp"] for _, _, head in files for line in head if (match := _CRYPTOFEED_STAMP.match(line))]
    first_ns = parse_epoch_ns(stamps[0]) if stamps else 0
    name = f"ws{number}" if kind == "ws" else "main"
    return _Source(first_ns, lambda: read_cryptofeed(paths, venue, name, counts))


def _merge(sources: list[_Source]) -> Iterator[Frame]:
    """Yield the frames of all sources by (received_ns, connection), opening each only when its time has come.

    A day of tardis.dev files has 1,440 of them, more than a process may hold open.
    """
    waiting = sorted(enumerate(sources), key=lambda item: (-item[1].first_ns, -item[0]))
    heap: list[tuple[int, str, int, Frame, Iterator[Frame]]] = []
    while waiting or heap:
        while waiting and (not heap or waiting[-1][1].first_ns <= heap[0][0]):
            index, source = waiting.pop()
            frames = source.frames()
            for frame in frames:
                heapq.heappush(heap, (frame.received_ns, frame.connection, index, frame, frames))
                break
        if not heap:
            continue
        _, _, index, frame, frames = heap[0]
        yield frame
        for following in frames:
            heapq.heapreplace(heap, (following.received_ns, following.connection, index, following, frames))
            break
        else:
            heapq.heappop(heap)


class NativeTotals(msgspec.Struct, frozen=True):
    """What :func:`write_native` did; ``skipped`` are messages that are not JSON."""

    frames: int
    skipped: int


def write_native(frames: Iterator[Frame], directory: Path) -> NativeTotals:
    """Write ``frames`` as a recording into a directory that holds none yet.

    Stamps are cut to 100 ns, the resolution of recordings.

    Raises:
        RecordingError: from ``frames``; what came before is written and closed.
        RecorderError: the directory holds a recording, or cannot be written.
    """
    recorder = Recorder(directory, fresh=True)
    try:
        for frame in frames:
            recorder.write(frame)
    finally:
        recorder.close()
    return NativeTotals(recorder.frames_written_total, recorder.frames_skipped_total)
