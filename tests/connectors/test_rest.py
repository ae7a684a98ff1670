"""REST polls against a real server on loopback; where minutes have to pass, on virtual time."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress

import msgspec
import pytest
from aiohttp import web

from connectors import http_exchange, rest
from connectors.frames import REST_PREFIX, Frame, RestExchange, RestRequest
from connectors.http_exchange import one_line_json
from connectors.rest import RestError, RestPolicy, RestPoller
from connectors.venue import PeriodicRequest
from tests.connectors.plain_venue import PlainVenue
from tests.virtual_time import VirtualTimeLoop, run_in_virtual_time

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUICK = RestPolicy(retry_base_s=0.01, retry_cap_s=0.02, total_timeout_s=2.0)

# Real time that loopback gets before virtual time jumps; twenty times what it needs.
GRACE_S = 0.002


class Site:
    """A server that notes when it was asked what."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, str]] = []
        self.content_types: list[str | None] = []
        self.answer: Answer | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((asyncio.get_running_loop().time(), request.path_qs, await request.text()))
        self.content_types.append(request.headers.get("Content-Type"))
        return await self.answer(request) if self.answer is not None else web.json_response({"path": request.path_qs})

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


@asynccontextmanager
async def serving(answer: Answer | None = None) -> AsyncIterator[Site]:
    site = Site()
    site.answer = answer
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", site.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0)
    await tcp.start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


@asynccontextmanager
async def polling(
    url: str, frames: list[Frame], *, policy: RestPolicy = QUICK, weight_per_minute: int = 60_000
) -> AsyncIterator[RestPoller]:
    poller = make(url, frames, policy=policy, weight_per_minute=weight_per_minute)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make(url: str, frames: list[Frame], *, policy: RestPolicy = QUICK, weight_per_minute: int = 60_000) -> RestPoller:
    return RestPoller(
        venue=PlainVenue(weight_per_minute),
        deliver=frames.append,
        seed=1,
        rest_url=url,
        policy=policy,
        clock_ns=lambda: 1_704_110_400_123_456_789,
        now_s=asyncio.get_running_loop().time,
    )


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Wait for ``condition``, which nothing announces."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def get(path: str, weight: int = 1) -> RestRequest:
    return RestRequest(method="GET", path=path, weight=weight)


async def status_only(status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text="try\nlater", headers=headers)


# --- requests and answers -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a":1.50, "b":[1e3]}', b'{"a":1.50, "b":[1e3]}'),
        (b'{\n  "a": 1.50,\r\n  "b": "x\\ny"\n}\n', b'{"a":1.50,"b":"x\\ny"}'),
        (b"null", b"null"),
        ('{"name":"Zürich"}'.encode(), '{"name":"Zürich"}'.encode()),
        (b"123456789012345678901234567890\n", b"123456789012345678901234567890"),
    ],
)
def test_answers_are_kept_as_they_are_except_for_line_breaks(body: bytes, line: bytes) -> None:
    assert one_line_json(body) == line


@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b'{"a":1', b'{"a":NaN}', b'"\xff"', b'["a\nb"]', b"[" * 5000 + b"]" * 5000, b"{}{}"]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        one_line_json(body)


async def test_server_error_page_with_status_200_is_no_answer() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>busy</html>")

    frames: list[Frame] = []
    async with serving(page) as site, polling(site.url, frames) as poller:
        with pytest.raises(RestError, match="not JSON") as error:
            await poller.fetch(get("/a"))
        status = poller.health()
    assert error.value.retryable
    assert frames == []
    assert (status.errors, status.abandoned, status.requests) == ({"malformed": 3}, 1, 3)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "bomb"])
async def test_answer_beyond_the_size_limit_is_cut_off(compressed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "MAX_RESPONSE_BYTES", 1_000_000)

    async def huge(request: web.Request) -> web.Response:
        body = b'"' + b"x" * 5_000_000 + b'"'
        if compressed:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    async with serving(huge) as site, polling(site.url, []) as poller:
        with pytest.raises(RestError, match="more than") as error:
            await poller.fetch(get("/a"))
        assert not error.value.retryable
        assert poller.health().errors == {"oversized": 1}


