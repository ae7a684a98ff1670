"""A small world that moves: seeded, plausible projections for tests of what shows them.

Positions have trigger prices on both sides of a price that wanders; when the price passes a trigger the position dies and is added
to the liquidated totals. The barrier follows from the same triggers and a displayed book, by the discrete closed form.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alerts.alert import Alert
from monitor.projection import (
    BarrierPoint,
    Cascade,
    Cluster,
    ConnectionHealth,
    DaemonStatus,
    DisagreementCounts,
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

START_NS = 1_760_000_000_000_000_000
BUCKET_RATIO = 0.001
WIDTH = math.log1p(BUCKET_RATIO)
LEVELS = 60
SWEEPS = SweepHealth(sweeps=12, rows_compared=880, last_drift_ratio=2e-16, largest_drift_ratio=9e-15)


class Market:
    """One market of the world; ``step`` moves it on."""

    def __init__(self, venue: str, symbol: str, price: float, seed: int, provenance: Provenance = "observed") -> None:
        self.venue, self.symbol, self.provenance = venue, symbol, provenance
        self.price = self.start = price
        self.stale_reasons: tuple[str, ...] = ()
        self.liquidated = np.zeros(2)
        self.random = np.random.default_rng(seed)
        self.drift = 0.0
        usd = self.random.lognormal(10.6, 1.5, 900)
        hills = self.random.normal(0, 0.0035, 900) + self.random.choice([0.015, 0.032, 0.05, 0.085, 0.13], 900)
        self.side = self.random.integers(0, 2, 900)
        distance = np.clip(np.abs(hills), 0.002, 0.4)
        self.trigger = price * np.where(self.side == 0, 1 - distance, 1 + distance)
        self.size = usd / self.trigger
        depth = self.random.lognormal(0.0, 0.5, LEVELS) * 3e5 / price
        self.depth = np.stack([depth, depth[::-1]]) * (1 + np.arange(LEVELS) / 12)

    def step(self, as_of_ns: int, seconds: float) -> MarketProjection:
        """Let ``seconds`` pass."""
        self.drift += -0.01 * self.drift * seconds + self.random.normal(0, 2e-5) * math.sqrt(seconds)
        self.price *= math.exp(self.drift * seconds + self.random.normal(0, 2.5e-4) * math.sqrt(seconds))
        self.price *= math.exp(0.002 * math.log(self.start / self.price) * seconds)
        for side in (0, 1):
            dead = (self.side == side) & ((self.trigger >= self.price) if side == 0 else (self.trigger <= self.price))
            self.liquidated[side] += float((self.size * self.trigger)[dead].sum())
            self.size[dead] = 0.0
        # New positions replace dead ones, so that the hills stay but change.
        reborn = np.flatnonzero(self.size == 0.0)[:3]
        distance = self.random.uniform(0.01, 0.1, reborn.size)
        self.trigger[reborn] = self.price * np.where(self.side[reborn] == 0, 1 - distance, 1 + distance)
        self.size[reborn] = self.random.lognormal(11.0, 1.2, reborn.size) / self.price
        return self.projection(as_of_ns)

    def projection(self, as_of_ns: int) -> MarketProjection:
        """Return the market as it stands."""
        alive = self.size > 0
        long_base = float(self.size[alive & (self.side == 0)].sum())
        short_base = float(self.size[alive & (self.side == 1)].sum())
        stale = bool(self.stale_reasons)
        spread = self.price * 2e-5
        open_interest = 4_000 * 65_000 / self.start
        return MarketProjection(
            as_of_ns=as_of_ns,
            venue=self.venue,
            symbol=self.symbol,
            provenance=self.provenance,
            reference_price=self.price,
            reference_source="mark",
            reference_age_s=41.0 if stale else 0.4,
            index_price=self.price * 1.0001,
            funding_rate=0.0000125,
            best_bid=self.price - spread,
            best_ask=self.price + spread,
            book_levels=2 * LEVELS,
            open_interest_base=open_interest,
            open_interest_usd=open_interest * self.price,
            observed_long_base=long_base,
            observed_short_base=short_base,
            observed_notional_usd=(long_base + short_base) * self.price,
            coverage_ratio=(long_base + short_base) / (2 * open_interest),
            accounts=int(alive.sum()),
            accounts_excluded=17,
            oldest_account_age_s=58.0,
            median_account_age_s=21.5,
            clusters=self._clusters(),
            histogram=self._histogram(),
            cascade_down=self._cascade(0),
            cascade_up=self._cascade(1),
            typical_flow_base=float(self.depth[0][:6].sum()),
            flow_window_covered_ratio=0.93,
            liquidated_long_usd=float(self.liquidated[0]),
            liquidated_short_usd=float(self.liquidated[1]),
            liquidation_completeness="partial",
            feeds=(
                FeedState("book", 41.0 if stale else 0.2, stale, self.stale_reasons[0] if stale else ""),
                FeedState("mark", 0.4, stale=False, reason=""),
                FeedState("trades", None, stale=False, reason="no message yet"),
            ),
            stale=stale,
            stale_reasons=self.stale_reasons,
        )

    def _buckets(self, side: int) -> dict[int, float]:
        mine = (self.side == side) & (self.size > 0)
        sums: dict[int, float] = {}
        for key, usd in zip(np.floor(np.log(self.trigger[mine]) / WIDTH), (self.size * self.trigger)[mine], strict=True):
            sums[int(key)] = sums.get(int(key), 0.0) + float(usd)
        return sums

    def _histogram(self) -> Histogram:
        long, short = self._buckets(0), self._buckets(1)
        keys = sorted(long.keys() | short.keys())
        return Histogram(
            BUCKET_RATIO,
            [math.exp((key + 0.5) * WIDTH) for key in keys],
            [long.get(key, 0.0) for key in keys],
            [short.get(key, 0.0) for key in keys],
        )

    def _clusters(self) -> tuple[Cluster, ...]:
        found = []
        for side, sign in ((0, -1), (1, 1)):
            for near, far in ((0.0, 0.024), (0.024, 0.041), (0.041, 0.068), (0.068, 0.108), (0.108, 0.4)):
                distance = (self.trigger / self.price - 1) * sign
                inside = (self.side == side) & (self.size > 0) & (distance > near) & (distance <= far)
                usd = (self.size * self.trigger)[inside]
                if usd.size:
                    price = float((self.trigger[inside] * usd).sum() / usd.sum())
                    nearest, furthest = self.price * (1 + sign * near), self.price * (1 + sign * far)
                    share = float(usd.max() / usd.sum())
                    found.append(
                        Cluster(
                            price,
                            price / self.price - 1,
                            "short" if side else "long",
                            float(usd.sum()),
                            int(usd.size),
                            share,
                            nearest,
                            furthest,
                            self.provenance,
                        )
                    )
        return tuple(sorted(found, key=lambda cluster: abs(cluster.distance_ratio)))

    def _cascade(self, side: int) -> Cascade:
        sign = 1 if side else -1
        price: NDArray[np.floating] = self.price * (1 + sign * 0.0001 * np.arange(LEVELS) ** 1.65)
        depth = self.depth[side]
        exclusive = np.concatenate([[0.0], np.cumsum(depth)[:-1]])
        mine = (self.side == side) & (self.size > 0)
        forced = np.array([float(self.size[mine & (sign * self.trigger <= sign * level)].sum()) for level in price])
        before = np.concatenate([[0.0], forced[:-1]])
        barrier = np.maximum.accumulate(np.maximum(exclusive - before, 0.0))
        gaps = []
        first = 0
        for index in range(1, LEVELS + 1):
            if index == LEVELS or barrier[index] > barrier[first]:
                if index - first > 1:
                    released = float(forced[index - 1] - before[first])
                    gaps.append(UnstableGap(float(price[first]), float(price[index - 1]), float(barrier[first]), released))
                first = index
        landing = tuple(self._landing(price, barrier, forced, float(depth.sum()), flow) for flow in (1, 5, 20))
        volume = landing[-1].exogenous_base
        with np.errstate(divide="ignore"):
            ratio = np.minimum.accumulate((volume + before) / exclusive)
        survival = tuple(
            SurvivalPoint(float(price[index]), volume, float(ratio[index]) if np.isfinite(ratio[index]) else None)
            for index in range(0, LEVELS, 6)
        )
        return Cascade(
            barrier=tuple(
                BarrierPoint(float(at), float(base), float(base * 0.97), float(base * 1.04))
                for at, base in zip(price, barrier, strict=True)
            ),
            gaps=tuple(gaps),
            landing=landing,
            survival=survival,
            survival_ratio=float(ratio[-1]),
            depth_base=float(depth.sum()),
            forced_in_reach_base=float(forced[-1]),
            backlog_base=0.0,
            reach_price=float(price[-1]),
        )

    def _landing(
        self, price: NDArray[np.floating], barrier: NDArray[np.floating], forced: NDArray[np.floating], total: float, flow: int
    ) -> Landing:
        volume = flow * float(self.depth[0][:6].sum())
        level = int(np.searchsorted(barrier, volume)) - 1
        end = int(np.searchsorted(barrier, volume, side="right")) - 1
        released = float(forced[level])
        unabsorbed = max(0.0, volume + released - total)
        exhausted = level == LEVELS - 1 and unabsorbed > 0
        quote = None if exhausted else float(price[end])
        last = float(price[level])
        return Landing(volume, last, last, last, quote, released, unabsorbed, exhausted)


class World:
    """Several markets, and the daemon around them."""

    def __init__(self, seed: int = 1, markets: tuple[tuple[str, str, float], ...] = (), *, simulated: bool = False) -> None:
        named = markets or (("hyperliquid", "BTC", 65_000.0), ("hyperliquid", "ETH", 3_200.0), ("hyperliquid", "xyz:TSLA", 251.0))
        provenance: Provenance = "simulated" if simulated else "observed"
        self.simulated = simulated
        self.markets = [Market(*name, seed + index, provenance) for index, name in enumerate(named)]
        self.now_ns = START_NS
        self.sequence = 0

    def step(self, seconds: float = 1.0) -> Projection:
        """Let ``seconds`` pass and evaluate."""
        self.now_ns += int(seconds * 1e9)
        self.sequence += 1
        markets = tuple(market.step(self.now_ns, seconds) for market in self.markets)
        return Projection(self.now_ns, self.sequence, markets, self.venues(), SWEEPS)

    def venues(self) -> tuple[VenueHealth, ...]:
        """Return the counters of every venue."""
        names = dict.fromkeys(market.venue for market in self.markets)
        errors = {"bad_json": 3, "nan_price": 1}
        return tuple(
            VenueHealth(
                venue=name,
                frames=self.sequence * 40,
                events=self.sequence * 55,
                parse_errors=errors,
                gaps=2,
                accounts_known=917,
                accounts_live=900,
                accounts_stale=12,
                accounts_unknown_mode=5,
                accounts_refused=0,
                fills_unexplained=7,
                fills_contradicted=3,
                sequence_gaps=2,
                accounts_evicted=4,
                poll_coverage={"60": 0.4, "600": 0.9},
                disagreements=(DisagreementCounts("liquidation_price", (1e-6, 1e-3), (90, 8, 2), 0.004),),
                subscriptions_refused=1,
                book_deltas_dropped=0,
                book_levels_dropped=0,
                quarantined_symbols=("OLD-PERP",),
            )
            for name in names
        )

    def status(self) -> DaemonStatus:
        """Return a report about the process."""
        last_ns = self.now_ns - 200_000_000
        return DaemonStatus(
            as_of_ns=self.now_ns,
            started_ns=START_NS - 7_200_000_000_000,
            instance="desk-1",
            version="0.1.0",
            simulated=self.simulated,
            connections=(
                ConnectionHealth("hyperliquid", "market-0", "connected", "", 3, 2, self.sequence * 40, last_ns, ()),
                ConnectionHealth(
                    "hyperliquid",
                    "users",
                    "degraded",
                    "webData2 has been silent for 12 s",
                    1,
                    0,
                    0,
                    None,
                    ("webData2",),
                ),
            ),
            intake_frames=3,
            intake_dropped=0,
            projections=self.sequence,
            projection_compute_s=0.012,
            lag_s=0.004,
            alert_queue={"mqtt": 0, "webhook": 2},
            alert_failures={"mqtt": 0, "webhook": 5},
            alert_dropped={"mqtt": 0, "webhook": 0},
            recording=True,
            recorder_error="",
        )


def alert(name: str = "ClusterNear", *, starts_ns: int = START_NS, ends_ns: int | None = None, symbol: str = "BTC") -> Alert:
    """Return one alert."""
    return Alert(
        name=name,
        labels={"venue": "hyperliquid", "symbol": symbol, "side": "long"},
        severity="warning",
        summary=f"{symbol}: 21.4 M USD of long positions die 1.5 % below the price",
        starts_ns=starts_ns,
        ends_ns=ends_ns,
        annotations={"notional_usd": "21400000", "provenance": "observed"},
    )
