"""A daemon that is told of private accounts over each transport: the numbers, the holes, the losses, and the recording of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from connectors.importers import open_recording
from monitor.account_queries import AccountQueries
from monitor.account_report import AccountReport
from monitor.engine import Engine
from monitor.projection import ConnectionHealth
from monitor.replay import Replay
from monitor.wiring import engine_settings, parsers
from tests.integration.desk_feeds import (
    FileSource,
    Source,
    Watch,
    delta,
    message,
    public_live,
    snapshot,
    source_of,
    until,
    watching,
)

TRANSPORTS = pytest.mark.parametrize("kind", ["file", "websocket", "mqtt"])

FEED = (
    '[[account_feeds]]\nname = "house"\nvenue = "desk"\nsymbols = ["BTC-PERP", "ETH-PERP", "BTC-USD", "WETH"]\nsilence_s = 60.0\n'
)
SECOND = '[[account_feeds]]\nname = "second"\nvenue = "desk"\nsymbols = ["ETH-PERP"]\n'

RULES = message(
    "instruments",
    instruments=[
        {
            "symbol": "BTC-PERP",
            "contract": "linear",
            # The second tier deducts 100,000 x (0.02 - 0.01) = 1,000.
            "tiers": [{"lower_bound": 0, "maintenance_rate": 0.01}, {"lower_bound": 100_000, "maintenance_rate": 0.02}],
        },
        {"symbol": "ETH-PERP", "contract": "linear", "tiers": [{"lower_bound": 0, "maintenance_rate": 0.02}]},
        {
            "symbol": "BTC-USD",
            "contract": "inverse",
            "tiers": [{"lower_bound": 0, "maintenance_rate": 0.005}, {"lower_bound": 5, "maintenance_rate": 0.01}],
        },
        {"symbol": "WETH", "contract": "asset", "collateral_ratio": 0.8},
    ],
)
PRICES = message(
    "prices",
    prices=[
        {"symbol": "BTC-PERP", "mark_price": 60_000},
        {"symbol": "ETH-PERP", "mark_price": 3_000},
        {"symbol": "BTC-USD", "mark_price": 60_000},
        {"symbol": "WETH", "mark_price": 3_000},
    ],
)


def fund(sequence: int) -> bytes:
    return snapshot(
        "fund",
        sequence,
        -150_000,
        {"symbol": "BTC-PERP", "size": 3, "entry_price": 58_000, "liquidation_price": 53_000},
        {"symbol": "ETH-PERP", "size": -10, "entry_price": 3_100},
        {"symbol": "BTC-USD", "size": 60_000, "contract": "inverse", "entry_price": 50_000},
        holdings=[{"symbol": "WETH", "quantity": 5}],
    )


def small(sequence: int) -> bytes:
    return snapshot("small", sequence, 500, {"symbol": "ETH-PERP", "size": 10, "entry_price": 3_000, "isolated_cash_usd": -27_000})


GREETING = [RULES, PRICES, fund(41), small(7)]


def health(watch: Watch, feed: str) -> ConnectionHealth:
    return next(item for item in watch.daemon.status().connections if item.connection == feed)


async def opened(watch: Watch, source: Source) -> None:
    source.greeting = list(GREETING)
    await until(lambda: health(watch, "house").state == "connected", "the feed is connected")
    await source.send(*GREETING)
    await watch.until_states(fund="live", small="live")


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-12)


# By hand. Equity of the parts: 180,000 - 30,000 + (60,000 x 60,000/50,000 - 60,000 = 12,000) + 15,000, with a cash of -150,000.
# Maintenance: 180,000 x 0.02 - 1,000 = 2,600; 30,000 x 0.02 = 600; 1 BTC x 0.005 = 300. Of the WETH 3,000 do not count.
FUND_EQUITY, FUND_MAINTENANCE, FUND_SURPLUS = 27_000.0, 3_500.0, 20_500.0
# What the surplus loses if all prices fall by 100 % at the present rates: 2.94 x 60,000 - 10.2 x 3,000 + 1.2 x 60,000 + 4 x 3,000.
FUND_DISTANCE = -20_500.0 / 229_800.0
# With half as much maintenance again: (24,000 - 1.5 x 3,500) / (2.91 x 60,000 - 10.3 x 3,000 + 72,000 + 12,000).
FUND_MARGIN_CALL = -18_750.0 / 227_700.0
FUND_LEGS = {
    # symbol: contract, notional, profit, maintenance, liquidation price, bankruptcy price
    "BTC-PERP": ("linear", 180_000.0, 6_000.0, 2_600.0, 60_000.0 - 20_500.0 / 2.94, 51_000.0),
    "ETH-PERP": ("linear", 30_000.0, 1_000.0, 600.0, 3_000.0 + 20_500.0 / 10.2, 5_700.0),
    "BTC-USD": ("inverse", 60_000.0, 12_000.0, 300.0, 60_000.0 - 20_500.0 / 1.2, 37_500.0),
    "WETH": ("asset", 15_000.0, None, 0.0, None, None),
}


@TRANSPORTS
async def test_the_api_tells_the_numbers_of_a_private_account(kind: str, tmp_path: Path) -> None:
    async with source_of(kind, tmp_path) as source, watching(tmp_path, FEED, source.toml) as watch:
        await opened(watch, source)
        report = await watch.get("/api/v1/accounts/desk/fund")
        assert (report["venue"], report["account"], report["reasons"]) == ("desk", "fund", [])
        assert (report["mode"], report["sequence"], report["simulated"]) == ("standard", 41, False)
        [margin] = report["margins"]
        assert (margin["kind"], margin["pool"], margin["cash_usd"]) == ("cross", "", -150_000.0)
        assert margin["equity_usd"] == close(FUND_EQUITY)
        assert margin["maintenance_usd"] == close(FUND_MAINTENANCE)
        assert margin["surplus_usd"] == close(FUND_SURPLUS)
        assert margin["margin_usage_ratio"] == close(1.0 - FUND_SURPLUS / FUND_EQUITY)
        assert margin["distance_ratio"] == close(FUND_DISTANCE)
        assert margin["margin_call_distance_ratio"] == close(FUND_MARGIN_CALL)
        legs = {leg["symbol"]: leg for leg in margin["legs"]}
        assert legs.keys() == FUND_LEGS.keys()
        for symbol, (contract, notional, profit, maintenance, liquidation, bankruptcy) in FUND_LEGS.items():
            leg = legs[symbol]
            assert (leg["contract"], leg["notional_usd"]) == (contract, close(notional))
            assert leg["unrealized_usd"] == (None if profit is None else close(profit))
            assert leg["maintenance_usd"] == close(maintenance)
            assert leg["liquidation_price"] == (None if liquidation is None else close(liquidation))
            assert leg["bankruptcy_price"] == (None if bankruptcy is None else close(bankruptcy))
        assert legs["BTC-PERP"]["venue_liquidation_price"] == 53_000.0
        assert legs["BTC-PERP"]["disagreement_ratio"] is None, "the other legs have moved it since"
        cross, isolated = (await watch.get("/api/v1/accounts/desk/small"))["margins"]
        assert (cross["equity_usd"], cross["legs"]) == (500.0, [])
        assert (isolated["kind"], isolated["equity_usd"], isolated["surplus_usd"]) == ("isolated", 3_000.0, close(2_400.0))
        assert isolated["legs"][0]["liquidation_price"] == close(3_000.0 - 2_400.0 / 9.8)
        # Two ETH are bought back at 3,000: equity stays, and the maintenance of 2 x 3,000 x 0.02 is freed.
        await source.send(
            delta("fund", 42, cash_usd=-156_000, positions=[{"symbol": "ETH-PERP", "size": -8, "entry_price": 3_100}])
        )
        report = await watch.reaches("fund", 42)
        [margin] = report["margins"]
        assert (margin["equity_usd"], margin["maintenance_usd"]) == (close(27_000.0), close(3_380.0))
        listed = await watch.get("/api/v1/accounts?venue=desk&order=distance&move=-0.2")
        assert [(item["account"], item["kind"]) for item in listed["accounts"]] == [("small", "isolated"), ("fund", "cross")]
        assert (listed["live"], listed["unknown"]) == (2, 0)
        # If all prices fall by a fifth: 3,000 - 6,000, and 27,000 less a fifth of 180,000 - 24,000 + 72,000 + 15,000.
        assert listed["bad_debt_usd"] == close(3_000.0 + (243_000.0 / 5.0 - 27_000.0))
        assert await watch.states("nobody") == {"nobody": "404"}


@TRANSPORTS
async def test_a_skipped_number_makes_an_account_stale_until_the_snapshot_that_was_asked_for(kind: str, tmp_path: Path) -> None:
    async with source_of(kind, tmp_path) as source, watching(tmp_path, FEED, source.toml) as watch:
        await opened(watch, source)
        await source.send(delta("fund", 42, cash_usd=-150_001), delta("fund", 44, cash_usd=-150_003))
        await watch.until_states(fund="stale", small="live")
        report = await watch.get("/api/v1/accounts/desk/fund")
        assert report["reasons"] == ["messages of its feed were missed, and no snapshot has come since"]
        assert (report["sequence"], report["margins"][0]["cash_usd"]) == (42, -150_001.0), "as it was when it was known last"
        listed = await watch.get("/api/v1/accounts?venue=desk")
        assert ([item["account"] for item in listed["accounts"]], listed["unknown"]) == (["small"], 1)
        if source.can_be_asked:
            await until(lambda: bool(source.questions), "the snapshot is asked for")
            assert source.questions == [{"type": "resync", "account": "fund", "after_sequence": 42}]
        else:
            assert [demand.account for demand in watch.daemon.engine.changes.resync_demands()] == ["fund"]
        # What was on its way already does not heal it.
        await source.send(delta("fund", 45, cash_usd=-150_004), message("heartbeat"), fund(45))
        await watch.until_states(fund="live", small="live")
        await source.send(delta("fund", 46, cash_usd=-149_000))
        report = await watch.reaches("fund", 46)
        assert (report["state"], report["margins"][0]["equity_usd"]) == ("live", close(28_000.0))
        assert watch.daemon.engine.changes.sequence_gaps == 1
        assert len(source.questions) == source.can_be_asked


@TRANSPORTS
async def test_an_invalid_line_dooms_its_account_and_no_other(kind: str, tmp_path: Path) -> None:
    async with source_of(kind, tmp_path) as source, watching(tmp_path, FEED, source.toml) as watch:
        await opened(watch, source)
        bad = delta("small", 8, positions=[{"symbol": "ETH-PERP", "size": 11, "isolated_cash_usd": -30_000, "entry_prize": 3_000}])
        await source.send(bad, b'{"type":"delta","acc')
        await watch.until_states(small="stale", fund="live")
        counters = watch.daemon.engine.counters["house"]
        await until(lambda: counters.parse_errors == {"wrong_type": 1, "not_json": 1}, "both lines counted")
        assert public_live(watch.daemon) == watch.public_accounts > 10
        if source.can_be_asked:
            await until(lambda: bool(source.questions), "the snapshot is asked for")
            assert source.questions == [{"type": "resync", "account": "small", "after_sequence": 7}]
        await source.send(small(9))
        await watch.until_states(small="live", fund="live")


@TRANSPORTS
async def test_a_lost_connection_makes_the_accounts_of_its_feed_stale_and_only_those(kind: str, tmp_path: Path) -> None:
    second = FileSource(tmp_path, "second")
    async with source_of(kind, tmp_path) as source, watching(tmp_path, FEED, source.toml, SECOND, second.toml) as watch:
        await opened(watch, source)
        await second.send(snapshot("other", 1, -20_000, {"symbol": "ETH-PERP", "size": 10}))
        await watch.until_states(fund="live", small="live", other="live")
        source.greeting = [RULES, PRICES, fund(50)]
        engine = watch.daemon.engine
        before = engine.counters["house"].gaps
        await source.break_down()
        await until(lambda: engine.counters["house"].gaps > before, "the loss is noticed")
        await until(lambda: health(watch, "house").state == "connected", "the connection is back")
        if kind == "mqtt":
            await source.send(*source.greeting)
        # Only what a snapshot has told of since is known again.
        await watch.until_states(fund="live", small="stale", other="live")
        assert engine.counters["second"].gaps == 0
        assert public_live(watch.daemon) == watch.public_accounts > 10
        await source.send(small(8))
        await watch.until_states(fund="live", small="live", other="live")


def report_of(engine: Engine, venue: str, account: str, now_ns: int) -> AccountReport | None:
    return AccountQueries(engine).account(venue, account, now_ns)


@TRANSPORTS
async def test_the_recording_replays_to_the_same_accounts(kind: str, tmp_path: Path) -> None:
    second = FileSource(tmp_path, "second")
    async with source_of(kind, tmp_path) as source, watching(tmp_path, FEED, source.toml, SECOND, second.toml) as watch:
        await opened(watch, source)
        await second.send(snapshot("other", 1, -20_000, {"symbol": "ETH-PERP", "size": 10}), delta("other", 3))
        await source.send(delta("fund", 42, cash_usd=-149_999), delta("small", 8, nonsense=1), delta("new", 5))
        await watch.until_states(fund="live", small="stale", other="stale", new="unknown")
        if source.can_be_asked:
            await until(lambda: len(source.questions) == 2, "both are asked for")
        await source.send(small(12), delta("small", 13, cash_usd=600))
        await watch.until_states(fund="live", small="live", other="stale", new="unknown")
    engine, config = watch.daemon.engine, watch.config
    replay = Replay(engine_settings(config), parsers(config))
    replay.run(open_recording([Path(config.recording.directory)]))
    now_ns = watch.daemon.now_ns()
    names = [("desk", name) for name in ("fund", "small", "other", "new")]
    names += [("hyperliquid", name) for name in config.venues[0].seed_accounts]
    for each in (engine, replay.engine):
        each.freeze(now_ns)
    reports = {name: report_of(engine, *name, now_ns) for name in names}
    assert {name: report_of(replay.engine, *name, now_ns) for name in names} == reports
    assert {report.state for report in reports.values() if report is not None} >= {"live", "stale", "unknown"}
    assert replay.engine.counters["house"].parse_errors == engine.counters["house"].parse_errors == {"wrong_type": 1}
    assert replay.engine.changes.sequence_gaps == engine.changes.sequence_gaps == 2
    assert replay.engine.changes.resync_demands() == engine.changes.resync_demands()


async def test_an_invalid_line_is_logged_with_its_field(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with source_of("file", tmp_path) as source, watching(tmp_path, FEED, source.toml) as watch:
            await opened(watch, source)
            await source.send(delta("small", 8, positions=[{"symbol": "ETH-PERP", "size": "11"}]))
            await watch.until_states(small="stale", fund="live")
    refused = [entry for entry in logs if entry["event"] == "message_refused"]
    assert [(entry["source"], entry["detail"].partition(":")[0]) for entry in refused] == [("house", "positions[0].size")]
