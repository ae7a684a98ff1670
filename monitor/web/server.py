"""Puts API, stream and page behind one guarded listening socket."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from monitor.web.answers import RequestError, error_response
from monitor.web.api import Api
from monitor.web.hub import Hub
from monitor.web.redaction import RedactingFilter, Redaction
from monitor.web.security import SECURITY_HEADERS, Access, Guard, GuardedConnection, guarded_by
from monitor.web.settings import HttpSettings
from monitor.web.stream import Streams

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}
SHUTDOWN_TIMEOUT_S = 3.0
STREAM_PATH = "/api/v1/stream"


class WebServer:
    """The HTTP server. ``start`` and ``stop`` once each; between them ``port`` is the port it listens on.

    Raises:
        OSError: From ``start``, when the address cannot be listened on.
    """

    def __init__(self, hub: Hub, settings: HttpSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._guard = Guard(settings)
        self._access = Access(settings)
        self._streams = Streams(hub, settings)
        if settings.redact_accounts:
            hub.redact_with(Redaction())
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        return cast(int, self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen."""
        assert self._runner is None, "a server starts once"
        app = web.Application(middlewares=[self._answer], client_max_size=1)
        app.add_routes(Api(self._hub, self._settings).routes())
        app.router.add_get(STREAM_PATH, self._streams.handle, allow_head=False)
        app.router.add_get("/", _static("index.html"))
        for name in static_names():
            app.router.add_get(f"/static/{name}", _static(name))
        app.on_response_prepare.append(_add_security_headers)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._settings.keepalive_timeout_s + 1.0,
            # A refused body is read and thrown away for so long, or the reset would overtake the answer.
            lingering_time=1.0,
            logger=_logger(self._settings.redact_accounts),
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GuardedConnection(self._guard, inner()), self._settings.host, self._settings.port, backlog=512
            )
        except OSError:
            await self._runner.cleanup()
            raise
        self._hub.web_counters = self._guard.counters

    async def stop(self) -> None:
        """Stop listening, say goodbye to streams, and close what is left."""
        if self._server is not None:
            self._server.close()
        await self._streams.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._server is not None:
            await self._server.wait_closed()

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = guarded_by(request)
        if connection is not None:
            connection.request_began()
        try:
            refusal = self._refusal(request)
            response = await self._handled(request, handler) if refusal is None else refusal
            if not isinstance(response, web.WebSocketResponse):
                # Sent here rather than after the middleware, so that the deadline covers a client that does not read.
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            if connection is not None:
                connection.request_ended()

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Check what has to be right before a request is looked at."""
        host = request.headers.get("Host")
        if not self._access.host_allowed(host):
            named = (host or "")[:100]
            return error_response(421, "host_not_allowed", f"the server is not addressed as {named!r}; see allowed_hosts")
        if not self._access.authorised(request.path, request.headers.get("Authorization")):
            return error_response(401, "unauthorised", "credentials are needed", {"WWW-Authenticate": 'Basic realm="liqmon"'})
        if request.method not in {"GET", "HEAD"}:
            return _last(error_response(405, "method_not_allowed", "the API is read-only", {"Allow": "GET, HEAD"}))
        if request.body_exists:
            return _last(error_response(413, "no_body_expected", "requests have no body here"))
        if request.path == STREAM_PATH and not self._access.origin_allowed(request.headers.get("Origin"), host):
            return error_response(403, "origin_not_allowed", "streams are for this server's own page and for programs")
        return None

    async def _handled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RequestError as error:
            return error_response(error.status, error.code, error.message, error.headers)
        except web.HTTPException as error:
            if error.status == 404:
                return error_response(404, "not_found", f"there is nothing at {request.path[:100]!r}; see /api/v1/openapi.json")
            reason = error.reason or "error"
            return error_response(error.status, reason.lower().replace(" ", "_"), error.text or reason)


class _OwnFaultsOnly(logging.Filter):
    """Keeps what is wrong with us in the log, and malformed requests (anyone can send them) out of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _logger(redact: bool) -> logging.Logger:
    # Loggers of one name are one object; what is filtered here concerns this server alone.
    logger = logging.getLogger("liqmon.web.redacted" if redact else "liqmon.web")
    for kind in (_OwnFaultsOnly, RedactingFilter) if redact else (_OwnFaultsOnly,):
        if not any(isinstance(known, kind) for known in logger.filters):
            logger.addFilter(kind())
    return logger


def static_names() -> list[str]:
    """Return the files of the page, relative to ``static``. The list is fixed at start, so no request can name another file."""
    root = resources.files("monitor.web") / "static"
    names = [entry.name for entry in root.iterdir() if entry.is_file()]
    names += [f"vendor/{entry.name}" for entry in (root / "vendor").iterdir() if entry.is_file()]
    return sorted(name for name in names if name.rpartition(".")[2] in CONTENT_TYPES)


def _static(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = (resources.files("monitor.web") / "static").joinpath(*name.split("/")).read_bytes()
    headers = {
        "Content-Type": CONTENT_TYPES[name.rpartition(".")[2]],
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        # Always asked for again: after an upgrade no browser mixes old scripts with a new API.
        "Cache-Control": "no-cache",
    }

    async def handle(request: web.Request) -> web.Response:
        if headers["ETag"] in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={key: headers[key] for key in ("ETag", "Cache-Control")})
        return web.Response(body=body, headers=headers)

    return handle


def _last(response: web.Response) -> web.Response:
    """Close the connection after this answer, rather than read what the client still sends."""
    response.force_close()
    return response


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
