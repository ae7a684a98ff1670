"""What is looked at at once, what waits its turn, and that nothing waits for ever."""

from __future__ import annotations

import msgspec
import pytest

from monitor.pacing import MARKETS_PER_PASS, REFRESH_NS, choose, is_due
from monitor.projection import MarketProjection
from monitor.state.markets import Market
from tests.monitor.world import World, ns

INTERVAL_NS = 100_000_000


@pytest.fixture(scope="module")
def seen() -> MarketProjection:
    return msgspec.structs.replace(World("BTC").market(0), as_of_ns=ns(0))


def market(index: int = 0, *, changed: bool = False, repriced: bool = False) -> Market:
    one = Market("v", f"S{index}", index)
    one.changed, one.repriced = changed, repriced
    return one


def test_what_was_never_projected_and_what_has_a_new_price_is_due_at_once(seen: MarketProjection) -> None:
    assert is_due(market(), None, ns(0), INTERVAL_NS)
    assert is_due(market(repriced=True), seen, ns(0), INTERVAL_NS)


def test_other_changes_wait_for_the_interval_and_silence_for_the_refresh(seen: MarketProjection) -> None:
    assert not is_due(market(changed=True), seen, seen.as_of_ns + INTERVAL_NS - 1, INTERVAL_NS)
    assert is_due(market(changed=True), seen, seen.as_of_ns + INTERVAL_NS, INTERVAL_NS)
    assert not is_due(market(), seen, seen.as_of_ns + REFRESH_NS - 1, INTERVAL_NS)
    assert is_due(market(), seen, seen.as_of_ns + REFRESH_NS, INTERVAL_NS)


def test_a_paced_pass_takes_all_new_prices_and_fills_up_with_those_that_waited_longest(seen: MarketProjection) -> None:
    count = MARKETS_PER_PASS * 3
    markets = [market(index, changed=True, repriced=index < 5) for index in range(count)]
    last = {index: msgspec.structs.replace(seen, as_of_ns=ns(0) - index) for index in range(count)}
    chosen = choose(markets, last, ns(1), INTERVAL_NS, paced=True)
    assert len(chosen) == MARKETS_PER_PASS
    assert set(range(5)) <= chosen
    assert chosen - set(range(5)) == set(range(count - MARKETS_PER_PASS + 5, count))
    assert choose(markets, last, ns(1), INTERVAL_NS, paced=False) == set(range(count))


def test_more_new_prices_than_a_pass_holds_are_all_taken(seen: MarketProjection) -> None:
    markets = [market(index, repriced=True) for index in range(MARKETS_PER_PASS * 2)]
    last = dict.fromkeys(range(len(markets)), seen)
    assert len(choose(markets, last, ns(0), INTERVAL_NS, paced=True)) == len(markets)


def test_under_steady_load_every_market_has_its_turn(seen: MarketProjection) -> None:
    count = MARKETS_PER_PASS * 4
    markets = [market(index, changed=True) for index in range(count)]
    last = dict.fromkeys(range(count), seen)
    turns = dict.fromkeys(range(count), 0)
    for step in range(1, 41):
        now_ns = ns(0) + step * INTERVAL_NS
        for index in choose(markets, last, now_ns, INTERVAL_NS, paced=True):
            turns[index] += 1
            last[index] = msgspec.structs.replace(seen, as_of_ns=now_ns)
    assert set(turns.values()) == {10}
