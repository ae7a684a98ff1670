"""The bounded hand-over from the sockets to the core."""

from __future__ import annotations

import asyncio
from collections import deque

from connectors.frames import Frame

MAX_FRAMES = 65_536
"""At 20,000 messages a second, ten times a busy day, this is 3 s of backlog; beyond it the answers would be too old to be live.
An entry costs about 150 bytes besides its payload, so a full queue of the usual 300-byte messages takes 30 MB."""

MAX_BYTES = 64 * 1024 * 1024
"""Room for four REST answers of the largest size (16 MiB), or for sixteen socket messages of the largest size (4 MiB)."""


class FrameIntake:
    """A queue of frames that loses nothing in silence.

    Sockets call :meth:`put`, one consumer calls :meth:`take`. When the queue is full, the new frame is dropped and counted, and a
    gap (a frame without payload) takes its place, so the consumer learns of the loss exactly where it happened. Frames of the same
    connection that are dropped one after the other share one gap. Gaps need no room: a full queue admits nothing else, so there is
    at most one more per connection.

    Args:
        max_frames: how many frames may wait.
        max_bytes: how many payload bytes may wait.
    """

    def __init__(self, *, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        if max_frames < 1 or max_bytes < 1:
            raise ValueError("the intake needs room for a frame")
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._dropped: dict[tuple[str, str], int] = {}
        # Connections whose youngest waiting frame is a gap, so that a further loss needs no other.
        self._broken: set[tuple[str, str]] = set()
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Count the waiting frames, gaps included."""
        return len(self._frames)

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes that wait."""
        return self._bytes

    @property
    def dropped(self) -> int:
        """How many frames were dropped since the start."""
        return sum(self._dropped.values())

    @property
    def dropped_by_connection(self) -> dict[tuple[str, str], int]:
        """How many frames of each (venue, connection) were dropped; bounded by the number of connections."""
        return dict(self._dropped)

    @property
    def oldest_received_ns(self) -> int | None:
        """When the frame that is next in line arrived, ``None`` when nothing waits."""
        return self._frames[0].received_ns if self._frames else None

    def put(self, frame: Frame) -> None:
        """Hand ``frame`` over; never waits and never raises."""
        payload = frame.payload
        if payload is None:
            self._put_gap(frame)
        elif len(self._frames) >= self._max_frames or self._bytes + len(payload) > self._max_bytes:
            key = (frame.venue, frame.connection)
            self._dropped[key] = self._dropped.get(key, 0) + 1
            if key not in self._broken:
                self._broken.add(key)
                self._append(Frame(frame.venue, frame.connection, frame.received_ns, None))
        else:
            if self._broken:
                self._broken.discard((frame.venue, frame.connection))
            self._bytes += len(payload)
            self._append(frame)

    def _put_gap(self, gap: Frame) -> None:
        """Queue a gap, unless the queue is full and a gap of the same connection already stands last."""
        key = (gap.venue, gap.connection)
        if len(self._frames) >= self._max_frames:
            if key in self._broken:
                return
            self._broken.add(key)
        self._append(gap)

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, limit: int) -> list[Frame]:
        """Wait until something is there and return up to ``limit`` frames in order.

        Yields to the event loop once per call, so that working off a backlog does not keep the sockets from being read.

        Raises:
            RuntimeError: another consumer is already waiting.
            ValueError: ``limit`` is not positive.
        """
        if limit < 1:
            raise ValueError(f"limit must be positive, not {limit}")
        await asyncio.sleep(0)
        while not self._frames:
            if self._waiter is not None:
                raise RuntimeError("the intake has one consumer only")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if limit >= len(self._frames):
            batch = list(self._frames)
            self._frames.clear()
            self._bytes = 0
        else:
            batch = [self._frames.popleft() for _ in range(limit)]
            self._bytes -= sum(len(frame.payload) for frame in batch if frame.payload is not None)
        if self._broken:
            # A gap that was handed out announces no later loss.
            self._broken.difference_update((frame.venue, frame.connection) for frame in batch if frame.payload is None)
        return batch
