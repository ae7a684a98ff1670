"""Real servers for tests, on loopback with free ports, each in a process and a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import missing

START_TIMEOUT_S = 15.0


def free_port() -> int:
    """Return a port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_binary(name: str, package: str) -> str:
    """Return the path of a program, also from where daemons are installed; without it the test is skipped, or fails in CI."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/bin"]))
    if path is None:
        missing(f"{name} is not installed; it is in the Debian package {package}")
    assert path is not None
    return path


class Server:
    """One program that listens on a port of loopback; a context manager that kills it in the end.

    The port stays the same over restarts, so that clients can find their way back.
    """

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.command = command
        self.port = port
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program and wait until it accepts connections."""
        assert self.process is None, "it runs already"
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{self.command[0]} does not accept connections:\n{self.output()}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the program as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the program as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make the program hang while its connections stay open."""
        assert self.process is not None, "it does not run"
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the program go on."""
        assert self.process is not None, "it does not run"
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill the program and start it again."""
        self.kill()
        self.start()

    def output(self) -> str:
        """Return what the program has printed."""
        return (self.folder / "output.log").read_text(errors="replace")

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mosquitto(Server):
    """An MQTT broker that keeps nothing over a restart; ``users`` are the only ones admitted, if given."""

    def __init__(self, users: dict[str, str] | None = None, certificate: tuple[Path, Path] | None = None) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mosquitto-"))
        port = free_port()
        lines = [
            f"listener {port} 127.0.0.1",
            "persistence false",
            f"allow_anonymous {'false' if users else 'true'}",
            "log_type all",
            # Started as root it would become a user who may not read the folder.
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        if users:
            passwords = folder / "passwords"
            passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
            passwords.chmod(0o600)
            subprocess.run([find_binary("mosquitto_passwd", "mosquitto"), "-U", str(passwords)], check=True)
            lines.append(f"password_file {passwords}")
        if certificate:
            lines += [f"certfile {certificate[0]}", f"keyfile {certificate[1]}"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        super().__init__([find_binary("mosquitto", "mosquitto"), "-c", str(folder / "mosquitto.conf")], port, folder)
