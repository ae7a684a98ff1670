"""What can still be relied on: every channel for every reason, and what an evaluation is given of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connectors.events import BookDelta, BookSnapshot, Level, MarkPrice, OpenInterest, Quote, Trade
from monitor.evaluate import MarketInput
from monitor.freshness import feed_state, market_input
from monitor.settings import StalenessSettings
from monitor.state.markets import Channel, Market

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
LIMITS = StalenessSettings(book_s=10.0, mark_s=5.0, open_interest_s=60.0)


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def snapshot(seconds: float, bids: list[Level], asks: list[Level], last_id: int | None = None) -> BookSnapshot:
    connection = "main" if last_id is None else "rest"
    return BookSnapshot(
        venue="v",
        connection=connection,
        received_ns=at(seconds),
        symbol="S",
        exchange_ns=None,
        bids=bids,
        asks=asks,
        last_id=last_id,
    )


def delta(seconds: float, ids: tuple[int, int, int], bids: list[Level], asks: list[Level]) -> BookDelta:
    first, last, previous = ids
    return BookDelta(
        venue="v",
        connection="main",
        received_ns=at(seconds),
        symbol="S",
        exchange_ns=at(seconds),
        first_id=first,
        last_id=last,
        previous_id=previous,
        bids=bids,
        asks=asks,
    )


BIDS: list[Level] = [(99.0, 1.0), (98.0, 2.0)]
ASKS: list[Level] = [(101.0, 1.0), (102.0, 2.0)]


def hear_book(market: Market, seconds: float) -> None:
    market.apply_book_snapshot(snapshot(seconds, BIDS, ASKS))


def hear_mark(market: Market, seconds: float) -> None:
    market.apply_mark(
        MarkPrice(venue="v", connection="main", received_ns=at(seconds), symbol="S", exchange_ns=None, mark_price=100.0)
    )


def hear_index(market: Market, seconds: float) -> None:
    market.apply_mark(
        MarkPrice(
            venue="v",
            connection="main",
            received_ns=at(seconds),
            symbol="S",
            exchange_ns=None,
            mark_price=100.0,
            index_price=100.5,
            funding_rate=0.0001,
        )
    )


def hear_trades(market: Market, seconds: float) -> None:
    trade = Trade(
        venue="v",
        connection="main",
        received_ns=at(seconds),
        symbol="S",
        exchange_ns=at(seconds),
        price=100.0,
        size=1.0,
        aggressor="buy",
        trade_id=round(seconds),
    )
    market.apply_trade(trade)


def hear_open_interest(market: Market, seconds: float) -> None:
    market.apply_open_interest(
        OpenInterest(venue="v", connection="main", received_ns=at(seconds), symbol="S", exchange_ns=None, open_interest_base=50.0)
    )


HEAR: dict[Channel, Callable[[Market, float], None]] = {
    "book": hear_book,
    "mark": hear_mark,
    "trades": hear_trades,
    "open_interest": hear_open_interest,
}
LIMIT_S: dict[Channel, float] = {"book": 10.0, "mark": 5.0, "open_interest": 60.0}
CHANNELS: tuple[Channel, ...] = ("book", "mark", "trades", "open_interest")


def new_market() -> Market:
    return Market("v", "S", 0)


def live_market(seconds: float = 0.0) -> Market:
    market = new_market()
    for hear in HEAR.values():
        hear(market, seconds)
    return market


def state(market: Market, channel: Channel, seconds: float) -> tuple[bool, str, float | None]:
    found = feed_state(market, channel, at(seconds), LIMITS)
    assert found.channel == channel
    return found.stale, found.reason, found.age_s


# ------------------------------------------------------------------------------------------------- each channel, each reason


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_that_was_never_heard_says_so_and_has_no_age(channel: Channel) -> None:
    # Trades may rightly be rare, so that none has come yet is no fault.
    assert state(new_market(), channel, 1.0) == (channel != "trades", "nothing received", None)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_that_was_just_heard_is_live(channel: Channel) -> None:
    market = new_market()
    HEAR[channel](market, 0.0)
    assert state(market, channel, 1.5) == (False, "", 1.5)


@pytest.mark.parametrize("channel", LIMIT_S)
def test_silence_up_to_the_limit_is_live_and_beyond_it_stale(channel: Channel) -> None:
    limit_s = LIMIT_S[channel]
    market = live_market()
    assert state(market, channel, limit_s) == (False, "", limit_s)
    assert state(market, channel, limit_s + 0.001) == (True, f"silent for longer than {limit_s:g} s", limit_s + 0.001)


def test_trades_may_rest_for_hours() -> None:
    assert state(live_market(), "trades", 7_200.0) == (False, "", 7_200.0)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_lost_connection_makes_a_channel_stale_at_once_until_it_is_heard_again(channel: Channel) -> None:
    market = live_market()
    market.interrupt("main", "disconnected")
    assert state(market, channel, 0.5) == (True, "disconnected", 0.5)
    HEAR[channel](market, 1.0)
    assert state(market, channel, 1.5) == (False, "", 0.5)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stamp_from_the_future_is_no_negative_age(channel: Channel) -> None:
    # The recorder's clock may be set back between two frames.
    market = new_market()
    HEAR[channel](market, 10.0)
    assert state(market, channel, 9.0) == (False, "", 0.0)


def test_a_sequenced_book_waits_for_its_snapshot_is_live_with_it_and_broken_by_a_gap() -> None:
    market = new_market()
    market.apply_book_delta(delta(0.0, (5, 6, 4), [], []))
    assert state(market, "book", 0.0) == (True, "waiting for a snapshot", 0.0)
    market.apply_book_snapshot(snapshot(1.0, BIDS, ASKS, last_id=5))
    assert state(market, "book", 1.0) == (False, "", 1.0)
    market.apply_book_delta(delta(2.0, (9, 10, 8), [], []))
    assert state(market, "book", 2.0) == (True, "sequence gap", 0.0)
    market.apply_book_snapshot(snapshot(3.0, BIDS, ASKS, last_id=9))
    assert state(market, "book", 3.0) == (False, "", 1.0)


def test_a_snapshot_that_leaves_a_hole_does_not_bring_a_book_back() -> None:
    market = new_market()
    market.apply_book_delta(delta(0.0, (5, 6, 4), [], []))
    market.apply_book_snapshot(snapshot(1.0, BIDS, ASKS, last_id=3))
    assert state(market, "book", 1.0)[:2] == (True, "sequence gap")


def test_snapshots_over_rest_do_not_hide_that_the_stream_is_silent() -> None:
    market = new_market()
    market.apply_book_delta(delta(0.0, (5, 6, 4), [], []))
    for seconds in (1.0, 5.0, 11.0):
        market.apply_book_snapshot(snapshot(seconds, BIDS, ASKS, last_id=6))
    assert state(market, "book", 11.0) == (True, "silent for longer than 10 s", 11.0)


@pytest.mark.parametrize(
    ("bids", "asks"),
    [([], ASKS), (BIDS, []), ([], []), ([(101.0, 1.0)], ASKS), ([(101.5, 1.0)], ASKS)],
    ids=["no bids", "no asks", "empty", "locked", "crossed"],
)
@pytest.mark.parametrize("kind", ["layered", "sequenced"])
def test_a_book_that_cannot_be_is_not_relied_on(bids: list[Level], asks: list[Level], kind: str) -> None:
    market = new_market()
    if kind == "layered":
        market.apply_book_snapshot(snapshot(0.0, bids, asks))
    else:
        market.apply_book_delta(delta(0.0, (5, 6, 4), [], []))
        market.apply_book_snapshot(snapshot(0.0, bids, asks, last_id=5))
    assert state(market, "book", 0.0) == (True, "crossed or empty", 0.0)
    if kind == "layered":
        market.apply_book_snapshot(snapshot(1.0, BIDS, ASKS))
    else:
        market.apply_book_delta(delta(1.0, (7, 8, 6), [(101.0, 0.0), (101.5, 0.0), *BIDS], ASKS))
    assert state(market, "book", 1.0) == (False, "", 0.0)


def test_a_snapshot_alone_is_no_live_book_because_it_says_nothing_of_the_socket() -> None:
    market = new_market()
    market.apply_book_snapshot(snapshot(0.0, BIDS, ASKS, last_id=5))
    assert state(market, "book", 0.0) == (True, "waiting for the first update after the snapshot", 0.0)
    market.apply_book_delta(delta(1.0, (5, 6, 4), [], []))
    assert state(market, "book", 1.0) == (False, "", 0.0)


# ------------------------------------------------------------------------------------------------- what an evaluation is given


def given(market: Market, seconds: float, *, mid_for_mark: bool = False) -> MarketInput:
    return market_input(market, at(seconds), LIMITS, "observed", mid_for_mark=mid_for_mark)


def test_everything_that_is_fresh_is_given() -> None:
    found = given(live_market(), 1.0)
    assert (found.venue, found.symbol, found.provenance) == ("v", "S", "observed")
    assert (found.reference_price, found.reference_source, found.reference_age_s) == (100.0, "mark", 1.0)
    assert (found.best_bid, found.best_ask, found.book_levels) == (99.0, 101.0, 4)
    assert found.depth is not None
    assert (found.depth.bid_reach, found.depth.ask_reach) == (98.0, 102.0)
    assert found.open_interest_base == 50.0
    assert found.stale_reasons == ()
    assert [feed.channel for feed in found.feeds] == list(CHANNELS)


def test_nothing_of_a_stale_book_is_given_but_the_rest_is() -> None:
    market = live_market()
    market.break_book("sequence gap")
    found = given(market, 1.0)
    assert (found.best_bid, found.best_ask, found.book_levels, found.depth) == (None, None, 0, None)
    assert (found.reference_price, found.reference_source) == (100.0, "mark")
    assert found.stale_reasons == ("book: sequence gap",)


def test_a_stale_mark_takes_price_index_and_funding_with_it_and_the_book_is_no_substitute() -> None:
    market = live_market()
    hear_index(market, 0.0)
    assert (given(market, 1.0).index_price, given(market, 1.0).funding_rate) == (100.5, 0.0001)
    hear_book(market, 6.0)
    found = given(market, 6.0)
    assert (found.reference_price, found.reference_source, found.reference_age_s) == (None, "mark", 6.0)
    assert (found.index_price, found.funding_rate) == (None, None)
    assert found.stale_reasons == ("mark: silent for longer than 5 s",)
    assert found.best_bid == 99.0


def test_index_and_funding_have_ages_of_their_own() -> None:
    market = live_market()
    hear_index(market, 0.0)
    hear_mark(market, 5.0)
    found = [(given(market, seconds).index_price, given(market, seconds).funding_rate) for seconds in (5.0, 5.5)]
    assert found == [(100.5, 0.0001), (None, None)]
    assert given(market, 5.5).reference_price == 100.0


def test_a_feed_without_any_marks_is_measured_from_the_middle_of_its_book_where_that_is_allowed_and_says_so() -> None:
    market = new_market()
    hear_book(market, 0.0)
    found = market_input(market, at(2.0), LIMITS, "observed", mid_for_mark=True)
    assert (found.reference_price, found.reference_source, found.reference_age_s) == (100.0, "mid", 2.0)
    assert found.stale_reasons == ()
    # A live feed that has sent no mark yet has no reference: the first mark may be far from the book.
    found = given(market, 2.0)
    assert (found.reference_price, found.reference_source, found.reference_age_s) == (None, "none", None)
    assert found.stale_reasons == ("mark: nothing received",)


def test_the_middle_of_the_book_never_stands_in_for_a_mark_that_went_stale() -> None:
    market = live_market()
    hear_book(market, 6.0)
    found = market_input(market, at(6.0), LIMITS, "observed", mid_for_mark=True)
    assert (found.reference_price, found.reference_source) == (None, "mark")


def test_without_marks_and_book_there_is_no_reference() -> None:
    found = given(new_market(), 0.0)
    assert (found.reference_price, found.reference_source, found.reference_age_s) == (None, "none", None)
    assert found.stale_reasons == ("book: nothing received", "mark: nothing received")


def test_stale_open_interest_is_unknown_and_makes_nothing_else_stale() -> None:
    market = live_market()
    hear_book(market, 61.0)
    hear_mark(market, 61.0)
    found = given(market, 61.0)
    assert found.open_interest_base is None
    assert found.stale_reasons == ()


def test_a_layer_that_has_not_been_heard_for_twice_the_limit_ends_the_depth_where_the_others_do() -> None:
    market = new_market()
    deep = BookSnapshot(
        venue="v",
        connection="deep",
        received_ns=at(0.0),
        symbol="S",
        exchange_ns=at(0.0),
        bids=[(90.0, 5.0)],
        asks=[(110.0, 5.0)],
        layer="deep",
        significant_figures=2,
    )
    market.apply_book_snapshot(deep)
    hear_book(market, 19.0)
    reach = [given(market, seconds).depth for seconds in (20.0, 20.5)]
    assert [depth and (depth.bid_reach, depth.ask_reach) for depth in reach] == [(90.0, 110.0), (98.0, 102.0)]


def test_a_quote_newer_than_the_book_is_the_touch() -> None:
    market = new_market()
    hear_book(market, 0.0)
    market.apply_quote(
        Quote(venue="v", connection="main", received_ns=at(1.0), symbol="S", exchange_ns=at(1.0), bid=(98.5, 3.0), ask=(100.5, 3.0))
    )
    found = given(market, 1.0)
    assert (found.best_bid, found.best_ask) == (98.5, 100.5)
