"""Every metric of ``/metrics``: name, type, labels and what it says.

Names have the prefix ``liqmon_`` and base units; ``base`` is the market's base asset, ``usd`` the quote counted as dollars. The
only labels that depend on data are venue, symbol, provenance, channel, connection, reason, figure and sink, all of them bounded by
the configuration; there is no account label. ``side`` is the side of the positions that die: long ones on a fall, short ones on a
rise. ``within`` and ``move`` are fixed buckets, ``scenario`` counts the configured exogenous volumes from 1.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

WITHIN = (0.01, 0.02, 0.05, 0.1)
"""Distances from the reference price, as fractions of it."""
MOVES = (-0.1, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.1)
"""Signed moves of the reference price, as fractions of it."""
SCENARIOS = 10
"""Landings exported per direction: the configured exogenous volumes, at most this many."""


class Family(NamedTuple):
    """One metric: its sample values are added by ``monitor/metrics.py``."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    text: str


MARKET = ("venue", "symbol", "provenance")
SIDE = (*MARKET, "side")


def _gauge(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"liqmon_{name}", "gauge", labels, text)


def _counter(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"liqmon_{name}", "counter", labels, text)


def _histogram(name: str, labels: tuple[str, ...], text: str) -> Family:
    return Family(f"liqmon_{name}", "histogram", labels, text)


ABOUT_ITSELF = (
    _gauge("build_info", ("version", "instance"), "Always 1; the labels name the running version and instance."),
    _gauge("start_time_seconds", (), "When the process started, in seconds since 1970."),
    _gauge("simulated", (), "1 when the instance watches a simulated exchange, else 0."),
    _gauge("ready", (), "1 while at least one market is fed and fresh, else 0."),
    _gauge("projection_age_seconds", (), "Time since the last evaluation was published."),
    _gauge("projection_sequence", (), "Sequence number of the last evaluation."),
    _gauge("projection_compute_seconds", (), "Duration of the last evaluation."),
    _counter("projections_total", (), "Evaluations since the start."),
    _counter("margin_sweeps_total", (), "Full sweeps over all positions, with which the running sums are compared."),
    _gauge("margin_drift_ratio", (), "Largest relative difference between running sums and the last full sweep."),
    _gauge("margin_largest_drift_ratio", (), "Largest such difference since the start."),
    _gauge("intake_frames", (), "Frames waiting between the sockets and the core."),
    _counter("intake_dropped_frames_total", (), "Frames lost because the intake queue was full; each became a gap."),
    _gauge("lag_seconds", (), "Age of the oldest frame that waits for the core."),
    _gauge("recording", (), "1 while frames are being recorded, else 0."),
    _gauge("recorder_failed", (), "1 when recording stopped because of an error, else 0."),
    _gauge("alerts_firing", ("name", "severity"), "Alerts that hold now."),
    _gauge("alert_queue_notifications", ("sink",), "Notifications waiting for delivery."),
    _counter("alert_delivery_failures_total", ("sink",), "Failed delivery attempts; most are retried."),
    _counter("alert_dropped_notifications_total", ("sink",), "Notifications given up."),
    _gauge("web_connections", (), "Open HTTP connections, streams included."),
    _counter("web_refused_connections_total", (), "Connections turned away because every place was taken."),
    _counter("web_cut_connections_total", (), "Connections closed for being too slow or too large, or evicted for a newcomer."),
    _gauge("stream_clients", (), "Connected stream clients."),
    _counter("stream_cut_clients_total", (), "Stream clients cut because they did not keep up."),
    _counter("stream_refused_clients_total", (), "Stream clients turned away because every place was taken."),
    _gauge("history_markets", (), "Markets with a history for the page."),
    _counter("history_refused_markets_total", (), "Markets without a history because the places are taken."),
    _counter("account_questions_total", (), "Questions about accounts that were put to the core; equal ones within 1 s are one."),
    _counter("account_refused_questions_total", (), "Questions about accounts refused to leave the loop its time."),
    _gauge("account_aliases", (), "Aliases that stand for account names while those are hidden."),
    _counter("account_forgotten_aliases_total", (), "Aliases given up because the places were taken."),
    _gauge("series", (), "Series in this answer, this one excluded."),
    _counter("series_dropped_total", (), "Series left out because of the cap, summed over all scrapes."),
    _counter("series_invalid_total", (), "Series left out because their value was not finite or their labels repeated."),
)

