"""Alerts for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from alerts.alert import Alert, Severity

# 2025-10-10 21:15:00 UTC.
START_NS = 1_760_130_900_000_000_000


def alert(
    symbol: str = "BTC",
    *,
    name: str = "LargeClusterNear",
    severity: Severity = "warning",
    starts_ns: int = START_NS,
    ends_ns: int | None = None,
    summary: str = "BTC on hyperliquid: $12.4M of long positions are near.",
) -> Alert:
    """Return an alert of one market."""
    return Alert(
        name=name,
        labels={"venue": "hyperliquid", "symbol": symbol, "side": "long", "provenance": "observed", "cluster": "60200"},
        severity=severity,
        summary=summary,
        starts_ns=starts_ns,
        ends_ns=ends_ns,
        annotations={"notional_usd": "12400000", "stale": "false"},
    )


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in servers and sinks without an event
            await asyncio.sleep(0.005)
