"""A desk that tells a daemon of its accounts over a file, a websocket or a real broker, and the daemon that listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import aiomqtt
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from connectors.simulated.exchange import DEFINITION_RULES
from connectors.simulated.population import PopulationConfig
from connectors.simulated.server import SimulatedVenueServer
from monitor.app import Daemon
from monitor.config import Config, parse_config
from tests.servers import Mosquitto

TIME_NS = time.time_ns()
TOPIC = "desk/accounts"
RESYNC_TOPIC = "desk/resync"


class Source(Protocol):
    """One way of telling; ``toml`` is the source table of its configuration."""

    toml: str
    can_be_asked: bool
    questions: list[Any]
    greeting: list[bytes]
    """What is told of anew after a loss."""

    async def send(self, *lines: bytes) -> None:
        """Tell some lines."""

    async def break_down(self) -> None:
        """Lose the connection; it comes back by itself, with the greeting."""


class FileSource:
    """A file that is appended to; when it is lost, it is written anew."""

    can_be_asked = False

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.jsonl"
        self._path.write_bytes(b"")
        # Relative to the configuration, which stands in the same folder.
        self.toml = f'source = {{type = "file", path = "{name}.jsonl", poll_interval_ms = 10}}'
        self.questions: list[Any] = []
        self.greeting: list[bytes] = []

    async def send(self, *lines: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))

    async def break_down(self) -> None:
        self._path.write_bytes(b"")
        await self.send(*self.greeting)


class WebsocketSource:
    """A server that greets everybody who connects."""

    can_be_asked = True

    def __init__(self) -> None:
        self.toml = ""
        self.questions: list[Any] = []
        self.greeting: list[bytes] = []
        self._peers: set[ServerConnection] = set()
        self._connected = asyncio.Event()

    async def handle(self, peer: ServerConnection) -> None:
        self._peers.add(peer)
        self._connected.set()
        try:
            for line in self.greeting:
                await peer.send(line)
            async for message in peer:
                self.questions.append(json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            self._peers.discard(peer)

    async def send(self, *lines: bytes) -> None:
        await self._connected.wait()
        for peer in self._peers:
            await peer.send(b"\n".join(lines))

    async def break_down(self) -> None:
        self._connected.clear()
        for peer in list(self._peers):
            peer.transport.abort()


class MqttSource:
    """A broker; when it is killed it forgets everything."""

    can_be_asked = True

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self.toml = (
            f'source = {{type = "mqtt", host = "127.0.0.1", port = {broker.port}, topic = "{TOPIC}/#", '
            f'resync_topic = "{RESYNC_TOPIC}", timeout_s = 3.0}}'
        )
        self.questions: list[Any] = []
        self.greeting: list[bytes] = []
        self.listening = asyncio.Event()
        self.subscribers = 0

    async def listen(self) -> None:
        """Collect the questions of the daemon until cancelled."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", self._broker.port) as client:
                    await client.subscribe(RESYNC_TOPIC, qos=1)
                    self.listening.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        self.questions.append(json.loads(message.payload))
            await asyncio.sleep(0.05)

    async def send(self, *lines: bytes) -> None:
        async with aiomqtt.Client("127.0.0.1", self._broker.port) as client:
            for line in lines:
                await client.publish(f"{TOPIC}/all", line, qos=1)

    async def break_down(self) -> None:
        await asyncio.to_thread(self._broker.restart)


