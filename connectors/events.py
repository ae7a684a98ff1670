"""Every event a venue can produce, normalised.

Conventions, the same for all venues:

* prices are in quote units per base unit, sizes in **base** units (contract multipliers are applied in the venue file);
* position sizes are signed, long positive, short negative;
* rates are fractions, not percent;
* times are integer nanoseconds UTC: ``exchange_ns`` is the venue's own stamp, ``received_ns`` the moment the frame arrived here;
* unknown is ``None``, never 0;
* ``aggressor`` is the side of the taker, ``side`` of a liquidation is the side of the **position** that died.

Field types reject non-finite, zero and negative prices while decoding, so a bad number never becomes an event.
Events are immutable ``msgspec`` structs; ``gc=False`` is safe because no event can be part of a cycle.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

# The upper bounds keep sums of a whole book finite and catch fields that were read in the wrong unit.
Price = Annotated[float, msgspec.Meta(gt=0.0, lt=1e15)]
Size = Annotated[float, msgspec.Meta(ge=0.0, lt=1e18)]
SignedSize = Annotated[float, msgspec.Meta(gt=-1e18, lt=1e18)]
Usd = Annotated[float, msgspec.Meta(gt=-1e18, lt=1e18)]
Rate = Annotated[float, msgspec.Meta(gt=-10.0, lt=10.0)]

Level = tuple[Price, Size]
"""(price, size in base units); in a delta the size is absolute and 0 removes the level."""

Completeness = Literal["complete", "sampled", "partial"]
"""How much of a venue's liquidations a feed shows: all, a throttled sample, or only those of watched accounts."""

AccountMode = Literal["standard", "unified", "portfolio", "unknown"]
"""Where an account keeps its collateral (venues.md 1.9).

Only ``standard`` accounts can be projected from their perpetual balance; ``unified`` ones need their spot balance as well.
"""


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What every event carries: where it came from and when it arrived."""

    venue: str
    connection: str
    received_ns: int


class BookSnapshot(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """A whole book, or one layer of it, replacing what was known of that layer.

    ``last_id`` is the sequence number that later deltas continue from (``None`` where the venue has none).
    ``significant_figures`` is ``None`` for a book at full resolution; otherwise prices are rounded to that many figures, bids
    down and asks up, and a level holds everything that rounds to it (venues.md 1.4, 1.5).
    ``layer`` names the subscription, so that a shallow fast book and a deep slow one are kept side by side.
    """

    symbol: str
    exchange_ns: int | None
    bids: list[Level]
    asks: list[Level]
    last_id: int | None = None
    significant_figures: int | None = None
    layer: str = "book"


class BookDelta(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Absolute sizes of changed levels, valid only on top of the state that ``previous_id`` names.

    The first delta after a snapshot must straddle it (``first_id <= snapshot.last_id <= last_id``); every later one must have
    ``previous_id`` equal to the last applied ``last_id`` (venues.md 2.2).
    """

    symbol: str
    exchange_ns: int
    first_id: int
    last_id: int
    previous_id: int
    bids: list[Level]
    asks: list[Level]


