"""The document that describes the API; what is served is checked against it in ``test_api.py``."""

from __future__ import annotations

import json

from monitor.projection import MarketProjection
from monitor.web import openapi


def test_a_market_has_every_field_of_the_projection() -> None:
    schema = openapi.document()["components"]["schemas"]["MarketResponse"]
    fields = set(MarketProjection.__struct_fields__) - {"cascade_down", "cascade_up"} | {"cascade", "evaluation_age_s"}
    assert set(schema["properties"]) == fields
    assert set(schema["required"]) == fields


def test_operations_have_unique_names_and_a_summary() -> None:
    operations = [methods["get"] for methods in openapi.document()["paths"].values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for operation in operations)


def test_the_document_is_plain_json() -> None:
    document = openapi.document()
    assert json.loads(json.dumps(document)) == document
