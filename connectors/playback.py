"""Recordings served as the venue itself would serve them, for end-to-end tests and demonstrations without the venue.

One playhead moves through the recording. Websocket messages go to the clients that subscribed to their kind and symbol; REST
requests get the latest answer before the playhead. It starts when enough clients have subscribed, and waits, for a bounded time, in
two places: at a book snapshot that nobody has fetched though somebody follows that book (a client that buffers the stream until its
snapshot then sees what the recorder saw), and after a recorded loss of the connection until the dropped clients are back.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from connectors.binance_dialect import BinanceDialect
from connectors.dialects import MAX_NAMES, Client, Dialect, Feed
from connectors.frames import REST_CONNECTION, Frame
from connectors.hyperliquid_dialect import HyperliquidDialect
from connectors.recorded_rest import Exchange, RecordedRest, exchange_of
from connectors.serving import RestReply, Session

HOLD_S: Final = 10.0
"""The playhead waits so long for a snapshot to be fetched or a dropped client to come back: two reconnects with backoff."""

SETTLE_S: Final = 0.1
"""No subscription for this long means that a client is done subscribing; on loopback they come within milliseconds."""

EARLY_S: Final = 5.0
"""A request that waits so long before the start is answered ahead of time, because the client's start may depend on it."""

MAX_WAITING: Final = 1024
"""Requests waiting for the playhead; a client has fewer than a hundred under way."""

YIELD_FRAMES: Final = 256
"""Frames between two looks at the sockets when nothing else makes the playhead wait: about a millisecond of work."""

_FAILED: Final = RestReply(500, b'{"error":"the recording could not be played to its end"}')

Speed = float | Literal["max"]


class PlaybackCounts(msgspec.Struct):
    """What a playback has done so far; counters only rise."""

    frames_total: int = 0
    sent_total: int = 0
    unclaimed_total: int = 0
    """Messages that no client had subscribed to."""
    disconnects_total: int = 0
    """Recorded losses of a connection; each drops the clients that it fed."""
    holds_expired_total: int = 0
    """Times that the playhead went on without a snapshot fetched or a dropped client back."""
    answered_early_total: int = 0
    """Requests answered before the start with what the recording holds later only."""
    not_held_total: int = 0
    """Requests answered with 404 because the recording has no answer at all."""
    turned_away_total: int = 0
    """Requests answered with 503 because ``MAX_WAITING`` were waiting."""


class _Seat(msgspec.Struct, eq=False):
    """A connected client: its socket, what it subscribed to, and the recorded connections that fed it."""

    session: Session
    client: Client
    fed_by: set[str]


