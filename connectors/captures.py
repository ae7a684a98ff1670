"""Readers of the files that other programs capture, one generator per format (venues.md 8).

Websocket payloads stay as they are, byte by byte; REST responses are wrapped with the request that they answer. Binance's messages
are given the connection that carries their stream today, ``public`` for books and quotes and ``market`` for all else (venues.md
2.1); Hyperliquid has one, ``main``; the sockets of other venues are numbered as in the capture.
"""

from __future__ import annotations

import ast
import functools
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from connectors.compressed import ContainerError, Note, read_text, split_lines
from connectors.frames import REST_CONNECTION, REST_PREFIX, Frame, RestRequest, wrap_rest_response
from connectors.recorder import is_one_json_text
from connectors.recording import RecordingError, read_recording

MAX_INFLATED_BYTES: Final = 64 * 1024 * 1024
"""What one compressed websocket message may grow to; the largest real ones are whole books of some hundred kilobytes."""

CRYPTOFEED_URL: Final = re.compile(
    rb"(?P<scheme>wss?|https?)://(?P<host>[^/\s]+)(?P<path>\S*) (?P<arrow><->|<-|->) (?P<stamp>\d+(\.\d+)?)(: ?(?P<body>.*))?"
)
CRYPTOFEED_NAME: Final = re.compile(r"(?P<capture>.+?)(\.(?P<kind>ws|http)\.(?P<number>\d+))?\.(?P<rotation>\d+)(\.(zst|gz))?")

_BINANCE_STREAM = re.compile(rb'"stream":\s*"(?P<symbol>[^"@]*)@?(?P<kind>[^"]*)"')
_BINANCE_BOOK_EVENT = re.compile(rb'"e":\s*"(depthUpdate|bookTicker)"')

_VENUE_MARKS: Final = (
    (b'"stream":', "binance"),
    (b'"arg":{', "okx"),
    (b'"jsonrpc":', "deribit"),
    (b'"topic":', "bybit"),
    (b'"table":', "bitmex"),
    (b'"channel":"v3_', "dydx"),
    (b'"channel":"v4_', "dydx"),
    (b'"connection_id":', "dydx"),
    (b'"channel":', "hyperliquid"),
)
"""What only the messages of one venue have near their start; the first that fits decides."""

