"""How answers and failures are written: JSON that is never stored, and one shape for everything that went wrong."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from monitor.web import views

JSON = "application/json"


class RequestError(Exception):
    """A request that cannot be answered; becomes an ``ErrorResponse``."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def json_response(answer: Any, status: int = 200) -> web.Response:
    """Encode an answer; msgspec writes values that are not finite as ``null``, so that no NaN gets into JSON."""
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type=JSON, headers={"Cache-Control": "no-store"})


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Encode a failure."""
    response = json_response(views.ErrorResponse(error=views.ErrorDetail(code=code, message=message)), status)
    response.headers.update(headers or {})
    return response
