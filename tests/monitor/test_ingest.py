"""Frames of several venues into one engine: what is counted, what is dropped, and that the rest goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.account_feed import AccountFeed, AccountFeedError
from connectors.decoding import FEED_REASONS, MAX_PAYLOAD_BYTES
from connectors.frames import Frame
from connectors.hyperliquid import Hyperliquid
from connectors.registry import VENUES
from connectors.venue import FeedError
from monitor.engine import Engine
from monitor.engine_settings import EngineSettings
from monitor.ingest import Ingest
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.venue_health import VenueCounters
from tests.monitor.desks import DESK, FEED, Desk
from tests.monitor.world import VENUE, World, ns

START = 1_700_000_000_000_000_000
PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"


def engine(**symbols: tuple[str, ...]) -> Engine:
    known = symbols or {"binance": ("BTCUSDT",), "hyperliquid": ("BTC",)}
    return Engine(EngineSettings(symbols=known, projection=ProjectionSettings(), staleness=StalenessSettings()))


def frame(venue: str, payload: bytes | None, *, milliseconds: int = 0) -> Frame:
    return Frame(venue, "main", START + milliseconds * 1_000_000, payload)


def binance_mark(price: str, symbol: str = "BTCUSDT") -> bytes:
    return (
        f'{{"e":"markPriceUpdate","E":1700000000000,"s":"{symbol}","p":"{price}","i":"{price}","r":"0","T":1700000000000}}'.encode()
    )


HYPERLIQUID_BOOK = (
    b'{"channel":"l2Book","data":{"coin":"BTC","time":1700000000000,'
    b'"levels":[[{"px":"99.0","sz":"1.0","n":1}],[{"px":"101.0","sz":"1.0","n":1}]]}}'
)


def test_frames_reach_the_market_that_they_are_about() -> None:
    fed = engine()
    ingest = Ingest(fed, VENUES)
    ingest.apply_all([frame("binance", binance_mark("100")), frame("hyperliquid", HYPERLIQUID_BOOK)])
    ingest.apply(frame("binance", binance_mark("101")))
    markets = {market.venue: market for market in fed.project(START).markets}
    assert markets["binance"].reference_price == 101.0
    assert (markets["hyperliquid"].best_bid, markets["hyperliquid"].best_ask) == (99.0, 101.0)
    assert {name: (count.frames, count.events) for name, count in fed.counters.items()} == {
        "binance": (2, 2),
        "hyperliquid": (1, 1),
    }


def test_what_cannot_be_used_is_counted_by_venue_and_reason_and_the_rest_goes_on() -> None:
    fed = engine()
    bad = [b"", b"{", b"\xff\xfe", b"[1,2]", binance_mark("NaN"), binance_mark("-1"), binance_mark("1e999"), b'{"e":"new"}']
    frames = [frame("binance", binance_mark("100")), *(frame("binance", payload) for payload in bad)]
    frames += [frame("hyperliquid", b"{}"), frame("binance", binance_mark("102"))]
    Ingest(fed, VENUES).apply_all(frames)
    errors = fed.counters["binance"].parse_errors
    assert sum(errors.values()) == len(bad)
    assert set(errors) <= set(FEED_REASONS)
    assert errors["bad_number"] == 3
    assert errors["not_json"] == 3
    assert sum(fed.counters["hyperliquid"].parse_errors.values()) == 1
    assert fed.counters["binance"].frames == len(bad) + 2
    assert fed.counters["binance"].events == 2
    assert [market.reference_price for market in fed.project(START).markets] == [102.0, None]


def test_a_frame_without_payload_is_a_gap_of_its_connection() -> None:
    fed = engine()
    ingest = Ingest(fed, VENUES)
    ingest.apply_all([frame("binance", binance_mark("100")), frame("binance", None)])
    assert (fed.counters["binance"].gaps, fed.counters["hyperliquid"].gaps) == (1, 0)
    market = fed.project(START).markets[0]
    assert (market.reference_price, market.stale_reasons[-1]) == (None, "mark: disconnected")


def test_an_event_about_an_unknown_symbol_is_counted_and_the_others_of_its_message_are_used() -> None:
    fed = engine()
    both = b"[" + binance_mark("5", "DOGEUSDT") + b"," + binance_mark("100") + b"]"
    Ingest(fed, VENUES).apply(frame("binance", b'{"stream":"!markPrice@arr@1s","data":' + both + b"}"))
    count = fed.counters["binance"]
    assert (count.frames, count.events, count.parse_errors) == (1, 2, {"unknown_symbol": 1})
    assert fed.project(START).markets[0].reference_price == 100.0


def test_a_venue_that_the_engine_does_not_have_is_a_mistake_of_ours_and_no_bad_message() -> None:
    with pytest.raises(KeyError, match="binance"):
        Ingest(engine(hyperliquid=("BTC",)), VENUES).apply(frame("binance", b"{}"))


@pytest.mark.parametrize("venue", sorted(VENUES))
@pytest.mark.parametrize(
    "start", [b"", b'{"stream":"btcusdt@depth","data":', b'{"e":"', b'{"channel":"', b'{"generated":true,"request":']
)
@given(rest=st.binary(max_size=80))
def test_no_bytes_whatever_stop_the_ingest(venue: str, start: bytes, rest: bytes) -> None:
    fed = engine()
    Ingest(fed, VENUES).apply_all([frame(venue, start + rest), frame("binance", binance_mark("100"))])
    assert fed.project(START).markets[0].reference_price == 100.0
    assert fed.counters[venue].frames == 1 + (venue == "binance")


@pytest.mark.parametrize("path", sorted(PAYLOADS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_known_message_of_a_venue_is_either_used_or_refused_by_name(path: Path) -> None:
    fed = engine()
    Ingest(fed, VENUES).apply(frame(path.parent.name, path.read_bytes().strip()))
    errors = fed.counters[path.parent.name].parse_errors
    assert set(errors) <= {*FEED_REASONS, "unknown_symbol"}
    fed.project(START)


# ------------------------------------------------------------------------------------------------- what a lost message is about


NODE_FILL = (
    b'["0x%s",{"coin":"BTC","px":"100","sz":"1","side":"%s","time":1700000000500,"startPosition":"%s","dir":"Open Long",'
    b'"closedPnl":"0","hash":"0x0","oid":1,"crossed":true,"fee":"0.1","tid":7,"feeToken":"USDC"}]'
)


EMPTY_BLOCK = b'{"local_time":"2023-11-14T22:13:20.000000000","block_time":"2023-11-14T22:13:20.000","block_number":1,"events":[]}'


def node_world() -> tuple[World, Ingest]:
    """A world that follows a node, with two live accounts."""
    world = World(node_venues=frozenset({VENUE}))
    world.instruments(0)
    world.mark(0, 100.0)
    ingest = Ingest(world.engine, {VENUE: Hyperliquid()})
    ingest.apply(Frame(VENUE, "node", ns(-0.1), EMPTY_BLOCK))
    world.account(0, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    world.account(0, "0xshort", 106.0 * 4.0 * 1.01, ("BTC", -4.0))
    ingest.apply(Frame(VENUE, "node", ns(0.2), NODE_FILL % (b"1" * 40, b"B", b"0")))
    assert world.market(0.3).accounts == 2
    return world, ingest


@pytest.mark.parametrize(
    ("connection", "payload"),
    [
        ("node", None),
        ("node", b"{"),
        ("node", b'["0x12",{"coin":"BTC"}]'),
        ("node", b'{"block_number":5,"events":[["0x12",{"coin":"BTC","px":"NaN"}]]}'),
        ("node", b"[" * 5_000),
        ("node-stream", b"{"),
    ],
    ids=["gap", "torn", "half a fill", "bad number", "deep", "stream"],
)
def test_a_line_of_a_node_that_cannot_be_read_is_a_hole_in_the_fills(connection: str, payload: bytes | None) -> None:
    world, ingest = node_world()
    ingest.apply(Frame(VENUE, "node-stream", ns(0.25), NODE_FILL % (b"2" * 40, b"B", b"0")))
    ingest.apply(Frame(VENUE, connection, ns(0.4), payload))
    assert world.market(0.5).accounts == 0
    world.account(0.6, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    ingest.apply(Frame(VENUE, connection, ns(0.7), NODE_FILL % (b"1" * 40, b"A", b"1")))
    assert world.market(0.8).accounts == 0, "a state from within the hole is doubtful once the lines come again"
    world.account(0.9, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    assert world.market(1.0).accounts == 1


def test_before_a_node_is_heard_and_after_it_has_a_hole_nothing_that_is_polled_is_believed() -> None:
    """A node that starts late, or a block that is missing while nobody trades: what was polled before may have changed."""
    world = World(node_venues=frozenset({VENUE}))
    world.instruments(0)
    world.mark(0, 100.0)
    ingest = Ingest(world.engine, {VENUE: Hyperliquid()})
    lives = []
    for number, payload in enumerate((b"", EMPTY_BLOCK, None, EMPTY_BLOCK)):
        if payload != b"":
            ingest.apply(Frame(VENUE, "node", ns(number), payload))
        lives.append(world.market(number + 0.1).accounts)
        world.account(number + 0.2, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
        lives.append(world.market(number + 0.3).accounts)
    assert lives == [0, 0, 0, 1, 0, 0, 0, 1]


def test_a_line_of_a_node_that_is_too_long_is_a_hole_at_that_moment() -> None:
    world, ingest = node_world()
    ingest.apply(Frame(VENUE, "node", ns(0.4), b" " * (MAX_PAYLOAD_BYTES + 1)))
    assert world.engine.counters[VENUE].parse_errors == {"oversized": 1}
    assert world.market(0.5).accounts == 0
    ingest.apply(Frame(VENUE, "node", ns(0.55), EMPTY_BLOCK))
    world.account(0.6, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    assert world.market(0.7).accounts == 1


@pytest.mark.parametrize("payload", [b"[]", b'{"channel":"l2Book","data":{"coin":"BTC"}}', b'{"channel":"trades","data":"x"}'])
def test_what_is_lost_of_the_sockets_of_a_venue_with_a_node_concerns_no_account(payload: bytes) -> None:
    world, ingest = node_world()
    ingest.apply(Frame(VENUE, "main", ns(0.4), payload))
    assert sum(world.engine.counters[VENUE].parse_errors.values()) == 1
    assert world.market(0.5).accounts == 2
    ingest.apply(Frame(VENUE, "main", ns(0.6), None))
    world.mark(0.7, 100.0)
    assert world.market(0.7).accounts == 2


def fed_desk() -> tuple[Desk, Ingest, list[FeedError]]:
    """A desk with two feeds of one venue, three accounts of the first and one of the second."""
    desk = Desk()
    refused: list[FeedError] = []
    desk.engine.counters["second"] = VenueCounters()
    desk.engine.settings = msgspec.structs.replace(desk.engine.settings, feeds=(FEED, "second"))
    sources = {name: AccountFeed(name, DESK, has_markets=True) for name in (FEED, "second")}
    ingest = Ingest(desk.engine, sources, on_refused=refused.append)
    desk.open()
    for name, account in ((FEED, "a"), (FEED, "b"), (FEED, "c"), ("second", "d")):
        ingest.apply(Frame(name, name, ns(0), line("snapshot", account, 5, positions=[{"symbol": "ETH-PERP", "size": 1}])))
    assert live(desk) == {"a", "b", "c", "d"}
    return desk, ingest, refused


def line(kind: str, account: str, sequence: int, **more: object) -> bytes:
    fields: dict[str, object] = {"type": kind, "account": account, "sequence": sequence, "time_ns": ns(0)}
    if kind == "snapshot":
        fields |= {"cash_usd": -2_000, "positions": [], "holdings": []}
    return msgspec.json.encode(fields | more)


def live(desk: Desk, at_s: float = 1.0) -> set[str]:
    accounts = desk.engine.accounts
    rows = accounts.rows_of(DESK)
    is_live = accounts.is_live(rows, ns(at_s), desk.engine.account_age_max_ns)
    return {accounts.name(row)[1] for row in rows[is_live].tolist()}


def test_a_refused_line_of_a_feed_dooms_the_account_that_it_names_and_says_which_field() -> None:
    desk, ingest, refused = fed_desk()
    bad = line("delta", "b", 6, positions=[{"symbol": "ETH-PERP", "size": 2}, {"symbol": "BTC-PERP", "size": "2"}])
    ingest.apply(Frame(FEED, FEED, ns(1), bad))
    assert live(desk) == {"a", "c", "d"}
    assert desk.engine.counters[FEED].parse_errors == {"wrong_type": 1}
    [error] = refused
    assert isinstance(error, AccountFeedError)
    assert (error.venue, error.reason, error.path, error.accounts) == (FEED, "wrong_type", "positions[1].size", ("b",))
    assert [(item.feed, item.account, item.after_sequence) for item in desk.engine.changes.resync_demands()] == [(FEED, "b", 5)]
    ingest.apply(Frame(FEED, FEED, ns(1), line("delta", "b", 7)))
    assert live(desk) == {"a", "c", "d"}, "only a snapshot heals it"
    ingest.apply(Frame(FEED, FEED, ns(1), line("snapshot", "b", 9)))
    assert live(desk) == {"a", "b", "c", "d"}
    assert desk.engine.changes.resync_demands() == []


def test_a_frame_of_several_lines_is_used_whole_or_dooms_all_that_it_names() -> None:
    desk, ingest, _ = fed_desk()
    bad = line("delta", "a", 6, cash_usd=7.0) + b"\n" + line("delta", "b", 6, leverage=3) + b"\n" + line("delta", "never", 1)
    ingest.apply(Frame(FEED, FEED, ns(1), bad))
    assert live(desk) == {"c", "d"}
    assert desk.engine.accounts.row_of(DESK, "never", create=False) is None, "a refused line makes no account"


def test_a_feed_dooms_no_account_of_another_feed() -> None:
    desk, ingest, _ = fed_desk()
    ingest.apply(Frame(FEED, FEED, ns(1), line("delta", "d", 6, nonsense=1)))
    assert live(desk) == {"a", "b", "c", "d"}
    ingest.apply(Frame("second", "second", ns(1), None))
    assert live(desk) == {"a", "b", "c"}


def test_a_line_that_names_nobody_shows_at_the_next_message_of_whoever_missed_it() -> None:
    desk, ingest, refused = fed_desk()
    ingest.apply(Frame(FEED, FEED, ns(1), line("delta", "a", 6)[:-1]))
    assert [error.reason for error in refused] == ["not_json"]
    assert live(desk) == {"a", "b", "c", "d"}
    ingest.apply(Frame(FEED, FEED, ns(1), line("delta", "a", 7)))
    assert live(desk) == {"b", "c", "d"}
    assert desk.engine.changes.sequence_gaps == 1


def test_a_lost_feed_makes_its_accounts_stale_and_only_those() -> None:
    desk, ingest, _ = fed_desk()
    ingest.apply(Frame(FEED, FEED, ns(1), None))
    assert live(desk) == {"d"}
    assert (desk.engine.counters[FEED].gaps, desk.engine.counters["second"].gaps) == (1, 0)
    assert {item.account for item in desk.engine.changes.resync_demands()} == {"a", "b", "c"}
    ingest.apply(Frame(FEED, FEED, ns(2), line("delta", "a", 6)))
    assert live(desk) == {"d"}, "a delta after a loss may have another before it"
    ingest.apply(Frame(FEED, FEED, ns(2), line("snapshot", "a", 6)))
    assert live(desk) == {"a", "d"}


def test_refusals_of_venues_are_told_too() -> None:
    refused: list[FeedError] = []
    fed = engine()
    Ingest(fed, VENUES, on_refused=refused.append).apply_all([frame("binance", b"{"), frame("hyperliquid", b"{}")])
    assert [(error.venue, error.reason) for error in refused] == [("binance", "not_json"), ("hyperliquid", "wrong_type")]


@given(rest=st.binary(max_size=80), start=st.sampled_from([b"", b'{"type":"', b'{"type":"delta","account":"a","sequence":', b"\n"]))
def test_no_bytes_whatever_of_a_feed_stop_the_ingest(rest: bytes, start: bytes) -> None:
    desk, ingest, refused = fed_desk()
    ingest.apply(Frame(FEED, FEED, ns(1), start + rest))
    assert "d" in live(desk)
    assert sum(desk.engine.counters[FEED].parse_errors.values()) == len(refused) <= 1
