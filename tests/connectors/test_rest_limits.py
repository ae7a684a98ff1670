"""Rate limits, pauses and periodic polls, against a real server on virtual time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web

from connectors import rest
from connectors.frames import Frame, RestRequest
from connectors.rest import RestError, RestPolicy, RestPoller
from connectors.venue import PeriodicRequest
from tests.connectors.plain_venue import PlainVenue
from tests.connectors.rest_site import GRACE_S, get, make, polling, serving, status_only, until_virtual
from tests.virtual_time import VirtualTimeLoop, run_in_virtual_time


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


async def test_limit_of_an_own_node_replaces_the_one_of_the_venue() -> None:
    poller = RestPoller(venue=PlainVenue(1200), deliver=lambda frame: None, seed=1, weight_per_minute=12_000)
    assert poller.free_weight() == 600


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
