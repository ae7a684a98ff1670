"""Every field of the config file made wrong, alone and together, and texts of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.config import ConfigError, parse_config
from monitor.config_problems import dotted
from tests.monitor.test_config import VENUE, problems_of


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def rendered(document: dict[str, Any]) -> str:
    """Write the document as TOML with one dotted key a line."""

    def flat(table: dict[str, Any], prefix: str = "") -> list[str]:
        lines = []
        for key, value in table.items():
            if isinstance(value, dict) and value:
                lines += flat(value, f"{prefix}{json.dumps(key)}.")
            elif value is not None:
                text = "{}" if value == {} else json.dumps(value)
                lines.append(f"{prefix}{json.dumps(key)} = {text}")
        return lines

    lists = {key: value for key, value in document.items() if key in {"venues", "sinks", "account_feeds"}}
    lines = flat({key: value for key, value in document.items() if key not in lists})
    for key, tables in lists.items():
        for table in tables:
            lines += [f"[[{key}]]", *flat(table)]
    return "\n".join(lines) + "\n"


def full_document() -> dict[str, Any]:
    """Every field there is, with a valid value."""
    feeds = "".join(
        f'[[account_feeds]]\nname = "feed-{number}"\nvenue = "desk"\nsymbols = ["BTC-PERP"]\nsource = {{{source}}}\n'
        for number, source in enumerate(
            ('type = "file", path = "a"', 'type = "mqtt", host = "x"', 'type = "websocket", url = "ws://x"'),
        )
    )
    text = (
        VENUE
        + feeds
        + '[[sinks]]\ntype = "stdout"\n[[sinks]]\ntype = "mqtt"\nhost = "x"\n[[sinks]]\ntype = "webhook"\nurl_env = "URL"\n'
    )
    document: dict[str, Any] = json.loads(parse_config(text, Path("/tmp")).model_dump_json())
    return document


def mutated(paths: list[tuple[str | int, ...]], value: object) -> str:
    document = full_document()
    for path in paths:
        table: Any = document
        for step in path[:-1]:
            table = table[step]
        table[path[-1]] = value
    return rendered(document)


# Unions are told apart by ``type``, so a wrong one hides the rest of its sink.
LEAVES = [path for path in leaves(full_document()) if path[-1] != "type"]


def test_the_full_document_is_valid_and_has_every_field() -> None:
    assert len(LEAVES) > 60
    parse_config(rendered(full_document()), Path("/tmp"))


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)))
def test_every_field_refuses_a_value_of_another_kind_and_a_misspelling(path: tuple[str | int, ...]) -> None:
    text = mutated([path], [[1]])
    assert any(problem.key.startswith(dotted(path)) and problem.line for problem in problems_of(text)), problems_of(text)
    misspelt = (*path[:-1], f"{path[-1]}x")
    assert any(problem.key == dotted(misspelt) for problem in problems_of(mutated([misspelt], 1)))


def test_all_fields_wrong_at_once_are_all_listed() -> None:
    keys = {problem.key for problem in problems_of(mutated(LEAVES, [[1]]))}
    missing = [dotted(path) for path in LEAVES if not any(key.startswith(dotted(path)) for key in keys)]
    assert missing == []


SCRAPS = st.sampled_from(
    """\
[http]
[[venues]]
[[sinks]]
[[account_feeds]]
[account_feeds.source]
source = {type = "file"}
venue = "desk"
path = "a"
node_directory = "b"
[a.b]
[rules.low_barrier]
name = "binance"
symbols = ["X"]
symbols = {}
port = 1
x = nan
type = "mqtt"
multiple = -1
venues = 1
rules.markets = []
rules.markets."a/b" = 1
sinks = [1, {}]
recording = 1
"" = ""
#
""".splitlines(keepends=True)
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(SCRAPS, max_size=12).map("".join)
    | st.text(max_size=60)
    | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
)
def test_any_text_gives_a_config_or_a_config_error(text: str) -> None:
    try:
        parse_config(text, Path("/nonexistent"), {})
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message for problem in problems)
    assert all(problem.line is None or 1 <= problem.line <= text.count("\n") + 1 for problem in problems)
