"""``make bench``: measure, and print one table. Figures are ratios to a floor of the same run; nothing here passes or fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.bench import accounts, cascade, frames, latency, sweep
from tests.bench.report import Report, Row, describe_environment, render
from tests.bench.starvation import Noise

SECTIONS: dict[str, Callable[..., list[Row]]] = {
    "frames": frames.measure,
    "sweep": sweep.measure,
    "accounts": accounts.measure,
    "cascade": cascade.measure,
    "latency": latency.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the sections that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"what to measure: {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file as well")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; says nothing about speed")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    report = run(options.sections or list(SECTIONS), quick=options.quick)
    sys.stdout.write(render(report))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 0


def run(sections: list[str], *, quick: bool) -> Report:
    """Measure ``sections``; one that lacks its data is left out, and the report says so."""
    noise = Noise()
    rows: list[Row] = []
    omitted: dict[str, str] = {}
    for name in sections:
        sys.stderr.write(f"measuring {name} ...\n")
        try:
            rows += SECTIONS[name](quick=quick)
        except frames.NoRecordingsError as error:
            omitted[name] = str(error)
    return Report(quick=quick, environment=describe_environment(noise), rows=tuple(rows), omitted=omitted)


if __name__ == "__main__":
    sys.exit(main())
