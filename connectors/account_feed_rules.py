"""Every rule that a line of an account feed has to obey, and what is said of one that does not.

Checking is strict, because whoever writes the feed can repair it: an unknown field is a misspelt one, and a number that cannot be
is a unit that was mistaken. Each refusal names the field (``positions[2].entry_price``) and never repeats a value, because feeds
are private and messages end up in logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from connectors.account_feed_wire import (
    DeltaMessage,
    HeartbeatMessage,
    InstrumentsMessage,
    MarketRules,
    Message,
    Position,
    PricesMessage,
    SnapshotMessage,
    Tier,
)
from connectors.decoding import DECODING_ERRORS, Account, FeedReason

JUMP_TOLERANCE: Final = 1e-6
"""Published deductions are rounded: relative to the maintenance at the bound, as wherever margin tiers are checked."""


class RefusalError(Exception):
    """A line cannot be used; ``path`` is the field (empty for the line as a whole), ``problem`` says what is wrong with it."""

    def __init__(self, reason: FeedReason, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.reason = reason
        self.path = path
        self.problem = problem


class _Named(msgspec.Struct, gc=False):
    account: Account


_message_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_decode_named = msgspec.json.Decoder(_Named).decode

# How msgspec says where: "Expected `float`, got `str` - at `$.positions[2].size`"; names of fields may hold anything.
_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_NUMBER = re.compile(r"^Expected `(?:int|float)` (?:[<>]=?|that's)|out of range")
_TOO_LONG = re.compile(r"^Expected `array` of length <=")


def decode_line(line: bytes) -> Message:
    """Return the message on ``line``, which has passed every check.

    Raises:
        RefusalError: it has not.
    """
    try:
        message = _message_decoder.decode(line)
    except DECODING_ERRORS as error:
        raise _refusal(error) from None
    match message:
        case SnapshotMessage() | DeltaMessage():
            _check_account(message)
        case InstrumentsMessage():
            _check_instruments(message.instruments)
        case PricesMessage():
            _check_unique("prices", [price.symbol for price in message.prices])
        case HeartbeatMessage():
            pass
    return message


def account_of(line: bytes) -> str | None:
    """Return the account that a refused line is about, if that much can be read."""
    try:
        return _decode_named(line).account
    except DECODING_ERRORS:
        return None


def _refusal(error: Exception) -> RefusalError:
    """Say what msgspec says, by field and without the offending value."""
    if isinstance(error, RecursionError):
        return RefusalError("oversized", "", "is nested too deeply")
    if not isinstance(error, msgspec.ValidationError):
        return RefusalError("not_json", "", "is not one JSON text in UTF-8")
    place = _PLACE.match(str(error))
    assert place is not None, "the pattern matches every text"
    problem, path = place["problem"], place["path"] or ""
    if (missing := _MISSING.match(problem)) is not None:
        return RefusalError("wrong_type", _joined(path, missing["field"]), "is missing")
    if (unknown := _UNKNOWN.match(problem)) is not None:
        return RefusalError("wrong_type", _joined(path, _printable(unknown["field"])), "is unknown")
    path = _printable(path)
    if path == "type":
        known = problem.startswith("Invalid value")
        return RefusalError("unknown_message" if known else "wrong_type", path, "is none of the known kinds of message")
    if problem.startswith("Invalid"):
        return RefusalError("wrong_type", path, "is none of the allowed values")
    if _NUMBER.search(problem):
        return RefusalError("bad_number", path, problem[0].lower() + problem[1:])
    return RefusalError("oversized" if _TOO_LONG.match(problem) else "wrong_type", path, problem[0].lower() + problem[1:])


def _joined(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _printable(name: str) -> str:
    """Return a name that a stranger chose, fit for a log: short printable ASCII."""
    return ascii(name[:64])[1:-1][:64]


class _Key(NamedTuple):
    symbol: str
    position_side: str
    isolated: bool


def _check_account(message: SnapshotMessage | DeltaMessage) -> None:
    """Check first what concerns one item each (and is in the schema too), then what items say of each other."""
    whole = isinstance(message, SnapshotMessage)
    for index, position in enumerate(message.positions):
        if problem := _position_problem(position, whole=whole):
            reason, field, text = problem
            raise RefusalError(reason, f"positions[{index}].{field}", text)
    for index, holding in enumerate(message.holdings):
        if whole and holding.quantity == 0.0:
            raise RefusalError("bad_number", f"holdings[{index}].quantity", "is 0, which only a delta may say")
    _check_unique("holdings", [holding.symbol for holding in message.holdings])
    _check_positions_together(message.positions)


def _position_problem(position: Position, *, whole: bool) -> tuple[FeedReason, str, str] | None:
    """Return reason, field and text of what is wrong with one position by itself."""
    size = position.size
    if size == 0.0 and whole:
        return "bad_number", "size", "is 0, which only a delta may say"
    if (size < 0.0 and position.position_side == "long") or (size > 0.0 and position.position_side == "short"):
        return "bad_number", "size", f"has the wrong sign for the {position.position_side} side"
    if position.contract == "inverse":
        if size != 0.0 and position.entry_price is None:
            return "wrong_type", "entry_price", "is missing, and an inverse position is worth nothing definite without it"
        if position.isolated_cash_usd is not None:
            return "wrong_type", "isolated_cash_usd", "cannot say the margin of an inverse position, which is in the coin"
    return None


def _check_positions_together(positions: Sequence[Position]) -> None:
    seen: dict[_Key, int] = {}
    hedged: dict[str, bool] = {}
    for index, position in enumerate(positions):
        key = _Key(position.symbol, position.position_side, position.isolated_cash_usd is not None)
        if key in seen:
            raise RefusalError("inconsistent", f"positions[{index}]", f"is the same position as positions[{seen[key]}]")
        seen[key] = index
        in_hedge = position.position_side != "net"
        if hedged.setdefault(position.symbol, in_hedge) != in_hedge:
            text = "mixes one-way and hedge mode in one market"
            raise RefusalError("inconsistent", f"positions[{index}].position_side", text)


def _check_unique(name: str, symbols: Iterable[str]) -> None:
    seen: dict[str, int] = {}
    for index, symbol in enumerate(symbols):
        if symbol in seen:
            raise RefusalError("inconsistent", f"{name}[{index}].symbol", f"is that of {name}[{seen[symbol]}] too")
        seen[symbol] = index


def _check_instruments(instruments: Sequence[MarketRules]) -> None:
    for index, item in enumerate(instruments):
        is_asset = item.contract == "asset"
        misplaced = {
            "tiers": is_asset and bool(item.tiers),
            "collateral_ratio": not is_asset and item.collateral_ratio is not None,
            "e_mode_ratios": not is_asset and bool(item.e_mode_ratios),
        }
        for field, wrong in misplaced.items():
            if wrong:
                raise RefusalError("wrong_type", f"instruments[{index}].{field}", f"is not for contract `{item.contract}`")
    _check_unique("instruments", [item.symbol for item in instruments])
    for index, item in enumerate(instruments):
        for path, problem in _tier_problems(item.tiers):
            raise RefusalError("inconsistent", f"instruments[{index}].tiers{path}", problem)
        categories = [ratio.category for ratio in item.e_mode_ratios]
        if len(set(categories)) != len(categories):
            raise RefusalError("inconsistent", f"instruments[{index}].e_mode_ratios", "names a category twice")


def deductions(tiers: Sequence[Tier]) -> list[float]:
    """Return the deduction of each tier: the given one, or else ``D[k-1] + lower[k] * (rate[k] - rate[k-1])`` (venues.md 1.9)."""
    result: list[float] = []
    for row, tier in enumerate(tiers):
        result.append(tier.deduction if tier.deduction is not None else _continuous(tiers, row, result))
    return result


def _continuous(tiers: Sequence[Tier], row: int, before: Sequence[float]) -> float:
    """Return the deduction with which maintenance goes on where the tier below ends."""
    if row == 0:
        return 0.0
    return before[row - 1] + tiers[row].lower_bound * (tiers[row].maintenance_rate - tiers[row - 1].maintenance_rate)


def _tier_problems(tiers: Sequence[Tier]) -> Iterator[tuple[str, str]]:
    """Yield place and text for each rule that a margin table breaks: bounds and rates rise, maintenance never falls."""
    given = deductions(tiers)
    for row, tier in enumerate(tiers):
        if row == 0:
            if tier.lower_bound != 0.0:
                yield "[0].lower_bound", "is not 0, so the margin of small positions is unknown"
            if given[0] != 0.0:
                yield "[0].deduction", "is not 0, so a small position would need less than no margin"
            continue
        if tier.lower_bound <= tiers[row - 1].lower_bound:
            yield f"[{row}].lower_bound", "does not rise"
        if tier.maintenance_rate < tiers[row - 1].maintenance_rate:
            yield f"[{row}].maintenance_rate", "falls"
        # A smaller deduction than the continuous one makes maintenance jump up, as it does at venues without deductions.
        tolerance = JUMP_TOLERANCE * max(1.0, tier.lower_bound * tier.maintenance_rate)
        if given[row] > _continuous(tiers, row, given) + tolerance:
            yield f"[{row}].deduction", "makes maintenance fall where the tier begins"
