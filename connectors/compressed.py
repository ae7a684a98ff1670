"""Text out of plain, gzip, zstd and lz4 files, in pieces of bounded size, with every torn or damaged tail noticed.

A torn zstd tail reads short without an error in most tools; here it is one. Zstd *skippable frames*, which ordinary readers jump
over, are handed out as notes, because recordings keep their footers in them.
"""

from __future__ import annotations

import gzip
import importlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
import zstandard

PLAIN_PIECE_BYTES: Final = 256 * 1024

COMPRESSED_PIECE_BYTES: Final = 1024
"""Compressed bytes taken at a time. A zstd block of 4 bytes can hold 128 KiB of one byte, so a bomb yields at most 32 MiB a piece
before the line limit stops it; honest market data about 8 kB."""

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""The largest real line is an instrument list of 3 MB."""

MAX_WHOLE_FRAME_BYTES: Final = 2 * MAX_LINE_BYTES
"""A recorder's frame is flushed as soon as it holds a mebibyte, so it holds that and one line at most."""

MAX_WINDOW_BYTES: Final = 128 * 1024 * 1024
"""What ``zstd --long=27`` needs."""

MAX_NOTE_BYTES: Final = 64 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_SIZE: Final = struct.Struct("<I")
_NOTE_MAGIC: Final = b"\x51\x2a\x4d\x18"
"""One of the sixteen magic numbers 0x184D2A50 to 0x184D2A5F that mark a frame which every zstd reader skips."""


class Note(msgspec.Struct, frozen=True):
    """The content of one of our zstd skippable frames; those of others are passed over."""

    content: bytes


class ContainerError(Exception):
    """A compressed file is damaged, or ends in the middle.

    Attributes:
        reason: What is wrong.
        torn: The file merely ends too early, as after a crash; nothing in it is contradictory.
        file_offset: The byte of the compressed file at which the damaged part starts.
    """

    def __init__(self, reason: str, *, file_offset: int, torn: bool) -> None:
        super().__init__(f"{reason} (at byte {file_offset} of the file)")
        self.reason = reason
        self.torn = torn
        self.file_offset = file_offset


def encode_note(content: bytes) -> bytes:
    """Return ``content`` as a zstd skippable frame."""
    if len(content) > MAX_NOTE_BYTES:
        raise ValueError(f"a note of {len(content)} bytes is too long")
    return _NOTE_MAGIC + _SIZE.pack(len(content)) + content


