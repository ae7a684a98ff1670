from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from alerts.settings import WebhookSettings
from alerts.sinks import Fatal, Retryable
from alerts.sinks.webhook import WebhookSink, parse_retry_after
from tests.alerts.builders import alert
from tests.servers import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SECRET_PATH = "/services/very-secret-path"


@contextlib.asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    """Serve ``handler`` on a free port and give the address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}{SECRET_PATH}"
    finally:
        await runner.cleanup()


def settings(url: str, **more: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"url": url, "timeout_s": 5.0, **more})


def answering(status: int, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return handler


async def test_a_notification_arrives_as_json_with_its_key() -> None:
    received: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []

    async def handler(request: web.Request) -> web.Response:
        received.append((request.method, request.path, dict(request.headers), await request.json()))
        return web.Response(status=202, text="thanks")

    async with receiver(handler) as url, WebhookSink(settings(url, headers={"X-Team": "risk"})) as sink:
        await sink.send(alert())
        await sink.send(alert())
    assert len(received) == 2
    method, path, headers, body = received[0]
    assert (method, path) == ("POST", SECRET_PATH)
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == alert().delivery_key == body["delivery_key"]
    assert headers["X-Team"] == "risk"
    assert received[1][2]["Idempotency-Key"] == headers["Idempotency-Key"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_retryable(status: int) -> None:
    async with receiver(answering(status)) as url, WebhookSink(settings(url)) as sink:
        with pytest.raises(Retryable, match=str(status)) as caught:
            await sink.send(alert())
    assert caught.value.retry_after_s is None
    assert "very-secret-path" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_a_refused_request_is_fatal(status: int) -> None:
    async with receiver(answering(status)) as url, WebhookSink(settings(url)) as sink:
        with pytest.raises(Fatal, match=str(status)) as caught:
            await sink.send(alert())
    assert "very-secret-path" not in str(caught.value)


async def test_the_receiver_says_when_to_come_back() -> None:
    async with receiver(answering(429, Retry_After="17")) as url, WebhookSink(settings(url)) as sink:
        with pytest.raises(Retryable) as caught:
            await sink.send(alert())
    assert caught.value.retry_after_s == 17.0


async def test_redirects_are_not_followed() -> None:
    visited: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with receiver(handler) as url, WebhookSink(settings(url)) as sink:
        with pytest.raises(Fatal, match="307"):
            await sink.send(alert())
    assert visited == [SECRET_PATH]


async def test_a_receiver_that_does_not_answer_is_retryable() -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with receiver(handler) as url, WebhookSink(settings(url, timeout_s=0.1)) as sink:
        with pytest.raises(Retryable, match=r"no answer within 0\.1 s"):
            await sink.send(alert())


async def test_a_receiver_that_drips_its_answer_cannot_hold_the_sink() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.02)

    async with receiver(handler) as url, WebhookSink(settings(url, timeout_s=0.2)) as sink:
        async with asyncio.timeout(5):
            # The status was 200, and that is all that counts.
            await sink.send(alert())


async def test_a_receiver_that_is_away_is_retryable_and_not_named_in_full() -> None:
    url = f"http://127.0.0.1:{free_port()}{SECRET_PATH}"
    async with WebhookSink(settings(url)) as sink:
        with pytest.raises(Retryable, match=r"^http://127\.0\.0\.1:\d+: ") as caught:
            await sink.send(alert())
    assert "very-secret-path" not in str(caught.value)


async def test_a_receiver_that_hangs_up_is_retryable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with WebhookSink(settings(f"http://127.0.0.1:{port}{SECRET_PATH}")) as sink:
        with pytest.raises(Retryable, match="Disconnected"):
            await sink.send(alert())
    server.close()
    await server.wait_closed()


async def test_a_token_is_read_anew_for_each_notification(tmp_path: Path) -> None:
    tokens: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        return web.Response(text=json.dumps({}))

    file = tmp_path / "token"
    async with receiver(handler) as url, WebhookSink(settings(url, bearer_token_file=file)) as sink:
        with pytest.raises(Retryable, match="No such file"):
            await sink.send(alert())
        file.write_text("one\n")
        await sink.send(alert())
        file.write_text("two\n")
        await sink.send(alert())
    assert tokens == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("-5", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Fri, 10 Oct 2025 21:16:00 GMT", 60.0),
        ("Fri, 10 Oct 2025 21:14:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 1_760_130_900.0) == seconds
