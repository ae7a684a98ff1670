"""Recorded snapshots of large accounts: loading, and recovering what the dump left out from the venue's own liquidation prices.

The surplus over maintenance of a cross account follows from any one of its legs, without knowing the others: the account is
liquidatable where the price of the leg takes the surplus to zero, so ``surplus = value(mark) - value(liquidation price)`` with the
leg's own ``value(p) = q*p - maintenance(|q|*p)``. Legs that give the same surplus share an account, and from it the price of every
other leg is predicted. The dump has neither margin tables nor, in most snapshots, margin modes.
"""

from __future__ import annotations

import datetime as dt
import io
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from connectors.events import MarginTier
from connectors.hyperliquid_markets import margin_tiers
from monitor.margin import TierTable, build_tier_table, leg_value, solve_tiered_trigger

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Flags = NDArray[np.bool_]

WINDOW_BYTES: Final = 2**31
"""The archive was packed with `--long=27`; the limit is what zstandard allows on any machine."""

AGREEMENT: Final = 1e-6
"""Largest relative difference of a predicted and a printed liquidation price."""

PRINTED_STEP: Final = 1e-10
"""Liquidation prices are printed with ten decimals."""

# ------------------------------------------------------------------------------------------------------- margin tables of the venue

TABLES: Final[dict[str, tuple[MarginTier, ...]]] = {
    # The published tables (venues.md 1.9) and the single tiers that a table below number 50 stands for.
    "BTC": margin_tiers([0.0, 150e6], [40.0, 20.0]),
    "ETH": margin_tiers([0.0, 100e6], [25.0, 15.0]),
    "SOL": margin_tiers([0.0, 70e6], [20.0, 10.0]),
    "XRP": margin_tiers([0.0, 40e6], [20.0, 10.0]),
    "10x to 20M": margin_tiers([0.0, 20e6], [10.0, 5.0]),
    "10x to 3M": margin_tiers([0.0, 3e6], [10.0, 5.0]),
    **{f"flat {leverage}x": margin_tiers([0.0], [float(leverage)]) for leverage in (3, 5, 10, 20, 25, 40, 50)},
}
NAMES: Final = tuple(TABLES)
INDEX: Final = {name: index for index, name in enumerate(NAMES)}
TIERS: Final[TierTable] = build_tier_table(list(TABLES.values()))

DOCUMENTED: Final = {"BTC": "BTC", "ETH": "ETH", "SOL": "SOL", "XRP": "XRP", "HYPE": "10x to 20M"}
"""The coins whose table the venue's documentation names; the table of every other one is inferred."""

CANDIDATES: Final[dict[int | None, tuple[str, ...]]] = {
    20: ("XRP", "SOL", "flat 20x"),
    10: ("10x to 3M", "10x to 20M", "flat 10x"),
    5: ("flat 5x",),
    3: ("flat 3x",),
    None: ("flat 3x", "flat 5x", "10x to 3M", "10x to 20M", "XRP", "SOL", "flat 20x"),
}
"""Tables a coin may have, by the maximum leverage that the dump's list of markets gives it, strictest first: where the evidence is
even, some of it is of positions that keep a laxer table of earlier."""

VAULTS: Final = frozenset(
    {
        "0xdfc24b077bc1425ad1dea75bcb6f8158e10df303",
        "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14",
        "0xb0a55f13d22f66e6d495ac98113841b2326e9540",
        "0x010461c14e146ac35fe42271bdc1134ee31c703a",
        "0x31ca8395cf837de08b24da3f660e77761dfb974b",
        "0x469f690213c467c39a23efacfd2816896009d7d8",
        "0x5e177e5e39c0f4e421f5865a6d8beed8d921cb70",
        "0x2ed5c4484ea3ff8b57d5f2fb152a40d9f2b68308",
    }
)
"""The venue's own vault and its children (venues.md 1.7), whose positions all have a maximum leverage of 50: the fixture of 2026
shows such an account, with ``maxLeverage`` 50 on every coin and a maintenance of 1 % of its notional."""


# ------------------------------------------------------------------------------------------------------------------------ loading


class WirePosition(msgspec.Struct, rename="camel"):
    """One position as the dump has it; decimals are strings where the venue sent strings, and numbers in some snapshots."""

    coin: str
    direction: str
    size: float
    entry_px: str | float
    leverage: float
    position_value: float
    unrealized_pnl: str | float
    liquidation_px: str | float | None
    leverage_type: str | None = None
    margin_used: str | float | None = None


