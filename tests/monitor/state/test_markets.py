"""State of one market: typical flow, trades and liquidations that count once, and what a lost connection takes with it."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import BookSnapshot, Liquidation, MarkPrice, OpenInterest, Quote, Trade
from monitor.state.markets import FILLS_SEEN_MAX, FLOW_MINUTES, NS_PER_MINUTE, Flow, Market

MINUTE = NS_PER_MINUTE
START = 28_000_000 * MINUTE
SECOND = 1_000_000_000

# ------------------------------------------------------------------------------------------------------------------- flow


class Step(NamedTuple):
    """Something that happens ``wait_ns`` after what happened before."""

    what: str
    wait_ns: int
    size: float


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["trade", "trade", "trade", "look", "interrupt"]),
        st.one_of(st.integers(0, 40 * SECOND), st.integers(0, 50 * MINUTE)),
        st.integers(-50, 50).map(float),
    ),
    max_size=60,
)


def watched_minutes(story: list[tuple[str, int, float]]) -> dict[int, float]:
    """Return the net volume of every minute that was watched from its first to its last moment, by the definition.

    Trades are heard from the first one on, and again from the first one after an interruption; a minute counts if they were heard
    before it began and nothing was interrupted before it ended.
    """
    now_minute = story[-1][1] // MINUTE
    result: dict[int, float] = {}
    for minute in range(max(story[0][1] // MINUTE, now_minute - FLOW_MINUTES), now_minute):
        heard = False
        for what, at_ns, _ in story:
            if at_ns < minute * MINUTE and what != "look":
                heard = what == "trade"
        inside = [(what, size) for what, at_ns, size in story if at_ns // MINUTE == minute]
        if heard and all(what != "interrupt" for what, _ in inside):
            result[minute] = sum(size for what, size in inside if what == "trade")
    return result


@settings(max_examples=300, deadline=None)
@given(st.integers(0, MINUTE - 1), steps)
def test_typical_flow_is_the_median_of_the_minutes_that_were_watched_from_end_to_end(offset_ns: int, plan: list[Step]) -> None:
    flow = Flow()
    now_ns = START + offset_ns
    flow.advance(now_ns)
    story = [("look", now_ns, 0.0)]
    for step in plan:
        now_ns += step.wait_ns
        if step.what == "trade":
            flow.add(now_ns, step.size)
        elif step.what == "interrupt":
            flow.advance(now_ns)
            flow.interrupt()
        else:
            flow.advance(now_ns)
        story.append((step.what, now_ns, step.size))
    flow.advance(now_ns)
    watched = watched_minutes(story)
    assert flow.covered_ratio() == len(watched) / FLOW_MINUTES
    assert flow.typical_base() == (statistics.median(map(abs, watched.values())) if watched else None)


def test_nothing_is_known_of_the_flow_before_the_first_full_minute() -> None:
    flow = Flow()
    assert (flow.typical_base(), flow.covered_ratio()) == (None, 0.0)
    flow.add(START + 10 * SECOND, 5.0)
    flow.advance(START + MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (None, 0.0)
    flow.add(START + MINUTE + 10 * SECOND, -3.0)
    flow.add(START + MINUTE + 20 * SECOND, 1.0)
    flow.advance(START + 2 * MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (2.0, 1 / FLOW_MINUTES)


def test_buys_and_sells_of_a_minute_cancel_and_minutes_do_not() -> None:
    flow = Flow()
    flow.add(START, 0.0)
    for minute, sizes in enumerate([(4.0, -4.0), (7.0,), (-9.0,)], start=1):
        for size in sizes:
            flow.add(START + minute * MINUTE, size)
    flow.advance(START + 4 * MINUTE)
    assert flow.typical_base() == 7.0


def test_a_market_that_was_never_heard_has_no_flow_however_long_one_waits() -> None:
    flow = Flow()
    for minute in range(45):
        flow.advance(START + minute * MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (None, 0.0)


def test_the_minutes_of_an_outage_are_unknown_and_not_quiet() -> None:
    flow = Flow()
    for minute in range(11):
        flow.add(START + minute * MINUTE, 6.0)
    flow.interrupt()
    for minute in range(11, 21):
        flow.advance(START + minute * MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (6.0, 9 / FLOW_MINUTES)


def test_a_quiet_minute_of_a_connection_that_works_is_zero_flow() -> None:
    flow = Flow()
    flow.add(START, 6.0)
    flow.advance(START + 10 * MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (0.0, 9 / FLOW_MINUTES)


def test_what_was_typical_before_a_long_outage_is_forgotten() -> None:
    flow = Flow()
    for minute in range(FLOW_MINUTES + 1):
        flow.add(START + minute * MINUTE, 6.0)
    assert flow.covered_ratio() > 0.9
    flow.interrupt()
    flow.advance(START + 5 * 60 * MINUTE)
    assert (flow.typical_base(), flow.covered_ratio()) == (None, 0.0)


# ---------------------------------------------------------------------------------------------------------------- trades


def origin(received_ns: int, connection: str = "main") -> dict[str, Any]:
    return {"venue": "hyperliquid", "connection": connection, "received_ns": received_ns, "symbol": "BTC"}


def trade(exchange_ns: int, trade_id: int, size: float = 1.0, *, received_ns: int = START, connection: str = "main") -> Trade:
    return Trade(
        **origin(received_ns, connection),
        exchange_ns=exchange_ns,
        price=100.0,
        size=size,
        aggressor="buy",
        trade_id=trade_id,
    )


def market() -> Market:
    return Market("hyperliquid", "BTC", 0)


def net_of(one: Market) -> float:
    """Return what the running minute has counted."""
    return one.flow._net


trade_times = st.lists(st.integers(1, 8), min_size=1, max_size=30).map(sorted)


@settings(max_examples=200, deadline=None)
@given(trade_times, st.data())
def test_trades_that_a_venue_repeats_after_subscriptions_count_once(times: list[int], data: st.DataObject) -> None:
    # The venue's tape in its own order, and a feed that is interrupted and begins again somewhere further back.
    tape = [trade(at, number, 2.0**number) for number, at in enumerate(times)]
    fed: list[Trade] = []
    position = 0
    while position < len(tape):
        stop = data.draw(st.integers(position + 1, len(tape)))
        fed += tape[data.draw(st.integers(0, position)) : stop]
        position = stop
    one = market()
    accepted = [event.trade_id for event in fed if one.apply_trade(event)]
    assert accepted == list(range(len(tape)))
    assert net_of(one) == 2.0 ** len(tape) - 1.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), max_size=40))
def test_whatever_comes_no_trade_counts_twice_and_time_never_goes_back(events: list[tuple[int, int]]) -> None:
    one = market()
    accepted = [pair for pair in events if one.apply_trade(trade(*pair))]
    assert len(set(accepted)) == len(accepted)
    assert [at for at, _ in accepted] == sorted(at for at, _ in accepted)


def test_a_repeated_trade_shows_that_the_channel_is_back_but_brings_no_minute_back() -> None:
    one = market()
    one.apply_trade(trade(5, 1, received_ns=START))
    one.interrupt("main", "disconnected")
    assert one.feeds["trades"].broken == "disconnected"
    assert not one.apply_trade(trade(5, 1, received_ns=START + SECOND))
    assert (one.feeds["trades"].received_ns, one.feeds["trades"].broken) == (START + SECOND, "")
    one.flow.advance(START + 3 * MINUTE)
    assert one.flow.covered_ratio() == 0.0


def test_a_trade_that_is_stamped_far_ahead_is_not_believed_and_does_not_hide_what_follows() -> None:
    one = market()
    assert one.apply_trade(trade(START, 1, received_ns=START))
    assert not one.apply_trade(trade(START + 400 * MINUTE, 2, received_ns=START + SECOND))
    assert one.apply_trade(trade(START + 2 * SECOND, 3, received_ns=START + 2 * SECOND))
    # After a pause that was really that long it is.
    assert one.apply_trade(trade(START + 400 * MINUTE, 4, received_ns=START + 400 * MINUTE))


def test_a_polled_value_does_not_replace_a_newer_one_of_the_socket_unless_the_socket_is_silent_or_lost() -> None:
    one = market()

    def polled(seconds: float, price: float) -> float | None:
        one.apply_mark(MarkPrice(**origin(START + round(seconds * SECOND), "rest"), exchange_ns=None, mark_price=price))
        return one.mark_price

    assert polled(0.0, 1.0) == 1.0
    one.apply_mark(MarkPrice(**origin(START + SECOND), exchange_ns=None, mark_price=2.0))
    assert polled(2.0, 3.0) == 2.0
    assert polled(6.0, 4.0) == 4.0
    one.apply_mark(MarkPrice(**origin(START + 7 * SECOND), exchange_ns=None, mark_price=5.0))
    one.interrupt("main", "disconnected")
    assert polled(8.0, 6.0) == 6.0


def test_a_sale_of_the_taker_counts_as_negative_flow() -> None:
    one = market()
    one.apply_trade(Trade(**origin(START), exchange_ns=1, price=100.0, size=3.0, aggressor="sell", trade_id=1))
    one.apply_trade(Trade(**origin(START), exchange_ns=1, price=100.0, size=1.0, aggressor="buy", trade_id=2))
    assert net_of(one) == -2.0


# ----------------------------------------------------------------------------------------------------------- liquidations


def liquidation(fill_id: int | None, account: str | None = None, *, exchange_ns: int = 1, size: float = 2.0) -> Liquidation:
    return Liquidation(
        **origin(START),
        exchange_ns=exchange_ns,
        side="long",
        price=50.0,
        size=size,
        completeness="sampled" if fill_id is None else "partial",
        fill_id=fill_id,
        account=account,
    )


def test_a_liquidation_fill_counts_once_for_each_account_that_it_closed() -> None:
    one = market()
    assert [one.apply_liquidation(liquidation(7, name)) for name in ("0xa", "0xa", "0xb")] == [True, False, True]
    assert one.liquidated_usd == {"long": 200.0, "short": 0.0}
    assert one.completeness == "partial"


def test_a_repeated_liquidation_of_a_feed_without_fill_ids_counts_once() -> None:
    # Binance shows at most one per symbol and second and gives it no id: the same moment, price and size is the same order.
    one = market()
    events = [liquidation(None), liquidation(None), liquidation(None, size=3.0), liquidation(None, exchange_ns=2)]
    assert [one.apply_liquidation(event) for event in events] == [True, False, True, True]
    assert one.liquidated_usd["long"] == 100.0 + 150.0 + 100.0
    assert one.completeness == "sampled"


def test_fill_ids_are_remembered_up_to_a_bound_oldest_forgotten_first() -> None:
    one = market()
    for number in range(FILLS_SEEN_MAX + 1):
        assert one.apply_liquidation(liquidation(number))
    assert len(one._fills_seen) == len(one._fills_order) == FILLS_SEEN_MAX
    assert not one.apply_liquidation(liquidation(1))
    assert one.apply_liquidation(liquidation(0))


# ------------------------------------------------------------------------------------------------------ lost connections


def fed_market() -> Market:
    """A market whose channels came over connections of their own."""
    one = market()
    one.apply_book_snapshot(
        BookSnapshot(**origin(START, "book"), exchange_ns=1, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)], last_id=10)
    )
    one.feeds["book"].connection = "book"
    one.apply_trade(trade(1, 1, connection="tape"))
    one.apply_mark(MarkPrice(**origin(START, "marks"), exchange_ns=None, mark_price=100.0))
    one.apply_open_interest(OpenInterest(**origin(START, "rest"), exchange_ns=None, open_interest_base=5.0))
    return one


@pytest.mark.parametrize(
    ("connection", "channels"), [("book", ["book"]), ("tape", ["trades"]), ("marks", ["mark"]), ("rest", ["open_interest"])]
)
def test_a_lost_connection_takes_exactly_what_came_over_it(connection: str, channels: list[str]) -> None:
    one = fed_market()
    one.changed = False
    assert one.interrupt(connection, "disconnected") == channels
    assert {name for name, feed in one.feeds.items() if feed.broken} == set(channels)
    assert one.changed


def test_a_connection_that_fed_nothing_here_changes_nothing() -> None:
    one = fed_market()
    one.changed = False
    assert one.interrupt("other", "disconnected") == []
    assert not one.changed
    assert all(not feed.broken for feed in one.feeds.values())


def test_a_channel_that_was_never_heard_is_not_lost() -> None:
    one = market()
    assert one.interrupt("", "disconnected") == []


def test_a_book_of_layers_survives_while_one_at_full_resolution_is_left() -> None:
    one = market()
    for connection, layer in (("main", "fast"), ("deep", "book")):
        one.apply_book_snapshot(
            BookSnapshot(**origin(START, connection), exchange_ns=1, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)], layer=layer)
        )
    assert one.interrupt("main", "disconnected") == []
    assert one.interrupt("deep", "disconnected") == ["book"]
    assert one.feeds["book"].broken == "disconnected"


def test_an_aggregated_layer_does_not_keep_a_book_alive() -> None:
    one = market()
    one.apply_book_snapshot(
        BookSnapshot(**origin(START), exchange_ns=1, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)], layer="deep", significant_figures=3)
    )
    assert one.feeds["book"].received_ns is None


def test_a_quote_alone_is_no_book() -> None:
    one = market()
    one.apply_quote(Quote(**origin(START), exchange_ns=1, bid=(99.0, 1.0), ask=(101.0, 1.0)))
    assert one.book is None
    assert one.feeds["book"].received_ns is None


def test_marks_without_index_or_funding_keep_the_last_known_ones() -> None:
    one = market()
    one.apply_mark(MarkPrice(**origin(START), exchange_ns=1, mark_price=100.0, index_price=101.0, funding_rate=0.001))
    one.apply_mark(MarkPrice(**origin(START), exchange_ns=2, mark_price=102.0))
    assert (one.mark_price, one.index_price, one.funding_rate) == (102.0, 101.0, 0.001)
