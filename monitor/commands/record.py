"""``liqmon record``."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from connectors.recorder import Recorder, RecorderError
from monitor.commands.service import serve
from monitor.commands.terminal import BAD_INPUT, complain, read_config


def run_record(config_path: Path, output: Path, duration_s: float | None) -> int:
    """Record what the configured venues send into ``output``."""
    config = read_config(config_path)
    if config is None:
        return BAD_INPUT
    try:
        Recorder(output, fresh=True).close()
    except RecorderError as error:
        complain(str(error))
        return BAD_INPUT
    recording = config.recording.model_copy(update={"enabled": True, "directory": str(output.absolute())})
    http = config.http.model_copy(update={"enabled": False})
    quiet = config.model_copy(update={"recording": recording, "http": http, "sinks": ()})
    return serve(lambda: contextlib.nullcontext(quiet), duration_s=duration_s, seed=time.time_ns(), must_record=True)
