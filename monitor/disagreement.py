"""Where our figures of an account differ from the venue's own, found the moment the venue reports the account.

Compared is like with like: the positions and cash of the report at the marks of the report, so that neither a later fill nor a
later price shows up as a difference. What is left is a difference of rules, or a field that was misread.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence

import numpy as np

from connectors.events import AccountSnapshot, PositionReport
from monitor.account_report import Disagreement, Disagreements
from monitor.contracts import column_values
from monitor.margin import ASSET, LINEAR, Array, TierTable, base_coefficient, has_jumps, second_tier_price
from monitor.projection import DisagreementCounts, DisagreementFigure
from monitor.triggers import GENERAL, Legs, find_triggers, value_legs

BOUNDS_RATIO = (1e-9, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Upper bounds of the histogram. Up to 1e-6 is rounding of what the venue prints; above it something is understood differently."""

RATIO_MAX = 1e9
"""What is larger counts as this much, so that one absurd figure does not swallow a sum."""

NOTEWORTHY_RATIO = 1e-6
WORST_MAX = 1_000
"""Disagreements remembered, about 300 bytes each; when more come the smallest is forgotten."""

_Report = tuple[str, str, str]
"""Venue, account and pool."""


class DisagreementBook:
    """Counts the differences by venue and figure, and remembers the largest."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, DisagreementFigure], list[int]] = {}
        self._sums: dict[tuple[str, DisagreementFigure], float] = {}
        self._worst: dict[_Report, list[Disagreement]] = {}
        self._remembered = 0

    def compare(self, event: AccountSnapshot, markets: Sequence[int], tiers: TierTable) -> None:
        """Hold our figures beside those of a report; positions whose mark it does not tell are not compared."""
        found: list[Disagreement] = []
        for figure, symbol, ours, theirs in _pairs(event, markets, tiers):
            if math.isfinite(ours) and math.isfinite(theirs) and (theirs > 0.0 or figure != "liquidation_price"):
                one = _difference(event, figure, symbol, ours, theirs)
                self._count(one)
                if abs(one.difference_ratio) > NOTEWORTHY_RATIO:
                    found.append(one)
        self._remember((event.venue, event.account, event.pool), found)

    def _count(self, one: Disagreement) -> None:
        name, size = (one.venue, one.figure), abs(one.difference_ratio)
        counts = self._counts.setdefault(name, [0] * (len(BOUNDS_RATIO) + 1))
        counts[bisect.bisect_left(BOUNDS_RATIO, size)] += 1
        self._sums[name] = self._sums.get(name, 0.0) + min(size, RATIO_MAX)

    def _remember(self, report: _Report, found: list[Disagreement]) -> None:
        """Put what a report showed in the place of what the one before it did."""
        self._remembered -= len(self._worst.pop(report, ()))
        if not found:
            return
        self._worst[report] = found
        self._remembered += len(found)
        if self._remembered > WORST_MAX + WORST_MAX // 10:
            # A tenth at a time, so that the search is worth its cost.
            every = [(abs(one.difference_ratio), key, place) for key, ones in self._worst.items() for place, one in enumerate(ones)]
            kept: dict[_Report, list[Disagreement]] = {}
            for _, key, place in sorted(every)[-WORST_MAX:]:
                kept.setdefault(key, []).append(self._worst[key][place])
            self._worst, self._remembered = kept, WORST_MAX

    def counts(self, venue: str) -> tuple[DisagreementCounts, ...]:
        """Return the histograms of a venue."""
        return tuple(
            DisagreementCounts(figure, BOUNDS_RATIO, tuple(counts), self._sums[name, figure])
            for (name, figure), counts in sorted(self._counts.items())
            if name == venue
        )

    def worst(self, now_ns: int, limit: int) -> Disagreements:
        """Return the largest differences that the last report of each account showed."""
        ranked = sorted((one for ones in self._worst.values() for one in ones), key=lambda each: -abs(each.difference_ratio))
        return Disagreements(now_ns, tuple(ranked[:limit]))


def _difference(event: AccountSnapshot, figure: DisagreementFigure, symbol: str | None, ours: float, theirs: float) -> Disagreement:
    # Values around zero are compared in dollars: a venue prints six digits behind the point.
    scale = abs(theirs) if figure == "liquidation_price" else max(abs(theirs), 1.0)
    return Disagreement(
        venue=event.venue,
        account=event.account,
        figure=figure,
        symbol=symbol,
        ours=ours,
        theirs=theirs,
        difference_ratio=max(-RATIO_MAX, min((ours - theirs) / scale, RATIO_MAX)),
        compared_ns=event.received_ns,
    )


def _pairs(
    event: AccountSnapshot, markets: Sequence[int], tiers: TierTable
) -> Iterator[tuple[DisagreementFigure, str | None, float, float]]:
    """Yield figure, symbol, our value and theirs."""
    held = [(position, market) for position, market in zip(event.positions, markets, strict=True) if position.size]
    if any(position.mark_price is None for position, _ in held) or event.holdings:
        return
    if tiers.contract is not None and (tiers.contract[[market for _, market in held]] == ASSET).any():
        # A position in what is an asset by our tables: nothing of it is known.
        return
    legs, price = _legs([position for position, _ in held], [market for _, market in held], tiers)
    value = np.empty(price.size)
    value_legs(legs, price, tiers, out=value)
    cash = np.array([event.cross_cash_usd, *(p.isolated_cash_usd for p, _ in held if p.isolated_cash_usd is not None)])
    surplus = cash + np.bincount(legs.account, weights=value, minlength=cash.size)
    is_cross = legs.account == 0
    every = np.arange(price.size)
    parts = column_values(legs.column_legs(every, every, tiers), price, tiers)
    if event.account_value_usd is not None:
        yield "account_value", None, float(cash[0] + parts.equity_usd[is_cross].sum()), event.account_value_usd
    if event.maintenance_margin_usd is not None:
        yield "maintenance_margin", None, float(parts.maintenance_usd[is_cross].sum()), event.maintenance_margin_usd
    shock, trigger = np.asarray(surplus[legs.account], dtype=np.float64), np.empty(price.size)
    find_triggers(legs, price, value, tiers, shock=shock, trigger=trigger)
    for (position, _), ours, at_present in zip(held, trigger.tolist(), surplus[legs.account].tolist(), strict=True):
        if position.liquidation_price is not None and at_present > 0.0:
            # No price of ours where the venue has one is a difference without bound, not one that is not there.
            yield "liquidation_price", position.symbol, max(0.0, ours), position.liquidation_price


def _legs(positions: list[PositionReport], markets: list[int], tiers: TierTable) -> tuple[Legs, Array]:
    """Lay the positions of one report out: row 0 is the cross account, each isolated position has a row of its own."""
    account = np.zeros(len(positions), dtype=np.int32)
    isolated = 0
    for place, position in enumerate(positions):
        if position.isolated_cash_usd is not None:
            isolated += 1
            account[place] = isolated
    market = np.array(markets, dtype=np.int32)
    size = np.array([position.size for position in positions])
    second = second_tier_price(size, market, tiers)
    entry = np.array([math.nan if position.entry_price is None else position.entry_price for position in positions])
    slope = np.asarray(base_coefficient(size, tiers.rate[market, 0]), dtype=np.float64)
    second[has_jumps(tiers)[market]] = GENERAL
    if tiers.contract is not None:
        second[tiers.contract[market] != LINEAR] = GENERAL
    keys = list(zip(account.tolist(), markets, strict=True))
    doubled = [keys.count(key) > 1 for key in keys] if len(set(keys)) < len(keys) else []
    if doubled:
        second[np.array(doubled)] = GENERAL
    price = np.array([position.mark_price for position in positions], dtype=np.float64)
    return Legs(account, market, size, slope, second, entry), price
