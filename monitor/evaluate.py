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
from monitor.margin import Array, TierTable
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
    UnstableGap,
    VenueHealth,
)
from monitor.settings import ProjectionSettings
from monitor.state.book import Depth
from monitor.triggers import Legs, Sweep, Workspace, sweep

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


class Totals(NamedTuple):
    """Sums over the positions of each market; arrays of shape (markets,) except ``observed_base``, (markets, 2)."""

    observed_base: Array
    accounts_live: NDArray[np.int64]
    accounts_excluded: NDArray[np.int64]
    accounts_lost: NDArray[np.int64]
    lost_base: Array
    oldest_age_s: Array
    median_age_s: Array


class Inputs(NamedTuple):
    """Everything an evaluation looks at; nothing else is read and nothing of it is written."""

    now_ns: int
    sequence: int
    legs: Legs
    cash_usd: Array
    prices: Array
    tiers: TierTable
    ages_ns: NDArray[np.int64]
    lost: NDArray[np.bool_]
    markets: tuple[MarketInput, ...]
    unchanged: tuple[MarketProjection, ...]
    venues: tuple[VenueHealth, ...]
    totals: Totals | None
    grid: Grid
    settings: ProjectionSettings


class Evaluation(NamedTuple):
    """The projection, and what the next evaluation or the poll scheduler can reuse."""

    projection: Projection
    swept: Sweep
    totals: Totals


def evaluate(inputs: Inputs, workspace: Workspace | None = None) -> Evaluation:
    """Sweep all accounts and project the markets that changed; the others are passed on as they were."""
    swept = sweep(inputs.legs, inputs.cash_usd, inputs.prices, inputs.tiers, workspace)
    chosen = np.array([market.market for market in inputs.markets], dtype=np.int64)
    triggers = map_triggers(inputs.legs, swept, inputs.prices, inputs.grid, chosen)
    hills = find_hills(triggers, per_side=CLUSTERS_PER_SIDE, min_share=inputs.settings.cluster_min_share)
    totals = inputs.totals if inputs.totals is not None else sum_positions(inputs, swept)
    view = _View(inputs, triggers, hills, totals)
    projected = [_project_market(view, place, market) for place, market in enumerate(inputs.markets)]
    markets = sorted((*projected, *inputs.unchanged), key=lambda market: (market.venue, market.symbol))
    return Evaluation(Projection(inputs.now_ns, inputs.sequence, tuple(markets), inputs.venues), swept, totals)


def sum_positions(inputs: Inputs, swept: Sweep) -> Totals:
    """Sum the observed positions of each market, and the ages of the accounts behind them."""
    legs, markets = inputs.legs, inputs.prices.size
    known = ~np.isnan(swept.surplus_usd)
    held = legs.size != 0.0
    live = np.flatnonzero(held & known[legs.account])
    excluded = np.flatnonzero(held & ~known[legs.account])
    market, size = legs.market[live], legs.size[live]
    side = market * np.int64(2) + (size < 0.0)
    observed = np.bincount(side, weights=np.abs(size), minlength=markets * 2)
    # A 16-bit key lets numpy sort by counting.
    order = np.argsort(market.astype(np.uint16), kind="stable")
    ages_s = inputs.ages_ns[legs.account[live]][order] / 1e9
    ends = np.searchsorted(market[order], np.arange(markets), side="right")
    oldest, median = np.full(markets, np.nan), np.full(markets, np.nan)
    start = 0
    for index, end in enumerate(ends.tolist()):
        if end > start:
            part = ages_s[start:end]
            oldest[index] = part.max()
            # The upper of the two middle ones, where there are two: half a million ages are not worth a mean.
            median[index] = np.partition(part, part.size // 2)[part.size // 2]
        start = end
    # Polled lately, but the price or the margin table of something that they hold is unknown: lost as well.
    lost = excluded[inputs.lost[legs.account[excluded]] | np.isfinite(inputs.cash_usd[legs.account[excluded]])]
    return Totals(
        np.asarray(observed, dtype=np.float64).reshape(markets, 2),
        np.bincount(market, minlength=markets),
        np.bincount(legs.market[excluded], minlength=markets),
        np.bincount(legs.market[lost], minlength=markets),
        np.asarray(np.bincount(legs.market[lost], weights=np.abs(legs.size[lost]), minlength=markets), dtype=np.float64),
        oldest,
        median,
    )


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
    inputs, totals, index = view.inputs, view.totals, market.market
    reference = market.reference_price
    long_base, short_base = totals.observed_base[index].tolist()
    accounts, lost = int(totals.accounts_live[index]), int(totals.accounts_lost[index])
    stale_reasons = market.stale_reasons
    if lost > accounts or float(totals.lost_base[index]) > long_base + short_base:
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
        accounts_excluded=int(totals.accounts_excluded[index]),
        oldest_account_age_s=float(totals.oldest_age_s[index]) if accounts else None,
        median_account_age_s=float(totals.median_age_s[index]) if accounts else None,
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
    filled = np.flatnonzero(cents.any(axis=0))
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
    volumes = np.maximum(np.stack((curve.barrier[picked], curve.lower[picked], curve.upper[picked])), 0.0).tolist()
    return tuple(map(BarrierPoint, (sign * curve.price[picked]).tolist(), *volumes))


def _landings(curve: solver.BarrierCurve, level_price: list[float], volumes: Array) -> tuple[Landing, ...]:
    last = solver.land(curve, volumes, at_touch=False)
    touch = solver.land(curve, volumes, at_touch=True)
    nearest = solver.land(curve._replace(barrier=curve.upper), volumes, at_touch=False)
    furthest = solver.land(curve._replace(barrier=curve.lower), volumes, at_touch=False)
    # Level -1, where nothing is reached, is the last entry.
    prices: list[float | None] = [*level_price, None]
    columns = (volumes, last.level, nearest.level, furthest.level, touch.level, last.forced, last.unabsorbed)
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
    levels = (-curve.price).searchsorted(-sign * targets)
    # Several moves may end at the same level of a coarse book.
    levels = np.unique(np.append(levels[levels < curve.price.size], curve.price.size - 1))
    return tuple(
        SurvivalPoint(price, volume, value if math.isfinite(value) else None)
        for price, value in zip((sign * curve.price[levels]).tolist(), ratio[levels].tolist(), strict=True)
    )


def _pick(curve: solver.BarrierCurve, points_max: int) -> NDArray[np.int64]:
    """Choose at most ``points_max`` levels, evenly spaced in price, always with the first and the last."""
    count = curve.price.size
    if count <= points_max:
        return np.arange(count)
    targets = np.linspace(curve.price[0], curve.price[-1], points_max)
    return np.unique(np.minimum((-curve.price).searchsorted(-targets), count - 1))