class Quote(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Best bid and ask; a side is ``None`` when the venue shows no order there."""

    symbol: str
    exchange_ns: int | None
    bid: Level | None
    ask: Level | None
    update_id: int | None = None


class Trade(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """One fill on the public tape; ``buyer`` and ``seller`` are account names where the venue publishes them."""

    symbol: str
    exchange_ns: int
    price: float
    size: float
    aggressor: Literal["buy", "sell"]
    trade_id: int
    buyer: str | None = None
    seller: str | None = None


class MarkPrice(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """The price that margin is computed at; ``index_price`` is the venue's index or oracle; funding is per funding interval."""

    symbol: str
    exchange_ns: int | None
    mark_price: float
    index_price: float | None = None
    funding_rate: float | None = None
    next_funding_ns: int | None = None


class OpenInterest(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Open interest in base units, counting one side."""

    symbol: str
    exchange_ns: int | None
    open_interest_base: float


class Liquidation(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Forced closing of (part of) a position, as far as the venue shows it.

    ``price`` is the fill price. ``method`` is ``market`` when it hit the book and ``backstop`` or ``deleveraging`` when it was
    absorbed beside it. ``liquidation_id`` is the same for the parts of one forced order, where the venue tells.
    """

    symbol: str
    exchange_ns: int
    side: Literal["long", "short"]
    price: float
    size: float
    completeness: Completeness
    method: Literal["market", "backstop", "deleveraging"] = "market"
    account: str | None = None
    fill_id: int | None = None
    liquidation_id: str | None = None


class MarginTier(msgspec.Struct, frozen=True, gc=False):
    """Maintenance for notionals from ``lower_bound_usd`` on: ``notional * maintenance_rate - deduction_usd``."""

    lower_bound_usd: float
    maintenance_rate: float
    deduction_usd: float
    max_leverage: float | None = None


Contract = Literal["linear", "inverse", "asset"]
"""What a price column stands for: a linear perpetual (sizes in base units), an inverse one (sizes in **USD**, margin and profit in
the coin), or an asset that is held as collateral, supplied to or borrowed from a pool (quantities in units of the asset)."""


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """What a venue says of one market or asset; ``tiers`` is empty when its margin rules are unknown.

    ``tiers`` of an inverse contract have bounds and deductions in the coin. ``collateral_ratio`` is for assets: the share of
    their value that counts, which is one minus the haircut, or a lending pool's liquidation threshold; ``None`` is unknown.
    ``tiers_jump`` says that a jump of maintenance where a tier begins is meant, as where the rate applies to the whole position.
    ``e_mode_ratios`` are (category, threshold) pairs for the categories of a lending pool whose collateral the asset may be.
    """

    symbol: str
    tiers: tuple[MarginTier, ...]
    size_step: float | None = None
    price_step: float | None = None
    only_isolated: bool = False
    delisted: bool = False
    contract: Contract = "linear"
    collateral_ratio: float | None = None
    e_mode_ratios: tuple[tuple[int, float], ...] = ()
    tiers_jump: bool = False


class Instruments(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """The venue's list of markets; with ``complete`` a symbol that is not in it does not exist."""

    instruments: tuple[Instrument, ...]
    complete: bool = True


class PositionReport(msgspec.Struct, frozen=True, gc=False):
    """One position as the venue reports it.

    ``isolated_cash_usd`` is ``None`` for a cross position; otherwise the cash of its own small account, so that its equity is
    ``isolated_cash_usd + size * mark``. ``liquidation_price`` is the venue's own figure and is kept apart from ours.
    ``position_side`` tells the two positions of a market in hedge mode apart; it is ``net`` in one-way mode. ``mark_price`` is the
    price at which the venue computed its figures, where the report tells it. ``max_leverage`` is what the venue allows this very
    position at its present size: a position keeps the margin table that it was opened under when the venue changes the market's.
    """

    symbol: str
    size: float
    entry_price: float | None
    isolated_cash_usd: float | None
    liquidation_price: float | None
    leverage: float | None
    position_side: Literal["net", "long", "short"] = "net"
    mark_price: float | None = None
    max_leverage: float | None = None


class HoldingReport(msgspec.Struct, frozen=True, gc=False):
    """An asset in an account; a negative quantity is borrowed. ``symbol`` is the price column that values it."""

    symbol: str
    quantity: float


class AccountSnapshot(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """All positions of one account, or of one of its pools, at one moment.

    A ``pool`` is a part of the account with cash of its own, such as one dex of Hyperliquid; the main one is ``""``.
    ``cross_cash_usd`` is the cash such that ``cross equity = cross_cash_usd + sum(size * mark) + value of the holdings`` over the
    cross positions (negative for a levered long book). ``account_value_usd`` and ``maintenance_margin_usd`` are the venue's own
    cross figures. ``sequence`` is ``None`` where the source does not number its messages; then only the time orders them.
    ``mode`` says where the collateral is, where the snapshot knows. ``e_mode`` is the lending category, 0 for none.
    """

    account: str
    exchange_ns: int
    cross_cash_usd: float
    positions: tuple[PositionReport, ...]
    account_value_usd: float | None = None
    maintenance_margin_usd: float | None = None
    pool: str = ""
    holdings: tuple[HoldingReport, ...] = ()
    sequence: int | None = None
    mode: AccountMode | None = None
    e_mode: int = 0


class AccountDelta(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """What changed in one account: the new values of whatever is listed, absolute, so that applying one twice does no harm.

    ``sequence`` is one more than that of the message before it, of the same account; anything else is a gap. A position of size
    0 is closed and a holding of quantity 0 is gone. ``cross_cash_usd`` is ``None`` when it did not change.
    """

    account: str
    exchange_ns: int
    sequence: int
    cross_cash_usd: float | None = None
    positions: tuple[PositionReport, ...] = ()
    holdings: tuple[HoldingReport, ...] = ()


class AccountFill(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """One account's side of a fill, from a source that shows every fill of the account (an own node).

    ``size`` is signed, ``start_size`` the signed position before the fill, ``fee_usd`` what the account paid (negative for a
    rebate), ``None`` where more cash moved than the fill shows: a fee in something else, or margin that went with a position.
    """

    account: str
    symbol: str
    exchange_ns: int
    price: float
    size: float
    trade_id: int
    start_size: float | None = None
    fee_usd: float | None = 0.0


class AccountBalances(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """What an account holds outside of its positions, in tokens; ``symbol`` of a holding is the name of the token."""

    account: str
    balances: tuple[HoldingReport, ...]


class AccountModeReport(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Where an account keeps its collateral."""

    account: str
    mode: AccountMode


class Gap(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """Something was lost: all that hangs on it is stale until a snapshot says otherwise.

    ``symbol`` is ``None`` when everything that came over ``connection`` is in doubt.
    """

    reason: str
    symbol: str | None = None


class SubscriptionNotice(Event, frozen=True, gc=False, kw_only=True, tag=True):
    """The venue confirmed or refused a subscription; ``channel`` is the key that ``Venue.channel_key`` gives its data."""

    channel: str
    accepted: bool
    detail: str = ""


AnyEvent = (
    BookSnapshot
    | BookDelta
    | Quote
    | Trade
    | MarkPrice
    | OpenInterest
    | Liquidation
    | Instruments
    | AccountSnapshot
    | AccountDelta
    | AccountFill
    | AccountBalances
    | AccountModeReport
    | Gap
    | SubscriptionNotice
)
