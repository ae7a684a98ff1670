"""The simulated exchange as a server on loopback: the clock, and the way from blocks to sockets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from connectors.serving import RestReply, Session, VenueServer
from connectors.simulated.brute_force import ExchangeSnapshot, snapshot
from connectors.simulated.channels import Cadences, Channels, Limits
from connectors.simulated.exchange import ExchangeConfig
from connectors.simulated.info import WEIGHT_PER_MINUTE, Info, WeightBudget
from connectors.simulated.node_output import NodeOutput, block_line
from connectors.simulated.population import PopulationConfig
from connectors.simulated.scenario import CrashShape, ScenarioName
from connectors.simulated.simulation import Simulation, SimulationConfig

BLOCK_MS: Final = 100
"""The real venue's blocks come every 70 ms or so."""

CATCH_UP_BLOCKS: Final = 20
"""Blocks made in one go after the loop was held up: at 1 to 2 ms each, 40 ms. What is beyond is not made up for but counted."""

IDLE_LIMIT_S: Final = 60.0
"""A session to which nothing was sent for this long is dropped without a close frame (venues.md 1.2)."""

WEBSOCKET_PATH: Final = "/ws"
INFO_PATH: Final = "/info"


class SimulatedVenueServer:
    """A simulated Hyperliquid on ``websocket_url`` and ``rest_url``.

    Blocks lie on a fixed grid of exchange time, so their content depends on the configuration alone, never on how the event loop
    was scheduled. All methods belong to the loop that called :meth:`start`.

    Attributes:
        simulation: The world that is served; look, but step it through :meth:`step` only.
        finished: Set when ``duration_s`` of exchange time has passed; the server then stays up but falls silent.
        blocks_skipped_total: Blocks that were not made because the loop was held up; exchange time then lags wall time.
        idle_drops_total: Sessions dropped because nothing was sent to them for a minute.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        scenario: ScenarioName = "calm",
        duration_s: float | None = None,
        speed: float = 1.0,
        population: PopulationConfig | None = None,
        exchange: ExchangeConfig | None = None,
        crash: CrashShape | None = None,
        cadences: Cadences | None = None,
        limits: Limits | None = None,
        weight_per_minute: int | None = WEIGHT_PER_MINUTE,
        start_ms: int | None = None,
        paused: bool = False,
        agents: bool = True,
        node_directory: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Build the exchange; nothing listens and no time passes before :meth:`start`.

        Args:
            seed: Decides everything that is random, the addresses included.
            scenario: The course of events.
            duration_s: Exchange time after which no further block is made; ``None`` goes on for ever.
            speed: Seconds of exchange time per second of the clock.
            population: How many accounts of which kind.
            exchange: Rules that may be switched.
            crash: The shape of the ``crash`` scenario.
            cadences: How often what is sent.
            limits: Limits on subscriptions.
            weight_per_minute: The REST limit; ``None`` switches it off.
            start_ms: The exchange's time at the start; the wall clock's when ``None``.
            paused: Start with the clock held, for :meth:`step`.
            agents: Whether anybody trades of their own will.
            node_directory: Where to write what a node that follows the exchange would write (every fill of every account); block
                numbers count from the epoch, so a restart leaves a hole but nothing comes twice. ``None`` writes nothing.
            host: A loopback address.
            port: 0 picks a free one.
        """
        if speed <= 0.0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.simulation = Simulation(
            SimulationConfig(
                seed=seed,
                scenario=scenario,
                population=population or PopulationConfig(),
                exchange=exchange or ExchangeConfig(),
                crash=crash or CrashShape(),
                # The first block is made at once and lies one block later; no stamp may be ahead of the wall clock.
                start_ms=time.time_ns() // 1_000_000 - BLOCK_MS if start_ms is None else start_ms,
                agents=agents,
            )
        )
        self.finished = asyncio.Event()
        self.blocks_skipped_total = 0
        self.idle_drops_total = 0
        self._blocks_left = None if duration_s is None else round(duration_s * 1_000 / BLOCK_MS)
        self._block_interval_s = BLOCK_MS / 1_000 / speed
        self._info = Info(self.simulation.exchange, WeightBudget(weight_per_minute))
        self._channels = Channels(self.simulation, self._info, cadences, limits)
        self._node_output = None if node_directory is None else NodeOutput(node_directory)
        self._server = VenueServer(self, host=host, port=port)
        self._sessions: dict[int, Session] = {}
        self._last_sent_s: dict[int, float] = {}
        self._running = asyncio.Event()
        if not paused:
            self._running.set()
        self._pacer: asyncio.Task[None] | None = None

    @property
    def websocket_url(self) -> str:
        """Where to subscribe."""
        return self._server.websocket_url + WEBSOCKET_PATH

    @property
    def rest_url(self) -> str:
        """The base of the REST API, without a path."""
        return self._server.rest_url

    async def start(self) -> None:
        """Make the first block, so that there is something to serve, and listen.

        Raises:
            OSError: the port is taken.
        """
        self.step()
        await self._server.start()
        self._pacer = asyncio.create_task(self._pace(), name="simulated-exchange")
        self._pacer.add_done_callback(self._hang_up_after_error)

    async def stop(self) -> None:
        """Stop the clock, close all sessions and stop listening; an error of the exchange comes out here."""
        pacer, self._pacer = self._pacer, None
        try:
            if pacer is not None:
                pacer.cancel()
                await asyncio.gather(pacer, return_exceptions=True)
                if not pacer.cancelled() and (error := pacer.exception()) is not None:
                    raise error
        finally:
            if self._node_output is not None:
                self._node_output.close()
            await self._server.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def pause(self) -> None:
        """Hold the exchange's clock."""
        self._running.clear()

    def resume(self) -> None:
        """Let the exchange's clock go on from where it was held."""
        self._running.set()

    def step(self, blocks: int = 1) -> None:
        """Make blocks at once and send what they bring; meant for a paused server."""
        for _ in range(blocks):
            if self._blocks_left == 0:
                return
            self.simulation.step(self.simulation.exchange.time_ms + BLOCK_MS)
            self._write_fills()
            for session_id, frame in self._channels.publish():
                self._send(self._sessions[session_id], frame)
            if self._blocks_left is not None:
                self._blocks_left -= 1
                if self._blocks_left == 0:
                    self.finished.set()

    def market_maker_accounts(self) -> list[str]:
        """Return the makers' addresses: watching their fills is how forced orders that hit the book are seen from outside."""
        return [self.simulation.table.addresses[row] for row in self.simulation.population.makers]

    def account_addresses(self) -> list[str]:
        """Return the addresses of all accounts."""
        return list(self.simulation.table.addresses)

    def snapshot(self) -> ExchangeSnapshot:
        """Freeze books and liquidation prices."""
        return snapshot(self.simulation.exchange)

    async def opened(self, session: Session) -> None:
        """Take note of a client, if it came to the right place."""
        if session.path != WEBSOCKET_PATH:
            session.abort()
            return
        self._sessions[session.id] = session
        self._last_sent_s[session.id] = asyncio.get_running_loop().time()
        self._channels.opened(session.id)

    async def received(self, session: Session, message: bytes) -> None:
        """Answer one message of a client."""
        if session.id not in self._sessions:
            return
        replies = self._channels.received(session.id, message, time.monotonic() * 1_000)
        for frame in replies.frames:
            self._send(session, frame)
        if replies.drop:
            session.abort()

    async def closed(self, session: Session) -> None:
        """Forget a client."""
        self._channels.closed(session.id)
        self._sessions.pop(session.id, None)
        self._last_sent_s.pop(session.id, None)

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        """Answer one REST request."""
        if urlsplit(path_and_query).path != INFO_PATH:
            return RestReply(status=404, body=b"null")
        if method != "POST":
            return RestReply(status=405, body=b"null")
        return self._info.reply(body, time.monotonic() * 1_000)

    def _send(self, session: Session, frame: bytes) -> None:
        session.send(frame)
        self._last_sent_s[session.id] = asyncio.get_running_loop().time()

    def _write_fills(self) -> None:
        """Write the block before anything of it is sent, as whoever reads a node's files is ahead of the public feed."""
        if self._node_output is not None:
            exchange = self.simulation.exchange
            line = block_line(exchange, exchange.time_ms // BLOCK_MS, local_ns=time.time_ns())
            self._node_output.write(line, exchange.time_ms)

    def _hang_up_after_error(self, pacer: asyncio.Task[None]) -> None:
        """Let clients notice an exchange that broke down; the error itself comes out of :meth:`stop`."""
        if not pacer.cancelled() and pacer.exception() is not None:
            for session in self._sessions.values():
                session.abort()

    async def _pace(self) -> None:
        """Make the blocks that are due, until there are none left."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._block_interval_s
        while not self.finished.is_set():
            if not self._running.is_set():
                await self._running.wait()
                due_s = loop.time() + self._block_interval_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not self._running.is_set():
                continue
            due = 1 + int(max(0.0, loop.time() - due_s) / self._block_interval_s)
            self.step(min(due, CATCH_UP_BLOCKS))
            self.blocks_skipped_total += max(0, due - CATCH_UP_BLOCKS)
            due_s += due * self._block_interval_s
            self._drop_idle(loop.time())

    def _drop_idle(self, now_s: float) -> None:
        for session_id, sent_s in list(self._last_sent_s.items()):
            if now_s - sent_s > IDLE_LIMIT_S:
                self.idle_drops_total += 1
                del self._last_sent_s[session_id]
                self._sessions[session_id].abort()
