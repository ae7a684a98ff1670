"""The published schemas against what is really written."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from monitor.projection import encode_market
from monitor.schema import FOLDER, SCHEMAS, encode_schema, projection_schema, summary_schema, write_schemas
from monitor.summary import ReplaySummary, encode_summary, summarise_market
from tests.monitor.full_market import market_projection


def projection_line(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode_market(market_projection(**changes)))
    return document


def valid(schema: dict[str, Any], document: object) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(document)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_schema_is_the_generated_one(name: str) -> None:
    expected = encode_schema(SCHEMAS[name]())
    assert (FOLDER / name).read_bytes() == expected, "run `python -m monitor.schema` and review the difference"


def test_all_committed_schemas_are_generated(tmp_path: Any) -> None:
    write_schemas(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.glob("*.json")} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads((FOLDER / name).read_bytes()))


def test_the_required_fields_of_a_projection_are_those_that_are_written() -> None:
    assert set(projection_schema()["required"]) == set(projection_line()) == set(projection_schema()["properties"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cascade_down": None, "clusters": (), "feeds": ()},
        {"reference_price": None, "reference_source": "none", "stale": True, "stale_reasons": ("book: never received",)},
    ],
    ids=["everything known", "nothing to show", "stale"],
)
def test_real_lines_follow_the_schema(changes: dict[str, Any]) -> None:
    assert valid(projection_schema(), projection_line(**changes))


def test_a_line_without_any_one_required_field_is_refused() -> None:
    schema = projection_schema()
    for name in schema["required"]:
        line = projection_line()
        del line[name]
        assert not valid(schema, line), name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("stale",), None),
        (("observed_long_base",), None),
        (("provenance",), "guessed"),
        (("as_of_ns",), 1.5),
        (("clusters", 0, "side"), "buy"),
        (("clusters", 0, "price"), None),
        (("cascade", "down", "landing", 0, "book_exhausted"), "no"),
        (("cascade", "down", "barrier", 0, "volume_base"), None),
        (("cascade", "down"), []),
    ],
)
def test_lines_with_a_wrong_value_are_refused(path: tuple[str | int, ...], value: object) -> None:
    line = projection_line()
    target: Any = line
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    assert not valid(projection_schema(), line)


def test_a_number_that_became_infinite_does_not_pass_as_known() -> None:
    assert not valid(projection_schema(), projection_line(observed_long_base=float("inf")))


def test_readers_of_today_accept_fields_of_tomorrow() -> None:
    line = projection_line()
    line["new_field"] = 1
    line["clusters"][0]["new_field"] = 1
    line["cascade"]["sideways"] = None
    assert valid(projection_schema(), line)


def test_a_summary_follows_its_schema_and_needs_every_field() -> None:
    summary = ReplaySummary(10, 8, {"malformed": 2}, 1, 0.5, 0.25, 40.0, 3, "0" * 64, (summarise_market(market_projection()),))
    document = json.loads(encode_summary(summary))
    schema = summary_schema()
    assert valid(schema, document)
    for name in schema["required"]:
        assert not valid(schema, {key: value for key, value in document.items() if key != name}), name
    for wrong in ({"frames": -1}, {"projections_sha256": "abc"}, {"parse_errors": {"malformed": "2"}}, {"markets": None}):
        assert not valid(schema, {**copy.deepcopy(document), **wrong}), wrong
