"""The configuration: one TOML file, checked as a whole before anything starts.

:func:`load_config` either returns a frozen :class:`Config` or raises :class:`ConfigError` with every problem of the file at once,
each with its line and a hint. Unknown keys are errors, values are not coerced (``"8080"`` is no port), and files that the
configuration names are opened here, so that a daemon that starts has all it was told to use. Paths are relative to the folder of
the config file.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from alerts.settings import AlertSettings, Sinks
from connectors.account_settings import AccountFeedSettings
from connectors.registry import VENUES
from monitor.config_files import read_file, reason, tables, unreadable_secrets, use_files
from monitor.config_problems import Problem, document_path, dotted, most_important, problems_from
from monitor.rule_settings import RuleSettings
from monitor.settings import (
    STRICT,
    AccountSettings,
    LogSettings,
    ProjectionSettings,
    RecordingSettings,
    StalenessSettings,
    VenueConfig,
)
from monitor.toml_lines import TomlPath, key_lines, line_of
from monitor.web.settings import HttpSettings

CONFIG_BYTES_MAX = 1024 * 1024
"""A file with 100,000 seed accounts has 4.5 MB; those belong in a file of their own, so 1 MiB is a config file gone wrong."""

DEPTH_MAX = 20
"""The deepest key there is, a threshold of one market's rule, has five steps."""

SHOWN_ITEMS_MAX = 20
"""Longest list that :func:`describe` writes out."""

SECRET_VALUE = re.compile(r"password|secret|token|credential|authorization|api_?key", re.IGNORECASE)
"""Keys whose values are never shown, whatever their type."""

_DECODE_POSITION = re.compile(r" \(at line (\d+), column \d+\)")


