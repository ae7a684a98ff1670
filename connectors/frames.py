"""The unit of recording: what arrived, where, and when.

A REST response is recorded like any other frame, wrapped with the request that it answers, so that a recording holds everything
that the parser saw and a local server can play the venue from it.
"""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One message of one connection; ``payload`` is ``None`` where the connection was lost.

    ``received_ns`` is stamped once, in the shell, right after the bytes were read (UTC, nanoseconds).
    """

    venue: str
    connection: str
    received_ns: int
    payload: bytes | None


class RestRequest(msgspec.Struct, frozen=True, gc=False):
    """One REST call: ``path`` includes the query, ``body`` is the JSON text of a POST, ``weight`` its cost for the rate limit."""

    method: str
    path: str
    body: str = ""
    weight: int = 1


class RestExchange(msgspec.Struct, gc=False):
    """The wrapper of a REST response inside a frame; ``generated`` is the mark that tardis.dev puts on such records."""

    generated: bool
    request: RestRequest
    response: msgspec.Raw


REST_PREFIX = b'{"generated":true,"request":'
"""Every wrapped REST response starts with these bytes, which no venue's own message does."""

REST_CONNECTION = "rest"
"""The connection name of all frames that came over REST."""


def wrap_rest_response(request: RestRequest, response: bytes) -> bytes:
    """Return the frame payload for ``response``, which must be one JSON text without line breaks outside of strings."""
    return msgspec.json.encode(RestExchange(generated=True, request=request, response=msgspec.Raw(response)))
