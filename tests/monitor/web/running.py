"""A real server on a free loopback port, in this loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

from monitor.web.accounts import AccountSource
from monitor.web.hub import Hub
from monitor.web.server import WebServer
from monitor.web.settings import HttpSettings
from tests.monitor.web import account_builder
from tests.monitor.web.builder import World


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def serving(hub: Hub, **settings: Any) -> AsyncIterator[str]:
    """Serve ``hub`` and yield the address."""
    server = WebServer(hub, HttpSettings(**{"port": 0, **settings}))
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


@asynccontextmanager
async def client(hub: Hub, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve ``hub`` and yield a session whose paths are relative to the server."""
    async with serving(hub, **settings) as address, aiohttp.ClientSession(address) as session:
        yield session


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is awaited happens inside the server, which knows no such event
            await asyncio.sleep(0.005)


def published(seconds: int = 3, **hub: Any) -> tuple[World, Hub]:
    """Return a world that has been published for some seconds."""
    world, result = World(), Hub(**hub)
    for _ in range(seconds):
        result.publish(world.step())
    result.publish_status(world.status())
    return world, result


class Instrument:
    """A server in a thread that publishes a moving world four times a second, for tests that block on a browser.

    Accounts come from ``book``, by default the one of ``account_builder``.
    """

    def __init__(self, world: World, book: AccountSource | None = None, *, redact_accounts: bool = False, **hub: Any) -> None:
        self.world = world
        self._redact_accounts = redact_accounts
        self.hub = Hub(**hub)
        self.hub.accounts = book if book is not None else account_builder.book()
        self.hub.clock_ns = lambda: self.world.now_ns
        self.paused = False
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="instrument")
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._server: WebServer | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)

    def call(self, action: Callable[[], Any]) -> Any:
        """Do something in the server's loop and return its result; coroutine functions are awaited."""
        assert self._loop is not None

        async def run() -> Any:
            result = action()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def stop_serving(self) -> None:
        """Stop the server; its port stays known."""
        assert self._server is not None
        await self._server.stop()
        self._server = None

    async def serve(self) -> None:
        """Start the server, on the same port as before."""
        self._server = WebServer(self.hub, HttpSettings(port=self.port, redact_accounts=self._redact_accounts))
        await self._server.start()
        self.port = self._server.port

    async def _run(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        await self.serve()
        self._started.set()
        while not self._ending.is_set():
            if not self.paused:
                self.hub.publish(self.world.step(0.25))
                self.hub.publish_status(self.world.status())
            try:
                async with asyncio.timeout(0.25):
                    await self._ending.wait()
            except TimeoutError:
                pass
        if self._server is not None:
            await self._server.stop()
