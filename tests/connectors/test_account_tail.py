"""A file that is appended to, truncated, rewritten and rotated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.account_tail import CHUNK_BYTES, Tail


def opened(path: Path) -> Tail:
    tail = Tail(path)
    tail.open()
    return tail


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"first\n")
    return path


def test_it_reads_from_the_beginning_and_then_what_is_appended(path: Path) -> None:
    tail = opened(path)
    assert [tail.read(), tail.read()] == [b"first\n", b""]
    append(path, b"sec")
    assert tail.read() == b"sec"
    append(path, b"ond\n")
    assert [tail.read(), tail.read()] == [b"ond\n", b""]
    assert tail.position == 13
    tail.close()


def test_a_long_file_comes_in_chunks(path: Path) -> None:
    path.write_bytes(b"x" * (CHUNK_BYTES + 5))
    tail = opened(path)
    assert [len(tail.read() or b"") for _ in range(3)] == [CHUNK_BYTES, 5, 0]
    tail.close()


def test_a_truncated_file_begins_again(path: Path) -> None:
    tail = opened(path)
    tail.read()
    path.write_bytes(b"")
    assert [tail.read(), tail.read()] == [None, b""]
    append(path, b"anew\n")
    assert tail.read() == b"anew\n"
    tail.close()


@pytest.mark.parametrize("text", [b"other\n", b"a much longer text than before\n"], ids=["as long", "longer"])
def test_a_file_that_was_written_anew_behind_our_back_begins_again(path: Path, text: bytes) -> None:
    tail = opened(path)
    tail.read()
    path.write_bytes(text)
    assert [tail.read(), tail.read(), tail.read()] == [None, text, b""]
    tail.close()


def test_what_was_appended_is_not_taken_for_a_change_however_it_came(path: Path) -> None:
    tail = opened(path)
    seen = tail.read()
    assert seen is not None
    for number in range(200):
        piece = b"%d," % number
        append(path, piece)
        read = tail.read()
        assert read == piece
        seen += read
    assert seen == path.read_bytes()
    tail.close()


def test_a_rotated_file_is_read_to_its_end_before_the_next(path: Path) -> None:
    tail = opened(path)
    tail.read()
    assert not tail.is_replaced()
    old = path.rename(path.with_suffix(".1"))
    assert not tail.is_replaced(), "the new one is not there yet, and the old one may still grow"
    append(old, b"last\n")
    path.write_bytes(b"of the next\n")
    assert tail.is_replaced()
    assert [tail.read(), tail.read()] == [b"last\n", b""]
    tail.close()
    after = opened(path)
    assert after.read() == b"of the next\n"
    assert not after.is_replaced()
    after.close()


def test_a_file_that_is_deleted_is_not_replaced_before_another_has_its_name(path: Path) -> None:
    tail = opened(path)
    tail.read()
    path.unlink()
    assert not tail.is_replaced()
    assert tail.read() == b""
    path.write_bytes(b"first\n")
    assert tail.is_replaced(), "the inode of an open file is not given away, so this is another one"
    tail.close()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tail(tmp_path / "nothing").open()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            Tail(path).open()


def test_closing_twice_or_before_opening_does_nothing(path: Path) -> None:
    Tail(path).close()
    tail = opened(path)
    tail.close()
    tail.close()