class WireAccount(msgspec.Struct, rename="camel"):
    """One account of a leaderboard."""

    address: str
    account_value: float
    positions: list[WirePosition]


class WireTracker(msgspec.Struct):
    """Two leaderboards, of a day and of a week; an account that is on both has the same positions on both."""

    daily: list[WireAccount]
    weekly: list[WireAccount]


class WireMarket(msgspec.Struct, rename="camel"):
    """A market, in the few snapshots that list them."""

    name: str
    max_leverage: int


class WireSnapshot(msgspec.Struct, rename="camel"):
    """One file of the archive."""

    last_updated: str
    whale_tracker: WireTracker
    markets: list[WireMarket] = []


class Dump(NamedTuple):
    """All legs of all snapshots, sorted by snapshot and account; a *group* is one account in one snapshot.

    ``start`` has one entry more than there are groups: legs of group g are ``start[g]:start[g + 1]``. ``liquidation`` is NaN where
    the venue printed none. ``entry_step`` is the unit of the last digit that entry prices of the coin have. ``mode`` is 1 for
    isolated, 0 for cross, -1 where the snapshot does not say; ``margin_used`` is NaN there.
    """

    hours: Floats
    start: Ints
    group_snapshot: Ints
    group_account: Ints
    group_is_daily: Flags
    group_value: Floats
    addresses: tuple[str, ...]
    coins: tuple[str, ...]
    max_leverage: dict[str, int]
    group: Ints
    coin: Ints
    size: Floats
    mark: Floats
    entry: Floats
    entry_step: Floats
    pnl: Floats
    leverage: Floats
    liquidation: Floats
    mode: Ints
    margin_used: Floats

    @property
    def groups(self) -> int:
        """How many pairs of snapshot and account there are."""
        return self.start.size - 1

    def position_keys(self) -> Ints:
        """One number per account, coin and side, the same in all snapshots."""
        account = self.group_account[self.group]
        return (account * len(self.coins) + self.coin) * 2 + (self.size > 0.0)


def read_snapshots(path: Path) -> list[WireSnapshot]:
    """Decode every file of the archive, oldest first."""
    with path.open("rb") as packed:
        raw = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).stream_reader(packed).read()
    snapshots = []
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                snapshots.append(msgspec.json.decode(content.read(), type=WireSnapshot))
    return sorted(snapshots, key=lambda snapshot: snapshot.last_updated)


@cache
def load(path: Path) -> Dump:
    """Read the archive into flat arrays, each account once per snapshot."""
    snapshots = read_snapshots(path)
    address_rows: dict[str, int] = {}
    coin_rows: dict[str, int] = {}
    group_rows: list[tuple[int, int, bool, float]] = []
    legs: list[tuple[float, ...]] = []
    max_leverage: dict[str, int] = {}
    hours: list[float] = []
    for number, snapshot in enumerate(snapshots):
        hours.append(dt.datetime.fromisoformat(snapshot.last_updated).timestamp() / 3600.0)
        max_leverage.update((market.name, market.max_leverage) for market in snapshot.markets)
        seen: set[str] = set()
        tracker = snapshot.whale_tracker
        for is_daily, account in [*((True, a) for a in tracker.daily), *((False, a) for a in tracker.weekly)]:
            if not account.positions or account.address in seen:
                continue
            seen.add(account.address)
            row = address_rows.setdefault(account.address, len(address_rows))
            group_rows.append((number, row, is_daily, account.account_value))
            for leg in account.positions:
                coin = coin_rows.setdefault(leg.coin, len(coin_rows))
                legs.append(_leg(len(group_rows) - 1, coin, leg))
    columns = np.array(legs).T
    group, coin_of_leg = columns[0].astype(np.int64), columns[1].astype(np.int64)
    decimals = np.zeros(len(coin_rows))
    np.maximum.at(decimals, coin_of_leg, columns[10])
    # Six figures at most, however many decimals the coin has.
    entry_step = np.maximum(10.0 ** -decimals[coin_of_leg], 10.0 ** (np.floor(np.log10(columns[4])) - 5.0))
    return Dump(
        hours=np.array(hours),
        start=np.searchsorted(group, np.arange(len(group_rows) + 1)),
        group_snapshot=np.array([row[0] for row in group_rows]),
        group_account=np.array([row[1] for row in group_rows]),
        group_is_daily=np.array([row[2] for row in group_rows]),
        group_value=np.array([row[3] for row in group_rows]),
        addresses=tuple(address_rows),
        coins=tuple(coin_rows),
        max_leverage=max_leverage,
        group=group,
        coin=coin_of_leg,
        size=columns[2],
        mark=columns[3],
        entry=columns[4],
        entry_step=entry_step,
        pnl=columns[5],
        leverage=columns[6],
        liquidation=columns[7],
        mode=columns[8].astype(np.int64),
        margin_used=columns[9],
    )


