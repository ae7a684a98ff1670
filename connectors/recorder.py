"""Frames into files.

A recording is a directory of files, one per venue, connection and hour: ``<venue>.<connection>.<YYYY-MM-DDTHH>.zst``, where
the second file of the same hour (after a restart) has ``.1`` before the suffix. The text inside is that of tardis.dev raw files
(venues.md 8.1): lines of a 28-character UTC time with seven fractional digits, a space and the raw JSON; an empty line is a lost
connection.

* Every zstd frame holds whole lines, carries a checksum and is written in one piece, so a crash loses at most the last
  ``FLUSH_BYTES`` or ``FLUSH_AGE_NS`` of a connection.
* An open file is called ``.partial`` and renamed when closed. Only a closed file has a footer: the number of lines and bytes and a
  CRC-32 of all that stands before it. Footers and the other marks are zstd skippable frames, which ordinary zstd tools and tardis
  readers pass over. A mark at the start of a file says whether it continues the hour before without a hole; one behind an empty
  line says when the connection was lost.
* A payload that is not JSON in UTF-8 (a greeting, a torn message) would break every reader of the format, so it is counted and left
  out; the footer says how many were. JSON that is spread over several lines is written on one, without changing any number's text.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import zstandard

from connectors.compressed import encode_note
from connectors.frames import Frame

FLUSH_BYTES: Final = 1024 * 1024
"""Text held back per file. Level 3 makes about 250 kB of it in 4 ms, and 64 files hold 64 MiB at most."""

FLUSH_AGE_NS: Final = 5_000_000_000
"""Age of the oldest line held back, by the frames' own stamps: what a crash may cost."""

LATE_NS: Final = 60 * 1_000_000_000
"""A frame stamped up to a minute before its file's hour still goes there: a small step of the clock opens no file."""

MAX_OPEN_FILES: Final = 64
"""Eight venues with eight connections each."""

MAX_FILES_PER_HOUR: Final = 1000
"""A restart every 3.6 s for an hour."""

RECORDING_NAME: Final = re.compile(
    r"(?P<venue>[A-Za-z0-9_-]+)\.(?P<connection>[A-Za-z0-9_-]+)\.(?P<hour>\d{4}-\d\d-\d\dT\d\d)(\.(?P<part>\d+))?\.zst(?P<partial>\.partial)?"
)
"""The names of recordings; other files in the directory are none of ours."""

_NAME_PART = re.compile(r"[A-Za-z0-9_-]+")
_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _SECOND_NS
_JSON_TEXT = msgspec.json.Decoder(msgspec.Raw)

FORMAT_VERSION: Final = 1


class RecorderError(Exception):
    """Recording has stopped (disk full, no permission, too many files); the files written so far stay readable."""


class Mark(msgspec.Struct, omit_defaults=True):
    """What the skippable frames of a recording say; ``liqmon`` is the version of the format."""

    liqmon: int
    kind: Literal["begin", "disconnect", "footer"]
    continues: bool = False
    received_ns: int = 0
    lines: int = 0
    bytes: int = 0
    """Of text, decompressed."""
    crc32: int = 0
    """Over the text and the contents of the marks, in their order."""
    skipped: int = 0


MARK_DECODER: Final = msgspec.json.Decoder(Mark)


