"""Bytes of an account feed into lines, whatever pieces they arrive in. Pure; the transports are in ``account_sources``."""

from __future__ import annotations

from typing import Final

MAX_LINE_BYTES: Final = 1024 * 1024
"""A snapshot of 4,096 positions of 200 bytes has 0.8 MB; what is longer than this is no message."""


class LineSplitter:
    """Cuts a stream of bytes into lines; a line ends with a line feed.

    Attributes:
        oversized: Lines that were longer than ``max_line_bytes`` and thrown away.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.oversized = 0
        self._max_line_bytes = max_line_bytes
        self._held = bytearray()
        self._skipping = False

    @property
    def held_bytes(self) -> int:
        """Bytes of a line that has begun and not ended."""
        return len(self._held)

    def split(self, data: bytes) -> list[bytes | None]:
        """Return the lines that ``data`` completes, without ends and blank ones; ``None`` stands for one that was too long."""
        lines: list[bytes | None] = []
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._hold(piece, lines)
            line = bytes(self._held).strip(b" \t\r")
            if line:
                lines.append(line)
            self.reset()
        self._hold(rest, lines)
        return lines

    def reset(self) -> None:
        """Forget a line that has begun."""
        self._held.clear()
        self._skipping = False

    def _hold(self, piece: bytes, lines: list[bytes | None]) -> None:
        """Keep a piece of the line, or, as soon as the line is too long, nothing of it."""
        if self._skipping or not piece:
            return
        if len(self._held) + len(piece) > self._max_line_bytes:
            self.reset()
            self._skipping = True
            self.oversized += 1
            lines.append(None)
            return
        self._held += piece