FEEDS = (
    _counter("venue_frames_total", ("venue",), "Frames received."),
    _counter("venue_events_total", ("venue",), "Events that the frames contained."),
    _counter("venue_parse_errors_total", ("venue", "reason"), "Frames or records that were refused."),
    _counter("venue_gaps_total", ("venue",), "Gaps: disconnects, sequence breaks and dropped frames."),
    _gauge("venue_accounts", ("venue", "state"), "Accounts by state; known (all of them), live, stale, unknown_mode."),
    _counter(
        "venue_refused_accounts_total", ("venue",), "Times an account found the table full; the table is shared by all venues."
    ),
    _counter("venue_unexplained_fills_total", ("venue",), "Fills that made an account unknown until its next poll; of all venues."),
    _counter(
        "venue_contradicted_fills_total", ("venue",), "Fills that started from another position than the known one; of all venues."
    ),
    _counter("venue_sequence_gaps_total", ("venue",), "Messages of private feeds that came out of sequence; of all venues."),
    _counter("venue_evicted_accounts_total", ("venue",), "Accounts without positions that made room for others; of all venues."),
    _gauge(
        "poll_coverage_ratio",
        ("venue", "within"),
        "Share of the notional of all accounts ever reported that the venue reported again within this time.",
    ),
    _histogram(
        "account_disagreement_ratio",
        ("venue", "figure"),
        "Absolute relative difference between our figures of an account and the venue's own, when it reports the account.",
    ),
    _counter("venue_refused_subscriptions_total", ("venue",), "Subscriptions that the venue refused."),
    _counter("venue_dropped_book_deltas_total", ("venue",), "Book changes lost while a snapshot was awaited for too long."),
    _counter("venue_dropped_book_levels_total", ("venue",), "Far book levels dropped to keep the books within their bound."),
    _gauge("venue_quarantined_symbols", ("venue",), "Symbols set aside because their data contradicts itself."),
    _gauge("connection_up", ("venue", "connection"), "1 while the connection is established and fed, else 0."),
    _gauge("connection_state", ("venue", "connection", "state"), "1 for the state the connection is in."),
    _counter("connection_connects_total", ("venue", "connection"), "Connections established."),
    _counter("connection_disconnects_total", ("venue", "connection"), "Connections lost."),
    _counter("connection_messages_total", ("venue", "connection"), "Messages received."),
    _gauge("connection_last_message_age_seconds", ("venue", "connection"), "Time since the last message, as last reported."),
    _gauge("connection_silent_channels", ("venue", "connection"), "Subscribed channels that are silent for too long."),
    _gauge("feed_age_seconds", ("venue", "symbol", "channel"), "Time since the channel's last message; absent before the first."),
    _gauge("feed_stale", ("venue", "symbol", "channel"), "1 when the channel cannot be relied on, else 0."),
    _gauge("market_stale", MARKET, "1 when the market's numbers cannot be shown as live and are therefore absent, else 0."),
    _gauge("reference_age_seconds", MARKET, "Time since the reference price was last heard of."),
    _gauge("oldest_account_age_seconds", MARKET, "Age of the oldest account state inside the projection."),
    _gauge("median_account_age_seconds", MARKET, "Median age of the account states inside the projection."),
)

