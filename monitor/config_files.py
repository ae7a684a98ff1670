"""The files that a configuration names: their paths are made absolute, and what has to be right before anything starts is read."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alerts.settings import Sinks, secret_problems
from connectors.account_settings import AccountFeedSettings
from connectors.binance_brackets import BracketError, load_brackets
from monitor.config_problems import Problem, dotted
from monitor.settings import ACCOUNT
from monitor.toml_lines import TomlPath, line_of

SEED_FILE_BYTES_MAX = 64 * 1024 * 1024
"""A million accounts (the largest ``accounts_max``) of 43 bytes, with room for comments."""

SEED_FILE_PROBLEMS_MAX = 3
"""Bad lines of one seed file that are listed; the rest is a number."""

_SINKS: TypeAdapter[Sinks] = TypeAdapter(Sinks)


def tables(document: Mapping[str, Any], key: str) -> list[tuple[TomlPath, dict[str, Any]]]:
    """List the tables of an array of tables, whatever else stands in its place."""
    value = document.get(key)
    items = value if isinstance(value, list) else []
    return [((key, index), item) for index, item in enumerate(items) if isinstance(item, dict)]


def use_files(document: dict[str, Any], lines: dict[TomlPath, int], folder: Path) -> list[Problem]:
    """Make paths absolute, add the accounts of seed files to the seed accounts, and say which files cannot be used."""
    problems = []
    for path, venue in tables(document, "venues"):
        for key, use in (("brackets_path", _brackets_problems), ("seed_accounts_file", _add_seed_accounts)):
            name = venue.get(key)
            if isinstance(name, str) and name:
                venue[key] = str(folder / name)
                key_path = (*path, key)
                problems += [Problem(line_of(lines, key_path), dotted(key_path), text) for text in use(folder / name, venue)]
        problems += _use_folder(venue, (*path, "node_directory"), lines, folder)
    for _, sink in tables(document, "sinks"):
        sink.update(_absolute(sink, folder))
    for _, feed in tables(document, "account_feeds"):
        if isinstance(source := feed.get("source"), dict):
            source.update(_absolute(source, folder))
    recording = document.setdefault("recording", {})
    if isinstance(recording, dict):
        recording.setdefault("directory", "recordings")
        problems += _use_folder(recording, ("recording", "directory"), lines, folder)
    return problems


def _absolute(table: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return the paths of a sink or a feed, absolute; they are opened when they are used, because they change as it runs."""
    return {
        key: str(folder / name)
        for key, name in table.items()
        if (key == "path" or key.endswith("_file")) and isinstance(name, str) and name
    }


def _use_folder(table: dict[str, Any], path: TomlPath, lines: dict[TomlPath, int], folder: Path) -> list[Problem]:
    """Make the path of a folder absolute, and say what is wrong with it."""
    key = str(path[-1])
    name = table.get(key)
    if not isinstance(name, str) or not name:
        return []
    table[key] = str(folder / name)
    return [Problem(line_of(lines, path), dotted(path), text) for text in _folder_problems(folder / name)]


def _brackets_problems(path: Path, _venue: dict[str, Any]) -> list[str]:
    try:
        load_brackets(path)
    except BracketError as error:
        return [str(error)]
    return []


def _folder_problems(path: Path) -> list[str]:
    try:
        return [] if stat.S_ISDIR(path.stat().st_mode) else [f"{path} is a file, not a folder"]
    except FileNotFoundError:
        return []  # whoever writes into it makes it: this daemon for its recordings, a node that may start later for its data
    except OSError as error:
        return [f"{path} cannot be used: {reason(error)}"]


def _add_seed_accounts(path: Path, venue: dict[str, Any]) -> list[str]:
    accounts, problems = _read_seed_accounts(path)
    listed = venue.get("seed_accounts", [])
    if isinstance(listed, list):
        known = {account.lower() for account in listed if isinstance(account, str)}
        venue["seed_accounts"] = [*listed, *(account for account in accounts if account not in known)]
    return problems


def _read_seed_accounts(path: Path) -> tuple[list[str], list[str]]:
    """Return the addresses in the file, in lower case and without repetitions, and what is wrong with it."""
    try:
        text = read_file(path, SEED_FILE_BYTES_MAX).decode()
    except (OSError, ValueError) as error:
        return [], [f"{path} cannot be read: {reason(error)}"]
    accounts: dict[str, None] = {}
    bad: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        account = line.partition("#")[0].strip()
        if ACCOUNT.fullmatch(account):
            accounts[account.lower()] = None
        elif account:
            bad.append(f"{path} line {number}: {account[:60]!r} is no address: 0x and 40 hexadecimal digits")
    if len(bad) > SEED_FILE_PROBLEMS_MAX:
        bad = [*bad[:SEED_FILE_PROBLEMS_MAX], f"{path}: and {len(bad) - SEED_FILE_PROBLEMS_MAX} more lines that are no addresses"]
    return list(accounts), bad


def read_file(path: Path, bytes_max: int) -> bytes:
    """Read a whole file, but never more than ``bytes_max``: the path may be a device."""
    with path.open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise ValueError(f"it is larger than {bytes_max} bytes")
    return content


def reason(error: Exception) -> str:
    """Say why a file cannot be used, without its name."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def unreadable_secrets(document: Mapping[str, Any], lines: dict[TomlPath, int], environment: Mapping[str, str]) -> list[Problem]:
    """Try to read the secrets of each sink and each feed that is right otherwise."""
    problems = []
    for path, table in tables(document, "sinks"):
        try:
            sinks = _SINKS.validate_json(json.dumps([table], default=str), strict=True)
        except ValidationError:
            continue
        # The text begins with the name of the sink, which the line tells already.
        texts = [text.removeprefix(f"{sinks[0].name}: ") for text in secret_problems(sinks, environment)]
        problems += [Problem(line_of(lines, path), dotted(path), text) for text in texts]
    for path, table in tables(document, "account_feeds"):
        try:
            feed = AccountFeedSettings.model_validate_json(json.dumps(table, default=str), strict=True)
        except ValidationError:
            continue
        if (text := feed.secret_problem(environment)) is not None:
            place = (*path, "source")
            problems.append(Problem(line_of(lines, place), dotted(place), text))
    return problems
