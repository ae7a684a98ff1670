"""The first weeks of a venue's history: accounts replayed from fills and ledger up to each of their liquidations.

Nothing looks ahead: the state at a liquidation is made of what came before it, without the fill that took the position over. Fees,
funding, transfers between accounts and everything before the tape's first day are missing from the files, so that reconstructed
values are off, some by cents and some by all they have; see :class:`Account` for what can be inferred along the way.
"""

from __future__ import annotations

import bisect
import csv
import datetime as dt
from collections import defaultdict
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from connectors.hyperliquid_markets import margin_tiers
from monitor.margin import TierTable, build_tier_table, leg_value

MAX_LEVERAGE: Final = 50.0
"""Of every coin then, so that maintenance was 1 % of the notional and opening a position took 2 % of it."""

TIERS: Final[TierTable] = build_tier_table([margin_tiers([0.0], [MAX_LEVERAGE])])

FUNDING_PER_HOUR: Final = 1e-4 / 8.0
"""The interest part of funding, 0.01 % for eight hours, from longs to shorts (venues.md 1.8)."""

DUST: Final = 1e-9
"""Sizes have at most five decimals; what is below this is what sums of doubles leave."""


class Fill(NamedTuple):
    """One side of a trade: ``size`` is signed; ``crossed`` is whether the account took liquidity."""

    second: int
    user: str
    coin: str
    size: float
    price: float
    crossed: bool


class Transfer(NamedTuple):
    """Money that came in (positive) or went out."""

    second: int
    user: str
    amount_usd: float


class Liquidated(NamedTuple):
    """What the venue published of one liquidation."""

    second: int
    user: str
    notional_usd: float
    account_value_usd: float
    kind: Literal["Cross", "Isolated"]

    @property
    def tolerance_usd(self) -> float:
        """How near a reconstructed account value has to be: fees and funding are missing."""
        return max(1.0, 0.02 * self.notional_usd)


class History(NamedTuple):
    """The three files, each by time."""

    fills: tuple[Fill, ...]
    transfers: tuple[Transfer, ...]
    liquidations: tuple[Liquidated, ...]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _second(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp())


def read_history(folder: Path) -> History:
    """Read the files of `hl_official_2023`."""
    fills = (
        Fill(
            _second(row["time"]),
            row["user"],
            row["coin"],
            {"Bid": 1.0, "Ask": -1.0}[row["side"]] * float(row["sz"]),
            float(row["px"]),
            row["crossed"] == "true",
        )
        for row in _rows(folder / "non_mm_trades.csv")
    )
    transfers = (
        Transfer(_second(row["time"]), row["user"], float(row["delta_usd"])) for row in _rows(folder / "non_mm_ledger_updates.csv")
    )
    liquidations = []
    for row in _rows(folder / "liquidations.csv"):
        kind = row["leverage_type"]
        assert kind in {"Cross", "Isolated"}
        notional, value = float(row["liquidated_ntl_pos"]), float(row["liquidated_account_value"])
        liquidations.append(
            Liquidated(_second(row["time"]), row["user"], notional, value, "Cross" if kind == "Cross" else "Isolated")
        )
    return History(
        tuple(sorted(fills, key=lambda fill: fill.second)),
        tuple(sorted(transfers, key=lambda transfer: transfer.second)),
        tuple(sorted(liquidations, key=lambda row: row.second)),
    )


class Marks:
    """Last trade price of each coin: the files have no mark prices."""

    def __init__(self, fills: tuple[Fill, ...], forced: frozenset[Fill]) -> None:
        self._seconds: dict[str, list[int]] = defaultdict(list)
        self._prices: dict[str, list[float]] = defaultdict(list)
        # A take-over is booked at the price that leaves the account nothing, which is not where the market is. It is left out for
        # both parties, or it would announce itself.
        taken = {(fill.second, fill.coin, fill.price) for fill in forced}
        for fill in fills:
            if (fill.second, fill.coin, fill.price) not in taken:
                self._seconds[fill.coin].append(fill.second)
                self._prices[fill.coin].append(fill.price)

    def at(self, second: int, coin: str) -> float:
        """Return the last price at or before a second, NaN before the first."""
        row = bisect.bisect_right(self._seconds[coin], second) - 1
        return self._prices[coin][row] if row >= 0 else float("nan")

    def changes(self, coin: str, start: int, end: int) -> list[int]:
        """Return the seconds after ``start`` and up to ``end`` in which the coin traded."""
        seconds = self._seconds[coin]
        return seconds[bisect.bisect_right(seconds, start) : bisect.bisect_right(seconds, end)]