VALUES = (
    _gauge("reference_price", MARKET, "Price that triggers are compared with, quote per base."),
    _gauge("reference_is_mark", MARKET, "1 when the reference is the venue's mark price, 0 when it is the middle of the book."),
    _gauge("index_price", MARKET, "Index or oracle price, quote per base."),
    _gauge("funding_rate_ratio", MARKET, "Funding rate per funding interval, as a fraction."),
    _gauge("best_bid_price", MARKET, "Highest bid, quote per base."),
    _gauge("best_ask_price", MARKET, "Lowest ask, quote per base."),
    _gauge("book_levels", MARKET, "Levels of the displayed book, both sides."),
    _gauge("open_interest_base", MARKET, "Open interest in base units."),
    _gauge("open_interest_usd", MARKET, "Open interest in USD."),
    _gauge("observed_size_base", SIDE, "Positions of watched accounts in base units."),
    _gauge("observed_notional_usd", SIDE, "Positions of watched accounts in USD at the reference price."),
    _gauge("coverage_ratio", MARKET, "Observed positions, long plus short, over twice the open interest."),
    _gauge("accounts_live", MARKET, "Accounts with a position here that is inside the projection."),
    _gauge("accounts_excluded", MARKET, "Accounts with a position here that is left out: stale, of unknown mode, or never polled."),
    _gauge("trigger_notional_usd", (*SIDE, "within"), "Forced notional whose trigger lies within this fraction of the price."),
    _gauge("cluster_notional_usd", (*SIDE, "within"), "Notional of clusters centred within this fraction of the price."),
    _gauge("largest_cluster_notional_usd", SIDE, "Forced notional of the largest cluster."),
    _gauge("largest_cluster_distance_ratio", SIDE, "Signed distance of the largest cluster from the reference price."),
    _gauge("largest_cluster_accounts", SIDE, "Accounts in the largest cluster."),
    _gauge("largest_cluster_top_account_ratio", SIDE, "Share of the largest cluster that one account holds."),
    _gauge("barrier_base", (*MARKET, "move"), "Exogenous volume above which the price moves this far, in base units."),
    _gauge("barrier_lower_base", (*MARKET, "move"), "Lower bound of the barrier, in base units."),
    _gauge("barrier_upper_base", (*MARKET, "move"), "Upper bound of the barrier, in base units."),
    _gauge("survival_ratio", (*MARKET, "move"), "Share of displayed depth below which the largest volume moves the price so far."),
    _gauge("book_survival_ratio", SIDE, "The same for the end of the book, on the side that a fall (long) or rise (short) eats."),
    _gauge("landing_exogenous_base", (*SIDE, "scenario"), "Exogenous volume of the scenario, in base units."),
    _gauge("landing_price", (*SIDE, "scenario"), "Last trade after the volume and all forced orders; see landing_book_exhausted."),
    _gauge("landing_best_quote_price", (*SIDE, "scenario"), "Best quote left after the volume and all forced orders."),
    _gauge("landing_forced_base", (*SIDE, "scenario"), "Forced volume that the scenario releases, in base units."),
    _gauge("landing_book_exhausted", (*SIDE, "scenario"), "1 when the volume exceeds the book: the landing lies somewhere beyond."),
    _gauge("unstable_gaps", SIDE, "Price gaps that forced orders alone would cross."),
    _gauge("unstable_gap_released_base", SIDE, "Forced volume that the gaps would release together, in base units."),
    _gauge("unstable_gap_lowest_barrier_base", SIDE, "Exogenous volume that opens the easiest gap, in base units."),
    _gauge("depth_base", SIDE, "Displayed depth that the cascade would consume, in base units."),
    _gauge("forced_in_reach_base", SIDE, "Forced volume whose triggers lie inside the displayed book, in base units."),
    _gauge("backlog_base", SIDE, "Forced volume that is already triggered, in base units."),
    _gauge("reach_price", SIDE, "Price at which the displayed book ends."),
    _gauge("typical_flow_base", MARKET, "Typical absolute net taker volume of one minute, in base units."),
    _gauge("flow_window_covered_ratio", MARKET, "Share of the flow window that was observed without gaps."),
    _counter("liquidated_usd_total", (*SIDE, "completeness"), "Liquidated notional in USD, as far as the feed shows it."),
)

CATALOGUE: dict[str, Family] = {family.name: family for family in (*ABOUT_ITSELF, *FEEDS, *VALUES)}
