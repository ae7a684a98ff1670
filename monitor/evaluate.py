"""One evaluation: frozen inputs in, an immutable projection out. Pure functions over arrays, safe to run beside the event loop."""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.events import Completeness
from monitor import cascade as solver
from monitor.clusters import Grid, Hills, TriggerMap, find_hills, map_triggers
from monitor.forced_orders import forced_orders
from monitor.margin import Array, TierTable
from monitor.position_totals import Positions, Totals, sum_positions
from monitor.projection import (
    BarrierPoint,
    Cascade,
    Cluster,
    FeedState,
    Histogram,
    Landing,
    MarketProjection,
    Projection,
    Provenance,
    SurvivalPoint,
    SweepHealth,
    UnstableGap,
    VenueHealth,
)
from monitor.settings import ProjectionSettings
from monitor.state.accounts import MarketLegs
from monitor.state.book import Depth
from monitor.triggers import Sweep, Workspace, find_triggers, value_legs

CLUSTERS_PER_SIDE = 20
GAPS_MAX = 20
"""Published per direction, the largest by released volume: a curve of a few hundred levels has no more that matter."""

FLOW_COVERED_MIN = 0.15
"""Below this watched share of its window the typical flow is one of a few minutes, and its multiples are no scenario."""

SURVIVAL_MOVES = np.array((0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2))
"""Moves at which the survival ratio is published, as far as the book reaches."""


class MarketInput(NamedTuple):
    """One market as it stands at the moment of the evaluation; ``None`` and empty depth stand for what cannot be relied on."""

    market: int
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
    depth: Depth | None
    open_interest_base: float | None
    typical_flow_base: float | None
    flow_window_covered_ratio: float
    liquidated_long_usd: float
    liquidated_short_usd: float
    completeness: Completeness | Literal["none"]
    feeds: tuple[FeedState, ...]
    stale_reasons: tuple[str, ...]


class Inputs(NamedTuple):
    """Everything an evaluation looks at; nothing else is read and nothing of it is written.

    ``legs`` holds the positions of ``markets`` in their order, ``prices`` those of all markets by index.
    """

    now_ns: int
    sequence: int
    legs: MarketLegs
    prices: Array
    tiers: TierTable
    markets: tuple[MarketInput, ...]
    unchanged: tuple[MarketProjection, ...]
    venues: tuple[VenueHealth, ...]
    sweeps: SweepHealth
    grid: Grid
    settings: ProjectionSettings


def evaluate(inputs: Inputs, workspace: Workspace | None = None) -> Projection:
    """Find the triggers in the markets that changed and project those; the others are passed on as they were."""
    positions = _join(inputs)
    swept = _swept(positions, inputs.tiers, workspace)
    chosen = np.array([market.market for market in inputs.markets], dtype=np.int64)
    orders, due = forced_orders(positions.legs, swept, positions.price, inputs.tiers)
    # Positions with a margin table of their own are counted in the market that they are in.
    orders = orders._replace(market=chosen.astype(np.int32)[positions.place])
    triggers = map_triggers(orders, due, inputs.prices, inputs.grid, chosen)
    hills = find_hills(triggers, per_side=CLUSTERS_PER_SIDE, min_share=inputs.settings.cluster_min_share)
    view = _View(inputs, triggers, hills, sum_positions(positions, len(inputs.markets), inputs.tiers, inputs.now_ns))
    projected = [_project_market(view, place, market) for place, market in enumerate(inputs.markets)]
    markets = sorted((*projected, *inputs.unchanged), key=lambda market: (market.venue, market.symbol))
    return Projection(inputs.now_ns, inputs.sequence, tuple(markets), inputs.venues, inputs.sweeps)


def _join(inputs: Inputs) -> Positions:
    legs, counts, surplus_usd, lost, polled_ns = inputs.legs
    prices = np.array([inputs.prices[market.market] for market in inputs.markets])
    place = np.repeat(np.arange(counts.size), counts)
    return Positions(legs, place, np.cumsum(counts).tolist(), np.repeat(prices, counts), surplus_usd, lost, polled_ns)


