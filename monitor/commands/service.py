"""Run a daemon in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

import uvloop

from monitor.app import Daemon, tune_interpreter
from monitor.commands.terminal import FAILED, OK, complain
from monitor.config import Config
from monitor.logs import configure_logs


def serve(
    open_config: Callable[[], contextlib.AbstractAsyncContextManager[Config]],
    *,
    duration_s: float | None = None,
    seed: int = 0,
    when_ready: Callable[[Daemon], None] = lambda _daemon: None,
    must_record: bool = False,
) -> int:
    """Run a daemon until SIGTERM, Ctrl-C or the end of ``duration_s``.

    Args:
        open_config: gives the configuration, and closes what it opened for it when the daemon has stopped.
        duration_s: how long to run at most.
        seed: of the daemon's jitter.
        when_ready: called once everything listens and is subscribed.
        must_record: whether a recording that fails is a failure of the run.

    Returns:
        The exit code.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if duration_s is not None:
            loop.call_later(duration_s, stop.set)
        async with open_config() as config, asyncio.TaskGroup() as group:
            configure_logs(config.log.level, config.log.format)
            daemon = Daemon(config, seed=seed, must_record=must_record)
            announcement = group.create_task(_announce(daemon, when_ready))
            await daemon.run(stop)
            announcement.cancel()

    tune_interpreter()
    failures: list[BaseException] = []
    try:
        uvloop.run(main())
    except* OSError as group:
        failures = list(_leaves(group))
    for failure in failures:
        complain(f"cannot go on: {failure}")
    return FAILED if failures else OK


async def _announce(daemon: Daemon, when_ready: Callable[[Daemon], None]) -> None:
    await daemon.ready.wait()
    when_ready(daemon)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
