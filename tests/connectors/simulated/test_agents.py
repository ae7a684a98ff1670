from __future__ import annotations

import numpy as np
import pytest

from connectors.simulated.markets import MARKETS, MICROS_PER_USD
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    config = SimulationConfig(seed=4, population=PopulationConfig(accounts=100))
    simulation = Simulation(config)
    for block in range(1, 100):
        simulation.step(config.start_ms + block * 100)
    return simulation


@pytest.mark.parametrize("market", range(4))
def test_books_are_deep_and_ordered(simulation: Simulation, market: int) -> None:
    spec, book = MARKETS[market], simulation.exchange.books[market]
    mid = simulation.exchange.mid(market)
    assert mid is not None
    for side, sign in ((book.bids, -1), (book.asks, 1)):
        levels = side.levels()
        assert len(levels) > 150
        assert all(level.price % spec.tick(level.price) == 0 for level in levels)
        assert abs(levels[-1].price / mid - 1.0) > 0.14
        within = sum(level.lots * level.price for level in levels if abs(level.price / mid - 1.0) <= 0.01) / MICROS_PER_USD
        assert 0.6 * spec.depth_one_percent_usd < within < 1.6 * spec.depth_one_percent_usd
        assert (levels[0].price - mid) * sign >= 0
    bid, ask = book.bids.best(), book.asks.best()
    assert bid is not None
    assert ask is not None
    assert 0 < (ask - bid) / mid < 0.0005


def test_the_book_follows_the_price_elsewhere() -> None:
    config = SimulationConfig(seed=4, scenario="trend", population=PopulationConfig(accounts=50))
    simulation = Simulation(config)
    for block in range(1, 1_200):
        simulation.step(config.start_ms + block * 100)
        if block % 100 == 0:
            for market, spec in enumerate(MARKETS):
                mid = simulation.exchange.mid(market)
                assert mid is not None
                assert mid / spec.price_scale == pytest.approx(simulation.scenario.reference_usd[market], rel=0.0015)


def test_ordinary_accounts_trade_both_ways_and_makers_stand_against_them(simulation: Simulation) -> None:
    trades = [trade for market in range(4) for trade in simulation.exchange.recent_trades[market]]
    assert len(trades) > 50
    takers = {trade.buyer.account if trade.taker_is_buyer else trade.seller.account for trade in trades}
    makers = {trade.seller.account if trade.taker_is_buyer else trade.buyer.account for trade in trades}
    assert makers <= set(simulation.population.makers)
    assert len(takers & set(simulation.population.ordinary)) > 10
    assert {trade.taker_is_buyer for trade in trades} == {True, False}
    assert not np.array_equal(simulation.table.lots[:100].astype(bool).sum(), 0)


def test_the_vault_works_off_what_it_took_over() -> None:
    config = SimulationConfig(seed=4, population=PopulationConfig(accounts=50))
    simulation = Simulation(config)
    table, vault, maker = simulation.table, simulation.population.vault, simulation.population.makers[0]
    lots = MARKETS[2].lots_for(500_000.0, simulation.exchange.mark[2])
    table.lots[vault, 2] += lots
    table.lots[maker, 2] -= lots
    for block in range(1, 120):
        simulation.step(config.start_ms + block * 100)
    assert table.lots[vault, 2] == 0