def is_one_json_text(payload: bytes) -> bool:
    """Tell whether ``payload`` is valid JSON in valid UTF-8, at a quarter of the price of decoding it."""
    try:
        _JSON_TEXT.decode(payload)
        return payload.isascii() or bool(payload.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _OpenFile:
    """One ``.partial`` file and the lines that wait for it."""

    def __init__(self, directory: Path, venue: str, connection: str, hour: int, *, compressor: zstandard.ZstdCompressor) -> None:
        stamp = (datetime.fromtimestamp(hour * 3600, UTC)).strftime("%Y-%m-%dT%H")
        for part in range(MAX_FILES_PER_HOUR):
            name = f"{venue}.{connection}.{stamp}.zst" if part == 0 else f"{venue}.{connection}.{stamp}.{part}.zst"
            self.path = directory / name
            self.partial_path = directory / f"{name}.partial"
            if self.path.exists():
                continue
            try:
                self._file = self.partial_path.open("xb", buffering=0)
            except FileExistsError:
                continue
            if not self.path.exists():
                break
            # Another recorder finished its file of this name between the two looks.
            self._file.close()
            self.partial_path.unlink()
        else:
            raise RecorderError(f"{directory} holds {MAX_FILES_PER_HOUR} files {venue}.{connection}.{stamp} already")
        self.hour = hour
        self.skipped = 0
        self.pending_bytes = 0
        self.oldest_ns = 0
        self._pending: list[bytes] = []
        self._lines = 0
        self._bytes = 0
        self._crc32 = 0
        self._good_offset = 0
        self._second = -1
        self._prefix = b""
        self._compressor = compressor

    def add(self, received_ns: int, payload: bytes) -> None:
        second, fraction = divmod(received_ns, _SECOND_NS)
        if second != self._second:
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()
            self._second = second
        line = b"%b%07dZ %b\n" % (self._prefix, fraction // 100, payload)
        if not self._pending:
            self.oldest_ns = received_ns
        self._pending.append(line)
        self.pending_bytes += len(line)

    def add_disconnect(self, received_ns: int) -> None:
        self._pending.append(b"\n")
        self.flush(Mark(liqmon=FORMAT_VERSION, kind="disconnect", received_ns=received_ns))

    def flush(self, mark: Mark | None = None) -> None:
        """Write what is pending as one zstd frame, and ``mark`` behind it in the same piece."""
        text = b"".join(self._pending)
        note = b"" if mark is None else msgspec.json.encode(mark)
        lines = len(self._pending)
        self._pending.clear()
        self.pending_bytes = 0
        self._write((self._compressor.compress(text) if text else b"") + (encode_note(note) if note else b""))
        self._lines += lines
        self._bytes += len(text)
        self._crc32 = zlib.crc32(note, zlib.crc32(text, self._crc32))

    def close(self) -> None:
        """Write the footer, make the file durable and give it its final name."""
        self.flush()
        footer = Mark(
            liqmon=FORMAT_VERSION,
            kind="footer",
            lines=self._lines,
            bytes=self._bytes,
            crc32=self._crc32,
            skipped=self.skipped,
        )
        self._write(encode_note(msgspec.json.encode(footer)))
        os.fsync(self._file.fileno())
        self._file.close()
        self.partial_path.rename(self.path)

    def abandon(self) -> None:
        """Cut the file back to its last whole frame, which needs no space, and leave it ``.partial``."""
        self._pending.clear()
        if not self._file.closed:
            # If even this fails, the torn tail stays; readers of a ``.partial`` file stop before it.
            with contextlib.suppress(OSError):
                self._file.truncate(self._good_offset)
            with contextlib.suppress(OSError):
                self._file.close()

    def _write(self, data: bytes) -> None:
        """Write all of ``data``; a full disk accepts a part and refuses the rest."""
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._good_offset += len(data)


class Recorder:
    """Writes frames into ``directory``, synchronously; a write costs about 2 us, a flush of a mebibyte some milliseconds.

    After any :class:`RecorderError` the recorder has let go of all its files and stays stopped; the caller may go on without it and
    make a new one when there is space again. What the old one left is readable, and the hole between the two shows as a lost
    connection.

    Attributes:
        frames_written_total: Frames taken, disconnects included; the last ones may not be on disk before :meth:`flush`.
        frames_skipped_total: Frames left out because their payload is not JSON.
    """

    def __init__(self, directory: Path, *, fresh: bool = False) -> None:
        """Open a recording.

        Args:
            directory: Where the files go; made when missing.
            fresh: Refuse a directory that holds a recording already, instead of adding to it.

        Raises:
            RecorderError: the directory cannot be made, or is not empty although ``fresh``.
        """
        self.frames_written_total = 0
        self.frames_skipped_total = 0
        self._directory = directory
        self._files: dict[tuple[str, str], _OpenFile] = {}
        self._begun: set[tuple[str, str]] = set()
        self._stopped: str | None = None
        self._next_age_check_ns = 0
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            taken = next((path for path in directory.iterdir() if RECORDING_NAME.fullmatch(path.name)), None) if fresh else None
        except OSError as error:
            raise RecorderError(f"cannot record into {directory}: {error.strerror}") from error
        if taken is not None:
            raise RecorderError(f"{directory} holds a recording already: {taken.name}")

    def write(self, frame: Frame) -> None:
        """Take one frame; it is on disk after ``FLUSH_BYTES``, ``FLUSH_AGE_NS`` of newer frames, or :meth:`flush`.

        ``received_ns`` is kept to 100 ns.

        Raises:
            RecorderError: the recorder has stopped, now or earlier.
            ValueError: the frame's names do not fit into a file name, or its stamp lies outside of the years 1970 to 9999.
        """
        if self._stopped is not None:
            raise RecorderError(self._stopped)
        received_ns = frame.received_ns
        payload = frame.payload
        try:
            file = self._files.get((frame.venue, frame.connection))
            if file is None or not -LATE_NS <= received_ns - file.hour * _HOUR_NS < _HOUR_NS:
                file = self._next_file(frame)
            if payload is None:
                file.add_disconnect(received_ns)
            elif is_one_json_text(payload):
                if b"\n" in payload or b"\r" in payload:
                    # Raw line breaks are not allowed inside of JSON strings, so these are layout.
                    payload = msgspec.json.format(payload, indent=-1)
                file.add(received_ns, payload)
                if file.pending_bytes >= FLUSH_BYTES:
                    file.flush()
            else:
                file.skipped += 1
                self.frames_skipped_total += 1
                return
            self.frames_written_total += 1
            if not -FLUSH_AGE_NS < received_ns - self._next_age_check_ns < 0:
                self._flush_aged(received_ns)
        except OSError as error:
            raise self._stop(f"cannot write to {self._directory}: {error.strerror or error}") from error

    def flush(self) -> None:
        """Write out all lines held back.

        Raises:
            RecorderError: see :meth:`write`.
        """
        if self._stopped is not None:
            raise RecorderError(self._stopped)
        try:
            for file in self._files.values():
                file.flush()
        except OSError as error:
            raise self._stop(f"cannot write to {self._directory}: {error.strerror or error}") from error

    def close(self) -> None:
        """Finish and rename all files; does nothing on a recorder that was closed or has stopped.

        Raises:
            RecorderError: a file could not be finished; the others of this recorder are left ``.partial`` too.
        """
        if self._stopped is not None:
            return
        try:
            for key in list(self._files):
                self._files[key].close()
                del self._files[key]
        except OSError as error:
            raise self._stop(f"cannot finish {self._directory}: {error.strerror or error}") from error
        self._stopped = "the recorder is closed"

    def _next_file(self, frame: Frame) -> _OpenFile:
        """Close the file of a past hour, if there is one, and open the one that ``frame`` belongs to."""
        for name in (frame.venue, frame.connection):
            if not _NAME_PART.fullmatch(name):
                raise ValueError(f"{name!r} cannot be part of a recording's file name")
        if not 0 <= frame.received_ns < 253_402_300_800 * _SECOND_NS:
            raise ValueError(f"a frame cannot be stamped {frame.received_ns} ns")
        key = (frame.venue, frame.connection)
        if key in self._files:
            self._files[key].close()
            del self._files[key]
        if len(self._files) >= MAX_OPEN_FILES:
            raise self._stop(f"more than {MAX_OPEN_FILES} connections to record")
        file = _OpenFile(self._directory, *key, frame.received_ns // _HOUR_NS, compressor=self._compressor)
        file.flush(Mark(liqmon=FORMAT_VERSION, kind="begin", continues=key in self._begun))
        self._begun.add(key)
        self._files[key] = file
        return file

    def _flush_aged(self, now_ns: int) -> None:
        """Flush files whose oldest line is too old, and finish those whose hour is over though nothing newer came."""
        self._next_age_check_ns = now_ns + FLUSH_AGE_NS // 5
        for key, file in list(self._files.items()):
            if now_ns >= (file.hour + 1) * _HOUR_NS + LATE_NS:
                file.close()
                del self._files[key]
            elif file.pending_bytes and not 0 <= now_ns - file.oldest_ns < FLUSH_AGE_NS * 4 // 5:
                file.flush()

    def _stop(self, reason: str) -> RecorderError:
        self._stopped = reason
        for file in self._files.values():
            file.abandon()
        self._files.clear()
        return RecorderError(reason)
