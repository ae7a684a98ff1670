from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connectors.events import (
    AccountSnapshot,
    AnyEvent,
    BookSnapshot,
    Instruments,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Quote,
    Trade,
)
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.hyperliquid import Hyperliquid
from connectors.simulated.population import PopulationConfig
from connectors.simulated.server import SimulatedVenueServer
from connectors.venue import AccountQuestion, VenueSettings
from tests.connectors.simulated.worlds import QUICK_CRASH, START_MS

COINS = ("BTC", "ETH", "SOL", "HYPE")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def server(**options: Any) -> SimulatedVenueServer:
    settings: dict[str, Any] = {
        "seed": 1,
        "population": PopulationConfig(accounts=100),
        "start_ms": START_MS,
        "paused": True,
        "crash": QUICK_CRASH,
    }
    return SimulatedVenueServer(**(settings | options))


async def ask(http: aiohttp.ClientSession, venue: SimulatedVenueServer, **request: object) -> Any:
    async with http.post(f"{venue.rest_url}/info", json=request) as response:
        assert response.status == 200
        return await response.json()


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(10):
        return json.loads(await socket.receive_str())


async def drain(socket: aiohttp.ClientWebSocketResponse) -> list[str]:
    """Return all that was sent so far; the pong marks the end."""
    await socket.send_str('{"method":"ping"}')
    frames = []
    async with asyncio.timeout(10):
        while (frame := await socket.receive_str()) != '{"channel":"pong"}':
            frames.append(frame)
    return frames


async def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        server(host="0.0.0.0")


async def test_a_speed_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        server(speed=0.0)


async def test_rest_answers_where_the_venue_does(http: aiohttp.ClientSession) -> None:
    async with server() as venue:
        assert set(await ask(http, venue, type="allMids")) == set(COINS)
        async with http.get(f"{venue.rest_url}/info") as response:
            assert response.status == 405
        async with http.post(f"{venue.rest_url}/elsewhere", json={}) as response:
            assert response.status == 404
        async with http.post(f"{venue.rest_url}/info", json={"type": "what"}) as response:
            assert response.status == 422
            assert response.content_type == "text/plain"


async def test_the_rate_limit_holds_over_the_wire(http: aiohttp.ClientSession) -> None:
    async with server(weight_per_minute=60) as venue:
        statuses = []
        for _ in range(5):
            async with http.post(f"{venue.rest_url}/info", json={"type": "meta"}) as response:
                statuses.append(response.status)
        assert statuses[:3] == [200] * 3
        assert statuses[-1] == 429


async def test_an_unknown_coin_kills_the_socket_without_a_close_frame(http: aiohttp.ClientSession) -> None:
    async with server() as venue, http.ws_connect(venue.websocket_url) as socket:
        await socket.send_json({"method": "subscribe", "subscription": {"type": "trades", "coin": "BTC"}})
        assert (await receive(socket))["channel"] == "subscriptionResponse"
        await socket.send_json({"method": "subscribe", "subscription": {"type": "l2Book", "coin": "bTC"}})
        async with asyncio.timeout(5):
            message = await socket.receive()
        assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert socket.close_code == 1006


async def test_another_path_is_not_served(http: aiohttp.ClientSession) -> None:
    async with server() as venue, http.ws_connect(venue.websocket_url.replace("/ws", "/stream")) as socket:
        async with asyncio.timeout(5):
            message = await socket.receive()
        assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


