from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.serving import RestReply
from connectors.simulated.info import Info, WeightBudget
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig

ANY_USER = "0x" + "ab" * 20


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    config = SimulationConfig(seed=6, population=PopulationConfig(accounts=60))
    simulation = Simulation(config)
    for block in range(1, 100):
        simulation.step(config.start_ms + 100 * block)
    return simulation


def ask(simulation: Simulation, **request: object) -> RestReply:
    return Info(simulation.exchange, WeightBudget(None)).reply(json.dumps(request).encode(), 0.0)


def answer(simulation: Simulation, **request: object) -> Any:
    reply = ask(simulation, **request)
    assert reply.status == 200, reply
    return json.loads(reply.body)


def test_every_request_type_is_answered(simulation: Simulation) -> None:
    user = simulation.table.addresses[0]
    meta, contexts = answer(simulation, type="metaAndAssetCtxs")
    assert meta == answer(simulation, type="meta", dex="")
    assert [market["name"] for market in meta["universe"]] == ["BTC", "ETH", "SOL", "HYPE"]
    assert len(contexts) == 4
    assert set(answer(simulation, type="allMids")) == {"BTC", "ETH", "SOL", "HYPE"}
    assert len(answer(simulation, type="l2Book", coin="BTC")["levels"][0]) == 20
    assert "spread" in answer(simulation, type="l2Book", coin="BTC", nSigFigs=3)
    assert answer(simulation, type="perpDexs") == answer(simulation, type="perpDexs", dex="") == [None]
    assert answer(simulation, type="exchangeStatus") == {"specialStatuses": None, "time": simulation.exchange.time_ms}
    assert answer(simulation, type="clearinghouseState", user=user.upper().replace("0X", "0x"))["assetPositions"]
    assert answer(simulation, type="clearinghouseState", user=ANY_USER)["assetPositions"] == []
    assert answer(simulation, type="userAbstraction", user=user) in {"disabled", "unifiedAccount"}
    assert "balances" in answer(simulation, type="spotClearinghouseState", user=user)
    assert answer(simulation, type="marginTable", id=56) == meta["marginTables"][-1][1]
    assert answer(simulation, type="marginTable", id=10)["marginTiers"] == [{"lowerBound": "0.0", "maxLeverage": 10}]


def test_the_main_dex_may_be_named_or_not(simulation: Simulation) -> None:
    user = simulation.table.addresses[0]
    plain = answer(simulation, type="clearinghouseState", user=user)
    assert answer(simulation, type="clearinghouseState", user=user, dex="") == plain
    assert answer(simulation, type="clearinghouseState", user=user, dex=None) == plain


def test_recent_trades_and_fills_come_newest_first(simulation: Simulation) -> None:
    for trades in (
        answer(simulation, type="recentTrades", coin="BTC"),
        answer(simulation, type="userFills", user=simulation.table.addresses[simulation.population.makers[0]]),
    ):
        times = [trade["time"] for trade in trades]
        assert times
        assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("request_fields", "status", "body"),
    [
        ({"type": "allLiquidations"}, 422, b"Failed to deserialize the JSON body into the target type"),
        ({"coin": "BTC"}, 422, b"Failed to deserialize the JSON body into the target type"),
        ({"type": "clearinghouseState", "user": "0x12"}, 422, b"Failed to deserialize the JSON body into the target type"),
        ({"type": "l2Book", "coin": "btc"}, 200, b"null"),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 1}, 500, b"null"),
        ({"type": "l2Book", "coin": "BTC", "nSigFigs": 6}, 500, b"null"),
        ({"type": "meta", "dex": "nowhere"}, 500, b"null"),
        ({"type": "clearinghouseState", "user": ANY_USER, "dex": "xyz"}, 500, b"null"),
        ({"type": "marginTable", "id": 999}, 500, b"null"),
    ],
)
def test_errors_are_those_of_the_real_venue(
    simulation: Simulation, request_fields: dict[str, object], status: int, body: bytes
) -> None:
    reply = ask(simulation, **request_fields)
    assert (reply.status, reply.body) == (status, body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"type":"meta"'])
def test_malformed_json_is_a_bad_request(simulation: Simulation, body: bytes) -> None:
    assert Info(simulation.exchange, WeightBudget(None)).reply(body, 0.0).status == 400


def test_beyond_the_weight_limit_the_answer_is_429_until_it_refills(simulation: Simulation) -> None:
    budget = WeightBudget(1_200)
    info = Info(simulation.exchange, budget)
    light = json.dumps({"type": "clearinghouseState", "user": ANY_USER}).encode()
    heavy = json.dumps({"type": "userAbstraction", "user": ANY_USER}).encode()
    assert [info.reply(light, 0.0).status for _ in range(500)] == [200] * 500
    assert [info.reply(heavy, 0.0).status for _ in range(12)] == [200] * 10 + [429] * 2
    assert budget.refused_total == 2
    # Twenty weights a second come back.
    assert [info.reply(light, 1_000.0).status for _ in range(11)] == [200] * 10 + [429]
    assert [info.reply(heavy, 61_000.0).status for _ in range(61)] == [200] * 60 + [429]


def test_bad_requests_cost_too(simulation: Simulation) -> None:
    info = Info(simulation.exchange, WeightBudget(40))
    assert [info.reply(b'{"type":"no"}', 0.0).status for _ in range(3)] == [422, 422, 429]