async def test_broken_compression_and_cut_bodies_are_network_errors() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        if request.path == "/gzip":
            return web.Response(body=b"this is no gzip", headers={"Content-Encoding": "gzip"})
        if request.path == "/limited":
            return web.Response(status=404, body=b"this is no gzip", headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"a":')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(broken) as site, polling(site.url, []) as poller:
        for path in ("/gzip", "/cut"):
            with pytest.raises(RestError) as error:
                await poller.fetch(get(path))
            assert error.value.retryable
        # The status counts even where the text beside it cannot be read.
        with pytest.raises(RestError) as error:
            await poller.fetch(get("/limited"))
        assert error.value.status == 404
        assert poller.health().errors == {"network": 6, "404": 1}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"SSH-2.0-OpenSSH_9.0\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"ZZZ\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"f" * 100 + b"\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * 100_000 + b"\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 300\r\n\r\n\x1f\x8b\x08", b"\xff" * 290],
    ],
)
async def test_broken_protocol_is_a_passing_error(pieces: list[bytes]) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError), closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)  # so that the client reads the pieces one by one

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with polling(url, [], policy=RestPolicy(tries=1, total_timeout_s=0.4)) as poller:
            with pytest.raises(RestError) as error:
                await poller.fetch(get("/a"))
            assert error.value.retryable
            # A chunk that is broken in the middle of a body is not noticed by aiohttp; the timeout ends it.
            assert poller.health().errors in ({"network": 1}, {"timeout": 1})


async def test_redirects_are_not_followed() -> None:
    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with serving(away) as site, polling(site.url, []) as poller:
        with pytest.raises(RestError) as error:
            await poller.fetch(get("/a"))
        assert not error.value.retryable
        assert site.paths == ["/a"]


async def test_absent_server_is_tried_three_times_then_reported() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with polling(f"http://127.0.0.1:{unused.getsockname()[1]}", []) as poller:
            with pytest.raises(RestError) as error:
                await poller.fetch(get("/a"))
            assert error.value.retryable
            assert "127.0.0.1" not in str(error.value)
            assert (poller.health().errors, poller.health().abandoned) == ({"network": 3}, 1)


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


# --- the queue ----------------------------------------------------------------------------------------------------------


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


# --- limits, on virtual time --------------------------------------------------------------------------------------------


def test_requests_keep_within_the_weight_of_every_minute() -> None:
    async def scenario() -> None:
        frames: list[Frame] = []
        async with serving() as site, polling(site.url, frames, policy=RestPolicy(), weight_per_minute=120) as poller:
            for number in range(150):
                assert poller.submit(get(f"/{number}", weight=2))
            await until_virtual(lambda: len(frames) == 150)
            assert poller.health().weight_used == 300
        moments_s = [moment_s for moment_s, _, _ in site.asked]
        assert all(2 * sum(start_s <= moment_s < start_s + 60.0 for moment_s in moments_s) <= 120 for start_s in moments_s)
        # 6 at once, the other 294 at 114 a minute.
        assert moments_s[-1] - moments_s[0] == pytest.approx(294.0 / 114.0 * 60.0, abs=2.0)
        assert site.paths == [f"/{number}" for number in range(150)]

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


