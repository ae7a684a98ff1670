"""The daemon and its commands when something around them breaks."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from alerts.delivery import Delivery
from connectors.frames import Frame
from connectors.recorder import Recorder, RecorderError
from monitor import app
from monitor.app import Daemon
from monitor.commands.record import run_record
from monitor.config import load_config

CONFIG = """
instance = "test"

[http]
port = {port}

[recording]
enabled = {recording}
directory = "recordings"

[[venues]]
name = "hyperliquid"
symbols = ["BTC"]
websocket_url = "ws://127.0.0.1:{closed}/ws"
rest_url = "http://127.0.0.1:{closed}"
"""


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _config_file(folder: Path, *, port: int = 0, recording: bool = False) -> Path:
    path = folder / "liqmon.toml"
    path.write_text(CONFIG.format(port=port, closed=_closed_port(), recording=str(recording).lower()))
    return path


@pytest.mark.timeout(30)
async def test_a_stop_while_the_venue_cannot_be_reached_ends_the_daemon(tmp_path: Path) -> None:
    daemon = Daemon(load_config(_config_file(tmp_path), {}))
    stop = asyncio.Event()
    running = asyncio.create_task(daemon.run(stop))
    async with asyncio.timeout(5):
        while daemon.hub.projection is None:  # noqa: ASYNC110 - a condition, not an event
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 10)


@pytest.mark.timeout(30)
async def test_an_address_that_is_taken_leaves_no_recording_open(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = Daemon(load_config(_config_file(tmp_path, port=taken.getsockname()[1], recording=True), {}))
        with pytest.raises(OSError, match="address"):
            await daemon.run(asyncio.Event())
    assert not daemon.status().recording, "the recorder was left open"


@pytest.mark.timeout(30)
async def test_a_daemon_whose_delivery_died_does_not_run_on_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(_self: Delivery) -> None:
        raise RuntimeError("a mistake in the delivery")

    monkeypatch.setattr(Delivery, "run", die)
    daemon = Daemon(load_config(_config_file(tmp_path), {}))
    stop = asyncio.Event()
    running = asyncio.create_task(daemon.run(stop))
    done, _ = await asyncio.wait({running}, timeout=3)
    stop.set()
    with pytest.raises((RuntimeError, ExceptionGroup)):
        await running
    assert done, "alerts were going nowhere and nobody was told"


@pytest.mark.timeout(30)
def test_a_recording_that_cannot_be_written_is_a_failure_of_the_record_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Recorder, _frame: object) -> None:
        raise RecorderError("no space left on device")

    monkeypatch.setattr(Recorder, "write", fail)
    config = _config_file(tmp_path)
    original = app.Daemon.run

    async def with_a_frame(self: Daemon, stop: asyncio.Event) -> None:
        self._intake.put(Frame("hyperliquid", "main", 1, b'{"channel":"pong"}'))
        await original(self, stop)

    monkeypatch.setattr(app.Daemon, "run", with_a_frame)
    assert run_record(config, tmp_path / "out", 1.0) == 1
