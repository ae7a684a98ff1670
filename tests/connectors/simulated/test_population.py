from __future__ import annotations

import numpy as np
import pytest

from connectors.simulated.draws import Draws
from connectors.simulated.liquidation_price import liquidation_price
from connectors.simulated.markets import MARKETS, MICROS_PER_USD
from connectors.simulated.population import Population, PopulationConfig, build_population

MARKS = [market.price(market.initial_price_usd) for market in MARKETS]


@pytest.fixture(scope="module", params=[400, 3_000])
def population(request: pytest.FixtureRequest) -> Population:
    return build_population(MARKETS, PopulationConfig(accounts=request.param), Draws(7))


def test_every_position_has_a_counterparty(population: Population) -> None:
    assert population.table.lots.sum(axis=0).tolist() == [0, 0, 0, 0]
    for column, market in enumerate(MARKETS):
        notional_usd = population.table.open_interest(column) * MARKS[column] / MICROS_PER_USD
        assert market.open_interest_usd * 1.4 < notional_usd < market.open_interest_usd * 1.65


def test_leverage_is_eight_in_the_middle_with_a_tail_up_to_the_limits(population: Population) -> None:
    table, ordinary = population.table, population.ordinary
    values = np.asarray([table.cross_value(row, MARKS) for row in ordinary], np.float64)
    notional = np.abs(np.where(table.isolated, 0, table.lots)[: len(ordinary)] * np.asarray(MARKS)).sum(axis=1)
    levered = notional > 0
    leverage = notional[levered] / values[levered]
    assert 6.5 < np.median(leverage) < 9.5
    assert np.quantile(leverage, 0.99) > 20
    assert leverage.max() <= 36.001
    assert (leverage < 2).any()


def test_nobody_starts_short_of_margin(population: Population) -> None:
    margins = population.table.margins(MARKS)
    assert not margins.cross_short().any()
    assert not margins.isolated_short().any()
    distances = [
        abs(price / MARKETS[market].initial_price_usd - 1.0)
        for row in population.ordinary
        for market, _ in population.table.positions(row)
        if (price := liquidation_price(population.table, row, market, MARKS)) is not None
    ]
    assert min(distances) > 0.002
    assert sum(distance < 0.1 for distance in distances) > 0.2 * len(distances)


def test_most_of_the_notional_is_in_cross_margin_and_heavy_tailed(population: Population) -> None:
    table = population.table
    notional = np.abs(table.lots[: len(population.ordinary)] * np.asarray(MARKS))
    isolated = np.where(table.isolated[: len(population.ordinary)], notional, 0).sum() / notional.sum()
    assert 0.03 < isolated < 0.055
    per_account = np.sort(notional.sum(axis=1))[::-1]
    assert per_account[: len(per_account) // 10].sum() > 0.4 * per_account.sum()


def test_some_accounts_hold_several_markets_and_both_directions(population: Population) -> None:
    held = (population.table.lots[: len(population.ordinary)] != 0).sum(axis=1)
    assert held.min() >= 1
    assert (held > 1).mean() > 0.25
    lots = population.table.lots[: len(population.ordinary)]
    assert ((lots > 0).any(axis=1) & (lots < 0).any(axis=1)).mean() > 0.05


def test_unified_accounts_keep_their_collateral_elsewhere(population: Population) -> None:
    table = population.table
    rows = np.flatnonzero(table.unified)
    assert len(rows) == round(0.05 * len(population.ordinary))
    assert (table.collateral[rows] > 0).all()
    assert not table.collateral[~table.unified].any()


def test_addresses_are_derived_from_the_seed() -> None:
    config = PopulationConfig(accounts=10)
    first, again, other = (build_population(MARKETS, config, Draws(seed)).table.addresses for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)
    assert all(len(address) == 42 and address.startswith("0x") and int(address, 16) for address in first)


def test_shares_can_be_switched_off() -> None:
    config = PopulationConfig(accounts=60, unified_share=0.0, isolated_share=0.0, markets_per_account_max=1)
    table = build_population(MARKETS, config, Draws(1)).table
    assert not table.unified.any()
    assert not table.isolated.any()
    assert ((table.lots[:60] != 0).sum(axis=1) == 1).all()
