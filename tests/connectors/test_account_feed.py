"""Account feeds: from lines to events, and what is said of lines that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from connectors.account_feed import AccountFeed, AccountFeedError
from connectors.account_feed_wire import MAX_HOLDINGS, MAX_INSTRUMENTS, MAX_POSITIONS, MAX_PRICES, MAX_TIERS
from connectors.decoding import FEED_REASONS, MAX_PAYLOAD_BYTES
from connectors.events import (
    AccountDelta,
    AccountSnapshot,
    AnyEvent,
    Gap,
    HoldingReport,
    Instrument,
    Instruments,
    MarginTier,
    MarkPrice,
    PositionReport,
)
from connectors.frames import Frame
from connectors.venue import AccountQuestion, FeedError, Venue, VenueSettings
from tests.connectors.payloads import HOSTILE_VALUES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "account-feeds.md"
RECEIVED_NS = 1_790_000_000_500_000_000
TIME_NS = 1_790_000_000_000_000_000

FEED = AccountFeed("desk", "our-exchange", has_markets=True)

SNAPSHOT: dict[str, Any] = {
    "type": "snapshot",
    "account": "fund-a",
    "sequence": 7,
    "time_ns": TIME_NS,
    "cash_usd": 70_000.0,
    "positions": [{"symbol": "BTC-PERP", "size": 2.0}],
    "holdings": [],
}
DELTA: dict[str, Any] = {"type": "delta", "account": "fund-a", "sequence": 8, "time_ns": TIME_NS}
LINEAR: dict[str, Any] = {"symbol": "BTC-PERP", "contract": "linear"}


def frame(payload: bytes | None) -> Frame:
    return Frame("desk", "desk", RECEIVED_NS, payload)


def parse(*messages: dict[str, Any], feed: AccountFeed = FEED) -> list[AnyEvent]:
    return feed.parse(frame(b"\n".join(json.dumps(message).encode() for message in messages)))


def refusal(message: dict[str, Any] | bytes, feed: AccountFeed = FEED) -> AccountFeedError:
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(AccountFeedError) as refused:
        feed.parse(frame(payload))
    assert refused.value.reason in FEED_REASONS
    assert refused.value.venue == feed.name
    return refused.value


def documented(kind: str) -> list[dict[str, Any]]:
    """All messages of one type in the document for users, in their order."""
    blocks = re.findall(r"^```json\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    messages = [json.loads(line) for block in blocks for line in block.splitlines()]
    return [message for message in messages if message["type"] == kind]


def equity_usd(snapshot: AccountSnapshot, marks: dict[str, float]) -> float:
    """Equity of the linear cross positions, by the definition of the document."""
    cross = [position for position in snapshot.positions if position.isolated_cash_usd is None]
    return snapshot.cross_cash_usd + sum(position.size * marks[position.symbol] for position in cross)


# ------------------------------------------------------------------------------------------------------ events


def test_a_snapshot_becomes_an_account_with_everything_that_was_told() -> None:
    position = {
        "symbol": "BTC-PERP",
        "size": -2.5,
        "position_side": "short",
        "contract": "linear",
        "entry_price": 60_000,
        "isolated_cash_usd": 155_000.5,
        "liquidation_price": 61_000.25,
        "leverage": 10,
    }
    message = SNAPSHOT | {
        "positions": [position],
        "holdings": [{"symbol": "WETH", "quantity": 3}, {"symbol": "USDT", "quantity": -5.5}],
        "pool": "xyz",
        "e_mode": 1,
        "account_value_usd": -12.5,
        "maintenance_margin_usd": 0,
    }
    assert parse(message) == [
        AccountSnapshot(
            venue="our-exchange",
            connection="desk",
            received_ns=RECEIVED_NS,
            account="fund-a",
            exchange_ns=TIME_NS,
            cross_cash_usd=70_000.0,
            positions=(PositionReport("BTC-PERP", -2.5, 60_000.0, 155_000.5, 61_000.25, 10.0, "short"),),
            account_value_usd=-12.5,
            maintenance_margin_usd=0.0,
            pool="xyz",
            holdings=(HoldingReport("WETH", 3.0), HoldingReport("USDT", -5.5)),
            sequence=7,
            mode="standard",
            e_mode=1,
        )
    ]


def test_what_is_absent_or_null_is_unknown() -> None:
    nulls = dict.fromkeys(["contract", "entry_price", "isolated_cash_usd", "liquidation_price", "leverage"])
    told = SNAPSHOT | {"positions": [{"symbol": "BTC-PERP", "size": 2} | nulls], "account_value_usd": None}
    assert parse(told) == parse(SNAPSHOT)
    (event,) = parse(SNAPSHOT)
    assert isinstance(event, AccountSnapshot)
    assert event.positions == (PositionReport("BTC-PERP", 2.0, None, None, None, None, "net"),)
    assert (event.account_value_usd, event.maintenance_margin_usd, event.pool, event.e_mode) == (None, None, "", 0)


def test_a_delta_carries_new_values_and_closed_positions() -> None:
    message = DELTA | {
        "positions": [{"symbol": "BTC-PERP", "size": 0}],
        "holdings": [{"symbol": "WETH", "quantity": 0}],
    }
    assert parse(message) == [
        AccountDelta(
            venue="our-exchange",
            connection="desk",
            received_ns=RECEIVED_NS,
            account="fund-a",
            exchange_ns=TIME_NS,
            sequence=8,
            cross_cash_usd=None,
            positions=(PositionReport("BTC-PERP", 0.0, None, None, None, None),),
            holdings=(HoldingReport("WETH", 0.0),),
        )
    ]
    assert parse(DELTA | {"cash_usd": 0}) == [
        AccountDelta(
            venue="our-exchange",
            connection="desk",
            received_ns=RECEIVED_NS,
            account="fund-a",
            exchange_ns=TIME_NS,
            sequence=8,
            cross_cash_usd=0.0,
        )
    ]


def test_cross_isolated_long_and_short_positions_of_one_market_are_different_positions() -> None:
    positions = [
        {"symbol": "BTC-PERP", "size": 1, "position_side": "long"},
        {"symbol": "BTC-PERP", "size": -1, "position_side": "short"},
        {"symbol": "BTC-PERP", "size": 2, "position_side": "long", "isolated_cash_usd": -5},
        {"symbol": "ETH-PERP", "size": 2},
        {"symbol": "ETH-PERP", "size": 2, "isolated_cash_usd": 0},
    ]
    (event,) = parse(SNAPSHOT | {"positions": positions})
    assert isinstance(event, AccountSnapshot)
    assert [(p.symbol, p.position_side, p.isolated_cash_usd) for p in event.positions] == [
        ("BTC-PERP", "long", None),
        ("BTC-PERP", "short", None),
        ("BTC-PERP", "long", -5.0),
        ("ETH-PERP", "net", None),
        ("ETH-PERP", "net", 0.0),
    ]


def test_missing_deductions_make_maintenance_continuous_and_given_ones_are_kept() -> None:
    # venues.md 1.9: BTC's tiers on Hyperliquid's mainnet at 40x and 20x, whose second deduction is 150 M * (1/40 - 1/80).
    continuous = [
        {"lower_bound": 0, "maintenance_rate": 1 / 80, "max_leverage": 40},
        {"lower_bound": 150_000_000, "maintenance_rate": 1 / 40, "max_leverage": 20},
    ]
    jumping = [
        {"lower_bound": 0, "maintenance_rate": 0.004, "deduction": 0},
        {"lower_bound": 100, "maintenance_rate": 0.005, "deduction": 0},
        {"lower_bound": 1000, "maintenance_rate": 0.01},
    ]
    message = {
        "type": "instruments",
        "instruments": [LINEAR | {"tiers": continuous}, {"symbol": "BTC-USD", "contract": "inverse", "tiers": jumping}],
    }
    (event,) = parse(message)
    assert isinstance(event, Instruments)
    assert not event.complete
    first, second = event.instruments
    assert first.tiers == (MarginTier(0.0, 1 / 80, 0.0, 40.0), MarginTier(150e6, 1 / 40, 150e6 * (1 / 40 - 1 / 80), 20.0))
    assert first.tiers[1].deduction_usd == pytest.approx(1_875_000.0)
    assert [tier.deduction_usd for tier in second.tiers] == [0.0, 0.0, pytest.approx(5.0)]
    assert second.contract == "inverse"


def test_an_asset_has_ratios_and_an_instrument_may_be_known_by_name_only() -> None:
    asset = {
        "symbol": "WETH",
        "contract": "asset",
        "collateral_ratio": 0.83,
        "e_mode_ratios": [{"category": 1, "ratio": 0.95}, {"category": 3, "ratio": 0.9}],
    }
    steps = LINEAR | {"size_step": 0.001, "price_step": 0.5, "only_isolated": True, "delisted": True}
    (event,) = parse({"type": "instruments", "instruments": [asset, steps], "time_ns": TIME_NS})
    assert isinstance(event, Instruments)
    assert event.instruments == (
        Instrument("WETH", (), contract="asset", collateral_ratio=0.83, e_mode_ratios=((1, 0.95), (3, 0.9))),
        Instrument("BTC-PERP", (), 0.001, 0.5, True, True),
    )


def test_prices_become_marks() -> None:
    prices = [{"symbol": "BTC-PERP", "mark_price": 61_000, "index_price": 60_990.5}, {"symbol": "WETH", "mark_price": 3_000}]
    where: dict[str, Any] = {"venue": "our-exchange", "connection": "desk", "received_ns": RECEIVED_NS, "exchange_ns": TIME_NS}
    assert parse({"type": "prices", "time_ns": TIME_NS, "prices": prices}) == [
        MarkPrice(symbol="BTC-PERP", mark_price=61_000.0, index_price=60_990.5, **where),
        MarkPrice(symbol="WETH", mark_price=3_000.0, **where),
    ]


def test_a_heartbeat_says_nothing_and_a_lost_connection_is_a_gap_of_all() -> None:
    assert parse({"type": "heartbeat"}) == []
    assert parse({"type": "heartbeat", "time_ns": TIME_NS}) == []
    assert FEED.parse(frame(None)) == [Gap(venue="our-exchange", connection="desk", received_ns=RECEIVED_NS, reason="disconnected")]


def test_several_lines_become_the_events_of_each_and_repetitions_and_holes_pass_through() -> None:
    lines = [SNAPSHOT, DELTA, DELTA, DELTA | {"sequence": 99}, SNAPSHOT | {"sequence": 3}]
    payload = b"\r\n".join(json.dumps(line).encode() for line in lines) + b"\n\n  \n"
    events = FEED.parse(frame(payload))
    assert [event.sequence for event in events if isinstance(event, AccountSnapshot | AccountDelta)] == [7, 8, 8, 99, 3]
    assert events == [event for line in lines for event in parse(line)]


def test_a_feed_can_stand_where_a_venue_can() -> None:
    venue: Venue = FEED
    settings = VenueSettings(symbols=())
    assert (venue.connections(settings), venue.bootstrap(settings), venue.periodic(settings)) == ([], [], [])
    assert venue.book_snapshot("BTC-PERP") is None
    assert venue.account_requests(AccountQuestion("fund-a")) == []
    assert venue.channel_key(b'{"type":"heartbeat"}') == venue.channel_key(b"?") == "messages"


def test_markets_are_told_only_by_feeds_of_venues_without_a_connector() -> None:
    feed = AccountFeed("desk", "hyperliquid")
    assert parse(SNAPSHOT, feed=feed)
    for message in ({"type": "prices", "time_ns": TIME_NS, "prices": []}, {"type": "instruments", "instruments": []}):
        assert parse(message) == [] or isinstance(parse(message)[0], Instruments)
        error = refusal(message, feed)
        assert (error.reason, error.path) == ("unknown_message", "type")
        assert "hyperliquid" in error.problem


def test_resync_messages_are_those_of_the_document() -> None:
    (example,) = documented("resync")
    assert json.loads(FEED.resync_message("fund-a", 43)) == example
    assert FEED.resync_message('a"\n', None) == b'{"type":"resync","account":"a\\"\\n","after_sequence":null}'
    with pytest.raises(ValueError, match="negative"):
        FEED.resync_message("fund-a", -1)


# -------------------------------------------------------------------------------------------------- the document


def test_every_documented_message_is_accepted() -> None:
    kinds = {kind: documented(kind) for kind in ("snapshot", "delta", "instruments", "prices", "heartbeat")}
    assert {kind: len(messages) for kind, messages in kinds.items()} == {
        "snapshot": 3,
        "delta": 3,
        "instruments": 3,
        "prices": 3,
        "heartbeat": 1,
    }
    for messages in kinds.values():
        for message in messages:
            parse(message)


def test_the_documented_linear_account_has_the_equity_that_the_document_says() -> None:
    told, bought, sold = documented("delta")[0], documented("delta")[1], documented("snapshot")[0]
    snapshot, after_buying, after_selling = parse(sold)[0], parse(told)[0], parse(bought)[0]
    assert isinstance(snapshot, AccountSnapshot)
    assert isinstance(after_buying, AccountDelta)
    assert isinstance(after_selling, AccountDelta)
    marks = {price["symbol"]: float(price["mark_price"]) for price in documented("prices")[0]["prices"]}
    assert equity_usd(snapshot, marks) == snapshot.account_value_usd == 105_000.0
    # A purchase at the mark costs the fee and nothing else.
    assert after_buying.cross_cash_usd is not None
    assert after_buying.cross_cash_usd + 3 * marks["BTC-PERP"] - 30 * marks["ETH-PERP"] == 105_000.0 - 30.0
    # Closing the isolated position at the mark moves its equity into the cash.
    isolated = snapshot.positions[2]
    assert isolated.isolated_cash_usd is not None
    equity = isolated.isolated_cash_usd + isolated.size * marks["SOL-PERP"]
    assert after_selling.cross_cash_usd == after_buying.cross_cash_usd + equity == 21_470.0
    instruments = parse(documented("instruments")[0])[0]
    assert isinstance(instruments, Instruments)
    assert instruments.instruments[1].tiers[1].deduction_usd == pytest.approx(5_000.0)


def test_the_documented_inverse_account_is_worth_in_dollars_what_it_is_in_coin() -> None:
    (snapshot,) = parse(documented("snapshot")[1])
    assert isinstance(snapshot, AccountSnapshot)
    (position,), (coin,) = snapshot.positions, snapshot.holdings
    assert position.entry_price is not None
    mark = documented("prices")[1]["prices"][0]["mark_price"]
    in_coin = coin.quantity + position.size * (1.0 / position.entry_price - 1.0 / mark)
    affine = coin.quantity * mark + position.size * (mark / position.entry_price - 1.0)
    assert in_coin * mark == pytest.approx(affine) == pytest.approx(97_916.6667)


def test_the_documented_lending_account_has_the_health_that_the_document_says() -> None:
    (snapshot,), (delta,) = parse(documented("snapshot")[2]), parse(documented("delta")[2])
    (instruments,) = parse(documented("instruments")[2])
    assert isinstance(snapshot, AccountSnapshot)
    assert isinstance(delta, AccountDelta)
    assert isinstance(instruments, Instruments)
    ratio = {item.symbol: item.collateral_ratio for item in instruments.instruments}
    price: dict[str, float] = {item["symbol"]: item["mark_price"] for item in documented("prices")[2]["prices"]}

    def health(held: dict[str, float]) -> float:
        supplied = sum(quantity * price[name] * (ratio[name] or 0.0) for name, quantity in held.items() if quantity > 0.0)
        return supplied / -sum(quantity * price[name] for name, quantity in held.items() if quantity < 0.0)

    held = {item.symbol: item.quantity for item in snapshot.holdings}
    assert health(held) == pytest.approx(1.62)
    assert health(held | {item.symbol: item.quantity for item in delta.holdings}) == pytest.approx(2.025)


# ---------------------------------------------------------------------------------------------------- refusals


def with_position(**changes: Any) -> dict[str, Any]:
    fine = {"symbol": "ETH-PERP", "size": 1.0}
    return SNAPSHOT | {"positions": [fine, fine | {"symbol": "SOL-PERP"}, {"symbol": "BTC-PERP", "size": 1.0} | changes]}


def with_tiers(*tiers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "instruments", "instruments": [LINEAR | {"symbol": "ETH-PERP"}, LINEAR | {"tiers": list(tiers)}]}


def tier(bound: float, rate: float, **more: Any) -> dict[str, Any]:
    return {"lower_bound": bound, "maintenance_rate": rate, **more}


def without(message: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != field}


ASSET = {"symbol": "WETH", "contract": "asset"}
LONG_NAME = "x" * 81

REFUSALS: list[tuple[dict[str, Any] | bytes, str, str]] = [
    # Types, missing and unknown fields.
    (SNAPSHOT | {"leverage": 5}, "wrong_type", "leverage"),
    (without(SNAPSHOT, "account"), "wrong_type", "account"),
    (without(SNAPSHOT, "sequence"), "wrong_type", "sequence"),
    (without(SNAPSHOT, "time_ns"), "wrong_type", "time_ns"),
    (without(SNAPSHOT, "cash_usd"), "wrong_type", "cash_usd"),
    (without(SNAPSHOT, "positions"), "wrong_type", "positions"),
    (without(SNAPSHOT, "holdings"), "wrong_type", "holdings"),
    (without(DELTA, "sequence"), "wrong_type", "sequence"),
    (SNAPSHOT | {"account": ""}, "wrong_type", "account"),
    (SNAPSHOT | {"account": LONG_NAME}, "wrong_type", "account"),
    (SNAPSHOT | {"account": 17}, "wrong_type", "account"),
    (SNAPSHOT | {"cash_usd": "70000"}, "wrong_type", "cash_usd"),
    (SNAPSHOT | {"cash_usd": None}, "wrong_type", "cash_usd"),
    (SNAPSHOT | {"positions": {}}, "wrong_type", "positions"),
    (SNAPSHOT | {"positions": [[]]}, "wrong_type", "positions[0]"),
    (with_position(entry=60_000), "wrong_type", "positions[2].entry"),
    (with_position(entry_price="60000"), "wrong_type", "positions[2].entry_price"),
    (with_position(position_side="both"), "wrong_type", "positions[2].position_side"),
    (with_position(contract="asset"), "wrong_type", "positions[2].contract"),
    (with_position(symbol=""), "wrong_type", "positions[2].symbol"),
    (with_position(contract="inverse"), "wrong_type", "positions[2].entry_price"),
    (with_position(contract="inverse", entry_price=None), "wrong_type", "positions[2].entry_price"),
    (with_position(contract="inverse", entry_price=5, isolated_cash_usd=5), "wrong_type", "positions[2].isolated_cash_usd"),
    (SNAPSHOT | {"holdings": [{"symbol": "WETH"}]}, "wrong_type", "holdings[0].quantity"),
    ({"type": "instruments", "instruments": [ASSET | {"tiers": [tier(0, 0.01)]}]}, "wrong_type", "instruments[0].tiers"),
    ({"type": "instruments", "instruments": [LINEAR | {"collateral_ratio": 1}]}, "wrong_type", "instruments[0].collateral_ratio"),
    (
        {"type": "instruments", "instruments": [LINEAR | {"e_mode_ratios": [{"category": 1, "ratio": 1}]}]},
        "wrong_type",
        "instruments[0].e_mode_ratios",
    ),
    ({"type": "instruments", "instruments": [LINEAR | {"contract": "option"}]}, "wrong_type", "instruments[0].contract"),
    ({"type": "heartbeat", "account": "fund-a"}, "wrong_type", "account"),
    # Numbers that cannot be.
    (SNAPSHOT | {"sequence": -1}, "bad_number", "sequence"),
    (SNAPSHOT | {"sequence": 2**62}, "bad_number", "sequence"),
    (SNAPSHOT | {"time_ns": 1_790_000_000_000}, "bad_number", "time_ns"),
    (SNAPSHOT | {"time_ns": 1_790_000_000_000_000}, "bad_number", "time_ns"),
    (SNAPSHOT | {"time_ns": 10**19}, "bad_number", "time_ns"),
    (SNAPSHOT | {"cash_usd": 1e18}, "bad_number", "cash_usd"),
    (json.dumps(SNAPSHOT).replace("70000.0", "1e999").encode(), "bad_number", "cash_usd"),
    (SNAPSHOT | {"maintenance_margin_usd": -1}, "bad_number", "maintenance_margin_usd"),
    (SNAPSHOT | {"e_mode": 256}, "bad_number", "e_mode"),
    (with_position(size=0), "bad_number", "positions[2].size"),
    (with_position(size=-0.0), "bad_number", "positions[2].size"),
    (with_position(size=-1, position_side="long"), "bad_number", "positions[2].size"),
    (with_position(size=1, position_side="short"), "bad_number", "positions[2].size"),
    (with_position(entry_price=0), "bad_number", "positions[2].entry_price"),
    (with_position(entry_price=-60_000), "bad_number", "positions[2].entry_price"),
    (with_position(liquidation_price=0), "bad_number", "positions[2].liquidation_price"),
    (with_position(leverage=0), "bad_number", "positions[2].leverage"),
    (with_position(leverage=0.99), "bad_number", "positions[2].leverage"),
    (SNAPSHOT | {"holdings": [{"symbol": "WETH", "quantity": 0}]}, "bad_number", "holdings[0].quantity"),
    ({"type": "prices", "time_ns": TIME_NS, "prices": [{"symbol": "B", "mark_price": 0}]}, "bad_number", "prices[0].mark_price"),
    (with_tiers(tier(0, 0)), "bad_number", "instruments[1].tiers[0].maintenance_rate"),
    (with_tiers(tier(0, 1)), "bad_number", "instruments[1].tiers[0].maintenance_rate"),
    (with_tiers(tier(-1, 0.01)), "bad_number", "instruments[1].tiers[0].lower_bound"),
    (with_tiers(tier(0, 0.01, deduction=-1)), "bad_number", "instruments[1].tiers[0].deduction"),
    ({"type": "instruments", "instruments": [ASSET | {"collateral_ratio": 1.01}]}, "bad_number", "instruments[0].collateral_ratio"),
    # Parts that contradict each other.
    (with_position(symbol="SOL-PERP"), "inconsistent", "positions[2]"),
    (with_position(symbol="SOL-PERP", position_side="long"), "inconsistent", "positions[2].position_side"),
    (
        SNAPSHOT | {"holdings": [{"symbol": "W", "quantity": 1}, {"symbol": "W", "quantity": -1}]},
        "inconsistent",
        "holdings[1].symbol",
    ),
    ({"type": "instruments", "instruments": [LINEAR, LINEAR]}, "inconsistent", "instruments[1].symbol"),
    (
        {"type": "prices", "time_ns": TIME_NS, "prices": [{"symbol": "B", "mark_price": 1}, {"symbol": "B", "mark_price": 1}]},
        "inconsistent",
        "prices[1].symbol",
    ),
    (with_tiers(tier(5, 0.01)), "inconsistent", "instruments[1].tiers[0].lower_bound"),
    (with_tiers(tier(0, 0.01, deduction=5)), "inconsistent", "instruments[1].tiers[0].deduction"),
    (with_tiers(tier(0, 0.01), tier(0, 0.02)), "inconsistent", "instruments[1].tiers[1].lower_bound"),
    (with_tiers(tier(0, 0.02), tier(100, 0.01)), "inconsistent", "instruments[1].tiers[1].maintenance_rate"),
    (with_tiers(tier(0, 0.01), tier(100, 0.02, deduction=1.1)), "inconsistent", "instruments[1].tiers[1].deduction"),
    (
        {"type": "instruments", "instruments": [ASSET | {"e_mode_ratios": [{"category": 1, "ratio": 0.9}] * 2}]},
        "inconsistent",
        "instruments[0].e_mode_ratios",
    ),
    # Too many.
    (SNAPSHOT | {"positions": [{"symbol": "B", "size": 1}] * (MAX_POSITIONS + 1)}, "oversized", "positions"),
    (DELTA | {"holdings": [{"symbol": "B", "quantity": 1}] * (MAX_HOLDINGS + 1)}, "oversized", "holdings"),
    ({"type": "instruments", "instruments": [LINEAR] * (MAX_INSTRUMENTS + 1)}, "oversized", "instruments"),
    (with_tiers(*[tier(0, 0.1)] * (MAX_TIERS + 1)), "oversized", "instruments[1].tiers"),
    (
        {"type": "prices", "time_ns": TIME_NS, "prices": [{"symbol": "B", "mark_price": 1}] * (MAX_PRICES + 1)},
        "oversized",
        "prices",
    ),
    # No message at all.
    ({"type": "order"}, "unknown_message", "type"),
    ({"type": "resync", "account": "fund-a", "after_sequence": 1}, "unknown_message", "type"),
    ({"type": 5}, "wrong_type", "type"),
    ({}, "wrong_type", "type"),
    (b"[]", "wrong_type", ""),
    (b"17", "wrong_type", ""),
    (b"", "not_json", ""),
    (b"hello", "not_json", ""),
    (json.dumps(SNAPSHOT).encode()[:-1], "not_json", ""),
    (json.dumps(SNAPSHOT).encode() * 2, "not_json", ""),
    (b'{"type":"snapshot","account":"\xff"}', "not_json", ""),
    (json.dumps(SNAPSHOT).replace("70000.0", "NaN").encode(), "not_json", ""),
    (json.dumps(SNAPSHOT).replace("70000.0", "-Infinity").encode(), "not_json", ""),
]


@pytest.mark.parametrize(
    ("message", "reason", "path"), REFUSALS, ids=[f"{number}-{reason}-{path}" for number, (_, reason, path) in enumerate(REFUSALS)]
)
def test_a_refusal_names_the_field(message: dict[str, Any] | bytes, reason: str, path: str) -> None:
    error = refusal(message)
    assert (error.reason, error.path) == (reason, path)
    assert error.problem
    assert str(error) == f"desk: {reason}: {f'{path}: ' if path else ''}{error.problem}"


def test_the_cases_above_are_refused_for_that_field_alone() -> None:
    """The messages that they were made from are fine."""
    for message in (SNAPSHOT, DELTA, with_position(), with_tiers(tier(0, 0.01), tier(100, 0.02, deduction=1.0))):
        assert parse(message)
    inverse = {"contract": "inverse", "entry_price": 60_000}
    assert parse(with_position(**inverse))
    assert parse(DELTA | {"positions": [{"symbol": "BTC-USD", "size": 0, "contract": "inverse"}]})


def test_a_refused_line_names_the_accounts_that_missed_it() -> None:
    other = SNAPSHOT | {"account": "fund-b"}
    assert refusal(SNAPSHOT | {"sequence": -1}).accounts == ("fund-a",)
    assert refusal(SNAPSHOT | {"account": 5}).accounts == ()
    assert refusal(b"hello").accounts == ()
    lines = [json.dumps(line).encode() for line in (SNAPSHOT, other, {"type": "heartbeat"}, DELTA | {"cash": 1})]
    error = refusal(b"\n".join(lines))
    # All or nothing: the good lines of the frame were not used either.
    assert error.accounts == ("fund-a", "fund-b")
    assert (error.path, error.problem) == ("cash", "is unknown (line 4)")


def test_no_value_of_a_private_feed_is_repeated_in_an_error() -> None:
    for message in (
        SNAPSHOT | {"account": "S3CRET" * 20},
        SNAPSHOT | {"cash_usd": "S3CRET"},
        SNAPSHOT | {"type": "S3CRET"},
        with_position(position_side="S3CRET"),
        with_position(symbol="S3CRET" * 20),
        with_position(size=-91823.5, position_side="long"),
        b'"S3CRET"',
    ):
        text = str(refusal(message))
        assert "S3CRET" not in text
        assert "91823" not in text


def test_names_of_unknown_fields_are_short_and_printable() -> None:
    error = refusal(SNAPSHOT | {"\n\x1b[31m`é " + "y" * 5_000: 1})
    assert error.reason == "wrong_type"
    assert error.excerpt.isascii()
    assert error.excerpt.isprintable()
    assert len(error.excerpt) <= 120


def test_too_large_a_frame_is_refused_unread() -> None:
    error = refusal(b" " * (MAX_PAYLOAD_BYTES + 1))
    assert (error.reason, error.accounts) == ("oversized", ())


def test_deep_nesting_is_refused() -> None:
    assert refusal(b'{"type":"snapshot","positions":' + b"[" * 100_000).reason in {"oversized", "wrong_type"}
    assert refusal(b'{"type":"heartbeat","time_ns":' + b'{"a":' * 100_000).reason in {"oversized", "wrong_type"}


def test_hostile_values_in_any_field_give_an_event_or_a_refusal_and_nothing_else() -> None:
    text = json.dumps(documented("snapshot")[0] | {"e_mode": 1, "pool": "x"}).encode()
    values = [match.span(1) for match in re.finditer(rb': ("[^"]*"|-?[0-9.]+|\[\])', text)]
    assert len(values) > 15
    reasons: list[str] = []
    for start, end in values:
        for value in HOSTILE_VALUES:
            try:
                FEED.parse(frame(text[:start] + value + text[end:]))
            except FeedError as error:
                reasons.append(error.reason)
    assert len(reasons) > 0.6 * len(values) * len(HOSTILE_VALUES)
    assert set(reasons) <= set(FEED_REASONS)


def test_a_line_cut_anywhere_is_refused() -> None:
    text = json.dumps(documented("snapshot")[2]).encode()
    for end in range(len(text)):
        # A number that was cut may be refused as what is left of it.
        assert refusal(text[:end]).reason in {"not_json", "wrong_type", "bad_number"}
