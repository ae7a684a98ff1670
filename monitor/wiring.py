"""What a configuration makes of the parts: the parser of every source, and what the core is told; for daemon and replays alike."""

from __future__ import annotations

from connectors.events import Completeness
from connectors.registry import configured_venue
from connectors.venue import Venue
from monitor.config import Config
from monitor.engine_settings import EngineSettings
from monitor.settings import VenueConfig

FED_ACCOUNTS_MAX = 100_000
"""Room for the accounts of private feeds, beside those of the venues: some 15 MB."""


def parsers(config: Config) -> dict[str, Venue]:
    """Return the parser of each source by the name that its frames carry: venues, and private account feeds."""
    venues: dict[str, Venue] = {venue.name: configured_venue(venue.name, venue.settings()) for venue in config.venues}
    return venues | {feed.name: feed.feed() for feed in config.account_feeds}


def engine_settings(config: Config) -> EngineSettings:
    """Take from the configuration what the core is told."""
    symbols: dict[str, tuple[str, ...]] = {venue.name: venue.symbols for venue in config.venues}
    for feed in config.account_feeds:
        if not feed.has_connector:
            symbols[feed.venue] = tuple(dict.fromkeys((*symbols.get(feed.venue, ()), *feed.symbols)))
    return EngineSettings(
        symbols=symbols,
        projection=config.projection,
        staleness=config.staleness,
        simulated_venues=frozenset(venue.name for venue in config.venues if venue.simulated),
        completeness={venue.name: shown for venue in config.venues if (shown := _completeness(venue)) is not None},
        accounts_max=sum(venue.accounts_max for venue in config.venues) + (FED_ACCOUNTS_MAX if config.account_feeds else 0),
        bookless_venues=frozenset(feed.venue for feed in config.account_feeds if not feed.has_connector),
        dexes={venue.name: venue.dexes for venue in config.venues if venue.dexes},
        node_venues=frozenset(venue.name for venue in config.venues if venue.node_directory),
        feeds=tuple(feed.name for feed in config.account_feeds),
        margin_call_ratio=config.accounts.margin_call_ratio,
    )


def _completeness(venue: VenueConfig) -> Completeness | None:
    """Say how much of a venue's liquidations its configured feeds can show (the venue files say why)."""
    if venue.name == "binance":
        return "sampled"
    if venue.node_directory:
        return "complete"
    return "partial" if venue.watch_accounts else None
