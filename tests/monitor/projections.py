"""Projections for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from monitor.projection import BarrierPoint, Cascade, Cluster, FeedState, MarketProjection, Projection, Side, UnstableGap

# 2025-10-10 21:15:00 UTC.
START_NS = 1_760_130_900_000_000_000


def at_s(seconds: float) -> int:
    """Return the time ``seconds`` after the start, in nanoseconds."""
    return START_NS + round(seconds * 1e9)


def cluster(
    price: float = 58_500.0,
    notional_usd: float = 12_400_000.0,
    *,
    side: Side = "long",
    width: float = 500.0,
    provenance: Literal["observed", "estimated", "simulated"] = "observed",
) -> Cluster:
    """Return a hill of ``width`` to both sides of ``price``."""
    near, far = (price + width, price - width) if side == "long" else (price - width, price + width)
    return Cluster(
        price=price,
        distance_ratio=price / 60_000.0 - 1.0,
        side=side,
        notional_usd=notional_usd,
        accounts=37,
        largest_account_share=0.22,
        nearest_price=near,
        furthest_price=far,
        provenance=provenance,
    )


def cascade(*, barrier_base: float | None = None, forced_base: float = 90.0) -> Cascade:
    """Return a falling cascade on a book of 1,000 base units, with one gap from 59,400 to 58,200 where a barrier is given."""
    points = [(59_700.0, 10.0), (59_400.0, 120.0 if barrier_base is None else barrier_base), (58_900.0, 210.0), (58_200.0, 260.0)]
    return Cascade(
        barrier=tuple(BarrierPoint(price, volume, volume * 0.9, volume * 1.1) for price, volume in points),
        gaps=() if barrier_base is None else (UnstableGap(59_400.0, 58_200.0, barrier_base, forced_base),),
        landing=(),
        survival=(),
        survival_ratio=0.58,
        depth_base=1_000.0,
        forced_in_reach_base=300.0,
        backlog_base=0.0,
        reach_price=58_200.0,
    )


def market(clusters: Sequence[Cluster] = (), **more: Any) -> MarketProjection:
    """Return a live BTC market at 60,000 with these clusters."""
    fields: dict[str, Any] = {
        "as_of_ns": START_NS,
        "venue": "hyperliquid",
        "symbol": "BTC",
        "provenance": "observed",
        "reference_price": 60_000.0,
        "reference_source": "mark",
        "reference_age_s": 0.4,
        "index_price": 60_010.0,
        "funding_rate": 0.0000125,
        "best_bid": 59_999.0,
        "best_ask": 60_001.0,
        "book_levels": 40,
        "open_interest_base": 20_000.0,
        "open_interest_usd": 1.2e9,
        "observed_long_base": 7_000.0,
        "observed_short_base": 6_600.0,
        "observed_notional_usd": 816e6,
        "coverage_ratio": 0.34,
        "accounts": 900,
        "accounts_excluded": 12,
        "oldest_account_age_s": 240.0,
        "median_account_age_s": 90.0,
        "clusters": tuple(clusters),
        "histogram": None,
        "cascade_down": cascade(),
        "cascade_up": None,
        "typical_flow_base": 100.0,
        "flow_window_covered_ratio": 1.0,
        "liquidated_long_usd": 0.0,
        "liquidated_short_usd": 0.0,
        "liquidation_completeness": "partial",
        "feeds": (FeedState("book", 1.0, stale=False, reason=""), FeedState("mark", 0.4, stale=False, reason="")),
        "stale": False,
        "stale_reasons": (),
    }
    assert more.keys() <= fields.keys(), more
    return MarketProjection(**{**fields, **more})


def stale(live: MarketProjection, reason: str = "book: silent") -> MarketProjection:
    """Return the same market, stale."""
    return msgspec.structs.replace(
        live,
        stale=True,
        stale_reasons=(reason,),
        feeds=(FeedState("book", 45.0, stale=True, reason="silent"), FeedState("mark", 0.4, stale=False, reason="")),
    )


def projection(seconds: float, *markets: MarketProjection) -> Projection:
    """Return a projection ``seconds`` after the start."""
    now_ns = at_s(seconds)
    stamped = tuple(msgspec.structs.replace(one, as_of_ns=now_ns) for one in markets)
    return Projection(as_of_ns=now_ns, sequence=round(seconds * 10), markets=stamped, venues=())
