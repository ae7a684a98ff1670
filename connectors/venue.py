"""What the rest of the system needs to know of a venue.

A venue is one small pure file: it says where to connect and what to send, and turns frames into events. It never reads a clock,
opens a socket or keeps state between calls.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from connectors.events import AnyEvent
from connectors.frames import Frame, RestRequest


class VenueSettings(msgspec.Struct, frozen=True):
    """What the operator wants of one venue. Empty URLs mean the venue's public ones."""

    symbols: tuple[str, ...]
    websocket_url: str = ""
    rest_url: str = ""
    watch_accounts: tuple[str, ...] = ()
    """Accounts whose own fills are subscribed to, where the venue allows it (Hyperliquid: at most 10)."""
    brackets_path: str = ""
    """Margin brackets from a file, for venues that publish them only to key holders (Binance)."""
    dexes: tuple[str, ...] = ()
    """Further dexes of the same venue whose markets are known and whose accounts are polled (Hyperliquid's HIP-3)."""
    has_node_fills: bool = False
    """Whether an own node tells every fill of every account, so that the public tape is not needed for positions."""


class Heartbeat(msgspec.Struct, frozen=True):
    """An application-level ping: send ``payload`` whenever nothing was sent for ``interval_s``."""

    interval_s: float
    payload: bytes


class ConnectionPlan(msgspec.Struct, frozen=True):
    """One websocket connection, complete: where, what to send, what to expect.

    ``expected`` maps each channel key that ``Venue.channel_key`` can return on this connection to the longest silence in seconds
    that is still normal, counted from the subscription for the first message. It is ``None`` for channels that are rightly
    silent for long (liquidations, trades of a quiet market). Where ``subscribe`` holds as many messages as there are channels, the
    n-th message asks for the n-th channel and the venue confirms it; silent and unconfirmed channels are then asked for again.
    """

    name: str
    url: str
    subscribe: tuple[bytes, ...]
    expected: dict[str, float | None]
    heartbeat: Heartbeat | None = None
    max_message_bytes: int = 4 * 1024 * 1024
    """The largest real message is a full asset-context list of about 0.2 MB; beyond this the peer is broken or hostile."""


class PeriodicRequest(msgspec.Struct, frozen=True):
    """A REST request to repeat; the first one is due at once."""

    request: RestRequest
    interval_s: float


class AccountQuestion(msgspec.Struct, frozen=True):
    """What to ask of one account: the state of each of ``pools``, its collateral mode, its balances."""

    account: str
    pools: tuple[str, ...] = ("",)
    mode: bool = False
    balances: bool = False


class Venue(Protocol):
    """A venue file. All methods are pure."""

    name: str
    rest_url: str
    """Public REST base, used where the settings give none."""
    rest_weight_per_minute: int

    def connections(self, settings: VenueSettings) -> list[ConnectionPlan]:
        """Plan the websocket connections for ``settings.symbols``."""

    def bootstrap(self, settings: VenueSettings) -> list[RestRequest]:
        """List the requests to answer before anything is subscribed (instruments, margin tables)."""

    def periodic(self, settings: VenueSettings) -> list[PeriodicRequest]:
        """List what has to be polled for as long as the daemon runs (open interest)."""

    def book_snapshot(self, symbol: str) -> RestRequest | None:
        """Return the request that resynchronises a book, or ``None`` where the socket sends snapshots."""

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:
        """Return the requests that answer the question; empty where accounts are private."""

    def channel_key(self, payload: bytes) -> str | None:
        """Name channel and symbol (``l2Book:BTC``) of a message by a look at its start; ``None`` for acks, pongs and errors."""

    def parse(self, frame: Frame) -> list[AnyEvent]:
        """Turn one frame into events.

        A frame without payload becomes one :class:`~connectors.events.Gap`. Messages that carry nothing for us (acks of
        channels, pongs, klines) give an empty list.

        Raises:
            FeedError: the message is malformed, of a wrong type, or holds an impossible number.
        """


class FeedError(Exception):
    """A message that cannot be used; ``reason`` is from a small fixed set, fit for a metric label."""

    def __init__(self, venue: str, reason: str, excerpt: str) -> None:
        super().__init__(f"{venue}: {reason}: {excerpt}")
        self.venue = venue
        self.reason = reason
        self.excerpt = excerpt
