"""The messages of a private account feed as they stand on the wire.

A feed is JSON lines: one message a line, its kind in the field ``type``. ``docs/account-feeds.md`` describes it for those who write
one, ``connectors/schema/account-feed.json`` is generated from the structs of this file by :mod:`connectors.account_feed_schema`.
What fields and items say of each other is checked in :mod:`connectors.account_feed_rules`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from connectors.decoding import Account, SequenceId
from connectors.decoding import Symbol as VenueSymbol
from connectors.events import Contract, Price, SignedSize, Size, Usd

MAX_POSITIONS: Final = 4_096
"""Of one message: at 200 bytes each 0.8 MB, so that a message fits into a line (``connectors.account_lines.MAX_LINE_BYTES``)."""
MAX_HOLDINGS: Final = 1_024
MAX_INSTRUMENTS: Final = 1_024
"""Of one message: at 10 tiers of 80 bytes each 0.9 MB; a longer list comes in several messages."""
MAX_TIERS: Final = 64
"""The longest real table has 13."""
MAX_PRICES: Final = 4_096


def _about(description: str) -> Meta:
    return Meta(description=description)


Symbol = Annotated[VenueSymbol, _about("Name of the market or asset, as in the configuration and in `prices`.")]
AccountName = Annotated[Account, _about("The account; names are compared byte by byte.")]
MessageNumber = Annotated[
    SequenceId,
    _about("Number of this message among those of its account: a delta has one more than the message before it."),
]
TimeNs = Annotated[
    int,
    # Seconds, milliseconds and microseconds of this century lie below; the upper bound is the year 2255.
    Meta(ge=10**18, lt=9 * 10**18),
    _about("When this became true at the source: nanoseconds since 1970, UTC."),
]
Leverage = Annotated[float, Meta(ge=1.0, le=10_000.0)]
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Rate = Annotated[float, Meta(gt=0.0, lt=1.0)]


class _Part(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A part of a message."""


class Position(_Part, frozen=True, gc=False):
    """One position; absent fields are unknown."""

    symbol: Symbol
    size: Annotated[
        SignedSize, _about("Long positive, short negative: base units, or US dollars for an inverse contract. In a delta 0 closes.")
    ]
    position_side: Annotated[
        Literal["net", "long", "short"], _about("`net` in one-way mode; in hedge mode the side, which `size` must agree with.")
    ] = "net"
    contract: Annotated[
        Literal["linear", "inverse"] | None, _about("Kind of the market, if it should be checked here what such a position needs.")
    ] = None
    entry_price: Annotated[Price | None, _about("Average entry price; an inverse position must have it.")] = None
    isolated_cash_usd: Annotated[
        Usd | None,
        _about("Only for an isolated position: the cash of its own small account, whose equity is this plus size times mark."),
    ] = None
    liquidation_price: Annotated[Price | None, _about("Liquidation price by the source's own reckoning, to compare with.")] = None
    leverage: Annotated[Leverage | None, _about("The leverage that is set; informative.")] = None


class Holding(_Part, frozen=True, gc=False):
    """A quantity of an asset: collateral or supplied if positive, borrowed if negative."""

    symbol: Symbol
    quantity: Annotated[SignedSize, _about("In units of the asset; negative is borrowed. In a delta 0 means that it is gone.")]


class Tier(_Part, frozen=True, gc=False):
    """A margin tier: maintenance is notional times rate minus deduction, for notionals from the lower bound on."""

    lower_bound: Annotated[Size, _about("In US dollars, or in the coin for an inverse contract. The first is 0.")]
    maintenance_rate: Annotated[Rate, _about("A fraction: 0.005 is 0.5 %.")]
    deduction: Annotated[
        Size | None,
        _about("In the unit of the bound. Left out, it is what makes maintenance continuous; 0 where the venue deducts nothing."),
    ] = None
    max_leverage: Annotated[Leverage | None, _about("The highest leverage allowed in this tier; informative.")] = None


class EModeRatio(_Part, frozen=True, gc=False):
    """The liquidation threshold of an asset in one category of a lending pool."""

    category: Annotated[int, Meta(ge=1, le=255)]
    ratio: Ratio


