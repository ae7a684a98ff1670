"""Websocket servers on loopback, and a peer in memory for where hours have to pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import Server, ServerConnection, serve

from connectors.frames import Frame
from connectors.link import Link, LinkClosedError, LinkRefusedError, OpenLink, open_websocket
from connectors.live import LiveConnection, ReconnectPolicy
from connectors.venue import ConnectionPlan, Heartbeat, Venue
from tests.connectors.plain_venue import PlainVenue

BOOK = b'{"channel":"book.BTC","bids":[]}'

MARK = b'{"channel":"mark.BTC","price":"100"}'

QUICK = ReconnectPolicy(
    base_delay_s=0.01,
    max_delay_s=0.02,
    attempts_per_minute=1000,
    ping_interval_s=None,
    close_timeout_s=0.1,
    rate_limited_delay_s=0.05,
    banned_delay_s=0.05,
    failed_delay_s=0.05,
)
"""Real time, so that tests against real servers need no patience."""

Handler = Callable[[ServerConnection], Awaitable[None]]


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait for ``condition``, which nothing announces."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(handler: Handler, **options: object) -> AsyncIterator[str]:
    """Serve ``handler`` on a free port and give the URL."""
    server: Server
    async with serve(handler, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"


@asynccontextmanager
async def running(connection: LiveConnection) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connection.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make(
    plan: ConnectionPlan,
    frames: list[Frame],
    policy: ReconnectPolicy = QUICK,
    *,
    open_link: OpenLink = open_websocket,
    venue: Venue | None = None,
) -> LiveConnection:
    return LiveConnection(venue=venue or PlainVenue(), plan=plan, deliver=frames.append, seed=1, policy=policy, open_link=open_link)


def plan_of(
    url: str = "ws://127.0.0.1:9/ws",
    *,
    subscribe: tuple[bytes, ...] = (),
    expected: dict[str, float | None] | None = None,
    heartbeat: Heartbeat | None = None,
    max_message_bytes: int = 1024 * 1024,
) -> ConnectionPlan:
    return ConnectionPlan(
        name="market",
        url=url,
        subscribe=subscribe,
        expected=expected or {},
        heartbeat=heartbeat,
        max_message_bytes=max_message_bytes,
    )


def gaps(frames: list[Frame]) -> int:
    return sum(frame.payload is None for frame in frames)


class ScriptedLink:
    """A peer in memory: delivers what a test puts into it, remembers what it is sent."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes | LinkClosedError] = asyncio.Queue()
        self.sent: list[tuple[float, bytes]] = []
        self.answers_pings = True
        self.pings = 0

    async def receive(self) -> bytes:
        item = await self.inbox.get()
        if isinstance(item, LinkClosedError):
            raise item
        return item

    async def send(self, payload: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), payload))

    async def ping(self) -> None:
        self.pings += 1
        if not self.answers_pings:
            await asyncio.get_running_loop().create_future()

    def is_closing(self) -> bool:
        return False

    async def close(self) -> None:
        pass


class ScriptedPeer:
    """Opens scripted links, or refuses, and notes when."""

    def __init__(self, on_open: Callable[[ScriptedLink], None] | None = None) -> None:
        self.links: list[ScriptedLink] = []
        self.attempts_s: list[float] = []
        self.refusal: LinkRefusedError | None = None
        self._on_open = on_open

    def make_link(self) -> ScriptedLink:
        return ScriptedLink()

    @asynccontextmanager
    async def open(self, plan: ConnectionPlan, policy: ReconnectPolicy) -> AsyncIterator[Link]:
        self.attempts_s.append(asyncio.get_running_loop().time())
        if self.refusal is not None:
            raise self.refusal
        link = self.make_link()
        self.links.append(link)
        if self._on_open is not None:
            self._on_open(link)
        yield link


async def repeat(peer: ScriptedPeer, message: bytes, every_s: float, *, for_s: float) -> None:
    """Let whatever link is open deliver ``message`` at a steady pace."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + for_s
    while loop.time() < end_s:
        if peer.links:
            peer.links[-1].inbox.put_nowait(message)
        await asyncio.sleep(every_s)
