"""OKX's rule for the order book's sequence numbers, as a pure function (venues.md 4.2).

A message carries ``prevSeqId`` and ``seqId``. A snapshot has ``prevSeqId`` -1; every update after it must name the ``seqId``
before. Two things look wrong and are not: a keep-alive with both numbers equal after about a minute without change, and, after
maintenance, an update whose ``seqId`` is *below* its ``prevSeqId``, from which the numbers go on. Anything else is a gap:
subscribe again.
"""

from __future__ import annotations

from typing import Literal

SNAPSHOT = -1
"""The ``prevSeqId`` of a snapshot."""

Verdict = Literal["snapshot", "update", "keep_alive", "reset", "resync"]


def judge(last_id: int | None, previous_id: int, sequence_id: int) -> Verdict:
    """Say what to do with a message of one book.

    Args:
        last_id: ``seqId`` of the last accepted message, ``None`` before the first snapshot and after a gap.
        previous_id: ``prevSeqId`` of the message.
        sequence_id: ``seqId`` of the message.

    Returns:
        ``snapshot`` to start anew from it, ``update`` to apply it, ``keep_alive`` with nothing to apply, ``reset`` to apply it and
        go on from its lower number, ``resync`` to drop it and subscribe again. After all but the last, ``sequence_id`` is the new
        ``last_id``.
    """
    if previous_id == SNAPSHOT:
        return "snapshot"
    if last_id is None or previous_id != last_id:
        return "resync"
    if sequence_id == previous_id:
        return "keep_alive"
    return "update" if sequence_id > previous_id else "reset"
