"""Sequenced books against the rule of the venue, layered books against the order books they were cut from."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import BookDelta, BookSnapshot, Level, Quote
from monitor.state import book as book_module
from monitor.state import book_layers
from monitor.state.book import SequencedBook
from monitor.state.book_layers import LayeredBook

ORIGIN = {"venue": "binance", "connection": "public", "received_ns": 1}


def snapshot(last_id: int | None, bids: list[Level], asks: list[Level], **more: object) -> BookSnapshot:
    return BookSnapshot(**ORIGIN, symbol="X", exchange_ns=more.pop("exchange_ns", 1), bids=bids, asks=asks, last_id=last_id, **more)  # type: ignore[arg-type]


def delta(first: int, last: int, previous: int, bids: list[Level] = [], asks: list[Level] = []) -> BookDelta:  # noqa: B006
    return BookDelta(**ORIGIN, symbol="X", exchange_ns=1, first_id=first, last_id=last, previous_id=previous, bids=bids, asks=asks)  # type: ignore[arg-type]


def quote(bid: Level | None, ask: Level | None, exchange_ns: int) -> Quote:
    return Quote(**ORIGIN, symbol="X", exchange_ns=exchange_ns, bid=bid, ask=ask)  # type: ignore[arg-type]


def synced() -> SequencedBook:
    book = SequencedBook()
    book.apply_snapshot(snapshot(100, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0), (102.0, 2.0)]))
    assert book.apply_delta(delta(95, 105, 94, [(99.5, 1.0)], []))
    return book


def test_deltas_that_waited_are_joined_to_the_snapshot_and_older_ones_passed_over() -> None:
    book = SequencedBook()
    assert book.apply_delta(delta(80, 90, 79, [(50.0, 9.0)]))
    assert book.apply_delta(delta(91, 101, 90, [(99.5, 3.0)]))
    assert book.apply_delta(delta(102, 103, 101, [], [(101.0, 0.0)]))
    assert not book.reliable
    assert book.apply_snapshot(snapshot(100, [(99.0, 1.0)], [(101.0, 1.0), (102.0, 1.0)]))
    assert (book.state, book.best_bid, book.best_ask, book.last_id) == ("live", 99.5, 102.0, 103)
    assert 50.0 not in book.bids


def test_the_first_delta_must_straddle_the_snapshot() -> None:
    book = SequencedBook()
    book.apply_snapshot(snapshot(100, [(99.0, 1.0)], [(101.0, 1.0)]))
    assert not book.apply_delta(delta(102, 110, 101))
    assert (book.state, book.best_bid) == ("waiting", None)


def test_a_missing_delta_is_a_gap_and_the_delta_behind_it_is_kept_for_the_next_snapshot() -> None:
    book = synced()
    assert not book.apply_delta(delta(120, 130, 119, [(99.7, 4.0)]))
    assert book.state == "waiting"
    assert not book.reliable
    assert book.depth().bids.size.size == 0
    assert book.apply_snapshot(snapshot(125, [(99.0, 1.0)], [(101.0, 1.0)]))
    assert (book.best_bid, book.last_id, book.state) == (99.7, 130, "live")


def test_a_snapshot_older_than_the_gap_does_not_heal_it() -> None:
    book = synced()
    book.apply_delta(delta(120, 130, 119))
    assert not book.apply_snapshot(snapshot(110, [(99.0, 1.0)], [(101.0, 1.0)]))
    assert book.state == "waiting"


def test_a_living_book_whose_price_leaves_its_snapshot_wants_a_new_one_and_lives_on_meanwhile() -> None:
    book = SequencedBook()
    book.apply_snapshot(
        snapshot(100, [(float(price), 1.0) for price in range(80, 100)], [(float(price), 1.0) for price in range(101, 121)])
    )
    book.apply_delta(delta(95, 105, 94))
    assert not book.wants_snapshot()
    book.apply_delta(delta(106, 110, 105, [(float(price), 0.0) for price in range(88, 100)], []))
    assert book.wants_snapshot()
    book.expect_snapshot()
    book.apply_delta(delta(111, 120, 110, [(87.5, 2.0)], []))
    book.apply_delta(delta(121, 130, 120, [(87.6, 3.0)], []))
    assert book.apply_snapshot(
        snapshot(115, [(float(price), 1.0) for price in range(60, 88)], [(float(price), 1.0) for price in range(101, 130)])
    )
    assert (book.state, book.last_id, book.best_bid) == ("live", 130, 87.6)
    assert book.depth().bid_reach == 60.0
    assert not book.wants_snapshot()


def test_a_snapshot_that_does_not_join_leaves_a_living_book_alone() -> None:
    book = synced()
    assert book.apply_snapshot(snapshot(50, [(1.0, 1.0)], [(2.0, 1.0)]))
    assert (book.state, book.best_bid, book.last_id) == ("live", 99.5, 105)


def test_a_duplicate_delta_changes_nothing() -> None:
    book = synced()
    before = dict(book.bids)
    assert book.apply_delta(delta(95, 105, 94, [(99.5, 7.0)]))
    assert book.bids == before
    assert book.state == "live"


changes = st.lists(
    st.tuples(st.booleans(), st.integers(1, 30), st.integers(0, 5)).map(
        lambda change: (change[0], float(change[1]), float(change[2]))
    ),
    max_size=200,
)


@settings(max_examples=200, deadline=None)
@given(changes)
def test_the_cached_best_prices_equal_those_of_the_levels(moves: list[tuple[bool, float, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_module, "NEAR_LEVELS", 3)
        patch.setattr(book_module, "NEAR_MAX", 7)
        check_best_prices(moves)


def check_best_prices(moves: list[tuple[bool, float, float]]) -> None:
    book = SequencedBook()
    book.apply_snapshot(snapshot(0, [(5.0, 1.0)], [(40.0, 1.0)]))
    for number, (is_bid, price, size) in enumerate(moves, start=1):
        level = [(price, size)] if is_bid else [(price + 30.0, size)]
        book.apply_delta(delta(number, number, number - 1, level if is_bid else [], [] if is_bid else level))
        assert book.best_bid == max(book.bids, default=None)
        assert book.best_ask == min(book.asks, default=None)
        if number % 17 == 0:
            book.trim()


def test_numbers_that_start_anew_are_a_gap_and_not_a_stream_of_duplicates() -> None:
    book = synced()
    restarted = BookDelta(**ORIGIN, symbol="X", exchange_ns=2, first_id=1, last_id=2, previous_id=0, bids=[(99.7, 1.0)], asks=[])  # type: ignore[arg-type]
    assert not book.apply_delta(restarted)
    assert not book.reliable


def test_depth_is_sorted_outwards_and_ends_where_the_snapshot_ended() -> None:
    book = synced()
    book.apply_delta(delta(106, 107, 105, [(90.0, 5.0)], [(150.0, 5.0)]))
    depth = book.depth()
    assert depth.bids.far.tolist() == [99.5, 99.0, 98.0]
    assert depth.bids.size.tolist() == [1.0, 1.0, 2.0]
    assert depth.asks.far.tolist() == [101.0, 102.0]
    assert (depth.bid_reach, depth.ask_reach) == (98.0, 102.0)


def test_a_crossed_book_is_not_reliable() -> None:
    book = synced()
    book.apply_delta(delta(106, 107, 105, [(103.0, 5.0)]))
    assert not book.reliable


def test_a_side_that_outgrows_its_bound_loses_its_furthest_levels_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "LEVELS_MAX", 100)
    book = SequencedBook()
    book.apply_snapshot(snapshot(0, [(1_000.0, 1.0)], [(2_000.0, 1.0)]))
    book.apply_delta(delta(1, 1, 0, [(float(price), 1.0) for price in range(800, 1_000)], []))
    book.trim()
    assert len(book.bids) == 90
    assert book.levels_dropped == 111
    assert book.best_bid == 1_000.0
    assert min(book.bids) == 911.0
    assert book.depth().bid_reach == 1_000.0


def test_deltas_waiting_for_a_snapshot_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "PENDING_MAX", 3)
    book = SequencedBook()
    for number in range(5):
        book._pending = type(book._pending)(book._pending, maxlen=3)
        book.apply_delta(delta(number, number, number - 1))
    assert book.pending_dropped == 2


def cut(levels: list[tuple[float, float]], figures: int | None, count: int, *, bids: bool) -> list[Level]:
    """Aggregate exact levels as the venue does: bids round down, asks up, the nearest ``count`` buckets."""
    buckets: dict[float, float] = {}
    for price, size in levels:
        key = price
        if figures is not None:
            exact = Decimal(repr(price))
            step = Decimal(1).scaleb(exact.adjusted() - figures + 1)
            key = float((exact / step).to_integral_value(ROUND_FLOOR if bids else ROUND_CEILING) * step)
        buckets[key] = buckets.get(key, 0.0) + size
    return sorted(buckets.items(), reverse=bids)[:count]


full_books = st.tuples(
    st.lists(st.tuples(st.integers(8_000, 9_999), st.integers(1, 50)), min_size=30, max_size=150, unique_by=lambda level: level[0]),
    st.lists(
        st.tuples(st.integers(10_001, 12_500), st.integers(1, 50)), min_size=30, max_size=150, unique_by=lambda level: level[0]
    ),
)


@settings(max_examples=150, deadline=None)
@given(full_books)
def test_layers_compose_into_one_curve_that_agrees_with_the_book_they_were_cut_from(
    full: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    bids = [(float(price), float(size)) for price, size in full[0]]
    asks = [(float(price), float(size)) for price, size in full[1]]
    book = LayeredBook()
    for layer, figures, count in (("fast", None, 5), ("plain", None, 20), ("figures-3", 3, 20), ("figures-2", 2, 20)):
        book.apply_snapshot(
            snapshot(
                None,
                cut(bids, figures, count, bids=True),
                cut(asks, figures, count, bids=False),
                layer=layer,
                significant_figures=figures,
            )
        )
    depth = book.depth()
    for side, exact, outward in ((depth.bids, bids, -1.0), (depth.asks, asks, 1.0)):
        assert (np.diff(side.far * outward) > 0.0).all()
        assert (side.near * outward <= side.far * outward).all()
        assert (side.near[1:] * outward > side.far[:-1] * outward).all()
        reach = float(side.far[-1])
        within = sum(size for price, size in exact if price * outward <= reach * outward)
        assert side.size.sum() == pytest.approx(within)
        # Up to the far end of every level the composed depth is the true one.
        for far, total in zip(side.far.tolist(), np.cumsum(side.size).tolist(), strict=True):
            assert total == pytest.approx(sum(size for price, size in exact if price * outward <= far * outward))


def test_a_newer_quote_replaces_the_touch_of_older_layers() -> None:
    book = LayeredBook()
    book.apply_snapshot(snapshot(None, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)], exchange_ns=10, layer="fast"))
    book.apply_quote(quote((98.5, 4.0), (100.0, 3.0), exchange_ns=11))
    assert (book.best_bid, book.best_ask) == (98.5, 100.0)
    depth = book.depth()
    assert depth.bids.far.tolist() == [98.5, 98.0]
    assert depth.asks.far.tolist() == [100.0, 101.0]
    book.apply_snapshot(snapshot(None, [(99.0, 1.0)], [(101.0, 1.0)], exchange_ns=12, layer="fast"))
    assert (book.best_bid, book.best_ask) == (99.0, 101.0)


def test_an_older_snapshot_or_quote_does_not_replace_a_newer_one() -> None:
    book = LayeredBook()
    book.apply_snapshot(snapshot(None, [(99.0, 1.0)], [(101.0, 1.0)], exchange_ns=10, layer="fast"))
    book.apply_snapshot(snapshot(None, [(90.0, 1.0)], [(110.0, 1.0)], exchange_ns=9, layer="fast"))
    assert book.best_bid == 99.0
    book.apply_quote(quote((99.5, 1.0), (100.5, 1.0), exchange_ns=20))
    book.apply_quote(quote((98.0, 1.0), (103.0, 1.0), exchange_ns=19))
    assert book.best_bid == 99.5


def test_a_lost_connection_takes_its_layers_with_it() -> None:
    book = LayeredBook()
    book.apply_snapshot(snapshot(None, [(99.0, 1.0)], [(101.0, 1.0)], layer="fast"))
    coarse = snapshot(None, [(90.0, 9.0)], [(110.0, 9.0)], layer="figures-2", significant_figures=2)
    book.apply_snapshot(
        BookSnapshot(**{**{name: getattr(coarse, name) for name in coarse.__struct_fields__}, "connection": "book-2"})
    )
    assert book.depth().bid_reach == 90.0
    assert book.interrupt("book-2")
    assert book.depth().bid_reach == 99.0
    assert not book.interrupt("public")
    assert not book.reliable
    assert book.depth().bid_reach is None


def test_layers_that_fell_silent_expire() -> None:
    book = LayeredBook()
    book.apply_snapshot(snapshot(None, [(99.0, 1.0)], [(101.0, 1.0)], layer="fast"))
    book.expire(oldest_ns=2)
    assert not book.reliable


def test_bucket_widths_change_on_the_right_side_of_a_power_of_ten() -> None:
    widths = book_layers.bucket_width(np.array([-100_000.0, 100_000.0, -99_000.0, 101_000.0]), 2)
    assert widths.tolist() == pytest.approx([10_000.0, 1_000.0, 1_000.0, 10_000.0])
    assert math.isfinite(widths.sum())
