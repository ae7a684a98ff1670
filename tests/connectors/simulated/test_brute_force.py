from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulated.brute_force import (
    ExchangeSnapshot,
    MarketSnapshot,
    Trigger,
    run_exogenous_buy,
    run_exogenous_sell,
    snapshot,
)
from connectors.simulated.exchange import DEFINITION_RULES
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig
from tests.connectors.simulated.worlds import ROUND, START_MS, give, quote, world

Reference = Literal["last_trade", "best_bid"]


def frozen(bids: list[tuple[float, int]], triggers: list[tuple[float, int]]) -> ExchangeSnapshot:
    """Return a market and its mirror image at 200: bids at p become asks at 200 - p."""
    triggers = sorted(triggers, key=lambda trigger: -trigger[0])
    market = MarketSnapshot(
        coin="X",
        time_ms=0,
        lots_per_coin=1,
        bids=bids,
        asks=[(200.0 - price, lots) for price, lots in bids],
        long_triggers=[Trigger(price, lots, str(index)) for index, (price, lots) in enumerate(triggers)],
        short_triggers=[Trigger(200.0 - price, lots, str(index)) for index, (price, lots) in enumerate(triggers)],
    )
    return ExchangeSnapshot(time_ms=0, markets={"X": market})


def test_it_gives_the_vectors_of_the_one_asset_book(shared_data: Path) -> None:
    vector = json.loads((shared_data / "vectors/A_one_asset_static_book.json").read_text())
    # The vectors use half lots.
    state = frozen([(price, size * 2) for price, size in vector["bids"]], [(price, size * 2) for price, size in vector["triggers"]])
    for case in vector["cases"]:
        last = run_exogenous_sell(state, "X", round(case["V"] * 2))
        best = run_exogenous_sell(state, "X", round(case["V"] * 2), "best_bid")
        assert last.landing_price == case["last_trade_price"], case
        assert last.forced_lots == 2 * case["forced"], case
        assert last.unabsorbed == 2 * case["unabsorbed"], case
        assert best.landing_price == case["best_bid_price"], case
        assert best.forced_lots == 2 * case["best_bid_forced"], case


BOOKS = st.lists(st.integers(1, 12), min_size=1, max_size=12)
TRIGGERS = st.lists(st.tuples(st.integers(80, 101), st.integers(1, 12)), max_size=12)


def _book(sizes: list[int]) -> list[tuple[float, int]]:
    return [(99.0 - index, size) for index, size in enumerate(sizes)]


@given(BOOKS, TRIGGERS, st.integers(0, 90), st.sampled_from(["last_trade", "best_bid"]))
def test_selling_in_runs_and_buying_in_a_mirror_give_the_same(
    sizes: list[int], triggers: list[tuple[float, int]], volume: int, reference: Reference
) -> None:
    state = frozen(_book(sizes), triggers)
    result = run_exogenous_sell(state, "X", volume, reference)
    assert run_exogenous_sell(state, "X", volume, reference, one_lot_at_a_time=False) == result
    mirrored = run_exogenous_buy(state, "X", volume, reference)
    price = result.landing_price
    assert mirrored == msgspec.structs.replace(result, landing_price=None if price is None else 200.0 - price)


@given(BOOKS, TRIGGERS, st.integers(1, 90))
def test_it_agrees_with_the_running_maximum_of_depth_minus_forced_volume(
    sizes: list[int], triggers: list[tuple[float, int]], volume: int
) -> None:
    book = _book(sizes)
    depth, forced, barrier, highest = 0, 0, [], float("-inf")
    for price, size in book:
        highest = max(highest, depth - forced)
        barrier.append(highest)
        depth += size
        forced = sum(lots for trigger, lots in triggers if trigger >= price)
    for reference, reached in (("last_trade", [v < volume for v in barrier]), ("best_bid", [v <= volume for v in barrier])):
        level = max(index for index, is_reached in enumerate(reached) if is_reached)
        expected_forced = sum(lots for trigger, lots in triggers if trigger >= book[level][0])
        result = run_exogenous_sell(frozen(book, triggers), "X", volume, "last_trade" if reference == "last_trade" else "best_bid")
        assert result.landing_price == book[level][0]
        assert result.forced_lots == expected_forced
        assert result.unabsorbed == max(0, volume + expected_forced - depth)


