"""The command line: what it offers, what it refuses and with which exit code."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
import typer.main
from typer.testing import CliRunner

from connectors.frames import Frame
from connectors.importers import open_recording, write_native
from monitor.cli import app
from tests.servers import free_port

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
OK, FAILED, BAD_INPUT = 0, 1, 2


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def liqmon(*arguments: str | Path) -> Result:
    """Run the command in this process; an exception that it lets through fails the test."""
    result = CliRunner().invoke(
        app, [str(item) for item in arguments], env={"COLUMNS": "160", "TERM": "dumb"}, catch_exceptions=False
    )
    return Result(result.exit_code, result.stdout, result.stderr)


def mark(seconds: float, price: float = 100.0) -> Frame:
    payload = f'{{"e":"markPriceUpdate","E":1700000000000,"s":"BTCUSDT","p":"{price}","i":"{price}","r":"0","T":1700000000000}}'
    return Frame("binance", "market", START + round(seconds * SECOND), payload.encode())


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Three seconds of marks, one every tenth of a second, in one file of our own format."""
    folder = tmp_path / "recording"
    write_native((mark(number / 10, 100.0 + number) for number in range(31)), folder)
    [file] = folder.iterdir()
    return file


def config_file(folder: Path, text: str = "") -> Path:
    path = folder / "liqmon.toml"
    path.write_text(text or '[[venues]]\nname = "binance"\nsymbols = ["BTCUSDT"]\n')
    return path


BAD_CONFIG = """
instance = "Not Valid"
surprise = 1
[http]
port = "9477"
[[venues]]
name = "kraken"
symbols = []
"""

# ------------------------------------------------------------------------------------------------------------------ help

OPTIONS = {
    "run": ["--config", "-c"],
    "demo": ["--port", "--seed", "--scenario", "--duration"],
    "record": ["--config", "-c", "--output", "-o", "--duration"],
    "replay": ["PATH", "--config", "-c", "--speed", "--venue", "--projections", "--summary", "--openmetrics"],
    "import": ["FORMAT", "IN", "--output", "-o", "--venue"],
    "check-config": ["FILE"],
    "playback": ["PATH", "--port", "--speed", "--sockets", "--venue"],
}


def test_every_command_is_listed_here() -> None:
    command = typer.main.get_command(app)
    assert set(getattr(command, "commands", {})) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_help_of_a_command_names_its_options(name: str) -> None:
    result = liqmon(name, "--help")
    assert (result.code, result.stderr) == (OK, "")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    words = set(re.split(r"[\s│,\[\]{}]+", plain))
    assert [option for option in [*OPTIONS[name], "--help"] if option not in words] == []


def test_the_help_lists_the_commands_and_the_exit_codes() -> None:
    result = liqmon("--help")
    assert result.code == OK
    assert all(re.search(rf"\b{name}\b", result.stdout) for name in OPTIONS)
    assert "0 done, 1 failed while running, 2 bad input or configuration" in re.sub(r"\s+", " ", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    # Typer itself converts the arguments of a command with pydantic.
    [(["--help"], []), (["replay", "--help"], ["pydantic"]), (["playback", "--help"], ["pydantic"])],
    ids=" ".join,
)
def test_help_is_quick_because_it_imports_nothing_heavy(arguments: list[str], allowed: list[str]) -> None:
    heavy = [
        "aiohttp",
        "aiomqtt",
        "msgspec",
        "numpy",
        "prometheus_client",
        "pydantic",
        "structlog",
        "uvloop",
        "websockets",
        "zstandard",
    ]
    code = (
        "import sys\n"
        "from monitor.cli import main\n"
        "sys.argv = ['liqmon', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage: liqmon" in done.stdout
    assert set(done.stdout.splitlines()[-1].split()) <= set(allowed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["surprise"],
        ["replay"],
        ["run"],
        ["record", "-c", "x.toml"],
        ["replay", "x", "--speed", "2"],
        ["import", "floppy", "x", "-o", "y"],
        ["demo", "--scenario", "boom"],
        ["playback", "x", "--port", "70000"],
        ["playback", "x", "--sockets", "0"],
        ["demo", "--duration", "0"],
    ],
)
def test_wrong_arguments_are_bad_input(arguments: list[str]) -> None:
    result = liqmon(*arguments)
    assert result.code == BAD_INPUT
    assert "Usage: liqmon" in result.stderr
    assert result.stdout == ""


