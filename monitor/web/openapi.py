"""The OpenAPI document, generated from the structs that are encoded, so that the two cannot disagree."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import msgspec

from monitor.web import views


class Operation(NamedTuple):
    """One GET path: its answers are described by structs."""

    path: str
    name: str
    summary: str
    answer: Any
    errors: tuple[tuple[int, Any], ...] = ()
    query: tuple[tuple[str, int, int, int, str], ...] = ()
    """(name, least, greatest, default, description) of integer parameters."""


UNKNOWN_MARKET = ((404, views.ErrorResponse),)
MARKET_PATH = "/api/v1/markets/{venue}/{symbol}"
OPERATIONS = (
    Operation("/healthz", "health", "Whether the process is alive.", views.HealthResponse),
    Operation("/readyz", "ready", "Whether a market is fed and fresh.", views.ReadyResponse, ((503, views.ReadyResponse),)),
    Operation("/api/v1/status", "status", "The health of the process and of everything that feeds it.", views.StatusResponse),
    Operation("/api/v1/markets", "markets", "All markets, one line each.", views.MarketsResponse),
    Operation(MARKET_PATH, "market", "Everything known about one market.", views.MarketResponse, UNKNOWN_MARKET),
    Operation(f"{MARKET_PATH}/clusters", "clusters", "Where liquidation prices gather.", views.ClustersResponse, UNKNOWN_MARKET),
    Operation(
        f"{MARKET_PATH}/cascade",
        "cascade",
        "What it takes to set liquidations off, and how far they would run.",
        views.CascadeResponse,
        UNKNOWN_MARKET,
    ),
    Operation(
        f"{MARKET_PATH}/liquidations",
        "liquidations",
        "Liquidated totals since the start, with the completeness of the feed.",
        views.LiquidationsResponse,
        UNKNOWN_MARKET,
    ),
    Operation(
        f"{MARKET_PATH}/history",
        "history",
        "Price, liquidation heat and liquidations of the recent past.",
        views.HistoryResponse,
        ((400, views.ErrorResponse), *UNKNOWN_MARKET),
        (
            ("seconds", 10, 21_600, 1_800, "How far back, in seconds."),
            ("columns", 1, 720, 360, "At most this many samples; a span's extremes and sums are kept."),
        ),
    ),
    Operation("/api/v1/alerts", "alerts", "Alerts that fire, and the latest changes.", views.AlertsResponse),
)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document as JSON-ready values."""
    types = list(dict.fromkeys(kind for operation in OPERATIONS for kind in (operation.answer, *dict(operation.errors).values())))
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {operation.path: {"get": _operation(operation)} for operation in OPERATIONS}
    paths["/metrics"] = {"get": _plain("metrics", "Prometheus metrics.", "200", "text/plain", {"type": "string"})}
    paths["/api/v1/openapi.json"] = {"get": _plain("openapi", "This document.", "200", "application/json", {"type": "object"})}
    paths["/api/v1/stream"] = {"get": _stream()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "liqmon",
            "version": _version(),
            "description": "Read-only. Unknown is null; numbers of a stale market are marked by stale and stale_reasons.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _version() -> str:
    try:
        return version("liquidation-monitor")
    except PackageNotFoundError:
        return "unknown"


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in ("venue", "symbol")
        if f"{{{name}}}" in operation.path
    ] + [
        {
            "name": name,
            "in": "query",
            "description": text,
            "schema": {"type": "integer", "minimum": least, "maximum": greatest, "default": default},
        }
        for name, least, greatest, default, text in operation.query
    ]
    answers = {200: operation.answer, **dict(operation.errors)}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            str(status): {
                "description": answer.__doc__,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}},
            }
            for status, answer in answers.items()
        },
    }


def _plain(name: str, summary: str, status: str, content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {status: {"description": summary, "content": {content_type: {"schema": schema}}}},
    }


def _stream() -> dict[str, Any]:
    return {
        "operationId": "stream",
        "summary": "WebSocket of JSON messages.",
        "description": (
            'The server sends {"type": ...} with one of: "hello" (once), "markets" (all summaries, about once a second even '
            'when nothing is evaluated), "market" (a followed market, without the histogram), "sample" (one history '
            'sample of a followed market), "gone" (a followed market is not known), "status", "alerts" (firing and recent), '
            '"firing" (the same alerts with newer numbers), "alert" (one change), "error". State messages are conflated to the '
            'latest. The client may send {"subscribe": ["venue/symbol", ...]} to '
            "choose the markets it follows."
        ),
        "responses": {"101": {"description": "Switching to WebSocket."}},
    }
