from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest

from connectors.simulated.channels import Cadences, Channels, Limits
from connectors.simulated.info import Info, WeightBudget
from connectors.simulated.population import PopulationConfig
from connectors.simulated.scenario import ScenarioName
from connectors.simulated.simulation import Simulation, SimulationConfig
from tests.connectors.simulated.worlds import QUICK_CRASH


class Client:
    """One session of one exchange, stepped by hand."""

    def __init__(self, seed: int = 8, scenario: ScenarioName = "calm", limits: Limits | None = None) -> None:
        config = SimulationConfig(seed=seed, scenario=scenario, population=PopulationConfig(accounts=80), crash=QUICK_CRASH)
        self.simulation = Simulation(config)
        info = Info(self.simulation.exchange, WeightBudget(None))
        self.channels = Channels(self.simulation, info, Cadences(), limits)
        self.channels.opened(1)

    def say(self, message: object, session: int = 1) -> list[Any]:
        replies = self.channels.received(session, json.dumps(message).encode(), 0.0)
        assert not replies.drop
        return [json.loads(frame) for frame in replies.frames]

    def subscribe(self, **subscription: object) -> Any:
        (reply,) = self.say({"method": "subscribe", "subscription": subscription})
        return reply

    def step(self, blocks: int = 1) -> list[bytes]:
        frames = []
        for _ in range(blocks):
            self.simulation.step(self.simulation.exchange.time_ms + 100)
            frames += [frame for session, frame in self.channels.publish() if session == 1]
        return frames

    def messages(self, blocks: int = 1) -> list[Any]:
        return [json.loads(frame) for frame in self.step(blocks)]


def test_a_subscription_is_acknowledged_with_its_defaults() -> None:
    client = Client()
    reply = client.subscribe(type="l2Book", coin="BTC")
    assert reply == {
        "channel": "subscriptionResponse",
        "data": {
            "method": "subscribe",
            "subscription": {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None, "fast": False},
        },
    }
    assert client.subscribe(type="trades", coin="BTC")["data"]["subscription"] == {"type": "trades", "coin": "BTC"}


def test_repeated_and_unknown_subscriptions_are_answered_with_errors() -> None:
    client = Client()
    client.subscribe(type="trades", coin="BTC")
    assert client.subscribe(type="trades", coin="BTC") == {
        "channel": "error",
        "data": 'Already subscribed: {"type":"trades","coin":"BTC"}',
    }
    (reply,) = client.say({"method": "unsubscribe", "subscription": {"type": "bbo", "coin": "BTC"}})
    assert reply["data"].startswith("Already unsubscribed: ")
    (reply,) = client.say({"method": "unsubscribe", "subscription": {"type": "trades", "coin": "BTC"}})
    assert reply["data"]["method"] == "unsubscribe"
    assert client.subscribe(type="liquidations")["data"].startswith("Error parsing JSON into valid websocket request: ")
    assert client.subscribe(type="trades", coin="btc")["channel"] == "error"
    for message in (b"{", b"[]", b"\xff", b'{"method":"dance"}', b'{"method":"subscribe"}'):
        (frame,) = client.channels.received(1, message, 0.0).frames
        assert json.loads(frame)["data"].startswith("Error parsing JSON into valid websocket request: ")


def test_a_ping_is_answered() -> None:
    assert Client().say({"method": "ping"}) == [{"channel": "pong"}]


@pytest.mark.parametrize(
    "subscription",
    [
        {"type": "l2Book", "coin": "btc"},
        {"type": "bbo", "coin": "NOPE"},
        {"type": "l2Book", "coin": "BTC", "nSigFigs": 6},
        {"type": "l2Book", "coin": "BTC", "mantissa": 5},
    ],
)
def test_some_mistakes_cost_the_whole_socket(subscription: dict[str, object]) -> None:
    message = json.dumps({"method": "subscribe", "subscription": subscription}).encode()
    replies = Client().channels.received(1, message, 0.0)
    assert replies.drop
    assert not replies.frames


def test_cadences_are_kept() -> None:
    client = Client()
    client.subscribe(type="l2Book", coin="BTC")
    client.subscribe(type="l2Book", coin="ETH", fast=True)
    client.subscribe(type="l2Book", coin="SOL", nSigFigs=3)
    client.subscribe(type="activeAssetCtx", coin="HYPE")
    client.subscribe(type="allMids")
    seen: dict[str, list[int]] = {}
    for block in range(540):
        for message in client.messages():
            data = message["data"]
            seen.setdefault(f"{message['channel']} {data.get('coin', '')}", []).append(block)
            if message["channel"] == "l2Book":
                assert data.get("fast") == (True if data["coin"] == "ETH" else None)
                assert ("spread" in data) == (data["coin"] == "SOL")
    assert seen["l2Book BTC"] == list(range(0, 540, 54))
    assert seen["l2Book SOL"] == list(range(0, 540, 54))
    assert seen["l2Book ETH"] == list(range(0, 540, 6))
    assert seen["activeAssetCtx HYPE"] == list(range(0, 540, 10))
    assert seen["allMids "] == list(range(0, 540, 50))


