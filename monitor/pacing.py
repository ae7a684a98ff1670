"""Which markets an evaluation looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from monitor.projection import MarketProjection
from monitor.state.markets import Market

REFRESH_NS = 1_000_000_000
"""A market is projected again after this long even if nothing changed, so that ages and staleness are never older than this."""

MARKETS_PER_PASS = 12
"""Markets without a new price that a paced evaluation looks at, those that have waited longest first: at some 0.4 ms each this is
5 ms. Without a bound an evaluation that takes longer than the interval finds all markets due again and never catches up."""


def is_due(market: Market, last: MarketProjection | None, now_ns: int, interval_ns: int) -> bool:
    """A new price is worth an evaluation at once, other changes as often as configured, the mere passage of time rarely."""
    if last is None or market.repriced:
        return True
    age_ns = now_ns - last.as_of_ns
    return age_ns >= REFRESH_NS or (market.changed and age_ns >= interval_ns)


def choose(
    markets: Iterable[Market], last: Mapping[int, MarketProjection], now_ns: int, interval_ns: int, *, paced: bool
) -> set[int]:
    """Return the indices of the markets to look at.

    Args:
        markets: the watched markets.
        last: the latest projection of each, by index.
        now_ns: the time.
        interval_ns: how often a market whose price stays is looked at.
        paced: keep to that interval and to ``MARKETS_PER_PASS``; otherwise everything that changed is chosen.
    """
    chosen: set[int] = set()
    waiting: list[tuple[int, int]] = []
    for market in markets:
        latest = last.get(market.index)
        if latest is None or market.repriced or (market.changed and not paced):
            chosen.add(market.index)
        elif is_due(market, latest, now_ns, interval_ns):
            waiting.append((latest.as_of_ns, market.index))
    room = max(0, MARKETS_PER_PASS - len(chosen)) if paced else len(waiting)
    chosen.update(index for _, index in sorted(waiting)[:room])
    return chosen