async def until_virtual(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(5.0)


def test_urgent_request_overtakes_while_the_governor_waits() -> None:
    async def scenario() -> None:
        frames: list[Frame] = []
        async with serving() as site, polling(site.url, frames, policy=RestPolicy(), weight_per_minute=120) as poller:
            for number in range(20):
                poller.submit(get(f"/{number}", weight=2))
            await asyncio.sleep(1.5)
            before = len(site.asked)
            assert poller.submit(get("/urgent", weight=2), urgent=True)
            await until_virtual(lambda: len(frames) == 21)
        assert site.paths[before] == "/urgent"

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_free_weight_is_what_could_be_sent_at_once() -> None:
    async def scenario() -> None:
        frames: list[Frame] = []
        async with serving() as site:
            poller = make(site.url, frames, policy=RestPolicy(), weight_per_minute=1200)
            assert poller.free_weight() == 60
            poller.submit(get("/a", weight=20))
            assert poller.free_weight() == 40
            poller.submit(get("/a", weight=20))
            assert poller.free_weight() == 40
            poller.submit(get("/b", weight=60))
            assert poller.free_weight() == 0
            task = asyncio.create_task(poller.run())
            await until_virtual(lambda: len(frames) == 2)
            await asyncio.sleep(10.0)
            assert poller.free_weight() == 60
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


@pytest.mark.parametrize(
    ("status", "retry_after", "least_s", "most_s"),
    [
        (429, "30", 30.0, 32.0),
        (429, "Mon, 01 Jan 2024 12:01:30 GMT", 89.0, 92.0),
        (429, None, 10.0, 22.0),
        (503, "45", 45.0, 47.0),
        (418, None, 600.0, 602.0),
        (418, "30", 600.0, 602.0),
        (418, "3600", 3600.0, 3602.0),
    ],
)
def test_everything_is_silent_for_as_long_as_the_venue_asks(
    status: int, retry_after: str | None, least_s: float, most_s: float
) -> None:
    async def limited_once(request: web.Request) -> web.Response:
        if request.path == "/a" and not refused:
            refused.append(request.path)
            return await status_only(status, {"Retry-After": retry_after} if retry_after is not None else None)
        return web.json_response({})

    refused: list[str] = []

    async def scenario() -> None:
        frames: list[Frame] = []
        async with serving(limited_once) as site, polling(site.url, frames, policy=RestPolicy(concurrency=1)) as poller:
            poller.submit(get("/a"))
            await asyncio.sleep(1.0)
            assert poller.submit(get("/b"))
            assert poller.free_weight() == 0
            until_ns = poller.health().paused_until_ns
            assert until_ns is not None
            assert least_s - 2.0 <= (until_ns - 1_704_110_400_123_456_789) / 1e9 <= most_s
            await asyncio.sleep(most_s + 5.0)
            assert len(frames) == 2
            assert poller.health().paused_until_ns is None
            assert poller.health().errors == {str(status): 1}
        first_s = site.asked[0][0]
        assert all(least_s <= moment_s - first_s <= most_s for moment_s, _, _ in site.asked[1:])

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_budget_starts_from_nothing_after_a_refusal_for_its_sake() -> None:
    """The venue has counted more than we have, whatever pause it asks for."""

    async def scenario() -> None:
        async def limited_once(request: web.Request) -> web.Response:
            return await status_only(429, {"Retry-After": "0"}) if len(site.asked) == 1 else web.json_response({})

        async with serving(limited_once) as site, polling(site.url, [], policy=RestPolicy(), weight_per_minute=60) as poller:
            await poller.fetch(get("/a"))
        # 3 could be sent at once; after the 429 one unit takes its full 60/57 s.
        assert site.asked[1][0] - site.asked[0][0] == pytest.approx(60.0 / 57.0, abs=0.01)

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_pauses_grow_while_429_is_all_that_comes_and_start_again_after_an_answer() -> None:
    async def scenario() -> None:
        limited = True

        async def answer(request: web.Request) -> web.Response:
            return await status_only(429) if limited else web.json_response({})

        async with serving(answer) as site, polling(site.url, [], policy=RestPolicy(concurrency=1)) as poller:
            with pytest.raises(RestError) as error:
                await poller.fetch(get("/a"))
            assert error.value.retryable
            first_s, second_s, third_s = (moment_s for moment_s, _, _ in site.asked)
            assert 10.0 <= second_s - first_s <= 22.0
            assert 20.0 <= third_s - second_s <= 43.0
            assert poller.health().abandoned == 1
            limited = False
            await poller.fetch(get("/b"))
            limited = True
            with pytest.raises(RestError):
                await poller.fetch(get("/c"))
            assert 10.0 <= site.asked[5][0] - site.asked[4][0] <= 22.0

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_final_refusal_is_remembered_for_ten_minutes(status: int) -> None:
    async def scenario() -> None:
        async def answer(request: web.Request) -> web.Response:
            return await status_only(status) if request.path == "/bad" else web.json_response({})

        async with serving(answer) as site, polling(site.url, [], policy=RestPolicy()) as poller:
            with pytest.raises(RestError, match="later") as error:
                await poller.fetch(get("/bad"))
            assert not error.value.retryable
            assert not poller.submit(get("/bad"))
            with pytest.raises(RestError, match="refused before") as error:
                await poller.fetch(get("/bad"))
            assert not error.value.retryable
            assert poller.health().refused == 2
            assert await poller.fetch(get("/good")) == b"{}"
            await asyncio.sleep(601.0)
            assert poller.submit(get("/bad"))
            await asyncio.sleep(1.0)
        assert site.paths == ["/bad", "/good", "/bad"]

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_memory_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_REFUSED", 3)

    async def scenario() -> None:
        async with serving(lambda request: status_only(404)) as site, polling(site.url, [], policy=RestPolicy()) as poller:
            for number in range(5):
                with pytest.raises(RestError):
                    await poller.fetch(get(f"/{number}"))
            assert [poller.submit(get(f"/{number}")) for number in range(5)] == [True, True, False, False, False]

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_barred_address_stops_asking_everything_one_by_one() -> None:
    async def scenario() -> None:
        async with (
            serving(lambda request: status_only(403)) as site,
            polling(site.url, [], policy=RestPolicy(concurrency=1)) as poller,
        ):
            for number in range(10):
                poller.submit(get(f"/{number}"))
            await asyncio.sleep(500.0)
            assert len(site.asked) == 3
            assert poller.health().paused_until_ns is not None
            await asyncio.sleep(200.0)
            assert len(site.asked) == 6

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


def test_periodic_requests_are_due_at_once_and_then_at_their_pace() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        async with serving() as site, polling(site.url, [], policy=RestPolicy()) as poller:
            poller.periodic([PeriodicRequest(get("/fast"), 10.0), PeriodicRequest(get("/slow"), 25.0)])
            await asyncio.sleep(51.0)
            assert [(round(moment_s), path) for moment_s, path, _ in site.asked] == [
                (0, "/fast"),
                (0, "/slow"),
                (10, "/fast"),
                (20, "/fast"),
                (25, "/slow"),
                (30, "/fast"),
                (40, "/fast"),
                (50, "/fast"),
                (50, "/slow"),
            ]
            site.asked.clear()
            poller.periodic([PeriodicRequest(get("/other"), 100.0)])
            await asyncio.sleep(150.0)
            assert site.paths == ["/other", "/other"]
            # Turns that were missed while the process stood still are not made up for.
            site.asked.clear()
            loop.advance(1000.0)
            await asyncio.sleep(110.0)
            assert len(site.asked) == 2
            poller.periodic([])
            site.asked.clear()
            await asyncio.sleep(1000.0)
            assert site.asked == []

    run_in_virtual_time(scenario(), grace_s=GRACE_S)


@pytest.mark.parametrize("field", ["concurrency", "tries", "forbidden_limit"])
def test_policy_that_would_never_ask_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        msgspec.structs.replace(RestPolicy(), **{field: 0})


async def test_interval_must_be_positive() -> None:
    with pytest.raises(ValueError, match="/a"):
        make("http://127.0.0.1:9", []).periodic([PeriodicRequest(get("/a"), 0.0)])


def test_server_in_trouble_for_ten_minutes_never_ends_the_poller() -> None:
    async def scenario() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if healthy:
                return web.json_response({})
            match len(site.asked) % 5:
                case 0:
                    return await status_only(500)
                case 1:
                    return await status_only(429, {"Retry-After": "nonsense"})
                case 2:
                    return web.Response(text="{")
                case 3:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                case _:
                    await asyncio.sleep(100.0)
                    return web.json_response({})

        healthy = False
        frames: list[Frame] = []
        async with serving(answer) as site, polling(site.url, frames, policy=RestPolicy()) as poller:
            # A POST, because aiohttp repeats a GET by itself when a kept-alive connection is cut.
            poller.periodic([PeriodicRequest(RestRequest(method="POST", path="/a", body="{}"), 5.0)])
            await asyncio.sleep(600.0)
            status = poller.health()
            assert set(status.errors) == {"500", "429", "malformed", "network", "timeout"}
            assert status.abandoned > 0
            healthy = True
            await asyncio.sleep(330.0)
            assert frames
            assert poller.health().paused_until_ns is None

    run_in_virtual_time(scenario(), grace_s=GRACE_S)