class Account:
    """Cash and positions of one account, replayed.

    Plain, it adds up. With ``infers`` it also draws three conclusions from the rules of the venue:

    * a liquidation leaves nothing: the position is taken over at the price that leaves zero. What the sum still shows then is money
      that left unseen, and is set aside. If the account later opens what it could not without it, it is put back: the position had
      a margin of its own, whatever its label.
    * nobody opens a position or withdraws below maintenance. Where the sum is below that after either, a deposit is missing, of at
      least the difference.
    * funding is paid at :data:`FUNDING_PER_HOUR`, what the venue's formula gives as long as the premium is small.
    """

    def __init__(self, marks: Marks, *, infers: bool) -> None:
        self.marks = marks
        self.infers = infers
        self.cash_usd = 0.0
        self.sizes: dict[str, float] = {}
        self.set_aside_usd = 0.0
        self.put_back_usd: dict[int, float] = {}
        self.missing_usd = 0.0
        self.emptied_second = 0
        self.changed_second = 0
        self._funded_second = 0

    def value_usd(self, prices: dict[str, float]) -> float:
        """Return cash and positions at the given prices."""
        return self.cash_usd + sum(size * prices[coin] for coin, size in self.sizes.items())

    def surplus_usd(self, prices: dict[str, float]) -> float:
        """Return the value less maintenance; below zero the account is liquidatable."""
        sizes = np.array(list(self.sizes.values()))
        at = np.array([prices[coin] for coin in self.sizes])
        return self.cash_usd + float(leg_value(sizes, at, np.zeros(sizes.size, dtype=np.int32), TIERS)[0].sum())

    def prices(self, second: int) -> dict[str, float]:
        """Return the last trade prices of the coins held."""
        return {coin: self.marks.at(second, coin) for coin in self.sizes}

    def advance(self, second: int) -> None:
        """Pay funding up to ``second``."""
        if self.infers:
            hours = (second - self._funded_second) / 3600.0
            prices = self.prices(second)
            value = sum(size * prices[coin] for coin, size in self.sizes.items())
            self.cash_usd -= FUNDING_PER_HOUR * hours * value
        self._funded_second = second

    def transfer(self, transfer: Transfer) -> None:
        """Apply a row of the ledger."""
        self.cash_usd += transfer.amount_usd
        self.changed_second = transfer.second
        if self.infers and transfer.amount_usd < 0.0:
            self._raise_to_floor(transfer.second, {})

    def fill(self, fill: Fill) -> None:
        """Apply a fill."""
        before = self.sizes.get(fill.coin, 0.0)
        after = before + fill.size
        self.cash_usd -= fill.size * fill.price
        self.changed_second = fill.second
        self.sizes[fill.coin] = after
        if abs(after) < DUST:
            del self.sizes[fill.coin]
        if self.infers and abs(after) > abs(before):
            self._raise_to_floor(fill.second, {fill.coin: fill.price})

    def liquidated(self) -> None:
        """Conclude that nothing is left, once the fill of a liquidation has closed everything."""
        if self.infers and not self.sizes:
            self.set_aside_usd, self.cash_usd = self.cash_usd, 0.0
            self.emptied_second = self._funded_second

    def _raise_to_floor(self, second: int, traded: dict[str, float]) -> None:
        prices = {**self.prices(second), **traded}
        lacking = -self.surplus_usd(prices)
        if not lacking > 0.0:
            return
        if self.set_aside_usd > 0.0:
            self.put_back_usd[self.emptied_second] = self.set_aside_usd
            self.cash_usd += self.set_aside_usd
            lacking -= self.set_aside_usd
            self.set_aside_usd = 0.0
        if lacking > 0.0:
            self.cash_usd += lacking
            self.missing_usd += lacking


