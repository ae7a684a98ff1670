from __future__ import annotations

import asyncio
import io
import json
import os
import pty
from pathlib import Path

import msgspec
import pytest

from alerts.settings import StdoutSettings
from alerts.sinks import Fatal, Retryable
from alerts.sinks.stdout import StdoutSink
from tests.alerts.builders import START_NS, alert, until


async def test_a_file_gets_one_json_object_a_line(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        async with StdoutSink(StdoutSettings(), stream) as sink:
            await sink.send(alert("BTC"))
            await sink.send(alert("ETH", ends_ns=START_NS + 1))
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [line["labels"]["symbol"] for line in lines] == ["BTC", "ETH"]
    assert [line["resolved"] for line in lines] == [False, True]


async def test_a_stream_without_a_file_gets_the_same() -> None:
    stream = io.StringIO()
    async with StdoutSink(StdoutSettings(), stream) as sink:
        await sink.send(alert())
    assert json.loads(stream.getvalue())["fingerprint"] == alert().fingerprint


async def test_a_terminal_gets_text_in_colour() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        async with StdoutSink(StdoutSettings(), terminal) as sink:
            await sink.send(alert(severity="critical", summary="[red]€ markup[/red] stays as it is"))
            text = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "\x1b[" in text
    assert "CRITICAL" in text
    assert "2025-10-10 21:15:00 UTC" in text
    assert "[red]€ markup[/red] stays as it is" in text
    assert text.count("\n") == 1


async def test_text_without_a_terminal_has_no_escape_codes() -> None:
    stream = io.StringIO()
    async with StdoutSink(StdoutSettings(format="text"), stream) as sink:
        await sink.send(alert(ends_ns=START_NS + 60_000_000_000))
    assert stream.getvalue() == f"2025-10-10 21:16:00 UTC RESOLVED LargeClusterNear {alert().summary}\n"


async def test_a_reader_that_does_not_read_blocks_nobody_and_gets_whole_lines_later() -> None:
    """Fill a pipe until it takes no more: the loop goes on, the attempt fails as retryable, and the retry continues the line."""
    reader, writer = os.pipe()
    long = msgspec.structs.replace(alert(), summary="x" * 60_000)
    with os.fdopen(writer, "w") as stream:
        sink = StdoutSink(StdoutSettings(), stream, timeout_s=0.05)
        loop = asyncio.get_running_loop()
        longest_s = 0.0

        async def watch_the_loop() -> None:
            nonlocal longest_s
            while True:
                before = loop.time()
                await asyncio.sleep(0.005)
                longest_s = max(longest_s, loop.time() - before)

        watching = asyncio.create_task(watch_the_loop())
        await sink.send(long)
        with pytest.raises(Retryable, match="nobody has read"):
            await sink.send(alert("ETH", summary="y" * 60_000))
        watching.cancel()
        assert longest_s < 1.0

        received = bytearray()
        loop.add_reader(reader, lambda: received.extend(os.read(reader, 65_536)))
        await sink.send(alert("ETH", summary="y" * 60_000))
        await sink.send(alert("SOL"))
        await until(lambda: received.count(b"\n") == 3)
        loop.remove_reader(reader)
    os.close(reader)
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["labels"]["symbol"] for line in lines] == ["BTC", "ETH", "SOL"]


async def test_a_reader_that_has_gone_is_fatal() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        sink = StdoutSink(StdoutSettings(), stream)
        with pytest.raises(Fatal, match="closed"):
            await sink.send(alert())


async def test_a_closed_stream_is_fatal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        sink = StdoutSink(StdoutSettings(format="json"), stream)
    with pytest.raises(Fatal, match="closed"):
        await sink.send(alert())
