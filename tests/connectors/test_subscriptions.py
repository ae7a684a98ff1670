"""Subscriptions that the venue does not answer, refuses, or drops the whole socket over."""

from __future__ import annotations

import asyncio

import msgspec

from connectors.frames import Frame
from connectors.hyperliquid import Hyperliquid
from connectors.link import LinkClosedError
from connectors.live import LiveConnection, ReconnectPolicy
from connectors.simulated.server import SimulatedVenueServer
from connectors.subscriptions import EARLY_S, QUARANTINE_S, Subscriptions
from connectors.venue import ConnectionPlan, VenueSettings
from tests.connectors.loopback import QUICK, ScriptedLink, ScriptedPeer, gaps, make, plan_of, running, until
from tests.virtual_time import run_in_virtual_time

VENUE = Hyperliquid()
ACCOUNT = "0x" + "ab" * 20


def main_plan(*coins: str) -> ConnectionPlan:
    return VENUE.connections(VenueSettings(symbols=coins, watch_accounts=(ACCOUNT,)))[0]


class VenueLink(ScriptedLink):
    """Answers subscriptions as Hyperliquid does: in order, and with a cut line for an unknown coin in a book or quote."""

    def __init__(self, unknown: set[str], deaf_to: set[str]) -> None:
        super().__init__()
        self.unknown = unknown
        self.deaf_to = deaf_to

    async def send(self, payload: bytes) -> None:
        await super().send(payload)
        wanted = msgspec.json.decode(payload).get("subscription", {})
        if wanted.get("coin") in self.unknown and wanted["type"] in {"l2Book", "bbo"}:
            self.inbox.put_nowait(LinkClosedError("closed_1006", ""))
        elif wanted and wanted["type"] not in self.deaf_to:
            answer = {"channel": "subscriptionResponse", "data": {"method": "subscribe", "subscription": wanted}}
            self.inbox.put_nowait(msgspec.json.encode(answer))


class VenuePeer(ScriptedPeer):
    def __init__(self, *, unknown: set[str] | None = None, deaf_to: set[str] | None = None) -> None:
        super().__init__()
        self.unknown = unknown or set()
        self.deaf_to = deaf_to or set()

    def make_link(self) -> ScriptedLink:
        return VenueLink(self.unknown, self.deaf_to)

    async def feed(self, coins: tuple[str, ...], for_s: float) -> None:
        """Send books and contexts of the coins that exist, once a second."""
        for _ in range(int(for_s)):
            for coin in set(coins) - self.unknown:
                if self.links:
                    for channel in ("l2Book", "activeAssetCtx"):
                        self.links[-1].inbox.put_nowait(f'{{"channel":"{channel}","data":{{"coin":"{coin}"}}}}'.encode())
            await asyncio.sleep(1.0)


def live(plan: ConnectionPlan, frames: list[Frame], peer: ScriptedPeer) -> LiveConnection:
    return make(plan, frames, ReconnectPolicy(), open_link=peer.open, venue=VENUE)


def test_every_plan_of_the_venue_has_one_message_per_channel_in_the_same_order() -> None:
    settings = VenueSettings(symbols=("BTC", "kPEPE"), watch_accounts=(ACCOUNT.upper().replace("X", "x"),))
    for plan in VENUE.connections(settings):
        assert Subscriptions(plan).addressable
        for message, key in zip(plan.subscribe, plan.expected, strict=True):
            wanted = msgspec.json.decode(message)["subscription"]
            assert f"{wanted['type']}:{wanted.get('coin') or wanted['user']}" == key


def test_trades_that_are_never_confirmed_are_visible_asked_for_again_and_in_the_end_reconnected_for() -> None:
    """Fault 11: nothing else can tell a dead tape from a quiet one, and positions are carried forward from the tape."""

    async def scenario() -> None:
        peer = VenuePeer(deaf_to={"trades"})
        frames: list[Frame] = []
        connection = live(main_plan("BTC"), frames, peer)
        async with running(connection):
            await peer.feed(("BTC",), 25.0)
            status = connection.health()
            assert (status.state, status.silent_channels) == ("degraded", ("trades:BTC",))
            await peer.feed(("BTC",), 20.0)
            trades = [payload for _, payload in peer.links[0].sent if b'"trades"' in payload]
            assert len(trades) == 3
            peer.deaf_to.clear()
            await peer.feed(("BTC",), 20.0)
            status = connection.health()
            assert (status.state, status.silent_channels, gaps(frames)) == ("connected", (), 0)

    run_in_virtual_time(scenario())


def test_confirmed_channels_may_be_silent_for_ever() -> None:
    async def scenario() -> None:
        peer = VenuePeer()
        frames: list[Frame] = []
        connection = live(main_plan("BTC"), frames, peer)
        async with running(connection):
            await peer.feed(("BTC",), 1800.0)
            status = connection.health()
        assert (status.state, status.connects, status.resubscribes) == ("connected", 1, 0)

    run_in_virtual_time(scenario())


