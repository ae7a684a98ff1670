"""From projections to alerts: what fires, what gets worse, what ends. Each of these is told once.

While a market is stale or an input is unknown, its conditions are *held*: nothing fires and nothing is resolved on numbers that
are not live, and alerts that fire say so in their text. Staleness itself is a rule.

All times come from ``Projection.as_of_ns``. A new severity counts as a new notification and starts at the moment it was reached;
``first_fired_ns`` in the annotations tells when the alert began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from alerts.alert import Alert
from monitor.hysteresis import Content, Ending, Watch
from monitor.projection import Cascade, Cluster, MarketProjection, Projection, UnstableGap
from monitor.rule_settings import LargeClusterNearSettings, LowBarrierSettings, MarketRuleSettings, RuleSettings
from monitor.rule_texts import describe_barrier, describe_cluster, describe_missing, describe_stale, seen_liquidated, usd
from monitor.rule_tracks import Track, band, follow, liquidated_usd, match

__all__ = ["RuleBook", "RuleSettings"]

# The largest venue lists about 700 symbols; six of them make 4,200. A state is about 1 kB, so this is 5 MB.
MAX_MARKETS = 5_000

# Cluster alerts of one market. Warnings may use three quarters, so that a critical cluster still finds a place. Together with
# one staleness and two barrier alerts a market has at most 19, of about 2 kB each.
MAX_CLUSTERS_PER_MARKET = 16
MAX_WARNING_CLUSTERS_PER_MARKET = 12

# A cluster was "reached" if the price was at or past its edge no longer than this before it began to vanish. Liquidations follow
# the trigger within seconds; positions that go a minute later went for another reason.
REACHED_WITHIN_NS = 60 * 1_000_000_000


@dataclass(slots=True)
class _Market:
    """What is remembered of one market."""

    settings: MarketRuleSettings
    stale: Watch
    barriers: dict[str, Watch]
    tracks: list[Track] = field(default_factory=list)
    stale_since_ns: int | None = None
    seen_ns: int = -1

    def watches(self) -> Iterator[Watch]:
        yield self.stale
        yield from self.barriers.values()
        for track in self.tracks:
            yield track.watch


class RuleBook:
    """The rules of all markets and the state of their alerts. Pure: the same projections give the same notifications."""

    def __init__(self, settings: RuleSettings) -> None:
        self._settings = settings
        self._markets: dict[tuple[str, str], _Market] = {}
        self.suppressed = 0
        """Cluster alerts that did not begin because their market already had as many as are allowed, counted per projection."""
        self.markets_ignored = 0
        """Markets beyond ``MAX_MARKETS`` that no rule looked at, counted per projection."""

    def update(self, projection: Projection) -> list[Alert]:
        """Evaluate all rules and return only what changes something: newly firing, another severity, resolved."""
        now_ns = projection.as_of_ns
        changes: list[Alert] = []
        present: set[tuple[str, str]] = set()
        for market in projection.markets:
            key = (market.venue, market.symbol)
            present.add(key)
            state = self._markets.get(key) or self._admit(market)
            if state is not None and state.seen_ns != market.as_of_ns:
                # A market that was not looked at anew says nothing new; each is looked at at least about once a second.
                state.seen_ns = market.as_of_ns
                changes += self._evaluate(state, market, now_ns)
        for key, state in self._markets.items():
            if key not in present:
                _hold(state, "the market is missing from the projection")
                changes += _step_stale(state, now_ns, stale=True, describe=partial(describe_missing, *key, now_ns))
        return changes

    def firing(self) -> tuple[Alert, ...]:
        """Return every alert that fires, with the numbers of the last projection in which they were live."""
        return tuple(watch.alert for state in self._markets.values() for watch in state.watches() if watch.alert is not None)

    def _admit(self, market: MarketProjection) -> _Market | None:
        if len(self._markets) >= MAX_MARKETS:
            self.markets_ignored += 1
            return None
        labels = {"venue": market.venue, "symbol": market.symbol, "provenance": market.provenance}
        state = _Market(
            settings=self._settings.for_market(market.venue, market.symbol),
            stale=Watch("StaleFeed", labels),
            barriers={direction: Watch("LowBarrier", {**labels, "direction": direction}) for direction in ("down", "up")},
        )
        self._markets[(market.venue, market.symbol)] = state
        return state

    def _evaluate(self, state: _Market, market: MarketProjection, now_ns: int) -> list[Alert]:
        changes: list[Alert] = []
        stale = market.stale or any(feed.stale for feed in market.feeds)
        changes += _step_stale(state, now_ns, stale=stale, describe=partial(describe_stale, market))
        unknown = _unknown(market)
        if unknown:
            _hold(state, unknown)
            return changes
        if state.settings.low_barrier.enabled:
            for direction, cascade in (("down", market.cascade_down), ("up", market.cascade_up)):
                changes += _step_barrier(
                    state.barriers[direction], direction, cascade, market, settings=state.settings.low_barrier, now_ns=now_ns
                )
        if state.settings.large_cluster_near.enabled:
            changes += self._step_clusters(state, market, state.settings.large_cluster_near, now_ns)
        return changes

    def _step_clusters(
        self, state: _Market, market: MarketProjection, settings: LargeClusterNearSettings, now_ns: int
    ) -> list[Alert]:
        assert market.reference_price is not None, "a market without a reference price is held"
        matches, unmatched = match(state.tracks, market.clusters)
        changes: list[Alert] = []
        for track in state.tracks:
            track.touch(market, now_ns, left=track.identity in matches)
            changes += _step_track(track, matches.get(track.identity), market, settings, now_ns)
        state.tracks = [track for track in state.tracks if not track.watch.idle]
        # The largest first, so that they find a place when there are too many.
        large = [cluster for cluster in unmatched if cluster.notional_usd >= settings.notional_usd]
        for cluster in sorted(large, key=lambda cluster: -cluster.notional_usd):
            rises, _ = _cluster_conditions(cluster, market.reference_price, settings)
            if not rises[0]:
                continue
            if len(state.tracks) >= (MAX_CLUSTERS_PER_MARKET if rises[1] else MAX_WARNING_CLUSTERS_PER_MARKET):
                self.suppressed += 1
                continue
            track = follow(cluster, market, state.tracks)
            state.tracks.append(track)
            changes += _step_track(track, cluster, market, settings, now_ns)
        return changes


def _unknown(market: MarketProjection) -> str:
    """Say why the numbers of a market cannot be judged; empty when they can."""
    if market.stale:
        return "stale: " + ("; ".join(market.stale_reasons) or "no reason given")
    if market.reference_price is None:
        return "no reference price"
    # One sum instead of many questions: it is finite exactly if all terms are, as they are far too small to overflow.
    total = market.reference_price
    for cluster in market.clusters:
        total += cluster.price + cluster.nearest_price + cluster.furthest_price + cluster.notional_usd
    return "" if math.isfinite(total) and market.reference_price > 0.0 else "a number is not finite"


def _hold(state: _Market, why: str) -> None:
    for watch in (*state.barriers.values(), *(track.watch for track in state.tracks)):
        watch.hold(why)
    for track in state.tracks:
        track.vanishing_ns = None


# -- StaleFeed ---------------------------------------------------------------------------------------------------------------


def _step_stale(state: _Market, now_ns: int, *, stale: bool, describe: Callable[[float], Content]) -> list[Alert]:
    """Step the staleness of a market; ``describe`` is given for how many seconds it has lasted."""
    settings = state.settings.stale_feed
    if not settings.enabled:
        return []
    stale_s = _stale_s(state, stale=stale, now_ns=now_ns)
    change = state.stale.step(
        now_ns,
        rises=(stale, stale),
        holds=(stale, stale),
        for_s=(settings.for_s, settings.critical_for_s),
        clear_for_s=settings.clear_for_s,
        describe=lambda: describe(stale_s) if stale else None,
        ending=lambda: ("live again", "live again"),
    )
    return [] if change is None else [change]


def _stale_s(state: _Market, *, stale: bool, now_ns: int) -> float:
    """Return for how long a market has been stale, in seconds."""
    if not stale:
        # A short recovery belongs to the same episode as long as the alert has not cleared.
        if state.stale.alert is None:
            state.stale_since_ns = None
        return 0.0
    if state.stale_since_ns is None or state.stale_since_ns > now_ns:
        state.stale_since_ns = now_ns
    return (now_ns - state.stale_since_ns) / 1e9


# -- LowBarrier --------------------------------------------------------------------------------------------------------------


def _step_barrier(
    watch: Watch,
    direction: str,
    cascade: Cascade | None,
    market: MarketProjection,
    *,
    settings: LowBarrierSettings,
    now_ns: int,
) -> list[Alert]:
    flow_base = market.typical_flow_base
    if cascade is None:
        watch.hold("no displayed book to walk")
        return []
    if flow_base is None or not math.isfinite(flow_base) or market.flow_window_covered_ratio < settings.minimum_flow_covered_ratio:
        watch.hold("the typical flow is not known")
        return []
    gap = _lowest_gap(cascade, settings.minimum_forced_ratio)
    barrier_base = math.inf if gap is None else gap.barrier_base
    change = watch.step(
        now_ns,
        rises=(barrier_base <= settings.multiple * flow_base, barrier_base <= settings.critical_multiple * flow_base),
        holds=(
            barrier_base <= settings.multiple * flow_base / settings.clear_ratio,
            barrier_base <= settings.critical_multiple * flow_base / settings.clear_ratio,
        ),
        for_s=(settings.for_s, settings.for_s),
        clear_for_s=settings.clear_for_s,
        describe=lambda: None if gap is None else describe_barrier(gap, cascade, market, direction),
        ending=lambda: ("no gap", "no unstable gap is left") if gap is None else ("risen", "the barrier has risen"),
    )
    return [] if change is None else [change]


def _lowest_gap(cascade: Cascade, minimum_forced_ratio: float) -> UnstableGap | None:
    large = [
        gap
        for gap in cascade.gaps
        if math.isfinite(gap.barrier_base) and gap.forced_base >= minimum_forced_ratio * cascade.depth_base
    ]
    return min(large, key=lambda gap: gap.barrier_base, default=None)


# -- LargeClusterNear --------------------------------------------------------------------------------------------------------


def _nearest_distance_ratio(cluster: Cluster, reference_price: float) -> float:
    """Return the distance of the edge that the price meets first, as a fraction of the price; negative once it is past it."""
    distance = reference_price - cluster.nearest_price if cluster.side == "long" else cluster.nearest_price - reference_price
    return distance / reference_price


def _cluster_conditions(
    cluster: Cluster, reference_price: float, settings: LargeClusterNearSettings
) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Return what rises and what holds, for warning and critical."""
    distance_ratio = _nearest_distance_ratio(cluster, reference_price)
    near = distance_ratio <= settings.within_ratio
    still_near = distance_ratio <= settings.within_ratio / settings.clear_ratio
    thresholds = (settings.notional_usd, settings.critical_notional_usd)
    warning, critical = (near and cluster.notional_usd >= usd for usd in thresholds)
    still_warning, still_critical = (still_near and cluster.notional_usd >= settings.clear_ratio * usd for usd in thresholds)
    return (warning, critical), (still_warning, still_critical)


