"""What tests of the transports of account feeds have in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from connectors.account_feed import AccountFeed
from connectors.account_outlet import AccountSource, Surroundings
from connectors.account_settings import AccountFeedSettings
from connectors.account_sources import make_source
from connectors.events import AccountDelta, AccountSnapshot, Gap
from connectors.frames import Frame
from connectors.link import ReconnectPolicy
from tests.connectors.loopback import QUICK

TIME_NS = 1_790_000_000_000_000_000


def snapshot(account: str, sequence: int, **more: Any) -> bytes:
    fields = {"cash_usd": 5.0, "positions": [], "holdings": []}
    return json.dumps({"type": "snapshot", "account": account, "sequence": sequence, "time_ns": TIME_NS, **fields, **more}).encode()


def delta(account: str, sequence: int, **more: Any) -> bytes:
    return json.dumps({"type": "delta", "account": account, "sequence": sequence, "time_ns": TIME_NS, **more}).encode()


def settings(source: dict[str, Any], **fields: Any) -> AccountFeedSettings:
    whole = {"name": "desk", "venue": "hyperliquid", "silence_s": None, "source": source} | fields
    return AccountFeedSettings.model_validate_json(json.dumps(whole), strict=True)


def around(
    frames: list[Frame], *, policy: ReconnectPolicy = QUICK, environment: dict[str, str] | None = None, backlog: Any = lambda: 0
) -> Surroundings:
    return Surroundings(
        deliver=frames.append,
        clock_ns=lambda: TIME_NS + 123,
        environment=environment or {},
        seed=1,
        policy=policy,
        backlog=backlog,
    )


def make(source: dict[str, Any], frames: list[Frame], *, silence_s: float | None = None, **options: Any) -> AccountSource:
    return make_source(settings(source, silence_s=silence_s), around(frames, **options))


@asynccontextmanager
async def running(source: AccountSource) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(source.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await task


def told(frames: list[Frame]) -> list[tuple[str, int] | None]:
    """What the frames say once they are parsed: (account, sequence), ``None`` for a gap."""
    feed = AccountFeed("desk", "hyperliquid")
    result: list[tuple[str, int] | None] = []
    for frame in frames:
        for event in feed.parse(frame):
            match event:
                case AccountSnapshot(account=account, sequence=int(sequence)) | AccountDelta(account=account, sequence=sequence):
                    result.append((account, sequence))
                case Gap():
                    result.append(None)
                case _:
                    raise AssertionError(event)
    return result