def _leg(group: int, coin: int, leg: WirePosition) -> tuple[float, ...]:
    side = {"Long": 1.0, "Short": -1.0}[leg.direction]
    mode = -1 if leg.leverage_type is None else {"cross": 0, "isolated": 1}[leg.leverage_type]
    return (
        group,
        coin,
        side * leg.size,
        leg.position_value / leg.size,
        float(leg.entry_px),
        float(leg.unrealized_pnl),
        leg.leverage,
        np.nan if leg.liquidation_px is None else float(leg.liquidation_px),
        mode,
        np.nan if leg.margin_used is None else float(leg.margin_used),
        len(str(leg.entry_px).partition(".")[2]),
    )


# ------------------------------------------------------------------------------------------------- surplus, readings, predictions


def values_at(dump: Dump, legs: Ints, price: Floats, table: Ints) -> tuple[Floats, Floats]:
    """Return value and maintenance of legs at prices, under the given margin table each."""
    value, maintenance = leg_value(dump.size[legs], price, table.astype(np.int32), TIERS)
    return value, maintenance


def implied_surplus(dump: Dump, legs: Ints, table: Ints) -> Floats:
    """Return the surplus of the account that each leg's printed liquidation price implies; NaN for legs without a price."""
    priced = np.isfinite(dump.liquidation[legs])
    at = np.where(priced, dump.liquidation[legs], 1.0)
    surplus = values_at(dump, legs, dump.mark[legs], table)[0] - values_at(dump, legs, at, table)[0]
    return np.where(priced, surplus, np.nan)


def predict(dump: Dump, legs: Ints, surplus: Floats, table: Ints) -> Floats:
    """Return the liquidation price of each leg in an account of the given surplus; not positive or NaN where there is none."""
    rest = surplus - values_at(dump, legs, dump.mark[legs], table)[0]
    return solve_tiered_trigger(dump.size[legs], table.astype(np.int32), rest, TIERS)


def agrees(dump: Dump, legs: Ints, predicted: Floats, slack: float | Floats = 0.0) -> Flags:
    """Tell where a prediction is the venue's: within :data:`AGREEMENT` (plus ``slack``, absolute), or none where it has none."""
    printed = dump.liquidation[legs]
    has_none = ~np.isfinite(printed)
    # The venue prints ten decimals, so a price that rounds to zero is none.
    none_predicted = ~(predicted >= 0.5 * PRINTED_STEP)
    near = np.abs(predicted - np.where(has_none, 1.0, printed)) <= AGREEMENT * printed + slack
    return np.where(has_none, none_predicted, near)


class Readings(NamedTuple):
    """Candidate surpluses, one row per distinct one that some leg of a group implies; ``leg`` is the leg it is taken from."""

    group: Ints
    leg: Ints
    surplus: Floats


def readings_of(dump: Dump, legs: Ints, table: Ints) -> Readings:
    """Cluster the implied surpluses of each group, and stand for a cluster with the leg whose printed price rounds it least."""
    surplus = implied_surplus(dump, legs, table)
    kept = np.flatnonzero(np.isfinite(surplus))
    order = kept[np.lexsort((surplus[kept], dump.group[legs[kept]]))]
    group, value = dump.group[legs[order]], surplus[order]
    if not order.size:
        return Readings(group, legs[order], value)
    begins = np.ones(order.size, dtype=bool)
    # Legs of one account differ by rounding only, several orders below this; others differ by percents.
    begins[1:] = (group[1:] != group[:-1]) | (np.diff(value) > 1e-7 * np.abs(value[1:]))
    cluster = np.cumsum(begins) - 1
    best = np.lexsort((np.abs(dump.size[legs[order]]), cluster))
    first = best[np.searchsorted(cluster[best], np.arange(cluster[-1] + 1))]
    return Readings(group[first], legs[order[first]], value[first])


