"""The queue of REST requests, against a real server on loopback."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web

from connectors import rest
from connectors.frames import REST_PREFIX, Frame, RestExchange, RestRequest
from connectors.rest import RestError, RestPolicy, RestPoller
from tests.connectors.plain_venue import PlainVenue
from tests.connectors.rest_site import get, make, polling, serving, status_only, until


async def test_answer_becomes_a_frame_that_names_its_request() -> None:
    frames: list[Frame] = []
    question = RestRequest(method="POST", path="/info?x=1", body='{"type":"meta"}', weight=20)
    async with serving() as site, polling(site.url, frames) as poller:
        body = await poller.fetch(question)
        status = poller.health()
    assert body == b'{"path": "/info?x=1"}'
    assert site.asked[0][1:] == ("/info?x=1", '{"type":"meta"}')
    assert site.content_types == ["application/json"]
    (frame,) = frames
    assert (frame.venue, frame.connection, frame.received_ns) == ("plain", "rest", 1_704_110_400_123_456_700)
    assert frame.payload is not None
    assert frame.payload.startswith(REST_PREFIX)
    wrapped = msgspec.json.decode(frame.payload, type=RestExchange)
    assert (wrapped.request, bytes(wrapped.response)) == (question, body)
    assert (status.requests, status.answers, status.weight_used, status.errors) == (1, 1, 20, {})
    assert status.last_answer_ns == 1_704_110_400_123_456_700


async def test_slow_answer_is_a_timeout_and_a_later_one_still_works() -> None:
    async def slow_twice(request: web.Request) -> web.Response:
        if len(site.asked) <= 2:
            await asyncio.sleep(5.0)
        return web.json_response({})

    frames: list[Frame] = []
    policy = RestPolicy(retry_base_s=0.01, total_timeout_s=0.1)
    async with serving(slow_twice) as site, polling(site.url, frames, policy=policy) as poller:
        assert await poller.fetch(get("/a")) == b"{}"
        assert poller.health().errors == {"timeout": 2}
    assert len(frames) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425])
async def test_passing_errors_are_tried_again(status: int) -> None:
    async def second_time(request: web.Request) -> web.Response:
        return web.json_response({}) if len(site.asked) == 2 else await status_only(status)

    async with serving(second_time) as site, polling(site.url, []) as poller:
        assert await poller.fetch(get("/a")) == b"{}"
        assert poller.health().errors == {str(status): 1}


async def test_bug_in_the_receiver_is_not_swallowed() -> None:
    def deliver(frame: Frame) -> None:
        raise ZeroDivisionError("a bug of ours")

    async with serving() as site:
        poller = RestPoller(venue=PlainVenue(), deliver=deliver, seed=1, rest_url=site.url)
        poller.submit(get("/a"))
        with pytest.raises(ExceptionGroup) as group:
            await asyncio.wait_for(poller.run(), 5.0)
        assert group.group_contains(ZeroDivisionError)


async def test_same_request_is_sent_once_while_queued_or_under_way() -> None:
    release = asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({})

    frames: list[Frame] = []
    async with serving(wait) as site, polling(site.url, frames) as poller:
        assert poller.submit(get("/a"))
        assert poller.submit(get("/a"))
        await until(lambda: len(site.asked) == 1)
        assert poller.health().in_flight == 1
        assert poller.submit(get("/a"), urgent=True)
        both = [asyncio.create_task(poller.fetch(get("/a"))) for _ in range(2)]
        assert poller.submit(RestRequest(method="POST", path="/a", body="{}"))
        await until(lambda: len(site.asked) == 2)
        release.set()
        assert [await one for one in both] == [b"{}", b"{}"]
        await until(lambda: len(frames) == 2)
        assert poller.submit(get("/a"))
        await until(lambda: len(frames) == 3)
    assert len(site.asked) == 3


async def test_urgent_requests_go_first_and_a_queued_one_can_become_urgent() -> None:
    frames: list[Frame] = []
    async with serving() as site:
        poller = make(site.url, frames, policy=RestPolicy(concurrency=1))
        for path in ("/a", "/b", "/c"):
            poller.submit(get(path))
        poller.submit(get("/u"), urgent=True)
        poller.submit(get("/c"), urgent=True)
        task = asyncio.create_task(poller.run())
        await until(lambda: len(frames) == 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert site.paths == ["/u", "/c", "/a", "/b"]


async def test_full_queue_refuses_and_counts() -> None:
    poller = make("http://127.0.0.1:9", [])
    accepted = [poller.submit(get(f"/{number}")) for number in range(rest.MAX_QUEUED + 3)]
    assert accepted.count(True) == rest.MAX_QUEUED
    assert poller.submit(get("/0"))  # already there
    assert (poller.health().dropped, poller.health().queue_length) == (3, rest.MAX_QUEUED)
    with pytest.raises(RestError, match="full") as error:
        await poller.fetch(get("/new"))
    assert error.value.retryable


async def test_no_more_requests_are_under_way_than_allowed() -> None:
    at_once = most = 0

    async def count(request: web.Request) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return web.json_response({})

    frames: list[Frame] = []
    async with serving(count) as site, polling(site.url, frames) as poller:
        for number in range(20):
            poller.submit(get(f"/{number}"))
        await until(lambda: len(frames) == 20)
    assert most == 4


async def test_stopping_tells_everybody_who_waits() -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(60.0)
        return web.json_response({})

    async with serving(never) as site:
        poller = make(site.url, [], policy=RestPolicy(concurrency=1))
        task = asyncio.create_task(poller.run())
        under_way = asyncio.create_task(poller.fetch(get("/a")))
        queued = asyncio.create_task(poller.fetch(get("/b")))
        await until(lambda: len(site.asked) == 1)
        task.cancel()
        for waiting in (under_way, queued, asyncio.create_task(poller.fetch(get("/c")))):
            with pytest.raises(RestError, match="stopped") as error:
                await asyncio.wait_for(waiting, 2.0)
            assert error.value.retryable
        assert not poller.submit(get("/d"))
        assert poller.health().queue_length == 0


async def test_who_gives_up_waiting_disturbs_nobody() -> None:
    release = asyncio.Event()

    async def wait(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({})

    frames: list[Frame] = []
    async with serving(wait) as site, polling(site.url, frames) as poller:
        impatient = asyncio.create_task(poller.fetch(get("/a")))
        patient = asyncio.create_task(poller.fetch(get("/a")))
        await until(lambda: len(site.asked) == 1)
        impatient.cancel()
        release.set()
        assert await patient == b"{}"
    assert impatient.cancelled()
    assert len(frames) == 1