# ------------------------------------------------------------------------------------------------------------- bad recordings


def torn(folder: Path, recording: Path) -> Path:
    path = folder / recording.name
    path.write_bytes(recording.read_bytes()[:-30])
    return path


def damaged(folder: Path, recording: Path) -> Path:
    whole = bytearray(recording.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path = folder / recording.name
    path.write_bytes(bytes(whole))
    return path


def half_a_line(folder: Path, _: Path) -> Path:
    path = folder / "capture.gz"
    line = b'1700000000000000000 {"stream":"btcusdt@markPrice@1s","data":' + mark(0).payload[:-1] + b"}}\n"  # type: ignore[index]
    path.write_bytes(gzip.compress(line + line[:-20]))
    return path


def torn_gzip(folder: Path, _: Path) -> Path:
    path = folder / "capture.gz"
    line = b'1700000000000000000 {"stream":"btcusdt@markPrice@1s","data":{}}\n'
    path.write_bytes(gzip.compress(line * 100)[:-10])
    return path


def foreign_text(folder: Path, _: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("just some notes\n")
    return path


def wrong_line(folder: Path, _: Path) -> Path:
    path = folder / "capture"
    line = '1700000000000000000 {"stream":"btcusdt@markPrice@1s","data":{}}\n'
    path.write_text(line * 2 + "and now for something different\n")
    return path


def nothing(folder: Path, _: Path) -> Path:
    path = folder / "empty"
    path.write_bytes(b"")
    return path


def a_folder(folder: Path, _: Path) -> Path:
    path = folder / "nothing-in-it"
    path.mkdir()
    return path


def not_there(folder: Path, _: Path) -> Path:
    return folder / "missing.zst"


BAD_RECORDINGS = {
    # What is made of a whole one, the line that is named, and what is said of it.
    "torn": (torn, "32", "the last zstd frame is torn"),
    "damaged": (damaged, "1", "damaged zstd frame"),
    "half a line": (half_a_line, "2", "the last line is torn"),
    "torn gzip": (torn_gzip, "1", "the gzip stream ends in the middle"),
    "foreign text": (foreign_text, "1", "expected a recording of this program, a tardis.dev raw file"),
    "wrong line": (wrong_line, "3", "expected 19 digits of time, a space and JSON"),
    "empty file": (nothing, "1", "the file is empty"),
    "empty folder": (a_folder, "1", "a directory without recordings"),
    "missing": (not_there, "1", "cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("name", BAD_RECORDINGS)
@pytest.mark.parametrize("command", ["replay", "playback", "import"])
def test_a_recording_that_cannot_be_read_is_refused_with_file_line_and_offset(
    tmp_path: Path, recording: Path, name: str, command: str
) -> None:
    make, line, reason = BAD_RECORDINGS[name]
    folder = tmp_path / "bad"
    folder.mkdir()
    path = make(folder, recording)
    before = ["import", "hftbacktest"] if command == "import" else [command]
    after = ["-o", str(tmp_path / "imported")] if command == "import" else []
    if command == "import" and name in {"torn", "damaged"}:
        line, reason = "1", "this is a file of format recording, not hftbacktest"
    result = liqmon(*before, path, *after)
    assert result.code == BAD_INPUT
    [message] = result.stderr.splitlines()
    found = re.fullmatch(r"(.+): line (\d+), byte (\d+) of the text: (.+)", message)
    assert found, message
    assert found[1] == str(path)
    assert found[2] == line
    assert found[4].startswith(reason), message


def test_what_came_before_the_damage_is_still_written(tmp_path: Path, recording: Path) -> None:
    folder, lines = tmp_path / "bad", tmp_path / "lines.jsonl"
    folder.mkdir()
    path = folder / "capture"
    good = [f"{frame.received_ns} ".encode() + (frame.payload or b"") for frame in open_recording([recording])]
    good = [line.replace(b'{"e"', b'{"stream":"btcusdt@markPrice@1s","data":{"e"', 1) + b"}" for line in good]
    path.write_bytes(b"\n".join([*good, b"rubbish\n"]))
    result = liqmon("replay", path, "--projections", lines)
    assert result.code == BAD_INPUT
    assert f"line {len(good) + 1}, byte {sum(map(len, good)) + len(good)} of the text" in result.stderr
    assert len(lines.read_bytes().splitlines()) > 20


def test_a_venue_that_this_program_does_not_know_is_refused_by_name(tmp_path: Path, recording: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    path = folder / recording.name.replace("binance", "kraken")
    path.write_bytes(recording.read_bytes())
    for command in ("replay", "playback"):
        result = liqmon(command, path)
        assert result.code == BAD_INPUT
        assert "'kraken'" in result.stderr
        assert "binance, hyperliquid" in result.stderr


def test_a_recording_of_a_venue_that_is_not_configured_is_refused(tmp_path: Path, recording: Path) -> None:
    config = config_file(tmp_path, '[[venues]]\nname = "hyperliquid"\nsymbols = ["BTC"]\n')
    result = liqmon("replay", recording, "-c", config)
    assert result.code == BAD_INPUT
    assert "'binance'; known here: hyperliquid" in result.stderr


# ----------------------------------------------------------------------------------------------------------------- replay


def test_a_replay_writes_what_was_asked_for_and_says_what_it_did(tmp_path: Path, recording: Path) -> None:
    lines, summary, metrics = (tmp_path / name for name in ("lines.jsonl", "summary.json", "metrics.om"))
    result = liqmon("replay", recording, "--projections", lines, "--summary", summary, "--openmetrics", metrics)
    assert (result.code, result.stderr) == (OK, "")
    told = json.loads(summary.read_bytes())
    assert (told["frames"], told["span_seconds"], told["parse_errors"]) == (31, 3.0, {})
    assert len(lines.read_bytes().splitlines()) == told["projections"]
    assert metrics.read_bytes().endswith(b"# EOF\n")
    assert f"{told['projections']:,} projections, sha256 {told['projections_sha256']}" in result.stdout.splitlines()
    assert "  binance BTCUSDT: reference 130.0, bid None, ask None, 0 levels, 0 accounts, STALE" in result.stdout.splitlines()


def test_a_directory_and_its_files_replay_alike(tmp_path: Path, recording: Path) -> None:
    digests = set()
    for number, paths in enumerate([[recording], [recording.parent], [recording, recording.parent]]):
        summary = tmp_path / f"{number}.json"
        assert liqmon("replay", *paths, "--summary", summary).code == OK
        digests.add(json.loads(summary.read_bytes())["projections_sha256"])
    assert len(digests) == 1


def test_recorded_time_passes_at_the_speed_that_was_asked_for(tmp_path: Path, recording: Path) -> None:
    summaries = []
    for speed in ("max", "10"):
        started_s = time.monotonic()
        assert liqmon("replay", recording, "--speed", speed, "--summary", tmp_path / "summary.json").code == OK
        took_s = time.monotonic() - started_s
        summaries.append(json.loads((tmp_path / "summary.json").read_bytes()))
        if speed == "10":
            assert took_s >= 0.29
            assert summaries[-1]["wall_seconds"] >= 0.29
    assert summaries[0]["projections_sha256"] == summaries[1]["projections_sha256"]


def test_a_configuration_decides_what_is_watched_and_how_often(tmp_path: Path, recording: Path) -> None:
    config = config_file(tmp_path, '[projection]\ninterval_ms = 1000\n[[venues]]\nname = "binance"\nsymbols = ["ETHUSDT"]\n')
    summary = tmp_path / "summary.json"
    assert liqmon("replay", recording, "-c", config, "--summary", summary).code == OK
    told = json.loads(summary.read_bytes())
    assert [market["symbol"] for market in told["markets"]] == ["ETHUSDT"]
    assert told["parse_errors"] == {"unknown_symbol": 31}
    assert 3 <= told["projections"] <= 4


@pytest.mark.parametrize("option", ["--projections", "--summary", "--openmetrics"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work_begins(tmp_path: Path, recording: Path, option: str) -> None:
    for path, reason in ((tmp_path / "no" / "such" / "folder", "No such file or directory"), (tmp_path, "Is a directory")):
        result = liqmon("replay", recording, option, path)
        assert result.code == BAD_INPUT
        assert result.stderr.splitlines() == [f"cannot write {path}: {reason}"]
        assert result.stdout == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
@pytest.mark.parametrize("option", ["--projections", "--summary", "--openmetrics"])
def test_an_output_that_runs_full_fails_with_a_message(recording: Path, option: str) -> None:
    result = liqmon("replay", recording, option, "/dev/full")
    assert result.code == FAILED
    assert result.stderr.splitlines() == ["cannot write the output: No space left on device"]


def test_what_an_earlier_replay_left_is_not_taken_for_the_result_of_one_that_fails(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text("{}")
    assert liqmon("replay", tmp_path / "missing", "--summary", summary).code == BAD_INPUT
    assert summary.read_bytes() == b""


def test_names_and_messages_are_printed_as_they_are(tmp_path: Path) -> None:
    # Neither markup nor emoji codes nor the width of the terminal may change a path.
    path = tmp_path / f"[red]{'x' * 180}:bomb:.zst"
    result = liqmon("replay", path)
    assert result.stderr.splitlines()[0].startswith(f"{path}: line 1")


# ---------------------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize("command", [["run", "-c"], ["check-config"], ["record", "-o", "unused", "-c"], ["replay", "unused", "-c"]])
def test_every_error_of_a_configuration_is_listed(tmp_path: Path, command: list[str]) -> None:
    config = config_file(tmp_path, BAD_CONFIG)
    result = liqmon(*command, config)
    assert result.code == BAD_INPUT
    *problems, total = result.stderr.splitlines()
    assert total == f"{len(problems)} errors in {config}"
    assert all(problem.startswith(f"{config}: ") for problem in problems)
    for word, line in (("instance", 2), ("surprise", 3), ("port", 5), ("name", 7), ("symbols", 8)):
        assert any(word in problem and f"line {line}" in problem for problem in problems), (word, problems)
    assert result.stdout == ""


def test_a_missing_configuration_is_bad_input(tmp_path: Path) -> None:
    result = liqmon("check-config", tmp_path / "none.toml")
    assert result.code == BAD_INPUT
    assert str(tmp_path / "none.toml") in result.stderr
    assert result.stderr.splitlines()[-1] == f"1 error in {tmp_path / 'none.toml'}"


def test_a_valid_configuration_is_shown_complete_and_without_secrets(tmp_path: Path) -> None:
    text = '[http]\npassword = "open sesame"\n[[venues]]\nname = "binance"\nsymbols = ["BTCUSDT"]\n'
    config = config_file(tmp_path, text)
    config.chmod(0o600)
    result = liqmon("check-config", config)
    assert (result.code, result.stderr) == (OK, "")
    *shown, verdict = result.stdout.splitlines()
    assert verdict == f"{config} is valid."
    assert "sesame" not in result.stdout
    described = json.loads("\n".join(shown))
    assert described["venues"][0]["symbols"] == ["BTCUSDT"]
    assert described["staleness"]["book_s"] == 15.0


def test_the_examples_are_valid() -> None:
    examples = sorted((Path(__file__).resolve().parents[2] / "deploy" / "examples").glob("*.toml"))
    assert len(examples) >= 2
    assert [liqmon("check-config", path).code for path in examples] == [OK] * len(examples)


# -------------------------------------------------------------------------------------------------------- import and record


def foreign_capture(folder: Path, lines: int = 5) -> Path:
    path = folder / "capture.gz"
    text = b"".join(
        b"%d %b\n" % (START + number * SECOND, b'{"stream":"btcusdt@markPrice@1s","data":' + (mark(0).payload or b"") + b"}")
        for number in range(lines)
    )
    path.write_bytes(gzip.compress(text))
    return path


def test_an_import_holds_the_frames_of_the_original(tmp_path: Path) -> None:
    capture, output = foreign_capture(tmp_path), tmp_path / "imported"
    result = liqmon("import", "hftbacktest", capture, "-o", output)
    assert (result.code, result.stderr) == (OK, "")
    assert result.stdout == f"5 frames written to {output}, 0 that are no JSON left out\n"
    assert list(open_recording([output])) == list(open_recording([capture]))


def test_an_import_never_adds_to_a_recording(tmp_path: Path, recording: Path) -> None:
    before = recording.read_bytes()
    result = liqmon("import", "hftbacktest", foreign_capture(tmp_path), "-o", recording.parent)
    assert result.code == BAD_INPUT
    assert str(recording.parent) in result.stderr
    assert [path.read_bytes() for path in recording.parent.iterdir()] == [before]


def test_an_import_of_another_format_is_refused(tmp_path: Path) -> None:
    result = liqmon("import", "tardis", foreign_capture(tmp_path), "-o", tmp_path / "imported")
    assert result.code == BAD_INPUT
    assert "this is a file of format hftbacktest, not tardis" in result.stderr


@pytest.mark.parametrize("command", ["record", "import"])
def test_a_recording_needs_a_folder_that_can_be_written(tmp_path: Path, command: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    if command == "record":
        result = liqmon("record", "-c", config_file(tmp_path), "-o", blocked / "folder")
    else:
        result = liqmon("import", "hftbacktest", foreign_capture(tmp_path), "-o", blocked / "folder")
    assert result.code == BAD_INPUT
    assert str(blocked) in result.stderr


def test_a_recorder_does_not_add_to_an_earlier_recording(tmp_path: Path, recording: Path) -> None:
    result = liqmon("record", "-c", config_file(tmp_path), "-o", recording.parent)
    assert result.code == BAD_INPUT
    assert str(recording.parent) in result.stderr


def test_a_recorder_that_reaches_nobody_stops_after_its_time_with_an_empty_recording(tmp_path: Path) -> None:
    port = free_port()
    text = f"""
        [[venues]]
        name = "binance"
        symbols = ["BTCUSDT"]
        websocket_url = "ws://127.0.0.1:{port}"
        rest_url = "http://127.0.0.1:{port}"
        """
    started_s = time.monotonic()
    result = liqmon("record", "-c", config_file(tmp_path, text), "-o", tmp_path / "recorded", "--duration", "1")
    assert result.code == OK
    assert time.monotonic() - started_s < 10.0
    assert [path for path in (tmp_path / "recorded").iterdir() if path.suffix == ".partial"] == []


def test_a_daemon_whose_port_is_taken_fails_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f"""
            [http]
            port = {port}
            [[venues]]
            name = "binance"
            symbols = ["BTCUSDT"]
            websocket_url = "ws://127.0.0.1:1"
            rest_url = "http://127.0.0.1:1"
            """
        result = liqmon("run", "-c", config_file(tmp_path, text))
    assert result.code == FAILED
    assert "cannot go on:" in result.stderr
    assert str(port) in result.stderr
