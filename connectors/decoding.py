"""What the venue files share when they decode: the reasons for refusing a message, and the field types that refuse bad ones.

Whatever the bytes are, a venue file raises :class:`~connectors.venue.FeedError` and nothing else: it wraps its decoding in
``except DECODING_ERRORS`` and calls :func:`decoding_error`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, get_args

import msgspec

from connectors.events import Level
from connectors.venue import FeedError

FeedReason = Literal["not_json", "wrong_type", "bad_number", "unknown_message", "oversized", "inconsistent", "refused"]
"""Why a message was refused, the same set for all venues, fit for a metric label.

``not_json``: not a JSON text, torn, or not UTF-8. ``wrong_type``: a field is missing or of another type. ``bad_number``: a number
that cannot be (not finite, negative, zero, beyond all bounds). ``unknown_message``: a kind that the venue file has never heard of.
``oversized``: larger or nested deeper than any real message. ``inconsistent``: well formed, but its parts contradict each other.
``refused``: the venue answered a REST request with an error.
"""

FEED_REASONS: Final[tuple[FeedReason, ...]] = get_args(FeedReason)

MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
"""The largest real message, Binance's exchangeInfo of about 900 symbols at 1.6 kB, is 1.5 MB: ten times that is nobody's."""

EXCERPT_CHARACTERS: Final = 120

DECODING_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises on hostile bytes: bad JSON and types, invalid UTF-8 in a decoded text, nesting beyond its limit."""

Milliseconds = Annotated[int, msgspec.Meta(gt=0, lt=9_000_000_000_000)]
"""Milliseconds since 1970; the bound (year 2255) keeps the same time in nanoseconds below 2**63."""

MillisecondsOrZero = Annotated[int, msgspec.Meta(ge=0, lt=9_000_000_000_000)]
"""The same in a field where the venue writes 0 for "none"."""

SequenceId = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Account = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
"""An account name; a 32-byte key in hexadecimal has 66 characters."""

PositiveSize = Annotated[float, msgspec.Meta(gt=0.0, lt=1e18)]
NonNegativePrice = Annotated[float, msgspec.Meta(ge=0.0, lt=1e15)]
"""A price in a field where the venue writes 0 for "none"; the venue file turns that 0 into ``None`` or skips the item."""

# How msgspec words a number outside the bounds of its field, or outside of what a double holds.
_NUMBER_COMPLAINT: Final = re.compile(r"^Expected `(?:int|float)` (?:[<>]=?|that's)|out of range")


def feed_error(venue: str, reason: FeedReason, payload: bytes | msgspec.Raw) -> FeedError:
    """Return the error for ``payload``; its excerpt is printable ASCII of at most ``EXCERPT_CHARACTERS``."""
    return FeedError(venue, reason, repr(bytes(payload)[:EXCERPT_CHARACTERS])[2:-1][:EXCERPT_CHARACTERS])


def decoding_error(venue: str, error: Exception, payload: bytes | msgspec.Raw) -> FeedError:
    """Return the :class:`FeedError` for one of ``DECODING_ERRORS``."""
    reason: FeedReason
    if isinstance(error, RecursionError):
        reason = "oversized"
    elif _NUMBER_COMPLAINT.search(str(error)) and isinstance(error, msgspec.DecodeError):
        reason = "bad_number"
    elif isinstance(error, msgspec.ValidationError):
        reason = "wrong_type"
    else:
        reason = "not_json"
    return feed_error(venue, reason, payload)


def is_ordered_book(bids: list[Level], asks: list[Level]) -> bool:
    """Tell whether bids fall, asks rise and the best of them do not touch, as in every book a matching engine can show."""
    previous = float("inf")
    for price, _ in bids:
        if price >= previous:
            return False
        previous = price
    previous = bids[0][0] if bids else 0.0
    for price, _ in asks:
        if price <= previous:
            return False
        previous = price
    return True
