"""The whole simulated world: exchange, accounts, scenario; one call per block."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from connectors.simulated.agents import Crowd, MarketMaker
from connectors.simulated.draws import Draws, Floats
from connectors.simulated.exchange import Exchange, ExchangeConfig
from connectors.simulated.liquidation import LiquidationEngine
from connectors.simulated.markets import MARKETS, MICROS_PER_USD, Market
from connectors.simulated.population import PopulationConfig, build_population
from connectors.simulated.scenario import CrashShape, Scenario, ScenarioName

MAX_PASSES_PER_BLOCK: Final = 10_000
"""Under the last-trade rule every pass closes at least one position, so this is more than there are positions to close."""


class SimulationConfig(msgspec.Struct, frozen=True):
    """Everything that a run depends on besides the times of its blocks."""

    seed: int = 1
    scenario: ScenarioName = "calm"
    markets: tuple[Market, ...] = MARKETS
    population: PopulationConfig = PopulationConfig()
    exchange: ExchangeConfig = ExchangeConfig()
    crash: CrashShape = CrashShape()
    start_ms: int = 1_760_000_000_000
    agents: bool = True
    """Whether anybody trades of their own will; without, the makers quote once and the book stays as it is."""


class Simulation:
    """A deterministic exchange: the same configuration and block times give the same trades."""

    def __init__(self, config: SimulationConfig) -> None:
        self.config = config
        draws = Draws(config.seed)
        self.population = build_population(config.markets, config.population, draws)
        self.table = self.population.table
        self.exchange = Exchange(self.table, config.start_ms, config.exchange)
        self.engine = LiquidationEngine(self.exchange, self.population.vault)
        self.scenario = Scenario(config.scenario, config.markets, draws, config.crash)
        share = 1.0 / max(1, len(self.population.makers))
        makers = self.population.makers
        self._makers = [MarketMaker(row, index, spec, share, draws) for row in makers for index, spec in enumerate(config.markets)]
        self._crowd = Crowd(self.population, draws)
        self._forced_usd: Floats = np.zeros(len(config.markets))
        self._submitted: list[tuple[int, int, bool]] = []
        self._quote()

    def submit(self, coin: str, lots: int, *, is_buy: bool) -> None:
        """Let the outside seller send a market order at the beginning of the next block."""
        market = [spec.coin for spec in self.config.markets].index(coin)
        self._submitted.append((market, lots, is_buy))

    def step(self, now_ms: int) -> None:
        """Run one block; ``exchange.trades`` then holds what was traded in it.

        Raises:
            ValueError: the time is not after the last block's.
        """
        exchange = self.exchange
        exchange.begin_block(now_ms)
        for market, lots, is_buy in self._submitted:
            exchange.market_order(self.population.seller, market, lots, is_buy=is_buy)
        self._submitted.clear()
        if self.config.agents:
            self.scenario.advance((now_ms - self.config.start_ms) / 1_000, self._forced_usd)
            if exchange.references_are_due:
                exchange.set_references(self._prices(self.scenario.oracle_usd), self._prices(self.scenario.reference_usd))
            self._quote()
            self._crowd.act(exchange, self.scenario)
        exchange.update_marks()
        self._liquidate()
        self._forced_usd = self._forced_flow_usd()

    def _quote(self) -> None:
        depth_ratio = self.scenario.depth_ratio()
        for index, maker in enumerate(self._makers):
            maker.act(self.exchange, self.scenario.reference_usd[index % len(self.config.markets)], depth_ratio)

    def _prices(self, prices_usd: list[float]) -> list[int]:
        return [market.price(usd) for market, usd in zip(self.config.markets, prices_usd, strict=True)]

    def _liquidate(self) -> None:
        """Check all accounts once, or until nothing changes where the mark follows every trade."""
        for _ in range(MAX_PASSES_PER_BLOCK):
            changed = self.engine.run()
            if not changed or self.config.exchange.mark_rule != "last_trade":
                return
            self.exchange.update_marks()
        raise AssertionError("liquidations within one block did not come to an end")

    def _forced_flow_usd(self) -> Floats:
        """Return what liquidated accounts bought (positive) or sold on each book in this block."""
        flow = np.zeros(len(self.config.markets))
        for trade in self.exchange.trades:
            if trade.forced is not None and trade.forced.method == "market":
                notional_usd = trade.price * trade.lots / MICROS_PER_USD
                flow[trade.market] += -notional_usd if trade.forced.is_long else notional_usd
        return flow
