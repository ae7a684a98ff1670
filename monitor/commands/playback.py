"""``liqmon playback``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from connectors.frames import REST_CONNECTION, Frame, RestRequest, wrap_rest_response
from connectors.importers import open_recording
from connectors.playback import PlaybackBackend
from connectors.recorded_rest import Exchange, RecordedRest, exchange_of
from connectors.recording import RecordingError
from connectors.registry import VENUES
from connectors.serving import VenueServer
from connectors.venue import VenueSettings
from monitor.commands.progress import counting
from monitor.commands.terminal import BAD_INPUT, FAILED, OK, complain, say

SYMBOLS_MAX = 2_000
"""Symbols looked for in a recording: several times the list of the largest venue."""

SYMBOLS_SHOWN = 20

MARKET_LIST_PATH = "/fapi/v1/exchangeInfo"

DOLLARS = ("USDT", "USDC")
"""The quote assets that end the names of Binance's perpetual markets."""


class UnfitRecordingError(Exception):
    """The recording is readable, but cannot be served."""


class Survey(NamedTuple):
    """What one look through a recording tells."""

    venue: str
    symbols: tuple[str, ...]
    frames: int
    missing: tuple[RestRequest, ...]
    """Requests of a daemon's start that the recording has no answer to."""


def run_playback(paths: list[Path], *, port: int, speed: str, sockets: int, venue: str | None) -> int:
    """Serve a recording on loopback until it has been played, or until Ctrl-C."""
    try:
        found = survey(counting(open_recording(paths, venue), "reading"))
        backend = PlaybackBackend(
            lambda: as_a_daemon_needs_it(open_recording(paths, venue), found),
            found.venue,
            "max" if speed == "max" else float(speed),
            start_when=sockets,
        )
    except (RecordingError, UnfitRecordingError, ValueError) as error:
        complain(str(error))
        return BAD_INPUT
    try:
        return uvloop.run(_serve(backend, found, port, sockets))
    except RecordingError as error:
        complain(str(error))
        return BAD_INPUT


def survey(frames: Iterator[Frame]) -> Survey:
    """Look through a recording once.

    Raises:
        RecordingError: it is damaged.
        UnfitRecordingError: it is empty, or holds several venues, or one that this program does not know.
    """
    venues: dict[str, int] = {}
    symbols: dict[str, None] = {}
    rest = RecordedRest()
    for frame in frames:
        venues[frame.venue] = venues.get(frame.venue, 0) + 1
        venue = VENUES.get(frame.venue)
        if venue is None or frame.payload is None:
            continue
        if frame.connection == REST_CONNECTION:
            if (exchange := _exchange(frame)) is not None:
                rest.learn(exchange)
            continue
        _, _, name = (venue.channel_key(frame.payload) or "").partition(":")
        # A stream of all symbols is none of them, and neither is an account.
        if name and name != "*" and not name.startswith("0x") and len(symbols) < SYMBOLS_MAX:
            symbols[name] = None
    if not venues:
        raise UnfitRecordingError("the recording is empty: there is nothing to serve")
    if len(venues) > 1:
        raise UnfitRecordingError(
            f"the recording holds frames of {', '.join(sorted(venues))}: only one venue can be served at a time"
        )
    name, count = venues.popitem()
    if name not in VENUES:
        raise UnfitRecordingError(f"the recording holds frames of {name!r}; known here: {', '.join(sorted(VENUES))}")
    wanted = VENUES[name].bootstrap(VenueSettings(symbols=tuple(symbols)))
    missing = tuple(one for one in wanted if rest.find(one.method, one.path, one.body.encode()) is None)
    return Survey(name, tuple(symbols), count, missing)


