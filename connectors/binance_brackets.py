"""Margin brackets of Binance USD-M from a file, because the venue gives them to key holders only (venues.md 2.5).

Three layouts are read, told apart by their shape:

* our own, versioned: ``{"version": "2026-08", "source": "...", "symbols": {"BTCUSDT": [[floor, rate, cum, max_leverage], ...]}}``.
  Floors are notionals in USD, rates fractions; ``max_leverage`` may be null. A last row ``[floor, null, null, null]`` says that
  nothing is known from that notional on;
* the ``binance_leverage_tiers.json`` of freqtrade (ccxt's unified tiers) in each of its generations, with names such as
  ``BTC/USDT``, ``BTC/USDT:USDT`` or ``BTC/USDT:USDT-261225``;
* the venue's own answer to ``GET /fapi/v1/leverageBracket``.

Whatever the layout, a bracket table is believed only when floors rise from 0, rates rise, leverage falls, no maintenance exceeds
the initial margin, and every deduction continues the one before: ``cum_n = cum_(n-1) + floor_n * (rate_n - rate_(n-1))``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final

import msgspec

from connectors.events import MarginTier

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""The largest known file, 907 symbols with 8 tiers of 0.6 kB each, is 4 MB."""

MAX_ERRORS: Final = 20
"""Errors listed in one message; a file in a wrong unit has thousands, all alike."""

CUM_TOLERANCE: Final = 1e-6
"""Relative tolerance of the continuity check, far above rounding and far below a typing error."""

NON_DOLLAR_SETTLEMENTS: Final = frozenset({"BTC", "ETH", "BNB"})
"""Their floors are not in dollars, so their tables are left out."""

_Amount = Annotated[float, msgspec.Meta(ge=0.0, lt=1e18)]
_Cap = Annotated[float, msgspec.Meta(ge=0.0, lt=1e20)]
NO_CAP_USD: Final = 1e18
"""Files write 2**63 - 1 and the like for a top bracket without end."""

_Row = tuple[_Amount, float | None, float | None, float | None]


class BracketError(ValueError):
    """A bracket file that cannot be used; the message names symbol and row of every error."""


class SymbolBrackets(msgspec.Struct, frozen=True):
    """The tiers of one symbol; ``cap_usd`` is the notional from which on they say nothing, ``None`` if they never end."""

    tiers: tuple[MarginTier, ...]
    cap_usd: float | None


class Brackets(msgspec.Struct, frozen=True):
    """A checked bracket file."""

    version: str
    source: str
    symbols: dict[str, SymbolBrackets]


class _OwnLayout(msgspec.Struct):
    version: Annotated[str, msgspec.Meta(min_length=1)]
    source: str
    symbols: dict[str, list[_Row]]


class _TierInfo(msgspec.Struct):
    cum: float


class _UnifiedTier(msgspec.Struct):
    """A tier of ccxt; the 2022 generation says notionalFloor, notionalCap and maintenanceMarginRatio."""

    max_leverage: float = msgspec.field(name="maxLeverage")
    info: _TierInfo
    floor: _Amount | None = msgspec.field(name="minNotional", default=None)
    cap: _Cap | None = msgspec.field(name="maxNotional", default=None)
    rate: float | None = msgspec.field(name="maintenanceMarginRate", default=None)
    old_floor: _Amount | None = msgspec.field(name="notionalFloor", default=None)
    old_cap: _Cap | None = msgspec.field(name="notionalCap", default=None)
    old_rate: float | None = msgspec.field(name="maintenanceMarginRatio", default=None)


class _VenueBracket(msgspec.Struct):
    floor: _Amount = msgspec.field(name="notionalFloor")
    cap: _Cap = msgspec.field(name="notionalCap")
    rate: float = msgspec.field(name="maintMarginRatio")
    cum: float
    max_leverage: float = msgspec.field(name="initialLeverage")


