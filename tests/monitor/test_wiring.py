"""What a configuration makes of the parts, from the text of the file on."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.account_feed import AccountFeed
from connectors.binance import Binance
from connectors.frames import Frame
from connectors.hyperliquid import Hyperliquid
from monitor.config import Config, parse_config
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.ingest import Ingest
from monitor.projection import Projection
from monitor.settings import StalenessSettings
from monitor.wiring import engine_settings, parsers
from tests.monitor.world import ns

EVERYTHING = """
[staleness]
account_s = 100.0
[accounts]
margin_call_ratio = 0.25
[[venues]]
name = "hyperliquid"
symbols = ["BTC", "xyz:GOLD"]
dexes = ["xyz", "flx"]
node_directory = "hl/data"
accounts_max = 1000
simulated = true
[[venues]]
name = "binance"
symbols = ["ETHUSDT"]
accounts_max = 50
[[account_feeds]]
name = "house"
venue = "desk"
symbols = ["BTC-PERP", "WETH"]
source = {type = "file", path = "house.jsonl"}
[[account_feeds]]
name = "second"
venue = "desk"
symbols = ["WETH", "SOL-PERP"]
source = {type = "file", path = "second.jsonl"}
[[account_feeds]]
name = "fund"
venue = "hyperliquid"
source = {type = "file", path = "fund.jsonl"}
"""


@pytest.fixture
def config() -> Config:
    return parse_config(EVERYTHING, Path("/etc/liqmon"))


def test_every_name_that_frames_can_carry_has_its_parser(config: Config) -> None:
    found = parsers(config)
    assert {name: type(parser) for name, parser in found.items()} == {
        "hyperliquid": Hyperliquid,
        "binance": Binance,
        "house": AccountFeed,
        "second": AccountFeed,
        "fund": AccountFeed,
    }
    feeds = [parser for parser in found.values() if isinstance(parser, AccountFeed)]
    assert [(feed.name, feed.venue, feed.has_markets) for feed in feeds] == [
        ("house", "desk", True),
        ("second", "desk", True),
        ("fund", "hyperliquid", False),
    ]


def test_the_core_is_told_what_the_file_says(config: Config) -> None:
    assert engine_settings(config) == EngineSettings(
        symbols={"hyperliquid": ("BTC", "xyz:GOLD"), "binance": ("ETHUSDT",), "desk": ("BTC-PERP", "WETH", "SOL-PERP")},
        projection=config.projection,
        staleness=StalenessSettings(account_s=100.0),
        simulated_venues=frozenset({"hyperliquid"}),
        completeness={"hyperliquid": "complete", "binance": "sampled"},
        accounts_max=1_050 + 100_000,
        bookless_venues=frozenset({"desk"}),
        dexes={"hyperliquid": ("xyz", "flx")},
        node_venues=frozenset({"hyperliquid"}),
        feeds=("house", "second", "fund"),
        margin_call_ratio=0.25,
    )


def test_without_a_node_liquidations_are_those_of_watched_accounts_or_none() -> None:
    address = "0x" + "1" * 40
    plain = '[[venues]]\nname = "hyperliquid"\nsymbols = ["BTC"]\n'
    assert engine_settings(parse_config(plain, Path("/"))).completeness == {}
    watching = engine_settings(parse_config(f'{plain}watch_accounts = ["{address}"]\n', Path("/")))
    assert watching.completeness == {"hyperliquid": "partial"}
    assert (watching.node_venues, watching.dexes, watching.feeds) == (frozenset(), {}, ())


def test_frames_of_every_source_find_their_way_into_one_engine(config: Config) -> None:
    engine = Engine(engine_settings(config))
    ingest = Ingest(engine, parsers(config))

    def feed(name: str, payload: bytes | None, at_s: float = 0.0) -> None:
        ingest.apply(Frame(name, name, ns(at_s), payload))

    tiers = b'[{"lower_bound":0,"maintenance_rate":0.01}]'
    feed("house", b'{"type":"instruments","instruments":[{"symbol":"BTC-PERP","contract":"linear","tiers":' + tiers + b"}]}")
    feed("house", b'{"type":"prices","time_ns":1790000000000000000,"prices":[{"symbol":"BTC-PERP","mark_price":60000}]}')
    for name, symbol, cash in (("house", "BTC-PERP", -50_000), ("fund", "BTC", -50_000)):
        line = (
            f'{{"type":"snapshot","account":"{name}-1","sequence":0,"time_ns":1790000000000000000,"cash_usd":{cash},'
            f'"positions":[{{"symbol":"{symbol}","size":1}}],"holdings":[]}}'
        )
        feed(name, line.encode())
    projection = engine.project(ns(1))
    # Feeds have counters of their own; their accounts are those of the venues.
    feeds = {"fund": 0, "house": 0, "second": 0}
    assert live_accounts(projection) == {"hyperliquid": 1, "binance": 0, "desk": 1} | feeds
    [market] = [market for market in projection.markets if (market.venue, market.symbol) == ("desk", "BTC-PERP")]
    assert (market.provenance, market.accounts, market.observed_long_base) == ("observed", 1, 1.0)
    feed("fund", None, 2.0)
    assert live_accounts(engine.project(ns(2))) == {"hyperliquid": 0, "binance": 0, "desk": 1} | feeds
    assert {name: count.frames for name, count in engine.counters.items()} == {
        "hyperliquid": 0,
        "binance": 0,
        "desk": 0,
        "house": 3,
        "second": 0,
        "fund": 2,
    }


def live_accounts(projection: Projection) -> dict[str, int]:
    return {venue.venue: venue.accounts_live for venue in projection.venues}


def test_a_feed_of_a_venue_with_a_connector_may_not_tell_its_markets(config: Config) -> None:
    engine = Engine(engine_settings(config))
    payload = b'{"type":"prices","time_ns":1790000000000000000,"prices":[{"symbol":"BTC","mark_price":1}]}'
    Ingest(engine, parsers(config)).apply(Frame("fund", "fund", ns(0), payload))
    assert engine.counters["fund"].parse_errors == {"unknown_message": 1}
    assert engine.markets.by_key["hyperliquid", "BTC"].mark_price is None
