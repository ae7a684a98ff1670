"""The messages of Hyperliquid as they are on the wire (venues.md 1), and their decoders.

All numbers are text; decoding is not strict, so that they become floats in C, and the types bound each of them. Only fields that
are used are declared. Websocket messages are told apart by ``channel``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import field

from connectors.decoding import Account, Milliseconds, NonNegativePrice, PositiveSize, SequenceId, Symbol
from connectors.events import Price, Rate, SignedSize, Size, Usd

OrderSide = Literal["B", "A"]
"""Bid (a buy) or ask (a sale)."""

TransactionHash = Annotated[str, msgspec.Meta(max_length=80)]
"""Of the block's transaction; all zeros for many ordinary trades."""

Leverage = Annotated[float, msgspec.Meta(ge=1.0, le=1000.0)]


class WireLevel(msgspec.Struct, gc=False, frozen=True):
    """One price level."""

    price: Price = field(name="px")
    size: Size = field(name="sz")


class Book(msgspec.Struct, frozen=True):
    """A whole book, bids then asks, best first; ``is_fast`` marks the shallow one that is sent more often."""

    coin: Symbol
    levels: tuple[list[WireLevel], list[WireLevel]]
    time_ms: Milliseconds = field(name="time")
    is_fast: bool | None = field(name="fast", default=None)


class BestLevels(msgspec.Struct, frozen=True):
    """Best bid and ask, null where there is none."""

    coin: Symbol
    time_ms: Milliseconds = field(name="time")
    best: tuple[WireLevel | None, WireLevel | None] = field(name="bbo")


class TapeTrade(msgspec.Struct, gc=False, frozen=True):
    """One fill; ``side`` is the aggressor's, ``users`` are buyer and seller."""

    coin: Symbol
    side: OrderSide
    price: Price = field(name="px")
    size: PositiveSize = field(name="sz")
    time_ms: Milliseconds = field(name="time")
    trade_id: SequenceId = field(name="tid")
    users: tuple[Account, Account] | None = None


class AssetContext(msgspec.Struct, frozen=True):
    """Prices and open interest (in coins) of one coin; null or 0 where a delisted coin has none."""

    mark_price: NonNegativePrice | None = field(name="markPx", default=None)
    oracle_price: NonNegativePrice | None = field(name="oraclePx", default=None)
    funding_rate: Rate | None = field(name="funding", default=None)
    open_interest: Size | None = field(name="openInterest", default=None)


class CoinContext(msgspec.Struct, frozen=True):
    """The context of a subscribed coin."""

    coin: Symbol
    context: AssetContext = field(name="ctx")


class FillLiquidation(msgspec.Struct, frozen=True):
    """What a fill says of the liquidation that it belongs to; on both parties' fills."""

    method: Literal["market", "backstop"]
    liquidated_user: Account | None = field(name="liquidatedUser", default=None)


class Fill(msgspec.Struct, frozen=True):
    """One fill of a watched account; ``crossed`` means that this account's order took liquidity."""

    coin: Symbol
    side: OrderSide
    price: Price = field(name="px")
    size: Size = field(name="sz")
    time_ms: Milliseconds = field(name="time")
    trade_id: SequenceId = field(name="tid")
    transaction: TransactionHash = field(name="hash")
    direction: str = field(name="dir", default="")
    crossed: bool | None = None
    liquidation: FillLiquidation | None = None


class UserFills(msgspec.Struct, frozen=True):
    """Fills of one account; the first message of a subscription is history."""

    user: Account
    fills: list[Fill]
    is_snapshot: bool = field(name="isSnapshot", default=False)


class UserEvents(msgspec.Struct, frozen=True):
    """Events of an account that the message does not name."""

    fills: list[Fill] = []


class Subscription(msgspec.Struct, frozen=True):
    """A subscription as the server repeats it, with its defaults filled in."""

    type: str
    coin: str | None = None
    user: str | None = None


class SubscriptionResponse(msgspec.Struct, frozen=True):
    """Acknowledgement; recorders also store an empty one."""

    method: str = ""
    subscription: Subscription | None = None


