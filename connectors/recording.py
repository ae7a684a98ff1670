"""Recordings, read back as the frames that were written, in one order whoever reads them.

The format is described in :mod:`connectors.recorder`. Raw files of tardis.dev (plain, gzip or zstd) read the same way; their names
say nothing, so the caller names venue and connection.
"""

from __future__ import annotations

import heapq
import operator
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from connectors.compressed import ContainerError, Note, read_text, split_lines
from connectors.frames import REST_CONNECTION, Frame
from connectors.recorder import FORMAT_VERSION, MARK_DECODER, RECORDING_NAME, Mark, Recorder, RecorderError, is_one_json_text

__all__ = ["Recorder", "RecorderError", "RecordingError", "RecordingReader", "read_merged", "read_recording"]

STAMP_LENGTH: Final = 28
"""``yyyy-MM-ddTHH:mm:ss.fffffffZ``; a space follows."""

_SECOND_PREFIX = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.")
_NOT_A_LINE: Final = "expected a 28-character UTC time, a space and JSON, or an empty line"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordingError(Exception):
    """A recording cannot be read on; the frames before the damage were yielded.

    Attributes:
        path: The file.
        line: The number of the line that could not be read, from 1.
        offset: Where that line starts in the decompressed text, in bytes.
        reason: What is wrong, and what was expected.
    """

    def __init__(self, path: Path, line: int, offset: int, reason: str) -> None:
        super().__init__(f"{path}: line {line}, byte {offset} of the text: {reason}")
        self.path = path
        self.line = line
        self.offset = offset
        self.reason = reason


