"""What has come in from each source, and what is known of it: the part of a projection that is about feeds."""

from __future__ import annotations

from monitor.projection import DisagreementCounts, VenueHealth
from monitor.state.account_changes import AccountChanges
from monitor.state.book import SequencedBook
from monitor.state.market_table import MarketTable
from monitor.state.survey import NO_ACCOUNTS, AccountSurvey


class VenueCounters:
    """What has come in from one venue or private feed."""

    __slots__ = ("events", "frames", "gaps", "notices_refused", "parse_errors")

    def __init__(self) -> None:
        self.frames = 0
        self.events = 0
        self.gaps = 0
        self.notices_refused = 0
        self.parse_errors: dict[str, int] = {}


def venue_health(
    venue: str,
    counters: VenueCounters,
    *,
    markets: MarketTable,
    changes: AccountChanges,
    survey: AccountSurvey,
    disagreements: tuple[DisagreementCounts, ...],
) -> VenueHealth:
    """Put together what is told of one source; a private feed has counters only, its accounts being those of its venue."""
    books = [market.book for market in markets if market.venue == venue and isinstance(market.book, SequencedBook)]
    counts = survey.counts.get(venue, NO_ACCOUNTS)
    return VenueHealth(
        venue=venue,
        frames=counters.frames,
        events=counters.events,
        parse_errors=dict(counters.parse_errors),
        gaps=counters.gaps,
        accounts_known=counts.known,
        accounts_live=counts.live,
        accounts_stale=counts.stale,
        accounts_unknown_mode=counts.unknown_mode,
        accounts_refused=survey.accounts.refused,
        fills_unexplained=changes.unexplained,
        fills_contradicted=changes.contradicted,
        sequence_gaps=changes.sequence_gaps,
        accounts_evicted=survey.accounts.evicted,
        poll_coverage=survey.poll_coverage.get(venue, {}),
        disagreements=disagreements,
        subscriptions_refused=counters.notices_refused,
        book_deltas_dropped=sum(book.pending_dropped for book in books),
        book_levels_dropped=sum(book.levels_dropped for book in books),
        quarantined_symbols=markets.quarantined(venue),
    )