async def test_positions_carried_forward_by_trades_are_those_of_a_later_state(http: aiohttp.ClientSession) -> None:
    async with server(scenario="crash", weight_per_minute=None) as venue, http.ws_connect(venue.websocket_url) as socket:
        for coin in COINS:
            await socket.send_json({"method": "subscribe", "subscription": {"type": "trades", "coin": coin}})
        await drain(socket)
        venue.step(60)
        accounts = venue.account_addresses()
        states = {account: await ask(http, venue, type="clearinghouseState", user=account) for account in accounts}
        venue.step(100)
        trades = [trade for frame in await drain(socket) for trade in json.loads(frame)["data"]]
        moved, seen = 0, set()
        for account in accounts:
            state = states[account]
            carried = {entry["position"]["coin"]: float(entry["position"]["szi"]) for entry in state["assetPositions"]}
            for trade in trades:
                if trade["time"] > state["time"] and account in trade["users"]:
                    sign = 1.0 if trade["users"][0] == account else -1.0
                    carried[trade["coin"]] = carried.get(trade["coin"], 0.0) + sign * float(trade["sz"])
                    moved += 1
                    seen.add(trade["tid"])
            later = await ask(http, venue, type="clearinghouseState", user=account)
            assert later["time"] == START_MS + 16_100
            actual = {entry["position"]["coin"]: float(entry["position"]["szi"]) for entry in later["assetPositions"]}
            for coin in COINS:
                assert carried.get(coin, 0.0) == pytest.approx(actual.get(coin, 0.0), abs=1e-6)
        assert moved == 2 * len(seen)
        assert moved > 1_000
        assert venue.simulation.engine.records


async def test_the_real_venue_file_reads_everything_that_is_sent(http: aiohttp.ClientSession) -> None:
    parser = Hyperliquid()
    async with server(scenario="crash") as venue:
        settings = VenueSettings(
            symbols=COINS,
            websocket_url=venue.websocket_url,
            rest_url=venue.rest_url,
            watch_accounts=tuple(venue.market_maker_accounts()),
        )
        events: list[AnyEvent] = []
        plans = parser.connections(settings)
        sockets = [await http.ws_connect(plan.url) for plan in plans]
        for plan, socket in zip(plans, sockets, strict=True):
            for message in plan.subscribe:
                await socket.send_str(message.decode())
        silent = [set(plan.expected) for plan in plans]
        for _ in range(20):
            venue.step(10)
            for index, (plan, socket) in enumerate(zip(plans, sockets, strict=True)):
                for text in await drain(socket):
                    payload = text.encode()
                    silent[index].discard(parser.channel_key(payload) or "")
                    events += parser.parse(Frame(parser.name, plan.name, 1, payload))
        question = AccountQuestion(venue.account_addresses()[3], mode=True, balances=True)
        requests = parser.bootstrap(settings) + parser.account_requests(question)
        for request in requests:
            events += parser.parse(Frame(parser.name, "rest", 1, await exchange(http, venue, request)))
        for socket in sockets:
            await socket.close()
    assert not any(silent)
    kinds = {type(event) for event in events}
    assert {BookSnapshot, Quote, Trade, MarkPrice, OpenInterest, Liquidation, Instruments, AccountSnapshot} <= kinds
    liquidations = [event for event in events if isinstance(event, Liquidation)]
    victims = {venue.simulation.table.addresses[record.account] for record in venue.simulation.engine.records}
    assert liquidations
    assert {liquidation.account for liquidation in liquidations} <= victims


