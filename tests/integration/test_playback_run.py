"""The same recording, once read from its files and once served by playback to the daemon over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from connectors.frames import Frame
from connectors.importers import open_recording, write_native
from connectors.playback import PlaybackBackend
from connectors.registry import VENUES
from connectors.serving import RestReply, VenueServer
from monitor.app import Daemon
from monitor.commands.playback import as_a_daemon_needs_it, survey
from monitor.config import Config, load_config
from monitor.projection import MarketProjection
from monitor.replay import Replay
from monitor.settings import ProjectionSettings, StalenessSettings, VenueConfig
from monitor.web.settings import HttpSettings
from tests.conftest import missing
from tests.integration.captures import BTC, ETH, LIQMON, Book, book_of, environment, is_depth, replayed, settings

TIMEOUT_S = 60.0
SOCKETS = 2
"""Binance's streams are split over two hosts, so the daemon opens two sockets."""


class Served(PlaybackBackend):
    """A playback that also tells which requests it got."""

    def __init__(self, frames: list[Frame]) -> None:
        found = survey(iter(frames))
        super().__init__(lambda: as_a_daemon_needs_it(iter(frames), found), found.venue, "max", start_when=SOCKETS)
        self.requests: list[str] = []
        self.news = asyncio.Event()

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        self.requests.append(path_and_query)
        self.news.set()
        return await super().requested(method, path_and_query, body)


@contextlib.asynccontextmanager
async def serving(frames: list[Frame]) -> AsyncIterator[tuple[VenueServer, Served]]:
    backend = Served(frames)
    server = VenueServer(backend, ping_interval_s=backend.ping_interval_s)
    await server.start()
    playing = asyncio.create_task(backend.run())
    try:
        yield server, backend
    finally:
        playing.cancel()
        await server.stop()
        await asyncio.wait({playing})


