"""Prometheus metrics, made from the last projection at scrape time; between scrapes they cost nothing.

**A stale market has no value series**: only ``liqmon_market_stale`` 1, ages and the state of its feeds remain, so that no dashboard
or rule can take an old number for a live one. The catalogue is in ``monitor/metrics_catalogue.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from alerts.alert import Alert
from monitor.market_state import barrier_at, triggers_within
from monitor.metrics_catalogue import CATALOGUE, MOVES, SCENARIOS, WITHIN
from monitor.projection import (
    Cascade,
    Cluster,
    ConnectionHealth,
    DaemonStatus,
    DisagreementCounts,
    MarketProjection,
    Projection,
    VenueHealth,
)

MAX_SERIES = 50_000
"""300 markets, as many as a venue may have, x 153 series are 46,000. At 12 us each a scrape takes 0.6 s, in a thread."""


class Reading(msgspec.Struct, frozen=True):
    """What one scrape sees. ``evaluation_late`` makes every market stale; ``web`` holds the server's own counters by name."""

    projection: Projection | None = None
    status: DaemonStatus | None = None
    firing: tuple[Alert, ...] = ()
    evaluation_age_s: float | None = None
    evaluation_late: bool = False
    web: dict[str, int] = {}


class ProjectionCollector(Collector):
    """A collector for a ``prometheus_client`` registry.

    Args:
        read: Called once per scrape.
        max_series: Series beyond this are left out and counted; the process, its feeds and the first markets come first.
        timestamp_s: Stamp for every sample in seconds since 1970, for backfilling; ``None`` leaves it to the scraper.
    """

    def __init__(self, read: Callable[[], Reading], *, max_series: int = MAX_SERIES, timestamp_s: float | None = None) -> None:
        self._read = read
        self._max_series = max_series
        self._timestamp_s = timestamp_s
        self._dropped = 0
        self._invalid = 0

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family that has a sample, in the order of the catalogue."""
        # Three places are kept for the series about the series.
        scrape = Scrape(self._max_series - 3, self._timestamp_s)
        fill(scrape, self._read())
        self._dropped += scrape.dropped
        self._invalid += scrape.invalid
        series = scrape.series
        scrape.limit = self._max_series
        scrape.add("series", series)
        scrape.add("series_dropped_total", self._dropped)
        scrape.add("series_invalid_total", self._invalid)
        yield from scrape.families()


class Scrape:
    """The families of one scrape while they are filled."""

    def __init__(self, limit: int, timestamp_s: float | None = None) -> None:
        self.limit = limit
        self.series = 0
        self.dropped = 0
        self.invalid = 0
        self._timestamp_s = timestamp_s
        self._families: dict[str, Any] = {}
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """Add a sample of ``liqmon_<name>``: nothing for an unknown value, and never more than the cap."""
        if value is None:
            return
        if not math.isfinite(value) or (name, labels) in self._seen:
            self.invalid += 1
            return
        if self.series >= self.limit:
            self.dropped += 1
            return
        self.series += 1
        self._seen.add((name, labels))
        if name not in self._families:
            family = CATALOGUE[f"liqmon_{name}"]
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            self._families[name] = make(family.name, family.text, labels=family.labels)
        self._families[name].add_metric(labels, value, timestamp=self._timestamp_s)

    def add_histogram(self, name: str, counts: DisagreementCounts, *labels: str) -> None:
        """Add a histogram of ``liqmon_<name>`` whole, or not at all where the cap leaves no room for all of its series."""
        series = len(counts.counts) + 2
        if self.series + series > self.limit:
            self.dropped += series
            return
        self.series += series
        if name not in self._families:
            family = CATALOGUE[f"liqmon_{name}"]
            self._families[name] = HistogramMetricFamily(family.name, family.text, labels=family.labels)
        bounds = (*map(repr, counts.bounds_ratio), "+Inf")
        buckets = list(zip(bounds, itertools.accumulate(counts.counts), strict=True))
        self._families[name].add_metric(labels, buckets, counts.sum_ratio, timestamp=self._timestamp_s)

    def families(self) -> Iterator[Metric]:
        """Yield what was filled, in the order of the catalogue."""
        for name in CATALOGUE:
            if (family := self._families.get(name.removeprefix("liqmon_"))) is not None:
                yield family


def fill(scrape: Scrape, reading: Reading) -> None:
    """Add everything of one reading; what an operator needs first comes first, because the cap cuts the end."""
    _add_daemon(scrape, reading)
    if reading.status is not None:
        for connection in reading.status.connections:
            _add_connection(scrape, connection, reading.status.as_of_ns)
    if reading.projection is None:
        return
    sweeps = reading.projection.sweeps
    scrape.add("margin_sweeps_total", sweeps.sweeps)
    if sweeps.sweeps:
        scrape.add("margin_drift_ratio", sweeps.last_drift_ratio)
        scrape.add("margin_largest_drift_ratio", sweeps.largest_drift_ratio)
    for venue in reading.projection.venues:
        _add_venue(scrape, venue)
    age_s = reading.evaluation_age_s or 0.0
    for market in reading.projection.markets:
        _add_market_health(scrape, market, age_s, stale=market.stale or reading.evaluation_late)
    if not reading.evaluation_late:
        for market in reading.projection.markets:
            if not market.stale:
                _add_market_values(scrape, market)


def _add_daemon(scrape: Scrape, reading: Reading) -> None:
    projection, status = reading.projection, reading.status
    fresh = projection is not None and not reading.evaluation_late and any(not market.stale for market in projection.markets)
    scrape.add("ready", float(fresh))
    scrape.add("projection_age_seconds", reading.evaluation_age_s)
    scrape.add("projection_sequence", projection.sequence if projection is not None else None)
    for (name, severity), count in _counted(reading.firing).items():
        scrape.add("alerts_firing", count, name, severity)
    for metric, counter in _WEB_METRICS.items():
        scrape.add(metric, reading.web.get(counter))
    if status is None:
        return
    scrape.add("build_info", 1.0, status.version, status.instance)
    scrape.add("start_time_seconds", status.started_ns / 1e9)
    scrape.add("simulated", float(status.simulated))
    scrape.add("projections_total", status.projections)
    scrape.add("projection_compute_seconds", status.projection_compute_s)
    scrape.add("intake_frames", status.intake_frames)
    scrape.add("intake_dropped_frames_total", status.intake_dropped)
    scrape.add("lag_seconds", status.lag_s)
    scrape.add("recording", float(status.recording))
    scrape.add("recorder_failed", float(bool(status.recorder_error)))
    _add_by_label(scrape, "alert_queue_notifications", status.alert_queue)
    _add_by_label(scrape, "alert_delivery_failures_total", status.alert_failures)
    _add_by_label(scrape, "alert_dropped_notifications_total", status.alert_dropped)


_WEB_METRICS = {
    "web_connections": "connections",
    "web_refused_connections_total": "connections_refused",
    "web_cut_connections_total": "connections_cut",
    "stream_clients": "stream_clients",
    "stream_cut_clients_total": "stream_clients_cut",
    "stream_refused_clients_total": "stream_clients_refused",
    "history_markets": "history_markets",
    "history_refused_markets_total": "history_markets_refused",
    "account_questions_total": "account_questions",
    "account_refused_questions_total": "account_requests_refused",
    "account_aliases": "account_aliases",
    "account_forgotten_aliases_total": "account_aliases_forgotten",
}


def _counted(firing: tuple[Alert, ...]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for alert in firing:
        counts[(alert.name, alert.severity)] = counts.get((alert.name, alert.severity), 0) + 1
    return counts


def _add_by_label(scrape: Scrape, name: str, values: Mapping[str, float]) -> None:
    for label, value in values.items():
        scrape.add(name, value, label)


def _add_connection(scrape: Scrape, connection: ConnectionHealth, as_of_ns: int) -> None:
    labels = (connection.venue, connection.connection)
    scrape.add("connection_up", float(connection.state == "connected"), *labels)
    scrape.add("connection_state", 1.0, *labels, connection.state)
    scrape.add("connection_connects_total", connection.connects, *labels)
    scrape.add("connection_disconnects_total", connection.disconnects, *labels)
    scrape.add("connection_messages_total", connection.messages, *labels)
    if connection.last_message_ns is not None:
        scrape.add("connection_last_message_age_seconds", max(0.0, (as_of_ns - connection.last_message_ns) / 1e9), *labels)
    scrape.add("connection_silent_channels", len(connection.silent_channels), *labels)


def _add_venue(scrape: Scrape, venue: VenueHealth) -> None:
    scrape.add("venue_frames_total", venue.frames, venue.venue)
    scrape.add("venue_events_total", venue.events, venue.venue)
    scrape.add("venue_gaps_total", venue.gaps, venue.venue)
    for reason, count in venue.parse_errors.items():
        scrape.add("venue_parse_errors_total", count, venue.venue, reason)
    scrape.add("venue_accounts", venue.accounts_known, venue.venue, "known")
    scrape.add("venue_accounts", venue.accounts_live, venue.venue, "live")
    scrape.add("venue_accounts", venue.accounts_stale, venue.venue, "stale")
    scrape.add("venue_accounts", venue.accounts_unknown_mode, venue.venue, "unknown_mode")
    scrape.add("venue_refused_accounts_total", venue.accounts_refused, venue.venue)
    scrape.add("venue_unexplained_fills_total", venue.fills_unexplained, venue.venue)
    scrape.add("venue_contradicted_fills_total", venue.fills_contradicted, venue.venue)
    scrape.add("venue_sequence_gaps_total", venue.sequence_gaps, venue.venue)
    scrape.add("venue_evicted_accounts_total", venue.accounts_evicted, venue.venue)
    for within, share in venue.poll_coverage.items():
        scrape.add("poll_coverage_ratio", share, venue.venue, within)
    for counts in venue.disagreements:
        scrape.add_histogram("account_disagreement_ratio", counts, venue.venue, counts.figure)
    scrape.add("venue_refused_subscriptions_total", venue.subscriptions_refused, venue.venue)
    scrape.add("venue_dropped_book_deltas_total", venue.book_deltas_dropped, venue.venue)
    scrape.add("venue_dropped_book_levels_total", venue.book_levels_dropped, venue.venue)
    scrape.add("venue_quarantined_symbols", len(venue.quarantined_symbols), venue.venue)


def _add_market_health(scrape: Scrape, market: MarketProjection, evaluation_age_s: float, *, stale: bool) -> None:
    """Add what is said of every market. Ages go on growing while no evaluation happens."""
    labels = (market.venue, market.symbol, market.provenance)
    scrape.add("market_stale", float(stale), *labels)
    for name, age_s in (
        ("reference_age_seconds", market.reference_age_s),
        ("oldest_account_age_seconds", market.oldest_account_age_s),
        ("median_account_age_seconds", market.median_account_age_s),
    ):
        scrape.add(name, None if age_s is None else age_s + evaluation_age_s, *labels)
    for feed in market.feeds:
        feed_labels = (market.venue, market.symbol, feed.channel)
        scrape.add("feed_age_seconds", None if feed.age_s is None else feed.age_s + evaluation_age_s, *feed_labels)
        scrape.add("feed_stale", float(feed.stale), *feed_labels)


def _add_market_values(scrape: Scrape, market: MarketProjection) -> None:
    labels = (market.venue, market.symbol, market.provenance)
    price = market.reference_price
    scrape.add("reference_price", price, *labels)
    if market.reference_source != "none":
        scrape.add("reference_is_mark", float(market.reference_source == "mark"), *labels)
    scrape.add("index_price", market.index_price, *labels)
    scrape.add("funding_rate_ratio", market.funding_rate, *labels)
    scrape.add("best_bid_price", market.best_bid, *labels)
    scrape.add("best_ask_price", market.best_ask, *labels)
    scrape.add("book_levels", market.book_levels, *labels)
    scrape.add("open_interest_base", market.open_interest_base, *labels)
    scrape.add("open_interest_usd", market.open_interest_usd, *labels)
    for side, size in (("long", market.observed_long_base), ("short", market.observed_short_base)):
        scrape.add("observed_size_base", abs(size), *labels, side)
        scrape.add("observed_notional_usd", None if price is None else abs(size) * price, *labels, side)
    scrape.add("coverage_ratio", market.coverage_ratio, *labels)
    scrape.add("accounts_live", market.accounts, *labels)
    scrape.add("accounts_excluded", market.accounts_excluded, *labels)
    scrape.add("typical_flow_base", market.typical_flow_base, *labels)
    scrape.add("flow_window_covered_ratio", market.flow_window_covered_ratio, *labels)
    for side, usd in (("long", market.liquidated_long_usd), ("short", market.liquidated_short_usd)):
        if market.liquidation_completeness != "none":
            scrape.add("liquidated_usd_total", usd, *labels, side, market.liquidation_completeness)
    if price is not None:
        _add_clusters(scrape, market, price)
        _add_cascade(scrape, market, market.cascade_down, price, "long")
        _add_cascade(scrape, market, market.cascade_up, price, "short")


def _add_clusters(scrape: Scrape, market: MarketProjection, price: float) -> None:
    if market.histogram is None:
        # Without a histogram no triggers were computed, and an empty tuple of clusters does not mean that there are none.
        return
    for within in WITHIN:
        for side, usd in triggers_within(market.histogram, price, within).items():
            scrape.add("trigger_notional_usd", usd, market.venue, market.symbol, market.provenance, side, f"{within:g}")
    for provenance in dict.fromkeys([market.provenance, *(cluster.provenance for cluster in market.clusters)]):
        for side in ("long", "short"):
            labels = (market.venue, market.symbol, provenance, side)
            clusters = [cluster for cluster in market.clusters if cluster.side == side and cluster.provenance == provenance]
            for within in WITHIN:
                usd = sum(cluster.notional_usd for cluster in clusters if abs(cluster.distance_ratio) <= within)
                scrape.add("cluster_notional_usd", usd, *labels, f"{within:g}")
            if clusters:
                _add_largest_cluster(scrape, max(clusters, key=lambda cluster: cluster.notional_usd), labels)


def _add_largest_cluster(scrape: Scrape, cluster: Cluster, labels: tuple[str, ...]) -> None:
    scrape.add("largest_cluster_notional_usd", cluster.notional_usd, *labels)
    scrape.add("largest_cluster_distance_ratio", cluster.distance_ratio, *labels)
    scrape.add("largest_cluster_accounts", cluster.accounts, *labels)
    scrape.add("largest_cluster_top_account_ratio", cluster.largest_account_share, *labels)


def _add_cascade(scrape: Scrape, market: MarketProjection, cascade: Cascade | None, price: float, side: str) -> None:
    if cascade is None:
        return
    labels = (market.venue, market.symbol, market.provenance)
    sided = (*labels, side)
    down = side == "long"
    largest_base = max((point.exogenous_base for point in cascade.survival), default=0.0)
    curve = [point for point in cascade.survival if point.exogenous_base == largest_base]
    for move in MOVES:
        if (move < 0) != down:
            continue
        target = price * (1.0 + move)
        barrier = barrier_at(cascade, price, move)
        if barrier is not None:
            scrape.add("barrier_base", barrier.volume_base, *labels, f"{move:g}")
            scrape.add("barrier_lower_base", barrier.lower_base, *labels, f"{move:g}")
            scrape.add("barrier_upper_base", barrier.upper_base, *labels, f"{move:g}")
        survival = next((point for point in curve if (point.price <= target if down else point.price >= target)), None)
        if survival is not None:
            scrape.add("survival_ratio", survival.survival_ratio, *labels, f"{move:g}")
    for index, landing in enumerate(cascade.landing[:SCENARIOS], start=1):
        scenario = (*sided, str(index))
        scrape.add("landing_exogenous_base", landing.exogenous_base, *scenario)
        scrape.add("landing_price", landing.last_trade_price, *scenario)
        scrape.add("landing_best_quote_price", landing.best_quote_price, *scenario)
        scrape.add("landing_forced_base", landing.forced_base, *scenario)
        scrape.add("landing_book_exhausted", float(landing.book_exhausted), *scenario)
    scrape.add("unstable_gaps", len(cascade.gaps), *sided)
    scrape.add("unstable_gap_released_base", sum(gap.forced_base for gap in cascade.gaps), *sided)
    scrape.add("unstable_gap_lowest_barrier_base", min((gap.barrier_base for gap in cascade.gaps), default=None), *sided)
    scrape.add("depth_base", cascade.depth_base, *sided)
    scrape.add("forced_in_reach_base", cascade.forced_in_reach_base, *sided)
    scrape.add("backlog_base", cascade.backlog_base, *sided)
    scrape.add("reach_price", cascade.reach_price, *sided)
    scrape.add("book_survival_ratio", cascade.survival_ratio, *sided)
