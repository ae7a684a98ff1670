"""What is kept of what was published, and what clients still have to be told."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from monitor.web.hub import EVENT_CAPACITY, RECENT_ALERTS, SUBSCRIBED_MARKETS, Hub, Subscriber
from tests.monitor.web.builder import START_NS, World, alert
from tests.monitor.web.running import Clock, published

BTC = ("hyperliquid", "BTC")


def taken(hub: Hub, subscriber: Subscriber) -> list[dict[str, Any]]:
    return [json.loads(message) for message in hub.take(subscriber)]


def test_an_empty_hub_is_not_ready_and_says_so() -> None:
    hub = Hub()
    assert hub.readiness() == (False, ("no evaluation yet",))
    assert hub.evaluation_age_s() is None
    assert not hub.evaluation_late()
    assert hub.summaries().markets == ()


def test_one_fresh_market_is_enough_to_be_ready() -> None:
    world, hub = World(), Hub()
    for market in world.markets[1:]:
        market.stale_reasons = ("book silent",)
    hub.publish(world.step())
    assert hub.readiness() == (True, ())
    world.markets[0].stale_reasons = ("no mark price",)
    hub.publish(world.step())
    ready, reasons = hub.readiness()
    assert not ready
    assert reasons[0] == "hyperliquid/BTC: no mark price"


def test_when_the_evaluation_stops_every_market_is_stale() -> None:
    clock = Clock()
    world, hub = published(monotonic=clock, evaluation_timeout_s=10.0)
    clock.seconds += 9.9
    assert hub.readiness()[0]
    market = hub.market(BTC)
    assert market is not None
    assert not market.stale
    clock.seconds += 0.2
    market = hub.market(BTC)
    assert market is not None
    assert (market.stale, market.stale_reasons) == (True, ("no new evaluation for more than 10 s",))
    assert hub.readiness() == (False, ("no new evaluation for more than 10 s",))
    assert hub.status_view().markets_stale == 3
    assert hub.reading().evaluation_late
    hub.publish(world.step())
    assert hub.readiness()[0]


def test_a_jump_of_the_wall_clock_makes_nothing_stale() -> None:
    clock = Clock()
    world, hub = published(monotonic=clock)
    world.now_ns += 3_600_000_000_000
    hub.publish(world.step())
    assert hub.readiness()[0]
    world.now_ns -= 7_200_000_000_000
    hub.publish(world.step())
    assert hub.readiness()[0]
    history = hub.history(BTC)
    assert history is not None
    assert len(history.query(1_800, 360).second) == 1


async def test_a_client_gets_the_latest_state_and_not_every_state() -> None:
    world, hub = published()
    subscriber = hub.attach()
    subscriber.subscribe([BTC])
    first = taken(hub, subscriber)
    assert [message["type"] for message in first] == ["markets", "status", "alerts", "market"]
    for _ in range(30):
        hub.publish(world.step(0.1))
    messages = taken(hub, subscriber)
    states = [message for message in messages if message["type"] == "market"]
    assert len(states) == 1
    assert states[0]["as_of_ns"] == world.now_ns
    assert [message["type"] for message in messages if message["type"] == "sample"] == ["sample"] * 3
    assert taken(hub, subscriber) == []


async def test_only_followed_markets_are_sent() -> None:
    world, hub = published()
    subscriber = hub.attach()
    subscriber.subscribe([("hyperliquid", "ETH")])
    taken(hub, subscriber)
    hub.publish(world.step())
    symbols = {message["symbol"] for message in taken(hub, subscriber) if message["type"] in {"market", "sample"}}
    assert symbols == {"ETH"}


async def test_a_followed_market_that_disappears_is_reported() -> None:
    world, hub = published()
    subscriber = hub.attach()
    subscriber.subscribe([BTC])
    taken(hub, subscriber)
    del world.markets[0]
    hub.publish(world.step())
    assert {"type": "gone", "venue": "hyperliquid", "symbol": "BTC"} in taken(hub, subscriber)


async def test_events_are_bounded_and_overflow_is_marked() -> None:
    _, hub = published()
    behind, other = hub.attach(), hub.attach()
    for number in range(EVENT_CAPACITY + 5):
        hub.publish_alerts([alert(f"Rule{number}")], ())
        taken(hub, other)
    assert behind.overflowed
    assert len(behind.events) == EVENT_CAPACITY
    assert not other.overflowed


async def test_alert_changes_arrive_in_order_and_once() -> None:
    _, hub = published()
    subscriber = hub.attach()
    taken(hub, subscriber)
    hub.publish_alerts([alert("First"), alert("Second")], (alert("First"), alert("Second")))
    messages = taken(hub, subscriber)
    assert [message["alert"]["name"] for message in messages if message["type"] == "alert"] == ["First", "Second"]
    state = next(message for message in messages if message["type"] == "alerts")
    assert [item["name"] for item in state["firing"]] == ["First", "Second"]


async def test_newer_numbers_of_firing_alerts_are_sent_without_the_past() -> None:
    _, hub = published()
    subscriber = hub.attach()
    hub.publish_alerts([alert("First")], (alert("First"),))
    taken(hub, subscriber)
    hub.publish_alerts([], (alert("First"),))
    assert taken(hub, subscriber) == []
    newer = msgspec.structs.replace(alert("First"), summary="newer numbers")
    hub.publish_alerts([], (newer,))
    [message] = taken(hub, subscriber)
    assert message["type"] == "firing"
    assert [item["summary"] for item in message["firing"]] == ["newer numbers"]
    assert hub.alerts_view().firing[0].summary == "newer numbers"


def test_the_alert_history_is_bounded_and_newest_first() -> None:
    hub = Hub()
    for number in range(RECENT_ALERTS + 50):
        hub.publish_alerts([alert(f"Rule{number}", ends_ns=START_NS + number)], ())
    recent = hub.alerts_view().recent
    assert len(recent) == RECENT_ALERTS
    assert recent[0].name == f"Rule{RECENT_ALERTS + 49}"


async def test_a_client_follows_a_bounded_number_of_markets() -> None:
    subscriber = Hub().attach()
    subscriber.subscribe([("venue", f"COIN{index}") for index in range(1_000)])
    assert len(subscriber.wanted) == SUBSCRIBED_MARKETS


def test_histories_are_bounded_and_the_refused_are_counted() -> None:
    _, hub = published(history_markets=2)
    counters = hub.counters()
    assert (counters.history_markets, counters.history_markets_refused) == (2, 1)
    assert hub.history(BTC) is not None
    assert hub.history(("hyperliquid", "xyz:TSLA")) is None


def test_the_history_of_a_market_that_is_gone_is_given_up() -> None:
    world, hub = published(history_markets=2)
    del world.markets[0]
    hub.publish(world.step())
    assert hub.history(BTC) is None
    assert hub.history(("hyperliquid", "xyz:TSLA")) is not None


async def test_a_message_is_encoded_once_for_all_clients_and_again_when_it_becomes_late() -> None:
    clock = Clock()
    _, hub = published(monotonic=clock)
    one, two = hub.attach(), hub.attach()
    for subscriber in (one, two):
        subscriber.subscribe([BTC])
    first = next(message for message in hub.take(one) if b'"type":"market"' in message)
    assert next(message for message in hub.take(two) if b'"type":"market"' in message) is first
    clock.seconds += 11
    one.refresh()
    late = next(message for message in taken(hub, one) if message["type"] == "market")
    assert late["stale"]


def test_numbers_that_are_not_finite_never_reach_json() -> None:
    world, hub = World(), Hub()
    projection = world.step()
    bad = msgspec.structs.replace(projection.markets[0], index_price=float("nan"), open_interest_usd=float("inf"))
    hub.publish(msgspec.structs.replace(projection, markets=(bad,)))
    subscriber = Subscriber()
    subscriber.subscribe([BTC])
    text = b"".join(hub.take(subscriber))
    assert b"NaN" not in text
    assert b"Infinity" not in text
    assert b'"index_price":null' in text
