"""What a replay tells about itself in the end: the ``--summary`` output."""

from __future__ import annotations

from typing import Annotated

import msgspec

from monitor.projection import MarketProjection

Count = Annotated[int, msgspec.Meta(ge=0)]
Duration = Annotated[float, msgspec.Meta(ge=0.0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class MarketSummary(msgspec.Struct, frozen=True):
    """One market as the last evaluation of the replay saw it.

    Prices are quote per base, ``open_interest`` base units, ``accounts`` those with a live position inside the projection.
    Unknown is ``null``.
    """

    venue: str
    symbol: str
    reference_price: float | None
    best_bid: float | None
    best_ask: float | None
    book_levels: Count
    open_interest: float | None
    accounts: Count
    coverage_ratio: float | None
    stale: bool


class ReplaySummary(msgspec.Struct, frozen=True):
    """One replay. The same recording and config give the same values, but for ``wall_seconds`` and ``frames_per_second``.

    ``span_seconds`` is the recorded time between the first and the last frame, ``wall_seconds`` what replaying them took,
    ``parse_errors`` counts by reason the frames that could not be used, and ``gaps`` is how often a feed lost something.
    ``projections_sha256`` is the digest of all evaluations, one line each, as ``--projections`` writes them.
    """

    frames: Count
    events: Count
    parse_errors: dict[str, Count]
    gaps: Count
    span_seconds: Duration
    wall_seconds: Duration
    frames_per_second: Duration
    projections: Count
    projections_sha256: Sha256
    markets: tuple[MarketSummary, ...]


def summarise_market(market: MarketProjection) -> MarketSummary:
    """Take over from ``market`` what the summary tells."""
    return MarketSummary(
        venue=market.venue,
        symbol=market.symbol,
        reference_price=market.reference_price,
        best_bid=market.best_bid,
        best_ask=market.best_ask,
        book_levels=market.book_levels,
        open_interest=market.open_interest_base,
        accounts=market.accounts,
        coverage_ratio=market.coverage_ratio,
        stale=market.stale,
    )


def encode_summary(summary: ReplaySummary) -> bytes:
    """Return the summary as indented JSON with a final line feed."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
