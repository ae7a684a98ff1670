"""The hills of liquidation prices that are followed from projection to projection, and how they are recognised."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monitor.hysteresis import Watch
from monitor.projection import Cluster, MarketProjection, Side

# Two bands belong to the same hill if they overlap after both ends moved out by this fraction of their price. Hills of a single
# bucket would otherwise lose their identity when the mean moves to the next bucket (buckets are 0.1 % wide or less).
MATCH_MARGIN_RATIO = 0.002


@dataclass(slots=True, kw_only=True)
class Track:
    """One hill that is followed."""

    watch: Watch
    side: Side
    provenance: str
    identity: str
    price: float
    low: float
    high: float
    liquidated_usd: float
    """What had been seen liquidated on this side of the market when the hill was first followed."""
    touched_ns: int | None = None
    """When the price was last at or past the edge that it meets first."""
    vanishing_ns: int | None = None
    """Since when the condition no longer holds."""

    def overlaps(self, cluster: Cluster) -> bool:
        """Tell whether a hill lies where this one was, give or take a bucket."""
        low, high = band(cluster)
        margin = 1.0 + MATCH_MARGIN_RATIO
        return low <= self.high * margin and self.low <= high * margin

    def touch(self, market: MarketProjection, now_ns: int, *, left: bool) -> None:
        """Note when the price is at or past the near edge; once nothing is ``left``, there is nothing to reach.

        Marks come every second or three, liquidations within milliseconds: where the whole displayed book is past the edge, the
        price has been there although the mark we know has not.
        """
        bid, ask, mark = market.best_bid, market.best_ask, market.reference_price
        prices = [price for price in (mark, ask if self.side == "long" else bid) if price is not None]
        met = any(price <= self.high if self.side == "long" else price >= self.low for price in prices)
        if met and (left or self.vanishing_ns is None):
            self.touched_ns = now_ns


def band(cluster: Cluster) -> tuple[float, float]:
    """Return the lower and the higher edge of a hill."""
    return min(cluster.nearest_price, cluster.furthest_price), max(cluster.nearest_price, cluster.furthest_price)


def match(tracks: list[Track], clusters: tuple[Cluster, ...]) -> tuple[dict[str, Cluster], list[Cluster]]:
    """Recognise the hills that are already followed.

    A hill is the same as long as its band overlaps that of the projection before; where several do, the nearest mean prices
    belong together. So the identity outlives a drifting mean, and when a hill splits, the part with its centre keeps it.
    """
    if not tracks:
        return {}, list(clusters)
    pairs = sorted(
        (abs(math.log(track.price / cluster.price)), track_index, cluster_index)
        for track_index, track in enumerate(tracks)
        for cluster_index, cluster in enumerate(clusters)
        if track.side == cluster.side and track.provenance == cluster.provenance and track.overlaps(cluster)
    )
    matches: dict[str, Cluster] = {}
    taken: set[int] = set()
    for _, track_index, cluster_index in pairs:
        identity = tracks[track_index].identity
        if identity not in matches and cluster_index not in taken:
            matches[identity] = clusters[cluster_index]
            taken.add(cluster_index)
    return matches, [cluster for index, cluster in enumerate(clusters) if index not in taken]


def follow(cluster: Cluster, market: MarketProjection, tracks: list[Track]) -> Track:
    """Begin to follow a hill under a name that no other has: its first mean price to three digits, and where needed a number."""
    stem = f"{cluster.side}-{cluster.provenance}-{float(f'{cluster.price:.3g}'):g}"
    names = {track.identity for track in tracks}
    identity = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(names) + 3))) if name not in names)
    low, high = band(cluster)
    labels = {
        "venue": market.venue,
        "symbol": market.symbol,
        "side": cluster.side,
        "provenance": cluster.provenance,
        "cluster": identity.removeprefix(f"{cluster.side}-{cluster.provenance}-"),
    }
    return Track(
        watch=Watch("LargeClusterNear", labels),
        side=cluster.side,
        provenance=cluster.provenance,
        identity=identity,
        price=cluster.price,
        low=low,
        high=high,
        liquidated_usd=liquidated_usd(market, cluster.side),
    )


def liquidated_usd(market: MarketProjection, side: Side) -> float:
    """Return what has been seen liquidated on one side of a market since the start of the run."""
    return market.liquidated_long_usd if side == "long" else market.liquidated_short_usd
