"""Text out of compressed files."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from connectors.compressed import ContainerError, Note, encode_note, read_text, split_lines


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


def test_a_bomb_comes_in_pieces_that_fit_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    with path.open("wb") as file:
        for _ in range(128):
            file.write(compressor.compress(bytes(1024 * 1024)))
        file.write(compressor.flush())
    assert path.stat().st_size < 8 * 1024
    sizes = [len(piece) for piece in read_text(path) if isinstance(piece, bytes)]
    assert sum(sizes) == 128 * 1024 * 1024
    assert max(sizes) <= 33 * 1024 * 1024
