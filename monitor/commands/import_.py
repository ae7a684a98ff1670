"""``liqmon import``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from connectors.importers import Format, ImportCounts, open_recording, write_native
from connectors.recorder import RecorderError
from connectors.recording import RecordingError
from monitor.commands.progress import counting
from monitor.commands.terminal import BAD_INPUT, OK, complain, say


def run_import(form: str, paths: list[Path], output: Path, venue: str | None) -> int:
    """Write recordings of another tool into ``output`` as one of ours."""
    counts = ImportCounts()
    try:
        frames = open_recording(paths, venue, counts=counts, expected=cast("Format", form))
        totals = write_native(counting(frames, "importing"), output)
    except (RecordingError, RecorderError) as error:
        complain(str(error))
        return BAD_INPUT
    say(f"{totals.frames:,} frames written to {output}, {totals.skipped:,} that are no JSON left out")
    return OK