class _VenueSymbol(msgspec.Struct):
    symbol: str
    brackets: list[_VenueBracket]


class _Probe(msgspec.Struct):
    version: msgspec.Raw = msgspec.Raw()
    symbols: msgspec.Raw = msgspec.Raw()


# Floor, cap (None where the layout gives none), rate, cum, maximum leverage; a row without rate ends the table.
_PlainRow = tuple[float, float | None, float | None, float | None, float | None]


def load_brackets(path: Path) -> Brackets:
    """Read and check a bracket file.

    Raises:
        BracketError: the file cannot be read, has none of the known layouts, or states an impossible table.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BracketError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise BracketError(f"{path}: {error.strerror or error}") from error
    try:
        version, source, tables = _read_tables(text, path.name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BracketError(f"{path}: {error}") from error
    errors: list[str] = []
    symbols: dict[str, SymbolBrackets] = {}
    for name, rows in tables:
        symbol = venue_symbol(name)
        if symbol is None:
            continue
        if symbol in symbols:
            errors.append(f"{name}: a second table for {symbol}")
            continue
        found = _row_errors(rows)
        errors.extend(f"{name} {error}" for error in found)
        symbols[symbol] = SymbolBrackets(tiers=(), cap_usd=None) if found else _checked(rows)
    if not tables:
        errors.append("no symbols")
    if errors:
        more = f"\n... and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise BracketError(f"{path}:\n" + "\n".join(errors[:MAX_ERRORS]) + more)
    return Brackets(version=version, source=source, symbols=symbols)


def venue_symbol(name: str) -> str | None:
    """Return the venue's symbol for a name of ccxt, or the name itself; ``None`` for a market that is not settled in dollars."""
    if "/" not in name:
        return name
    pair, _, contract = name.partition(":")
    base, _, quote = pair.partition("/")
    settlement, _, delivery = contract.partition("-")
    if (settlement or quote) in NON_DOLLAR_SETTLEMENTS:
        return None
    return f"{base}{quote}_{delivery}" if delivery else f"{base}{quote}"


def _read_tables(text: bytes, file_name: str) -> tuple[str, str, list[tuple[str, list[_PlainRow]]]]:
    """Tell the layout and return version, source and, for each symbol of the file, its rows."""
    if text.lstrip()[:1] == b"[":
        listed = msgspec.json.decode(text, type=list[_VenueSymbol], strict=False)
        return file_name, "leverageBracket", [(item.symbol, [_venue_row(row) for row in item.brackets]) for item in listed]
    probe = msgspec.json.decode(text, type=_Probe)
    if bytes(probe.version) or bytes(probe.symbols):
        own = msgspec.json.decode(text, type=_OwnLayout)
        return own.version, own.source, [(name, _own_rows(rows)) for name, rows in own.symbols.items()]
    unified = msgspec.json.decode(text, type=dict[str, list[_UnifiedTier]], strict=False)
    return file_name, "unified tiers", [(name, [_unified_row(tier) for tier in tiers]) for name, tiers in unified.items()]


def _own_rows(rows: list[_Row]) -> list[_PlainRow]:
    caps: list[float | None] = [*(row[0] for row in rows[1:]), None]
    return [(floor, caps[index], rate, cum, leverage) for index, (floor, rate, cum, leverage) in enumerate(rows)]


def _venue_row(row: _VenueBracket) -> _PlainRow:
    return row.floor, row.cap, row.rate, row.cum, row.max_leverage


def _unified_row(tier: _UnifiedTier) -> _PlainRow:
    floor = tier.floor if tier.floor is not None else tier.old_floor
    cap = tier.cap if tier.cap is not None else tier.old_cap
    rate = tier.rate if tier.rate is not None else tier.old_rate
    if floor is None or rate is None:
        raise msgspec.ValidationError(
            "a tier has neither minNotional and maintenanceMarginRate nor notionalFloor and maintenanceMarginRatio"
        )
    return floor, cap, rate, tier.info.cum, tier.max_leverage