def _step_track(
    track: Track, cluster: Cluster | None, market: MarketProjection, settings: LargeClusterNearSettings, now_ns: int
) -> list[Alert]:
    assert market.reference_price is not None, "a market without a reference price is held"
    reference_price = market.reference_price
    rises = holds = (False, False)
    if cluster is not None:
        rises, holds = _cluster_conditions(cluster, reference_price, settings)
        track.price = cluster.price
        track.low, track.high = band(cluster)
        track.touch(market, now_ns, left=True)
    if holds[0]:
        track.vanishing_ns = None
    elif track.vanishing_ns is None or track.vanishing_ns > now_ns:
        track.vanishing_ns = now_ns

    change = track.watch.step(
        now_ns,
        rises=rises,
        holds=holds,
        for_s=(settings.for_s, settings.for_s),
        clear_for_s=settings.clear_for_s,
        describe=lambda: (
            None if cluster is None else describe_cluster(cluster, market, _nearest_distance_ratio(cluster, reference_price))
        ),
        ending=lambda: _ending(track, cluster, market, settings),
    )
    return [] if change is None else [change]


def _ending(track: Track, cluster: Cluster | None, market: MarketProjection, settings: LargeClusterNearSettings) -> Ending:
    """Say why a cluster alert ends: reached, merged, gone, shrunk or moved away; and what was liquidated meanwhile."""
    seen = seen_liquidated(track.side, liquidated_usd(market, track.side) - track.liquidated_usd, market.liquidation_completeness)
    if (
        track.touched_ns is not None
        and track.vanishing_ns is not None
        and track.touched_ns >= track.vanishing_ns - REACHED_WITHIN_NS
    ):
        return "reached", f"the price reached it{seen}"
    if cluster is None:
        into_another = any(
            other.side == track.side and other.provenance == track.provenance and track.overlaps(other) for other in market.clusters
        )
        return ("merged", "it is part of another cluster now") if into_another else ("gone", f"its positions are gone{seen}")
    assert market.reference_price is not None, "a market without a reference price is held"
    distance_ratio = _nearest_distance_ratio(cluster, market.reference_price)
    if distance_ratio > settings.within_ratio / settings.clear_ratio:
        return "moved away", "it is no longer near the price"
    return "shrunk", f"it has shrunk below {usd(settings.clear_ratio * settings.notional_usd)}{seen}"