class RecordingReader(Iterator[Frame]):
    """The frames of one file, in the file's order; made by :func:`read_recording`.

    Attributes:
        venue: The venue of all frames.
        connection: The connection of all frames.
        complete: Whether the file was read to an end that can be trusted; known when iteration is over. A ``.partial`` file that
            was never closed ends cleanly at its last whole zstd frame, but is not complete.
        continues: Whether the first line follows without a hole on the last one of the file before; known from the first frame on.
        skipped: Messages that arrived but were not recorded, by the footer.
        last_received_ns: The stamp of the last frame; ``None`` before the first.
        ends_disconnected: Whether the last line tells of a lost connection.
    """

    def __init__(self, path: Path, venue: str | None = None, connection: str | None = None) -> None:
        name = RECORDING_NAME.fullmatch(path.name)
        if name is None and venue is None:
            raise RecordingError(
                path, 1, 0, "the name does not tell the venue (expected <venue>.<connection>.<hour>.zst), so it must be given"
            )
        self.path = path
        self.venue = venue or (name["venue"] if name else "")
        self.connection = connection or (name["connection"] if name else "main")
        self.complete = False
        self.continues = False
        self.skipped = 0
        self.last_received_ns: int | None = None
        self.ends_disconnected = False
        self._native = name is not None
        self._may_be_torn = name is not None and name["partial"] is not None
        self._closed = False
        self._lines = 0
        self._offset = 0
        self._text_bytes = 0
        self._crc32 = 0
        self._frames = self._read()

    def __iter__(self) -> Iterator[Frame]:  # noqa: PYI034 - see below
        """Return the generator itself, which saves a call per frame."""
        return self._frames

    def __next__(self) -> Frame:
        return next(self._frames)

    def _read(self) -> Iterator[Frame]:
        try:
            yield from self._read_items()
            if self._native and not self._closed:
                if not self._may_be_torn:
                    raise self._error("the footer is missing: the file is torn")
            else:
                self.complete = True
        except ContainerError as error:
            if not (self._may_be_torn and error.torn):
                raise self._error(str(error)) from error
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror or error}") from error

    def _read_items(self) -> Iterator[Frame]:
        """Yield the frames, line by line: this loop is what reading costs, so it calls nothing that it can do without."""
        venue, connection = self.venue, self.connection
        second_prefix = b"\n"  # which no line starts with
        second_ns = 0
        received_ns: int | None = None
        disconnect_pending = False
        for item in split_lines(self._tallied()):
            if isinstance(item, Note):
                mark = self._decode_mark(item)
                if mark is None:
                    continue
                if mark.kind == "footer":
                    self._check_footer(mark)
                elif mark.kind == "begin":
                    self.continues = mark.continues
                elif disconnect_pending:
                    received_ns = mark.received_ns
                    disconnect_pending = False
                    yield self._disconnect(received_ns)
                continue
            if disconnect_pending and received_ns is not None:
                yield self._disconnect(received_ns)
            disconnect_pending = False
            next_offset = self._offset + sum(map(len, item)) + len(item)
            last = len(item) - 1
            if next_offset > self._text_bytes and not is_one_json_text(item[last][STAMP_LENGTH + 1 :]):
                raise self._error("the last line is torn", item, last)
            for index, line in enumerate(item):
                if line[:20] != second_prefix:
                    if not line:
                        # A lost connection, as of the last message, unless a mark behind this piece of text knows the moment.
                        disconnect_pending = index == last
                        if index < last and received_ns is not None:
                            yield self._disconnect(received_ns)
                        continue
                    second_ns = self._parse_second_ns(line, item, index)
                    second_prefix = line[:20]
                fraction = line[20:27]
                if not fraction.isdigit() or line[27:29] != b"Z ":
                    raise self._error(_NOT_A_LINE, item, index)
                received_ns = second_ns + int(fraction) * 100
                yield Frame(venue, connection, received_ns, line[29:])
            self._lines += len(item)
            self._offset = next_offset
            self.last_received_ns = received_ns
            self.ends_disconnected = False
        if disconnect_pending and received_ns is not None:
            yield self._disconnect(received_ns)

    def _disconnect(self, received_ns: int) -> Frame:
        self.last_received_ns = received_ns
        self.ends_disconnected = True
        return Frame(self.venue, self.connection, received_ns, None)

    def _tallied(self) -> Iterator[bytes | Note]:
        """Pass the pieces of the file on, adding up what the footer will be compared with."""
        for item in read_text(self.path, whole_frames=self._native):
            if not isinstance(item, Note):
                self._text_bytes += len(item)
                if self._native:
                    self._crc32 = zlib.crc32(item, self._crc32)
            yield item

    def _decode_mark(self, note: Note) -> Mark | None:
        if not self._native:
            return None
        try:
            mark = MARK_DECODER.decode(note.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._error(f"a damaged mark: {error}") from error
        if mark.liqmon != FORMAT_VERSION:
            raise self._error(f"written in version {mark.liqmon} of the format; this reads version {FORMAT_VERSION}")
        if mark.kind != "footer":
            self._crc32 = zlib.crc32(note.content, self._crc32)
        return mark

    def _check_footer(self, footer: Mark) -> None:
        found = (self._lines, self._text_bytes, self._crc32)
        told = (footer.lines, footer.bytes, footer.crc32)
        if found != told or self._closed:
            raise self._error(f"the footer tells of {told} lines, bytes and CRC-32, but the text has {found}")
        self._closed = True
        self.skipped = footer.skipped

    def _parse_second_ns(self, line: bytes, batch: list[bytes], index: int) -> int:
        try:
            if not _SECOND_PREFIX.match(line):
                raise ValueError  # noqa: TRY301 - the same answer for a wrong shape and a date that does not exist
            second = (datetime.fromisoformat(line[:19].decode() + "Z") - _EPOCH) // timedelta(seconds=1)
        except ValueError:
            raise self._error(_NOT_A_LINE, batch, index) from None
        return second * 1_000_000_000

    def _error(self, reason: str, batch: Sequence[bytes] = (), index: int = 0) -> RecordingError:
        before = batch[:index]
        return RecordingError(self.path, self._lines + index + 1, self._offset + sum(map(len, before)) + len(before), reason)


def read_recording(path: Path, venue: str | None = None, connection: str | None = None) -> RecordingReader:
    """Read one file of a recording, or a tardis.dev raw file.

    Args:
        path: The file. If it is named like a recording, it must have the recorder's marks, else it is read as a tardis.dev file.
        venue: The venue; taken from the file name if that tells it.
        connection: The connection; taken from the file name, or ``main``.

    Returns:
        An iterator over the frames that also tells, when it is exhausted, whether the file was whole.

    Raises:
        RecordingError: at once when the venue is not known; while iterating when the file is torn, damaged or of another format.
    """
    return RecordingReader(path, venue, connection)


def read_merged(paths: Sequence[Path]) -> Iterator[Frame]:
    """Yield the frames of several recordings in the order in which they arrived, holding one piece of each file at a time.

    The order is (received_ns, connection, venue, line), so it does not depend on the order of ``paths``. Where the files of one
    connection do not join (the recorder was stopped or crashed and then started again), a frame without payload says so.

    Raises:
        RecordingError: see :func:`read_recording`.
    """
    chains: dict[tuple[str, str], list[RecordingReader]] = {}
    for path in sorted(set(paths), key=_file_order):
        reader = read_recording(path)
        chains.setdefault((reader.connection, reader.venue), []).append(reader)
    streams = [_joined(chains[key]) for key in sorted(chains)]
    # Equal stamps come out in the order of the streams, which is why those are sorted.
    return heapq.merge(*streams, key=operator.attrgetter("received_ns"))


def _file_order(path: Path) -> tuple[str, int, str]:
    name = RECORDING_NAME.fullmatch(path.name)
    return (name["hour"], int(name["part"] or 0), path.name) if name else ("", 0, path.name)


def _joined(readers: list[RecordingReader]) -> Iterator[Frame]:
    """Yield the files of one connection one after another, with a lost connection wherever the next does not continue the last."""
    before: RecordingReader | None = None
    for reader in readers:
        for frame in reader:
            if before is not None and not (reader.continues or before.ends_disconnected) and before.connection != REST_CONNECTION:
                yield Frame(before.venue, before.connection, before.last_received_ns or 0, None)
            before = None
            yield frame
            break
        yield from reader
        if reader.last_received_ns is not None:
            before = reader
