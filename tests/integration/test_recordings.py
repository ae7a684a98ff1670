"""Real recordings from the first byte to the projections, compared with what the venue itself said at every moment."""

from __future__ import annotations

import bisect
import gzip
import hashlib
import heapq
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgspec
import pytest

from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.registry import VENUES
from monitor.projection import MarketProjection, Projection, encode_market
from monitor.replay import Replay
from monitor.schema import FOLDER
from tests.conftest import missing
from tests.integration.captures import BTC, ETH, LIQMON, NS, Capture, book_of, environment, is_depth, replayed, settings
from tests.servers import find_binary

# ------------------------------------------------------------------------------------------- the command, on whole recordings

TIMEOUT_S = 100.0


class Output(NamedTuple):
    """What two runs of the command over the same files left; ``lines`` is of the first."""

    capture: Capture
    stdout: str
    summaries: tuple[dict[str, Any], dict[str, Any]]
    lines: Path
    metrics: Path


@pytest.fixture(scope="module", params=[BTC, ETH], ids=lambda capture: capture.symbol)
def output(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Output]:
    """Run `liqmon replay` twice, side by side, under different seeds of Python's hashes, on which no order may depend."""
    if not Path(LIQMON).exists():
        missing(f"liqmon is not installed as {LIQMON}")
    capture: Capture = request.param
    folder = tmp_path_factory.mktemp(capture.symbol)
    lines, metrics = folder / "projections.jsonl", folder / "metrics.om"
    runs = [
        subprocess.Popen(
            [LIQMON, "replay", *map(str, capture.paths(shared_data)), "--summary", str(folder / f"{seed}.json"), *more],
            env=environment(PYTHONHASHSEED=str(seed)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed, more in enumerate([["--projections", str(lines), "--openmetrics", str(metrics)], []])
    ]
    try:
        results = [run.communicate(timeout=TIMEOUT_S) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [(run.returncode, stderr) for run, (_, stderr) in zip(runs, results, strict=True)] == [(0, b""), (0, b"")]
    first, second = (json.loads((folder / f"{seed}.json").read_bytes()) for seed in range(2))
    yield Output(capture, results[0][0].decode(), (first, second), lines, metrics)
    lines.unlink()  # 80 MB that pytest would keep.


def test_a_real_recording_replays_without_errors_or_gaps_and_twice_to_the_same_bytes(output: Output) -> None:
    first, second = output.summaries
    assert first["frames"] == {"BTCUSDT": 73_765, "ETHUSDT": 69_913}[output.capture.symbol]
    assert first["parse_errors"] == {}
    assert first["gaps"] == 0
    assert first["projections_sha256"] == second["projections_sha256"]
    assert hashlib.sha256(output.lines.read_bytes()).hexdigest() == first["projections_sha256"]
    measured = {"wall_seconds", "frames_per_second"}
    assert {key: first[key] for key in first.keys() - measured} == {key: second[key] for key in second.keys() - measured}
    [market] = first["markets"]
    assert (market["venue"], market["symbol"], market["stale"]) == ("binance", output.capture.symbol, False)


def test_the_command_says_what_it_did_in_whole_lines(output: Output) -> None:
    summary = output.summaries[0]
    counts, digest, market = output.stdout.splitlines()
    assert counts.startswith(f"{summary['frames']:,} frames, {summary['events']:,} events, 0 gaps, parse errors: {{}}; ")
    assert digest == f"{summary['projections']:,} projections, sha256 {summary['projections_sha256']}"
    assert market.startswith(f"  binance {output.capture.symbol}: reference {summary['markets'][0]['reference_price']}, bid ")


def test_every_projection_and_the_summary_follow_the_published_schemas(output: Output) -> None:
    schema = json.loads((FOLDER / "projection.schema.json").read_bytes())
    # Validating 70 MB would take minutes. The schema looks at types and words only, so lines that differ in nothing but the digits
    # of their numbers are valid together, and one of each kind is validated.
    bounds = re.compile(rb'"(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|pattern|minLength|maxLength|const)"')
    assert not bounds.search((FOLDER / "projection.schema.json").read_bytes())
    digits = re.compile(rb"(?<=[:\[,])-?\d+(\.\d+)?([eE][-+]?\d+)?(?=[,\]}])")
    kinds: dict[bytes, int] = {}
    count = 0
    with output.lines.open("rb") as lines:
        for line in lines:
            kind = digits.sub(lambda match: b"1" if match[1] is None and match[2] is None else b"1.5", line)
            kinds[kind] = kinds.get(kind, 0) + 1
            count += 1
    assert count == output.summaries[0]["projections"]
    assert len(kinds) < count / 4, "too many kinds of lines to validate them one by one"
    validator = jsonschema.Draft202012Validator(schema)
    for kind in kinds:
        validator.validate(json.loads(kind))
    summary_schema = json.loads((FOLDER / "summary.schema.json").read_bytes())
    for summary in output.summaries:
        jsonschema.Draft202012Validator(summary_schema).validate(summary)


def test_projections_come_ten_times_a_second_in_order_and_hold_no_impossible_number(output: Output) -> None:
    before_ns = 0
    live = 0
    count = 0
    with output.lines.open("rb") as lines:
        for line in lines:
            market = msgspec.json.decode(line)
            count += 1
            assert market["as_of_ns"] > before_ns
            before_ns = market["as_of_ns"]
            if market["stale"]:
                assert market["stale_reasons"]
                continue
            live += 1
            assert market["best_bid"] < market["best_ask"]
            # A mark price is smoothed, but never far from the book of a market as busy as these.
            assert market["best_bid"] * 0.995 < market["reference_price"] < market["best_ask"] * 1.005
            for direction, sign in (("down", -1.0), ("up", 1.0)):
                points = market["cascade"][direction]["barrier"]
                assert all((after["price"] - before["price"]) * sign > 0.0 for before, after in itertools.pairwise(points))
                assert all(after["volume_base"] >= before["volume_base"] >= 0.0 for before, after in itertools.pairwise(points))
    span_s = output.summaries[0]["span_seconds"]
    assert span_s * 9.0 < count < span_s * 10.1
    assert live > 0.95 * count


def test_the_metrics_of_a_replay_become_blocks_of_a_real_prometheus(output: Output, tmp_path: Path) -> None:
    promtool = find_binary("promtool", "prometheus")
    made = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", output.metrics, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    listed = subprocess.run(
        [promtool, "tsdb", "dump", tmp_path], capture_output=True, text=True, timeout=60, check=True
    ).stdout.splitlines()
    bids = [line for line in listed if "liqmon_best_bid" in line or '__name__="liqmon_best_price"' in line]
    ready = [line for line in listed if '"liqmon_ready"' in line]
    # One sample a minute, each at its recorded time.
    assert len(ready) == {"BTCUSDT": 9, "ETHUSDT": 8}[output.capture.symbol]
    stamps = sorted(int(line.split()[-1]) for line in ready)
    assert all(59_900 <= later - earlier <= 61_000 for earlier, later in itertools.pairwise(stamps))
    assert bids or listed