@contextlib.asynccontextmanager
async def source_of(kind: str, folder: Path) -> AsyncIterator[Source]:
    """Open one way of telling."""
    if kind == "file":
        yield FileSource(folder, "house")
    elif kind == "websocket":
        source = WebsocketSource()
        async with serve(source.handle, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            source.toml = f'source = {{type = "websocket", url = "ws://127.0.0.1:{port}"}}'
            yield source
    else:
        with Mosquitto() as broker:
            over_mqtt = MqttSource(broker)
            listener = asyncio.create_task(over_mqtt.listen())
            await over_mqtt.listening.wait()
            try:
                yield over_mqtt
            finally:
                listener.cancel()
                await asyncio.wait({listener})


def message(kind: str, **fields: Any) -> bytes:
    """Return a line of the feed."""
    return json.dumps({"type": kind, **({} if kind == "instruments" else {"time_ns": TIME_NS}), **fields}).encode()


def snapshot(account: str, sequence: int, cash: float, *positions: dict[str, Any], **more: Any) -> bytes:
    """Return a line that tells all of an account."""
    fields = {"account": account, "sequence": sequence, "cash_usd": cash, "positions": positions, "holdings": []}
    return message("snapshot", **{**fields, **more})


def delta(account: str, sequence: int, **more: Any) -> bytes:
    """Return a line that tells what changed in an account."""
    return message("delta", account=account, sequence=sequence, **more)


class Watch:
    """A running daemon and its API."""

    def __init__(self, daemon: Daemon, config: Config, client: aiohttp.ClientSession, public_accounts: int) -> None:
        self.daemon = daemon
        self.public_accounts = public_accounts
        self.config = config
        self._client = client

    async def get(self, path: str) -> Any:
        """Ask the API, later if it is busy."""
        assert self.daemon.web is not None
        while True:
            async with self._client.get(f"http://127.0.0.1:{self.daemon.web.port}{path}") as response:
                if response.status != 503:
                    return await response.json() if response.status == 200 else response.status
            await asyncio.sleep(0.05)

    async def states(self, *accounts: str) -> dict[str, str]:
        """Return which accounts of the desk are live."""
        answers = {account: await self.get(f"/api/v1/accounts/desk/{account}") for account in accounts}
        return {account: str(answer) if isinstance(answer, int) else answer["state"] for account, answer in answers.items()}

    async def reaches(self, account: str, sequence: int) -> Any:
        """Wait until a message of an account has been applied, and return the account."""
        async with asyncio.timeout(20.0):
            while (report := await self.get(f"/api/v1/accounts/desk/{account}"))["sequence"] != sequence:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return report

    async def until_states(self, **expected: str) -> None:
        """Wait until the API says so."""
        found: dict[str, str] = {}
        try:
            async with asyncio.timeout(20.0):
                while found != expected:
                    await asyncio.sleep(0.02)
                    found = await self.states(*expected)
        except TimeoutError:
            pytest.fail(f"after 20 s it still is {found} and not {expected}")


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for something that the daemon's own tasks bring about."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - the daemon does not tell tests what it has done
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"after {timeout_s} s still not: {what}")


@contextlib.asynccontextmanager
async def watching(folder: Path, *feeds: str) -> AsyncIterator[Watch]:
    """Run a daemon that watches a small public exchange and has these feeds beside it."""
    population = PopulationConfig(accounts=20, unified_share=0.0)
    server = SimulatedVenueServer(
        seed=3, population=population, exchange=DEFINITION_RULES, weight_per_minute=None, paused=True, agents=False
    )
    async with server, aiohttp.ClientSession() as client:
        text = f"""
            [http]
            port = 0
            [staleness]
            mark_s = 600.0
            book_s = 600.0
            [recording]
            enabled = true
            [[venues]]
            name = "hyperliquid"
            symbols = ["BTC"]
            websocket_url = "{server.websocket_url}"
            rest_url = "{server.rest_url}"
            rest_weight_per_minute = 1000000
            seed_accounts = {json.dumps(server.account_addresses())}
            """
        config = parse_config(text + "\n".join(feeds), folder, {})
        daemon = Daemon(config)
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))
        try:
            await daemon.ready.wait()
            server.step(10)
            # The mode of an account that holds nothing is not asked for.
            holders = int((server.simulation.table.lots != 0).any(axis=1).sum())
            await until(lambda: public_live(daemon) == holders, "all public accounts live")
            yield Watch(daemon, config, client, holders)
        finally:
            stop.set()
            await running


def public_live(daemon: Daemon) -> int:
    """Return how many accounts of the public exchange are live."""
    accounts = daemon.engine.accounts
    return accounts.counts("hyperliquid", daemon.now_ns(), daemon.engine.account_age_max_ns).live
