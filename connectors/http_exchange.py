"""One HTTP request and its answer: bounded, checked to be JSON, and every way to fail told apart."""

from __future__ import annotations

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from connectors.frames import RestRequest
from connectors.outbound import is_fatal_status

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""Twice the largest real answer (exchange information and metadata with tiers are below 8 MB); counted after decompression."""

READ_CHUNK_BYTES = 64 * 1024

EXCERPT_BYTES = 120

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp lets through when a peer is absent, cuts the connection, or breaks the protocol or the compression."""


class RestError(Exception):
    """A request that got no usable answer.

    Args:
        message: for people.
        retryable: whether asking again later may help.
        kind: HTTP status or kind of failure, fit for a metric label.
        status: HTTP status, 0 when there was no answer or its body was the trouble.
        retry_after: the ``Retry-After`` header, if there was one.
    """

    def __init__(self, message: str, *, retryable: bool, kind: str, status: int = 0, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.kind = kind
        self.status = status
        self.retry_after = retry_after


def one_line_json(body: bytes) -> bytes:
    """Return ``body`` as one JSON text without line breaks, unchanged where it already is one.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested beyond what any parser takes.
    """
    if not body.isascii():
        body.decode("utf-8")
    try:
        if b"\n" in body or b"\r" in body:
            return msgspec.json.format(body, indent=-1)
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return body


async def exchange(session: aiohttp.ClientSession, base_url: str, request: RestRequest) -> bytes:
    """Send ``request`` and return the answer as one line of JSON.

    Raises:
        RestError: whatever the server or the network did instead of answering; the base URL is not in its text.
    """
    try:
        async with session.request(
            request.method,
            base_url + request.path,
            data=request.body.encode() or None,
            headers={"Content-Type": "application/json"} if request.body else None,
            allow_redirects=False,
        ) as response:
            if not 200 <= response.status < 300:
                raise await _refusal(response, request)
            body = await _read(response, request)
    except TimeoutError as error:
        raise RestError(f"{request.path}: no answer in time", retryable=True, kind="timeout") from error
    except NETWORK_ERRORS as error:
        raise RestError(f"{request.path}: {type(error).__name__}", retryable=True, kind="network") from error
    try:
        return one_line_json(body)
    except ValueError as error:
        raise RestError(f"{request.path}: not JSON: {error}", retryable=True, kind="malformed") from error


async def _refusal(response: aiohttp.ClientResponse, request: RestRequest) -> RestError:
    """Describe an answer that is not a success."""
    status = response.status
    try:
        excerpt = ascii((await response.content.read(EXCERPT_BYTES)).decode("utf-8", "replace"))
    except NETWORK_ERRORS:
        # The status matters more than the text beside it: a 429 must be obeyed even if its body is broken or never comes.
        excerpt = "without a readable text"
    # A redirect is as final as a 4xx: the address is wrong, and a POST would not survive it.
    fatal = is_fatal_status(status) or 300 <= status < 400
    return RestError(
        f"{request.path}: HTTP {status} {excerpt}",
        retryable=not fatal,
        kind=str(status),
        status=status,
        retry_after=response.headers.get("Retry-After"),
    )


async def _read(response: aiohttp.ClientResponse, request: RestRequest) -> bytes:
    """Read a body without ever holding more of it than is allowed."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(READ_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise RestError(f"{request.path}: more than {MAX_RESPONSE_BYTES} bytes", retryable=False, kind="oversized")
    return bytes(body)
