"""How clients of each venue subscribe, and which of them a recorded message is for.

A dialect is the venue's side of the websocket conversation as far as it can be told from outside (venues.md 1.2 and 2.1): it
answers subscriptions, pings and mistakes, and tells streams apart. It knows neither sockets nor time. A recorded message is
matched by symbol and kind, so that a recording serves clients that ask for the same thing at another speed.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from connectors.frames import Frame
from connectors.recorded_rest import Exchange

MAX_SUBSCRIPTIONS: Final = 1024
"""Per socket; Hyperliquid allows 1,000 in all, Binance 1,024."""

MAX_NAMES: Final = 100_000
"""Coins and streams remembered; all venues together list some thousands."""


class Feed(NamedTuple):
    """What a recorded message belongs to: a kind of stream, the market or account, and for rounded books how."""

    kind: str
    name: str
    variant: str = ""


class Answer(NamedTuple):
    """What the venue does about one message of a client."""

    replies: tuple[bytes, ...] = ()
    drop: bool = False
    """Drop the socket without a close frame, as the real venue does."""


class Client(Protocol):
    """The venue's memory of one socket."""

    @property
    def subscribed(self) -> bool:
        """Whether anything is subscribed."""

    def receive(self, message: bytes) -> Answer:
        """Answer one message."""

    def wants(self, feed: Feed) -> bool:
        """Tell whether messages of ``feed`` go to this socket."""

    def dress(self, payload: bytes, feed: Feed) -> bytes:
        """Return the recorded payload in the form that this socket gets."""


class Dialect(Protocol):
    """One venue's way of talking, and what it learnt from one recording."""

    ping_interval_s: float | None
    """How often the venue sends protocol pings, if it does."""

    def learn(self, frame: Frame, exchange: Exchange | None) -> None:
        """Take note of one frame before anything is played."""

    def feed_of(self, frame: Frame) -> Feed | None:
        """Tell what a recorded message belongs to; ``None`` for acknowledgements and the like, which are not replayed."""

    def opened(self, path: str, query: str) -> Client:
        """Greet a new socket."""
