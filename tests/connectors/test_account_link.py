"""How the websocket of an account feed opens; what it shares with a venue's is tested in test_link."""

from __future__ import annotations

import socket
from http import HTTPStatus

import aiomqtt
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from connectors.account_link import granted_qos, mqtt_refusal, open_feed
from connectors.link import LinkRefusedError
from connectors.live import ReconnectPolicy
from tests.connectors.loopback import QUICK, plan_of, serving

TOKEN = "s3cret-token"


async def greet(peer: ServerConnection) -> None:
    await peer.send(b'{"type":"heartbeat"}', text=True)
    await peer.wait_closed()


class Door:
    """Remembers with what each visitor introduced himself, and answers as it was told."""

    def __init__(self, status: HTTPStatus | None = None, **headers: str) -> None:
        self.seen: list[str | None] = []
        self._status, self._headers = status, headers

    def __call__(self, peer: ServerConnection, request: Request) -> Response | None:
        self.seen.append(request.headers.get("Authorization"))
        if self._status is None:
            return None
        response = peer.respond(self._status, f"not for {self.seen[-1]}")
        for name, value in self._headers.items():
            response.headers[name.replace("_", "-")] = value
        return response


async def refused(url: str, policy: ReconnectPolicy = QUICK, token: str | None = TOKEN) -> LinkRefusedError:
    with pytest.raises(LinkRefusedError) as refusal:
        async with open_feed(plan_of(url), policy, token):
            raise AssertionError("not reached")
    assert TOKEN not in str(refusal.value)
    return refusal.value


async def test_the_token_is_sent_and_without_one_no_header_is() -> None:
    door = Door()
    async with serving(greet, process_request=door) as url:
        for token in (TOKEN, None):
            async with open_feed(plan_of(url), QUICK, token) as link:
                assert await link.receive() == b'{"type":"heartbeat"}'
    assert door.seen == [f"Bearer {TOKEN}", None]


async def test_a_refusal_says_whether_it_is_final_and_nothing_of_what_the_server_wrote() -> None:
    async with serving(greet, process_request=Door(HTTPStatus.UNAUTHORIZED)) as url:
        refusal = await refused(url)
        assert (refusal.reason, refusal.fatal, refusal.status) == ("http_401", True, 401)
    async with serving(greet, process_request=Door(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="7")) as url:
        refusal = await refused(url)
        assert (refusal.reason, refusal.fatal, refusal.retry_after) == ("http_503", False, "7")


async def test_the_token_does_not_follow_a_redirect_to_another_server() -> None:
    stranger = Door()
    async with serving(greet, process_request=stranger) as elsewhere:
        door = Door(HTTPStatus.FOUND, Location=elsewhere)
        async with serving(greet, process_request=door) as url, open_feed(plan_of(url), QUICK, TOKEN) as link:
            await link.receive()
    assert door.seen == [f"Bearer {TOKEN}"]
    assert stranger.seen == [None]


async def test_servers_that_are_not_there_are_told_apart() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert (await refused(f"ws://127.0.0.1:{unused.getsockname()[1]}")).reason == "unreachable"
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        assert (await refused(f"ws://127.0.0.1:{port}", ReconnectPolicy(open_timeout_s=0.1))).reason == "timeout"
    bad = await refused("http://127.0.0.1")
    assert (bad.reason, bad.fatal) == ("bad_address", True)


def test_what_a_broker_grants_is_the_least_of_its_answers() -> None:
    assert granted_qos([1]) == 1
    assert granted_qos([1, 0]) == 0
    with pytest.raises(LinkRefusedError) as refusal:
        granted_qos([1, 128])
    assert refusal.value.fatal


def test_a_broker_that_does_not_answer_may_do_so_later() -> None:
    refusal = mqtt_refusal(aiomqtt.MqttError("[Errno 111] Connection refused"))
    assert (refusal.reason, refusal.fatal) == ("unreachable", False)
