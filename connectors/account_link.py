"""How the connections of account feeds open, and how they are refused.

The websocket is like that of a venue, with a bearer token in the opening request.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiomqtt
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

from connectors.link import Link, LinkRefusedError, ReconnectPolicy, WebsocketLink
from connectors.outbound import USER_AGENT, is_fatal_status, is_loopback
from connectors.venue import ConnectionPlan

FATAL_MQTT_REFUSALS: Final = frozenset({132, 133, 134, 135})
"""Protocol, client id, password, permission: waiting cures none. The fifth refusal of MQTT 3.1.1 is a broker that is busy."""


@asynccontextmanager
async def open_feed(plan: ConnectionPlan, policy: ReconnectPolicy, token: str | None) -> AsyncIterator[Link]:
    """Open the websocket of ``plan``, introducing ourselves with ``token`` if there is one.

    Raises:
        LinkRefusedError: the connection did not come about. Neither the token nor what the server answered is in its texts.
    """
    try:
        connection = await connect(
            plan.url,
            additional_headers=None if token is None else {"Authorization": f"Bearer {token}"},
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
        raise LinkRefusedError(
            f"http_{status}",
            f"the handshake was answered with HTTP {status}",
            fatal=is_fatal_status(status),
            status=status,
            retry_after=next(iter(error.response.headers.get_all("Retry-After")), None),
        ) from error
    except (InvalidURI, InvalidProxy, ValueError, ImportError) as error:
        detail = f"{type(error).__name__}: the address, the token or the proxy is unusable"
        raise LinkRefusedError("bad_address", detail, fatal=True) from error
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


def mqtt_refusal(error: aiomqtt.MqttError) -> LinkRefusedError:
    """Return why a broker was not connected to."""
    code: int | None = getattr(getattr(error, "rc", None), "value", None)
    reason = "unreachable" if code is None else "refused"
    return LinkRefusedError(reason, str(error), fatal=code in FATAL_MQTT_REFUSALS)


def granted_qos(codes: Iterable[Any]) -> int:
    """Return the quality of service that a broker grants to a subscription.

    Raises:
        LinkRefusedError: it refuses the subscription.
    """
    # Plain numbers or, depending on the version of the client, objects that have one.
    numbers: list[int] = [getattr(code, "value", code) for code in codes]
    if any(number >= 128 for number in numbers):
        raise LinkRefusedError("subscription", "the broker refuses the topic", fatal=True)
    return min(numbers)