class PostPayload(msgspec.Struct, frozen=True):
    """The answer inside a post."""

    type: str
    data: msgspec.Raw = msgspec.Raw()


class PostResponse(msgspec.Struct, frozen=True):
    """The response inside a post: ``info`` with a typed payload, or ``error`` with a text."""

    type: str
    payload: msgspec.Raw = msgspec.Raw()


class Post(msgspec.Struct, frozen=True):
    """A REST answer that came over the socket."""

    response: PostResponse


class BookMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="l2Book"):
    """A book."""

    data: Book


class FastBookMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="fastBook"):
    """A fast book, as tardis.dev renames it."""

    data: Book


class BestLevelsMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="bbo"):
    """A quote."""

    data: BestLevels


class TradesMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="trades"):
    """Trades."""

    data: list[TapeTrade]


class ContextMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="activeAssetCtx"):
    """A context."""

    data: CoinContext


class UserFillsMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="userFills"):
    """Fills of a watched account."""

    data: UserFills


class UserEventsMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="user"):
    """Events of an account."""

    data: UserEvents


class SubscriptionMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="subscriptionResponse"):
    """An acknowledgement."""

    data: SubscriptionResponse


class ErrorMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="error"):
    """A refusal in words; the socket stays open."""

    data: str


class PostMessage(msgspec.Struct, frozen=True, tag_field="channel", tag="post"):
    """An answer to a post."""

    data: Post


Message = (
    BookMessage
    | FastBookMessage
    | BestLevelsMessage
    | TradesMessage
    | ContextMessage
    | UserFillsMessage
    | UserEventsMessage
    | SubscriptionMessage
    | ErrorMessage
    | PostMessage
)

KNOWN_CHANNELS = frozenset(
    {"l2Book", "fastBook", "bbo", "trades", "activeAssetCtx", "userFills", "user", "subscriptionResponse", "error", "post"}
)

IGNORED_CHANNELS = frozenset(
    {
        "activeAssetData",
        "activeSpotAssetCtx",
        "allDexsAssetCtxs",
        "allDexsClearinghouseState",
        "allMids",
        "assetCtxs",
        "candle",
        "clearinghouseState",
        "fastAssetCtxs",
        "notification",
        "openOrders",
        "orderUpdates",
        "pong",
        "spotState",
        "twapStates",
        "userFundings",
        "userHistoricalOrders",
        "userNonFundingLedgerUpdates",
        "userTwapHistory",
        "userTwapSliceFills",
        "webData2",
        "webData3",
    }
)
"""Legitimate channels that carry nothing for us, or nothing that we subscribe to."""


class ChannelName(msgspec.Struct):
    """The outside of any message."""

    channel: str


class InfoRequest(msgspec.Struct, frozen=True):
    """The body of an info request."""

    type: str
    user: str = ""
    coin: str = ""
    dex: str = ""
    significant_figures: int | None = field(name="nSigFigs", default=None)
    mantissa: int | None = None


class Asset(msgspec.Struct, frozen=True):
    """An entry of the universe; before margin tables existed it had no table id."""

    name: Symbol
    size_decimals: Annotated[int, msgspec.Meta(ge=0, le=18)] = field(name="szDecimals")
    margin_table_id: int | None = field(name="marginTableId", default=None)
    only_isolated: bool = field(name="onlyIsolated", default=False)
    margin_mode: str | None = field(name="marginMode", default=None)
    is_delisted: bool = field(name="isDelisted", default=False)


class WireTier(msgspec.Struct, frozen=True):
    """A margin tier."""

    lower_bound: Usd = field(name="lowerBound")
    max_leverage: Leverage = field(name="maxLeverage")


class MarginTable(msgspec.Struct, frozen=True):
    """Tiers from notional 0 on."""

    tiers: Annotated[list[WireTier], msgspec.Meta(min_length=1)] = field(name="marginTiers")


class Meta(msgspec.Struct, frozen=True):
    """The coins of one dex, their margin tables (those below 50 are not listed) and the token that margin is posted in."""

    universe: list[Asset]
    margin_tables: list[tuple[int, MarginTable]] = field(name="marginTables", default_factory=list)
    collateral_token: int | None = field(name="collateralToken", default=None)


