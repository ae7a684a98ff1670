"""What a node that follows the exchange writes to disk with ``--write-fills --batch-by-block`` (venues.md 1.10).

One JSON line per block, also where nothing was traded, so that a missing block number is a lost line. Every fill is there twice,
once for each party, with the same ``tid``; amounts and directions are those of ``userFills``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from connectors.simulated.account_messages import party_fills
from connectors.simulated.exchange import Exchange

FILLS_FOLDER: Final = Path("node_fills_by_block", "hourly")


def block_line(exchange: Exchange, block_number: int, *, local_ns: int) -> bytes:
    """Return the line of the block that was finished last, with its line break.

    Args:
        exchange: What has been traded in the block is still in ``trades``.
        block_number: Numbers rise by one from block to block.
        local_ns: When the node wrote it, in nanoseconds UTC.
    """
    line = {
        "local_time": f"{_utc_text(local_ns // 1_000_000_000)}.{local_ns % 1_000_000_000:09d}",
        "block_time": f"{_utc_text(exchange.time_ms // 1_000)}.{exchange.time_ms % 1_000:03d}",
        "block_number": block_number,
        "events": party_fills(exchange, exchange.trades),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def hourly_path(time_ms: int) -> Path:
    """Return the file, below a node's data folder, for blocks of some time: a folder per day and a file per hour, not padded."""
    at = datetime.fromtimestamp(time_ms // 1_000, UTC)
    return FILLS_FOLDER / f"{at:%Y%m%d}" / str(at.hour)


class NodeOutput:
    """Appends lines to the hourly files below a data folder; a line is whole on disk before :meth:`write` returns."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._file: BinaryIO | None = None

    def write(self, line: bytes, block_time_ms: int) -> None:
        """Append one line to the file of its block's hour.

        Raises:
            OSError: the file cannot be written.
        """
        path = self._directory / hourly_path(block_time_ms)
        if self._file is None or path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path, self._file = path, path.open("ab")
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file that is open; a later line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _utc_text(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
