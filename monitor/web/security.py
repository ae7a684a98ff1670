"""Who may talk to the server, how slowly, and what a browser may do with the answer.

aiohttp leaves a connection that never finishes its request header open for very long, and has no cap on connections. Both are
added here, one layer below it, where a connection costs nothing but its bytes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from typing import cast

from aiohttp import web

from monitor.web.settings import LOOPBACK_NAMES, HttpSettings, is_loopback

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers together; a browser sends about 1 KB."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "liqmon",
}
UNAUTHENTICATED_PATHS = frozenset({"/healthz", "/readyz"})
"""Probes carry no credentials, and learn nothing from these but yes or no and why."""


class Guard:
    """Counts connections and keeps a deadline for each.

    A connection is waiting (for a request header), busy (a response is under way) or streaming. When all places are taken, the
    connection that has waited longest makes room for the newcomer, so that many idle ones cannot keep a health check out.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.header_timeout_s = settings.header_timeout_s
        self.response_timeout_s = settings.response_timeout_s
        self.keepalive_timeout_s = settings.keepalive_timeout_s
        self.max_connections = settings.max_connections
        self.refused = 0
        self.cut = 0
        self._open: dict[GuardedConnection, None] = {}

    def counters(self) -> tuple[int, int, int]:
        """Return open, refused and cut connections."""
        return len(self._open), self.refused, self.cut

    def admit(self, connection: GuardedConnection) -> bool:
        """Take a connection in, if there is or can be made a place for it."""
        if len(self._open) >= self.max_connections:
            waiting = next((other for other in self._open if other.waiting), None)
            if waiting is None:
                self.refused += 1
                return False
            waiting.abort()
            self._open.pop(waiting, None)
        self._open[connection] = None
        return True

    def requeue(self, connection: GuardedConnection) -> None:
        """Move a connection that begins to wait to the end of the line."""
        if self._open.pop(connection, True) is None:
            self._open[connection] = None

    def forget(self, connection: GuardedConnection) -> None:
        """Give the place of a closed connection away."""
        self._open.pop(connection, None)


class GuardedConnection(asyncio.Protocol):
    """Stands between the transport and aiohttp's protocol, passes everything on, and closes what takes too long."""

    def __init__(self, guard: Guard, inner: asyncio.Protocol) -> None:
        self.waiting = True
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head_complete = False
        self._tail = b""
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection and expect a request header soon."""
        self._transport = cast(asyncio.Transport, transport)
        self._admitted = self._guard.admit(self)
        if not self._admitted:
            self._transport.abort()
            return
        self._deadline(self._guard.header_timeout_s)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the place."""
        self._cancel_timer()
        self._guard.forget(self)
        if self._admitted:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, unless a header grows without end."""
        if not self._admitted:
            return
        if self.waiting and not self._head_complete:
            if self._head_bytes == 0:
                self._deadline(self._guard.header_timeout_s)
            self._head_bytes += len(data)
            # What follows the header is for aiohttp, which stops reading when nobody takes it.
            self._head_complete = b"\r\n\r\n" in self._tail + data
            self._tail = (self._tail + data)[-3:]
            if not self._head_complete and self._head_bytes > MAX_HEAD_BYTES:
                self._cut()
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the end of the peer's data on."""
        return self._inner.eof_received() if self._admitted else None

    def pause_writing(self) -> None:
        """Pass on that the peer does not take what was written."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the peer takes data again."""
        self._inner.resume_writing()

    def request_began(self) -> None:
        """Note that a whole header arrived; the response has its own deadline."""
        self.waiting = False
        self._deadline(self._guard.response_timeout_s)

    def request_ended(self) -> None:
        """Wait for the next request on a connection that is kept alive."""
        self.waiting = True
        self._head_bytes = 0
        self._head_complete = False
        self._tail = b""
        self._guard.requeue(self)
        self._deadline(self._guard.keepalive_timeout_s)

    def stream_began(self) -> None:
        """Lift the deadline: the stream watches over its client itself."""
        self._cancel_timer()

    def abort(self) -> None:
        """Close at once, discarding what was not sent."""
        self._guard.cut += 1
        self._cancel_timer()
        if self._transport is not None:
            self._transport.abort()

    def _cut(self) -> None:
        self._timer = None
        self.abort()

    def _deadline(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cut)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def guarded_by(request: web.Request) -> GuardedConnection | None:
    """Return the guard of the connection a request came on; ``None`` once it is gone."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, GuardedConnection) else None


class Access:
    """Decides on Host, Origin and credentials.

    A page of another site can have a browser send requests here, and by re-pointing a name of its own to this address (DNS
    rebinding) read the answers. So the Host header must be a loopback name or one that was configured. A server that listens
    beyond loopback also answers to plain addresses, which rebinding cannot fake: that is how a scraper in the same network
    addresses it.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._names = {*LOOPBACK_NAMES, *(name.strip("[]") for name in settings.allowed_hosts), settings.host.lower()}
        self._addresses = not is_loopback(settings.host)
        password = settings.password.get_secret_value() if settings.password is not None else None
        self._credentials = f"{settings.username}:{password}".encode() if password is not None else None

    def host_allowed(self, host: str | None) -> bool:
        """Tell whether the server may be addressed as ``host`` (with or without port)."""
        name = host_name(host or "")
        return name is not None and (name in self._names or (self._addresses and _is_address(name)))

    def origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a page of ``origin`` may open a stream: none given (not a browser), this server, or a configured name."""
        if origin is None:
            return True
        scheme, _, authority = origin.partition("://")
        if scheme not in {"http", "https"} or not authority:
            return False
        if host is not None and authority.lower() == host.lower():
            return self.host_allowed(host)
        # Behind a proxy the Host may be rewritten, but not to a loopback name: any local page could claim one.
        name = host_name(authority)
        return name is not None and name in self._names - set(LOOPBACK_NAMES)

    def authorised(self, path: str, authorization: str | None) -> bool:
        """Tell whether the credentials suffice for ``path``."""
        if self._credentials is None or path in UNAUTHENTICATED_PATHS:
            return True
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, self._credentials)


def host_name(authority: str) -> str | None:
    """Return the name in a Host header without its port, in lower case; ``None`` when it is malformed."""
    if authority.startswith("["):
        name, bracket, rest = authority[1:].partition("]")
        valid_port = rest == "" or (rest.startswith(":") and rest[1:].isdigit())
        return name.lower() if bracket and valid_port else None
    name, colon, port = authority.partition(":")
    if not name or (colon and not port.isdigit()):
        return None
    return name.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
