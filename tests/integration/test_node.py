"""A daemon whose positions follow the files of an own node, against a simulated exchange that writes what a node would write."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from connectors.importers import open_recording
from connectors.serving import RestReply, VenueServer
from connectors.simulated.liquidation_price import liquidation_prices
from connectors.simulated.markets import MICROS_PER_USD
from connectors.simulated.node_output import NodeOutput, block_line
from connectors.simulated.population import PopulationConfig
from connectors.simulated.server import BLOCK_MS, SimulatedVenueServer
from monitor.account_queries import AccountQueries
from monitor.account_report import AccountReport
from monitor.app import Daemon
from monitor.config import Config
from monitor.replay import Replay
from monitor.settings import RecordingSettings, StalenessSettings, VenueConfig
from monitor.state.accounts import AccountCounts
from monitor.web.settings import HttpSettings
from monitor.wiring import engine_settings, parsers
from tests.integration.desk_feeds import until

VENUE = "hyperliquid"
ACCOUNTS = 60


class InfoServer:
    """The info server of the node: it answers what nodes answer from the state of the exchange, and refuses the rest."""

    def __init__(self, server: SimulatedVenueServer) -> None:
        self.answer = server.requested
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.is_down = False
        """Answers that accounts would need do not come."""

    async def requested(self, method: str, path_and_query: str, body: bytes) -> RestReply:
        kind = orjson.loads(body)["type"]
        if kind not in {"clearinghouseState", "spotClearinghouseState"}:
            self.refused.append(kind)
            return RestReply(status=422, body=b"null")
        if self.is_down:
            return RestReply(status=503, body=b"null")
        self.asked.append(kind)
        return await self.answer(method, path_and_query, body)

    async def opened(self, session: object) -> None:
        raise AssertionError("nobody opens a websocket to a node")

    async def received(self, session: object, message: bytes) -> None:
        raise AssertionError("nobody opens a websocket to a node")

    async def closed(self, session: object) -> None:
        raise AssertionError("nobody opens a websocket to a node")


class Node:
    """Writes the blocks of the exchange into files, as they are made, or leaves one out."""

    def __init__(self, server: SimulatedVenueServer, directory: Path) -> None:
        self._server = server
        self._output = NodeOutput(directory)
        self.number = 0
        self.traders: set[str] = set()
        """Who had a part in the trades of the blocks since it was emptied."""

    def step(self, *, written: bool = True) -> int:
        """Make one block; return how many trades there were."""
        self._server.step()
        exchange = self._server.simulation.exchange
        self.number = exchange.time_ms // BLOCK_MS
        if written:
            self._output.write(block_line(exchange, self.number, local_ns=time.time_ns()), exchange.time_ms)
        addresses = self._server.simulation.table.addresses
        self.traders |= {addresses[party.account] for trade in exchange.trades for party in (trade.buyer, trade.seller)}
        return len(exchange.trades)

    def trade(self, least: int) -> None:
        """Make blocks until so much was traded."""
        traded = 0
        for _ in range(5_000):
            traded += self.step()
            if traded >= least:
                return
        pytest.fail("nobody trades")

    def close(self) -> None:
        self._output.close()


class World:
    """Everything that runs."""

    def __init__(self, server: SimulatedVenueServer, public_asked: list[str], info: InfoServer, node: Node, daemon: Daemon) -> None:
        self.public_asked, self.info, self.node, self.daemon = public_asked, info, node, daemon
        self.simulation = server.simulation
        self.addresses = server.account_addresses()

    def counts(self) -> AccountCounts:
        """Return how many accounts are known, live and stale."""
        engine = self.daemon.engine
        return engine.accounts.counts(VENUE, self.daemon.now_ns(), engine.account_age_max_ns)

    def holders(self) -> int:
        """Return how many accounts have a position; the others are not asked where their collateral is."""
        return int((self.simulation.table.lots != 0).any(axis=1).sum())

    def holding(self) -> list[str]:
        """Return who has a position."""
        return [self.addresses[row] for row in np.flatnonzero((self.simulation.table.lots != 0).any(axis=1)).tolist()]

    def state(self, address: str) -> str:
        """Return whether the daemon calls an account live."""
        report = AccountQueries(self.daemon.engine).account(VENUE, address, self.daemon.now_ns())
        return "never seen" if report is None else report.state

    async def all_live(self) -> None:
        """Wait until the daemon knows everybody."""
        await until(lambda: self.counts().live >= self.holders(), "all holders are live")

    async def caught_up(self) -> None:
        """Wait until the last block has been applied, and bring the marks that belong to it over."""
        exchange, markets = self.simulation.exchange, self.daemon.engine.markets

        def block_is_applied() -> bool:
            [tail] = self.daemon._node_tails
            return tail.health().block_number == self.node.number and self.daemon.status().intake_frames == 0

        def marks_are_those_of_the_exchange() -> bool:
            for market, spec in enumerate(exchange.markets):
                ours, theirs = markets.by_key[VENUE, spec.coin].mark_price, spec.price_usd(exchange.mark[market])
                if ours is None or abs(ours / theirs - 1.0) > 1e-12:
                    return False
            return True

        for _ in range(100):
            # The first block after the start is the first one that is read.
            self.node.step()
            await until(block_is_applied, "the last block has been applied")
            if marks_are_those_of_the_exchange():
                return
        pytest.fail("the marks of the exchange do not arrive")

    def live(self) -> dict[str, AccountReport]:
        """Return all accounts that are called live."""
        engine, now_ns = self.daemon.engine, self.daemon.now_ns()
        engine.freeze(now_ns)
        queries = AccountQueries(engine)
        reports = {address: queries.account(VENUE, address, now_ns) for address in self.addresses}
        return {address: report for address, report in reports.items() if report is not None and report.state == "live"}

    def check(self, reports: dict[str, AccountReport]) -> int:
        """Compare live accounts with the exchange's own books; return how many positions there were."""
        exchange, table = self.simulation.exchange, self.simulation.table
        margins = table.margins(exchange.mark)
        prices = [liquidation_prices(table, market, exchange.mark) for market in range(len(exchange.markets))]
        positions = 0
        for address, report in reports.items():
            row = table.rows[address]
            legs = {leg.symbol: leg for margin in report.margins for leg in margin.legs}
            for market, spec in enumerate(exchange.markets):
                lots = int(table.lots[row, market])
                assert (spec.coin in legs) == bool(lots), (address, spec.coin)
                if lots:
                    leg = legs[spec.coin]
                    assert leg.size == pytest.approx(lots / spec.lot_scale, rel=1e-9), (address, spec.coin)
                    theirs = float(prices[market][row])
                    assert (leg.liquidation_price or float("nan")) == pytest.approx(theirs, rel=1e-6, nan_ok=True), address
                    positions += 1
            cross = report.margins[0]
            assert cross.kind == "cross"
            assert cross.equity_usd == pytest.approx(float(margins.cross_value[row]) / MICROS_PER_USD, abs=0.01), address
            assert cross.maintenance_usd == pytest.approx(float(margins.cross_maintenance_usd[row]), abs=0.01), address
        return positions


