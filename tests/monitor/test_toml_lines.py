"""Where keys are found in a TOML text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.toml_lines import TomlPath, key_lines, line_of

PLAIN = """\
instance = "desk-1"

[http]
port = 8080   # a comment with = and [brackets]
log.level = "info"

[[venues]]
name = "hyperliquid"
symbols = [
  "BTC",  # first
  "ETH", "SOL",
]

[[venues]]
name = "binance"
limits = { weight = 1, "per minute" = [1, 2] }
"""


def test_tables_arrays_of_tables_and_dotted_keys_are_found_at_their_lines() -> None:
    expected: dict[TomlPath, int] = {
        ("instance",): 1,
        ("http",): 3,
        ("http", "port"): 4,
        ("http", "log"): 5,
        ("http", "log", "level"): 5,
        ("venues",): 7,
        ("venues", 0): 7,
        ("venues", 0, "name"): 8,
        ("venues", 0, "symbols"): 9,
        ("venues", 0, "symbols", 0): 10,
        ("venues", 0, "symbols", 1): 11,
        ("venues", 0, "symbols", 2): 11,
        ("venues", 1): 14,
        ("venues", 1, "name"): 15,
        ("venues", 1, "limits"): 16,
        ("venues", 1, "limits", "weight"): 16,
        ("venues", 1, "limits", "per minute"): 16,
        ("venues", 1, "limits", "per minute", 0): 16,
        ("venues", 1, "limits", "per minute", 1): 16,
    }
    assert key_lines(PLAIN) == expected


TRICKY = {
    "strings that look like structure": 'a = "[x] = # \\" {"\nb = \'[[y]] #\'\nc = 3\n',
    "keys and brackets in multi-line strings": 'a = """\n[x]\ny = "" 1\n\\""" \n"""\nb = \'\'\'\n[z]\n\'\'\'\nc = 1\n',
    "multi-line strings that end in quotes": 'a = """q"""""\nb = \'\'\'q\'\'\'\'\nc = 1\n',
    "empty strings": "a = \"\"\nb = ''\nc = 1",
    "quoted and dotted keys with spaces": '"a.b" . c = 1\n\'d e\'.f = 2\n["g\\u0041".h]\ni = 3\n',
    "an escaped key": '"\\t\\"x" = 1\ny = 2\n',
    "sub-tables of arrays of tables": "[[a]]\nx = 1\n[a.b]\ny = 2\n[[a.c]]\nz = 3\n[[a.c]]\nz = 4\n[[a]]\n[[a.c]]\nz = 5\n",
    "a table defined after its child": "[a.b]\nx = 1\n[a]\ny = 2\n",
    "nested arrays with comments and trailing commas": "a = [ # one\n [1, 2], # ]\n [ ], [\n3,\n],\n]\nb = 1\n",
    "inline tables in arrays": 'a = [{x = 1}, {y = {z = [2, "}"]}}, {}]\nb = 1\n',
    "dates, floats and booleans": "a = 1979-05-27 07:32:00\nb = [1979-05-27T07:32:00Z, 1e3]\nc = true\nd = -inf # x\n",
    "windows line ends": "a = 1\r\n[b]\r\nc = [\r\n1,\r\n2]\r\n",
    "tabs and a comment at the end": "\t[ a ]\t# x\n\tb\t=\t1\t# y",
    "nothing": "",
    "only comments": "# a = 1\n\n# [b]",
}


def paths(value: object, at: TomlPath = ()) -> Iterator[TomlPath]:
    if at:
        yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*at, index))


@pytest.mark.parametrize("text", TRICKY.values(), ids=TRICKY.keys())
def test_every_key_that_the_parser_sees_has_a_line(text: str) -> None:
    assert set(key_lines(text)) == set(paths(tomllib.loads(text)))


def test_lines_after_a_tricky_value_are_right() -> None:
    assert key_lines(TRICKY["keys and brackets in multi-line strings"])[("c",)] == 9
    assert key_lines(TRICKY["sub-tables of arrays of tables"])[("a", 1, "c", 0, "z")] == 11
    assert key_lines(TRICKY["nested arrays with comments and trailing commas"])[("a", 2, 0)] == 4
    assert key_lines(TRICKY["windows line ends"])[("b", "c", 1)] == 5


def test_a_missing_key_is_reported_at_the_table_that_lacks_it() -> None:
    lines = key_lines(PLAIN)
    assert line_of(lines, ("venues", 1, "symbols")) == 14
    assert line_of(lines, ("venues", 0, "symbols", 1)) == 11
    assert line_of(lines, ("http", "tls", "certificate")) == 3
    assert line_of(lines, ("projection", "interval_ms")) is None


LEAF = "leaf"
STRUCTURES = st.recursive(
    st.just(LEAF),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", '"c d"', "'e#='"]), inner, max_size=3),
    max_leaves=12,
)
NOISE = st.sampled_from(["", " ", "\n", "# [x] = {\n", "\n\n", "\r\n"])
DECOYS = st.sampled_from(['"# ]"', "'},'", '"""\n]\n"""', "'''\n= '' {\n'''", '"\\""'])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document in which every number is different, so that its line can also be found by a plain search."""
    counter = iter(range(1_000_001, 2_000_000))

    def render(structure: object) -> str:
        if isinstance(structure, list):
            items = "".join(f"{draw(NOISE)}{draw(DECOYS)},{draw(NOISE)}{render(item)}{draw(NOISE)}," for item in structure)
            return f"[{items}{draw(NOISE)}]"
        if isinstance(structure, dict):
            return "{" + ", ".join(f"{key} = {render(item)}" for key, item in structure.items()) + "}"
        return str(next(counter))

    parts = []
    for number in range(draw(st.integers(0, 4))):
        header = draw(st.sampled_from([f"[t{number}]", f"[t{number}.u]", "[[rows]]", f"[[t{number}.'v w']]"]))
        parts.append(f"{draw(NOISE)}\n{header}  # here\n")
        for key, structure in draw(st.dictionaries(st.sampled_from(["k", "l.m", "'n o'.p"]), STRUCTURES, max_size=3)).items():
            parts.append(f"{key} = {render(structure)}\n")
    return "".join(parts)


@given(documents())
def test_the_line_of_every_number_is_where_a_search_finds_it(text: str) -> None:
    document = tomllib.loads(text)
    lines = key_lines(text)
    assert set(lines) == set(paths(document))
    for path in paths(document):
        value: object = document
        for step in path:
            value = value[step]  # type: ignore[index]
        if isinstance(value, int):
            offset = text.index(str(value))
            assert lines[path] == text.count("\n", 0, offset) + 1