def _row_errors(rows: list[_PlainRow]) -> list[str]:
    """List what is wrong with a table, each with its row, counted from 1."""
    errors = []
    previous: _PlainRow | None = None
    for number, row in enumerate(rows, start=1):
        if row[2] is None:
            errors.extend(_end_row_errors(number, row, previous, is_last=number == len(rows)))
        else:
            errors.extend(f"row {number}: {error}" for error in _single_row_errors(row))
            errors.extend(f"row {number}: {error}" for error in _continuity_errors(row, previous))
        previous = row
    return errors or ([] if rows else ["has no rows"])


def _end_row_errors(number: int, row: _PlainRow, previous: _PlainRow | None, *, is_last: bool) -> list[str]:
    if row[3] is not None or row[4] is not None:
        return [f"row {number}: has no rate but a deduction or leverage"]
    if previous is None or not is_last:
        return [f"row {number}: only the last row of several may be without a rate"]
    if row[0] <= previous[0]:
        return [f"row {number}: floor {row[0]:g} is not above {previous[0]:g}"]
    return []


def _single_row_errors(row: _PlainRow) -> list[str]:
    floor, cap, rate, cum, leverage = row
    errors = []
    if rate is None or not 0.0 < rate <= 1.0:
        errors.append(f"maintenance rate {rate} is not a fraction above 0 and at most 1")
    if cum is None or not 0.0 <= cum < math.inf:
        errors.append(f"deduction {cum} is not a number of at least 0")
    if cap is not None and cap <= floor:
        errors.append(f"cap {cap:g} is not above floor {floor:g}")
    if leverage is not None and not 1.0 <= leverage <= 1000.0:
        errors.append(f"leverage {leverage:g} is not between 1 and 1000")
    elif leverage is not None and rate is not None and rate * leverage > 1.0 + CUM_TOLERANCE:
        errors.append(f"maintenance rate {rate:g} exceeds the initial margin at leverage {leverage:g}")
    return errors


def _continuity_errors(row: _PlainRow, previous: _PlainRow | None) -> list[str]:
    floor, _, rate, cum, leverage = row
    if previous is None:
        return [] if floor == 0.0 and cum == 0.0 else ["the first row must have floor 0 and deduction 0"]
    previous_floor, previous_cap, previous_rate, previous_cum, previous_leverage = previous
    if rate is None or cum is None or previous_rate is None or previous_cum is None:
        return []  # said already
    errors = []
    if floor <= previous_floor:
        errors.append(f"floor {floor:g} is not above {previous_floor:g}")
    if previous_cap is not None and previous_cap != floor:
        errors.append(f"floor {floor:g} is not the cap before, {previous_cap:g}")
    if rate <= previous_rate:
        errors.append(f"maintenance rate {rate:g} is not above {previous_rate:g}")
    if leverage is not None and previous_leverage is not None and leverage >= previous_leverage:
        errors.append(f"leverage {leverage:g} is not below {previous_leverage:g}")
    expected = previous_cum + floor * (rate - previous_rate)
    if not abs(cum - expected) <= CUM_TOLERANCE * max(1.0, abs(expected)):
        errors.append(f"deduction {cum:g} does not continue the one before, expected {expected:g}")
    return errors


def _checked(rows: list[_PlainRow]) -> SymbolBrackets:
    tiers = tuple(
        MarginTier(lower_bound_usd=floor, maintenance_rate=rate, deduction_usd=cum, max_leverage=leverage)
        for floor, _, rate, cum, leverage in rows
        if rate is not None and cum is not None
    )
    last_floor, last_cap, last_rate, _, _ = rows[-1]
    cap = last_floor if last_rate is None else last_cap
    return SymbolBrackets(tiers=tiers, cap_usd=cap if cap is not None and cap < NO_CAP_USD else None)
