"""The scripts that set things up, where something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_tidy import ROOT

TOOLS = ("bash", "cat", "chmod", "dirname", "env", "head", "id", "mktemp", "rm", "sed", "tail", "tee", "touch")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder with the basic tools only, to be the whole search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is missing"
        (folder / tool).symlink_to(found)
    return folder


def add_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def run(command: list[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={"PATH": str(folder), **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def test_an_old_python_is_refused_with_what_was_found_and_what_to_install(bare_path: Path) -> None:
    add_program(bare_path, "python3", '[[ "$1" == --version ]] && echo "Python 3.9.2" || exit 1')
    result = run(["bash", "-c", ". deploy/setup/python.sh; find_python"], bare_path)
    assert result.returncode == 1
    assert "3.11 or newer is needed" in result.stderr
    assert "python3: Python 3.9.2" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr


def test_the_first_usable_python_is_taken_and_broken_launchers_are_passed_over(bare_path: Path) -> None:
    add_program(bare_path, "python3", "exit 127")
    add_program(bare_path, "python3.11", "exit 1")
    add_program(bare_path, "python3.13", "exit 0")
    assert run(["bash", "-c", ". deploy/setup/python.sh; find_python"], bare_path).stdout == "python3.13\n"
    chosen = run(["bash", "-c", ". deploy/setup/python.sh; find_python"], bare_path, PYTHON="python3.11")
    assert chosen.returncode == 1


def servers_script(tmp_path: Path) -> Path:
    """Copy the script without the system folders that it adds, so that nothing but the given path counts."""
    text = (ROOT / "deploy" / "setup" / "test-servers.sh").read_text()
    added = 'export PATH="$PATH:/usr/sbin:/sbin"\n'
    assert added in text
    script = tmp_path / "test-servers.sh"
    script.write_text(text.replace(added, "").replace("policy=/usr/sbin/policy-rc.d", f"policy={tmp_path}/policy-rc.d"))
    return script


def test_missing_servers_are_named_with_the_tests_they_cost_and_fail_only_in_ci(bare_path: Path, tmp_path: Path) -> None:
    script = servers_script(tmp_path)
    result = run(["bash", script], bare_path)
    assert result.returncode == 0
    assert "MQTT delivery and broker failures (needs mosquitto, Debian package mosquitto)" in result.stdout
    assert "the live page in a browser (needs chromedriver, Debian package chromium-driver)" in result.stdout
    assert run(["bash", script], bare_path, CI="true").returncode == 1


def test_servers_are_installed_without_starting_services(bare_path: Path, tmp_path: Path) -> None:
    script, log = servers_script(tmp_path), tmp_path / "log"
    install = "for name in mosquitto mosquitto_sub promtool prometheus-alertmanager chromium chromedriver; do"
    add_program(
        bare_path,
        "apt-get",
        f'echo "apt $*" >>{log}; [[ "$*" == *" install "* ]] || exit 0; {tmp_path}/policy-rc.d; echo "policy $?" >>{log}; '
        f'{install} echo "#!/bin/bash" >{bare_path}/$name; chmod 755 {bare_path}/$name; done',
    )
    add_program(bare_path, "systemctl", f'echo "systemctl $*" >>{log}')
    if os.geteuid() != 0:
        add_program(bare_path, "sudo", 'shift; exec "$@"')
    result = run(["bash", script], bare_path, CI="true")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = log.read_text().splitlines()
    assert lines[0].endswith(" update")
    assert "install --yes --no-install-recommends mosquitto mosquitto-clients prometheus" in lines[1]
    # Debian asks this file before it starts a service; 101 is a no. It is gone afterwards.
    assert lines[2] == "policy 101"
    assert not (tmp_path / "policy-rc.d").exists()
    assert "systemctl --quiet disable mosquitto.service" in lines
    # The second time there is nothing to do, and nothing is said.
    assert run(["bash", script], bare_path, CI="true").stdout == ""
    assert log.read_text().splitlines() == lines


def test_a_failed_installation_shows_why_and_is_an_error_in_ci_only(bare_path: Path, tmp_path: Path) -> None:
    script = servers_script(tmp_path)
    add_program(bare_path, "apt-get", 'echo "E: Unable to locate package"; exit 100')
    if os.geteuid() != 0:
        add_program(bare_path, "sudo", 'shift; exec "$@"')
    result = run(["bash", script], bare_path)
    assert result.returncode == 0
    assert "Unable to locate package" in result.stdout
    assert "these tests will be skipped" in result.stdout
    assert run(["bash", script], bare_path, CI="true").returncode == 1


def test_the_system_is_left_alone_when_asked(bare_path: Path, tmp_path: Path) -> None:
    add_program(bare_path, "apt-get", f"touch {tmp_path}/called")
    result = run(["bash", servers_script(tmp_path)], bare_path, LIQMON_NO_APT="1")
    assert result.returncode == 0
    assert not (tmp_path / "called").exists()


def test_make_without_a_target_lists_what_there_is() -> None:
    result = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    targets = [line.split()[1] for line in result.stdout.splitlines()]
    assert targets == ["help", "demo", "run", "test", "lint", "bench", "lock", "clean"]