async def test_a_node_directory_fills_with_every_block(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with server(scenario="crash", node_directory=tmp_path) as venue, http.ws_connect(venue.websocket_url) as socket:
        for coin in COINS:
            await socket.send_json({"method": "subscribe", "subscription": {"type": "trades", "coin": coin}})
        await drain(socket)
        venue.step(120)
        tape = Counter(trade["tid"] for frame in await drain(socket) for trade in json.loads(frame)["data"])
        # The first block was made at the start, before anybody was there; the files have it too.
        path = tmp_path / "node_fills_by_block/hourly/20251009/8"
        blocks = [json.loads(line) for line in path.read_bytes().splitlines()]
        written = Counter(fill["tid"] for block in blocks for _, fill in block["events"])
        numbers = [block["block_number"] for block in blocks]
        assert numbers == list(range(numbers[0], numbers[0] + 121))
        assert written == dict.fromkeys(tape, 2)
        assert len(tape) > 500
        state = await ask(http, venue, type="clearinghouseState", user=blocks[-1]["events"][0][0], dex="")
        assert state["time"] == venue.simulation.exchange.time_ms


async def exchange(http: aiohttp.ClientSession, venue: SimulatedVenueServer, request: RestRequest) -> bytes:
    headers = {"Content-Type": "application/json"}
    async with http.post(venue.rest_url + request.path, data=request.body, headers=headers) as response:
        assert response.status == 200
        return wrap_rest_response(request, await response.read())


async def test_the_clock_makes_blocks_until_the_duration_is_over(http: aiohttp.ClientSession) -> None:
    async with server(paused=False, speed=20.0, duration_s=6.0) as venue, http.ws_connect(venue.websocket_url) as socket:
        await socket.send_json({"method": "subscribe", "subscription": {"type": "activeAssetCtx", "coin": "BTC"}})
        async with asyncio.timeout(10):
            await venue.finished.wait()
        channels = [json.loads(frame)["channel"] for frame in await drain(socket)]
        assert channels.count("activeAssetCtx") in {5, 6}
        assert venue.simulation.exchange.time_ms == START_MS + 6_000
        venue.step()
        assert venue.simulation.exchange.time_ms == START_MS + 6_000
        assert venue.blocks_skipped_total == 0


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 -- the exchange has no events of its own to wait for
            await asyncio.sleep(0)


async def test_stamps_are_never_ahead_of_the_wall_clock() -> None:
    async with server(paused=False, start_ms=None) as venue:
        exchange = venue.simulation.exchange
        first = exchange.time_ms
        assert 0 <= time.time_ns() // 1_000_000 - first < 1_000
        await until(lambda: exchange.time_ms >= first + 300)
        assert exchange.time_ms <= time.time_ns() // 1_000_000


async def test_time_can_be_held_and_let_go() -> None:
    async with server(paused=False, speed=50.0) as venue:
        exchange = venue.simulation.exchange
        await until(lambda: exchange.time_ms >= START_MS + 1_000)
        venue.pause()
        held = exchange.time_ms
        # 25 blocks would be due in this time.
        with pytest.raises(TimeoutError):
            await until(lambda: exchange.time_ms != held, 0.05)
        venue.step(3)
        assert exchange.time_ms == held + 300
        venue.resume()
        await until(lambda: exchange.time_ms >= held + 1_000)


async def test_an_exchange_that_breaks_down_hangs_up_and_says_why(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = server()
    await venue.start()
    async with http.ws_connect(venue.websocket_url) as socket:
        await drain(socket)
        monkeypatch.setattr(venue.simulation, "step", lambda now_ms: venue.simulation.exchange.begin_block(now_ms - 10**9))
        venue.resume()
        async with asyncio.timeout(5):
            message = await socket.receive()
        assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    with pytest.raises(ValueError, match="block times must rise"):
        await venue.stop()


async def test_how_the_loop_is_scheduled_does_not_change_what_happens() -> None:
    prints = []
    for options in ({"paused": True}, {"paused": False, "speed": 100.0, "duration_s": 20.0}):
        async with server(**options) as venue:
            if options["paused"]:
                venue.step(199)
            else:
                async with asyncio.timeout(20):
                    await venue.finished.wait()
            prints.append([venue.simulation.exchange.time_ms, list(venue.simulation.exchange.recent_trades[0])])
    assert prints[0] == prints[1]


async def test_a_client_that_is_told_nothing_for_a_minute_is_dropped(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.simulated.server.IDLE_LIMIT_S", 0.05)
    async with server(paused=False) as venue, http.ws_connect(venue.websocket_url) as socket:
        async with asyncio.timeout(10):
            message = await socket.receive()
        assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
        assert venue.idle_drops_total == 1


async def test_a_makers_address_is_an_account_and_the_snapshot_has_all_markets() -> None:
    async with server() as venue:
        assert len(venue.market_maker_accounts()) == 5
        assert set(venue.market_maker_accounts()) <= set(venue.account_addresses())
        state = venue.snapshot()
        assert set(state.markets) == set(COINS)
        assert state.time_ms == START_MS + 100
