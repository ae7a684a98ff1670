"""Our figures beside the venue's: equal on what a venue really printed, and a wrong rule shows, with its sign and size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from connectors.events import AccountSnapshot, HoldingReport, MarginTier, PositionReport
from connectors.frames import REST_CONNECTION, Frame, wrap_rest_response
from connectors.hyperliquid import Hyperliquid
from connectors.venue import AccountQuestion
from monitor.disagreement import BOUNDS_RATIO, RATIO_MAX, WORST_MAX, DisagreementBook
from monitor.margin import TierTable, build_tier_table
from monitor.projection import DisagreementCounts

FLAT = (MarginTier(0.0, 0.0125, 0.0),)
TIERS = build_tier_table([FLAT, (MarginTier(0.0, 0.02, 0.0), MarginTier(1_000.0, 0.05, 30.0))])
BUCKETS = len(BOUNDS_RATIO) + 1


def position(symbol: str, size: float, mark: float | None, **more: Any) -> PositionReport:
    fields: dict[str, Any] = {"entry_price": None, "isolated_cash_usd": None, "liquidation_price": None, "leverage": None, **more}
    return PositionReport(symbol, size, mark_price=mark, **fields)


def report(cash: float, *positions: PositionReport, account: str = "0xa", **more: Any) -> AccountSnapshot:
    return AccountSnapshot(
        venue="hyperliquid",
        connection="rest",
        received_ns=7,
        account=account,
        exchange_ns=5,
        cross_cash_usd=cash,
        positions=positions,
        **more,
    )


def compared(event: AccountSnapshot, markets: list[int], tiers: TierTable = TIERS) -> DisagreementBook:
    book = DisagreementBook()
    book.compare(event, markets, tiers)
    return book


def counts(book: DisagreementBook) -> dict[str, list[int]]:
    return {item.figure: list(item.counts) for item in book.counts("hyperliquid")}


def only(bucket: int, count: int = 1) -> list[int]:
    return [count if place == bucket else 0 for place in range(BUCKETS)]


# ------------------------------------------------------------------------------------------------------------ a real account


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[AccountSnapshot, list[int], TierTable]:
    """A whale of Hyperliquid as the venue printed it.

    Most of its positions were cut off the capture. They come back as one long and one short with which the venue's own totals add
    up. All were opened under tables of 50x, by which the venue's maintenance is exactly 1 % of the notional.
    """
    state = orjson.loads((shared_data / "data" / "hl_api_fixtures" / "index_yassi80" / "clearinghouseState.json").read_bytes())
    told = [item["position"] for item in state["assetPositions"]]
    values = {one["coin"]: math.copysign(float(one["positionValue"]), float(one["szi"])) for one in told}
    totals = {name: float(state["marginSummary"][name]) for name in ("accountValue", "totalNtlPos", "totalRawUsd")}
    gross = totals["totalNtlPos"] - sum(map(abs, values.values()))
    net = totals["accountValue"] - totals["totalRawUsd"] - sum(values.values())
    for coin, value in (("LONGS", (gross + net) / 2.0), ("SHORTS", (net - gross) / 2.0)):
        rest = told[0] | {"coin": coin, "szi": repr(value), "positionValue": repr(abs(value)), "liquidationPx": None}
        state["assetPositions"].append({"type": "oneWay", "position": rest})
    venue = Hyperliquid()
    [request] = venue.account_requests(AccountQuestion("0x" + "a" * 40, ("",)))
    [event] = venue.parse(Frame("hyperliquid", REST_CONNECTION, 1, wrap_rest_response(request, orjson.dumps(state))))
    assert isinstance(event, AccountSnapshot)
    assert event.mode is None
    assert {one["maxLeverage"] for one in told} == {50}
    assert all(one.mark_price == pytest.approx(abs(values.get(one.symbol, one.size) / one.size)) for one in event.positions)
    return event, list(range(8)), build_tier_table([(MarginTier(0.0, 0.01, 0.0),)] * 8)


Real = tuple[AccountSnapshot, list[int], TierTable]


def test_a_real_account_is_reproduced_to_the_digits_that_the_venue_prints(real: Real) -> None:
    event, markets, tiers = real
    book = compared(event, markets, tiers)
    found = counts(book)
    priced = sum(one.liquidation_price is not None for one in event.positions)
    assert priced == 2
    assert found.keys() == {"account_value", "liquidation_price", "maintenance_margin"}
    assert sum(found["liquidation_price"]) == priced
    # The first two buckets are rounding of what is printed: six decimals of a dollar.
    assert all(sum(buckets[2:]) == 0 for buckets in found.values()), found
    assert book.worst(9, 10).worst == ()


def test_a_wrong_margin_table_shows_as_what_it_is(real: Real) -> None:
    """With a maintenance rate a fifth too high all maintenance is a fifth too high, and longs are liquidated too early."""
    event, markets, tiers = real
    wrong = tiers._replace(rate=tiers.rate * 1.2, deduction_usd=tiers.deduction_usd * 1.2)
    book = compared(event, markets, wrong)
    worst = book.worst(9, 100).worst
    by_figure = {one.figure: one for one in worst if one.figure != "liquidation_price"}
    assert by_figure.keys() == {"maintenance_margin"}
    assert by_figure["maintenance_margin"].difference_ratio == pytest.approx(0.2, rel=1e-6)
    assert by_figure["maintenance_margin"].ours == pytest.approx(1.2 * (event.maintenance_margin_usd or math.nan))
    liquidations = {one.symbol: one for one in worst if one.figure == "liquidation_price"}
    assert liquidations
    sizes = {one.symbol: one.size for one in event.positions}
    for symbol, one in liquidations.items():
        assert symbol is not None
        assert (one.difference_ratio > 0.0) == (sizes[symbol] > 0.0), "a long dies higher, a short lower"
    assert counts(book)["maintenance_margin"] == only(BUCKETS - 1)


# ------------------------------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize(
    ("theirs", "ratio", "bucket"),
    [
        (200.0, 0.0, 0),
        (200.0 / (1.0 + 5e-7), 5e-7, 1),
        (200.0 / 1.0005, 5e-4, 4),
        (200.0 / 1.05, 0.05, 6),
        (100.0, 1.0, 7),
        (400.0, -0.5, 7),
        (0.5, 199.5, 7),
        (0.0, 200.0, 7),
        (-200.0, 2.0, 7),
    ],
)
def test_differences_are_counted_by_size_and_remembered_with_their_sign(theirs: float, ratio: float, bucket: int) -> None:
    book = compared(report(100.0, position("BTC", 1.0, 100.0), account_value_usd=theirs), [0])
    assert counts(book) == {"account_value": only(bucket)}
    [histogram] = book.counts("hyperliquid")
    assert histogram == DisagreementCounts("account_value", BOUNDS_RATIO, tuple(only(bucket)), histogram.sum_ratio)
    assert histogram.sum_ratio == pytest.approx(abs(ratio), abs=1e-12)
    worst = book.worst(9, 10).worst
    if bucket < 2:
        assert worst == ()
        return
    [one] = worst
    assert (one.venue, one.account, one.figure, one.symbol) == ("hyperliquid", "0xa", "account_value", None)
    assert (one.ours, one.theirs, one.compared_ns) == (200.0, theirs, 7)
    assert one.difference_ratio == pytest.approx(ratio)


def test_values_around_zero_are_compared_in_dollars() -> None:
    book = compared(report(-99.9999999, position("BTC", 1.0, 100.0), account_value_usd=0.0), [0])
    assert counts(book) == {"account_value": only(1)}


def test_every_position_is_compared_in_the_account_it_belongs_to() -> None:
    """Cross: -80 + p = 0.0125 p. Isolated: the short has 70 of its own, 70 - p = 0.02 p; twenty of them are in the second tier."""
    cross = position("BTC", 1.0, 100.0, liquidation_price=80.0 / 0.9875)
    isolated = position("ETH", -1.0, 50.0, isolated_cash_usd=70.0, liquidation_price=70.0 / 1.02)
    tiered = position("ETH", -30.0, 50.0, isolated_cash_usd=2_000.0, liquidation_price=2_030.0 / (30.0 * 1.05))
    event = report(-80.0, cross, isolated, tiered, account_value_usd=20.0, maintenance_margin_usd=1.25)
    assert counts(compared(event, [0, 1, 1])) == {
        "account_value": only(0),
        "liquidation_price": only(0, 3),
        "maintenance_margin": only(0),
    }


def test_a_hedge_and_an_inverse_position_are_compared_as_what_they_are() -> None:
    tiers = build_tier_table([FLAT, (MarginTier(0.0, 0.01, 0.0),)], ["linear", "inverse"])
    long, short = position("BTC", 3.0, 100.0, position_side="long"), position("BTC", -1.0, 100.0, position_side="short")
    # -100 + 2 p - 0.05 p, so both sides of the hedge are liquidated at one price.
    dies = 100.0 / 1.95
    hedge = report(
        -100.0,
        msgspec.structs.replace(long, liquidation_price=dies),
        msgspec.structs.replace(short, liquidation_price=dies),
        account_value_usd=100.0,
        maintenance_margin_usd=5.0,
    )
    assert all(buckets[0] == sum(buckets) for buckets in counts(compared(hedge, [0, 0], tiers)).values())
    # 500 USD long from 80: 500 (p / 80 - 1), maintenance 1 % of 500 USD.
    inverse = report(
        50.0,
        position("BTCUSD", 500.0, 100.0, entry_price=80.0, liquidation_price=(505.0 - 50.0) / 6.25),
        account_value_usd=175.0,
        maintenance_margin_usd=5.0,
    )
    assert all(buckets[0] == sum(buckets) for buckets in counts(compared(inverse, [1], tiers)).values())


def test_no_price_of_ours_where_the_venue_has_one_is_a_whole_difference() -> None:
    event = report(100.0, position("BTC", 1.0, 100.0, liquidation_price=40.0))
    book = compared(event, [0])
    assert counts(book) == {"liquidation_price": only(BUCKETS - 1)}
    assert [one.difference_ratio for one in book.worst(9, 1).worst] == [-1.0]


@pytest.mark.parametrize(
    ("event", "markets"),
    [
        (report(100.0, position("BTC", 1.0, None), account_value_usd=5.0), [0]),
        (report(100.0, position("BTC", 1.0, 100.0), account_value_usd=5.0, holdings=(HoldingReport("WETH", 1.0),)), [0]),
        (report(100.0, position("BTC", 1.0, 100.0)), [0]),
        (report(-200.0, position("BTC", 1.0, 100.0, liquidation_price=90.0)), [0]),
        (report(100.0, position("NEW", 1.0, 100.0, liquidation_price=90.0), maintenance_margin_usd=5.0), [2]),
        (report(100.0, position("WETH", 1.0, 100.0, liquidation_price=90.0), maintenance_margin_usd=5.0), [3]),
        (report(100.0, position("BTCUSD", 1.0, 100.0, liquidation_price=90.0), account_value_usd=5.0), [4]),
        (report(-50.0, position("BTC", 1.0, 100.0, liquidation_price=0.0)), [0]),
        (report(-50.0, position("BTC", 1.0, 100.0, liquidation_price=-3.0)), [0]),
        (report(-50.0, position("BTC", 1.0, 100.0), account_value_usd=math.nan), [0]),
    ],
    ids=[
        "no mark",
        "holdings",
        "nothing printed",
        "under water",
        "no margin table",
        "an asset",
        "inverse without entry",
        "price of zero",
        "negative price",
        "not a number",
    ],
)
def test_what_cannot_be_compared_is_not(event: AccountSnapshot, markets: list[int]) -> None:
    tiers = build_tier_table([FLAT, FLAT, (), (), FLAT], ["linear", "linear", "linear", "asset", "inverse"])
    book = compared(event, markets, tiers)
    assert counts(book) == {}
    assert book.worst(9, 10).worst == ()


def test_an_account_without_positions_and_positions_of_size_zero_are_compared_by_their_cash() -> None:
    assert counts(compared(report(5.0, account_value_usd=5.0, maintenance_margin_usd=0.0), [])) == {
        "account_value": only(0),
        "maintenance_margin": only(0),
    }
    assert counts(compared(report(5.0, position("BTC", 0.0, None), account_value_usd=5.0), [0])) == {"account_value": only(0)}


def test_an_absurd_figure_counts_but_does_not_swallow_the_sum() -> None:
    event = report(1e17, account_value_usd=0.0)
    book = compared(event, [])
    [one] = book.worst(9, 1).worst
    assert one.difference_ratio == RATIO_MAX
    assert book.counts("hyperliquid")[0].sum_ratio == RATIO_MAX
    assert b"null" not in msgspec.json.encode(one.difference_ratio)


# ------------------------------------------------------------------------------------------------------------------- memory


def test_the_worst_are_those_of_the_last_report_of_each_account() -> None:
    book = DisagreementBook()
    wrong = position("BTC", 1.0, 100.0, liquidation_price=70.0)
    book.compare(report(-80.0, wrong, account_value_usd=99.0), [0], TIERS)
    assert {one.figure for one in book.worst(9, 10).worst} == {"account_value", "liquidation_price"}
    book.compare(report(-80.0, wrong, account_value_usd=20.0), [0], TIERS)
    assert [one.figure for one in book.worst(9, 10).worst] == ["liquidation_price"]
    book.compare(report(5.0, account_value_usd=5.0), [], TIERS)
    assert book.worst(9, 10).worst == (), "the position is closed, and with it what was wrong about it"
    assert sum(counts(book)["liquidation_price"]) == 2


def test_the_pools_of_an_account_are_reports_of_their_own() -> None:
    book = DisagreementBook()
    book.compare(report(5.0, account_value_usd=10.0), [], TIERS)
    book.compare(report(5.0, account_value_usd=5.0, pool="xyz"), [], TIERS)
    assert [one.theirs for one in book.worst(9, 10).worst] == [10.0]


def test_venues_and_accounts_are_kept_apart_and_the_largest_come_first() -> None:
    book = DisagreementBook()
    book.compare(report(5.0, account_value_usd=10.0), [], TIERS)
    book.compare(report(5.0, account_value_usd=500.0, account="0xb"), [], TIERS)
    book.compare(msgspec.structs.replace(report(5.0, account_value_usd=20.0), venue="binance"), [], TIERS)
    ranked = [(one.venue, one.account) for one in book.worst(9, 10).worst]
    assert ranked == [("hyperliquid", "0xb"), ("binance", "0xa"), ("hyperliquid", "0xa")]
    assert [one.account for one in book.worst(9, 1).worst] == ["0xb"]
    assert sum(counts(book)["account_value"]) == 2
    assert book.counts("nowhere") == ()


def test_no_more_than_a_bound_is_remembered_and_the_largest_are() -> None:
    book = DisagreementBook()
    total = 3 * WORST_MAX
    for number in range(total):
        book.compare(report(1e6, account_value_usd=1e6 / (2.0 + number), account=f"0x{number}"), [], TIERS)
        assert sum(map(len, book._worst.values())) <= WORST_MAX * 1.1
    worst = book.worst(9, total).worst
    assert WORST_MAX <= len(worst) <= WORST_MAX * 1.1
    assert {one.account for one in worst[:WORST_MAX]} == {f"0x{number}" for number in range(total - WORST_MAX, total)}
    assert sum(counts(book)["account_value"]) == total, "counted are all"
