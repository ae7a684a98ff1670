"""One market in a few flat numbers, for retained MQTT messages: what a dashboard, a home automation or a controller can read.

The whole projection of a market has about 20 kB of JSON; at one message a second and 300 markets that would be 6 MB/s through a
broker, nearly all of it unread. This has less than 1 kB, no lists but the reasons, and the same fields at all times.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from monitor.projection import BarrierPoint, Cascade, Histogram, MarketProjection, Provenance, Side, UnstableGap

NEAR_RATIO = 0.05
"""How far from the reference price the largest cluster is looked for; liquidations further away take a day's move."""


class MarketState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one market; every number is ``null`` while it is unknown, and from ``reference_price`` on while it is stale.

    Prices are quote per base, ratios fractions. ``long_*`` is about positions that die on a fall, ``short_*`` on a rise;
    ``*_cluster_*`` is the largest cluster within 5 % of the price, ``*_within_2_percent_usd`` all forced notional so near, and
    ``fall_2_percent_usd`` what has to be sold at market to move the price so far, on the book as displayed. ``gap_*`` is the
    unstable gap that takes least to open.
    """

    as_of_ns: int
    venue: str
    symbol: str
    provenance: Provenance
    stale: bool
    stale_reasons: tuple[str, ...]
    reference_price: float | None = None
    reference_source: Literal["mark", "mid", "none"] = "none"
    best_bid: float | None = None
    best_ask: float | None = None
    open_interest_usd: float | None = None
    coverage_ratio: float | None = None
    accounts: int | None = None
    oldest_account_age_s: float | None = None
    long_cluster_price: float | None = None
    long_cluster_distance_ratio: float | None = None
    long_cluster_usd: float | None = None
    short_cluster_price: float | None = None
    short_cluster_distance_ratio: float | None = None
    short_cluster_usd: float | None = None
    long_within_2_percent_usd: float | None = None
    short_within_2_percent_usd: float | None = None
    fall_2_percent_usd: float | None = None
    rise_2_percent_usd: float | None = None
    gap_down_price: float | None = None
    gap_down_opens_at_usd: float | None = None
    gap_up_price: float | None = None
    gap_up_opens_at_usd: float | None = None
    liquidated_long_usd: float | None = None
    liquidated_short_usd: float | None = None
    liquidation_completeness: Literal["complete", "sampled", "partial", "none"] = "none"


def encode_state(market: MarketProjection) -> bytes:
    """Return the state of a market as JSON."""
    return msgspec.json.encode(market_state(market))


def market_state(market: MarketProjection) -> MarketState:
    """Return the state of a market; a stale one says why and nothing else."""
    state = MarketState(
        as_of_ns=market.as_of_ns,
        venue=market.venue,
        symbol=market.symbol,
        provenance=market.provenance,
        stale=market.stale,
        stale_reasons=market.stale_reasons,
    )
    price = market.reference_price
    if market.stale or price is None:
        return state
    down, up = _lowest_gap(market.cascade_down), _lowest_gap(market.cascade_up)
    within = {} if market.histogram is None else triggers_within(market.histogram, price, 0.02)
    fall, rise = barrier_at(market.cascade_down, price, -0.02), barrier_at(market.cascade_up, price, 0.02)
    seen = market.liquidation_completeness != "none"
    return msgspec.structs.replace(
        state,
        reference_price=price,
        reference_source=market.reference_source,
        best_bid=market.best_bid,
        best_ask=market.best_ask,
        open_interest_usd=market.open_interest_usd,
        coverage_ratio=market.coverage_ratio,
        accounts=market.accounts,
        oldest_account_age_s=market.oldest_account_age_s,
        **_largest_cluster(market, "long"),
        **_largest_cluster(market, "short"),
        long_within_2_percent_usd=within.get("long"),
        short_within_2_percent_usd=within.get("short"),
        fall_2_percent_usd=None if fall is None else fall.volume_base * price,
        rise_2_percent_usd=None if rise is None else rise.volume_base * price,
        gap_down_price=None if down is None else down.from_price,
        gap_down_opens_at_usd=None if down is None else down.barrier_base * price,
        gap_up_price=None if up is None else up.from_price,
        gap_up_opens_at_usd=None if up is None else up.barrier_base * price,
        liquidated_long_usd=market.liquidated_long_usd if seen else None,
        liquidated_short_usd=market.liquidated_short_usd if seen else None,
        liquidation_completeness=market.liquidation_completeness,
    )


def barrier_at(cascade: Cascade | None, price: float, move: float) -> BarrierPoint | None:
    """Return the first published level at or beyond ``price`` moved by ``move`` (negative: a fall), ``None`` beyond the book."""
    if cascade is None:
        return None
    target = price * (1.0 + move)
    return next((point for point in cascade.barrier if (point.price <= target if move < 0.0 else point.price >= target)), None)


def triggers_within(histogram: Histogram, price: float, within: float) -> dict[str, float]:
    """Return the forced notional in USD by side whose bucket centre lies within this fraction of ``price``."""
    near = [index for index, at in enumerate(histogram.price) if abs(at / price - 1.0) <= within]
    return {
        "long": sum(histogram.long_usd[index] for index in near),
        "short": sum(histogram.short_usd[index] for index in near),
    }


def _largest_cluster(market: MarketProjection, side: Side) -> dict[str, float]:
    near = [cluster for cluster in market.clusters if cluster.side == side and abs(cluster.distance_ratio) <= NEAR_RATIO]
    if not near:
        return {}
    largest = max(near, key=lambda cluster: cluster.notional_usd)
    return {
        f"{side}_cluster_price": largest.price,
        f"{side}_cluster_distance_ratio": largest.distance_ratio,
        f"{side}_cluster_usd": largest.notional_usd,
    }


def _lowest_gap(cascade: Cascade | None) -> UnstableGap | None:
    return None if cascade is None else min(cascade.gaps, key=lambda gap: gap.barrier_base, default=None)