class PlaybackBackend:
    """Plays one recording to the clients of a :class:`~connectors.serving.VenueServer`.

    Attributes:
        counts: What happened.
        finished: Set when the last frame was played and every client's queue is empty.
        ping_interval_s: The venue's protocol pings, to be handed to the server.
        first_received_ns: The stamp of the recording's first frame; ``None`` until it was indexed, and for an empty one.
        last_received_ns: That of the last one.
        playhead_ns: The stamp of the last frame played.
    """

    def __init__(
        self, frames_source: Callable[[], Iterator[Frame]], venue: str, speed: Speed = "max", *, start_when: int = 1
    ) -> None:
        """Prepare a playback.

        Args:
            frames_source: Opens the recording; called twice, first to see what it holds.
            venue: Whose way of talking to imitate; frames of other venues are passed over.
            speed: Recorded seconds per second, or ``max`` for as fast as the slowest client reads.
            start_when: Sockets that must have subscribed before the first message is sent.

        Raises:
            ValueError: nobody here knows how ``venue`` talks, or the speed is not positive.
        """
        if speed != "max" and not speed > 0:
            raise ValueError(f"a recording cannot be played at speed {speed}")
        self.counts = PlaybackCounts()
        self.finished = asyncio.Event()
        self.first_received_ns: int | None = None
        self.last_received_ns: int | None = None
        self.playhead_ns: int | None = None
        self._dialect = _dialect(venue)
        self.ping_interval_s = self._dialect.ping_interval_s
        self._source = frames_source
        self._venue = venue
        self._speed = speed
        self._start_when = start_when
        self._rest = RecordedRest()
        self._seats: dict[int, _Seat] = {}
        self._routes: dict[Feed, list[_Seat]] = {}
        self._waiting: dict[str, list[asyncio.Future[bytes | None]]] = {}
        self._waiting_total = 0
        self._indexed = asyncio.Event()
        self._started = asyncio.Event()
        self._changed = asyncio.Event()
        self._changed_at_s = 0.0
        self._fetched: set[str] = set()
        self._failed = False
        self._base: tuple[float, int] | None = None

    def start(self) -> None:
        """Start playing whoever has subscribed."""
        self._started.set()

    async def run(self) -> None:
        """Index the recording, wait for clients, play to the end and return when all was delivered.

        Raises:
            RecordingError: the recording is damaged; what comes before the damage was played if indexing got through.
        """
        try:
            await asyncio.to_thread(self._index)
            self._indexed.set()
            frames = iter(self._source())
            first = await self._lead_in(frames)
            await self._started.wait()
            await self._settle()
            for number, frame in enumerate(itertools.chain(first, frames)):
                await self._play(frame)
                if number % YIELD_FRAMES == 0:
                    await asyncio.sleep(0)
            for seat in list(self._seats.values()):
                await seat.session.flush()
            self.finished.set()
        finally:
            if not self.finished.is_set():
                self._give_up()

    async def opened(self, session: Session) -> None:
        """Seat a client, with the streams that its URL names."""
        await self._indexed.wait()
        if self._failed:
            session.close(1011)
            return
        self._seats[session.id] = _Seat(session, self._dialect.opened(session.path, session.query), set())
        self._subscriptions_changed()

    async def received(self, session: Session, message: bytes) -> None:
        """Answer one message as the venue would."""
        seat = self._seats.get(session.id)
        if seat is None:
            return
        answer = seat.client.receive(message)
        for reply in answer.replies:
            session.send(reply)
        if answer.drop:
            await session.flush()
            session.abort()
            return
        self._subscriptions_changed()

    async def closed(self, session: Session) -> None:
        """Forget a client."""
        self._seats.pop(session.id, None)
        self._subscriptions_changed()

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        """Answer with the latest recorded response, waiting for the playhead if it has not reached the first."""
        await self._indexed.wait()
        if self._failed:
            return _FAILED
        key = self._rest.find(method, path_and_query, body)
        if key is None:
            self.counts.not_held_total += 1
            wanted = f"{method} {path_and_query} {body.decode(errors='replace')}".rstrip()[:1000]
            return RestReply(404, json.dumps({"error": f"the recording holds no response to {wanted}"}).encode())
        known = self._rest.answer(key)
        if known is not None:
            self._fetched.add(key)
            self._changed.set()
            return RestReply(200, known)
        if self._waiting_total >= MAX_WAITING:
            self.counts.turned_away_total += 1
            return RestReply(503, b'{"error":"too many requests wait for the playhead"}')
        answer = await self._awaited(key)
        return _FAILED if answer is None else RestReply(200, answer)

    def _give_up(self) -> None:
        """Let nobody wait for a playhead that will not move any more."""
        self._failed = True
        self._indexed.set()
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        for seat in self._seats.values():
            seat.session.close(1011)

    def _index(self) -> None:
        """Read the recording once to learn what it holds; runs in a thread, before anything else looks at the result."""
        for frame in self._source():
            if frame.venue != self._venue:
                continue
            exchange = _exchange(frame)
            if exchange is not None:
                self._rest.learn(exchange)
            self._dialect.learn(frame, exchange)
            if self.first_received_ns is None:
                self.first_received_ns = frame.received_ns
            self.last_received_ns = frame.received_ns

    async def _lead_in(self, frames: Iterator[Frame]) -> list[Frame]:
        """Pass the answers recorded before any message, which clients ask for before they subscribe; return what comes next."""
        for frame in frames:
            exchange = _exchange(frame) if frame.venue == self._venue else None
            if exchange is None or exchange.book_symbol is not None:
                return [frame]
            self.counts.frames_total += 1
            self._advance(exchange)
        return []

    async def _settle(self) -> None:
        """Wait until subscriptions have stopped coming."""
        loop = asyncio.get_running_loop()
        while (remaining := self._changed_at_s + SETTLE_S - loop.time()) > 0:  # noqa: ASYNC110 - the end of something has no event
            await asyncio.sleep(remaining)

    async def _play(self, frame: Frame) -> None:
        if frame.venue != self._venue:
            return
        if self._speed != "max":
            await self._pace(frame.received_ns, self._speed)
        self.counts.frames_total += 1
        self.playhead_ns = frame.received_ns
        if frame.payload is None:
            if frame.connection != REST_CONNECTION:
                await self._lose(frame.connection)
            return
        exchange = _exchange(frame)
        if exchange is not None:
            self._advance(exchange)
            if exchange.book_symbol is not None:
                await self._hold_for_fetch(exchange)
            return
        feed = self._dialect.feed_of(frame)
        if feed is None:
            return
        seats = self._routes.get(feed)
        if seats is None:
            seats = self._route(feed)
        if not seats:
            self.counts.unclaimed_total += 1
        for seat in seats:
            seat.fed_by.add(frame.connection)
            seat.session.send(seat.client.dress(frame.payload, feed))
            self.counts.sent_total += 1
            if self._speed == "max":
                await seat.session.drain()

    async def _pace(self, received_ns: int, speed: float) -> None:
        """Sleep until the frame is due; the clock is set anew after every hold, so that held time is not made up for."""
        loop = asyncio.get_running_loop()
        if self._base is None:
            self._base = (loop.time(), received_ns)
        base_s, base_ns = self._base
        ahead_s = base_s + (received_ns - base_ns) / 1e9 / speed - loop.time()
        if ahead_s > 0.001:
            await asyncio.sleep(ahead_s)

    def _route(self, feed: Feed) -> list[_Seat]:
        if len(self._routes) >= MAX_NAMES:
            self._routes.clear()
        seats = [seat for seat in self._seats.values() if seat.client.wants(feed)]
        self._routes[feed] = seats
        return seats

    def _subscriptions_changed(self) -> None:
        self._routes.clear()
        self._changed_at_s = asyncio.get_running_loop().time()
        self._changed.set()
        if self._subscribed() >= self._start_when:
            self._started.set()

    def _subscribed(self) -> int:
        return sum(1 for seat in self._seats.values() if seat.client.subscribed)

    def _advance(self, exchange: Exchange) -> None:
        """Make an answer the latest one, and hand it to those that wait for it."""
        self._rest.advance(exchange)
        for key in (exchange.key, exchange.loose_key):
            self._fetched.discard(key)
        for key in (exchange.key, exchange.loose_key):
            for waiter in self._waiting.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(exchange.body)
                    self._fetched.add(key)

    async def _awaited(self, key: str) -> bytes | None:
        """Wait until the playhead reaches the first answer; before the start, for no longer than ``EARLY_S``.

        Returns:
            The answer; ``None`` when the playback has failed.
        """
        waiter: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        self._waiting_total += 1
        try:
            done, _ = await asyncio.wait({waiter}, timeout=EARLY_S)
            if not done and not self._started.is_set():
                early = await asyncio.to_thread(self._first_answer, key)
                if early is not None and not waiter.done():
                    self.counts.answered_early_total += 1
                    return early
            return await waiter
        finally:
            self._waiting_total -= 1
            waiter.cancel()

    def _first_answer(self, key: str) -> bytes | None:
        """Look ahead in the recording; a book snapshot is worth nothing ahead of its stream, so there is none."""
        for frame in self._source():
            exchange = _exchange(frame) if frame.venue == self._venue else None
            if exchange is not None and key in {exchange.key, exchange.loose_key}:
                return None if exchange.book_symbol is not None else exchange.body
        return None

    async def _hold_for_fetch(self, exchange: Exchange) -> None:
        """Wait until the snapshot was fetched, if anybody follows the book that it belongs to."""
        book = Feed("depth", exchange.book_symbol or "")
        keys = {exchange.key, exchange.loose_key}
        await self._hold(lambda: bool(keys & self._fetched) or not any(seat.client.wants(book) for seat in self._seats.values()))

    async def _lose(self, connection: str) -> None:
        """Drop the clients that this connection fed, and wait until as many are subscribed again."""
        self.counts.disconnects_total += 1
        before = self._subscribed()
        lost = [seat for seat in self._seats.values() if connection in seat.fed_by]
        for seat in lost:
            await seat.session.flush()
            seat.session.abort()
            self._seats.pop(seat.session.id, None)
        if lost:
            self._routes.clear()
            await self._hold(lambda: self._subscribed() >= before)
            await self._settle()

    async def _hold(self, is_over: Callable[[], bool]) -> None:
        """Stop the playhead until ``is_over``, but for no longer than ``HOLD_S``."""
        if is_over():
            return
        try:
            async with asyncio.timeout(HOLD_S):
                while not is_over():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.counts.holds_expired_total += 1
        self._base = None


def _dialect(venue: str) -> Dialect:
    match venue:
        case "binance":
            return BinanceDialect()
        case "hyperliquid":
            return HyperliquidDialect()
        case _:
            raise ValueError(f"recordings of {venue} cannot be served, only those of binance and hyperliquid")


def _exchange(frame: Frame) -> Exchange | None:
    """Return the exchange of a REST frame; a damaged one is passed over like any message that nobody understands."""
    try:
        return exchange_of(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
