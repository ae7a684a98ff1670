"""What the benchmarks found, as one table and as JSON: with the interpreter, the machine and how busy that was."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.bench.starvation import Noise

LIBRARIES = ("msgspec", "numpy", "orjson", "uvloop")
COLUMNS = ("", "median", "least", "unit", "x floor", "least", "target", "")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. ``ratio`` compares medians with the floor of the section round by round, ``ratio_least`` the best of each."""

    section: str
    what: str
    median: float
    unit: str
    least: float | None = None
    ratio: float | None = None
    ratio_least: float | None = None
    target_ratio: float | None = None
    """The highest good ratio."""
    target: float | None = None
    """The highest good median, in the unit of the row."""
    note: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures come from; they compare only with figures of the same."""

    python: str
    optimised: bool
    build: tuple[str, ...]
    platform: str
    processor: str
    cores: int
    cores_usable: int
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]
    wall_s: float
    waited_s: float | None
    """How long this process could have run but others had the cores; ``None`` where the system does not say."""
    libraries: dict[str, str]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``omitted`` says which sections were asked for and could not run, and why."""

    quick: bool
    environment: Environment
    rows: tuple[Row, ...]
    omitted: dict[str, str]


def describe_environment(noise: Noise) -> Environment:
    """Look at the interpreter and the machine; ``noise`` was begun before anything was measured."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = sysconfig.get_config_var("OPT") or ""
    # Folders of whoever built the interpreter say nothing of its speed.
    switches = tuple(switch for switch in re.findall(r"--[a-z-]+(?:=[^\s']+)?", arguments) if "/" not in switch)
    return Environment(
        python=sys.version.replace("\n", " "),
        optimised="--enable-optimizations" in switches and "-O0" not in flags.split(),
        build=(*switches, *(flag for flag in flags.split() if flag.startswith(("-O", "-g", "-D")))),
        platform=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count() or 0,
        cores_usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        load_before=noise.load_before,
        load_after=os.getloadavg(),
        wall_s=noise.wall_s(),
        waited_s=noise.waited_s(),
        libraries={name: version(name) for name in LIBRARIES},
    )


def _waiting(environment: Environment) -> str:
    load = f"load {environment.load_before[0]:.2f} before and {environment.load_after[0]:.2f} after; "
    if environment.waited_s is None:
        return f"{load}the system does not say how long this process waited for a core"
    return (
        f"{load}waited for a core {environment.waited_s / environment.wall_s:.1%} of {environment.wall_s:.0f} s, as others had them"
    )


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE) if listed.is_file() else None
    return match.group(1) if match else platform.processor()


def render(report: Report) -> str:
    """Return the report as text: the environment, then one table."""
    environment = report.environment
    optimised = "with" if environment.optimised else "WITHOUT"
    lines = [
        f"python     {environment.python}",
        f"build      {optimised} profile-guided optimisation ({' '.join(environment.build)})",
        f"machine    {environment.processor}, {environment.cores_usable} of {environment.cores} cores, {environment.platform}",
        f"noise      {_waiting(environment)}",
        f"libraries  {', '.join(f'{name} {number}' for name, number in environment.libraries.items())}",
    ]
    if not environment.optimised:
        lines.append("           Pure Python is slower on such a build and native floors are not, so ratios to those are higher.")
    if report.quick:
        lines.append("quick      tiny sizes: this shows that the benchmarks run, and nothing about speed")
    table: list[tuple[str, ...]] = [COLUMNS]
    for position, row in enumerate(report.rows):
        if position == 0 or report.rows[position - 1].section != row.section:
            table += [("",) * len(COLUMNS), (row.section.upper(), *("",) * (len(COLUMNS) - 1))]
        table.append(_cells(row))
    widths = [max(len(cells[column]) for cells in table) for column in range(len(COLUMNS) - 1)]
    for cells in table:
        parts = [
            cell.ljust(width) if column in {0, 3} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells[:-1], widths, strict=True))
        ]
        lines.append("  ".join([*parts, cells[-1]]).rstrip())
    lines += [f"left out: {section}: {reason}" for section, reason in report.omitted.items()]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    target = "" if row.target is None else f"<= {row.target:g}"
    if row.target_ratio is not None:
        target = f"<= {row.target_ratio:g}x"
    value, limit = (row.ratio, row.target_ratio) if row.target_ratio is not None else (row.median, row.target)
    verdict = "" if value is None or limit is None else "met" if value <= limit else "MISSED"
    return (
        f"  {row.what}",
        _number(row.median),
        _number(row.least),
        row.unit,
        _ratio(row.ratio),
        _ratio(row.ratio_least),
        target,
        "; ".join(filter(None, (verdict, row.note))),
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0.0 or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
