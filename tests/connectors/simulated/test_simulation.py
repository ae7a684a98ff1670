from __future__ import annotations

import hashlib
from collections import Counter

import msgspec
import numpy as np
import pytest

from connectors.simulated.account_messages import clearinghouse_state
from connectors.simulated.exchange import ExchangeConfig, Trade
from connectors.simulated.markets import MARKETS
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig

BLOCK_MS = 100


class Run(msgspec.Struct):
    """What was seen of one crash, block by block."""

    simulation: Simulation
    trades: list[Trade]
    lowest: list[int]
    cash_before: int
    positions_at_40_s: list[list[int]]
    empty_books: int


@pytest.fixture(scope="module")
def crash() -> Run:
    config = SimulationConfig(seed=1, scenario="crash", population=PopulationConfig(accounts=400))
    simulation = Simulation(config)
    exchange = simulation.exchange
    run = Run(simulation, [], list(exchange.mark), simulation.table.total_cash(), [], 0)
    for block in range(1, 1_501):
        simulation.step(config.start_ms + block * BLOCK_MS)
        run.trades += exchange.trades
        run.lowest = [min(pair) for pair in zip(run.lowest, exchange.mark, strict=True)]
        run.empty_books += sum(not len(side) for book in exchange.books for side in (book.bids, book.asks))
        if block == 400:
            run.positions_at_40_s = simulation.table.lots.tolist()
    return run


def test_a_crash_liquidates_dozens_of_accounts_in_every_way(crash: Run) -> None:
    records = crash.simulation.engine.records
    methods = Counter(record.method for record in records)
    assert methods["market"] > 50
    assert methods["backstop"] > 5
    assert methods["deleveraging"] > 0
    assert len({record.account for record in records}) > 40
    assert {record.is_isolated for record in records} == {True, False}
    # Clusters are to be seen before they are hit.
    assert min(record.time_ms for record in records) > crash.simulation.config.start_ms + 25_000


def test_a_crash_lands_eight_to_fifteen_percent_lower_and_never_empties_a_book(crash: Run) -> None:
    for spec, lowest in zip(MARKETS, crash.lowest, strict=True):
        assert 0.85 <= spec.price_usd(lowest) / spec.initial_price_usd <= 0.92
    assert crash.empty_books == 0
    for mark, lowest in zip(crash.simulation.exchange.mark, crash.lowest, strict=True):
        assert mark > lowest


def test_a_crash_conserves_positions_and_money(crash: Run) -> None:
    table, exchange = crash.simulation.table, crash.simulation.exchange
    assert table.lots.sum(axis=0).tolist() == [0, 0, 0, 0]
    assert table.total_cash() + exchange.fees == crash.cash_before
    margins = table.margins(exchange.mark)
    values = float(margins.cross_value.sum()) + float(margins.isolated_value.sum())
    assert values + exchange.fees == pytest.approx(crash.cash_before, rel=1e-6)


def test_positions_can_be_carried_forward_from_the_tape_alone(crash: Run) -> None:
    simulation = crash.simulation
    carried = np.asarray(crash.positions_at_40_s)
    for trade in crash.trades:
        if trade.time_ms > simulation.config.start_ms + 40_000:
            carried[trade.buyer.account, trade.market] += trade.lots
            carried[trade.seller.account, trade.market] -= trade.lots
    assert np.array_equal(carried, simulation.table.lots)


def test_trade_ids_are_unique_and_times_never_fall(crash: Run) -> None:
    assert len({trade.trade_id for trade in crash.trades}) == len(crash.trades)
    times = [trade.time_ms for trade in crash.trades]
    assert times == sorted(times)


def test_liquidated_accounts_have_nothing_left_to_owe(crash: Run) -> None:
    table, marks = crash.simulation.table, crash.simulation.exchange.mark
    for row in {record.account for record in crash.simulation.engine.records}:
        assert table.cross_value(row, marks) >= 0 or table.positions(row)


def test_thousands_of_accounts_work_too() -> None:
    config = SimulationConfig(seed=2, scenario="crash", population=PopulationConfig(accounts=5_000))
    simulation = Simulation(config)
    for block in range(1, 60):
        simulation.step(config.start_ms + block * 1_000)
    assert len({record.account for record in simulation.engine.records}) > 100
    assert simulation.table.lots.sum(axis=0).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("config", "digest"),
    [
        (
            SimulationConfig(
                seed=3, scenario="crash", population=PopulationConfig(accounts=300, isolated_share=0.4, unified_share=0.3)
            ),
            "25fbc67d12dfd52d922f8738a1b1ebfa",
        ),
        (
            SimulationConfig(
                seed=6,
                scenario="crash",
                exchange=ExchangeConfig(mark_rule="last_trade"),
                population=PopulationConfig(accounts=200),
            ),
            "64668bf24ec72fa3abeb83cf3d3c7155",
        ),
    ],
    ids=["median mark", "last trade"],
)
def test_the_same_seed_gives_the_same_trades_as_ever(config: SimulationConfig, digest: str) -> None:
    """How the exchange computes may change, what it does may not: whoever changes a rule on purpose takes the digests anew."""
    simulation = Simulation(config)
    hashed = hashlib.blake2b(digest_size=16)
    for block in range(1, 116):
        simulation.step(config.start_ms + block * 1_000)
        for trade in simulation.exchange.trades:
            hashed.update(msgspec.json.encode(trade))
    table = simulation.table
    columns = (table.raw, table.collateral, table.lots, table.cost, table.isolated_raw, table.isolated)
    hashed.update(repr(tuple(column.tolist() for column in columns)).encode())
    assert hashed.hexdigest() == digest


def test_without_agents_nothing_moves() -> None:
    config = SimulationConfig(seed=2, population=PopulationConfig(accounts=50), agents=False)
    simulation = Simulation(config)
    before = [side.levels() for book in simulation.exchange.books for side in (book.bids, book.asks)]
    state = clearinghouse_state(simulation.exchange, 0)
    for block in range(1, 50):
        simulation.step(config.start_ms + block * 100)
        assert not simulation.exchange.trades
    assert [side.levels() for book in simulation.exchange.books for side in (book.bids, book.asks)] == before
    assert clearinghouse_state(simulation.exchange, 0)["assetPositions"] == state["assetPositions"]