def read_text(path: Path, *, whole_frames: bool = False) -> Iterator[bytes | Note]:
    """Yield the text of ``path`` in order, whatever it is compressed with; the content decides, not the name.

    Args:
        path: The file.
        whole_frames: Take the file for zstd in any case, hold the text of each zstd frame back until its checksum was verified, and
            yield it in one piece.

    Raises:
        ContainerError: the file is torn or damaged; all text before that was yielded.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if whole_frames or _is_zstd(head):
            yield from _ZstdReader(file, whole_frames=whole_frames).items()
        elif head[:2] == _GZIP_MAGIC:
            yield from _read_gzip(file)
        elif head == _LZ4_MAGIC:
            yield from _read_lz4(file)
        else:
            while piece := file.read(PLAIN_PIECE_BYTES):
                yield piece


def split_lines(pieces: Iterator[bytes | Note]) -> Iterator[list[bytes] | Note]:
    """Cut text into lines without their line feeds; the last one may lack it.

    Raises:
        ContainerError: a line is longer than ``MAX_LINE_BYTES``; also what ``pieces`` raises.
    """
    tail: list[bytes] = []
    tail_bytes = 0
    for piece in pieces:
        if isinstance(piece, Note):
            yield piece
            continue
        head, separator, rest = piece.rpartition(b"\n")
        if not separator:
            tail.append(piece)
        else:
            tail.append(head)
            yield b"".join(tail).split(b"\n")
            tail = [rest]
            tail_bytes = 0
        tail_bytes += len(tail[-1])
        if tail_bytes > MAX_LINE_BYTES:
            raise ContainerError(f"a line is longer than {MAX_LINE_BYTES} bytes", file_offset=0, torn=False)
    if tail_bytes:
        yield [b"".join(tail)]


def _is_zstd(head: bytes) -> bool:
    return head == _ZSTD_MAGIC or (len(head) == 4 and head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50)


def _read_gzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        while True:
            try:
                piece = stream.read(PLAIN_PIECE_BYTES)
            except EOFError:
                raise ContainerError("the gzip stream ends in the middle", file_offset=file.tell(), torn=True) from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise ContainerError(f"damaged gzip stream: {error}", file_offset=file.tell(), torn=False) from error
            if not piece:
                return
            yield piece


def _read_lz4(file: BinaryIO) -> Iterator[bytes]:
    try:
        lz4_frame = importlib.import_module("lz4.frame")
    except ImportError:
        reason = "compressed with lz4, which needs the Python package lz4; or decompress it first with `lz4 -d`"
        raise ContainerError(reason, file_offset=0, torn=False) from None
    with cast("BinaryIO", lz4_frame.open(file, "rb")) as stream:
        while True:
            try:
                piece = stream.read(PLAIN_PIECE_BYTES)
            except EOFError:
                raise ContainerError("the lz4 stream ends in the middle", file_offset=file.tell(), torn=True) from None
            except RuntimeError as error:
                raise ContainerError(f"damaged lz4 stream: {error}", file_offset=file.tell(), torn=False) from error
            if not piece:
                return
            yield piece


class _ZstdReader:
    """Walks the frames of one zstd file."""

    def __init__(self, file: BinaryIO, *, whole_frames: bool) -> None:
        self._file = file
        self._whole_frames = whole_frames
        self._buffer = b""
        self._frame_offset = 0
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)

    def items(self) -> Iterator[bytes | Note]:
        while True:
            self._frame_offset = self._file.tell() - len(self._buffer)
            if not self._fill(4):
                if self._buffer:
                    raise self._torn()
                return
            magic = self._buffer[:4]
            if magic == _ZSTD_MAGIC:
                yield from self._text_frame()
            elif _is_zstd(magic):
                note = self._skippable_frame()
                if magic == _NOTE_MAGIC:
                    yield note
            else:
                raise self._damaged("neither a zstd frame nor the end of the file")

    def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            piece = self._file.read(COMPRESSED_PIECE_BYTES)
            if not piece:
                return False
            self._buffer += piece
        return True

    def _torn(self) -> ContainerError:
        return ContainerError("the last zstd frame is torn", file_offset=self._frame_offset, torn=True)

    def _damaged(self, reason: str) -> ContainerError:
        return ContainerError(reason, file_offset=self._frame_offset, torn=False)

    def _skippable_frame(self) -> Note:
        if not self._fill(8):
            raise self._torn()
        (size,) = _SIZE.unpack_from(self._buffer, 4)
        if size > MAX_NOTE_BYTES:
            raise self._damaged(f"a skippable frame of {size} bytes is too long")
        if not self._fill(8 + size):
            raise self._torn()
        content = self._buffer[8 : 8 + size]
        self._buffer = self._buffer[8 + size :]
        return Note(content)

    def _text_frame(self) -> Iterator[bytes]:
        """Yield the text of the frame at the start of the buffer; in one verified piece if that was asked for."""
        stream = self._decompressor.decompressobj()
        held: list[bytes] = []
        held_bytes = 0
        while True:
            if not self._buffer and not self._fill(1):
                raise self._torn()
            try:
                text = stream.decompress(self._buffer)
            except zstandard.ZstdError as error:
                raise self._damaged(f"damaged zstd frame: {error}") from error
            self._buffer = stream.unused_data if stream.eof else b""
            if self._whole_frames:
                held.append(text)
                held_bytes += len(text)
                if held_bytes > MAX_WHOLE_FRAME_BYTES:
                    raise self._damaged(f"a zstd frame holds more than {MAX_WHOLE_FRAME_BYTES} bytes")
            elif text:
                yield text
            if stream.eof:
                if held_bytes:
                    yield b"".join(held)
                return