def expand(dump: Dump, groups: Ints) -> tuple[Ints, Ints]:
    """Return the legs of each of ``groups`` in turn, and the position in ``groups`` that each belongs to."""
    counts = dump.start[groups + 1] - dump.start[groups]
    owner = np.repeat(np.arange(groups.size), counts)
    offset = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return dump.start[groups][owner] + offset, owner


class Outcome(NamedTuple):
    """The reading that most legs of each group agree with.

    ``surplus`` per group is NaN where no leg has a price; ``agreeing`` counts legs, ``priced`` those with a price and
    ``confirming`` the priced ones among the agreeing. ``leg_agrees`` and ``predicted`` are per leg of the dump; predictions come
    from the cross leg of the reading, whose own is no prediction.
    """

    surplus: Floats
    agreeing: Ints
    priced: Ints
    confirming: Ints
    leg_agrees: Flags
    predicted: Floats


def consensus(dump: Dump, table: Ints, chosen: Ints | None = None) -> Outcome:
    """Find the consensus of each group, in all legs or in the ``chosen`` ones only, with a margin table per leg of the dump."""
    is_chosen = np.ones(dump.size.size, dtype=bool) if chosen is None else np.isin(np.arange(dump.size.size), chosen)
    pool = np.flatnonzero(is_chosen)
    readings = readings_of(dump, pool, table[pool])
    legs, owner = expand(dump, readings.group)
    keep = is_chosen[legs]
    legs, owner = legs[keep], owner[keep]
    predicted = predict(dump, legs, readings.surplus[owner], table[legs])
    agree = agrees(dump, legs, predicted)
    count = np.bincount(owner, weights=agree, minlength=readings.group.size).astype(np.int64)
    order = np.lexsort((-count, readings.group))
    _, first = np.unique(readings.group[order], return_index=True)
    best = np.zeros(readings.group.size, dtype=bool)
    best[order[first]] = True
    surplus = np.full(dump.groups, np.nan)
    surplus[readings.group[best]] = readings.surplus[best]
    leg_agrees = np.zeros(dump.size.size, dtype=bool)
    leg_predicted = np.full(dump.size.size, np.nan)
    of_best = best[owner]
    leg_agrees[legs[of_best]] = agree[of_best]
    leg_predicted[legs[of_best]] = predicted[of_best]
    is_priced = np.isfinite(dump.liquidation) & is_chosen
    return Outcome(
        surplus=surplus,
        agreeing=_per_group(dump, leg_agrees),
        priced=_per_group(dump, is_priced),
        confirming=_per_group(dump, leg_agrees & is_priced),
        leg_agrees=leg_agrees,
        predicted=leg_predicted,
    )


def _per_group(dump: Dump, flags: Flags) -> Ints:
    return np.bincount(dump.group, weights=flags, minlength=dump.groups).astype(np.int64)


# ---------------------------------------------------------------------------------------------------- inferring the tables of coins


class Inference(NamedTuple):
    """Tables inferred from two halves of the accounts: ``tables[h][coin]``, with the evidence as ``votes[h][coin][name]``.

    A vote is one distinct account of that half that the table explains where another candidate does not.
    """

    tables: tuple[dict[str, str], dict[str, str]]
    votes: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]


def half_of(dump: Dump) -> Ints:
    """Split accounts in two halves by the last digit of the address."""
    digit = np.array([int(address[-1], 16) & 1 for address in dump.addresses])
    half: Ints = digit[dump.group_account]
    return half


