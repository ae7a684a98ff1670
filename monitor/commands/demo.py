"""``liqmon demo``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rich.panel import Panel

from alerts.settings import StdoutSettings
from connectors.simulated.scenario import ScenarioName
from connectors.simulated.server import SimulatedVenueServer
from monitor.app import Daemon
from monitor.commands.service import serve
from monitor.commands.terminal import stdout
from monitor.config import Config
from monitor.rule_settings import LargeClusterNearSettings, MarketRuleSettings, RuleSettings
from monitor.settings import LogSettings, VenueConfig
from monitor.web.settings import HttpSettings

REST_WEIGHT_PER_MINUTE = 60_000
"""The public limit of the real venue (1,200) would take ten minutes to learn the population; an own node has no limit."""


def demo_config(server: SimulatedVenueServer, port: int) -> Config:
    """Point a daemon at ``server``; thresholds fit the size of the simulated population."""
    venue = VenueConfig(
        name="hyperliquid",
        symbols=tuple(market.coin for market in server.simulation.config.markets),
        websocket_url=server.websocket_url,
        rest_url=server.rest_url,
        # Liquidations are public only in the fills of accounts that one watches; the makers stand opposite to most of them.
        watch_accounts=tuple(server.market_maker_accounts())[:10],
        # On the real venue such a list comes from its leaderboard; who is not on it is discovered when he trades.
        seed_accounts=tuple(server.account_addresses()),
        rest_weight_per_minute=REST_WEIGHT_PER_MINUTE * 9 // 10,
        simulated=True,
    )
    return Config(
        instance="demo",
        http=HttpSettings(port=port),
        venues=(venue,),
        rules=RuleSettings(
            markets={
                f"{venue.name}/{symbol}": MarketRuleSettings(
                    large_cluster_near=LargeClusterNearSettings(notional_usd=3e6, critical_notional_usd=15e6)
                )
                for symbol in venue.symbols[1:]
            }
        ),
        sinks=(StdoutSettings(name="stdout"),),
        log=LogSettings(level="info"),
    )


def run_demo(*, port: int, seed: int, scenario: ScenarioName, duration_s: float | None) -> int:
    """Start the simulated exchange, watch it, and say where to look."""

    @contextlib.asynccontextmanager
    async def simulated() -> AsyncIterator[Config]:
        async with SimulatedVenueServer(seed=seed, scenario=scenario, weight_per_minute=REST_WEIGHT_PER_MINUTE) as server:
            yield demo_config(server, port)

    def announce(daemon: Daemon) -> None:
        assert daemon.web is not None
        stdout.print(
            Panel(
                f"A simulated exchange is running (scenario {scenario}, seed {seed}) and is being watched.\n"
                f"Open [bold]http://127.0.0.1:{daemon.web.port}/[/bold]    Metrics: /metrics    API: /api/v1/markets\n"
                "Nothing here is a real market. Ctrl-C stops.",
                title="liqmon demo",
            )
        )

    return serve(simulated, duration_s=duration_s, seed=seed, when_ready=announce)
