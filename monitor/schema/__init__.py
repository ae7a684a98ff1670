"""JSON Schemas (2020-12) of what a replay writes, for those who read its output with other tools.

They are generated from the structs that are encoded, so they cannot drift: the files beside this module are rewritten by
``python -m monitor.schema``, and a test fails while they differ. Fields may be added to the output at any time, so objects allow
more than is listed; a listed field never goes away or changes its meaning without a new major version.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec

from monitor.projection import MarketProjection
from monitor.summary import ReplaySummary

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent


def projection_schema() -> dict[str, Any]:
    """Return the schema of one line of ``--projections``, as :func:`~monitor.projection.encode_market` writes it."""
    schema = _document(MarketProjection, "projection", "One market at one moment: one line of `liqmon replay --projections`.")
    # The encoder leaves the histogram to the API and gathers the two directions under one name; do here what it does there.
    properties = schema["properties"]
    directions = {"down": properties.pop("cascade_down"), "up": properties.pop("cascade_up")}
    properties.pop("histogram")
    schema["$defs"].pop("Histogram")
    properties["cascade"] = {
        "type": "object",
        "description": "What it takes to move the price, and how far it runs; a direction is null while it cannot be computed.",
        "properties": directions,
        "required": list(directions),
        "additionalProperties": True,
    }
    gone = {"cascade_down", "cascade_up", "histogram"}
    schema["required"] = [name for name in schema["required"] if name not in gone] + ["cascade"]
    return schema


def summary_schema() -> dict[str, Any]:
    """Return the schema of ``--summary``."""
    return _document(ReplaySummary, "summary", "The end of a replay: the output of `liqmon replay --summary`.")


SCHEMAS = {"projection.schema.json": projection_schema, "summary.schema.json": summary_schema}
"""Each committed file and what generates it."""


def encode_schema(schema: dict[str, Any]) -> bytes:
    """Return the text of a schema file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def write_schemas(folder: Path) -> None:
    """Write all schema files into ``folder``."""
    for name, generate in SCHEMAS.items():
        (folder / name).write_bytes(encode_schema(generate()))


def _document(struct: type[msgspec.Struct], name: str, description: str) -> dict[str, Any]:
    """Make the schema of ``struct`` a document of its own, with the structs in it as definitions."""
    _, components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    root = components.pop(struct.__name__)
    for component in [root, *components.values()]:
        component["additionalProperties"] = True
        component["description"] = _plain(component.get("description", ""))
        component["properties"] = {key: _compact(value) for key, value in component["properties"].items()}
    return {
        "$schema": DIALECT,
        "$id": f"urn:liqmon:schema:{name}:v1",
        "title": name.capitalize(),
        "description": description,
        "type": root["type"],
        "properties": root["properties"],
        "required": root["required"],
        "additionalProperties": True,
        "$defs": components,
    }


def _compact(value: dict[str, Any]) -> dict[str, Any]:
    """Write "a number or null" in one line."""
    kinds = value.get("anyOf", [])
    if kinds and all(set(kind) == {"type"} for kind in kinds):
        return {"type": [kind["type"] for kind in kinds]}
    return value


def _plain(docstring: str) -> str:
    """Turn a docstring into a text for readers of JSON: one line, without markup."""
    text = " ".join(inspect.cleandoc(docstring).split())
    text = re.sub(r":class:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return text.replace("``", "`").replace("`None`", "`null`")
