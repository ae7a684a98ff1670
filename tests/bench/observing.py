"""What is noted while a daemon runs under load: when each mark is answered, how busy the process is, how late its timers fire."""

from __future__ import annotations

import asyncio
import time

from monitor.app import Daemon
from monitor.projection import Projection
from tests.bench.starvation import thread_waited_s
from tests.bench.wire import symbols

TICK_S = 0.005


class Observed:
    """What is noted while the daemon runs."""

    def __init__(self, daemon: Daemon, markets: int) -> None:
        self.daemon = daemon
        self.running = False
        self.latency_s: list[float] = []
        """From the moment a mark was put into the intake."""
        self.latency_due_s: list[float] = []
        """From the moment it was due: with the time that the loop was too busy to take it in."""
        self.superseded = 0
        """Marks that a newer one of the same market replaced before any projection had them."""
        self.gap_s: list[float] = []
        self.projected_share: list[float] = []
        self.lateness_s: list[float] = []
        self.put = 0
        self.load_s = 0.0
        self._waiting: list[list[tuple[float, float, float]]] = [[] for _ in range(markets)]
        self._index = {symbol: number for number, symbol in enumerate(symbols(markets))}
        self._last_s = 0.0

    def expect(self, market: int, price: float, put_s: float, due_s: float) -> None:
        """Note a mark that is on its way."""
        self._waiting[market].append((price, put_s, due_s))

    def on_projection(self, projection: Projection) -> None:
        """Find the marks that this projection is the first to have."""
        now_s = time.perf_counter()
        fresh = 0
        for market in projection.markets:
            if market.as_of_ns != projection.as_of_ns:
                continue
            fresh += 1
            waiting = self._waiting[self._index[market.symbol]]
            found = next((place for place, item in enumerate(waiting) if item[0] == market.reference_price), None)
            if found is None:
                continue
            _, put_s, due_s = waiting[found]
            del waiting[: found + 1]
            if self.running:
                self.superseded += found
                self.latency_s.append(now_s - put_s)
                self.latency_due_s.append(now_s - due_s)
        if self.running:
            self.projected_share.append(fresh / len(projection.markets))
            self.gap_s.append(now_s - self._last_s)
        self._last_s = now_s


async def tick(observed: Observed) -> None:
    """Note how much later than asked for a timer fires."""
    while True:
        started_s = time.perf_counter()
        await asyncio.sleep(TICK_S)
        if observed.running:
            observed.lateness_s.append(max(0.0, time.perf_counter() - started_s - TICK_S))


class Usage:
    """Seconds between ``start`` and ``stop``: of the processor, and of waiting for one because others had it.

    Both methods are called in the event loop's thread.
    """

    wall_s = loop_s = all_s = loop_waited_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._add(-1.0)

    def stop(self) -> None:
        """End."""
        self._add(1.0)

    def _add(self, sign: float) -> None:
        self.wall_s += sign * time.perf_counter()
        self.loop_s += sign * time.thread_time()
        self.all_s += sign * time.process_time()
        self.loop_waited_s += sign * (thread_waited_s() or 0.0)
