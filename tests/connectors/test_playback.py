"""Recordings served as the venue would serve them, to the `websockets` client and aiohttp's."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from connectors import playback
from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.importers import open_recording, write_native
from connectors.playback import PlaybackBackend, Speed
from connectors.recording import RecordingError
from connectors.serving import VenueServer

SECOND_NS = 1_000_000_000
START_NS = 1_784_000_000 * SECOND_NS


def message(second: float, payload: bytes | None, connection: str = "main", venue: str = "hyperliquid") -> Frame:
    return Frame(venue, connection, START_NS + round(second * SECOND_NS), payload)


def response(second: float, request: RestRequest, body: bytes, venue: str = "hyperliquid") -> Frame:
    return Frame(venue, "rest", START_NS + round(second * SECOND_NS), wrap_rest_response(request, body))


@asynccontextmanager
async def playing(
    source: Callable[[], Iterator[Frame]], venue: str, speed: Speed = "max", *, start_when: int = 1
) -> AsyncIterator[tuple[VenueServer, PlaybackBackend]]:
    backend = PlaybackBackend(source, venue, speed, start_when=start_when)
    server = VenueServer(backend, ping_interval_s=backend.ping_interval_s)
    await server.start()
    run = asyncio.create_task(backend.run())
    try:
        yield server, backend
    finally:
        await server.stop()
        run.cancel()
        await asyncio.wait({run})


def subscription(kind: str, **fields: object) -> str:
    return json.dumps({"method": "subscribe", "subscription": {"type": kind, **fields}})


async def collect(client: ClientConnection, count: int) -> list[bytes]:
    async with asyncio.timeout(20):
        return [await client.recv(decode=False) for _ in range(count)]


async def ended(backend: PlaybackBackend) -> None:
    async with asyncio.timeout(20):
        await backend.finished.wait()


async def is_quiet(client: ClientConnection) -> bool:
    """Whether everything that was sent has been received: the answer to a ping comes after all that was queued before it."""
    pong = await client.ping()
    async with asyncio.timeout(5):
        await pong
    try:
        async with asyncio.timeout(0.01):
            await client.recv()
    except TimeoutError:
        return True
    return False


async def test_the_real_hyperliquid_capture_is_served_by_subscription(shared_data: Path) -> None:
    path = shared_data / "data" / "ws_raw_hftbacktest" / "hyperliquid_btcusd_20250126.gz"
    recorded = [frame.payload or b"" for frame in open_recording([path])]
    books = [payload for payload in recorded if payload.startswith(b'{"channel":"l2Book"')]
    trades = [payload for payload in recorded if payload.startswith(b'{"channel":"trades"')]
    assert len(books) + len(trades) == len(recorded) == 55
    async with (
        playing(lambda: open_recording([path]), "hyperliquid", start_when=2) as (server, backend),
        connect(f"{server.websocket_url}/ws") as whole,
        connect(f"{server.websocket_url}/ws") as half,
    ):
        await whole.send('{"method":"ping"}')
        assert await whole.recv() == '{"channel":"pong"}'
        await whole.send(subscription("l2Book", coin="BTC"))
        filled = {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None, "fast": False}
        ack = {"channel": "subscriptionResponse", "data": {"method": "subscribe", "subscription": filled}}
        assert json.loads(await whole.recv()) == ack
        await whole.send(subscription("trades", coin="BTC"))
        assert json.loads(await whole.recv())["data"]["subscription"] == {"type": "trades", "coin": "BTC"}
        await half.send(subscription("trades", coin="BTC"))
        await half.recv()
        assert await collect(whole, len(recorded)) == recorded
        assert await collect(half, len(trades)) == trades
        await ended(backend)
        assert await is_quiet(half)
        assert backend.counts.sent_total == len(recorded) + len(trades)
        assert backend.playhead_ns == backend.last_received_ns


async def test_hyperliquid_answers_mistakes_as_the_venue_does() -> None:
    frames = [message(0, b'{"channel":"l2Book","data":{"coin":"BTC","levels":[[],[]]}}')]
    async with playing(lambda: iter(frames), "hyperliquid", start_when=2) as (server, _), connect(server.websocket_url) as client:

        async def ask(text: str) -> Any:
            await client.send(text)
            return json.loads(await client.recv())

        assert (await ask(subscription("trades", coin="BTC")))["channel"] == "subscriptionResponse"
        twice = await ask(subscription("trades", coin="BTC"))
        assert twice == {"channel": "error", "data": 'Already subscribed: {"type":"trades","coin":"BTC"}'}
        gone = json.dumps({"method": "unsubscribe", "subscription": {"type": "trades", "coin": "BTC"}})
        assert (await ask(gone))["data"]["method"] == "unsubscribe"
        assert await ask(gone) == {"channel": "error", "data": 'Already unsubscribed: {"type":"trades","coin":"BTC"}'}
        for text in ("hello", "[]", '{"method":"fly"}', '{"method":"subscribe"}', '{"method":"subscribe","subscription":{}}'):
            assert await ask(text) == {"channel": "error", "data": f"Error parsing JSON into valid websocket request: {text}"}
        # An unknown market of a channel without a book is acknowledged and silent.
        assert (await ask(subscription("trades", coin="NOPE")))["channel"] == "subscriptionResponse"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "l2Book", "coin": "NOPE"},
        {"kind": "l2Book", "coin": "btc"},
        {"kind": "bbo", "coin": "NOPE"},
        {"kind": "l2Book", "coin": "BTC", "nSigFigs": 6},
        {"kind": "l2Book", "coin": "BTC", "mantissa": 2},
    ],
)
async def test_an_unknown_coin_costs_the_socket_without_a_close_frame(wrong: dict[str, Any]) -> None:
    meta = RestRequest("POST", "/info", body='{"type":"meta"}')
    frames = [
        response(0, meta, b'{"universe":[{"name":"BTC","szDecimals":5},{"name":"ETH"}]}'),
        message(1, b'{"channel":"trades","data":[{"coin":"BTC"}]}'),
    ]
    async with playing(lambda: iter(frames), "hyperliquid", start_when=9) as (server, _), connect(server.websocket_url) as client:
        # A coin that is listed but was not recorded is acknowledged, like a delisted one on the real venue.
        await client.send(subscription("l2Book", coin="ETH"))
        assert json.loads(await client.recv())["channel"] == "subscriptionResponse"
        await client.send(subscription(**wrong))
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is None


async def test_books_of_different_rounding_go_to_the_sockets_that_asked_for_them() -> None:
    def ack(connection: str, figures: int) -> Frame:
        wanted = {"type": "l2Book", "coin": "BTC", "nSigFigs": figures, "mantissa": None, "fast": False}
        data = {"method": "subscribe", "subscription": wanted}
        return message(0, json.dumps({"channel": "subscriptionResponse", "data": data}, separators=(",", ":")).encode(), connection)

    exact = b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[],[]]}}'
    fast = b'{"channel":"l2Book","data":{"coin":"BTC","time":2,"levels":[[],[]],"fast":true}}'
    four = b'{"channel":"l2Book","data":{"coin":"BTC","time":4,"levels":[[],[]]}}'
    three = b'{"channel":"l2Book","data":{"coin":"BTC","time":3,"levels":[[],[]]}}'
    frames = [
        ack("odd-name", 4),
        message(1, exact, "book"),
        message(2, fast, "main"),
        message(3, four, "odd-name"),
        message(4, three, "book-3"),
    ]
    wanted: list[tuple[dict[str, object], bytes]] = [
        ({}, exact),
        ({"fast": True}, fast),
        ({"nSigFigs": 4}, four),
        ({"nSigFigs": 3}, three),
    ]
    async with playing(lambda: iter(frames), "hyperliquid", start_when=5) as (server, backend):
        clients = [await connect(server.websocket_url) for _ in wanted]
        for client, (fields, _) in zip(clients, wanted, strict=True):
            await client.send(subscription("l2Book", coin="BTC", **fields))
            await client.recv()
        async with connect(server.websocket_url) as fifth:
            await fifth.send(subscription("l2Book", coin="BTC", nSigFigs=2))
            await fifth.recv()
            await ended(backend)
            for client, (_, expected) in zip(clients, wanted, strict=True):
                assert await client.recv(decode=False) == expected
                assert await is_quiet(client)
            assert await is_quiet(fifth)
        for client in clients:
            await client.close()


@pytest.mark.parametrize("fields", [{}, {"fast": True}])
async def test_the_fast_and_the_slow_book_stand_in_for_each_other_when_only_one_was_recorded(fields: dict[str, object]) -> None:
    book = b'{"channel":"l2Book","data":{"coin":"BTC","time":2,"levels":[[],[]],"fast":true}}'
    async with (
        playing(lambda: iter([message(0, book)]), "hyperliquid") as (server, backend),
        connect(server.websocket_url) as client,
    ):
        await client.send(subscription("l2Book", coin="BTC", **fields))
        await client.recv()
        assert await client.recv(decode=False) == book
        await ended(backend)


async def test_user_channels_match_by_account_in_any_case() -> None:
    fills = b'{"channel":"userFills","data":{"user":"0xAB","fills":[]}}'
    other = b'{"channel":"userFills","data":{"user":"0xCD","fills":[]}}'
    events = b'{"channel":"user","data":{"fills":[]}}'
    frames = [message(0, other), message(1, fills), message(2, events)]
    async with playing(lambda: iter(frames), "hyperliquid") as (server, backend), connect(server.websocket_url) as client:
        await client.send(subscription("userFills", user="0xaB"))
        await client.send(subscription("userEvents", user="0xab"))
        assert [json.loads(text)["channel"] for text in await collect(client, 2)] == ["subscriptionResponse"] * 2
        assert await collect(client, 2) == [fills, events]
        await ended(backend)
        assert backend.counts.unclaimed_total == 1


async def test_the_real_binance_capture_is_served_over_both_routes_and_rest(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data" / "ws_raw_hftbacktest" / "usdm_ethusdt_20240718.gz"
    write_native(open_recording([source]), tmp_path / "native")
    with gzip.open(source) as file:
        lines = [line.rstrip(b"\n").split(b" ", 1)[1] for line in file]
    snapshot_at = next(number for number, line in enumerate(lines) if line.startswith(b'{"lastUpdateId"'))
    public = [line for line in lines if b"@depth" in line[:50] or b"@bookTicker" in line[:50]]
    market = [line for line in lines if b"@trade" in line[:50]]
    before = sum(1 for line in lines[:snapshot_at] if line in set(public[:100]))
    async with (
        playing(lambda: open_recording([tmp_path / "native"]), "binance", start_when=2) as (server, backend),
        aiohttp.ClientSession() as http,
        connect(f"{server.websocket_url}/public/stream?streams=ethusdt@depth@100ms/ethusdt@bookTicker") as books,
        connect(f"{server.websocket_url}/market/stream?streams=ethusdt@aggTrade/ethusdt@markPrice@1s") as tape,
    ):
        # The playhead stands at the snapshot until it is fetched; what came before it was sent.
        early = await collect(books, before)
        assert early == public[:before]
        assert await is_quiet(books)
        assert not backend.finished.is_set()
        async with http.get(f"{server.rest_url}/fapi/v1/depth?limit=1000&symbol=ETHUSDT") as reply:
            assert reply.status == 200
            assert await reply.read() == lines[snapshot_at]
        late, trades = await asyncio.gather(collect(books, len(public) - before), collect(tape, len(market)))
        assert early + late == public
        assert trades == market
        await ended(backend)
        assert await is_quiet(books)
        assert backend.counts.holds_expired_total == 0
        async with http.get(f"{server.rest_url}/fapi/v1/depth?symbol=ETHUSDT&limit=5") as reply:
            assert json.loads(await reply.read())["lastUpdateId"] == 4_984_028_386_786
        async with http.get(f"{server.rest_url}/fapi/v1/exchangeInfo") as reply:
            assert reply.status == 404
            assert "GET /fapi/v1/exchangeInfo" in (await reply.json())["error"]
        assert backend.counts.not_held_total == 1


async def test_a_snapshot_that_is_asked_for_before_the_playhead_is_there_waits_for_it(shared_data: Path) -> None:
    """The client buffers the stream meanwhile, so the first change it applies straddles the snapshot (venues.md 2.2)."""
    path = shared_data / "data" / "ws_raw_hftbacktest" / "usdm_ethusdt_20240718.gz"
    async with (
        playing(lambda: open_recording([path]), "binance") as (server, backend),
        aiohttp.ClientSession() as http,
    ):
        asked = asyncio.create_task(http.get(f"{server.rest_url}/fapi/v1/depth?symbol=ETHUSDT&limit=1000"))
        async with connect(f"{server.websocket_url}/public/ws/ethusdt@depth@100ms", max_queue=None) as client:
            async with asyncio.timeout(20):
                reply = await asked
            last_id = json.loads(await reply.read())["lastUpdateId"]
            changes = [json.loads(text) for text in await collect(client, 3273)]
            assert all(change["e"] == "depthUpdate" for change in changes)
            applied = [change for change in changes if change["u"] >= last_id]
            assert applied[0]["U"] <= last_id <= applied[0]["u"]
            assert 3000 < len(applied) < len(changes)
            assert all(after["pu"] == before["u"] for before, after in itertools.pairwise(applied))
            await ended(backend)
    assert backend.counts.holds_expired_total == 0


def binance(second: float, stream: str, data: str = "{}", connection: str = "public") -> Frame:
    return message(second, f'{{"stream":"{stream}","data":{data}}}'.encode(), connection, "binance")


async def test_binance_requests_are_answered_and_the_wrong_route_stays_silent() -> None:
    frames = [
        binance(0, "btcusdt@depth@0ms", '{"e":"depthUpdate","s":"BTCUSDT"}'),
        binance(1, "btcusdt@aggTrade", '{"e":"aggTrade","s":"BTCUSDT"}', "market"),
        binance(2, "btcusdt@markPrice", '{"e":"markPriceUpdate","s":"BTCUSDT"}', "market"),
    ]
    async with (
        playing(lambda: iter(frames), "binance", start_when=2) as (server, backend),
        connect(f"{server.websocket_url}/public/stream") as public,
        connect(f"{server.websocket_url}/market/ws") as market,
    ):

        async def ask(client: ClientConnection, **request: object) -> Any:
            await client.send(json.dumps(request))
            return json.loads(await client.recv())

        assert await ask(market, method="LIST_SUBSCRIPTIONS", id=1) == {"result": [], "id": 1}
        streams = ["btcusdt@depth@500ms", "btcusdt@markPrice@1s"]
        assert await ask(public, method="SUBSCRIBE", params=[*streams, "btcusdt@aggTrade"], id="a") == {"result": None, "id": "a"}
        assert await ask(public, method="UNSUBSCRIBE", params=["btcusdt@aggTrade"], id=3) == {"result": None, "id": 3}
        assert await ask(public, method="LIST_SUBSCRIPTIONS", id=4) == {"result": streams, "id": 4}
        assert (await ask(public, method="FLY", id=5))["error"]["code"] == 2
        await public.send("nonsense")
        assert json.loads(await public.recv())["error"]["msg"].startswith("Invalid request")
        # Only one kind of tape was recorded, so it serves both; the book belongs to the other route and stays silent.
        assert await ask(market, method="SUBSCRIBE", params=["btcusdt@trade", "btcusdt@depth"], id=6) == {"result": None, "id": 6}
        await ended(backend)
        assert await public.recv(decode=False) == frames[0].payload
        assert await is_quiet(public)
        assert await market.recv() == '{"e":"aggTrade","s":"BTCUSDT"}'
        assert await is_quiet(market)


async def test_raw_recordings_are_wrapped_for_combined_sockets_and_unrouted_paths_get_the_public_half() -> None:
    raw = b'{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}'
    forced = b'{"e":"forceOrder","E":1,"o":{"s":"BTCUSDT","S":"SELL"}}'
    frames = [message(0, raw, "public", "binance"), message(1, forced, "market", "binance")]
    async with (
        playing(lambda: iter(frames), "binance", start_when=3) as (server, backend),
        connect(f"{server.websocket_url}/public/stream?streams=btcusdt%40depth") as combined,
        connect(f"{server.websocket_url}/ws/btcusdt@depth/btcusdt@forceOrder") as unrouted,
        connect(f"{server.websocket_url}/market/stream?streams=btcusdt@forceOrder/ethusdt@forceOrder") as market,
    ):
        assert await combined.recv(decode=False) == b'{"stream":"btcusdt@depth","data":' + raw + b"}"
        assert await unrouted.recv(decode=False) == raw
        assert await market.recv(decode=False) == b'{"stream":"btcusdt@forceOrder","data":' + forced + b"}"
        await ended(backend)
        assert await is_quiet(unrouted)


async def test_a_recorded_loss_drops_the_sockets_it_fed_and_waits_for_them_to_come_back() -> None:
    frames = [
        binance(0, "btcusdt@bookTicker", '{"u":1}'),
        binance(0, "btcusdt@aggTrade", '{"a":1}', "market"),
        message(1, None, "public", "binance"),
        binance(2, "btcusdt@bookTicker", '{"u":2}'),
        binance(2, "btcusdt@aggTrade", '{"a":2}', "market"),
    ]
    async with playing(lambda: iter(frames), "binance", start_when=2) as (server, backend):
        public_url = f"{server.websocket_url}/public/ws/btcusdt@bookTicker"
        async with (
            connect(f"{server.websocket_url}/market/ws/btcusdt@aggTrade") as market,
            connect(public_url) as dropped,
        ):
            assert await dropped.recv() == '{"u":1}'
            with pytest.raises(ConnectionClosed) as caught:
                await dropped.recv()
            assert caught.value.rcvd is None
            assert await market.recv() == '{"a":1}'
            assert await is_quiet(market)
            async with connect(public_url) as again:
                assert await again.recv() == '{"u":2}'
                assert await market.recv() == '{"a":2}'
                await ended(backend)
    assert (backend.counts.disconnects_total, backend.counts.holds_expired_total) == (1, 0)


async def test_holds_expire_when_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "HOLD_S", 0.05)
    depth = RestRequest("GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", weight=20)
    frames = [
        binance(0, "btcusdt@depth"),
        response(1, depth, b'{"lastUpdateId":1}', "binance"),
        response(1, RestRequest("GET", "/fapi/v1/depth?symbol=ETHUSDT&limit=1000"), b'{"lastUpdateId":1}', "binance"),
        message(2, None, "public", "binance"),
        binance(3, "btcusdt@depth"),
    ]
    async with (
        playing(lambda: iter(frames), "binance") as (server, backend),
        connect(f"{server.websocket_url}/public/ws/btcusdt@depth"),
    ):
        await ended(backend)
    # Nobody follows the other book, so its snapshot was not waited for.
    assert backend.counts.holds_expired_total == 2
    assert backend.counts.unclaimed_total == 1


async def test_rest_answers_are_the_latest_before_the_playhead_and_equal_requests_are_recognised() -> None:
    def state(user: str) -> RestRequest:
        return RestRequest("POST", "/info", body=json.dumps({"type": "clearinghouseState", "user": user, "dex": ""}))

    meta = RestRequest("POST", "/info", body='{"type":"metaAndAssetCtxs"}')
    trade = b'{"channel":"trades","data":[{"coin":"BTC"}]}'
    frames = [
        response(0, meta, b'[{"universe":[]},["first"]]'),
        message(1, trade),
        response(2, state("0xa"), b'{"time":1}'),
        response(3, state("0xa"), b'{"time":2}'),
        response(4, meta, b'[{"universe":[]},["second"]]'),
    ]
    async with playing(lambda: iter(frames), "hyperliquid") as (server, backend), aiohttp.ClientSession() as http:

        async def ask(body: str) -> tuple[int, bytes]:
            async with http.post(f"{server.rest_url}/info", data=body) as reply:
                return reply.status, await reply.read()

        # What was recorded before any message is there before anybody subscribes.
        assert await ask('{ "type": "metaAndAssetCtxs", "dex": "" }') == (200, b'[{"universe":[]},["first"]]')
        waiting = asyncio.create_task(ask('{"user":"0xa","type":"clearinghouseState"}'))
        status, body = await ask('{"user":"0xb","type":"clearinghouseState"}')
        assert status == 404
        assert "0xb" in json.loads(body)["error"]
        assert (await ask("not json"))[0] == 404
        async with connect(server.websocket_url) as client:
            await client.send(subscription("trades", coin="BTC"))
            # The request that waited gets the first answer, whatever follows at once.
            assert await waiting == (200, b'{"time":1}')
            await ended(backend)
            assert await ask('{"type":"clearinghouseState","user":"0xa"}') == (200, b'{"time":2}')
            assert await ask('{"type":"metaAndAssetCtxs"}') == (200, b'[{"universe":[]},["second"]]')


async def test_a_client_whose_start_depends_on_a_later_answer_gets_it_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "EARLY_S", 0.05)
    meta = RestRequest("GET", "/fapi/v1/exchangeInfo")
    frames = [binance(0, "btcusdt@depth"), response(9, meta, b'{"symbols":[]}', "binance")]
    async with playing(lambda: iter(frames), "binance") as (server, backend), aiohttp.ClientSession() as http:
        async with http.get(f"{server.rest_url}/fapi/v1/exchangeInfo") as reply:
            assert await reply.read() == b'{"symbols":[]}'
        assert backend.counts.answered_early_total == 1
        backend.start()
        await ended(backend)


async def test_tardis_records_answer_the_requests_that_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "binance-futures"
    path.write_bytes(
        b'2026-06-17T00:00:00.0000000Z {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","u":1}}\n'
        b'2026-06-17T00:00:01.0000000Z {"stream":"btcusdt@depthSnapshot","generated":true,"data":{"lastUpdateId":1,"bids":[]}}\n'
        b'2026-06-17T00:00:02.0000000Z {"stream":"btcusdt@openInterest","generated":true,"data":{"openInterest":"1.50"}}\n'
    )
    async with (
        playing(lambda: open_recording([path]), "binance") as (server, backend),
        aiohttp.ClientSession() as http,
        connect(f"{server.websocket_url}/public/ws/btcusdt@depth@100ms") as client,
    ):
        assert await client.recv() == '{"e":"depthUpdate","u":1}'
        async with http.get(f"{server.rest_url}/fapi/v1/depth?symbol=BTCUSDT&limit=1000") as reply:
            assert await reply.read() == b'{"lastUpdateId":1,"bids":[]}'
        await ended(backend)
        async with http.get(f"{server.rest_url}/fapi/v1/openInterest?symbol=BTCUSDT") as reply:
            assert await reply.read() == b'{"openInterest":"1.50"}'


async def test_recorded_time_passes_at_the_asked_speed() -> None:
    frames = [binance(second / 10, "btcusdt@bookTicker", f'{{"u":{second}}}') for second in range(21)]
    loop = asyncio.get_running_loop()
    async with (
        playing(lambda: iter(frames), "binance", 10.0) as (server, backend),
        connect(f"{server.websocket_url}/public/ws/btcusdt@bookTicker") as client,
    ):
        await client.recv()
        first_s = loop.time()
        await collect(client, 20)
        elapsed_s = loop.time() - first_s
        await ended(backend)
    # Two recorded seconds at speed ten, never faster; a busy machine may be late.
    assert 0.15 < elapsed_s < 2.0


async def test_a_damaged_recording_closes_clients_and_answers_instead_of_hanging(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(b'1680652700423 {"channel":"trades","data":[]}\ngarbage\n')
    backend = PlaybackBackend(lambda: open_recording([path]), "hyperliquid")
    server = VenueServer(backend)
    await server.start()
    try:
        async with connect(server.websocket_url) as client, aiohttp.ClientSession() as http:
            asked = asyncio.create_task(http.post(f"{server.rest_url}/info", data=b"{}"))
            with pytest.raises(RecordingError):
                await backend.run()
            with pytest.raises(ConnectionClosed):
                await client.recv()
            async with asyncio.timeout(5):
                reply = await asked
            assert reply.status == 500
    finally:
        await server.stop()


async def test_frames_of_other_venues_and_damaged_answers_are_passed_over() -> None:
    frames = [
        Frame("okx", "ws1", START_NS, b"{}"),
        Frame("binance", "rest", START_NS, b'{"generated":true,"request":{"torn'),
        Frame("binance", "public", START_NS, b"\xff\x00"),
        Frame("binance", "rest", START_NS, None),
        binance(1, "btcusdt@bookTicker", '{"u":1}'),
    ]
    async with (
        playing(lambda: iter(frames), "binance") as (server, backend),
        connect(f"{server.websocket_url}/public/ws/btcusdt@bookTicker") as client,
    ):
        assert await client.recv() == '{"u":1}'
        await ended(backend)


def test_unknown_venues_and_speeds_are_refused() -> None:
    with pytest.raises(ValueError, match="okx"):
        PlaybackBackend(lambda: iter(()), "okx")
    with pytest.raises(ValueError, match="speed"):
        PlaybackBackend(lambda: iter(()), "binance", 0.0)