def test_quotes_are_sent_on_change_only() -> None:
    client = Client()
    client.subscribe(type="bbo", coin="BTC")
    quotes = [message["data"]["bbo"] for message in client.messages(200)]
    assert 5 < len(quotes) < 200
    assert all(first != second for first, second in itertools.pairwise(quotes))


def test_the_first_trades_frame_repeats_the_past_and_later_ones_do_not() -> None:
    client = Client()
    client.step(400)
    client.subscribe(type="trades", coin="BTC")
    first, *later = client.messages(300)
    ages = [client.simulation.config.start_ms + 40_100 - trade["time"] for trade in first["data"]]
    assert len(ages) > 10
    assert ages == sorted(ages, reverse=True)
    assert 100 < max(ages) <= 20_000
    assert later
    for message in later:
        assert len({trade["time"] for trade in message["data"]}) == 1
    seen = [trade["tid"] for message in (first, *later) for trade in message["data"]]
    assert len(seen) == len(set(seen))
    newest = first["data"][-1]["time"]
    assert all(trade["time"] > newest for message in later for trade in message["data"])


def test_fills_come_as_a_snapshot_and_then_as_they_happen() -> None:
    client = Client(scenario="crash")
    client.step(10)
    maker = client.simulation.table.addresses[client.simulation.population.makers[0]]
    client.subscribe(type="userFills", user=maker.upper().replace("0X", "0x"))
    first, *later = client.messages(150)
    assert first["data"]["isSnapshot"] is True
    assert first["data"]["user"] == maker
    assert first["data"]["fills"]
    fills = [fill for message in later for fill in message["data"]["fills"]]
    assert all("isSnapshot" not in message["data"] for message in later)
    seen = [(fill["tid"], fill["side"]) for fill in fills + first["data"]["fills"]]
    assert len(seen) == len(set(seen))
    forced = [fill for fill in fills if "liquidation" in fill]
    assert forced
    victims = {client.simulation.table.addresses[record.account] for record in client.simulation.engine.records}
    assert {fill["liquidation"]["liquidatedUser"] for fill in forced} <= victims


def test_users_and_subscriptions_are_limited_over_all_sessions() -> None:
    client = Client(limits=Limits(users=2, subscriptions=4))
    client.channels.opened(2)
    users = client.simulation.table.addresses[:3]
    client.subscribe(type="userFills", user=users[0])
    (reply,) = client.say({"method": "subscribe", "subscription": {"type": "userFills", "user": users[1]}}, session=2)
    assert reply["channel"] == "subscriptionResponse"
    assert client.subscribe(type="userFills", user=users[2])["data"] == "Cannot track more than 2 total users."
    assert client.subscribe(type="userFills", user=users[1])["channel"] == "subscriptionResponse"
    client.subscribe(type="bbo", coin="BTC")
    assert client.subscribe(type="bbo", coin="ETH")["channel"] == "error"
    client.channels.closed(2)
    assert client.subscribe(type="bbo", coin="ETH")["channel"] == "subscriptionResponse"
    assert client.subscribe(type="userFills", user="0x12")["channel"] == "error"


def test_requests_can_be_posted_over_the_socket() -> None:
    client = Client()
    (reply,) = client.say({"method": "post", "id": 7, "request": {"type": "info", "payload": {"type": "l2Book", "coin": "BTC"}}})
    assert reply["channel"] == "post"
    assert reply["data"]["id"] == 7
    assert reply["data"]["response"]["payload"]["type"] == "l2Book"
    assert reply["data"]["response"]["payload"]["data"]["coin"] == "BTC"
    (reply,) = client.say({"method": "post", "id": 8, "request": {"type": "info", "payload": {"type": "nothing"}}})
    assert reply["data"] == {"id": 8, "response": {"type": "error", "payload": "422"}}


def _hash_of_a_run(seed: int, step_ms: int) -> str:
    client = Client(seed=seed, scenario="crash")
    exchange = client.simulation.exchange
    for coin in ("BTC", "ETH", "SOL", "HYPE"):
        client.subscribe(type="l2Book", coin=coin, fast=True)
        client.subscribe(type="l2Book", coin=coin, nSigFigs=4)
        for channel in ("bbo", "trades", "activeAssetCtx"):
            client.subscribe(type=channel, coin=coin)
    client.subscribe(type="allMids")
    for row in client.simulation.population.makers:
        client.subscribe(type="userFills", user=client.simulation.table.addresses[row])
    digest = hashlib.sha256()
    info = Info(exchange, WeightBudget(None))
    for block in range(15_000 // step_ms):
        client.simulation.step(exchange.time_ms + step_ms)
        for session, frame in client.channels.publish():
            digest.update(b"%d " % session + frame)
        body = json.dumps({"type": "clearinghouseState", "user": client.simulation.table.addresses[block % 80]}).encode()
        digest.update(info.reply(body, 0.0).body)
    assert client.simulation.engine.records
    return digest.hexdigest()


def test_the_same_seed_and_the_same_steps_give_the_same_bytes() -> None:
    first = _hash_of_a_run(8, 200)
    assert _hash_of_a_run(8, 200) == first
    assert _hash_of_a_run(9, 200) != first
    assert _hash_of_a_run(8, 300) != first
