"""Questions about accounts, answered from the state of the core: who is at risk, and what one account looks like in full.

Reading only, and synchronous: whoever asks does so between two events. Sums over all accounts, and the choice of whom to list, are
those of the last full sweep, a few seconds old at most, and say so; what is listed is computed anew, and stands in the order of
what is said of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.events import AccountMode, Contract
from monitor.account_margins import MarginFigures, exposures, margin_figures
from monitor.account_report import (
    AccountAtRisk,
    AccountQuery,
    AccountReport,
    AccountsAtRisk,
    AccountState,
    Disagreements,
    LegReport,
    MarginReport,
)
from monitor.engine import Engine
from monitor.margin import ASSET, INVERSE, LINEAR, Array
from monitor.state.accounts import MODE_OTHER, MODE_STANDARD, MODE_UNASKED, MODE_UNIFIED
from monitor.state.legs import NOBODY
from monitor.triggers import value_legs

CONTRACTS: dict[int, Contract] = {LINEAR: "linear", INVERSE: "inverse", ASSET: "asset"}
MODES: dict[int, AccountMode | None] = {
    MODE_UNASKED: None,
    MODE_STANDARD: "standard",
    MODE_UNIFIED: "unified",
    MODE_OTHER: "unknown",
}

SMALL_MOVE = 1e-4
"""Step of the difference quotient that says how fast a surplus changes: far above rounding, and few tiers end within it."""

CANDIDATES = 2
"""The nearest accounts are chosen by the surplus as it changes at present; tiers on the way bend it, so that twice as many as are
asked for are looked at closely."""


class _Sums(NamedTuple):
    """Sums per margin row at the prices of one moment; arrays of shape (rows,).

    ``lever_usd`` is what the equity gains if all prices double, ``slope_usd`` what the surplus gains per unit of a small common
    move of all prices.
    """

    sweeps: int
    notional_usd: Array
    equity_usd: Array
    lever_usd: Array
    slope_usd: Array


class AccountQueries:
    """The questions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._accounts = engine.accounts
        self._sums: _Sums | None = None

    # ---------------------------------------------------------------------------------------------------- at risk

    def at_risk(self, query: AccountQuery, now_ns: int) -> AccountsAtRisk:
        """List margin accounts in the order asked for; see :class:`AccountsAtRisk`."""
        accounts, sums = self._accounts, self._current_sums()
        rows = self._rows_for(query)
        is_live = accounts.is_live(rows, now_ns, self._engine.account_age_max_ns)
        is_live &= np.isfinite(accounts.legs.surplus_usd[rows]) & np.isfinite(sums.equity_usd[rows])
        live = rows[is_live]
        debt = np.maximum(-(sums.equity_usd[live] + query.move_ratio * sums.lever_usd[live]), 0.0)
        candidates = live[self._candidates(query, live, debt, sums)]
        return AccountsAtRisk(
            as_of_ns=self._engine.survey.swept_ns,
            move_ratio=query.move_ratio,
            live=int(live.size),
            unknown=int(rows.size - live.size),
            bad_debt_usd=float(debt.sum()),
            accounts=self._listed(query, candidates.tolist(), now_ns),
        )

    def _rows_for(self, query: AccountQuery) -> NDArray[np.int64]:
        """Return the margin rows with a leg where the query asks for one."""
        accounts = self._accounts
        rows = accounts.legs.rows_with_legs()
        if query.symbol is not None:
            held = [
                accounts.legs.column(index).legs(index)
                for market in self._engine.markets
                if market.symbol == query.symbol and query.venue in {None, market.venue}
                for index in self._engine.markets.family(market.index)
            ]
            rows = np.unique(np.concatenate([legs.account[legs.size != 0.0] for legs in held])) if held else rows[:0]
        elif query.venue is not None:
            rows = rows[accounts.is_of_venue(rows, query.venue)]
        wide: NDArray[np.int64] = rows[rows != NOBODY].astype(np.int64)
        return wide

    def _candidates(self, query: AccountQuery, live: NDArray[np.int64], debt: Array, sums: _Sums) -> NDArray[np.int64]:
        """Return the places of those rows that may belong on the list."""
        if query.order == "distance":
            surplus = self._accounts.legs.surplus_usd[live]
            with np.errstate(divide="ignore", invalid="ignore"):
                key = np.where(surplus < 0.0, surplus, surplus / np.abs(sums.slope_usd[live]))
        else:
            key = -sums.notional_usd[live] if query.order == "notional" else -debt
        places = np.flatnonzero(np.isfinite(key) & ((query.order != "bad_debt") | (debt > 0.0)))
        wanted = CANDIDATES * query.limit
        return places if places.size <= wanted else places[np.argpartition(key[places], wanted - 1)[:wanted]]

    def _listed(self, query: AccountQuery, rows: list[int], now_ns: int) -> tuple[AccountAtRisk, ...]:
        """Look at the candidates closely and return as many as are asked for, first ones first."""
        figures = margin_figures(self._accounts.legs, rows, self._engine.settings.margin_call_ratio)
        debt = np.maximum(-(figures.equity_usd + query.move_ratio * figures.exposure_sum_usd), 0.0)
        if query.order == "distance":
            key = np.where(figures.surplus_usd < 0.0, -1.0, np.abs(figures.distance_ratio))
        else:
            key = -figures.notional_sum_usd if query.order == "notional" else -debt
        kept = np.isfinite(key) & ((query.order != "bad_debt") | (debt > 0.0))
        # The deeper under water the earlier, and otherwise in the order of appearance, so that equal lists look the same.
        order = np.lexsort((np.asarray(rows), figures.surplus_usd * (figures.surplus_usd < 0.0), key))
        places = [place for place in order.tolist() if kept[place]][: query.limit]
        return tuple(self._at_risk(figures, place, float(debt[place]) + 0.0, now_ns) for place in places)

    def _current_sums(self) -> _Sums:
        sweeps = self._engine.survey.sweeps.sweeps
        if self._sums is None or self._sums.sweeps != sweeps or self._sums.equity_usd.size != self._accounts.legs.row_count:
            self._sums = self._sum_up(sweeps)
        return self._sums

    def _sum_up(self, sweeps: int) -> _Sums:
        table, tiers = self._accounts.legs, self._engine.tiers
        count = table.row_count
        equity, lever, slope, notional = table.cash_usd[:count].copy(), np.zeros(count), np.zeros(count), np.zeros(count)
        for market in range(len(self._engine.markets)):
            column = table.column(market)
            legs = column.legs(market)
            every = np.arange(legs.size.size)
            price = np.full(every.size, column.price)
            columns = legs.column_legs(every, every, tiers)
            exposure, size_usd = exposures(columns, price)
            np.add.at(lever, legs.account, exposure)
            np.add.at(equity, legs.account, np.where(columns.contract == INVERSE, exposure - legs.size, exposure))
            # What is owned is no position; what is owed is as good as one.
            is_owned = (columns.contract == ASSET) & (legs.size > 0.0)
            np.add.at(notional, legs.account, np.where(is_owned, 0.0, size_usd))
            before, after = np.empty(every.size), np.empty(every.size)
            value_legs(legs, price, tiers, out=before)
            value_legs(legs, price * (1.0 + SMALL_MOVE), tiers, out=after)
            np.add.at(slope, legs.account, (after - before) / SMALL_MOVE)
        return _Sums(sweeps, notional, equity, lever, slope)

    def _at_risk(self, figures: MarginFigures, place: int, debt: float, now_ns: int) -> AccountAtRisk:
        accounts, row = self._accounts, figures.rows[place]
        mine = figures.legs_at(place)
        owner, (venue, account) = accounts.owner(row), accounts.name(row)
        reach = figures.trigger_price[mine] / figures.price[mine] - 1.0
        nearest = mine.start + int(np.nanargmin(np.abs(reach))) if np.isfinite(reach).any() else None
        return AccountAtRisk(
            venue=venue,
            account=account,
            kind="cross" if owner == row else "isolated",
            pool=accounts.pool_of(row),
            notional_usd=float(figures.notional_sum_usd[place]),
            equity_usd=float(figures.equity_usd[place]),
            maintenance_usd=float(figures.maintenance_sum_usd[place]),
            margin_usage_ratio=_usage(figures.equity_usd[place] - figures.surplus_usd[place], figures.equity_usd[place]),
            distance_ratio=_known(figures.distance_ratio[place]),
            bad_debt_usd=debt,
            symbol=None if nearest is None else self._engine.markets[int(figures.market[nearest])].symbol,
            liquidation_price=None if nearest is None else float(figures.trigger_price[nearest]),
            leg_distance_ratio=None if nearest is None else float(reach[nearest - mine.start]),
            legs=mine.stop - mine.start,
            age_s=_age_s(now_ns, int(accounts.polled_ns[owner])),
        )

    # ------------------------------------------------------------------------------------------------- one account

    def account(self, venue: str, account: str, now_ns: int) -> AccountReport | None:
        """Tell everything of one account, ``None`` if it has never been seen."""
        accounts = self._accounts
        main = accounts.row_of(venue, account, create=False)
        if main is None:
            return None
        every = accounts.rows_of_account(main)
        # A part of it that was never reported and holds nothing is no margin account; the main one stands for an unknown account.
        rows = [row for row in every if accounts.legs.has_legs(row) or (row == main and accounts.polled_ns[main])] or [main]
        figures = margin_figures(accounts.legs, rows, self._engine.settings.margin_call_ratio)
        state, reasons = self._standing(main, figures, now_ns)
        return AccountReport(
            as_of_ns=now_ns,
            venue=venue,
            account=account,
            state=state,
            reasons=reasons,
            mode=MODES[int(accounts.mode[main])],
            age_s=_age_s(now_ns, min(int(accounts.polled_ns[accounts.owner(row)]) for row in rows)),
            sequence=accounts.sequences.get(main),
            simulated=venue in self._engine.settings.simulated_venues,
            margins=tuple(self._margin(figures, place, is_known=state != "unknown") for place in range(len(rows))),
        )

    def _standing(self, main: int, figures: MarginFigures, now_ns: int) -> tuple[AccountState, tuple[str, ...]]:
        """Say whether an account is live, and why not."""
        accounts = self._accounts
        cross = sorted({accounts.owner(row) for row in figures.rows})
        mode, polled_ns = int(accounts.mode[main]), min(int(accounts.polled_ns[row]) for row in cross)
        unknown = []
        if not polled_ns:
            unknown.append("the venue has not reported it yet")
        if mode == MODE_UNASKED:
            unknown.append("where it keeps its collateral has not been asked yet")
        elif mode == MODE_OTHER:
            unknown.append("it keeps its collateral where its positions do not tell")
        elif mode == MODE_UNIFIED and main not in accounts.balances:
            unknown.append("the balance behind its positions is not known yet")
        if unknown:
            return "unknown", tuple(unknown)
        reasons = []
        age_max_ns = self._engine.account_age_max_ns
        if main in accounts.resync:
            reasons.append("messages of its feed were missed, and no snapshot has come since")
        elif not all(accounts.sound[row] for row in {*cross, *accounts.pools.get(main, {}).values()}):
            reasons.append("something happened since the last report that does not explain itself")
        if polled_ns < now_ns - age_max_ns and not accounts.fed[main]:
            reasons.append(f"the last report is older than {age_max_ns / 1e9:g} s")
        for index in np.unique(figures.market).tolist():
            market = self._engine.markets[index]
            if math.isnan(accounts.legs.price_of(index)):
                reasons.append(f"{market.symbol} has no live price")
            elif np.isnan(figures.value_usd[figures.market == index]).any():
                reasons.append(f"the margin rules or the entry price of {market.symbol} are not known")
        return ("stale", tuple(reasons)) if reasons else ("live", ())

    def _margin(self, figures: MarginFigures, place: int, *, is_known: bool) -> MarginReport:
        """Tell of one margin account; without knowing its collateral, only what its positions are by themselves."""
        accounts, row = self._accounts, figures.rows[place]
        mine = figures.legs_at(place)
        maintenance, equity = figures.maintenance_sum_usd[place], figures.equity_usd[place]
        return MarginReport(
            kind="cross" if accounts.owner(row) == row else "isolated",
            pool=accounts.pool_of(row),
            cash_usd=_known(figures.cash_usd[place]) if is_known else None,
            equity_usd=_known(equity) if is_known else None,
            maintenance_usd=_known(maintenance),
            surplus_usd=_known(figures.surplus_usd[place]) if is_known else None,
            margin_usage_ratio=_usage(equity - figures.surplus_usd[place], equity) if is_known else None,
            distance_ratio=_known(figures.distance_ratio[place]) if is_known else None,
            margin_call_distance_ratio=_known(figures.margin_call_ratio[place]) if is_known else None,
            legs=tuple(self._leg(figures, index, is_known=is_known) for index in range(mine.start, mine.stop)),
        )

    def _leg(self, figures: MarginFigures, index: int, *, is_known: bool) -> LegReport:
        contract, size, price = int(figures.contract[index]), float(figures.size[index]), float(figures.price[index])
        is_alone = bool((figures.group == figures.group[index]).sum() == 1)
        # What is not known and what makes no sense is the same here: neither is a price.
        entry, theirs = _price(figures.entry_price[index]), _price(figures.venue_price[index])
        ours = _price(figures.trigger_price[index]) if is_known else None
        profit = math.nan
        if entry is not None:
            profit = size * (price / entry - 1.0) if contract == INVERSE else size * (price - entry)
        return LegReport(
            symbol=self._engine.markets[int(figures.market[index])].symbol,
            contract=CONTRACTS[contract],
            size=size,
            entry_price=None if contract == ASSET else entry,
            price=_price(price),
            notional_usd=_known(figures.notional_usd[index]),
            unrealized_usd=None if contract == ASSET else _known(profit),
            maintenance_usd=_known(figures.maintenance_usd[index]),
            liquidation_price=ours,
            distance_ratio=None if ours is None else ours / price - 1.0,
            bankruptcy_price=_price(figures.bankruptcy_price[index]) if is_known else None,
            venue_liquidation_price=theirs,
            # Beside other legs the venue's price was of the other prices as they were then.
            disagreement_ratio=None if theirs is None or ours is None or not is_alone else ours / theirs - 1.0,
        )

    def disagreements(self, now_ns: int, limit: int) -> Disagreements:
        """List the worst recent disagreements with figures of the venue."""
        return self._engine.disagreements.worst(now_ns, limit)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _price(value: float) -> float | None:
    return float(value) if math.isfinite(value) and value > 0.0 else None


def _usage(maintenance: float, equity: float) -> float | None:
    """Return maintenance over equity; without equity there is no such ratio."""
    return float(maintenance / equity) if equity > 0.0 and math.isfinite(maintenance) else None


def _age_s(now_ns: int, polled_ns: int) -> float | None:
    return (now_ns - polled_ns) / 1e9 if polled_ns else None