def infer_tables(dump: Dump) -> Inference:
    """Infer each coin's table from accounts whose surplus two or more legs in documented coins agree on."""
    documented = np.array([coin in DOCUMENTED for coin in dump.coins])
    table = np.array([INDEX[DOCUMENTED.get(coin, "flat 3x")] for coin in dump.coins])[dump.coin]
    anchor = consensus(dump, table, np.flatnonzero(documented[dump.coin]))
    is_anchored = anchor.confirming >= 2
    usable = np.flatnonzero(is_anchored[dump.group] & ~documented[dump.coin] & np.isfinite(dump.liquidation))
    surplus, half = anchor.surplus[dump.group[usable]], half_of(dump)[dump.group[usable]]
    fits = np.column_stack(
        [agrees(dump, usable, predict(dump, usable, surplus, np.full(usable.size, row))) for row in range(len(NAMES))]
    )
    votes: tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]] = ({}, {})
    tables: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for number, coin in enumerate(dump.coins):
        if coin in DOCUMENTED:
            tables[0][coin] = tables[1][coin] = DOCUMENTED[coin]
            continue
        names = CANDIDATES[dump.max_leverage.get(coin)]
        columns = np.array([INDEX[name] for name in names])
        for side in (0, 1):
            rows = np.flatnonzero((dump.coin[usable] == number) & (half == side))
            fitting = fits[np.ix_(rows, columns)].sum(axis=1)
            telling = rows[(fitting > 0) & ((fitting < len(columns)) | (len(columns) == 1))]
            accounts = dump.group_account[dump.group[usable[telling]]]
            votes[side][coin] = {
                name: np.unique(accounts[fits[telling, column]]).size for name, column in zip(names, columns, strict=True)
            }
            # The first of equals.
            tables[side][coin] = names[int(np.argmax([votes[side][coin][name] for name in names]))]
    return Inference(tables, votes)


def base_tables(dump: Dump, inference: Inference) -> Ints:
    """Return the table of each leg: that of its coin as inferred from the *other* half of the accounts, or the vaults' own."""
    by_half = np.array([[INDEX[inference.tables[side][coin]] for coin in dump.coins] for side in (0, 1)])
    table: Ints = by_half[1 - half_of(dump)[dump.group], dump.coin]
    is_vault = np.array([address in VAULTS for address in dump.addresses])
    table[is_vault[dump.group_account[dump.group]]] = INDEX["flat 50x"]
    return table


# ------------------------------------------------------------------------------------ older tables of positions, learned on the way


class Walk(NamedTuple):
    """Snapshots in order, with the table of each position as earlier snapshots showed it.

    ``table`` is what each leg was predicted with, so that no leg's own price chose it; ``learned`` marks the legs whose table is
    not that of their coin.
    """

    outcome: Outcome
    table: Ints
    learned: Flags


def other_table(dump: Dump, legs: Ints, surplus: Floats) -> Ints:
    """Return the first of the venue's tables that gives each leg's printed price at the given surplus, or -1."""
    found = np.full(legs.size, -1)
    for row in range(len(NAMES)):
        fits = agrees(dump, legs, predict(dump, legs, surplus, np.full(legs.size, row)))
        found[(found < 0) & fits] = row
    found[~np.isfinite(dump.liquidation[legs])] = -1
    return found


def walk_forward(dump: Dump, base: Ints) -> Walk:
    """Predict snapshot after snapshot, learning after each which positions have another table than their coin has now.

    The venue keeps the margin table of a position when it lowers the leverage of the coin, and states its maximum leverage with the
    position, which the dump left out. Learned is what the account's other legs prove, two at least.
    """
    keys = dump.position_keys()
    table = base.copy()
    known: dict[int, int] = {}
    leg_snapshot = dump.group_snapshot[dump.group]
    parts: list[Outcome] = []
    for number in range(dump.hours.size):
        legs = np.flatnonzero(leg_snapshot == number)
        table[legs] = [known.get(int(key), int(row)) for key, row in zip(keys[legs], base[legs], strict=True)]
        outcome = consensus(dump, table, legs)
        parts.append(outcome)
        proven = legs[(outcome.confirming[dump.group[legs]] >= 2) & np.isfinite(dump.liquidation[legs])]
        wrong = proven[~outcome.leg_agrees[proven]]
        for leg, row in zip(wrong, other_table(dump, wrong, outcome.surplus[dump.group[wrong]]), strict=True):
            if row >= 0:
                known[int(keys[leg])] = int(row)
    return Walk(_merged(dump, parts, leg_snapshot), table, table != base)


