"""Keeps the sums over accounts at the present prices, checks them against full sweeps, and counts accounts by their standing."""

from __future__ import annotations

from monitor.margin import Array
from monitor.projection import SweepHealth
from monitor.state.accounts import AccountCounts, AccountTable

NS = 1_000_000_000

SWEEP_EVERY_NS = 5 * NS
"""Running sums are compared with a full sweep this often, and distances for the poll scheduler are measured by it: some 15 ms for a
million positions are three thousandths of the time."""

SURVEY_AT_ONCE = 50_000
"""With more accounts than this, they are counted only as often as they are swept."""

POLL_COVERAGE_S = (60, 300, 900)
"""Ages for which the share of reported notional is published."""


NO_ACCOUNTS = AccountCounts(0, 0, 0, 0)
"""Of a private feed, whose accounts are those of its venue."""


class AccountSurvey:
    """What is known of the accounts as a whole.

    Attributes:
        sweeps: what full sweeps found.
        accounts: the accounts.
        swept_ns: when the last one was.
        counts: accounts by venue and standing.
        poll_coverage: by venue, for each of :data:`POLL_COVERAGE_S`, the share of the notional that was reported within it.
    """

    def __init__(self, accounts: AccountTable, venues: tuple[str, ...]) -> None:
        self.accounts = accounts
        self._venues = venues
        self.sweeps = SweepHealth(0, 0, 0.0, 0.0)
        self.swept_ns = 0
        self.counts: dict[str, AccountCounts] = {}
        self.poll_coverage: dict[str, dict[str, float]] = {}

    def reprice(self, prices: Array, now_ns: int, age_max_ns: int) -> None:
        """Bring all sums to these prices, by market: by what changed, or if need be, and now and then, by a full sweep."""
        legs = self.accounts.legs
        for index, price in enumerate(prices.tolist()):
            legs.set_price(index, price)
        is_time = now_ns - self.swept_ns >= SWEEP_EVERY_NS
        if legs.outdated or is_time:
            drift = legs.sweep()
            largest = max(self.sweeps.largest_drift_ratio, drift.largest_ratio)
            self.sweeps = SweepHealth(self.sweeps.sweeps + 1, drift.rows, drift.largest_ratio, largest)
            self.swept_ns = now_ns
        if is_time or self.accounts.account_count <= SURVEY_AT_ONCE:
            self._count(now_ns, age_max_ns)

    def _count(self, now_ns: int, age_max_ns: int) -> None:
        for venue in self._venues:
            self.counts[venue] = self.accounts.counts(venue, now_ns, age_max_ns)
            shares = self.accounts.poll_coverage(venue, now_ns, [seconds * NS for seconds in POLL_COVERAGE_S])
            self.poll_coverage[venue] = dict(zip((f"{seconds}s" for seconds in POLL_COVERAGE_S), shares, strict=True))
