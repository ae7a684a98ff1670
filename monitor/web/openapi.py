"""The OpenAPI document, generated from the structs that are encoded, so that the two cannot disagree."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, get_args

import msgspec

from monitor.account_report import AtRiskOrder
from monitor.web import views
from monitor.web.parameters import Choice, Fraction, Name, Parameter, WholeNumber


class Operation(NamedTuple):
    """One GET path: its answers are described by structs."""

    path: str
    name: str
    summary: str
    answer: Any
    errors: tuple[tuple[int, Any], ...] = ()
    query: tuple[Parameter, ...] = ()


HISTORY_QUERY = (
    WholeNumber("seconds", 10, 21_600, 1_800, "How far back, in seconds."),
    WholeNumber("columns", 1, 720, 360, "At most this many samples; a span's extremes and sums are kept."),
)
LIMIT = WholeNumber("limit", 1, 500, 50, "At most this many.")
MARKET_ACCOUNTS_QUERY = (
    Choice(
        "order",
        get_args(AtRiskOrder),
        "distance",
        "Nearest to liquidation, largest, or deepest under water after the move, first.",
    ),
    Fraction("move", -1.0, 10.0, -0.1, "Gap of all prices that bad debt is computed for, as a fraction: -0.1 is a fall of 10 %."),
    LIMIT,
)
ACCOUNTS_QUERY = (
    Name("venue", "Only accounts of this venue."),
    Name("symbol", "Only accounts with a position in this market."),
    *MARKET_ACCOUNTS_QUERY,
)
DISAGREEMENTS_QUERY = (LIMIT,)

UNKNOWN_MARKET = ((404, views.ErrorResponse),)
NOT_NOW = ((503, views.ErrorResponse),)
"""Nothing is known of accounts yet, or too many ask."""
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
        HISTORY_QUERY,
    ),
    Operation(
        f"{MARKET_PATH}/accounts",
        "market_accounts",
        "Margin accounts with a position in one market: the nearest to liquidation, the largest, or the deepest under water.",
        views.AccountsResponse,
        ((400, views.ErrorResponse), *UNKNOWN_MARKET, *NOT_NOW),
        MARKET_ACCOUNTS_QUERY,
    ),
    Operation(
        "/api/v1/accounts",
        "accounts",
        "Margin accounts: the nearest to liquidation, the largest, or the deepest under water.",
        views.AccountsResponse,
        ((400, views.ErrorResponse), *NOT_NOW),
        ACCOUNTS_QUERY,
    ),
    Operation(
        "/api/v1/accounts/disagreements",
        "disagreements",
        "Figures of the venues that ours do not match, the worst first.",
        views.DisagreementsResponse,
        ((400, views.ErrorResponse), *NOT_NOW),
        DISAGREEMENTS_QUERY,
    ),
    Operation(
        "/api/v1/accounts/{venue}/{account}",
        "account",
        "One account in full: what it holds, and what each price would have to do.",
        views.AccountResponse,
        ((400, views.ErrorResponse), (404, views.ErrorResponse), *NOT_NOW),
    ),
    Operation("/api/v1/alerts", "alerts", "Alerts that fire, and the latest changes.", views.AlertsResponse),
)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document as JSON-ready values."""
    types = list(dict.fromkeys(kind for operation in OPERATIONS for kind in (operation.answer, *dict(operation.errors).values())))
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    # Defaults of fields come as they are in Python; JSON has no tuples.
    schemas = msgspec.json.decode(msgspec.json.encode(schemas))
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
        for name in ("venue", "symbol", "account")
        if f"{{{name}}}" in operation.path
    ] + [
        {
            "name": parameter.name,
            "in": "query",
            "description": parameter.description,
            "schema": parameter.schema(),
        }
        for parameter in operation.query
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
