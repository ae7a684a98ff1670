"""``liqmon check-config``."""

from __future__ import annotations

from pathlib import Path

import orjson

from monitor.commands.terminal import BAD_INPUT, OK, read_config, say, stdout
from monitor.config import describe


def run_check_config(path: Path) -> int:
    """List every error of a configuration, or show it complete with defaults and without secrets."""
    config = read_config(path)
    if config is None:
        return BAD_INPUT
    stdout.print_json(orjson.dumps(describe(config)).decode())
    say(f"{path} is valid.")
    return OK