def as_a_daemon_needs_it(frames: Iterator[Frame], found: Survey) -> Iterator[Frame]:
    """Make up for what other programs record differently from this one; its own recordings pass unchanged.

    * A daemon asks for the list of markets before it subscribes. Where Binance's was not recorded, one of the recorded symbols
      comes first; it says which symbols there are and nothing of their sizes and steps.
    * A daemon asks for the snapshot of a book when the first change of it has arrived. A snapshot that was recorded before any
      change follows the first one, or each would wait for the other.
    """
    channel_key = VENUES[found.venue].channel_key
    lacks_list = any(request.path == MARKET_LIST_PATH for request in found.missing)
    streamed: set[str] = set()
    early: dict[str, Frame] = {}
    for frame in frames:
        if lacks_list:
            lacks_list = False
            yield _market_list(frame, found.symbols)
        if frame.connection == REST_CONNECTION:
            symbol = _snapshot_symbol(frame)
            if symbol is not None and symbol not in streamed:
                early[symbol] = frame
                continue
        yield frame
        if frame.payload is not None and len(streamed) < len(found.symbols):
            kind, _, symbol = (channel_key(frame.payload) or "").partition(":")
            if kind == "depth" and symbol not in streamed:
                streamed.add(symbol)
                if (snapshot := early.pop(symbol, None)) is not None:
                    yield msgspec.structs.replace(snapshot, received_ns=frame.received_ns)
    yield from early.values()


def _market_list(first: Frame, symbols: tuple[str, ...]) -> Frame:
    markets = [
        {
            "symbol": symbol,
            "status": "TRADING",
            "quoteAsset": next((quote for quote in DOLLARS if symbol.endswith(quote)), ""),
            "filters": [],
        }
        for symbol in symbols
    ]
    payload = wrap_rest_response(RestRequest("GET", MARKET_LIST_PATH), msgspec.json.encode({"symbols": markets}))
    return Frame(first.venue, REST_CONNECTION, first.received_ns, payload)


def _snapshot_symbol(frame: Frame) -> str | None:
    exchange = _exchange(frame)
    return exchange.book_symbol if exchange is not None else None


def _exchange(frame: Frame) -> Exchange | None:
    """Return what a REST frame holds; what is damaged inside of it will not be served either."""
    try:
        return exchange_of(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def _serve(backend: PlaybackBackend, found: Survey, port: int, sockets: int) -> int:
    server = VenueServer(backend, port=port, ping_interval_s=backend.ping_interval_s)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.start()
    except OSError as error:
        complain(f"cannot listen on port {port}: {error.strerror or error}")
        return FAILED
    _announce(server, found, sockets)
    playing = asyncio.create_task(backend.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            playing.result()
    finally:
        playing.cancel()
        stopping.cancel()
        await server.stop()
        await asyncio.wait({playing, stopping})
    counts = backend.counts
    say(
        f"{'played to the end' if backend.finished.is_set() else 'stopped'}: {counts.sent_total:,} messages sent, "
        f"{counts.unclaimed_total:,} that nobody had subscribed to, {counts.not_held_total:,} requests without a recorded answer"
    )
    return OK


def _announce(server: VenueServer, found: Survey, sockets: int) -> None:
    """Say where to connect, as a section of a configuration that can be taken over as it is."""
    websocket_url = f"{server.websocket_url}/ws" if found.venue == "hyperliquid" else server.websocket_url
    kept = msgspec.json.encode(found.symbols[:SYMBOLS_SHOWN]).decode()
    more = len(found.symbols) - SYMBOLS_SHOWN
    say(
        f"# {found.frames:,} recorded frames; the first message is sent when {sockets} websocket{'s' if sockets > 1 else ''} "
        f"ha{'ve' if sockets > 1 else 's'} subscribed. Ctrl-C stops."
    )
    for request in found.missing:
        if request.path == MARKET_LIST_PATH:
            say("# The recording lacks the list of markets: one with the recorded symbols is served.")
        else:
            say(f"# The recording lacks the answer to {request.method} {request.path} {request.body}: a daemon will wait for it.")
    say("[[venues]]")
    say(f'name = "{found.venue}"')
    say(f"symbols = {kept}" + (f"  # and {more:,} more" if more > 0 else ""))
    say(f'websocket_url = "{websocket_url}"')
    say(f'rest_url = "{server.rest_url}"')
