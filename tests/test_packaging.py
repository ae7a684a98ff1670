"""What an installation contains, and that its generic package names are nobody else's."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.test_tidy import PACKAGES, ROOT, relative, tracked_files

DISTRIBUTION = "liquidation-monitor"


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of what is or would be committed, built in a copy, because building leaves its traces in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for path in tracked_files():
        target = tree / relative(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run([*command, "-w", str(built), str(tree)], capture_output=True, text=True, check=False, timeout=110)
    assert result.returncode == 0, result.stderr
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_owns_our_package_names(package: str) -> None:
    owners = set(importlib.metadata.packages_distributions().get(package, []))
    assert owners == {DISTRIBUTION}, "the checkout is not installed (make test does it), or another distribution brings this name"


def test_the_installed_version_is_that_of_the_project() -> None:
    assert importlib.metadata.version(DISTRIBUTION) == project()["version"]


def test_the_changelog_begins_with_what_is_unreleased_or_with_this_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings, "no headings as in ## [Unreleased] or ## [0.1.0] - 2026-01-31"
    released = [(version, date) for version, date in headings if version != "Unreleased"]
    assert "Unreleased" not in [version for version, _ in headings[1:]]
    assert all(date for _, date in released)
    if released:
        assert released[0][0] == project()["version"]


def test_the_command_can_be_imported_from_its_entry_point() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="liqmon")
    assert callable(script.load())


def test_the_wheel_contains_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    committed = {
        name for path in tracked_files() if (name := relative(path)).startswith(tuple(f"{package}/" for package in PACKAGES))
    }
    assert sorted(committed - set(wheel.namelist())) == []


def test_the_wheel_contains_page_schemas_and_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "monitor/web/static/index.html" in names
    assert "monitor/schema/projection.schema.json" in names
    assert "monitor/schema/summary.schema.json" in names
    assert any(re.fullmatch(r"[^/]+\.dist-info/licenses/LICENSE", name) for name in names)


def test_the_wheel_contains_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == set(PACKAGES)