class Reproduction(NamedTuple):
    """One liquidation, and the account as replayed up to it.

    ``value_usd`` and ``surplus_usd`` are at the marks that the published notional implies; ``tape_value_usd`` is at last trade
    prices. ``flagged_second`` is the first moment since the account last changed at which the surplus at last trade prices was
    below zero. ``handed_over_usd`` is what the liquidator gets: the position at its mark less what the take-over pays for it.
    ``polled_surplus_usd`` is the surplus right after the account's last change, at last trade prices, had its cash then been such
    that it ends at the published account value.
    """

    row: Liquidated
    value_usd: float
    surplus_usd: float
    tape_value_usd: float
    flagged_second: int | None
    handed_over_usd: float
    sizes_match: bool
    polled_surplus_usd: float

    @property
    def error_usd(self) -> float:
        """Replayed less published account value."""
        return self.value_usd - self.row.account_value_usd

    @property
    def is_reproduced(self) -> bool:
        """Whether the replayed value is near enough."""
        return abs(self.error_usd) <= self.row.tolerance_usd

    @property
    def is_reproduced_on_tape(self) -> bool:
        """Whether it is at last trade prices as well."""
        return abs(self.tape_value_usd - self.row.account_value_usd) <= self.row.tolerance_usd


class Replayed(NamedTuple):
    """All liquidations, and the accounts as they are at the end."""

    reproductions: tuple[Reproduction, ...]
    accounts: dict[str, Account]


def take_over_fills(history: History) -> dict[Liquidated, tuple[Fill, ...]]:
    """Return the fills that are liquidations: in the second of one, of the account, without having crossed the spread."""
    return {
        row: tuple(f for f in history.fills if (f.second, f.user, f.crossed) == (row.second, row.user, False))
        for row in history.liquidations
    }


def replay(history: History, *, infers: bool) -> Replayed:
    """Replay every account that was ever liquidated."""
    forced = take_over_fills(history)
    left_out = frozenset(fill for fills in forced.values() for fill in fills)
    marks = Marks(history.fills, left_out)
    users = {row.user for row in history.liquidations}
    accounts = {user: Account(marks, infers=infers) for user in users}
    rows = {(row.second, row.user): row for row in history.liquidations}
    # Within a second: money first, then fills, then the liquidation.
    events: list[tuple[int, int, Transfer | Fill | Liquidated]] = [
        *((transfer.second, 0, transfer) for transfer in history.transfers),
        *((fill.second, 1, fill) for fill in history.fills if fill not in left_out),
        *((row.second, 2, row) for row in history.liquidations),
    ]
    found = []
    for _, _, event in sorted(events, key=lambda item: item[:2]):
        if event.user not in users:
            continue
        account = accounts[event.user]
        account.advance(event.second)
        match event:
            case Transfer():
                account.transfer(event)
            case Fill():
                account.fill(event)
            case Liquidated():
                found.append(_reproduce(account, event, forced[rows[event.second, event.user]]))
                for fill in forced[event]:
                    account.fill(fill)
                account.liquidated()
    return Replayed(tuple(found), accounts)


def _reproduce(account: Account, row: Liquidated, forced: tuple[Fill, ...]) -> Reproduction:
    taken = {fill.coin: -fill.size for fill in forced}
    tape = account.prices(row.second)
    # The venue's notional is at its marks. For one position that is its mark; for several of one side, the sum of their values is
    # all that the account's value takes, and last trades are scaled to it.
    scale = row.notional_usd / sum(abs(size) * tape[coin] for coin, size in taken.items())
    at_venue = {coin: price * scale if coin in taken else price for coin, price in tape.items()}
    side = float(np.sign(next(iter(taken.values()))))
    value, opened = account.value_usd(at_venue), account.changed_second
    return Reproduction(
        row=row,
        value_usd=value,
        surplus_usd=account.surplus_usd(at_venue),
        tape_value_usd=account.value_usd(tape),
        flagged_second=_first_flag(account, row.second),
        handed_over_usd=side * row.notional_usd + sum(fill.size * fill.price for fill in forced),
        sizes_match=set(taken) == set(account.sizes) and all(abs(taken[c] - account.sizes[c]) < DUST for c in taken),
        polled_surplus_usd=account.surplus_usd(account.prices(opened)) + row.account_value_usd - value,
    )


def _first_flag(account: Account, second: int) -> int | None:
    """Return when the surplus at last trade prices first went below zero since the account last changed, up to ``second``."""
    moments = sorted({m for coin in account.sizes for m in account.marks.changes(coin, account.changed_second, second)})
    return next((moment for moment in moments if account.surplus_usd(account.prices(moment)) < 0.0), None)
