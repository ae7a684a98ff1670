"""The HTTP API, asked over a real connection."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import jsonschema
import msgspec
import pytest

from monitor.projection import MarketProjection
from monitor.web.api import unknown_market
from monitor.web.hub import Hub
from tests.monitor.web.builder import World, alert
from tests.monitor.web.running import Clock, client, published

BTC = "/api/v1/markets/hyperliquid/BTC"
PATHS = (
    "/healthz",
    "/readyz",
    "/api/v1/status",
    "/api/v1/markets",
    BTC,
    f"{BTC}/clusters",
    f"{BTC}/cascade",
    f"{BTC}/liquidations",
    f"{BTC}/history",
    "/api/v1/alerts",
    "/api/v1/markets/nowhere/BTC",
    f"{BTC}/history?seconds=1",
)


def validate(document: dict[str, Any], path: str, status: int, body: Any) -> None:
    """Check an answer against the operation that the document gives for its path."""
    template = path.partition("?")[0].replace("/hyperliquid/BTC", "/{venue}/{symbol}").replace("/nowhere/BTC", "/{venue}/{symbol}")
    schema = document["paths"][template]["get"]["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(body)


async def test_every_answer_fits_the_openapi_document() -> None:
    world, hub = published()
    hub.publish_alerts([alert(), alert(ends_ns=world.now_ns)], (alert(),))
    async with client(hub) as session:
        document = await (await session.get("/api/v1/openapi.json")).json()
        for path in PATHS:
            async with session.get(path) as response:
                validate(document, path, response.status, await response.json())


async def test_every_answer_of_an_empty_hub_fits_the_openapi_document() -> None:
    async with client(Hub()) as session:
        document = await (await session.get("/api/v1/openapi.json")).json()
        for path in PATHS:
            async with session.get(path) as response:
                assert response.status == (503 if path == "/readyz" else 404 if "hyperliquid" in path or "nowhere" in path else 200)
                validate(document, path, response.status, await response.json())


async def test_the_openapi_document_notices_a_drifted_answer() -> None:
    _, hub = published()
    async with client(hub) as session:
        document = await (await session.get("/api/v1/openapi.json")).json()
        body = await (await session.get(BTC)).json()
    for name in ("coverage_ratio", "cascade", "stale"):
        with pytest.raises(jsonschema.ValidationError):
            validate(document, BTC, 200, {key: value for key, value in body.items() if key != name})
    with pytest.raises(jsonschema.ValidationError):
        validate(document, BTC, 200, {**body, "reference_price": "65000"})


async def test_the_openapi_document_names_every_path_and_every_reference_resolves() -> None:
    async with client(Hub()) as session:
        document = await (await session.get("/api/v1/openapi.json")).json()
    assert set(document["paths"]) == {
        path.partition("?")[0].replace("hyperliquid/BTC", "{venue}/{symbol}") for path in PATHS[:-2]
    } | {
        "/metrics",
        f"{BTC}/accounts".replace("hyperliquid/BTC", "{venue}/{symbol}"),
        "/api/v1/accounts",
        "/api/v1/accounts/disagreements",
        "/api/v1/accounts/{venue}/{account}",
        "/api/v1/stream",
        "/api/v1/openapi.json",
    }
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert document["openapi"].startswith("3.1")


async def test_a_market_is_the_projection_with_both_cascades_gathered() -> None:
    world, hub = World(), Hub()
    projection = world.step()
    hub.publish(projection)
    async with client(hub) as session:
        body = await (await session.get(BTC)).json()
    market = projection.markets[0]
    expected = json.loads(msgspec.json.encode(market))
    expected["cascade"] = {"down": expected.pop("cascade_down"), "up": expected.pop("cascade_up")}
    assert body.pop("evaluation_age_s") >= 0
    assert body == expected


async def test_parts_of_a_market_agree_with_the_whole() -> None:
    _, hub = published()
    async with client(hub) as session:
        whole = await (await session.get(BTC)).json()
        clusters = await (await session.get(f"{BTC}/clusters")).json()
        cascade = await (await session.get(f"{BTC}/cascade")).json()
        liquidations = await (await session.get(f"{BTC}/liquidations")).json()
        history = await (await session.get(f"{BTC}/history")).json()
    for part in (clusters, cascade, liquidations, history):
        part.pop("evaluation_age_s")
        for name in part.keys() & whole.keys():
            assert part[name] == whole[name]
        assert {"stale", "stale_reasons", "as_of_ns", "provenance", "reference_age_s"} <= part.keys()
    assert history["samples"]["price"][-1] == whole["reference_price"]


async def test_a_symbol_with_a_colon_can_be_asked_for_plain_and_quoted() -> None:
    _, hub = published()
    async with client(hub) as session:
        for symbol in ("xyz:TSLA", quote("xyz:TSLA", safe="")):
            async with session.get(f"/api/v1/markets/hyperliquid/{symbol}/clusters") as response:
                assert (response.status, (await response.json())["symbol"]) == (200, "xyz:TSLA")


async def test_an_unknown_market_is_named_with_near_ones() -> None:
    _, hub = published()
    async with client(hub) as session, session.get("/api/v1/markets/hyperliquid/btc") as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert error["code"] == "unknown_market"
    assert error["message"].startswith("'hyperliquid/btc' is not watched; near it: hyperliquid/BTC")


def test_near_markets_are_few_and_a_long_name_is_cut() -> None:
    known = [f"hyperliquid/COIN{index}" for index in range(1_000)]
    assert unknown_market("hyperliquid/COIN", known).count("hyperliquid/") == 6
    assert unknown_market("?" * 10_000, known).endswith("the first are: " + ", ".join(known[:5]))
    assert len(unknown_market("x" * 10_000, [])) < 200


async def test_stale_numbers_are_marked_in_every_answer() -> None:
    world, hub = World(), Hub()
    world.markets[0].stale_reasons = ("book silent for 41 s",)
    hub.publish(world.step())
    async with client(hub) as session:
        for path in (BTC, f"{BTC}/clusters", f"{BTC}/cascade", f"{BTC}/liquidations", f"{BTC}/history"):
            body = await (await session.get(path)).json()
            assert (body["stale"], body["stale_reasons"]) == (True, ["book silent for 41 s"])
        markets = (await (await session.get("/api/v1/markets")).json())["markets"]
        assert [market["stale"] for market in markets] == [True, False, False]
        status = await (await session.get("/api/v1/status")).json()
        assert (status["markets"], status["markets_stale"], status["ready"]) == (3, 1, True)


async def test_a_stopped_evaluation_is_not_ready_and_stale_everywhere() -> None:
    clock = Clock()
    _, hub = published(monotonic=clock)
    async with client(hub) as session:
        assert (await session.get("/readyz")).status == 200
        clock.seconds += 30
        async with session.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["reasons"] == ["no new evaluation for more than 10 s"]
        body = await (await session.get(BTC)).json()
        assert body["stale"]
        assert body["evaluation_age_s"] == 30.0
        metrics = await (await session.get("/metrics")).text()
        assert "liqmon_reference_price" not in metrics
        assert (await session.get("/healthz")).status == 200


async def test_numbers_that_are_not_finite_become_null() -> None:
    world, hub = World(), Hub()
    projection = world.step()
    bad = float("nan")
    market: MarketProjection = msgspec.structs.replace(projection.markets[0], index_price=bad, funding_rate=float("-inf"))
    hub.publish(msgspec.structs.replace(projection, markets=(market,)))
    async with client(hub) as session:
        text = await (await session.get(BTC)).text()
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))["index_price"] is None


async def test_the_history_can_be_asked_for_in_fewer_columns() -> None:
    _, hub = published(seconds=120)
    async with client(hub) as session:
        for seconds, columns in ((60, 6), (1_800, 720), (10, 10)):
            path = f"{BTC}/history?seconds={seconds}&columns={columns}"
            samples = (await (await session.get(path)).json())["samples"]
            assert 0 < len(samples["second"]) <= columns + 1
            assert samples["second"][-1] - samples["second"][0] <= seconds
            assert len({len(values) for name, values in samples.items() if name not in {"row_log_width", "begins_second"}}) == 1


@pytest.mark.parametrize(
    "query", ["seconds=0", "seconds=-5", "seconds=1e3", "seconds=", "columns=100000", "columns=٣", f"seconds={'9' * 400}"]
)
async def test_bad_parameters_are_refused_with_the_range(query: str) -> None:
    _, hub = published()
    async with client(hub) as session, session.get(f"{BTC}/history?{query}") as response:
        assert response.status == 400
        error = (await response.json())["error"]
        assert error["code"] == "bad_parameter"
        assert "whole number from" in error["message"]


async def test_a_market_without_a_place_for_history_says_so() -> None:
    _, hub = published(history_markets=0)
    async with client(hub) as session, session.get(f"{BTC}/history") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "no_history")


async def test_metrics_speak_both_formats() -> None:
    _, hub = published()
    async with client(hub) as session:
        async with session.get("/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await response.text()
        assert "# HELP liqmon_reference_price " in text
        assert "process_resident_memory_bytes" in text
        async with session.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")