@contextlib.asynccontextmanager
async def following(folder: Path, **venue: Any) -> AsyncIterator[World]:
    """Run an exchange, the node behind it, and a daemon that follows both; time stands still but for the node's steps."""
    server = SimulatedVenueServer(seed=11, population=PopulationConfig(accounts=ACCOUNTS), weight_per_minute=None, paused=True)
    info, node, public_asked = InfoServer(server), Node(server, folder / "data"), []
    answer = server.requested

    async def requested(method: str, path_and_query: str, body: bytes) -> RestReply:
        public_asked.append(orjson.loads(body)["type"])
        return await answer(method, path_and_query, body)

    server.requested = requested  # type: ignore[method-assign]
    info_server = VenueServer(info)
    await info_server.start()
    async with server:
        node.step()
        settings = {
            "name": VENUE,
            "symbols": tuple(spec.coin for spec in server.simulation.config.markets),
            "websocket_url": server.websocket_url,
            "rest_url": server.rest_url,
            "rest_weight_per_minute": 1_000_000,
            "seed_accounts": tuple(server.account_addresses()),
            "node_directory": str(folder / "data"),
            "node_info_url": info_server.rest_url,
            "simulated": True,
        }
        config = Config(
            http=HttpSettings(enabled=False),
            staleness=StalenessSettings(book_s=600.0, mark_s=600.0),
            recording=RecordingSettings(enabled=True, directory=str(folder / "recordings")),
            venues=(VenueConfig.model_validate(settings | venue),),
        )
        daemon = Daemon(config)
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))
        try:
            await until(lambda: bool(daemon._node_tails) and daemon._node_tails[0].health().state == "connected", "node followed")
            # Nothing is believed before the record is heard.
            node.step()
            await until(lambda: not daemon.engine.accounts.untold, "node heard")
            await daemon.ready.wait()
            await until(lambda: all(item.health().state == "connected" for item in daemon.connections), "all sockets open")
            yield World(server, public_asked, info, node, daemon)
        finally:
            stop.set()
            await running
            node.close()
            await info_server.stop()


async def test_accounts_are_asked_for_at_the_node_and_modes_at_the_venue(tmp_path: Path) -> None:
    async with following(tmp_path) as world:
        await world.all_live()
        await world.caught_up()
        reports = world.live()
        assert {report.mode for report in reports.values()} == {"standard", "unified"}
        assert world.check(reports) > ACCOUNTS
        assert set(world.info.asked) == {"clearinghouseState", "spotClearinghouseState"}
        assert world.info.refused == []
        assert set(world.public_asked) == {"metaAndAssetCtxs", "userAbstraction"}


