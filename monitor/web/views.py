"""The JSON of the API and the stream: one struct per answer, from which the OpenAPI document is generated.

Every answer about a market carries what it is worth: ``provenance``, ``as_of_ns``, ``stale`` and ``stale_reasons``, and the time
since the last evaluation. Names are those of ``monitor/projection.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from alerts.alert import Alert
from monitor.account_report import (
    AccountAtRisk,
    AccountQuery,
    AccountReport,
    AccountsAtRisk,
    AtRiskOrder,
    Disagreement,
    Disagreements,
)
from monitor.projection import (
    Cascade,
    Cluster,
    DaemonStatus,
    Histogram,
    MarketProjection,
    Provenance,
    VenueHealth,
)
from monitor.web.history import HistoryColumns


class ErrorDetail(msgspec.Struct, frozen=True):
    """``code`` is for programs, ``message`` for people."""

    code: str
    message: str


class ErrorResponse(msgspec.Struct, frozen=True):
    """What every failed request answers."""

    error: ErrorDetail


class CascadePair(msgspec.Struct, frozen=True):
    """The cascade of either direction; ``null`` where it could not be computed."""

    down: Cascade | None
    up: Cascade | None


class MarketStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Which market an answer is about, and what it is worth."""

    as_of_ns: int
    evaluation_age_s: float
    """Seconds since the last evaluation; the other ages count up to ``as_of_ns``."""
    venue: str
    symbol: str
    provenance: Provenance
    reference_price: float | None
    reference_source: Literal["mark", "mid", "none"]
    reference_age_s: float | None
    stale: bool
    stale_reasons: tuple[str, ...]


class MarketSummary(MarketStamp, frozen=True, kw_only=True):
    """One line about a market."""

    best_bid: float | None
    best_ask: float | None
    open_interest_usd: float | None
    observed_notional_usd: float
    coverage_ratio: float | None
    accounts: int
    accounts_excluded: int
    oldest_account_age_s: float | None


class MarketsResponse(msgspec.Struct, frozen=True):
    """All markets, and the evaluation they come from; ``null`` before the first one."""

    as_of_ns: int | None
    sequence: int | None
    evaluation_age_s: float | None
    markets: tuple[MarketSummary, ...]


class ClustersResponse(MarketStamp, frozen=True, kw_only=True):
    """Where liquidation prices gather. ``histogram`` is what the clusters were cut from."""

    accounts: int
    accounts_excluded: int
    oldest_account_age_s: float | None
    coverage_ratio: float | None
    clusters: tuple[Cluster, ...]
    histogram: Histogram | None


class CascadeResponse(MarketStamp, frozen=True, kw_only=True):
    """What it takes to set the liquidations off, and how far they run, by direction."""

    typical_flow_base: float | None
    flow_window_covered_ratio: float
    coverage_ratio: float | None
    cascade: CascadePair


class LiquidationsResponse(MarketStamp, frozen=True, kw_only=True):
    """Liquidated notional since the start of the run; ``liquidation_completeness`` says how much of it the feed shows."""

    liquidated_long_usd: float
    liquidated_short_usd: float
    liquidation_completeness: Literal["complete", "sampled", "partial", "none"]


class HistoryResponse(MarketStamp, frozen=True, kw_only=True):
    """The recent past of a market, as the page draws it."""

    samples: HistoryColumns


class AlertView(msgspec.Struct, frozen=True):
    """One alert; ``ends_ns`` is ``null`` while it fires."""

    fingerprint: str
    name: str
    labels: dict[str, str]
    severity: Literal["info", "warning", "critical"]
    summary: str
    starts_ns: int
    ends_ns: int | None
    annotations: dict[str, str]


class AlertsResponse(msgspec.Struct, frozen=True):
    """What fires now, and the most recent changes, newest first."""

    firing: tuple[AlertView, ...]
    recent: tuple[AlertView, ...]


