"""The JSON Schema (2020-12) of account feeds, for those who write one.

It is generated from the structs that decode the feed, so it cannot drift: ``connectors/schema/account-feed.json`` is rewritten by
``python -m connectors.account_feed_schema``, and a test fails while the two differ. What it accepts is accepted by the daemon, but
for what a schema cannot compare: items of one list with each other (the same position twice, one-way and hedge mode in one market,
tiers that do not rise). Integers are written as integers, ``1`` and not ``1.0``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.account_feed_wire import Message, ResyncMessage

PATH: Final = Path(__file__).parent / "schema" / "account-feed.json"

_NOT_ZERO: Final = {"not": {"const": 0}}


def account_feed_schema() -> dict[str, Any]:
    """Return the schema of one line of a feed; ``$defs/ResyncMessage`` is that of what the daemon sends."""
    (root, _), components = msgspec.json.schema_components([Message, ResyncMessage], ref_template="#/$defs/{name}")
    for name, rules in _rules().items():
        components[name]["allOf"] = rules
    # What a list in a snapshot may not hold, although the same list in a delta may.
    for field, item, quantity in (("positions", "Position", "size"), ("holdings", "Holding", "quantity")):
        components["SnapshotMessage"]["properties"][field]["items"] = {
            "allOf": [{"$ref": f"#/$defs/{item}"}, {"properties": {quantity: _NOT_ZERO}}]
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:liqmon:schema:account-feed:v1",
        "title": "Account feed",
        "description": "One line of a private account feed; docs/account-feeds.md says what the fields mean.",
        "anyOf": root["anyOf"],
        "$defs": components,
    }


def _rules() -> dict[str, list[dict[str, Any]]]:
    """Return by struct what its fields say of each other; ``account_feed_rules`` checks the same in code."""
    given = {"not": {"type": "null"}}
    return {
        "Position": [
            _when({"position_side": {"const": "long"}}, {"size": {"minimum": 0}}),
            _when({"position_side": {"const": "short"}}, {"size": {"maximum": 0}}),
            _when({"contract": {"const": "inverse"}}, {"isolated_cash_usd": {"type": "null"}}),
            _when({"contract": {"const": "inverse"}, "size": _NOT_ZERO}, {"entry_price": given}, required=["entry_price"]),
        ],
        "MarketRules": [
            {
                "if": {"properties": {"contract": {"const": "asset"}}},
                "then": {"properties": {"tiers": {"maxItems": 0}}},
                "else": {"properties": {"collateral_ratio": {"type": "null"}, "e_mode_ratios": {"maxItems": 0}}},
            }
        ],
    }


def _when(condition: dict[str, Any], consequence: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    """Return the rule that ``consequence`` holds for the fields of an object whose fields are all there and as in ``condition``."""
    then: dict[str, Any] = {"properties": consequence}
    if required:
        then["required"] = required
    return {"if": {"properties": condition, "required": list(condition)}, "then": then}


def encode_schema() -> bytes:
    """Return the text of the schema file."""
    return msgspec.json.format(msgspec.json.encode(account_feed_schema()), indent=2) + b"\n"


def write_schema(path: Path = PATH) -> None:
    """Write the schema file."""
    path.write_bytes(encode_schema())


if __name__ == "__main__":
    write_schema()
