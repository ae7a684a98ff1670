"""Private account feeds: what exchanges, brokers and desks tell of their own accounts, as events.

The wire format is in :mod:`connectors.account_feed_wire`, its rules in :mod:`connectors.account_feed_rules`, the transports in
:mod:`connectors.account_sources`. This file is pure, like that of a venue, and an :class:`AccountFeed` can stand wherever a
:class:`~connectors.venue.Venue` can: the frames of a feed are parsed, recorded and replayed like all others.

Nothing is judged here that needs memory. Sequence numbers are passed on as they come, repetitions and holes included; the core,
which knows the account, finds the hole at the next message of that account. A refused line is such a hole. So that the account need
not look live until then, the error names it (:class:`AccountFeedError`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from connectors import account_feed_wire as wire
from connectors.account_feed_rules import RefusalError, account_of, decode_line, deductions
from connectors.decoding import EXCERPT_CHARACTERS, MAX_PAYLOAD_BYTES, FeedReason
from connectors.events import (
    AccountDelta,
    AccountSnapshot,
    AnyEvent,
    Gap,
    HoldingReport,
    Instrument,
    Instruments,
    MarginTier,
    MarkPrice,
    PositionReport,
)
from connectors.frames import Frame, RestRequest
from connectors.venue import AccountQuestion, ConnectionPlan, FeedError, PeriodicRequest, VenueSettings

MESSAGES: Final = "messages"
"""The one channel of a feed."""


class AccountFeedError(FeedError):
    """A frame of a feed that cannot be used; none of its lines was.

    Attributes:
        path: The field that is wrong, such as ``positions[2].entry_price``; empty when the line as a whole is.
        problem: What is wrong with it, without any value of the feed.
        accounts: The accounts that lines of the frame were about, as far as that can be read: each has missed a message.
    """

    def __init__(self, feed: str, reason: FeedReason, path: str, problem: str, accounts: tuple[str, ...]) -> None:
        super().__init__(feed, reason, (f"{path}: {problem}" if path else problem)[:EXCERPT_CHARACTERS])
        self.path = path
        self.problem = problem
        self.accounts = accounts


class AccountFeed:
    """The parser of one feed.

    Attributes:
        name: Name of the feed, in ``Frame.venue`` and ``Frame.connection``, and the ``connection`` of its events.
        venue: Whose accounts and markets these are: the ``venue`` of its events.
        has_markets: Whether the feed may tell of markets (``instruments``, ``prices``). A venue with a connector of its own has one
            source of marks already, and two would contradict each other.
    """

    rest_url = ""
    rest_weight_per_minute = 1_200
    """Never used: a feed is asked over its own transport."""

    def __init__(self, name: str, venue: str, *, has_markets: bool = False) -> None:
        self.name = name
        self.venue = venue
        self.has_markets = has_markets

    def parse(self, frame: Frame) -> list[AnyEvent]:
        """Turn a frame, which holds one line or several, into events; all of its lines are used or none.

        A frame without payload is a :class:`~connectors.events.Gap` of everything that the feed has told.

        Raises:
            AccountFeedError: a line is malformed, breaks a rule, or is of a kind that this feed may not send.
        """
        payload = frame.payload
        if payload is None:
            return [Gap(venue=self.venue, connection=self.name, received_ns=frame.received_ns, reason="disconnected")]
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise AccountFeedError(self.name, "oversized", "", f"is larger than {MAX_PAYLOAD_BYTES} bytes", ())
        lines = [line for line in payload.split(b"\n") if line.strip()] if b"\n" in payload else [payload]
        events: list[AnyEvent] = []
        for number, line in enumerate(lines, start=1):
            try:
                events += self._events(frame.received_ns, decode_line(line))
            except RefusalError as refusal:
                problem = refusal.problem if len(lines) == 1 else f"{refusal.problem} (line {number})"
                accounts = dict.fromkeys(account for text in lines if (account := account_of(text)) is not None)
                raise AccountFeedError(self.name, refusal.reason, refusal.path, problem, tuple(accounts)) from None
        return events

    def resync_message(self, account: str, after_sequence: int | None) -> bytes:
        """Return the line that asks for a snapshot of ``account``.

        Args:
            account: which one.
            after_sequence: the last message of it that could be used, ``None`` if there was none.

        Raises:
            ValueError: the sequence is negative.
        """
        if after_sequence is not None and after_sequence < 0:
            raise ValueError(f"a sequence is not negative, as {after_sequence} is")
        return msgspec.json.encode(wire.ResyncMessage(account=account, after_sequence=after_sequence))

    def channel_key(self, payload: bytes) -> str | None:  # noqa: ARG002 - see Venue
        """Name the one channel, which every message belongs to, heartbeats included."""
        return MESSAGES

    def connections(self, settings: VenueSettings) -> list[ConnectionPlan]:  # noqa: ARG002 - see Venue
        """Return none: transports are in :mod:`connectors.account_sources`."""
        return []

    def bootstrap(self, settings: VenueSettings) -> list[RestRequest]:  # noqa: ARG002 - see Venue
        """Return none: a feed has no REST interface."""
        return []

    def periodic(self, settings: VenueSettings) -> list[PeriodicRequest]:  # noqa: ARG002 - see Venue
        """Return none: a feed has no REST interface."""
        return []

    def book_snapshot(self, symbol: str) -> RestRequest | None:  # noqa: ARG002 - see Venue
        """Return none: a feed has no books."""
        return None

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:  # noqa: ARG002 - see Venue
        """Return none: accounts are asked for with :meth:`resync_message`."""
        return []

    def _events(self, received_ns: int, message: wire.Message) -> list[AnyEvent]:
        match message:
            case wire.SnapshotMessage():
                return [self._snapshot(received_ns, message)]
            case wire.DeltaMessage():
                return [self._delta(received_ns, message)]
            case wire.HeartbeatMessage():
                return []
            case wire.InstrumentsMessage() | wire.PricesMessage() if not self.has_markets:
                problem = f"is not for this feed: the markets of {self.venue} are known from its own connector"
                raise RefusalError("unknown_message", "type", problem)
            case wire.InstrumentsMessage():
                instruments = tuple(_instrument(item) for item in message.instruments)
                return [
                    Instruments(
                        venue=self.venue,
                        connection=self.name,
                        received_ns=received_ns,
                        instruments=instruments,
                        complete=False,
                    )
                ]
            case wire.PricesMessage():
                return [self._mark_price(received_ns, message.time_ns, item) for item in message.prices]

    def _snapshot(self, received_ns: int, message: wire.SnapshotMessage) -> AccountSnapshot:
        return AccountSnapshot(
            venue=self.venue,
            connection=self.name,
            received_ns=received_ns,
            account=message.account,
            exchange_ns=message.time_ns,
            cross_cash_usd=message.cash_usd,
            positions=tuple(_position(item) for item in message.positions),
            account_value_usd=message.account_value_usd,
            maintenance_margin_usd=message.maintenance_margin_usd,
            pool=message.pool,
            holdings=tuple(HoldingReport(item.symbol, item.quantity) for item in message.holdings),
            sequence=message.sequence,
            mode="standard",
            e_mode=message.e_mode,
        )

    def _delta(self, received_ns: int, message: wire.DeltaMessage) -> AccountDelta:
        return AccountDelta(
            venue=self.venue,
            connection=self.name,
            received_ns=received_ns,
            account=message.account,
            exchange_ns=message.time_ns,
            sequence=message.sequence,
            cross_cash_usd=message.cash_usd,
            positions=tuple(_position(item) for item in message.positions),
            holdings=tuple(HoldingReport(item.symbol, item.quantity) for item in message.holdings),
        )

    def _mark_price(self, received_ns: int, time_ns: int, item: wire.MarketPrice) -> MarkPrice:
        return MarkPrice(
            venue=self.venue,
            connection=self.name,
            received_ns=received_ns,
            symbol=item.symbol,
            exchange_ns=time_ns,
            mark_price=item.mark_price,
            index_price=item.index_price,
        )


def _position(item: wire.Position) -> PositionReport:
    return PositionReport(
        symbol=item.symbol,
        size=item.size,
        entry_price=item.entry_price,
        isolated_cash_usd=item.isolated_cash_usd,
        liquidation_price=item.liquidation_price,
        leverage=item.leverage,
        position_side=item.position_side,
    )


def _instrument(item: wire.MarketRules) -> Instrument:
    tiers = tuple(
        MarginTier(tier.lower_bound, tier.maintenance_rate, deduction, tier.max_leverage)
        for tier, deduction in zip(item.tiers, deductions(item.tiers), strict=True)
    )
    return Instrument(
        symbol=item.symbol,
        tiers=tiers,
        size_step=item.size_step,
        price_step=item.price_step,
        only_isolated=item.only_isolated,
        delisted=item.delisted,
        contract=item.contract,
        collateral_ratio=item.collateral_ratio,
        e_mode_ratios=tuple((ratio.category, ratio.ratio) for ratio in item.e_mode_ratios),
        # Deductions that are left out are computed without a jump, so one that is there was given.
        tiers_jump=any(tier.deduction is not None for tier in item.tiers),
    )
