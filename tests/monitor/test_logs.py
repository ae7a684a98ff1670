"""Logs, ours and those of libraries, for people and for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog

from monitor.logs import configure_logs

Log = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _as_it_was_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(form: Literal["console", "json"], level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logs(level, form, stream)
    return stream


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_json_line_is_one_object_with_time_level_and_logger() -> None:
    stream = configured("json")
    structlog.get_logger("monitor.test_one").warning("feed_lost", venue="binance", silent_s=12.5)
    [entry] = parsed(stream)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "feed_lost", "level": "warning", "logger": "monitor.test_one", "venue": "binance", "silent_s": 12.5}


def test_logs_of_libraries_look_like_ours() -> None:
    stream = configured("json")
    logging.getLogger("aiohttp.server").error("refused %s after %d tries", "a client", 3)
    [entry] = parsed(stream)
    assert (entry["event"], entry["level"], entry["logger"]) == ("refused a client after 3 tries", "error", "aiohttp.server")
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize(("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_left_out(level: str, seen: int) -> None:
    stream = configured("json", level)
    ours, theirs = structlog.get_logger(f"monitor.test_{level}"), logging.getLogger("library")
    for log in (ours, theirs):
        for method in ("debug", "info", "warning", "error"):
            getattr(log, method)("something")
    assert [entry["level"] for entry in parsed(stream)] == ["debug", "info", "warning", "error"][4 - seen :] * 2


def test_a_traceback_is_a_field_of_its_line_and_not_lines_of_its_own() -> None:
    stream = configured("json")
    for log in (structlog.get_logger("monitor.test_error"), logging.getLogger("library")):
        try:
            int("odd")
        except ValueError:
            log.exception("failed")
    entries = parsed(stream)
    assert [entry["event"] for entry in entries] == ["failed", "failed"]
    assert all("Traceback" in entry["exception"] and "ValueError: invalid literal" in entry["exception"] for entry in entries)


def test_a_value_that_is_no_json_does_not_lose_the_line() -> None:
    stream = configured("json")
    structlog.get_logger("monitor.test_value").info("odd", path=object(), text='quotes " and\nline feeds')
    [entry] = parsed(stream)
    assert entry["path"].startswith("<object object")
    assert entry["text"] == 'quotes " and\nline feeds'


def test_lines_for_people_hold_the_same_without_colours_in_a_file() -> None:
    stream = configured("console")
    structlog.get_logger("monitor.test_console").info("listening", url="http://127.0.0.1:9477/")
    logging.getLogger("library").warning("careful")
    first, second = stream.getvalue().splitlines()
    assert "listening" in first
    assert "url=http://127.0.0.1:9477/" in first
    assert "info" in first
    assert "careful" in second
    assert "\x1b" not in stream.getvalue()


def test_configuring_again_replaces_what_was_configured_before() -> None:
    first = configured("json")
    second = configured("json")
    logging.getLogger("library").warning("once")
    assert first.getvalue() == ""
    assert len(parsed(second)) == 1


def test_logs_go_to_standard_error_so_that_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger("monitor.test_stderr").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "hello"