class MarketRules(_Part, frozen=True, gc=False):
    """The rules of one market or asset."""

    symbol: Symbol
    contract: Annotated[Contract, _about("What the symbol is: a linear or inverse perpetual, or an asset held or borrowed.")]
    tiers: Annotated[
        tuple[Tier, ...], Meta(max_length=MAX_TIERS), _about("Margin tiers of a perpetual by rising bound; empty if unknown.")
    ] = ()
    collateral_ratio: Annotated[
        Ratio | None,
        _about("Of an asset: the share of its value that counts (one less the haircut, or the liquidation threshold)."),
    ] = None
    e_mode_ratios: Annotated[
        tuple[EModeRatio, ...], Meta(max_length=255), _about("Of an asset: its thresholds in the categories of a lending pool.")
    ] = ()
    size_step: Annotated[Annotated[float, Meta(gt=0.0, lt=1e18)] | None, _about("Smallest change of a size.")] = None
    price_step: Annotated[Price | None, _about("Smallest change of a price.")] = None
    only_isolated: bool = False
    delisted: bool = False


class MarketPrice(_Part, frozen=True, gc=False):
    """The price of one market or asset."""

    symbol: Symbol
    mark_price: Annotated[Price, _about("The price that margin is computed at, in US dollars.")]
    index_price: Annotated[Price | None, _about("The index or oracle price behind it.")] = None


class _Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """A line."""


class SnapshotMessage(_Message, frozen=True, gc=False, kw_only=True, tag="snapshot"):
    """All that there is in one account, or in one of its pools: it replaces what was known."""

    account: AccountName
    sequence: MessageNumber
    time_ns: TimeNs
    cash_usd: Annotated[Usd, _about("Cash such that equity = cash + sum of size times mark over the cross positions + holdings.")]
    positions: Annotated[tuple[Position, ...], Meta(max_length=MAX_POSITIONS)]
    holdings: Annotated[tuple[Holding, ...], Meta(max_length=MAX_HOLDINGS)]
    pool: Annotated[str, Meta(max_length=64), _about("A part of the account with cash of its own; empty is the main one.")] = ""
    e_mode: Annotated[int, Meta(ge=0, le=255), _about("Lending category of the account, 0 for none.")] = 0
    account_value_usd: Annotated[Usd | None, _about("Cross equity by the source's own reckoning, to compare.")] = None
    maintenance_margin_usd: Annotated[Size | None, _about("Cross maintenance by the source's own reckoning, to compare.")] = None


class DeltaMessage(_Message, frozen=True, gc=False, kw_only=True, tag="delta"):
    """What changed in one account, as new values: what is not listed stays as it was."""

    account: AccountName
    sequence: MessageNumber
    time_ns: TimeNs
    cash_usd: Annotated[Usd | None, _about("The new cash; absent if it did not change.")] = None
    positions: Annotated[tuple[Position, ...], Meta(max_length=MAX_POSITIONS)] = ()
    holdings: Annotated[tuple[Holding, ...], Meta(max_length=MAX_HOLDINGS)] = ()


class InstrumentsMessage(_Message, frozen=True, gc=False, kw_only=True, tag="instruments"):
    """Rules of markets and assets, for a venue that the daemon has no connector for; others that were told before stay."""

    instruments: Annotated[tuple[MarketRules, ...], Meta(max_length=MAX_INSTRUMENTS)]
    time_ns: TimeNs | None = None


class PricesMessage(_Message, frozen=True, gc=False, kw_only=True, tag="prices"):
    """Prices of markets and assets, for a venue that the daemon has no connector for."""

    prices: Annotated[tuple[MarketPrice, ...], Meta(max_length=MAX_PRICES)]
    time_ns: TimeNs


class HeartbeatMessage(_Message, frozen=True, gc=False, kw_only=True, tag="heartbeat"):
    """The feed is alive and has nothing to tell."""

    time_ns: TimeNs | None = None


class ResyncMessage(_Message, frozen=True, gc=False, kw_only=True, tag="resync"):
    """What the daemon sends: a snapshot of this account is needed."""

    account: AccountName
    after_sequence: Annotated[SequenceId | None, _about("The last message that could be used; null if there was none.")]


Message = SnapshotMessage | DeltaMessage | InstrumentsMessage | PricesMessage | HeartbeatMessage
