"""Run a daemon in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from monitor.app import Daemon
from monitor.commands.terminal import FAILED, OK, complain
from monitor.config import Config
from monitor.logs import configure_logs

log = structlog.get_logger("monitor.service")


async def _serve(
    daemon: Daemon, duration_s: float | None, beside: Callable[[Daemon, asyncio.Event], Awaitable[None]] | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if duration_s is not None:
        loop.call_later(duration_s, stop.set)
    async with asyncio.TaskGroup() as group:
        companion = group.create_task(_accompany(beside, daemon, stop)) if beside is not None else None
        await daemon.run(stop)
        if companion is not None:
            companion.cancel()


async def _accompany(beside: Callable[[Daemon, asyncio.Event], Awaitable[None]], daemon: Daemon, stop: asyncio.Event) -> None:
    await beside(daemon, stop)


def serve(
    config: Config,
    *,
    duration_s: float | None = None,
    seed: int = 0,
    beside: Callable[[Daemon, asyncio.Event], Awaitable[None]] | None = None,
) -> int:
    """Run a daemon until SIGTERM, Ctrl-C or the end of ``duration_s``.

    Args:
        config: of the daemon.
        duration_s: how long to run at most.
        seed: of the daemon's jitter.
        beside: a coroutine function that runs beside it and ends with it.

    Returns:
        The exit code.
    """
    configure_logs(config.log.level, config.log.format)

    async def main() -> None:
        await _serve(Daemon(config, seed=seed), duration_s, beside)

    try:
        uvloop.run(main())
    except* OSError as group:
        for error in group.exceptions:
            complain(f"cannot go on: {error}")
        return FAILED
    return OK