def _merged(dump: Dump, parts: Sequence[Outcome], leg_snapshot: Ints) -> Outcome:
    """Put the outcomes of single snapshots together."""
    by_group, by_leg = dump.group_snapshot, leg_snapshot
    groups, legs = np.arange(dump.groups), np.arange(dump.size.size)
    return Outcome(
        surplus=np.stack([part.surplus for part in parts])[by_group, groups],
        agreeing=np.stack([part.agreeing for part in parts])[by_group, groups],
        priced=np.stack([part.priced for part in parts])[by_group, groups],
        confirming=np.stack([part.confirming for part in parts])[by_group, groups],
        leg_agrees=np.stack([part.leg_agrees for part in parts])[by_leg, legs],
        predicted=np.stack([part.predicted for part in parts])[by_leg, legs],
    )


# ------------------------------------------------------------------------------------------------------- why legs do not agree

AGREE: Final = "agrees"
ROUNDING: Final = "agrees within the ten decimals that are printed"
OTHER_TABLE: Final = "position with another margin table"
RECORDED: Final = "isolated: the snapshot says so, and its margin gives the price"
RECORDED_ELSEWHERE: Final = "isolated: another snapshot says so of the same position"
OPENING_MARGIN: Final = "isolated formula, with the margin that the leverage sets"
STEADY_CASH: Final = "isolated formula, with margin added or removed that stays the same while the mark moves"
UNEXPLAINED: Final = "unexplained"  # An isolated position can have any margin, so it may be one; nothing shows it.
CAUSES: Final = (AGREE, ROUNDING, OTHER_TABLE, RECORDED, RECORDED_ELSEWHERE, OPENING_MARGIN, STEADY_CASH, UNEXPLAINED)
"""From the strongest evidence to none; a leg counts under the first that holds."""

OPENING_SLACK: Final = 0.01
"""How far an isolated position's cash may be from that of its opening, as a ratio of its entry notional: funding since then."""

DRIFT_PER_HOUR: Final = 1e-4
DRIFT_MAX: Final = 5e-3
MOVE_MIN: Final = 5e-3
"""Cash that stays: it may change by funding, 1e-4 of the notional per hour (eight times the usual rate) and never more than half a
percent, between two snapshots of an unchanged position whose mark moved by half a percent at least."""


class IsolatedEvidence(NamedTuple):
    """Flags per leg of the dump. ``recorded_cross`` are legs that a snapshot calls cross; those have no other evidence."""

    recorded: Flags
    recorded_elsewhere: Flags
    opening_margin: Flags
    steady_cash: Flags
    recorded_cross: Flags


def isolated_cash(dump: Dump, table: Ints) -> Floats:
    """Return the cash that an isolated position must have for its printed price: ``-value(liquidation price)``."""
    every = np.arange(dump.size.size)
    return -values_at(dump, every, dump.liquidation, table)[0]


def isolated_price(dump: Dump, cash: Floats, table: Ints) -> Floats:
    """Return the liquidation price of each leg as an isolated position with the given cash."""
    return solve_tiered_trigger(dump.size, table.astype(np.int32), cash, TIERS)


def isolated_evidence(dump: Dump, table: Ints) -> IsolatedEvidence:
    """Find what speaks for a leg being isolated, without looking at the rest of its account."""
    every = np.arange(dump.size.size)
    half_step = 0.5 * PRINTED_STEP
    from_margin = isolated_price(dump, dump.margin_used - dump.size * dump.mark, table)
    recorded = (dump.mode == 1) & agrees(dump, every, from_margin, half_step)
    keys = dump.position_keys()
    elsewhere = (dump.mode == -1) & np.isin(keys, keys[recorded])
    notional = np.abs(dump.size) * dump.entry
    opening = notional / dump.leverage - dump.size * dump.entry
    cash = isolated_cash(dump, table)
    priced = np.isfinite(dump.liquidation)
    # Without a price there is no cash to compare; the formula holds if it gives no price either.
    none = ~(isolated_price(dump, opening + OPENING_SLACK * notional, table) > 0.0)
    near = np.abs(cash - opening) <= OPENING_SLACK * notional
    return IsolatedEvidence(
        recorded=recorded,
        recorded_elsewhere=elsewhere,
        opening_margin=np.where(priced, near, none),
        steady_cash=_steady(dump, keys, cash / notional),
        recorded_cross=dump.mode == 0,
    )


