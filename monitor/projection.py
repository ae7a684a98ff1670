"""The immutable result of one evaluation.

Everything that leaves the core is in here: metrics, rules, the API, the page and the recorded projections read this and nothing
else. Prices are quote per base, volumes base units unless the name says ``_usd``, ratios fractions. Unknown is ``None``; a
number whose inputs are stale is never shown as live: the market's ``stale`` is true and ``stale_reasons`` say why.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DisagreementFigure = Literal["account_value", "maintenance_margin", "liquidation_price"]
"""Figures that a venue publishes of an account, beside which ours can be held."""

Provenance = Literal["observed", "estimated", "simulated"]
Side = Literal["long", "short"]


class Cluster(msgspec.Struct, frozen=True, gc=False):
    """One hill of liquidation prices, from valley to valley of the trigger histogram (long positions die on a fall).

    ``price`` is the mean trigger price weighted by notional, ``distance_ratio`` its signed distance from the reference price,
    ``notional_usd`` the forced notional at the trigger prices. ``nearest_price`` and ``furthest_price`` are bucket edges.
    """

    price: float
    distance_ratio: float
    side: Side
    notional_usd: float
    accounts: int
    largest_account_share: float
    nearest_price: float
    furthest_price: float
    provenance: Provenance


class Histogram(msgspec.Struct, frozen=True):
    """Forced notional per trigger-price bucket, for the heatmap: only non-empty buckets, ascending ``price`` (bucket centre)."""

    bucket_ratio: float
    price: list[float]
    long_usd: list[float]
    short_usd: list[float]


class BarrierPoint(msgspec.Struct, frozen=True, gc=False):
    """Exogenous volume above which ``price`` prints; the truth lies within [lower, upper] (equal in the exact form)."""

    price: float
    volume_base: float
    lower_base: float
    upper_base: float


class UnstableGap(msgspec.Struct, frozen=True, gc=False):
    """Once ``from_price`` prints, forced orders alone carry the price to ``to_price``, releasing ``forced_base``."""

    from_price: float
    to_price: float
    barrier_base: float
    forced_base: float


class Landing(msgspec.Struct, frozen=True, gc=False):
    """Where an exogenous volume ends up under both reference rules; prices are ``None`` where nothing trades.

    ``nearest_price`` and ``furthest_price`` bound the last trade where the book is aggregated, and equal it where it is not; they
    say nothing of depth that is not really there (see ``SurvivalPoint``) or of accounts that are not observed.
    ``book_exhausted`` says that the flow is larger than the book: the true landing is somewhere beyond.
    """

    exogenous_base: float
    last_trade_price: float | None
    nearest_price: float | None
    furthest_price: float | None
    best_quote_price: float | None
    forced_base: float
    unabsorbed_base: float
    book_exhausted: bool


class SurvivalPoint(msgspec.Struct, frozen=True, gc=False):
    """``price`` is reached by ``exogenous_base`` if less than ``survival_ratio`` of the displayed depth is really there.

    ``None`` means: reached however deep the book is (it is the touch).
    """

    price: float
    exogenous_base: float
    survival_ratio: float | None


class Cascade(msgspec.Struct, frozen=True):
    """One direction of one market: what it takes, and how far it runs (models.md 2 and 3.5).

    The displayed book ends at ``reach_price`` (or is cut there because liquidations are not looked for beyond); ``backlog_base`` is
    forced volume that is already triggered. ``survival_ratio`` is that of the end of the book for the largest configured notional
    (without one, the largest flow); the curve is in ``survival``.
    """

    barrier: tuple[BarrierPoint, ...]
    gaps: tuple[UnstableGap, ...]
    landing: tuple[Landing, ...]
    survival: tuple[SurvivalPoint, ...]
    survival_ratio: float | None
    depth_base: float
    forced_in_reach_base: float
    backlog_base: float
    reach_price: float | None


class FeedState(msgspec.Struct, frozen=True, gc=False):
    """One channel of one market: how old its last message is and whether it can be relied on."""

    channel: str
    age_s: float | None
    stale: bool
    reason: str


class MarketProjection(msgspec.Struct, frozen=True):
    """One market at one moment."""

    as_of_ns: int
    venue: str
    symbol: str
    provenance: Provenance
    reference_price: float | None
    reference_source: Literal["mark", "mid", "none"]
    reference_age_s: float | None
    index_price: float | None
    funding_rate: float | None
    best_bid: float | None
    best_ask: float | None
    book_levels: int
    open_interest_base: float | None
    open_interest_usd: float | None
    observed_long_base: float
    observed_short_base: float
    observed_notional_usd: float | None
    coverage_ratio: float | None
    """Observed long plus short size over twice the open interest; ``None`` while either is unknown."""
    accounts: int
    """Accounts with a live position here that is inside the projection."""
    accounts_excluded: int
    """Accounts with a known position here that is left out: stale, of an unknown mode, or never polled."""
    oldest_account_age_s: float | None
    median_account_age_s: float | None
    clusters: tuple[Cluster, ...]
    histogram: Histogram | None
    cascade_down: Cascade | None
    cascade_up: Cascade | None
    typical_flow_base: float | None
    """Typical absolute net taker volume of one minute over the recent window; ``None`` before the first full minute."""
    flow_window_covered_ratio: float
    liquidated_long_usd: float
    liquidated_short_usd: float
    liquidation_completeness: Literal["complete", "sampled", "partial", "none"]
    """Totals since the start of the run, and how complete the feed behind them is."""
    feeds: tuple[FeedState, ...]
    stale: bool
    stale_reasons: tuple[str, ...]


class DisagreementCounts(msgspec.Struct, frozen=True):
    """How often one figure of a venue's account reports differed from ours by how much: a histogram of relative differences."""

    figure: DisagreementFigure
    bounds_ratio: tuple[float, ...]
    counts: tuple[int, ...]
    """Comparisons by interval; the last one is above the last bound."""
    sum_ratio: float


