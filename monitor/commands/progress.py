"""A progress display for streams of unknown length; nothing at all when the output is not a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from connectors.frames import Frame
from monitor.commands.terminal import stderr

STEP = 5_000
"""Frames between two updates: about fifty a second at full speed."""


def counting(frames: Iterable[Frame], verb: str) -> Iterator[Frame]:
    """Pass ``frames`` on and show how many there were and how far in recorded time they are."""
    if not stderr.is_terminal:
        yield from frames
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} frames"), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(verb, total=None)
        for number, frame in enumerate(frames):
            if number % STEP == 0:
                progress.update(task, completed=number)
            yield frame