class PositionLeverage(msgspec.Struct, frozen=True):
    """``raw_usd`` is the cash of an isolated position."""

    type: Literal["cross", "isolated"]
    value: Leverage
    raw_usd: Usd | None = field(name="rawUsd", default=None)


class WirePosition(msgspec.Struct, frozen=True):
    """One position; ``value_usd`` is the absolute size times the mark."""

    coin: Symbol
    size: SignedSize = field(name="szi")
    leverage: PositionLeverage
    value_usd: Annotated[float, msgspec.Meta(ge=0.0, lt=1e18)] = field(name="positionValue")
    margin_used_usd: Usd = field(name="marginUsed")
    entry_price: NonNegativePrice | None = field(name="entryPx", default=None)
    max_leverage: Leverage | None = field(name="maxLeverage", default=None)
    liquidation_price: Usd | None = field(name="liquidationPx", default=None)


class AssetPosition(msgspec.Struct, frozen=True):
    """The wrapper of a position."""

    position: WirePosition


class MarginSummary(msgspec.Struct, frozen=True):
    """Totals in USD; ``raw_usd`` is cash, negative for levered longs."""

    account_value: Usd = field(name="accountValue")
    raw_usd: Usd = field(name="totalRawUsd")
    notional: Usd = field(name="totalNtlPos")


class ClearinghouseState(msgspec.Struct, frozen=True):
    """All positions of an account on one dex."""

    positions: list[AssetPosition] = field(name="assetPositions")
    cross: MarginSummary = field(name="crossMarginSummary")
    total: MarginSummary = field(name="marginSummary")
    time_ms: Milliseconds = field(name="time")
    cross_maintenance: Usd | None = field(name="crossMaintenanceMarginUsed", default=None)


class SpotBalance(msgspec.Struct, frozen=True):
    """What is held of one token; ``total`` includes what is on hold. Shares in outcomes (``+92260``) have no token.

    ``borrowed`` is told of accounts in portfolio margin only; whether ``total`` is net of it is nowhere written.
    """

    coin: Symbol
    total: SignedSize
    token: int | None = None
    borrowed: SignedSize | None = None


class SpotState(msgspec.Struct, frozen=True):
    """All that an account holds outside of its positions."""

    balances: list[SpotBalance]
    is_portfolio_margin: bool | None = field(name="portfolioMarginEnabled", default=None)


UNTOLD_DEX: Final = "?"
"""Stands for the dex of an answer that does not say which one it is about; no dex is called so."""

USDC_TOKEN: Final = 0


def qualified(coin: str, dex: str) -> str | None:
    """Return the coin as all channels name it, ``xyz:TSLA``, with or without its dex in front; ``None`` if it is of another dex.

    Coins of the main dex, ``""``, have no prefix (venues.md 1.5).
    """
    prefix, colon, _ = coin.partition(":")
    if dex == UNTOLD_DEX or (prefix == dex and colon) or not (dex or colon):
        return coin
    return None if colon else f"{dex}:{coin}"


decode_message = msgspec.json.Decoder(Message, strict=False).decode
decode_channel_name = msgspec.json.Decoder(ChannelName).decode
decode_info_request = msgspec.json.Decoder(InfoRequest).decode
decode_book = msgspec.json.Decoder(Book, strict=False).decode
decode_trades = msgspec.json.Decoder(list[TapeTrade], strict=False).decode
decode_meta = msgspec.json.Decoder(Meta, strict=False).decode
decode_meta_and_contexts = msgspec.json.Decoder(tuple[Meta, list[AssetContext]], strict=False).decode
decode_clearinghouse_state = msgspec.json.Decoder(ClearinghouseState, strict=False).decode
decode_spot_state = msgspec.json.Decoder(SpotState, strict=False).decode
decode_abstraction = msgspec.json.Decoder(str | None).decode
decode_post_payload = msgspec.json.Decoder(PostPayload).decode
decode_subscription = msgspec.json.Decoder(Subscription).decode
decode_subscription_request = msgspec.json.Decoder(SubscriptionResponse).decode