_HOSTS: Final = {name: name for name in ("binance", "bybit", "okx", "deribit", "dydx", "bitmex", "hyperliquid")} | {"okex": "okx"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ImportCounts(msgspec.Struct):
    """What was met in foreign files; every line is one of the others."""

    lines: int = 0
    messages: int = 0
    """Websocket messages that were received."""
    responses: int = 0
    """REST responses, with those that the capturing program mixed into a websocket stream."""
    connects: int = 0
    sent: int = 0
    """Messages that the capturing program sent, and lines with its configuration: nothing to replay."""
    empty: int = 0
    """Empty lines; in tardis.dev files they mean a lost connection."""


class ArchivedMessage(msgspec.Struct):
    """One line of the Hyperliquid archive (venues.md 8.4)."""

    time: str
    raw: msgspec.Raw


_ARCHIVED = msgspec.json.Decoder(ArchivedMessage)


class Lines:
    """The lines of one file, knowing where they stand; to be iterated once.

    Attributes:
        number: The number of the current line, from 1.
        offset: Where it starts in the text.
        unterminated: It is the last one and lacks its line feed, so it may be torn.
    """

    def __init__(self, path: Path, counts: ImportCounts) -> None:
        self.path = path
        self.number = 0
        self.offset = 0
        self.unterminated = False
        self._text_bytes = 0
        self._counts = counts

    def __iter__(self) -> Iterator[bytes]:
        try:
            for batch in split_lines(self._tallied()):
                if isinstance(batch, Note):
                    continue
                for line in batch:
                    self.number += 1
                    self._counts.lines += 1
                    self.unterminated = self.offset + len(line) == self._text_bytes
                    yield line
                    self.offset += len(line) + 1
        except ContainerError as error:
            self.number += 1
            raise self.error(str(error)) from error
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error

    def error(self, reason: str) -> RecordingError:
        """Return an error that names the current line."""
        return RecordingError(self.path, max(self.number, 1), self.offset, reason)

    def check_whole(self, payload: bytes) -> None:
        """Refuse the payload of a last line that was torn."""
        if self.unterminated and not is_one_json_text(payload):
            raise self.error("the last line is torn")

    def _tallied(self) -> Iterator[bytes | Note]:
        for item in read_text(self.path):
            if not isinstance(item, Note):
                self._text_bytes += len(item)
            yield item


def detect_venue(payload: bytes) -> str | None:
    """Tell whose websocket message this is, by its first bytes."""
    head = payload[:400]
    return next((venue for mark, venue in _VENUE_MARKS if mark in head), None)


def detect_venue_of_host(host: str) -> str | None:
    """Tell whose host this is."""
    return next((venue for name, venue in _HOSTS.items() if name in host), None)


def agreed_venue(lines: Lines, given: str | None, detected: str | None) -> str | None:
    """Return the venue, as given or as the content tells it; of a venue that is not known here, the content tells nothing.

    Raises:
        RecordingError: the content tells of another one than was given.
    """
    if given in _HOSTS and detected not in {None, given}:
        raise lines.error(f"this is a capture of {detected}, not {given}")
    return given or detected


def symbol_of_stream(payload: bytes) -> str | None:
    """Return the symbol of a combined-stream message of Binance, in capitals, or ``None`` if it names none."""
    stream = _BINANCE_STREAM.search(payload, 0, 200)
    return stream["symbol"].decode(errors="replace").upper() or None if stream and b"!" not in stream["symbol"] else None


def connection_of(venue: str, payload: bytes, otherwise: str) -> str:
    """Name the connection on which a message of ``venue`` would arrive today."""
    if b'"generated":true' in payload[:200]:
        return REST_CONNECTION
    if venue == "hyperliquid":
        return "main"
    if venue != "binance":
        return otherwise
    stream = _BINANCE_STREAM.search(payload, 0, 200)
    if stream is None:
        return "public" if _BINANCE_BOOK_EVENT.search(payload, 0, 200) else "market"
    return binance_route(stream["symbol"], stream["kind"])


@functools.lru_cache(maxsize=4096)
def binance_route(symbol: bytes, kind: bytes) -> str:
    """Name the half of Binance's host, ``public`` or ``market``, that carries the stream ``<symbol>@<kind>`` (venues.md 2.1)."""
    if kind in {b"depthSnapshot", b"openInterest"}:
        # REST responses that tardis.dev puts among the streams.
        return REST_CONNECTION
    return "public" if kind.startswith((b"depth", b"bookTicker", b"rpiDepth")) or symbol == b"!bookTicker" else "market"


def read_tardis(path: Path, venue: str, counts: ImportCounts) -> Iterator[Frame]:
    """Yield the frames of a tardis.dev raw file; one lost connection there is that of all websocket connections seen so far."""
    connections: dict[str, None] = {}
    for frame in read_recording(path, venue, "main"):
        counts.lines += 1
        if frame.payload is None:
            counts.empty += 1
            for connection in connections:
                yield Frame(venue, connection, frame.received_ns, None)
            continue
        connection = connection_of(venue, frame.payload, "main")
        if connection == REST_CONNECTION:
            counts.responses += 1
        else:
            counts.messages += 1
            connections[connection] = None
        yield Frame(venue, connection, frame.received_ns, frame.payload)


def read_hftbacktest(path: Path, venue: str, symbol: str | None, counts: ImportCounts) -> Iterator[Frame]:
    """Yield the frames of one file of hftbacktest's collector.

    The unit of its stamps is that of the first one, by magnitude: 13 digits are milliseconds, 16 microseconds (files of 2023), 19
    nanoseconds (files of 2024). ``symbol`` is the one of the file's streams, which its bare REST book snapshots lack.
    """
    digits = 0
    scale = 1
    lines = Lines(path, counts)
    for line in lines:
        if not line:
            counts.empty += 1
            continue
        stamp, _, payload = line.partition(b" ")
        if not digits and len(stamp) in {13, 16, 19}:
            digits = len(stamp)
            scale = 10 ** (19 - digits)
        if len(stamp) != digits or not stamp.isdigit() or not payload:
            raise lines.error(f"expected {digits or '13, 16 or 19'} digits of time, a space and JSON")
        lines.check_whole(payload)
        received_ns = int(stamp) * scale
        if venue == "binance" and payload.startswith(b'{"lastUpdateId"'):
            if symbol is None:
                raise lines.error("a book snapshot without a symbol, in a file without streams that tell it")
            request = RestRequest("GET", f"/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20)
            counts.responses += 1
            yield Frame(venue, REST_CONNECTION, received_ns, _wrapped(lines, request, payload))
        else:
            counts.messages += 1
            yield Frame(venue, connection_of(venue, payload, "main"), received_ns, payload)


def read_archive(path: Path, counts: ImportCounts) -> Iterator[Frame]:
    """Yield the frames of one file of the Hyperliquid archive, stamped with its own times."""
    lines = Lines(path, counts)
    for line in lines:
        if not line:
            counts.empty += 1
            continue
        try:
            message = _ARCHIVED.decode(line)
            received_ns = parse_iso_ns(message.time)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise lines.error(f'expected {{"time":...,"ver_num":...,"raw":{{...}}}}: {error}') from None
        counts.messages += 1
        yield Frame("hyperliquid", "main", received_ns, bytes(message.raw))


def read_cryptofeed(paths: Sequence[Path], venue: str | None, connection: str, counts: ImportCounts) -> Iterator[Frame]:
    """Yield the frames of one connection of a cryptofeed capture, whose files follow one another.

    A second connect means that the connection before it was lost. ``connection`` is the name for venues that have no fixed one.

    Raises:
        RecordingError: a line is of no known kind, or the venue cannot be told from hosts and content.
    """
    connections: dict[str, None] = {}
    for path in paths:
        lines = Lines(path, counts)
        for line in lines:
            if not line:
                counts.empty += 1
                continue
            if line.startswith(b"configuration: "):
                counts.sent += 1
                continue
            if line[:1].isdigit():
                received_ns, payload = _cryptofeed_message(lines, line)
                if not connections:
                    venue = agreed_venue(lines, venue, detect_venue(payload))
                if venue is None:
                    raise lines.error("the venue cannot be told from this message and must be given")
                name = connection_of(venue, payload, connection)
                connections[name] = None
                counts.messages += 1
                yield Frame(venue, name, received_ns, payload)
                continue
            match = CRYPTOFEED_URL.fullmatch(line)
            if match is None:
                raise lines.error(
                    "expected a line of cryptofeed: <url> <-> <epoch>, <url> -> <epoch>: <body>, or <epoch>: <message>"
                )
            received_ns = parse_epoch_ns(match["stamp"])
            venue = agreed_venue(lines, venue, detect_venue_of_host(match["host"].decode(errors="replace")))
            if venue is None:
                raise lines.error("the venue of this host is not known and must be given")
            if match["arrow"] == b"->":
                counts.responses += 1
                yield Frame(venue, REST_CONNECTION, received_ns, _cryptofeed_response(lines, match))
            elif match["arrow"] == b"<-":
                counts.sent += 1
            else:
                counts.connects += 1
                for name in connections:
                    yield Frame(venue, name, received_ns, None)
                connections.clear()


def _cryptofeed_message(lines: Lines, line: bytes) -> tuple[int, bytes]:
    """Split a received message; binary ones are stored as Python literals, often compressed."""
    stamp, separator, payload = line.partition(b": ")
    if not separator or not re.fullmatch(rb"\d+(\.\d+)?", stamp):
        raise lines.error("expected <epoch>: <message>")
    if payload[:2] in {b"b'", b'b"'}:
        try:
            literal = ast.literal_eval(payload.decode("ascii"))
        except (SyntaxError, ValueError) as error:
            raise lines.error(f"a damaged binary message: {error}") from None
        payload = _inflated(literal)
    else:
        lines.check_whole(payload)
    return parse_epoch_ns(stamp), payload


def _inflated(data: bytes) -> bytes:
    """Undo the compression that some venues apply inside of messages: gzip, or deflate without a header."""
    if is_one_json_text(data):
        return data
    try:
        return zlib.decompressobj(wbits=31 if data[:2] == b"\x1f\x8b" else -15).decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        return data


def _cryptofeed_response(lines: Lines, match: re.Match[bytes]) -> bytes:
    body = match["body"] or b""
    if not is_one_json_text(body):
        # Newer versions of cryptofeed append the response's headers.
        body = body.rpartition(b" header: ")[0]
    path = match["path"].decode(errors="replace") or "/"
    weight = 20 if path.startswith("/fapi/v1/depth") and path.endswith("limit=1000") else 1
    return _wrapped(lines, RestRequest("GET", path, weight=weight), body)


def _wrapped(lines: Lines, request: RestRequest, body: bytes) -> bytes:
    if not is_one_json_text(body):
        raise lines.error(f"the response to {request.path} is not JSON, or torn")
    wrapped = wrap_rest_response(request, body)
    assert wrapped.startswith(REST_PREFIX)
    return wrapped


def parse_epoch_ns(stamp: bytes) -> int:
    """Return decimal epoch seconds as nanoseconds, without the error that a float would add."""
    seconds, _, fraction = stamp.partition(b".")
    return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))


def parse_iso_ns(stamp: str) -> int:
    """Return an ISO 8601 time in UTC with up to nine fractional digits as nanoseconds.

    Raises:
        ValueError: it is none.
    """
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    if len(whole) != 19 or (fraction and not (fraction.isascii() and fraction.isdigit())):
        raise ValueError(f"not a time: {stamp}")
    seconds = (datetime.fromisoformat(whole + "Z") - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
