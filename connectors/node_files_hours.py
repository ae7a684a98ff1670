"""Where a Hyperliquid node keeps its fills: one file per hour, in one of several folders (venues.md 1.10)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

from connectors.hyperliquid_node import NODE_CONNECTION, NODE_STREAM_CONNECTION


class Folder(NamedTuple):
    """A kind of files: its folder, the connection that its lines are said to come over, and whether each line is a whole block."""

    name: str
    connection: str
    has_whole_blocks: bool


FOLDERS: Final = (
    Folder("node_fills_by_block", NODE_CONNECTION, has_whole_blocks=True),
    Folder("node_fills_streaming", NODE_STREAM_CONNECTION, has_whole_blocks=False),
    Folder("node_fills", NODE_CONNECTION, has_whole_blocks=False),
)
"""Best first. Files of ``node_trades`` are of no use: their rows have no id, so that one that comes again cannot be told."""


class HourFile(NamedTuple):
    """One file: day and hour in UTC as the node names them, and where it is."""

    day: date
    hour: int
    folder: Folder
    path: Path

    @property
    def number(self) -> int:
        """Hours since the year 1; the next file has the next number."""
        return self.day.toordinal() * 24 + self.hour


def hour_files(path: Path, since: date | None) -> list[HourFile]:
    """List the files below a node's data folder, oldest first; of files of the same hour the better kind comes last.

    Args:
        path: The data folder; it need not exist.
        since: The first day of interest; ``None`` for the newest day of each folder.

    Raises:
        OSError: a folder is there and cannot be listed.
    """
    found = [file for folder in FOLDERS for file in _files_of(path / folder.name / "hourly", folder, since)]
    return sorted(found, key=lambda file: (file.number, -FOLDERS.index(file.folder)))


def _files_of(root: Path, folder: Folder, since: date | None) -> list[HourFile]:
    try:
        days = sorted((day, entry) for entry in root.iterdir() if (day := _day(entry.name)) is not None)
    except FileNotFoundError:
        return []
    wanted = days[-1:] if since is None else [(day, entry) for day, entry in days if day >= since]
    return [
        HourFile(day, int(file.name), folder, file)
        for day, entry in wanted
        if entry.is_dir()
        for file in entry.iterdir()
        if file.name.isascii() and file.name.isdigit() and int(file.name) < 24
    ]


def _day(name: str) -> date | None:
    if len(name) != 8 or not (name.isascii() and name.isdigit()):
        return None
    try:
        return date(int(name[:4]), int(name[4:6]), int(name[6:]))
    except ValueError:
        return None
