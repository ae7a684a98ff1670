"""How commands talk to the person at the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from monitor.config import Config, ConfigError, load_config

OK, FAILED, BAD_INPUT = 0, 1, 2

# Messages hold names from files and venues; ":x:" in one of them is no emoji.
stdout = Console(highlight=False, emoji=False)
stderr = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a message as it is: without markup, and without line breaks of ours, so that other programs can read it too."""
    stdout.print(message, markup=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error as it is, without markup."""
    stderr.print(message, style="red", markup=False)


def read_config(path: Path) -> Config | None:
    """Load a configuration; list every error and return ``None`` if it cannot be used."""
    try:
        return load_config(path, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            complain(f"{path}: {problem}")
        count = len(error.problems)
        complain(f"{count} error{'s' if count != 1 else ''} in {path}")
        return None