def _steady(dump: Dump, keys: Ints, cash_ratio: Floats) -> Flags:
    """Flag legs whose cash, by the isolated formula, is that of another snapshot of the same unchanged position."""
    hour = dump.hours[dump.group_snapshot[dump.group]]
    order = np.lexsort((hour, dump.entry, dump.size, keys))
    steady = np.zeros(keys.size, dtype=bool)
    for lag in range(1, dump.hours.size):
        earlier, later = order[:-lag], order[lag:]
        same = keys[earlier] == keys[later]
        same &= (dump.size[earlier] == dump.size[later]) & (dump.entry[earlier] == dump.entry[later])
        if not same.any():
            break
        drift = np.abs(cash_ratio[later] - cash_ratio[earlier])
        allowed = np.minimum(DRIFT_PER_HOUR * (hour[later] - hour[earlier]), DRIFT_MAX)
        moved = np.abs(dump.mark[later] / dump.mark[earlier] - 1.0) >= MOVE_MIN
        hit = same & moved & (drift <= allowed)
        steady[earlier[hit]] = True
        steady[later[hit]] = True
    return steady


class Explanation(NamedTuple):
    """For each of ``groups``, all of which disagree: its legs' causes under the reading that leaves least unexplained."""

    groups: Ints
    legs: Ints
    owner: Ints
    cause: Ints


def explain(dump: Dump, groups: Ints, table: Ints, evidence: IsolatedEvidence) -> Explanation:
    """Find for each group the reading that leaves the fewest legs unexplained, and of those the one that most legs agree with.

    A reading takes one leg for a cross one. One more takes none of the priced legs for that: the cross legs, if any, are those that
    have no price, and every priced leg needs evidence that it is isolated.
    """
    wanted = np.flatnonzero(np.isin(dump.group, groups))
    readings = readings_of(dump, wanted, table[wanted])
    reading_group = np.concatenate([readings.group, groups])
    surplus = np.concatenate([readings.surplus, np.full(groups.size, np.inf)])
    reference = np.concatenate([np.abs(dump.size[readings.leg]), np.zeros(groups.size)])
    legs, owner = expand(dump, reading_group)
    cause = _causes(dump, legs, surplus[owner], reference[owner], table, evidence)
    unexplained = np.bincount(owner, weights=cause == CAUSES.index(UNEXPLAINED), minlength=reading_group.size)
    agreeing = np.bincount(owner, weights=cause <= CAUSES.index(ROUNDING), minlength=reading_group.size)
    order = np.lexsort((-agreeing, unexplained, reading_group))
    found, first = np.unique(reading_group[order], return_index=True)
    best = np.zeros(reading_group.size, dtype=bool)
    best[order[first]] = True
    kept = best[owner]
    return Explanation(found, legs[kept], np.searchsorted(found, dump.group[legs[kept]]), cause[kept])


def _causes(dump: Dump, legs: Ints, surplus: Floats, reference: Floats, table: Ints, evidence: IsolatedEvidence) -> Ints:
    """Return the index of each leg's cause in :data:`CAUSES`, in an account of the given surplus."""
    is_cross_read = np.isfinite(surplus)
    predicted = predict(dump, legs, np.where(is_cross_read, surplus, np.nan), table[legs])
    priced = np.isfinite(dump.liquidation[legs])
    # Half a printed step of this leg, and that of the cross leg carried over by the ratio of sizes; the factor covers 1 +- r.
    slack = 0.5 * PRINTED_STEP * (1.0 + 2.0 * reference / np.abs(dump.size[legs]))
    may_be_isolated = ~evidence.recorded_cross[legs]
    tests = {
        AGREE: np.where(is_cross_read, agrees(dump, legs, predicted), ~priced),
        ROUNDING: is_cross_read & agrees(dump, legs, predicted, slack),
        OTHER_TABLE: is_cross_read & (other_table(dump, legs, np.where(is_cross_read, surplus, np.nan)) >= 0),
        RECORDED: evidence.recorded[legs],
        RECORDED_ELSEWHERE: evidence.recorded_elsewhere[legs],
        OPENING_MARGIN: evidence.opening_margin[legs] & may_be_isolated,
        STEADY_CASH: evidence.steady_cash[legs] & may_be_isolated,
    }
    cause = np.full(legs.size, CAUSES.index(UNEXPLAINED))
    for name in reversed(CAUSES[:-1]):
        cause[tests[name]] = CAUSES.index(name)
    return cause
