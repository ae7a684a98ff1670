"""A venue of few words, for tests of what carries messages and does not care what they mean.

A data message is ``{"channel":"book.BTC",...}``; everything else is an ack or a pong.
"""

from __future__ import annotations

import re

from connectors.events import AnyEvent, Gap
from connectors.frames import Frame, RestRequest
from connectors.venue import AccountQuestion, ConnectionPlan, FeedError, PeriodicRequest, VenueSettings

CHANNEL = re.compile(rb'\{"channel":"([^"]*)"')


class PlainVenue:
    name = "plain"
    rest_url = "http://127.0.0.1:9"

    def __init__(self, rest_weight_per_minute: int = 1200) -> None:
        self.rest_weight_per_minute = rest_weight_per_minute

    def connections(self, settings: VenueSettings) -> list[ConnectionPlan]:
        return []

    def bootstrap(self, settings: VenueSettings) -> list[RestRequest]:
        return []

    def periodic(self, settings: VenueSettings) -> list[PeriodicRequest]:
        return []

    def book_snapshot(self, symbol: str) -> RestRequest | None:
        return None

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:
        return []

    def channel_key(self, payload: bytes) -> str | None:
        found = CHANNEL.match(payload)
        return found[1].decode("latin-1") if found else None

    def parse(self, frame: Frame) -> list[AnyEvent]:
        if frame.payload is None:
            return [Gap(venue=self.name, connection=frame.connection, received_ns=frame.received_ns, reason="disconnect")]
        raise FeedError(self.name, "unknown_message", "")
