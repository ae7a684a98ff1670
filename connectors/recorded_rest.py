"""The REST half of a recording: which requests it can answer, and what the answer is at each moment.

Requests are equal when method, path, query and body say the same, in whatever order and spelling. If a request is not in the
recording exactly, one that differs in ``limit`` only answers it.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from connectors.frames import REST_PREFIX, Frame, RestExchange, RestRequest

MAX_REQUESTS: Final = 1_000_000
"""Distinct requests remembered: every known account of Hyperliquid (30,000) some thirty times over; about 300 bytes each."""

RequestKey = str
"""A request in normal form."""


class Exchange(msgspec.Struct, frozen=True):
    """One recorded answer.

    ``loose_key`` is the key without ``limit``; ``book_symbol`` is set when the answer is the snapshot of a book that a stream of
    changes continues.
    """

    key: RequestKey
    loose_key: RequestKey
    body: bytes
    request: RestRequest
    book_symbol: str | None


class _Generated(msgspec.Struct):
    """How tardis.dev puts the answers to its own REST requests among the streams (venues.md 8.1)."""

    stream: str
    data: msgspec.Raw
    generated: bool = False


_EXCHANGE = msgspec.json.Decoder(RestExchange)
_GENERATED = msgspec.json.Decoder(_Generated)
_TARDIS_PATHS: Final = {"depthSnapshot": "/fapi/v1/depth", "openInterest": "/fapi/v1/openInterest"}
_BOOK_PATHS: Final = frozenset({"/fapi/v1/depth"})


def request_keys(method: str, path_and_query: str, body: bytes | str) -> tuple[RequestKey, RequestKey]:
    """Return the normal form of a request, and the one without ``limit``."""
    path, _, query = path_and_query.partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    loose_pairs = [pair for pair in pairs if pair[0] != "limit"]
    content = _normal_body(body)
    return json.dumps([method.upper(), path, pairs, content]), json.dumps([method.upper(), path, loose_pairs, content])


def _normal_body(body: bytes | str) -> str:
    if not body:
        return ""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return repr(body)
    if isinstance(content, dict) and content.get("dex") == "":
        # The main dex of Hyperliquid, which is also what is meant when none is named.
        del content["dex"]
    return json.dumps(content, sort_keys=True)


def exchange_of(frame: Frame) -> Exchange | None:
    """Return the REST exchange that a frame holds, or ``None`` if it holds something else.

    Raises:
        msgspec.DecodeError: the frame claims to be one and is not.
    """
    payload = frame.payload
    if payload is None:
        return None
    if payload.startswith(REST_PREFIX):
        exchange = _EXCHANGE.decode(payload)
        return _exchange(exchange.request, bytes(exchange.response))
    if b'"generated":true' not in payload[:200]:
        return None
    generated = _GENERATED.decode(payload)
    symbol, _, kind = generated.stream.partition("@")
    if not generated.generated or kind not in _TARDIS_PATHS:
        return None
    return _exchange(RestRequest("GET", f"{_TARDIS_PATHS[kind]}?symbol={symbol.upper()}"), bytes(generated.data))


def _exchange(request: RestRequest, body: bytes) -> Exchange:
    key, loose_key = request_keys(request.method, request.path, request.body)
    path, _, query = request.path.partition("?")
    symbol = dict(parse_qsl(query)).get("symbol") if path in _BOOK_PATHS else None
    return Exchange(key=key, loose_key=loose_key, body=body, request=request, book_symbol=symbol)


class RecordedRest:
    """The answers of one recording up to the playhead.

    Attributes:
        refused_keys_total: Requests that were not remembered because there were ``MAX_REQUESTS``.
    """

    def __init__(self) -> None:
        self.refused_keys_total = 0
        self._exact: set[RequestKey] = set()
        self._loose: set[RequestKey] = set()
        self._answers: dict[RequestKey, bytes] = {}

    def learn(self, exchange: Exchange) -> None:
        """Take note that the recording answers this request at some time."""
        if len(self._exact) >= MAX_REQUESTS and exchange.key not in self._exact:
            self.refused_keys_total += 1
            return
        self._exact.add(exchange.key)
        self._loose.add(exchange.loose_key)

    def advance(self, exchange: Exchange) -> None:
        """Make this answer the latest one."""
        self._answers[exchange.key] = exchange.body
        self._answers[exchange.loose_key] = exchange.body

    def find(self, method: str, path_and_query: str, body: bytes) -> RequestKey | None:
        """Return the key under which a request is answered, or ``None`` if the recording never answers it."""
        key, loose_key = request_keys(method, path_and_query, body)
        if key in self._exact:
            return key
        return loose_key if loose_key in self._loose else None

    def answer(self, key: RequestKey) -> bytes | None:
        """Return the latest answer, or ``None`` if the playhead has not reached the first one."""
        return self._answers.get(key)
