"""Feeds of one daemon: frames into the intake, questions out, and what is told of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog
from websockets.asyncio.server import ServerConnection

from connectors.account_feed import AccountFeed, AccountFeedError
from connectors.account_settings import AccountFeedSettings
from connectors.frames import Frame
from connectors.intake import FrameIntake
from connectors.venue import FeedError
from monitor.account_inputs import REFUSED_EVERY_S, AccountInputs, RefusalLog
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.ingest import Ingest
from monitor.settings import ProjectionSettings, StalenessSettings
from tests.connectors.feed_sources import TIME_NS, delta, snapshot
from tests.connectors.loopback import serving, until


def feed_settings(name: str, source: dict[str, Any], venue: str = "desk") -> AccountFeedSettings:
    fields = {"name": name, "venue": venue, "symbols": ["BTC-PERP"], "silence_s": None, "source": source}
    return AccountFeedSettings.model_validate_json(json.dumps(fields), strict=True)


class Running:
    """An engine and its inputs; frames are applied as they come."""

    def __init__(self, *feeds: AccountFeedSettings) -> None:
        self.engine = Engine(
            EngineSettings(
                symbols={"desk": ("BTC-PERP",), "other": ("BTC-PERP",)},
                projection=ProjectionSettings(),
                staleness=StalenessSettings(),
                feeds=tuple(feed.name for feed in feeds),
            )
        )
        self.intake = FrameIntake()
        self.inputs = AccountInputs(self.engine, feeds, intake=self.intake, seed=1, clock_ns=lambda: TIME_NS)
        self._ingest = Ingest(self.engine, {feed.name: feed.feed() for feed in feeds})

    async def apply(self) -> None:
        while True:
            self._ingest.apply_all(await self.intake.take(100))

    def live(self, venue: str = "desk") -> set[str]:
        accounts = self.engine.accounts
        rows = accounts.rows_of(venue)
        return {accounts.name(row)[1] for row in rows[accounts.is_live(rows, TIME_NS, 10**12)].tolist()}


@contextlib.asynccontextmanager
async def running(*feeds: AccountFeedSettings) -> AsyncIterator[Running]:
    result = Running(*feeds)
    tasks = [asyncio.create_task(result.inputs.run()), asyncio.create_task(result.apply())]
    try:
        yield result
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done), done


async def test_without_feeds_there_is_nothing_to_run() -> None:
    async with asyncio.timeout(1.0):
        await Running().inputs.run()
    assert Running().inputs.health() == []


async def test_feeds_of_two_kinds_reach_the_core_and_each_is_asked_for_its_own_accounts(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async def handler(peer: ServerConnection) -> None:
        await peer.send(snapshot("a", 1) + b"\n" + snapshot("b", 1))
        await peer.send(delta("a", 3))
        async for message in peer:
            question = json.loads(message)
            asked.append(question)
            await peer.send(snapshot(question["account"], 3))

    path = tmp_path / "accounts.jsonl"
    path.write_bytes(snapshot("a", 7) + b"\n" + snapshot("c", 7) + b"\n")
    async with serving(handler) as url:
        socket = feed_settings("socket", {"type": "websocket", "url": url})
        file = feed_settings("file", {"type": "file", "path": str(path), "poll_interval_ms": 10}, venue="other")
        async with running(socket, file) as world:
            await until(lambda: bool(asked))
            await until(lambda: world.live() == {"a", "b"} and world.live("other") == {"a", "c"})
            assert asked == [{"type": "resync", "account": "a", "after_sequence": 1}]
            with path.open("ab") as file_again:
                file_again.write(delta("c", 9) + b"\n")
            await until(lambda: world.live("other") == {"a"})
            demands = world.engine.changes.resync_demands()
            assert [(item.feed, item.venue, item.account) for item in demands] == [("file", "other", "c")]
            with path.open("ab") as file_again:
                file_again.write(snapshot("c", 9) + b"\n")
            await until(lambda: world.live("other") == {"a", "c"})
    assert len(asked) == 1


async def test_an_account_that_was_never_seen_is_asked_for_without_a_number() -> None:
    asked: list[bytes] = []

    async def handler(peer: ServerConnection) -> None:
        await peer.send(delta("new", 3))
        async for message in peer:
            assert isinstance(message, str | bytes)
            asked.append(message if isinstance(message, bytes) else message.encode())

    async with serving(handler) as url, running(feed_settings("socket", {"type": "websocket", "url": url})) as world:
        await until(lambda: bool(asked))
        assert json.loads(asked[0]) == {"type": "resync", "account": "new", "after_sequence": None}
        assert world.live() == set()


async def test_health_names_the_feed_and_counts_what_happened(tmp_path: Path) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send(snapshot("a", 1))
        await peer.send(delta("a", 3))
        await peer.wait_closed()

    path = tmp_path / "accounts.jsonl"
    async with serving(handler) as url:
        socket = feed_settings("socket", {"type": "websocket", "url": url})
        file = feed_settings("file", {"type": "file", "path": str(path), "poll_interval_ms": 10}, venue="other")
        async with running(socket, file) as world:
            await until(lambda: "resyncs asked" in world.inputs.health()[0].detail)
            first, second = world.inputs.health()
            assert (first.venue, first.connection, first.state, first.detail) == ("desk", "socket", "connected", "1 resyncs asked")
            assert (first.connects, first.disconnects, first.messages, first.last_message_ns) == (1, 0, 2, TIME_NS)
            assert (second.venue, second.connection, second.state) == ("other", "file", "waiting")
            assert "No such file" in second.detail
            path.write_bytes(snapshot("a", 1) + b"\n" + snapshot("b", 1) + b"\n")
            await until(lambda: world.inputs.health()[1].messages == 2)
            path.write_bytes(snapshot("a", 9) + b"\n")
            await until(lambda: "1 truncations" in world.inputs.health()[1].detail)
            assert world.inputs.health()[1].state == "connected"
            await until(lambda: world.live("other") == {"a"})


# ------------------------------------------------------------------------------------------------------------------------ refusals


def logged(happen: Callable[[RefusalLog, list[float]], None]) -> list[dict[str, Any]]:
    clock = [100.0]
    with structlog.testing.capture_logs() as entries:
        happen(RefusalLog(lambda: clock[0]), clock)
    return [dict(entry) for entry in entries]


def refusal(payload: bytes, name: str = "house") -> FeedError:
    try:
        AccountFeed(name, "desk").parse(Frame(name, name, TIME_NS, payload))
    except AccountFeedError as error:
        return error
    raise AssertionError("it was not refused")


def test_a_refused_line_is_logged_with_the_field_and_without_its_value() -> None:
    secret = b'"hunter2-hunter2"'
    error = refusal(
        delta("a", 1, positions=[{"symbol": "BTC-PERP", "size": 1, "entry_price": "secret"}]).replace(b'"secret"', secret)
    )
    [entry] = logged(lambda log, _: log(error))
    assert entry == {
        "event": "message_refused",
        "log_level": "warning",
        "source": "house",
        "reason": "wrong_type",
        "detail": "positions[0].entry_price: expected `float | null`, got `str`",
        "unsaid": 0,
    }


def test_a_source_that_is_wrong_with_every_message_fills_no_disk() -> None:
    one, other = refusal(delta("a", 1, nonsense=1)), refusal(b"{")
    elsewhere = refusal(b"{", "second")

    def happen(log: RefusalLog, clock: list[float]) -> None:
        for _ in range(1_000):
            log(one)
        log(other)
        log(elsewhere)
        clock[0] += REFUSED_EVERY_S
        log(one)
        log(one)

    entries = logged(happen)
    assert [(entry["source"], entry["reason"], entry["unsaid"]) for entry in entries] == [
        ("house", "wrong_type", 0),
        ("house", "not_json", 0),
        ("second", "not_json", 0),
        ("house", "wrong_type", 999),
    ]