async def settled(news: asyncio.Event, condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` holds, looking at it whenever there is news."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                news.clear()
                await news.wait()
    except TimeoutError:
        pytest.fail(f"after {TIMEOUT_S} s still not: {what}")


async def unless_ended(waiting: Coroutine[Any, Any, None], ended: asyncio.Future[Any]) -> None:
    """Wait, but no longer than what is waited for lives."""
    task = asyncio.create_task(waiting)
    await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        pytest.fail(f"it ended early: {ended}")
    await task


def venue_config(server: VenueServer, *symbols: str) -> VenueConfig:
    return VenueConfig(name="binance", symbols=symbols, websocket_url=server.websocket_url, rest_url=server.rest_url)


def config_text(server: VenueServer, *symbols: str, http: str) -> str:
    return f"""
        [http]
        {http}
        [projection]
        barrier_levels_max = 5000
        [staleness]
        book_s = {TIMEOUT_S}
        mark_s = {TIMEOUT_S}
        [[venues]]
        name = "binance"
        symbols = {json.dumps(symbols)}
        websocket_url = "{server.websocket_url}"
        rest_url = "{server.rest_url}"
        [log]
        format = "json"
        """


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> list[Frame]:
    return list(BTC.frames(shared_data))


class Direct(NamedTuple):
    """What a replay of the files ends with."""

    book: Book
    market: MarketProjection


@pytest.fixture(scope="module")
def direct(recorded: list[Frame]) -> Direct:
    base = settings()
    detailed = msgspec.structs.replace(base, projection=ProjectionSettings(interval_ms=10_000, barrier_levels_max=5_000))
    replay = Replay(detailed, VENUES)
    replay.run(recorded)
    assert replay.projection is not None
    return Direct(book_of(replay.engine, "BTCUSDT"), replay.projection.markets[0])


async def test_the_daemon_ends_with_the_same_book_as_a_replay_of_the_file(recorded: list[Frame], direct: Direct) -> None:
    news = asyncio.Event()
    async with serving(recorded) as (server, backend):
        config = Config(
            instance="playback",
            http=HttpSettings(enabled=False),
            staleness=StalenessSettings(book_s=TIMEOUT_S, mark_s=TIMEOUT_S),
            venues=(venue_config(server, "BTCUSDT"),),
        )
        daemon = Daemon(config, on_projection=lambda _projection: news.set())
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))

        def drained() -> bool:
            received = sum(connection.health().messages for connection in daemon.connections)
            return backend.finished.is_set() and received == backend.counts.sent_total and daemon.status().intake_frames == 0

        try:
            await unless_ended(settled(news, drained, "everything that was played has been applied"), running)
            assert backend.counts.sent_total == sum(frame.connection != "rest" for frame in recorded)
            assert book_of(daemon.engine, "BTCUSDT") == direct.book
            assert len(direct.book.bids) > 5_000
            assert len(direct.book.asks) > 3_000
            assert daemon.engine.touch("binance", "BTCUSDT") == (direct.book.bids[0][0], direct.book.asks[0][0])
            [market] = daemon.engine.project(daemon.now_ns()).markets
            assert not market.stale
            assert market.reference_price == direct.market.reference_price
            counters = daemon.engine.counters["binance"]
            assert (counters.parse_errors, counters.gaps, daemon.status().intake_dropped) == ({}, 0, 0)
            assert backend.counts.holds_expired_total == 0
        finally:
            stop.set()
            await running


# ------------------------------------------------------------------------------------------------------------ real processes


@contextlib.asynccontextmanager
async def liqmon(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command as it is installed, and end it if the test has not."""
    if not os.access(LIQMON, os.X_OK):
        missing(f"liqmon is not installed as {LIQMON}")
    process = await asyncio.create_subprocess_exec(
        LIQMON,
        *map(str, arguments),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(stream: asyncio.StreamReader | None, text: bytes) -> bytes:
    """Read on to the first line that holds ``text``."""
    assert stream is not None
    seen = []
    async for line in stream:
        seen.append(line)
        if text in line:
            return line
    pytest.fail(f"no line with {text!r} in {seen}")


async def asked(get: Callable[[], Awaitable[Any]], condition: Callable[[Any], bool]) -> Any:
    """Ask again until the answer satisfies ``condition``; the caller has set a deadline."""
    while True:
        if condition(answer := await get()):
            return answer
        await asyncio.sleep(0.05)


async def test_liqmon_run_shows_the_same_book_over_its_api(recorded: list[Frame], direct: Direct, tmp_path: Path) -> None:
    async with serving(recorded) as (server, backend), aiohttp.ClientSession() as client:
        config = tmp_path / "liqmon.toml"
        config.write_text(config_text(server, "BTCUSDT", http="port = 0"))
        async with liqmon("run", "-c", config) as process:
            url = json.loads(await line_with(process.stderr, b'"listening"'))["url"]

            async def get(path: str) -> Any:
                async with client.get(f"{url}{path}") as response:
                    assert response.status == 200
                    return await response.json()

            def applied(status: Any) -> bool:
                daemon = status["daemon"] or {"connections": [], "intake_frames": 1}
                received = sum(item["messages"] for item in daemon["connections"] if item["connection"] != "rest")
                return (
                    backend.finished.is_set()
                    and received == backend.counts.sent_total > 0
                    and daemon["intake_frames"] == 0
                    # The status is from at most a second ago; what was projected after it includes all that it counts.
                    and status["as_of_ns"] > daemon["as_of_ns"]
                )

            status = await asked(lambda: get("api/v1/status"), applied)
            market = await get("api/v1/markets/binance/BTCUSDT")
            assert status["ready"]
            assert [(venue["gaps"], venue["parse_errors"]) for venue in status["venues"]] == [(0, {})]
            assert (market["best_bid"], market["best_ask"]) == (direct.book.bids[0][0], direct.book.asks[0][0])
            assert market["book_levels"] == len(direct.book.bids) + len(direct.book.asks)
            assert market["reference_price"] == direct.market.reference_price
            # With no accounts known the barrier to each level is the depth before it, so every size has to be the same.
            for name, cascade in (("down", direct.market.cascade_down), ("up", direct.market.cascade_up)):
                assert cascade is not None
                assert len(cascade.barrier) > 900
                assert market["cascade"][name]["barrier"] == list(msgspec.to_builtins(cascade.barrier))
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_what_liqmon_record_writes_replays_to_the_same_book(
    shared_data: Path, recorded: list[Frame], direct: Direct, tmp_path: Path
) -> None:
    # A change of another market's book comes last. The recorder lacks the snapshot for it and asks for one, which proves that
    # everything before it has been received and written.
    last_ns = recorded[-1].received_ns
    foreign = next(frame for frame in ETH.frames(shared_data) if is_depth(frame))
    frames = [*recorded, msgspec.structs.replace(foreign, received_ns=last_ns)]
    folder = tmp_path / "recorded"
    async with serving(frames) as (server, backend):
        config = tmp_path / "liqmon.toml"
        config.write_text(config_text(server, "BTCUSDT", "ETHUSDT", http="enabled = true"))
        async with liqmon("record", "-c", config, "-o", folder) as process:
            ended = asyncio.create_task(process.wait())
            asks = settled(
                backend.news,
                lambda: any("/depth" in path and "ETHUSDT" in path for path in backend.requests),
                "the recorder asks for the other book",
            )
            await unless_ended(asks, ended)
            process.send_signal(signal.SIGINT)
            assert await ended == 0
    names = sorted(path.name.split(".")[1] for path in folder.iterdir() if path.suffix == ".zst")
    assert set(names) == {"market", "public", "rest"}
    assert [path.name for path in folder.iterdir() if path.suffix != ".zst"] == []
    again = list(open_recording([folder]))
    depths = [frame.payload for frame in recorded if is_depth(frame, "BTCUSDT")]
    assert [frame.payload for frame in again if is_depth(frame, "BTCUSDT")] == depths
    replay = replayed(again)
    assert book_of(replay.engine, "BTCUSDT") == direct.book
    counters = replay.engine.counters["binance"]
    assert (counters.parse_errors, counters.gaps) == ({}, 0)
    async with liqmon("replay", folder, "-c", config, "--summary", tmp_path / "summary.json") as process:
        assert await process.wait() == 0
    markets = {market["symbol"]: market for market in json.loads((tmp_path / "summary.json").read_bytes())["markets"]}
    assert markets["BTCUSDT"]["book_levels"] == len(direct.book.bids) + len(direct.book.asks)
    assert markets["ETHUSDT"]["stale"]


# -------------------------------------------------------------------------------------------------------- liqmon playback


@pytest.fixture
def small(recorded: list[Frame], tmp_path: Path) -> tuple[Path, list[Frame]]:
    """The first seconds of the recording in our own format."""
    frames = recorded[:3_000]
    folder = tmp_path / "small"
    write_native(iter(frames), folder)
    return folder, frames


def served_config(output: bytes) -> str:
    """Take the section of a configuration out of what the command says."""
    lines = output.decode().splitlines()
    return "\n".join(lines[lines.index("[[venues]]") :])


async def announced(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    output = b""
    while b"rest_url" not in output:
        line = await process.stdout.readline()
        assert line, output
        output += line
    return output


async def test_liqmon_playback_serves_a_recording_to_its_end_and_says_where(
    small: tuple[Path, list[Frame]], tmp_path: Path
) -> None:
    folder, frames = small
    async with liqmon("playback", folder, "--port", "0", "--speed", "max", "--sockets", "2") as process:
        output = await announced(process)
        assert b"# 3,000 recorded frames; the first message is sent when 2 websockets have subscribed." in output
        assert b"lacks the list of markets" in output
        config = tmp_path / "printed.toml"
        config.write_text(served_config(output))
        [venue] = load_config(config, {}).venues
        assert (venue.name, venue.symbols) == ("binance", ("BTCUSDT",))
        async with aiohttp.ClientSession() as client:
            async with client.get(f"{venue.rest_url}/fapi/v1/exchangeInfo") as response:
                assert [item["symbol"] for item in (await response.json())["symbols"]] == ["BTCUSDT"]
            plans = VENUES["binance"].connections(venue.settings())
            received: dict[str, list[bytes]] = {plan.name: [] for plan in plans}

            async def listen(name: str, url: str) -> None:
                async with connect(url) as socket:
                    with contextlib.suppress(ConnectionClosed):
                        while True:
                            received[name].append(await socket.recv(decode=False))
                    assert socket.close_code == 1001

            async def fetch_snapshot() -> None:
                async with client.get(f"{venue.rest_url}/fapi/v1/depth?symbol=BTCUSDT&limit=1000") as response:
                    assert len((await response.json())["bids"]) == 1_000

            await asyncio.gather(fetch_snapshot(), *(listen(plan.name, plan.url) for plan in plans))
        assert await process.wait() == 0
        assert process.stdout is not None
        end = (await process.stdout.read()).decode()
    for name, payloads in received.items():
        assert payloads == [frame.payload for frame in frames if frame.connection == name]
    assert end.startswith(
        f"played to the end: {sum(map(len, received.values())):,} messages sent, 0 that nobody had subscribed to, 0 "
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_liqmon_playback_stops_when_told_to(small: tuple[Path, list[Frame]], number: signal.Signals) -> None:
    async with liqmon("playback", small[0], "--port", "0") as process:
        await announced(process)
        process.send_signal(number)
        stdout, stderr = await process.communicate()
        assert (process.returncode, stderr) == (0, b"")
        assert stdout.startswith(b"stopped: 0 messages sent")


async def test_liqmon_playback_on_a_taken_port_fails_and_names_it(small: tuple[Path, list[Frame]]) -> None:
    async with serving(small[1]) as (server, _), liqmon("playback", small[0], "--port", str(server.port)) as process:
        _, stderr = await process.communicate()
        assert process.returncode == 1
        assert f"cannot listen on port {server.port}".encode() in stderr


def refused(small: list[Frame]) -> Iterator[tuple[str, list[Frame], str]]:
    yield "empty", [], "empty"
    yield "two venues", [*small[:5], Frame("hyperliquid", "main", small[0].received_ns, b"{}")], "binance, hyperliquid"
    yield "unknown venue", [msgspec.structs.replace(small[0], venue="kraken")], "'kraken'; known here: binance, hyperliquid"


@pytest.mark.parametrize("name", ["empty", "two venues", "unknown venue"])
def test_a_recording_that_cannot_be_served_is_refused(recorded: list[Frame], name: str) -> None:
    frames, message = next((frames, message) for other, frames, message in refused(recorded) if other == name)
    with pytest.raises(Exception, match=message) as error:
        survey(iter(frames))
    assert type(error.value).__name__ == "UnfitRecordingError"


def test_a_recording_of_another_program_gets_what_a_daemon_asks_for_and_one_of_ours_passes_as_it_is(recorded: list[Frame]) -> None:
    part = recorded[:200]
    snapshot = next(frame for frame in part if frame.connection == "rest")
    first = next(frame for frame in part if is_depth(frame))
    assert part.index(snapshot) < part.index(first)
    market_list, *rest = as_a_daemon_needs_it(iter(part), survey(iter(part)))
    assert b'"/fapi/v1/exchangeInfo"' in (market_list.payload or b"")
    moved = rest.index(first) + 1
    assert rest[moved] == msgspec.structs.replace(snapshot, received_ns=first.received_ns)
    assert [*rest[:moved], *rest[moved + 1 :]] == [frame for frame in part if frame is not snapshot]
    ours = [market_list, *rest]
    found = survey(iter(ours))
    assert found.missing == ()
    assert list(as_a_daemon_needs_it(iter(ours), found)) == ours