def test_refused_subscription_is_visible_and_retried() -> None:
    async def scenario() -> None:
        peer = VenuePeer(deaf_to={"userFills"})
        connection = live(main_plan("BTC"), [], peer)
        async with running(connection):
            await asyncio.sleep(1.0)
            peer.links[0].inbox.put_nowait(b'{"channel":"error","data":"Cannot track more than 15 total users."}')
            await peer.feed(("BTC",), 42.0)
            status = connection.health()
        assert (status.state, status.silent_channels) == ("degraded", (f"userFills:{ACCOUNT}",))
        assert status.resubscribes == 2

    run_in_virtual_time(scenario())


def test_a_coin_that_costs_the_socket_is_left_out_and_the_rest_lives_on() -> None:
    """Fault 25: a coin that was renamed since the start would otherwise kill every connection for ever."""

    async def scenario() -> None:
        coins = ("BTC", "MATIC", "ETH")
        peer = VenuePeer(unknown={"MATIC"})
        frames: list[Frame] = []
        connection = live(main_plan(*coins), frames, peer)
        async with running(connection):
            await peer.feed(coins, 180.0)
            first = connection.health()
            await peer.feed(coins, 1800.0)
            status = connection.health()
            lost = gaps(frames)
        assert lost == 3
        assert first.disconnects == status.disconnects == {"closed_1006": 3}
        left_out = ("l2Book:MATIC", "bbo:MATIC", "trades:MATIC", "activeAssetCtx:MATIC")
        assert (status.state, status.silent_channels) == ("degraded", left_out)

    run_in_virtual_time(scenario())


async def test_a_coin_that_costs_a_real_socket_is_found_though_nothing_was_answered() -> None:
    """The simulated venue hangs up before a single answer has left, so the coin cannot be told from the first attempt."""
    venue = SimulatedVenueServer(seed=3)
    await venue.start()
    try:
        settings = VenueSettings(symbols=("BTC", "NOPE", "ETH"), websocket_url=venue.websocket_url)
        plan = VENUE.connections(settings)[1]
        connection = make(plan, [], QUICK, venue=VENUE)
        async with running(connection):
            await until(lambda: connection.health().silent_channels == ("l2Book:NOPE",))
            status = connection.health()
    finally:
        await venue.stop()
    assert (status.state, status.disconnects) == ("degraded", {"closed_1006": 3})


def plan_abc() -> ConnectionPlan:
    return plan_of(subscribe=(b"a", b"b", b"c"), expected={"a": 1.0, "b": 1.0, "c": None})


def sent(subscriptions: Subscriptions) -> tuple[bytes, ...]:
    return tuple(message for batch in subscriptions.batches() for message in batch.messages)


def test_what_was_left_out_is_tried_again_after_an_hour() -> None:
    subscriptions = Subscriptions(plan_abc())
    for now_s in (0.0, 30.0, 60.0):
        subscriptions.begin(now_s)
        for key in ("a", "c"):
            subscriptions.answered(key)
        subscriptions.lost(now_s + 0.1)
    subscriptions.begin(120.0)
    assert (subscriptions.left_out, sent(subscriptions), dict(subscriptions.expected)) == (
        ("b",),
        (b"a", b"c"),
        {"a": 1.0, "c": None},
    )
    subscriptions.begin(61.0 + QUARANTINE_S)
    assert (subscriptions.left_out, sent(subscriptions)) == ((), (b"a", b"b", b"c"))


def test_connection_that_is_lost_late_or_with_all_answered_is_nobodys_fault() -> None:
    subscriptions = Subscriptions(plan_abc())
    for now_s in (0.0, 60.0, 120.0):
        subscriptions.begin(now_s)
        subscriptions.answered("a")
        subscriptions.lost(now_s + EARLY_S + 0.1)
        subscriptions.begin(now_s + 30.0)
        for key in ("a", "b", "c"):
            subscriptions.answered(key)
        subscriptions.lost(now_s + 30.1)
    subscriptions.begin(200.0)
    assert (subscriptions.left_out, sent(subscriptions)) == ((), (b"a", b"b", b"c"))


def test_venue_that_cuts_every_line_before_it_answers_loses_no_subscription() -> None:
    subscriptions = Subscriptions(plan_abc())
    for number in range(40):
        subscriptions.begin(number * 60.0)
        assert sorted(sent(subscriptions)) == [b"a", b"b", b"c"]
        subscriptions.lost(number * 60.0 + 0.1)
    assert subscriptions.left_out == ()


def test_plan_without_one_message_per_channel_is_sent_as_it_is() -> None:
    subscriptions = Subscriptions(plan_of(subscribe=(b"all",), expected={"a": 1.0, "b": None}))
    for now_s in range(10):
        subscriptions.begin(float(now_s))
        subscriptions.lost(now_s + 0.1)
        assert (sent(subscriptions), subscriptions.left_out, subscriptions.message_of("a")) == ((b"all",), (), None)
