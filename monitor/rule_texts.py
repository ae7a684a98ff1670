"""The words and numbers of alerts: what is known, how, and how old it is.

Summaries are for people, annotations for programs: decimal numbers in the unit their name ends with, ``unknown`` where nothing
is known. No account is ever named.
"""

from __future__ import annotations

import math

from monitor.hysteresis import Content
from monitor.projection import BarrierPoint, Cascade, Cluster, MarketProjection, Provenance, Side, UnstableGap

_KNOWN_HOW: dict[Provenance, str] = {
    "observed": "Observed positions",
    "estimated": "Estimated, not observed, positions",
    "simulated": "Simulated positions",
}


def number(value: float | None) -> str:
    """Return a number for a program: ten significant digits, or ``unknown``."""
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.10g}"


def plain(value: float | None, digits: int = 6) -> str:
    """Return a number for people: ``digits`` significant digits, thousands separated, never an exponent."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0.0:
        return "0"
    # 18 decimals are a wei; smaller numbers do not occur in prices or sizes.
    decimals = min(max(digits - 1 - math.floor(math.log10(abs(value))), 0), 18)
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def usd(value: float) -> str:
    """Return an amount of US dollars to three digits, like ``$12.4M``."""
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"${plain(value / unit, 3)}{suffix}"
    return f"${plain(value, 3)}"


def percent(ratio: float | None) -> str:
    """Return a fraction as a percentage to two digits."""
    return "an unknown share" if ratio is None or not math.isfinite(ratio) else f"{plain(100.0 * ratio, 2)} %"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least two of it."""
    for unit, name in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2.0 * unit:
            return f"{plain(seconds / unit, 2)} {name}"
    return f"{plain(seconds, 2)} s"


def cluster_barrier(cluster: Cluster, market: MarketProjection) -> BarrierPoint | None:
    """Return the first level of the barrier curve at which the cluster starts to die, or ``None`` beyond the displayed book.

    A level sets off every trigger at or before its price (models.md 2.1), so it is the first one not short of the nearest edge.
    """
    cascade = market.cascade_down if cluster.side == "long" else market.cascade_up
    if cascade is None:
        return None
    if cluster.side == "long":
        beyond = [point for point in cascade.barrier if point.price <= cluster.nearest_price]
        return max(beyond, key=lambda point: point.price, default=None)
    beyond = [point for point in cascade.barrier if point.price >= cluster.nearest_price]
    return min(beyond, key=lambda point: point.price, default=None)


def describe_cluster(cluster: Cluster, market: MarketProjection, distance_ratio: float) -> Content:
    """Describe a cluster; ``distance_ratio`` is that of its nearest edge, negative once the price has passed it."""
    barrier = cluster_barrier(cluster, market)
    where = f"{plain(cluster.nearest_price)} to {plain(cluster.furthest_price)}"
    below_or_above = "below" if cluster.side == "long" else "above"
    near = f"{percent(distance_ratio)} {below_or_above}" if distance_ratio > 0.0 else "already at or past"
    sentences = [
        f"{market.symbol} on {market.venue}: {usd(cluster.notional_usd)} of {cluster.side} positions ({_holders(cluster)}) have"
        f" liquidation prices from {where}, the nearest {near} the reference price {plain(market.reference_price)}.",
        f"{_KNOWN_HOW[cluster.provenance]}{_coverage(cluster.provenance, market)}.",
    ]
    if barrier is not None:
        flow = "sales" if cluster.side == "long" else "purchases"
        sentences.append(
            f"On the book as displayed, net {flow} of more than {_volume(barrier, market)} would reach it; a thinner book needs"
            " less."
            if barrier.volume_base > 0.0
            else f"On the book as displayed, the smallest net {flow} would reach it."
        )
    return " ".join(sentences), {
        "notional_usd": number(cluster.notional_usd),
        "price": number(cluster.price),
        "distance_ratio": number(cluster.distance_ratio),
        "nearest_price": number(cluster.nearest_price),
        "nearest_distance_ratio": number(distance_ratio),
        "furthest_price": number(cluster.furthest_price),
        "accounts": str(cluster.accounts),
        "largest_account_share": number(cluster.largest_account_share),
        **_barrier_annotations(barrier),
        **_market_annotations(market),
    }