class WebCounters(msgspec.Struct, frozen=True):
    """The server's own limits at work, since the start."""

    connections: int
    connections_refused: int
    """Turned away because every place was taken."""
    connections_cut: int
    """Closed by us: header too slow or too large, response not taken, or evicted for a newcomer."""
    stream_clients: int
    stream_clients_cut: int
    """Cut because they did not keep up."""
    stream_clients_refused: int
    history_markets: int
    history_markets_refused: int
    """Markets without a history because the places are taken."""
    account_questions: int
    """Lists and reports of accounts that were computed; equal ones are computed once a second."""
    account_requests_refused: int
    """Turned away because computing them would have kept the feeds waiting."""
    account_aliases: int
    """Aliases that can be asked for; 0 where accounts are not hidden."""
    account_aliases_forgotten: int


class StatusResponse(msgspec.Struct, frozen=True):
    """The health of everything; ``daemon`` is ``null`` until the first report of the process."""

    ready: bool
    not_ready_reasons: tuple[str, ...]
    as_of_ns: int | None
    sequence: int | None
    evaluation_age_s: float | None
    markets: int
    markets_stale: int
    venues: tuple[VenueHealth, ...]
    daemon: DaemonStatus | None
    web: WebCounters


class AccountRow(AccountAtRisk, frozen=True, kw_only=True):
    """One margin account of the list."""

    simulated: bool


class AccountsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Live margin accounts in the order asked for.

    Sums and order are of ``as_of_ns``. Ages count up to the moment the list was made, ``evaluation_age_s`` ago: equal questions
    within a second get one answer. ``live`` margin accounts were looked at, ``unknown`` ones with positions are not in the list,
    and ``bad_debt_usd`` is the sum over all live ones.
    """

    as_of_ns: int
    evaluation_age_s: float
    stale: bool
    """The evaluation has stopped or the sums are old: nothing here holds now."""
    stale_reasons: tuple[str, ...]
    redacted: bool
    """Accounts are aliases, which hold until the restart."""
    venue: str | None
    symbol: str | None
    order: AtRiskOrder
    move_ratio: float
    limit: int
    live: int
    unknown: int
    bad_debt_usd: float
    accounts: tuple[AccountRow, ...]


class AccountResponse(AccountReport, frozen=True, kw_only=True):
    """One account in full."""

    redacted: bool
    """``account`` is an alias, which holds until the restart."""


class DisagreementsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The worst recent disagreements with figures of the venues, largest first; each says when it was compared."""

    as_of_ns: int
    evaluation_age_s: float
    redacted: bool
    worst: tuple[Disagreement, ...]


class HealthResponse(msgspec.Struct, frozen=True):
    """The process is alive; whether its numbers are good is for ``/readyz`` to say."""

    status: Literal["alive"]


class ReadyResponse(msgspec.Struct, frozen=True):
    """Whether at least one market is fed and fresh."""

    ready: bool
    reasons: tuple[str, ...]


Stamped = TypeVar("Stamped", bound=MarketStamp)

# The whole market as JSON: the projection's own fields, both cascades gathered as in the ``--projections`` output.
_MARKET_FIELDS: list[tuple[str, Any]] = [
    (field.name, field.type)
    for field in msgspec.structs.fields(MarketProjection)
    if field.name not in {"cascade_down", "cascade_up"}
]
MarketResponse = msgspec.defstruct(
    "MarketResponse",
    [*_MARKET_FIELDS, ("cascade", CascadePair), ("evaluation_age_s", float)],
    frozen=True,
    module=__name__,
)
MarketResponse.__doc__ = "Everything known about one market at one moment."


def market_fields(market: MarketProjection, evaluation_age_s: float, *, histogram: bool = True) -> dict[str, Any]:
    """Return the fields of ``MarketResponse``; the stream leaves the histogram out because its samples carry the heat."""
    fields = msgspec.structs.asdict(market)
    fields["cascade"] = CascadePair(down=fields.pop("cascade_down"), up=fields.pop("cascade_up"))
    fields["evaluation_age_s"] = evaluation_age_s
    if not histogram:
        fields["histogram_known"] = fields.pop("histogram") is not None
    return fields


