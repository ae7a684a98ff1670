"""``liqmon run``."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from monitor.commands.service import serve
from monitor.commands.terminal import BAD_INPUT, read_config


def run_daemon(config_path: Path) -> int:
    """Run the daemon as configured."""
    config = read_config(config_path)
    # The seed only spreads retries; it differs between restarts so that a fleet does not move in step.
    return BAD_INPUT if config is None else serve(lambda: contextlib.nullcontext(config), seed=time.time_ns())