async def test_fills_of_the_node_carry_accounts_on_with_their_fees(tmp_path: Path) -> None:
    """No account is asked for meanwhile, so that whatever is right afterwards is so by the lines of the node alone."""
    async with following(tmp_path) as world:
        await world.all_live()
        await world.caught_up()
        world.info.is_down = True
        world.node.traders.clear()
        before = world.live()
        world.node.trade(300)
        await world.caught_up()
        after = world.live()
        carried = {
            address
            for address in world.node.traders & after.keys()
            if [leg.size for margin in before[address].margins for leg in margin.legs]
            != [leg.size for margin in after[address].margins for leg in margin.legs]
        }
        print(f"{len(world.node.traders)} accounts traded, {len(carried)} live ones were carried on, {len(after)} are live")
        assert len(carried) >= 10
        assert world.check(after) > 50
        engine = world.daemon.engine
        assert engine.changes.contradicted == 0
        assert before.keys() - after.keys() <= world.node.traders, "whoever has not traded stays live"
        # What no fill explains is asked for, and then all is known again.
        world.info.is_down = False
        await world.all_live()
        await world.caught_up()
        world.check(world.live())


async def test_the_public_tape_of_a_venue_with_a_node_moves_no_account(tmp_path: Path) -> None:
    async with following(tmp_path) as world:
        await world.all_live()
        engine = world.daemon.engine
        world.node.trade(200)
        await world.caught_up()
        markets = [engine.markets.by_key[VENUE, spec.coin] for spec in world.simulation.exchange.markets]
        assert all(market.feeds["trades"].received_ns is not None for market in markets), "the tape is there"
        await world.all_live()
        await world.caught_up()
        world.check(world.live())
        assert engine.changes.contradicted == 0
        assert engine._tapes[VENUE] == {"node"}


async def test_a_missing_block_makes_all_accounts_stale_until_they_are_asked_for_again(tmp_path: Path) -> None:
    async with following(tmp_path) as world:
        await world.all_live()
        world.node.trade(20)
        await world.caught_up()
        await world.all_live()
        world.info.is_down = True
        while not world.node.step(written=False):
            pass
        world.node.step()
        await until(lambda: world.counts().live == 0, "nobody is live")
        assert world.counts().stale >= world.holders()
        [tail] = world.daemon._node_tails
        assert tail.health().gaps == {"missing_blocks": 1}
        states = Counter(world.state(address) for address in world.holding())
        assert states == {"stale": world.holders()}
        world.info.is_down = False
        await world.all_live()
        world.node.trade(20)
        await world.caught_up()
        await world.all_live()
        await world.caught_up()
        assert world.check(world.live()) > ACCOUNTS


async def test_a_torn_line_of_the_node_is_waited_for_and_a_line_of_nonsense_is_a_hole(tmp_path: Path) -> None:
    async with following(tmp_path) as world:
        await world.all_live()
        world.node.trade(5)
        await world.caught_up()
        await world.all_live()
        world.info.is_down = True
        [path] = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        with path.open("ab") as file:
            file.write(b'{"block_number": "none", "events": [["0x12", {"coin": "BTC"')
        [tail] = world.daemon._node_tails
        await until(lambda: bool(tail._partial), "the beginning of the line has been read")
        assert world.counts().live >= world.holders(), "the end of the line may still come"
        with path.open("ab") as file:
            file.write(b"}]]}\n")
        await until(lambda: world.counts().live == 0, "nobody is live")


async def test_a_recording_of_a_node_replays_to_the_same_accounts(tmp_path: Path) -> None:
    async with following(tmp_path) as world:
        await world.all_live()
        world.node.trade(50)
        world.node.step(written=False)
        world.node.trade(50)
        await world.caught_up()
        await world.all_live()
        await world.caught_up()
    daemon = world.daemon
    replay = Replay(engine_settings(daemon.config), parsers(daemon.config))
    replay.run(open_recording([tmp_path / "recordings"]))
    now_ns = daemon.now_ns()
    for engine in (daemon.engine, replay.engine):
        engine.freeze(now_ns)
    live = AccountQueries(daemon.engine)
    again = AccountQueries(replay.engine)
    reports = {address: live.account(VENUE, address, now_ns) for address in world.addresses}
    assert {address: again.account(VENUE, address, now_ns) for address in world.addresses} == reports
    assert sum(report is not None and report.state == "live" for report in reports.values()) >= world.holders()
    assert replay.engine.changes.unexplained == daemon.engine.changes.unexplained