class Config(BaseModel):
    """The whole configuration; paths are absolute and seed accounts complete after :func:`load_config`."""

    model_config = STRICT

    instance: str = Field(
        default="liqmon", pattern=r"^[a-z0-9-]{1,32}$", description="name in MQTT topics: 1 to 32 small letters, digits and hyphens"
    )
    http: HttpSettings = HttpSettings()
    projection: ProjectionSettings = ProjectionSettings()
    staleness: StalenessSettings = StalenessSettings()
    venues: tuple[VenueConfig, ...] = Field(default=(), description="[[venues]] sections, one for each venue")
    accounts: AccountSettings = AccountSettings()
    account_feeds: tuple[AccountFeedSettings, ...] = Field(
        default=(), max_length=20, description="private account feeds, at most 20 [[account_feeds]] sections"
    )
    recording: RecordingSettings = RecordingSettings()
    rules: RuleSettings = RuleSettings()
    alerts: AlertSettings = AlertSettings()
    sinks: Sinks = ()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _watches_something(self) -> Config:
        if not self.venues and not self.account_feeds:
            raise ValueError("nothing is watched: at least one [[venues]] or [[account_feeds]] section is needed")
        return self


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` lists everything that is wrong with it."""

    def __init__(self, path: Path | None, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" if path else str(problem) for problem in problems))
        self.path = path
        self.problems = problems


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read the configuration from ``path``; with an ``environment``, the secrets of sinks and feeds are tried as well.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or anything in it, or in a file that it names, is wrong.
    """
    try:
        content = read_file(path, CONFIG_BYTES_MAX)
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [Problem(line, "", "is not UTF-8 text", "save the file as UTF-8")]) from None
    except (OSError, ValueError) as error:
        raise ConfigError(path, [Problem(None, "", f"cannot be read: {reason(error)}")]) from None
    try:
        return parse_config(text, path.absolute().parent, environment)
    except ConfigError as error:
        raise ConfigError(path, error.problems) from None


def parse_config(text: str, folder: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Check the TOML ``text``; files that it names are looked up from ``folder``, secrets also in ``environment`` if given.

    Raises:
        ConfigError: with every problem found.
    """
    try:
        document = tomllib.loads(text)
        lines = key_lines(text)
    except RecursionError:
        raise ConfigError(None, [Problem(None, "", "is nested too deeply")]) from None
    except ValueError as error:  # also integers of more digits than Python converts
        raise ConfigError(None, [_syntax_problem(error)]) from None
    too_deep = [path for path in lines if len(path) > DEPTH_MAX]
    if too_deep:
        raise ConfigError(None, [Problem(lines[too_deep[0]], dotted(too_deep[0][:DEPTH_MAX]), "is nested too deeply")])
    nul = [path for path, value in _walk(document) if isinstance(value, str) and "\0" in value]
    if nul:  # no file name can hold it, and nothing else needs it
        raise ConfigError(None, [Problem(line_of(lines, path), dotted(path), "holds a NUL character") for path in nul])
    problems = _dates(document, lines)
    problems += _repeated_names(document, lines)
    problems += _feeds_out_of_place(document, lines)
    # A date, or a name that is used twice, would be told again by the schema, in other words.
    told = {problem.key for problem in problems} | {"sinks" for problem in problems if problem.key.startswith("sinks[")}
    problems += _unwatched(document, lines)
    problems += use_files(document, lines, folder)
    problems += [problem for problem in _validation_problems(document, lines) if problem.key not in told]
    if environment is not None:
        problems += unreadable_secrets(document, lines, environment)
    if problems:
        raise ConfigError(None, most_important(problems))
    return _validate(document)


def _validate(document: Mapping[str, Any]) -> Config:
    # Through JSON, because pydantic's strict mode takes lists for tuples there, and still no text for a number.
    return Config.model_validate_json(json.dumps(document, default=str), strict=True)


def _validation_problems(document: dict[str, Any], lines: dict[TomlPath, int]) -> list[Problem]:
    """List what is wrong by the schema.

    Checks that concern several keys run only where each key is right by itself. So what was complained about is taken out and the
    rest validated again, for as long as that is possible; each pass takes out at least one value, so it ends.
    """
    problems: list[Problem] = []
    rest = json.loads(json.dumps(document, default=str))
    removed: set[TomlPath] = set()
    while True:
        try:
            _validate(rest)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        else:
            return problems
        paths = [document_path(error["loc"], rest, missing=error["type"] == "missing") for error in errors]
        found = list(zip(errors, paths, strict=True))
        problems += problems_from([error for error, path in found if not _own_doing(error, path, removed)], Config, rest, lines)
        taken_out = [gone for error, path in found if (gone := _take_out(rest, path, error["type"]))]
        if not taken_out:
            return problems
        removed.update(taken_out)


def _own_doing(error: ErrorDetails, path: TomlPath, removed: set[TomlPath]) -> bool:
    """Tell whether a complaint is only about a value that was taken out: that it is missing, or a check that names it."""
    if error["type"] == "missing":
        return path in removed
    neighbours = [str(gone[-1]) for gone in removed if gone[:-1] == path]
    return any(re.search(rf"\b{re.escape(name)}\b", error["msg"]) for name in neighbours)


def _take_out(document: dict[str, Any], path: TomlPath, error_type: str) -> TomlPath | None:
    """Remove the plain value that ``path`` belongs to, and return where it was; tables stay, unless nobody knows them."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    table: Any = document
    for step in path[:-1]:
        table = table[step]
    if not path or not isinstance(table, dict) or path[-1] not in table:
        return None
    value = table[path[-1]]
    holds_tables = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
    if holds_tables and error_type != "extra_forbidden":
        return None
    del table[path[-1]]
    return path


def _syntax_problem(error: ValueError) -> Problem:
    position = _DECODE_POSITION.search(str(error))
    message = _DECODE_POSITION.sub("", str(error))
    return Problem(int(position.group(1)) if position else None, "", f"is no valid TOML: {message}")


def _walk(value: object, path: TomlPath = ()) -> Iterator[tuple[TomlPath, object]]:
    yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))


def _dates(document: Mapping[str, Any], lines: dict[TomlPath, int]) -> list[Problem]:
    """Complain of dates, which JSON lacks and no key takes."""
    return [
        Problem(line_of(lines, path), dotted(path), "is a date or time, which no key takes", "put text into quotes")
        for path, value in _walk(document)
        if isinstance(value, date | datetime | time)
    ]


def _repeated_names(document: Mapping[str, Any], lines: dict[TomlPath, int]) -> list[Problem]:
    """Complain of two venues, sinks or feeds of one name, which could not be told apart in metrics, topics and recordings."""
    problems = []
    for section, advice in (
        ("venues", "list all symbols in one section, or run another instance"),
        ("sinks", "give each its own name; without one it is called by its type"),
        ("account_feeds", "give each its own name"),
    ):
        first_line: dict[str, int | None] = {}
        for path, table in tables(document, section):
            key = "type" if section == "sinks" and "name" not in table else "name"
            name = table.get(key)
            if not isinstance(name, str):
                continue
            line = line_of(lines, (*path, key))
            if name in first_line:
                message = f"{name!r} is used already, in line {first_line[name]}"
                problems.append(Problem(line, dotted((*path, "name")), message, advice))
            first_line.setdefault(name, line)
    return problems


def _feeds_out_of_place(document: Mapping[str, Any], lines: dict[TomlPath, int]) -> list[Problem]:
    """Complain of feeds of a venue that is not watched, and of those that bear the name of another feed's venue."""
    watched = [venue.get("name") for _, venue in tables(document, "venues")]
    feeds = tables(document, "account_feeds")
    problems = []
    for path, feed in feeds:
        name, venue = feed.get("name"), feed.get("venue")
        if isinstance(venue, str) and venue in VENUES and venue not in watched:
            message = f"{venue!r} has a connector, but no [[venues]] section"
            advice = "add the section: markets and prices of these accounts come from there"
            problems.append(Problem(line_of(lines, (*path, "venue")), dotted((*path, "venue")), message, advice))
        others = [each for other, each in feeds if other != path and isinstance(name, str) and each.get("venue") == name]
        if others and name != venue:
            message = f"{name!r} is the venue of another feed, and metrics could not tell the two apart"
            problems.append(Problem(line_of(lines, (*path, "name")), dotted((*path, "name")), message))
    return problems


def _unwatched(document: Mapping[str, Any], lines: dict[TomlPath, int]) -> list[Problem]:
    """Complain of rules for markets that nothing lists: they would never be looked at."""
    named = [(venue.get("name"), venue.get("symbols")) for _, venue in tables(document, "venues")]
    named += [(feed.get("venue"), feed.get("symbols")) for _, feed in tables(document, "account_feeds")]
    watched = [
        f"{venue}/{symbol}"
        for venue, symbols in named
        if isinstance(venue, str) and isinstance(symbols, list)
        for symbol in symbols
    ]
    rules = document.get("rules")
    markets = rules.get("markets") if isinstance(rules, dict) else None
    problems = []
    for market in markets if isinstance(markets, dict) else ():
        if market not in watched:
            path = ("rules", "markets", market)
            close = difflib.get_close_matches(market, watched, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "write it as venue/symbol, as in the [[venues]] sections"
            message = "no [[venues]] or [[account_feeds]] section lists this market"
            problems.append(Problem(line_of(lines, path), dotted(path), message, hint))
    return problems


def describe(config: Config) -> dict[str, Any]:
    """Return the configuration with all defaults filled in, fit for being shown: no secrets, and long lists as their length."""
    return {name: _shown(name, value) for name, value in config.model_dump(mode="json").items()}


def _shown(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        secret = re.search(r"header|environment", key, re.IGNORECASE)
        return {name: "***" if secret else _shown(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown(key, item) for item in value] if len(value) <= SHOWN_ITEMS_MAX else f"{len(value)} items"
    if not isinstance(value, str) or not value:
        return value
    if SECRET_VALUE.search(key):
        return "***"
    if "://" in value and key not in {"websocket_url", "rest_url"}:
        # The path of a webhook is often its password, and so is what stands before the @.
        parts = urlsplit(value)
        rest = "/***" if parts.path.strip("/") or parts.query else ""
        return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{parts.netloc.rpartition('@')[2]}{rest}"
    return value
