"""A file that somebody else appends to, rotates and truncates. The methods block; the shell calls them in a thread."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
"""Read at a time: some 200 lines, fewer than the core takes from its queue in one go, so that a long file that is read from its
beginning does not flood the queue."""

FINGERPRINT_BYTES: Final = 64
"""Of the end of what was read: where they have changed, the file was written anew. Lines are longer and hold a time, so that no two
files have the same ones at the same place."""


class Tail:
    """One file from its beginning on, by its inode: a file that takes its name is another one.

    Attributes:
        position: How many bytes were read since the beginning.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0
        self._path = path
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._fingerprint = b""

    def open(self) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be read, or is no regular file.
        """
        # Without O_NONBLOCK, a named pipe that nobody writes to would block here for ever.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        info = os.fstat(self._descriptor)
        if not stat.S_ISREG(info.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "is no regular file")
        self._identity = (info.st_dev, info.st_ino)

    def read(self) -> bytes | None:
        """Return what comes next, nothing at the end, or ``None`` where the file was truncated: it then begins again.

        What was appended between the last look and the truncation was never seen.

        Raises:
            OSError: the file cannot be read on.
        """
        descriptor = self._descriptor
        assert descriptor is not None, "the file is open"
        known = self._fingerprint
        # A file that was cut and has grown beyond the position since then shows it only by what stands before the position.
        if known and os.pread(descriptor, len(known), self.position - len(known)) != known:
            self.position = 0
            self._fingerprint = b""
            return None
        data = os.pread(descriptor, CHUNK_BYTES, self.position)
        self.position += len(data)
        self._fingerprint = (known + data)[-FINGERPRINT_BYTES:]
        return data

    def is_replaced(self) -> bool:
        """Tell whether the name belongs to another file now.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            info = self._path.stat()
        except FileNotFoundError:
            # Renamed already, and the new one is not there yet: it may still be written to.
            return False
        return (info.st_dev, info.st_ino) != self._identity

    def close(self) -> None:
        """Close the file, if it is open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