def describe_barrier(gap: UnstableGap, cascade: Cascade, market: MarketProjection, direction: str) -> Content:
    """Describe the smallest volume that starts an unstable gap; ``market.typical_flow_base`` is known."""
    flow_base = market.typical_flow_base
    minutes = gap.barrier_base / flow_base if flow_base else None
    at_level = next((point for point in cascade.barrier if point.price == gap.from_price), None)
    selling, falling = ("selling", "fall") if direction == "down" else ("buying", "rise")
    typical = (
        f"{plain(minutes, 2)} typical minutes of net taker flow, {plain(flow_base, 3)} each"
        if minutes is not None
        else "there was no net taker flow lately"
    )
    needed = (
        f"net {selling} of about {_worth(gap.barrier_base, market)}{plain(gap.barrier_base, 3)} base units ({typical})"
        if gap.barrier_base > 0.0
        else f"the smallest net {selling}"
    )
    summary = (
        f"{market.symbol} on {market.venue}: on the book as displayed, {needed} would start a {falling} from"
        f" {plain(gap.from_price)} that feeds itself, with {plain(gap.forced_base, 3)} base units of forced {selling}."
        f" {_KNOWN_HOW[market.provenance]}{_coverage(market.provenance, market)}; positions that are not seen and a thinner book"
        " make it easier. This is the present state, not a forecast."
    )
    return summary, {
        "barrier_multiple": number(minutes),
        "typical_flow_base": number(flow_base),
        "flow_window_covered_ratio": number(market.flow_window_covered_ratio),
        "from_price": number(gap.from_price),
        "to_price": number(gap.to_price),
        "forced_base": number(gap.forced_base),
        "depth_base": number(cascade.depth_base),
        "survival_ratio": number(cascade.survival_ratio),
        **_barrier_annotations(at_level),
        "barrier_base": number(gap.barrier_base),
        **_market_annotations(market),
    }


def describe_stale(market: MarketProjection, stale_s: float) -> Content:
    """Describe a market that is stale itself or has a stale feed, since ``stale_s`` seconds."""
    feeds = [feed for feed in market.feeds if feed.stale]
    told = {f"{feed.channel}: {feed.reason}" for feed in feeds}
    parts = [reason for reason in market.stale_reasons if reason not in told]
    for feed in feeds:
        age = "never received" if feed.age_s is None else f"last message {duration(feed.age_s)} ago"
        parts.append(f"{feed.channel}: {f'{feed.reason}, ' if feed.reason else ''}{age}")
    what = "the market has" if market.stale else "feeds have"
    consequence = (
        "Its numbers are not live and its other alerts are held as they were."
        if market.stale
        else "What does not depend on them is still live."
    )
    return (
        f"{market.symbol} on {market.venue}: {what} been stale for {duration(stale_s)} ({'; '.join(parts) or 'no reason given'})."
        f" {consequence}",
        {
            "stale_s": number(stale_s),
            "reasons": "; ".join(market.stale_reasons),
            "stale_feeds": ", ".join(feed.channel for feed in feeds),
            "as_of_ns": str(market.as_of_ns),
        },
    )


def describe_missing(venue: str, symbol: str, as_of_ns: int, stale_s: float) -> Content:
    """Describe a market that was there and is no longer part of the projection."""
    return (
        f"{symbol} on {venue}: the market has been missing from the projection for {duration(stale_s)}. Nothing is known of it"
        " and its other alerts are held as they were.",
        {
            "stale_s": number(stale_s),
            "reasons": "missing from the projection",
            "stale_feeds": "",
            "as_of_ns": str(as_of_ns),
        },
    )


def _coverage(provenance: Provenance, market: MarketProjection) -> str:
    """Say how much is seen and how old it is; the estimate of hidden positions has no coverage."""
    if provenance == "estimated":
        return ""
    age = market.oldest_account_age_s
    return f" cover {percent(market.coverage_ratio)} of open interest" + (
        "" if age is None else f", the oldest account read {duration(age)} ago"
    )


def _holders(cluster: Cluster) -> str:
    if cluster.accounts == 1:
        return "1 account"
    return f"{cluster.accounts} accounts, the largest {percent(cluster.largest_account_share)}"


def seen_liquidated(side: Side, notional_usd: float, completeness: str) -> str:
    """Return a clause about what was seen liquidated on this side of a market, and how much of it the feed shows."""
    if completeness == "none" or notional_usd <= 0.0:
        return ""
    how = "" if completeness == "complete" else f", in a {completeness} view of them"
    return f"; meanwhile {usd(notional_usd)} of {side} positions of this market were seen liquidated{how}"


def _worth(volume_base: float, market: MarketProjection) -> str:
    """Return what base units are worth at the reference price, for in front of them; nothing while that is unknown."""
    price = market.reference_price
    return "" if price is None else f"{usd(volume_base * price)}, "


def _volume(point: BarrierPoint, market: MarketProjection) -> str:
    bounds = (
        "" if point.lower_base == point.upper_base else f" (between {plain(point.lower_base, 3)} and {plain(point.upper_base, 3)})"
    )
    return f"{_worth(point.volume_base, market)}{plain(point.volume_base, 3)} base units{bounds}"


def _barrier_annotations(point: BarrierPoint | None) -> dict[str, str]:
    return {
        "barrier_base": number(None if point is None else point.volume_base),
        "barrier_lower_base": number(None if point is None else point.lower_base),
        "barrier_upper_base": number(None if point is None else point.upper_base),
    }


def _market_annotations(market: MarketProjection) -> dict[str, str]:
    return {
        "reference_price": number(market.reference_price),
        "reference_source": market.reference_source,
        "reference_age_s": number(market.reference_age_s),
        "coverage_ratio": number(market.coverage_ratio),
        "oldest_account_age_s": number(market.oldest_account_age_s),
        "accounts_excluded": str(market.accounts_excluded),
        "as_of_ns": str(market.as_of_ns),
        "stale": "false",
    }
