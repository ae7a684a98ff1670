"""Cutting a stream into lines."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from connectors.account_lines import MAX_LINE_BYTES, LineSplitter


def test_lines_come_without_their_ends_and_blank_ones_not_at_all() -> None:
    splitter = LineSplitter()
    assert splitter.split(b'{"a":1}\r\n\n  \n{"b":2} \n{"c"') == [b'{"a":1}', b'{"b":2}']
    assert splitter.held_bytes == 4
    assert splitter.split(b":3}") == []
    assert splitter.split(b"\n") == [b'{"c":3}']
    assert splitter.held_bytes == 0


def test_a_line_that_is_too_long_is_told_once_and_held_never() -> None:
    splitter = LineSplitter(max_line_bytes=10)
    assert splitter.split(b"1234567890\n") == [b"1234567890"]
    assert splitter.split(b"12345678901\nnext\n") == [None, b"next"]
    assert splitter.split(b"123456") == []
    assert splitter.split(b"78901") == [None]
    for _ in range(1000):
        assert splitter.split(b"x" * 1000) == []
        assert splitter.held_bytes == 0
    assert splitter.split(b"the end of it\nshort\n") == [b"short"]
    assert splitter.oversized == 2


def test_a_line_that_has_begun_can_be_forgotten() -> None:
    splitter = LineSplitter()
    splitter.split(b'{"torn')
    splitter.reset()
    assert splitter.split(b'{"whole":1}\n') == [b'{"whole":1}']
    splitter = LineSplitter(max_line_bytes=3)
    splitter.split(b"12345")
    splitter.reset()
    assert splitter.split(b"678\n") == [b"678"]


def test_the_longest_line_fits_the_largest_message() -> None:
    assert LineSplitter().split(b"x" * MAX_LINE_BYTES + b"\n") == [b"x" * MAX_LINE_BYTES]
    assert LineSplitter().split(b"x" * (MAX_LINE_BYTES + 1) + b"\n") == [None]


@given(
    st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=8), st.lists(st.integers(0, 60), max_size=6)
)
def test_the_pieces_do_not_matter(lines: list[bytes], cuts: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole, pieces = LineSplitter(max_line_bytes=8), LineSplitter(max_line_bytes=8)
    expected = whole.split(text)
    found = [line for start, end in itertools.pairwise(bounds) for line in pieces.split(text[start:end])]
    assert found == expected
    assert pieces.oversized == whole.oversized == sum(len(line) > 8 for line in lines)
