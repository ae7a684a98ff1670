"""The venues that exist: a name in the configuration is a key of ``VENUES``."""

from __future__ import annotations

from pathlib import Path

from connectors.binance import Binance
from connectors.binance_brackets import load_brackets
from connectors.hyperliquid import Hyperliquid
from connectors.venue import Venue, VenueSettings

VENUES: dict[str, Venue] = {
    "binance": Binance(),
    "hyperliquid": Hyperliquid(),
}


def configured_venue(name: str, settings: VenueSettings) -> Venue:
    """Return the venue with what the settings give it from files.

    Raises:
        KeyError: there is no such venue.
        BracketError: ``brackets_path`` does not hold usable brackets.
        ValueError: the venue takes no brackets.
    """
    venue = VENUES[name]
    if not settings.brackets_path:
        return venue
    if name != Binance.name:
        raise ValueError(f"{name}: brackets_path is of no use, the venue publishes its margin tables")
    return Binance(load_brackets(Path(settings.brackets_path)))