def _swept(positions: Positions, tiers: TierTable, workspace: Workspace | None) -> Sweep:
    count = positions.price.size
    if workspace is None or not workspace.fits(count):
        workspace = Workspace(count)
    value, shock, trigger = workspace.value[:count], workspace.shock[:count], workspace.trigger[:count]
    value_legs(positions.legs, positions.price, tiers, out=value)
    np.copyto(shock, positions.surplus_usd)
    find_triggers(positions.legs, positions.price, value, tiers, shock=shock, trigger=trigger)
    return Sweep(positions.surplus_usd, trigger, shock)


_POSITION_BITS = 32
"""Of a leg's position in a sort key: the buckets above it, 2 x 2,000 markets x 40,001, take 28."""


class _View:
    """What the projections of single markets share; ``place`` is a market's position among those that are projected."""

    def __init__(self, inputs: Inputs, triggers: TriggerMap, hills: Hills, totals: Totals) -> None:
        self.inputs = inputs
        self.triggers = triggers
        self.hills = hills
        self.totals = totals
        ends = hills.place.searchsorted(np.arange(len(inputs.markets) + 1)).tolist()
        self.hills_of = [slice(start, end) for start, end in itertools.pairwise(ends)]
        self._columns = triggers.cents.shape[2]
        # By row (market and side): the span of flattened buckets within reach of the book; empty where there is no book.
        rows = len(inputs.markets) * 2
        self._low, self._high = np.full(rows, 1, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for place, market in enumerate(inputs.markets):
            if market.depth is not None:
                self._span(place * 2, market.depth.bid_reach)
                self._span(place * 2 + 1, market.depth.ask_reach)
        # Only triggers within reach are sorted.
        near = triggers.near
        row = near.key // self._columns
        inside = np.flatnonzero((near.key >= self._low[row]) & (near.key <= self._high[row]))
        # Bucket and position in one number sort faster than a stable argsort of the buckets, to the same order.
        inside = np.sort(near.key[inside] << _POSITION_BITS | inside) & ((1 << _POSITION_BITS) - 1)
        self._keys, self._price, self._size = near.key[inside], near.price[inside], np.abs(near.size[inside])

    def _span(self, row: int, reach_price: float | None) -> None:
        if reach_price is None:
            return
        # One bucket more than the reach: rounding in the logarithm must not lose a trigger at its very end.
        bucket = math.floor(math.log(reach_price) / self.triggers.grid.width) - int(self.triggers.first_bucket[row // 2])
        low, high = (bucket - 1, self._columns - 1) if row % 2 == 0 else (0, bucket + 1)
        self._low[row] = row * self._columns + max(low, 0)
        self._high[row] = row * self._columns + min(high, self._columns - 1)

    def triggers_within(self, place: int, side: int) -> tuple[Array, Array]:
        """Return (trigger prices, sizes) of one side ahead of the reference and up to the reach, nearest first."""
        row = place * 2 + side
        start, end = self._keys.searchsorted([self._low[row], self._high[row] + 1]).tolist()
        price, size = self._price[start:end], self._size[start:end]
        nearest_first = np.argsort(-price if side == 0 else price, kind="stable")
        return price[nearest_first], size[nearest_first]


def _project_market(view: _View, place: int, market: MarketInput) -> MarketProjection:
    inputs, totals = view.inputs, view.totals
    reference = market.reference_price
    long_base, short_base = totals.observed_base[place].tolist()
    accounts, lost = int(totals.accounts_live[place]), int(totals.accounts_lost[place])
    stale_reasons = market.stale_reasons
    if lost > accounts or float(totals.lost_base[place]) > long_base + short_base:
        # With most of them gone, what is left would look like a market without clusters.
        stale_reasons += (f"accounts: {lost} of {lost + accounts} known here wait for a poll or for the price of what they hold",)
    interest = market.open_interest_base
    down = up = None
    if reference is not None and market.depth is not None:
        volumes = [notional / reference for notional in inputs.settings.exogenous_notional_usd]
        if market.typical_flow_base and market.flow_window_covered_ratio >= FLOW_COVERED_MIN:
            volumes += [multiple * market.typical_flow_base for multiple in inputs.settings.exogenous_flow_multiples]
        exogenous = np.array(sorted(volumes))
        down = _project_side(view, place, market, 0, exogenous)
        up = _project_side(view, place, market, 1, exogenous)
    return MarketProjection(
        as_of_ns=inputs.now_ns,
        venue=market.venue,
        symbol=market.symbol,
        provenance=market.provenance,
        reference_price=reference,
        reference_source=market.reference_source,
        reference_age_s=market.reference_age_s,
        index_price=market.index_price,
        funding_rate=market.funding_rate,
        best_bid=market.best_bid,
        best_ask=market.best_ask,
        book_levels=market.book_levels,
        open_interest_base=interest,
        open_interest_usd=interest * reference if interest is not None and reference is not None else None,
        observed_long_base=long_base,
        observed_short_base=short_base,
        observed_notional_usd=(long_base + short_base) * reference if reference is not None else None,
        coverage_ratio=(long_base + short_base) / (2.0 * interest) if interest else None,
        accounts=accounts,
        accounts_excluded=int(totals.accounts_excluded[place]),
        oldest_account_age_s=float(totals.oldest_age_s[place]) if accounts else None,
        median_account_age_s=float(totals.median_age_s[place]) if accounts else None,
        clusters=_clusters(market, view.hills, view.hills_of[place]) if reference is not None else (),
        histogram=_histogram(view.triggers, place) if reference is not None else None,
        cascade_down=down,
        cascade_up=up,
        typical_flow_base=market.typical_flow_base,
        flow_window_covered_ratio=market.flow_window_covered_ratio,
        liquidated_long_usd=market.liquidated_long_usd,
        liquidated_short_usd=market.liquidated_short_usd,
        liquidation_completeness=market.completeness,
        feeds=market.feeds,
        stale=bool(stale_reasons),
        stale_reasons=stale_reasons,
    )


def _clusters(market: MarketInput, hills: Hills, mine: slice) -> tuple[Cluster, ...]:
    assert market.reference_price is not None
    reference, provenance = market.reference_price, market.provenance
    columns = (hills.side, hills.price, hills.notional_usd, hills.accounts, hills.largest_share, hills.low_price, hills.high_price)
    return tuple(
        Cluster(
            price=price,
            distance_ratio=price / reference - 1.0,
            side="short" if side else "long",
            notional_usd=notional_usd,
            accounts=accounts,
            largest_account_share=share,
            # Longs die from above: their near edge is the higher one.
            nearest_price=low if side else high,
            furthest_price=high if side else low,
            provenance=provenance,
        )
        for side, price, notional_usd, accounts, share, low, high in zip(
            *(column[mine].tolist() for column in columns), strict=True
        )
    )


def _histogram(triggers: TriggerMap, place: int) -> Histogram:
    cents = triggers.cents[place]
    filled = np.flatnonzero(cents[0] + cents[1])
    grid = triggers.grid
    centre = grid.edge(triggers.first_bucket[place] + filled) * math.exp(grid.width / 2.0)
    return Histogram(
        math.expm1(grid.width), centre.tolist(), (cents[0, filled] / 100.0).tolist(), (cents[1, filled] / 100.0).tolist()
    )


def _project_side(view: _View, place: int, market: MarketInput, side: int, volumes: Array) -> Cascade:
    """Solve one direction (side 0 falls through the bids) and pick what is published of the curve."""
    assert market.depth is not None
    assert market.reference_price is not None
    sign = 1.0 if side == 0 else -1.0
    levels = market.depth.bids if side == 0 else market.depth.asks
    if side:
        levels = solver.Levels(-levels.near, -levels.far, levels.size)
    # Beyond the grid triggers are not known, and a book without them would look safer than it is.
    end = market.reference_price * (1.0 - sign * view.triggers.grid.reach_ratio)
    count = int((-levels.far).searchsorted(-sign * end, side="right"))
    levels = solver.Levels(levels.near[:count], levels.far[:count], levels.size[:count])
    price, size = view.triggers_within(place, side)
    backlog = float(view.triggers.backlog_base[place, side])
    curve = solver.solve(levels, sign * price, size, backlog)
    # One fixed volume, so that the ratios of one moment can be compared with those of the next.
    fixed_usd = view.inputs.settings.exogenous_notional_usd
    volume = fixed_usd[-1] / market.reference_price if fixed_usd else float(volumes[-1]) if volumes.size else 0.0
    survival = _survival(market, curve, sign, volume) if volume > 0.0 else ()
    largest = sorted(solver.gaps(curve), key=lambda gap: -gap.forced)[:GAPS_MAX]
    level_price = (sign * curve.price).tolist()
    return Cascade(
        barrier=_barrier(curve, sign, view.inputs.settings.barrier_levels_max),
        gaps=tuple(
            UnstableGap(level_price[gap.first], level_price[gap.last], max(gap.barrier, 0.0), gap.forced)
            for gap in sorted(largest, key=lambda gap: gap.first)
        ),
        landing=_landings(curve, level_price, volumes),
        survival=survival,
        survival_ratio=survival[-1].survival_ratio if survival else None,
        depth_base=curve.depth_total,
        forced_in_reach_base=float(curve.forced[-1]) - backlog if curve.forced.size else 0.0,
        backlog_base=backlog,
        reach_price=level_price[-1] if level_price else None,
    )


def _barrier(curve: solver.BarrierCurve, sign: float, points_max: int) -> tuple[BarrierPoint, ...]:
    """Return the curve at ``points_max`` levels at most; what the backlog alone reaches needs no volume, not a negative one."""
    picked = _pick(curve, points_max)
    volumes = (np.maximum(volume[picked], 0.0).tolist() for volume in (curve.barrier, curve.lower, curve.upper))
    return tuple(map(BarrierPoint, (sign * curve.price[picked]).tolist(), *volumes))


def _landings(curve: solver.BarrierCurve, level_price: list[float], volumes: Array) -> tuple[Landing, ...]:
    last = solver.land(curve, volumes, at_touch=False)
    touch = solver.landing_levels(curve.barrier, volumes, at_touch=True)
    nearest = solver.landing_levels(curve.upper, volumes, at_touch=False)
    furthest = solver.landing_levels(curve.lower, volumes, at_touch=False)
    # Level -1, where nothing is reached, is the last entry.
    prices: list[float | None] = [*level_price, None]
    columns = (volumes, last.level, nearest, furthest, touch, last.forced, last.unabsorbed)
    return tuple(
        Landing(
            exogenous_base=volume,
            last_trade_price=prices[last_level],
            nearest_price=prices[nearest_level],
            furthest_price=prices[furthest_level],
            best_quote_price=prices[touch_level],
            forced_base=forced,
            unabsorbed_base=unabsorbed,
            book_exhausted=unabsorbed > 0.0,
        )
        for volume, last_level, nearest_level, furthest_level, touch_level, forced, unabsorbed in zip(
            *(column.tolist() for column in columns), strict=True
        )
    )


def _survival(market: MarketInput, curve: solver.BarrierCurve, sign: float, volume: float) -> tuple[SurvivalPoint, ...]:
    """Return the ratio at round moves from the reference, each at the first level at or beyond it, and at the end of the book."""
    assert market.reference_price is not None
    if not curve.price.size:
        return ()
    ratio = solver.survival_ratios(curve, volume)
    targets = market.reference_price * (1.0 - sign * SURVIVAL_MOVES)
    last = curve.price.size - 1
    # Several moves may end at the same level of a coarse book.
    levels = sorted({last, *(level for level in (-curve.price).searchsorted(-sign * targets).tolist() if level < last)})
    return tuple(
        SurvivalPoint(price, volume, value if math.isfinite(value) else None)
        for price, value in zip((sign * curve.price[levels]).tolist(), ratio[levels].tolist(), strict=True)
    )


def _pick(curve: solver.BarrierCurve, points_max: int) -> NDArray[np.int64]:
    """Choose at most ``points_max`` levels, evenly spaced in price, always with the first and the last."""
    count = curve.price.size
    if count <= points_max:
        return np.arange(count)
    first, last = curve.price.item(0), curve.price.item(-1)
    targets = first + np.arange(points_max) * ((last - first) / (points_max - 1))
    levels = np.minimum((-curve.price).searchsorted(-targets), count - 1)
    return np.array(sorted(set(levels.tolist())))
