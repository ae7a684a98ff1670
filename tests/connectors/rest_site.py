"""A REST server on loopback that notes when it was asked what, and a poller to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from connectors.frames import Frame, RestRequest
from connectors.rest import RestPolicy, RestPoller
from tests.connectors.plain_venue import PlainVenue

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUICK = RestPolicy(retry_base_s=0.01, retry_cap_s=0.02, total_timeout_s=2.0)

GRACE_S = 0.002
"""Real time that loopback gets before virtual time jumps; twenty times what it needs."""


class Site:
    """A server that notes when it was asked what."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, str]] = []
        self.content_types: list[str | None] = []
        self.answer: Answer | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((asyncio.get_running_loop().time(), request.path_qs, await request.text()))
        self.content_types.append(request.headers.get("Content-Type"))
        return await self.answer(request) if self.answer is not None else web.json_response({"path": request.path_qs})

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


@asynccontextmanager
async def serving(answer: Answer | None = None) -> AsyncIterator[Site]:
    site = Site()
    site.answer = answer
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", site.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0)
    await tcp.start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


@asynccontextmanager
async def polling(
    url: str, frames: list[Frame], *, policy: RestPolicy = QUICK, weight_per_minute: int = 60_000
) -> AsyncIterator[RestPoller]:
    poller = make(url, frames, policy=policy, weight_per_minute=weight_per_minute)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make(url: str, frames: list[Frame], *, policy: RestPolicy = QUICK, weight_per_minute: int = 60_000) -> RestPoller:
    return RestPoller(
        venue=PlainVenue(weight_per_minute),
        deliver=frames.append,
        seed=1,
        rest_url=url,
        policy=policy,
        clock_ns=lambda: 1_704_110_400_123_456_789,
        now_s=asyncio.get_running_loop().time,
    )


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait for ``condition``, which nothing announces."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def get(path: str, weight: int = 1) -> RestRequest:
    return RestRequest(method="GET", path=path, weight=weight)


async def status_only(status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text="try\nlater", headers=headers)


async def until_virtual(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(5.0)