def about(kind: type[Stamped], market: MarketProjection, evaluation_age_s: float, **more: Any) -> Stamped:
    """Make an answer about a market: what ``more`` does not give has the name it has in the projection."""
    taken: dict[str, Any] = {
        name: getattr(market, name) for name in kind.__struct_fields__ if name not in more and name != "evaluation_age_s"
    }
    return kind(**taken, **more, evaluation_age_s=evaluation_age_s)


def summary(market: MarketProjection, evaluation_age_s: float) -> MarketSummary:
    """Return one line about a market."""
    return about(MarketSummary, market, evaluation_age_s)


def clusters(market: MarketProjection, evaluation_age_s: float) -> ClustersResponse:
    """Return where liquidation prices gather."""
    return about(ClustersResponse, market, evaluation_age_s)


def cascade(market: MarketProjection, evaluation_age_s: float) -> CascadeResponse:
    """Return both cascades."""
    pair = CascadePair(down=market.cascade_down, up=market.cascade_up)
    return about(CascadeResponse, market, evaluation_age_s, cascade=pair)


def liquidations(market: MarketProjection, evaluation_age_s: float) -> LiquidationsResponse:
    """Return the liquidated totals with their completeness."""
    return about(LiquidationsResponse, market, evaluation_age_s)


def history(market: MarketProjection, evaluation_age_s: float, samples: HistoryColumns) -> HistoryResponse:
    """Return the recent past of a market."""
    return about(HistoryResponse, market, evaluation_age_s, samples=samples)


def alert_view(alert: Alert) -> AlertView:
    """Return an alert with its fingerprint."""
    return AlertView(
        fingerprint=alert.fingerprint,
        name=alert.name,
        labels=alert.labels,
        severity=alert.severity,
        summary=alert.summary,
        starts_ns=alert.starts_ns,
        ends_ns=alert.ends_ns,
        annotations=alert.annotations,
    )


def accounts(
    answer: AccountsAtRisk,
    query: AccountQuery,
    evaluation_age_s: float,
    *,
    stale_reasons: tuple[str, ...],
    redacted: bool,
    simulated: Callable[[str], bool],
) -> AccountsResponse:
    """Return a list of accounts with the question it answers; ``simulated`` tells it of a venue."""
    by_venue = {venue: simulated(venue) for venue in {row.venue for row in answer.accounts}}
    return AccountsResponse(
        as_of_ns=answer.as_of_ns,
        evaluation_age_s=evaluation_age_s,
        stale=bool(stale_reasons),
        stale_reasons=stale_reasons,
        redacted=redacted,
        venue=query.venue,
        symbol=query.symbol,
        order=query.order,
        move_ratio=answer.move_ratio,
        limit=query.limit,
        live=answer.live,
        unknown=answer.unknown,
        bad_debt_usd=answer.bad_debt_usd,
        accounts=tuple(AccountRow(**msgspec.structs.asdict(row), simulated=by_venue[row.venue]) for row in answer.accounts),
    )


def account(report: AccountReport, *, stale_reasons: tuple[str, ...], redacted: bool) -> AccountResponse:
    """Return one account in full; when the evaluation has stopped it is not live, whatever it says of itself."""
    fields = msgspec.structs.asdict(report)
    if stale_reasons:
        fields["reasons"] = (*report.reasons, *stale_reasons)
        fields["state"] = "stale" if report.state == "live" else report.state
    return AccountResponse(**fields, redacted=redacted)


def disagreements(answer: Disagreements, evaluation_age_s: float, *, redacted: bool) -> DisagreementsResponse:
    """Return the worst disagreements."""
    return DisagreementsResponse(as_of_ns=answer.as_of_ns, evaluation_age_s=evaluation_age_s, redacted=redacted, worst=answer.worst)
