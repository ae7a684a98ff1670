from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.simulated.book import Book, BookLevel, BookSide


def test_orders_at_one_price_are_met_in_the_order_in_which_they_came() -> None:
    bids = BookSide(is_bid=True)
    bids.add(1, 100, 5, 11)
    bids.add(2, 100, 5, 12)
    bids.add(3, 101, 5, 13)
    met = [(match.owner, match.price, match.lots) for match in bids.take(9, 8, None)]
    assert met == [(3, 101, 5), (1, 100, 3)]
    assert bids.lots_at(100) == 7


def test_a_resized_order_goes_to_the_back_of_the_queue() -> None:
    asks = BookSide(is_bid=False)
    asks.add(1, 100, 5, 11)
    asks.add(2, 100, 5, 12)
    asks.add(1, 100, 6, 13)
    assert [match.owner for match in asks.take(9, 11, None)] == [2, 1]


def test_nobody_trades_with_himself() -> None:
    asks = BookSide(is_bid=False)
    asks.add(1, 100, 5, 11)
    asks.add(2, 101, 5, 12)
    assert [match.owner for match in asks.take(1, 5, None)] == [2]
    assert not asks.owned(1)
    assert len(asks) == 0


def test_limits_are_inclusive() -> None:
    asks = BookSide(is_bid=False)
    for price in (100, 101, 102):
        asks.add(1, price, 5, price)
    assert [match.price for match in asks.take(9, 50, 101)] == [100, 101]
    bids = BookSide(is_bid=True)
    for price in (100, 99, 98):
        bids.add(1, price, 5, price)
    assert bids.lots_until(99) == 10
    assert [match.price for match in bids.take(9, 50, 99)] == [100, 99]


def test_aggregated_bids_are_rounded_down_and_asks_up() -> None:
    book = Book()
    for price in (12_344, 12_341, 12_339):
        book.bids.add(1, price, 1, price)
    for price in (12_351, 12_350, 12_360, 12_361):
        book.asks.add(1, price, 1, price)
    assert book.bids.aggregated(4, 1, 20) == [BookLevel(12_340, 2, 2), BookLevel(12_330, 1, 1)]
    assert book.asks.aggregated(4, 1, 20) == [BookLevel(12_350, 1, 1), BookLevel(12_360, 2, 2), BookLevel(12_370, 1, 1)]
    assert book.bids.aggregated(2, 1, 20) == [BookLevel(12_000, 3, 3)]
    assert book.bids.aggregated(5, 5, 1) == [BookLevel(12_340, 2, 2)]


def test_cancelling_everything_of_one_account_leaves_the_others() -> None:
    book = Book()
    book.bids.add(1, 100, 5, 1)
    book.bids.add(2, 100, 5, 2)
    book.asks.add(1, 110, 5, 3)
    assert book.cancel_all(1) == 2
    assert book.bids.levels() == [BookLevel(100, 5, 1)]
    assert not book.asks.levels()


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "take"]), st.integers(0, 3), st.integers(95, 105), st.integers(1, 20)),
        max_size=60,
    ),
    st.booleans(),
)
def test_the_book_behaves_like_a_plain_list_of_orders(operations: list[tuple[str, int, int, int]], is_bid: bool) -> None:
    side = BookSide(is_bid=is_bid)
    plain: list[list[int]] = []
    for number, (kind, owner, price, lots) in enumerate(operations):
        if kind == "add":
            plain = [order for order in plain if (order[0], order[1]) != (owner, price)]
            plain.append([owner, price, lots, number])
            side.add(owner, price, lots, number)
        elif kind == "remove":
            present = price in side.owned(owner)
            assert present == any((order[0], order[1]) == (owner, price) for order in plain)
            if present:
                side.remove(owner, price)
                plain = [order for order in plain if (order[0], order[1]) != (owner, price)]
        else:
            expected = []
            left = lots
            for order in sorted(plain, key=lambda order: -order[1] if is_bid else order[1]):
                if left == 0 or (order[1] < price if is_bid else order[1] > price):
                    break
                if order[0] == owner:
                    order[2] = 0
                    continue
                taken = min(left, order[2])
                order[2] -= taken
                left -= taken
                expected.append((order[1], order[0], taken, order[3]))
            plain = [order for order in plain if order[2]]
            assert [(m.price, m.owner, m.lots, m.order_id) for m in side.take(owner, lots, price)] == expected
        totals: dict[int, int] = {}
        for order in plain:
            totals[order[1]] = totals.get(order[1], 0) + order[2]
        assert [(level.price, level.lots) for level in side.levels()] == sorted(totals.items(), reverse=is_bid)
        assert side.best() == (None if not totals else max(totals) if is_bid else min(totals))
