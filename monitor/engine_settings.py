"""What the core is told once, at the start."""

from __future__ import annotations

import msgspec

from connectors.events import Completeness
from monitor.settings import ProjectionSettings, StalenessSettings


class EngineSettings(msgspec.Struct, frozen=True):
    """What the core is told: which markets, how finely, and when an input is too old."""

    symbols: dict[str, tuple[str, ...]]
    """The watched symbols by venue; others are quarantined."""
    projection: ProjectionSettings
    staleness: StalenessSettings
    watch_all: bool = False
    """Watch every symbol that shows up, for replays without a config."""
    simulated_venues: frozenset[str] = frozenset()
    completeness: dict[str, Completeness] = {}
    """By venue how much of its liquidations the subscribed feeds can show; a venue without such a feed is not in it."""
    accounts_max: int = 100_000
    dexes: dict[str, tuple[str, ...]] = {}
    """By venue the further pools that accounts may have positions in."""
    node_venues: frozenset[str] = frozenset()
    """Venues whose fills an own node tells: the accounts named on the public tape are not carried forward twice."""
    bookless_venues: frozenset[str] = frozenset()
    """Venues that are known from private feeds only, which tell prices and accounts, but no books and no open interest."""
    feeds: tuple[str, ...] = ()
    """Names of the private account feeds."""
    margin_call_ratio: float = 0.5
    """A margin call comes when the surplus falls below this multiple of the maintenance margin."""