class SweepHealth(msgspec.Struct, frozen=True):
    """What full sweeps found of the sums that ticks and fills keep up to date."""

    sweeps: int
    rows_compared: int
    """Margin accounts in the last comparison."""
    last_drift_ratio: float
    """The largest difference in the last one, relative to the gross value of the account."""
    largest_drift_ratio: float
    """The largest since the start."""


class VenueHealth(msgspec.Struct, frozen=True):
    """Counters of one venue since the start."""

    venue: str
    frames: int
    events: int
    parse_errors: dict[str, int]
    gaps: int
    accounts_known: int
    accounts_live: int
    accounts_stale: int
    accounts_unknown_mode: int
    accounts_refused: int
    """Times an account was left out because the table was full; of all venues, as they share it."""
    fills_unexplained: int
    """Fills that made an account unknown until its next poll; of all venues."""
    subscriptions_refused: int
    book_deltas_dropped: int
    """Deltas lost while a snapshot was awaited for too long."""
    book_levels_dropped: int
    """Levels far from the price that were dropped to keep books within their bound."""
    quarantined_symbols: tuple[str, ...]
    fills_contradicted: int = 0
    """Fills that started from another position than the known one; of all venues."""
    sequence_gaps: int = 0
    """Deltas of private feeds that came out of sequence; of all venues."""
    accounts_evicted: int = 0
    """Accounts without positions that made room for others; of all venues."""
    poll_coverage: dict[str, float] = {}
    """By age (``60s``), the share of the notional of all accounts ever polled that was reported by the venue within that age."""
    disagreements: tuple[DisagreementCounts, ...] = ()


class Projection(msgspec.Struct, frozen=True):
    """All markets, and the health of what feeds them."""

    as_of_ns: int
    sequence: int
    markets: tuple[MarketProjection, ...]
    venues: tuple[VenueHealth, ...]
    sweeps: SweepHealth = SweepHealth(0, 0, 0.0, 0.0)


class ConnectionHealth(msgspec.Struct, frozen=True):
    """One websocket or REST connection; ``state`` is waiting, connecting, connected, degraded or failed."""

    venue: str
    connection: str
    state: str
    detail: str
    connects: int
    disconnects: int
    messages: int
    last_message_ns: int | None
    silent_channels: tuple[str, ...]


class DaemonStatus(msgspec.Struct, frozen=True):
    """The state of the process around the core, refreshed about once a second."""

    as_of_ns: int
    started_ns: int
    instance: str
    version: str
    simulated: bool
    connections: tuple[ConnectionHealth, ...]
    intake_frames: int
    """Frames waiting between the sockets and the core."""
    intake_dropped: int
    """Frames lost because that queue was full; each loss was turned into a gap."""
    projections: int
    projection_compute_s: float
    """Duration of the last evaluation."""
    lag_s: float
    """Age of the oldest frame that waits for the core."""
    alert_queue: dict[str, int]
    """Notifications waiting, by sink."""
    alert_failures: dict[str, int]
    """Failed delivery attempts since the start, by sink."""
    alert_dropped: dict[str, int]
    """Notifications given up since the start, by sink."""
    recording: bool
    recorder_error: str


def encode_market(market: MarketProjection) -> bytes:
    """Return one line of JSON with the stable field names of the ``--projections`` output (see schema/projection.schema.json).

    Both cascades are gathered under ``cascade`` as ``down`` and ``up``; the histogram is left to the API and the stream.
    """
    fields = msgspec.structs.asdict(market)
    del fields["histogram"]
    fields["cascade"] = {"down": fields.pop("cascade_down"), "up": fields.pop("cascade_up")}
    return msgspec.json.encode(fields)
