"""Rules of style that no tool checks. What ruff, mypy and import-linter check is not repeated here."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("monitor", "connectors", "alerts")
FILE_LINES_MAX = 420
FUNCTION_LINES_MAX = 80

FORBIDDEN_NAMES = {"utils", "util", "common", "base", "helpers", "helper", "misc"}

# A module without a test file of its own, and the one that covers it: declarations, and parts that only the whole makes sense of. A
# name that starts with that of another module, such as config_problems, may be tested with it and needs no entry.
TESTED_IN = {
    "alerts/alert.py": "tests/alerts/test_pipeline.py",
    "connectors/events.py": "tests/connectors/test_binance_events.py",
    "connectors/frames.py": "tests/connectors/test_recording.py",
    "connectors/venue.py": "tests/connectors/test_live.py",
    "monitor/account_report.py": "tests/monitor/test_account_queries.py",
    "monitor/engine_settings.py": "tests/monitor/test_wiring.py",
    "monitor/projection.py": "tests/monitor/test_schema.py",
    "monitor/venue_health.py": "tests/monitor/test_engine.py",
}


@cache
def tracked_files() -> tuple[Path, ...]:
    """Everything that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
        return tuple(path for name in names if name and (path := ROOT / name).is_file())
    # An unpacked archive: everything but hidden folders and what setting up makes.
    skipped = re.compile(r"/(\.[^/]+|__pycache__|build|dist|[^/]+\.egg-info)/")
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not skipped.search(f"/{path.relative_to(ROOT)}"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def is_foreign(path: Path) -> bool:
    """Tell whether a file is not ours to style: vendored code, licences, payloads as venues sent them."""
    name = relative(path)
    return "/vendor/" in name or name == "LICENSE" or name.startswith("tests/payloads/")


@cache
def own_texts() -> dict[str, str]:
    """Every text file of ours by name; files that are no text are left out."""
    texts = {}
    for path in tracked_files():
        if not is_foreign(path):
            try:
                texts[relative(path)] = path.read_text()
            except UnicodeDecodeError:
                continue
    return texts


def python_files() -> dict[str, str]:
    return {name: text for name, text in own_texts().items() if name.endswith(".py")}


def source_files() -> dict[str, str]:
    return {name: text for name, text in python_files().items() if name.startswith(tuple(f"{package}/" for package in PACKAGES))}


def test_the_rules_below_look_at_real_files() -> None:
    assert {"monitor/config.py", "connectors/events.py", "alerts/alert.py"} <= set(source_files())
    assert {"Makefile", "pyproject.toml", "requirements/dev.txt"} <= set(own_texts())


def test_files_are_short_enough_to_be_read_at_once() -> None:
    # A table of test cases may be twice as long as the code that one has to understand.
    endings = (".py", ".js", ".css", ".html", ".sh")
    lines = {name: text.count("\n") for name, text in own_texts().items() if name.endswith(endings)}
    too_long = {name: count for name, count in lines.items() if count > FILE_LINES_MAX * (2 if name.startswith("tests/") else 1)}
    assert too_long == {}


def test_functions_are_short() -> None:
    too_long = {
        f"{name}:{node.name}": length
        for name, text in source_files().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert too_long == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    assert [name for name in own_texts() if Path(name).stem in FORBIDDEN_NAMES] == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert [name for name, text in own_texts().items() if marks.search(text)] == []


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    # Written in parts, so that this file does not name them either.
    folders = r"(?<![\w.}])/(?:wo" + r"rk|ro" + r"ot|Us" + r"ers|ho" + r"me/(?!liqmon)\w+)/"
    hosts = r"(?:py" + r"pi\.org|pythonhosted\.org|npm" + r"js\.org|" + "registry" + r"\.[a-z]+\.[a-z]+)"
    forbidden = re.compile(f"{folders}|{hosts}")
    found = {name: match.group() for name, text in own_texts().items() if (match := forbidden.search(text))}
    assert found == {}


def test_documents_for_users_stand_alone() -> None:
    # Working notes may be named in docstrings, but nobody who installs the daemon has them.
    notes = re.compile(r"\b(?:venues|models|faults|performance|style|design)\.md\b")
    assert [name for name, text in own_texts().items() if name.endswith((".md", ".toml", ".html")) and notes.search(text)] == []


def test_only_the_command_line_prints() -> None:
    allowed = ("monitor/cli.py", "monitor/commands/")
    found = [
        f"{name}:{node.lineno}"
        for name, text in source_files().items()
        if not name.startswith(allowed)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def own_test_names(module: str) -> list[str]:
    """List the test files that may be about ``module``: for ``config_problems`` also those about ``config``."""
    path = Path(module)
    words = path.stem.split("_")
    stems = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    return [f"tests/{path.parent}/test_{stem}.py" for stem in stems]


def test_every_module_has_its_test() -> None:
    modules = [name for name in source_files() if name.count("/") == 1 and Path(name).stem not in {"__init__", "__main__"}]
    assert len(modules) > 20
    untested = [name for name in modules if name not in TESTED_IN and not set(own_test_names(name)) & set(own_texts())]
    assert untested == []


def test_exceptions_are_still_exceptions() -> None:
    for name, test in TESTED_IN.items():
        assert name in source_files(), f"{name} is gone"
        assert own_test_names(name)[0] not in own_texts(), f"{name} has a test of its own now"
        assert test in own_texts(), f"{test}, which covers {name}, is gone"


def test_every_test_folder_is_a_package() -> None:
    folders = {str(Path(name).parent) for name in python_files() if name.startswith("tests/")}
    assert [folder for folder in sorted(folders) if f"{folder}/__init__.py" not in own_texts()] == []


def test_the_list_of_shell_files_is_current() -> None:
    ignores = tomllib.loads(own_texts()["pyproject.toml"])["tool"]["ruff"]["lint"]["per-file-ignores"]
    shell = [pattern for pattern, rules in ignores.items() if "TID251" in rules and not pattern.startswith("tests")]
    gone = [pattern for pattern in shell if not any(ROOT.glob(pattern))]
    assert gone == [], "the list in pyproject.toml names files that do not exist"


def locked(name: str) -> dict[str, str]:
    """Return package -> version of a requirements file, checking each entry on the way."""
    text = own_texts()[f"requirements/{name}.txt"]
    entries = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    versions = {}
    for entry in entries:
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+)(?: ;[^#]*?)?((?:\s*--hash=sha256:[0-9a-f]{64})+)\s*", entry)
        assert match, f"requirements/{name}.txt: {entry[:80]!r} is not pinned with hashes"
        versions[match.group(1)] = match.group(2)
    return versions


@pytest.mark.parametrize("name", ["main", "dev"])
def test_requirements_are_locked_with_hashes_and_without_addresses(name: str) -> None:
    assert len(locked(name)) > 10
    assert "://" not in own_texts()[f"requirements/{name}.txt"]


def test_the_daemon_is_tested_with_the_versions_it_runs_with() -> None:
    tested = locked("dev")
    assert {package: tested.get(package) for package in locked("main")} == locked("main")


def test_what_is_imported_is_what_is_required() -> None:
    # The package metadata and the lock have to name the same things, or an installation from a wheel lacks some of them.
    declared = tomllib.loads(own_texts()["pyproject.toml"])["project"]["dependencies"]
    written = [line.partition("#")[0].strip() for line in own_texts()["requirements/main.in"].splitlines()]
    build_only = {"setuptools>=77"}
    assert sorted(declared) == sorted(set(written) - build_only - {""})


def test_scripts_can_be_run_and_stop_at_the_first_error() -> None:
    scripts = {name: text for name, text in own_texts().items() if text.startswith("#!/bin/bash")}
    assert {".ci/run", "deploy/setup/environment.sh"} <= set(scripts)
    for name, text in scripts.items():
        assert os.access(ROOT / name, os.X_OK), f"{name} is not executable"
        assert "set -euo pipefail" in text, name
        subprocess.run(["bash", "-n", ROOT / name], check=True, timeout=10)