def test_nothing_happens_without_a_volume_or_a_book() -> None:
    nothing = run_exogenous_sell(frozen([(99.0, 5)], [(99.5, 3)]), "X", 0)
    assert (nothing.landing_price, nothing.forced_lots, nothing.levels_printed) == (None, 0, 0)
    empty = run_exogenous_sell(frozen([], [(99.5, 3)]), "X", 7)
    assert (empty.landing_price, empty.forced_lots, empty.unabsorbed) == (None, 0, 7)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=15),
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.051, 0.4)), max_size=10),
    st.integers(1, 300),
)
def test_the_running_exchange_under_the_last_trade_rule_lands_where_the_definition_says(
    sizes: list[int], longs: list[tuple[int, float]], volume: int
) -> None:
    exchange, engine = world(accounts=len(longs) + 3, config=DEFINITION_RULES)
    seller = len(longs) + 1
    exchange.table.raw[seller] = 10**15
    for row, (size, margin) in enumerate(longs, start=1):
        give(exchange, row, 0, size, size * 100.0 * margin)
    quote(exchange, 0, [(99.0 - index, size) for index, size in enumerate(sizes)], is_bid=True)
    state = snapshot(exchange)
    assert {trigger.account for trigger in state.markets["ROUND"].long_triggers} == set(
        exchange.table.addresses[1 : len(longs) + 1]
    )
    expected = run_exogenous_sell(state, "ROUND", volume * ROUND.lot_scale, one_lot_at_a_time=False)
    exchange.begin_block(START_MS + 1)
    exchange.market_order(seller, 0, volume * ROUND.lot_scale, is_buy=False)
    while exchange.update_marks() and engine.run():
        pass
    last = exchange.last_price[0]
    assert last is not None
    assert ROUND.price_usd(last) == expected.landing_price
    assert {exchange.table.addresses[record.account] for record in engine.records} == set(expected.liquidated)
    assert sum(trade.lots for trade in exchange.trades) == volume * ROUND.lot_scale + expected.forced_lots - expected.unabsorbed


def test_a_running_exchange_can_be_frozen_and_read_back() -> None:
    config = SimulationConfig(seed=3, population=PopulationConfig(accounts=120, unified_share=0.0, isolated_share=0.0))
    simulation = Simulation(config)
    for block in range(1, 30):
        simulation.step(config.start_ms + 100 * block)
    state = snapshot(simulation.exchange)
    assert msgspec.json.decode(msgspec.json.encode(state), type=ExchangeSnapshot) == state
    before = [side.levels() for book in simulation.exchange.books for side in (book.bids, book.asks)]
    for coin, market in state.markets.items():
        assert market.long_triggers
        assert market.short_triggers
        depth = sum(lots for _, lots in market.bids)
        results = [run_exogenous_sell(state, coin, depth * part // 10, one_lot_at_a_time=False) for part in (1, 5, 9)]
        prices = [result.landing_price for result in results]
        assert None not in prices
        assert prices == sorted(prices, key=lambda price: -(price or 0.0))
        assert results[-1].forced_lots > 0
    assert [side.levels() for book in simulation.exchange.books for side in (book.bids, book.asks)] == before
    hype = state.markets["HYPE"]
    volume = hype.bids[0][1] * 40
    assert run_exogenous_sell(state, "HYPE", volume) == run_exogenous_sell(state, "HYPE", volume, one_lot_at_a_time=False)


@pytest.mark.parametrize(("coin", "depth_part"), [("BTC", 0.4), ("ETH", 0.45), ("SOL", 0.45), ("HYPE", 0.55)])
@pytest.mark.parametrize("is_buy", [False, True])
def test_a_whole_simulated_market_lands_where_the_definition_says(coin: str, depth_part: float, is_buy: bool) -> None:
    population = PopulationConfig(accounts=300, unified_share=0.0, markets_per_account_max=1)
    config = SimulationConfig(seed=11, population=population, exchange=DEFINITION_RULES, agents=False)
    simulation = Simulation(config)
    simulation.step(config.start_ms + 1)
    state = snapshot(simulation.exchange)
    market = state.markets[coin]
    volume = int(depth_part * sum(lots for _, lots in (market.asks if is_buy else market.bids)))
    run = run_exogenous_buy if is_buy else run_exogenous_sell
    expected = run(state, coin, volume, one_lot_at_a_time=False)
    assert len(expected.liquidated) > 3
    assert expected.unabsorbed == 0
    simulation.submit(coin, volume, is_buy=is_buy)
    simulation.step(config.start_ms + 2)
    trades = simulation.exchange.trades
    index = [spec.coin for spec in config.markets].index(coin)
    last = simulation.exchange.last_price[index]
    assert last is not None
    assert config.markets[index].price_usd(last) == expected.landing_price
    assert {simulation.table.addresses[record.account] for record in simulation.engine.records} == set(expected.liquidated)
    assert sum(trade.lots for trade in trades if trade.forced is not None) == expected.forced_lots
    assert len({trade.price for trade in trades}) == expected.levels_printed


@pytest.mark.parametrize("reference", ["last_trade", "best_bid"])
def test_triggers_fire_at_touch(reference: Reference) -> None:
    state = frozen([(99.0, 5), (98.0, 5)], [(99.0, 3)])
    assert run_exogenous_sell(state, "X", 1, reference).liquidated == ["0"]
    state = frozen([(99.0, 5), (98.0, 5)], [(98.999, 3)])
    assert run_exogenous_sell(state, "X", 1, reference).liquidated == []
