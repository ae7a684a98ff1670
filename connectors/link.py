"""One open websocket, whatever library carries it, and the policy under which it is opened and kept.

This is the seam at which the receive side can be replaced: everything above it deals with bytes and with two exceptions.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.protocol import OPEN

from connectors.outbound import USER_AGENT, is_fatal_status, is_loopback
from connectors.venue import ConnectionPlan

NAMED_CLOSE_CODES = frozenset({1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013})
"""Close codes with a metric label of their own; the peer may send some thousands of others."""


class ReconnectPolicy(msgspec.Struct, frozen=True):
    """How stubborn and how patient a connection is; all spans in seconds.

    Six attempts a minute and connection keep five connections within the tightest limit of a venue (Hyperliquid: 30 new
    connections a minute and address). A half-open connection is noticed after at most ``ping_interval_s + ping_timeout_s``.
    """

    base_delay_s: float = 1.0
    max_delay_s: float = 60.0
    healthy_after_s: float = 60.0
    """How long a connection has to deliver before the backoff starts again from its base."""
    attempts_per_minute: int = 6
    rate_limited_delay_s: float = 60.0
    """Least wait after HTTP 429."""
    banned_delay_s: float = 300.0
    """Least wait after HTTP 418; asking earlier makes a ban longer."""
    failed_delay_s: float = 300.0
    """Fixed pace after a refusal that only the operator can cure."""
    open_timeout_s: float = 10.0
    close_timeout_s: float = 0.5
    ping_interval_s: float | None = 20.0
    """Protocol pings; ``None`` for a peer that does not answer them."""
    ping_timeout_s: float = 10.0
    first_message_s: float = 20.0
    """Longest wait for anything at all, where a subscription was sent or a channel has a deadline."""
    silent_periods: int = 3
    """Periods of silence of some channels before everything is reconnected for them; doubles each time that did not help."""
    permessage_deflate: bool = False
    """Offer compression; it costs CPU and memory and only few peers insist on it."""

    def __post_init__(self) -> None:
        if self.attempts_per_minute < 1 or self.silent_periods < 1:
            raise ValueError("attempts_per_minute and silent_periods must be at least 1")


class LinkClosedError(Exception):
    """An open connection ended; ``reason`` is from a small fixed set, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class LinkRefusedError(Exception):
    """A connection did not open; ``status`` is the HTTP status of the refusal, if there was one."""

    def __init__(self, reason: str, detail: str, *, fatal: bool = False, status: int = 0, retry_after: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.fatal = fatal
        self.status = status
        self.retry_after = retry_after


class Link(Protocol):
    """An open connection, whatever library carries it. Every method raises :class:`LinkClosedError` once it is gone."""

    async def receive(self) -> bytes:
        """Return the next message."""

    async def send(self, payload: bytes) -> None:
        """Send a text message."""

    async def ping(self) -> None:
        """Send a protocol ping and wait until it is answered."""

    def is_closing(self) -> bool:
        """Tell whether the connection is on its way out, although :meth:`receive` may not have noticed yet."""

    async def close(self) -> None:
        """Close, politely at first, within the close timeout."""


OpenLink = Callable[[ConnectionPlan, ReconnectPolicy], AbstractAsyncContextManager[Link]]
"""Opens the connection of a plan, or raises :class:`LinkRefusedError`; closes it on leaving."""


class WebsocketLink:
    """A :class:`Link` over the ``websockets`` library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        """Return the next message as bytes, text or binary alike."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def send(self, payload: bytes) -> None:
        """Send a text message."""
        try:
            await self._connection.send(payload, text=True)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def ping(self) -> None:
        """Send a protocol ping and wait for its pong."""
        try:
            await (await self._connection.ping())
        except ConnectionClosed as error:
            raise _closed(error) from error

    def is_closing(self) -> bool:
        """Tell whether a close frame was sent or received, or the transport is gone."""
        return self._connection.state is not OPEN

    async def close(self) -> None:
        """Close within the close timeout of the policy."""
        await self._connection.close()


def _closed(error: ConnectionClosed) -> LinkClosedError:
    """Name the reason of a closed websocket."""
    ours = error.sent is not None and not error.rcvd_then_sent
    if ours and error.sent is not None and error.sent.code == 1009:
        return LinkClosedError("oversized", str(error))
    if ours and error.sent is not None and error.sent.code in {1002, 1007}:
        return LinkClosedError("protocol_error", str(error))
    code = 1006 if error.rcvd is None else int(error.rcvd.code)
    return LinkClosedError(f"closed_{code}" if code in NAMED_CLOSE_CODES else "closed_other", str(error))


@asynccontextmanager
async def open_websocket(plan: ConnectionPlan, policy: ReconnectPolicy) -> AsyncIterator[Link]:
    """Open a websocket for ``plan``.

    Raises:
        LinkRefusedError: the connection did not come about. The URL is not in its texts, because it may hold a key.
    """
    try:
        connection = await connect(
            plan.url,
            compression="deflate" if policy.permessage_deflate else None,
            max_size=plan.max_message_bytes,
            open_timeout=policy.open_timeout_s,
            close_timeout=policy.close_timeout_s,
            ping_interval=None,
            user_agent_header=USER_AGENT,
            proxy=None if is_loopback(plan.url) else True,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        excerpt = ascii((error.response.body or b"")[:120].decode("utf-8", "replace"))
        retry_after = next(iter(error.response.headers.get_all("Retry-After")), None)
        raise LinkRefusedError(
            f"http_{status}",
            f"the handshake was answered {excerpt}",
            fatal=is_fatal_status(status),
            status=status,
            retry_after=retry_after,
        ) from error
    except (InvalidURI, InvalidProxy, ValueError, ImportError) as error:
        raise LinkRefusedError(
            "bad_address", f"{type(error).__name__}: the address or the proxy is unusable", fatal=True
        ) from error
    except InvalidHandshake as error:
        raise LinkRefusedError("handshake", str(error)) from error
    except TimeoutError as error:
        raise LinkRefusedError("timeout", f"no connection within {policy.open_timeout_s:g} s") from error
    except socket.gaierror as error:
        raise LinkRefusedError("dns", str(error)) from error
    except ssl.SSLError as error:
        raise LinkRefusedError("tls", str(error)) from error
    except OSError as error:
        raise LinkRefusedError("unreachable", str(error)) from error
    try:
        yield WebsocketLink(connection)
    finally:
        await connection.close()
