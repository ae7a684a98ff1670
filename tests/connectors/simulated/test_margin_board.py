from __future__ import annotations

import pytest

from connectors.simulated.accounts import AccountTable
from connectors.simulated.liquidation import LiquidationEngine
from connectors.simulated.margin_board import MarginBoard
from connectors.simulated.population import PopulationConfig
from connectors.simulated.simulation import Simulation, SimulationConfig
from tests.connectors.simulated.worlds import HYPE, ROUND, give, set_mark, world


def short_from_scratch(table: AccountTable, marks: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """What every account on its own says."""
    cross = [row for row in range(len(table)) if table.cross_value(row, marks) < table.cross_maintenance_usd(row, marks) * 1e6]
    isolated = [
        (row, market)
        for row in range(len(table))
        for market, lots in table.positions(row)
        if table.isolated[row, market]
        and table.isolated_value(row, market, marks[market])
        < table.markets[market].maintenance_usd(abs(lots * marks[market]) / 1e6) * 1e6
    ]
    return cross, isolated


def ranked_from_scratch(table: AccountTable, marks: list[int], market: int, *, is_long: bool) -> list[int]:
    """The documented order, account by account."""
    ranks = {}
    for row in range(len(table)):
        lots = int(table.lots[row, market])
        isolated = table.isolated[row, market]
        value = table.isolated_value(row, market, marks[market]) if isolated else table.cross_value(row, marks)
        if value > 0 and (lots > 0 if is_long else lots < 0):
            entry = table.entry_price(row, market)
            ranks[row] = (marks[market] / entry if is_long else entry / marks[market]) * abs(lots) * marks[market] / value
    return sorted(ranks, key=lambda row: (-ranks[row], row))


def test_whatever_happens_the_board_says_what_a_look_at_every_account_would(monkeypatch: pytest.MonkeyPatch) -> None:
    population = PopulationConfig(accounts=120, isolated_share=0.3, unified_share=0.3)
    config = SimulationConfig(seed=9, scenario="crash", population=population)
    simulation = Simulation(config)
    run = LiquidationEngine.run
    short: list[int] = []

    def look(board: MarginBoard) -> None:
        marks = simulation.exchange.mark
        board.refresh(marks)
        cross, isolated = board.cross_short(), board.isolated_short()
        assert (cross, isolated) == short_from_scratch(simulation.table, marks)
        for market in range(4):
            for is_long in (False, True):
                ranked = ranked_from_scratch(simulation.table, marks, market, is_long=is_long)
                assert board.first_against(market, is_long=is_long) == (ranked[0] if ranked else None)
        short.append(len(cross) + len(isolated))

    def watched(engine: LiquidationEngine) -> bool:
        """Look in the middle of each block, when its orders are executed, and again after its liquidations."""
        look(engine._board)
        changed = run(engine)
        look(engine._board)
        return changed

    monkeypatch.setattr(LiquidationEngine, "run", watched)
    for block in range(1, 111):
        simulation.step(config.start_ms + 1_000 * block)
    assert len(short) == 220
    assert sum(short[::2]) > 40
    assert len({record.account for record in simulation.engine.records}) > 20
    assert {record.method for record in simulation.engine.records} >= {"market", "backstop"}


def test_accounts_are_deleveraged_in_the_order_of_their_rank() -> None:
    exchange, _ = world(accounts=8)
    table = exchange.table
    for row, (size, equity_usd) in enumerate([(60, 800), (60, 2_000), (10, 900), (60, 800), (30, 300)], start=1):
        give(exchange, row, 0, float(-size), float(equity_usd), isolated=row == 3)
    board = MarginBoard(table)
    expected = ranked_from_scratch(table, exchange.mark, 0, is_long=False)
    met = []
    while True:
        board.refresh(exchange.mark)
        first = board.first_against(0, is_long=False)
        if first is None:
            break
        met.append(first)
        table.apply_fill(first, 0, -int(table.lots[first, 0]), exchange.mark[0], 0)
    # Of equals the lower row comes first.
    assert met == expected == [5, 1, 4, 2, 3]


def test_a_column_that_was_written_by_hand_counts_once_its_row_is_marked() -> None:
    exchange, _ = world((ROUND, HYPE))
    give(exchange, 1, 1, 100.0, 400.0)
    board = MarginBoard(exchange.table)
    board.refresh(exchange.mark)
    assert board.cross_short() == []
    exchange.table.raw[1] -= 390_000_000
    exchange.table.touched.add(1)
    board.refresh(exchange.mark)
    assert board.cross_short() == [1]
    assert exchange.table.touched == set()


def test_a_new_mark_is_seen_by_all_accounts() -> None:
    exchange, _ = world((ROUND, HYPE))
    give(exchange, 1, 0, 100.0, 1_000.0)
    give(exchange, 2, 0, 100.0, 1_000.0, isolated=True)
    board = MarginBoard(exchange.table)
    for price_usd, cross, isolated in ((94.8, [], []), (94.7, [1], [(2, 0)]), (94.8, [], [])):
        set_mark(exchange, 0, price_usd)
        board.refresh(exchange.mark)
        assert (board.cross_short(), board.isolated_short()) == (cross, isolated)
