"""What a Hyperliquid node writes about fills (venues.md 1.10): every fill of every account, both parties of each.

A line is either one ``[user, fill]`` pair, or ``{"local_time", "block_time", "block_number", "events": [[user, fill], ...]}`` for a
block, or for as much of it as was there when the node wrote it. ``connectors/node_files.py`` reads the files.

**Fills become positions.** Every pair gives one :class:`~connectors.events.AccountFill`. What else is traded is left out: spot
pairs (``@107``, ``PURR/USDC``) and shares in outcomes (``#12``), whose ``startPosition`` is a balance and no position.

**Each liquidation is told once**, though both parties' fills carry it. It comes from the fill of the account that was liquidated,
or, if a whole block does not have that one, from the counterparty's. Of a deleveraging only the fill of the account that was picked
to give up its profit is known to say ``Auto-Deleveraging``; the position that died is the other one, that of ``liquidatedUser``: a
bankrupt account, or the vault that had taken over from one (venues.md 1.6). The parties of a fill share its ``tid``, so in a block
the word of either is enough. Where lines are no whole blocks, a deleveraging may go by the name of ``backstop``.

**What cannot be read is a hole**: a fill that was missed leaves a position wrong for good, so a line that does not decode, or not
in all its parts, gives a gap beside whatever of it can be used, and no error.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import field

from connectors import hyperliquid_wire as wire
from connectors.decoding import DECODING_ERRORS, Account, Symbol
from connectors.events import AccountFill, AnyEvent, Gap, SignedSize, SubscriptionNotice, Usd
from connectors.frames import Frame
from connectors.hyperliquid_accounts import AUTO_DELEVERAGING, MILLISECOND_NS, is_own_liquidation, liquidation_event

NODE_CONNECTION: Final = "node"
"""The connection of lines that are single pairs or whole blocks; that of every node's file starts with this word."""

NODE_STREAM_CONNECTION: Final = "node-stream"
"""The connection of lines that may be parts of blocks."""

NODE_CHANNEL: Final = "node_fills"
"""The one channel of a node's record."""

UNDECODABLE: Final = "undecodable_fill"
"""The reason of the gap that stands for a line, or a part of one, that was not understood."""


class NodeFill(wire.Fill, frozen=True):
    """A fill with what it did to the account: the signed position before it, and the fee, negative for a rebate."""

    start_size: SignedSize | None = field(name="startPosition", default=None)
    fee: Usd | None = None
    fee_token: str | None = field(name="feeToken", default=None)


class _CoinOnly(msgspec.Struct, frozen=True):
    coin: Symbol


class _Block(msgspec.Struct, frozen=True):
    events: list[tuple[Account, NodeFill]]


class _RawBlock(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]


_Pair = tuple[Account, NodeFill]

_decode_block = msgspec.json.Decoder(_Block, strict=False).decode
_decode_raw_block = msgspec.json.Decoder(_RawBlock).decode
_decode_pair = msgspec.json.Decoder(_Pair, strict=False).decode
_decode_coin = msgspec.json.Decoder(tuple[str, _CoinOnly]).decode


def node_events(frame: Frame, line: bytes) -> list[AnyEvent]:
    """Return the fills of one line, and the liquidations that they belong to right after the fill that tells of them."""
    is_block = line.startswith(b"{")
    try:
        pairs, is_whole = (_decode_block(line).events, True) if is_block else ([_decode_pair(line)], True)
    except DECODING_ERRORS:
        pairs, is_whole = _readable_pairs(line, is_block=is_block)
    pairs = [pair for pair in pairs if is_perpetual(pair[1].coin) and pair[1].size]
    events = _pair_events(frame, pairs, is_whole_block=is_block and frame.connection != NODE_STREAM_CONNECTION)
    origin: Any = {"venue": frame.venue, "connection": frame.connection, "received_ns": frame.received_ns}
    if not is_whole:
        events.append(Gap(**origin, reason=UNDECODABLE))
    elif not pairs:
        # A block in which nobody traded still tells that the record goes on.
        events.append(SubscriptionNotice(**origin, channel=NODE_CHANNEL, accepted=True))
    return events


def is_perpetual(coin: str) -> bool:
    """Tell whether fills of a coin change a position, rather than a balance of tokens or shares."""
    return "/" not in coin and not (coin[0] in "@#+o" and coin[1:].isdigit())


def _readable_pairs(line: bytes, *, is_block: bool) -> tuple[list[_Pair], bool]:
    """Return the pairs that can be read, and whether what cannot be is of no concern: a spot token may well be sold for nothing."""
    try:
        parts = _decode_raw_block(line).events if is_block else [msgspec.Raw(line)]
    except DECODING_ERRORS:
        return [], False
    pairs: list[_Pair] = []
    is_whole = True
    for part in parts:
        try:
            pairs.append(_decode_pair(part))
        except DECODING_ERRORS:
            is_whole = is_whole and _is_of_no_concern(part)
    return pairs, is_whole


def _is_of_no_concern(part: msgspec.Raw) -> bool:
    try:
        return not is_perpetual(_decode_coin(part)[1].coin)
    except DECODING_ERRORS:
        return False


def _pair_events(frame: Frame, pairs: list[_Pair], *, is_whole_block: bool) -> list[AnyEvent]:
    deleveraged: set[int] = set()
    told_by_victim: set[int] = set()
    for user, fill in pairs:
        if fill.liquidation is not None:
            if fill.direction == AUTO_DELEVERAGING:
                deleveraged.add(fill.trade_id)
            if is_own_liquidation(fill, user):
                told_by_victim.add(fill.trade_id)
    events: list[AnyEvent] = []
    for user, fill in pairs:
        events.append(_account_fill(frame, user, fill))
        if fill.liquidation is None:
            continue
        if is_own_liquidation(fill, user) or (is_whole_block and fill.trade_id not in told_by_victim):
            told_by_victim.add(fill.trade_id)
            is_deleveraging = fill.trade_id in deleveraged
            event = liquidation_event(frame, user, fill, completeness="complete", is_deleveraging=is_deleveraging)
            if event is not None:
                events.append(event)
    return events


def _account_fill(frame: Frame, user: str, fill: NodeFill) -> AccountFill:
    return AccountFill(
        venue=frame.venue,
        connection=frame.connection,
        received_ns=frame.received_ns,
        account=user.lower(),
        symbol=fill.coin,
        exchange_ns=fill.time_ms * MILLISECOND_NS,
        price=fill.price,
        size=fill.size if fill.side == "B" else -fill.size,
        trade_id=fill.trade_id,
        start_size=fill.start_size,
        fee_usd=fill.fee if fill.fee_token == "USDC" and not _moves_margin(fill, user) else None,  # noqa: S105
    )


def _moves_margin(fill: NodeFill, user: str) -> bool:
    """Tell whether cash went along that the fill does not show (venues.md 1.9).

    The liquidator vault takes positions over with their margin, and a deleveraged account below zero is left without its debt. The
    other side of a deleveraging trades like anybody else.
    """
    if fill.liquidation is None or fill.liquidation.method != "backstop":
        return False
    return fill.direction != AUTO_DELEVERAGING or bool(is_own_liquidation(fill, user))
