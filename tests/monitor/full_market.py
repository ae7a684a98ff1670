"""A market projection in which every field has a value, to vary in tests of what is written."""

from __future__ import annotations

from typing import Any

import msgspec

from monitor.projection import (
    BarrierPoint,
    Cascade,
    Cluster,
    FeedState,
    Histogram,
    Landing,
    MarketProjection,
    SurvivalPoint,
    UnstableGap,
)

CASCADE = Cascade(
    barrier=(BarrierPoint(100.0, 0.0, 0.0, 0.0), BarrierPoint(99.0, 5.0, 4.5, 5.5)),
    gaps=(UnstableGap(99.0, 97.0, 5.0, 8.0),),
    landing=(Landing(6.0, 97.0, 99.0, 97.0, 97.0, 8.0, 0.0, False), Landing(500.0, None, None, None, None, 8.0, 408.0, True)),
    survival=(SurvivalPoint(100.0, 6.0, None), SurvivalPoint(99.0, 6.0, 0.8)),
    survival_ratio=0.8,
    depth_base=100.0,
    forced_in_reach_base=8.0,
    backlog_base=0.0,
    reach_price=90.0,
)

MARKET = MarketProjection(
    as_of_ns=1_700_000_000_000_000_000,
    venue="hyperliquid",
    symbol="BTC",
    provenance="observed",
    reference_price=100.0,
    reference_source="mark",
    reference_age_s=0.5,
    index_price=100.1,
    funding_rate=0.0000125,
    best_bid=99.9,
    best_ask=100.1,
    book_levels=40,
    open_interest_base=1_000.0,
    open_interest_usd=100_000.0,
    observed_long_base=300.0,
    observed_short_base=200.0,
    observed_notional_usd=50_000.0,
    coverage_ratio=0.25,
    accounts=12,
    accounts_excluded=3,
    oldest_account_age_s=40.0,
    median_account_age_s=10.0,
    clusters=(Cluster(97.0, -0.03, "long", 20_000.0, 4, 0.5, 97.5, 96.5, "observed"),),
    histogram=Histogram(0.001, [97.0], [20_000.0], [0.0]),
    cascade_down=CASCADE,
    cascade_up=None,
    typical_flow_base=2.5,
    flow_window_covered_ratio=1.0,
    liquidated_long_usd=0.0,
    liquidated_short_usd=0.0,
    liquidation_completeness="partial",
    feeds=(FeedState("book", 0.5, False, ""), FeedState("account", None, True, "never received")),
    stale=False,
    stale_reasons=(),
)


def market_projection(**changes: Any) -> MarketProjection:
    """Return the projection with some fields changed."""
    return msgspec.structs.replace(MARKET, **changes)
