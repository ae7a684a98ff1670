"""Lists of accounts at risk and single accounts in full, against a slow reference; and every way of not knowing."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connectors.events import AccountBalances, AccountModeReport, AccountSnapshot, Gap, HoldingReport, PositionReport
from monitor.account_queries import AccountQueries
from monitor.account_report import AccountAtRisk, AccountQuery, AccountReport, AccountsAtRisk, MarginReport
from monitor.engine import Engine
from tests.monitor.desks import DESK, PRICES, SYMBOLS, Desk, Held, Margin
from tests.monitor.world import VENUE, World, ns

EVERYBODY = 10_000


def at_risk(engine: Engine, at_s: float = 1.0, **query: Any) -> AccountsAtRisk:
    return AccountQueries(engine).at_risk(AccountQuery(**{"limit": EVERYBODY, **query}), ns(at_s))


def account(engine: Engine, name: str, at_s: float = 1.0, venue: str = DESK) -> AccountReport:
    report = AccountQueries(engine).account(venue, name, ns(at_s))
    assert report is not None
    return report


def names(listed: AccountsAtRisk) -> list[str]:
    return [item.account for item in listed.accounts]


def margin_name(item: AccountAtRisk) -> str:
    """Tell margin accounts of one account of the crowd apart."""
    return item.account if item.kind == "cross" else f"{item.account}/ETH-PERP"


def close(value: float | None, **tolerance: Any) -> Any:
    """Compare with a figure that may not exist."""
    return None if value is None else pytest.approx(value, **tolerance)


@pytest.fixture(scope="module")
def crowd() -> tuple[Desk, dict[str, Margin]]:
    """Two hundred accounts of every kind, some with isolated positions, some under water."""
    draw = random.Random(5)
    desk, margins = Desk(), {}
    desk.open()
    scale = {"BTC-PERP": 20.0, "ETH-PERP": 300.0, "BTC-USD": 1e6, "WETH": 300.0, "USDC": 8e5}
    for number in range(200):
        name, held = f"fund-{number}", []
        for symbol in draw.sample(SYMBOLS, draw.randint(1, 4)):
            size = draw.uniform(-1.0, 1.0) * scale[symbol]
            held.append(Held(symbol, size, PRICES[symbol] * draw.uniform(0.7, 1.4)))
            if symbol == "BTC-PERP" and draw.random() < 0.3:
                held[-1:] = [Held(symbol, abs(size), 6e4, "long"), Held(symbol, -0.3 * abs(size), 6.1e4, "short")]
            if symbol == "BTC-USD" and draw.random() < 0.5:
                held.append(Held(symbol, draw.uniform(1.0, 10.0), is_coin=True))
        poor = Margin(0.0, tuple(held))
        rich = Margin(draw.uniform(-0.2, 6.0) * max(poor.maintenance(), 0.02 * poor.gross()) - poor.surplus(), poor.held)
        margins[name] = rich
        isolated = []
        if number % 5 == 0 and not any(item.symbol == "ETH-PERP" for item in held):
            item = Held("ETH-PERP", draw.uniform(1.0, 50.0), 2_900.0)
            cash = draw.uniform(-0.99, -0.6) * item.size * PRICES["ETH-PERP"]
            isolated.append((cash, item))
            margins[f"{name}/ETH-PERP"] = Margin(cash, (item,))
        desk.account(0, name, rich.cash, *rich.held, isolated=isolated)
    desk.look(6)
    return desk, margins


# ------------------------------------------------------------------------------------------------------------ who is at risk


def test_everybody_is_looked_at_and_listed_with_numbers_that_the_reference_has(crowd: tuple[Desk, dict[str, Margin]]) -> None:
    desk, margins = crowd
    listed = at_risk(desk.engine, order="notional")
    assert (listed.live, listed.unknown) == (len(margins), 0)
    assert len(listed.accounts) == sum(margin.notional() > 0.0 or bool(margin.held) for margin in margins.values())
    for item in listed.accounts:
        margin = margins[margin_name(item)]
        gross = margin.gross()
        assert item.venue == DESK
        assert item.pool == ""
        assert item.legs == len(margin.held)
        assert item.notional_usd == pytest.approx(margin.notional(), rel=1e-12)
        assert item.equity_usd == pytest.approx(margin.equity(), abs=1e-11 * gross)
        assert item.maintenance_usd == pytest.approx(margin.maintenance(), abs=1e-11 * gross)
        if margin.equity() > 0.0:
            assert item.margin_usage_ratio == pytest.approx(1.0 - margin.surplus() / margin.equity(), rel=1e-9)
        else:
            assert item.margin_usage_ratio is None
        assert item.bad_debt_usd == pytest.approx(max(0.0, -margin.equity(-0.1)), abs=1e-11 * gross)
        assert item.age_s == 1.0
        nearest = min(
            (
                (abs(price / PRICES[held.symbol] - 1.0), held.symbol, price)
                for held in margin.held
                if (price := margin.liquidation_price(held.symbol)) is not None
            ),
            default=None,
        )
        if nearest is None:
            assert (item.symbol, item.liquidation_price, item.leg_distance_ratio) == (None, None, None)
        else:
            assert item.symbol == nearest[1]
            assert item.liquidation_price == pytest.approx(nearest[2], rel=1e-7)
            assert item.leg_distance_ratio == pytest.approx(nearest[2] / PRICES[nearest[1]] - 1.0, abs=1e-7)


@pytest.mark.parametrize("limit", [1, 7, 60, EVERYBODY])
def test_the_nearest_come_first_and_those_under_water_before_them(crowd: tuple[Desk, dict[str, Margin]], limit: int) -> None:
    desk, margins = crowd
    listed = at_risk(desk.engine, order="distance", limit=limit)
    reach = {}
    for name, margin in margins.items():
        distance = margin.distance()
        if margin.surplus() < 0.0:
            reach[name] = (-1.0, margin.surplus())
        elif distance is not None:
            reach[name] = (abs(distance), 0.0)
    expected = sorted(reach, key=lambda name: reach[name])[:limit]
    assert [margin_name(item) for item in listed.accounts] == expected
    assert sum(margin.surplus() < 0.0 for margin in margins.values()) > 3
    for item in listed.accounts:
        margin = margins[margin_name(item)]
        assert item.distance_ratio == close(margin.distance(), abs=1e-7)


@pytest.mark.parametrize("limit", [1, 20, EVERYBODY])
def test_the_largest_come_first(crowd: tuple[Desk, dict[str, Margin]], limit: int) -> None:
    desk, margins = crowd
    listed = at_risk(desk.engine, order="notional", limit=limit)
    sizes = [item.notional_usd for item in listed.accounts]
    assert sizes == pytest.approx(sorted((margin.notional() for margin in margins.values()), reverse=True)[:limit], rel=1e-12)


@pytest.mark.parametrize("move", [-0.9, -0.3, -0.1, 0.0, 0.25, 2.0])
def test_bad_debt_is_what_accounts_owe_if_all_prices_gap(crowd: tuple[Desk, dict[str, Margin]], move: float) -> None:
    desk, margins = crowd
    listed = at_risk(desk.engine, order="bad_debt", move_ratio=move, limit=15)
    debts = {name: -margin.equity(move) for name, margin in margins.items() if margin.equity(move) < 0.0}
    assert listed.move_ratio == move
    assert listed.bad_debt_usd == pytest.approx(sum(debts.values()), rel=1e-9), "the sum is over all, not over those listed"
    worst = sorted(debts.values(), reverse=True)[:15]
    assert [item.bad_debt_usd for item in listed.accounts] == pytest.approx(worst, rel=1e-9)
    assert len(debts) > 15 or move == 0.0


def test_a_market_and_a_venue_narrow_the_list(crowd: tuple[Desk, dict[str, Margin]]) -> None:
    desk, margins = crowd
    for symbol in SYMBOLS:
        holders = {name for name, margin in margins.items() if any(item.symbol == symbol for item in margin.held)}
        for venue in (None, DESK):
            listed = at_risk(desk.engine, order="notional", symbol=symbol, venue=venue)
            found = {margin_name(item) for item in listed.accounts}
            assert found == holders
            assert listed.live == len(holders)
    assert at_risk(desk.engine, venue=DESK).live == len(margins)
    nothing: list[dict[str, Any]] = [
        {"venue": VENUE},
        {"venue": "nowhere"},
        {"symbol": "DOGE"},
        {"symbol": "BTC-PERP", "venue": VENUE},
    ]
    for empty in nothing:
        listed = at_risk(desk.engine, **empty)
        assert (listed.live, listed.unknown, listed.bad_debt_usd, listed.accounts) == (0, 0, 0.0, ())


def test_an_engine_that_knows_nobody_lists_nobody() -> None:
    assert at_risk(Desk().engine) == AccountsAtRisk(0, -0.1, 0, 0, 0.0, ())


def public_world() -> World:
    world = World("BTC", "ETH")
    world.instruments(0)
    world.mark(0, 100.0)
    world.mark(0, 50.0, "ETH")
    return world


def test_accounts_that_are_not_live_are_counted_and_not_listed() -> None:
    world = public_world()
    world.account(0, "0xlive", -500.0, ("BTC", 10.0))
    world.account(0, "0xportfolio", -500.0, ("BTC", 10.0), mode="portfolio")
    world.account(0, "0xflat", 500.0)
    world.account(-700, "0xold", -500.0, ("BTC", 10.0))
    world.engine.apply(
        AccountSnapshot(
            **world.origin(0, "rest"),
            account="0xunasked",
            exchange_ns=ns(0),
            cross_cash_usd=-500.0,
            positions=(PositionReport("BTC", 10.0, None, None, None, None), PositionReport("ETH", 1.0, None, -40.0, None, None)),
        )
    )
    world.engine.freeze(ns(1))
    listed = at_risk(world.engine)
    assert names(listed) == ["0xlive"]
    # The one that was not asked has two margin accounts; the flat one has none.
    assert (listed.live, listed.unknown) == (1, 4)
    assert at_risk(world.engine, symbol="ETH").unknown == 1


def test_a_market_without_a_price_or_rules_takes_its_accounts_off_the_list() -> None:
    world = public_world()
    world.account(0, "0xbtc", -500.0, ("BTC", 10.0))
    world.account(0, "0xboth", -500.0, ("BTC", 10.0), ("ETH", 1.0))
    world.engine.freeze(ns(1))
    assert sorted(names(at_risk(world.engine))) == ["0xboth", "0xbtc"]
    world.mark(12, 100.0)  # ETH has been silent for longer than is allowed.
    world.engine.freeze(ns(12))
    listed = at_risk(world.engine, 12)
    assert (names(listed), listed.unknown) == (["0xbtc"], 1)


def test_what_is_listed_is_of_now_although_the_sums_are_of_the_last_sweep() -> None:
    """A row that was given to somebody else in between must not carry the debt of the one before."""
    world = public_world()
    world.account(0, "0xa", -2_000.0, ("BTC", 10.0))
    world.account(0, "0xb", -990.0, ("ETH", 20.0))
    world.engine.freeze(ns(1))
    queries = AccountQueries(world.engine)
    query = AccountQuery(order="bad_debt")
    before = queries.at_risk(query, ns(1))
    assert [(item.account, item.bad_debt_usd) for item in before.accounts] == [("0xa", 1_100.0), ("0xb", 90.0)]
    world.account(2, "0xa", -950.0, ("BTC", 10.0))
    after = queries.at_risk(query, ns(2))
    assert [(item.account, item.bad_debt_usd) for item in after.accounts] == [("0xb", 90.0), ("0xa", 50.0)]
    assert after.as_of_ns == ns(1)
    world.mark(7, 100.0)
    world.mark(7, 50.0, "ETH")
    world.engine.freeze(ns(7))
    swept = queries.at_risk(query, ns(7))
    assert (swept.as_of_ns, swept.bad_debt_usd) == (ns(7), 140.0)


def test_a_list_costs_no_more_python_for_accounts_that_are_not_on_it() -> None:
    """Lines executed are counted, so that the machine's mood does not matter."""

    def lines_for(accounts: int) -> int:
        desk = Desk()
        desk.open()
        for number in range(accounts):
            desk.account(0, f"fund-{number}", -20_000.0 + number, Held("ETH-PERP", 10.0), Held("BTC-PERP", 0.01))
        desk.look(6)
        queries = AccountQueries(desk.engine)
        count = 0

        def trace(*_: Any) -> Callable[..., Any]:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for order in ("distance", "notional", "bad_debt"):
                queries.at_risk(AccountQuery(order=order, limit=5), ns(6))
        finally:
            sys.settrace(before)
        return count

    assert lines_for(2_000) == lines_for(200)


# ----------------------------------------------------------------------------------------------------------- one account in full


def check_margin(report: MarginReport, margin: Margin) -> None:
    gross = margin.gross()
    assert report.cash_usd == margin.cash
    assert report.equity_usd == pytest.approx(margin.equity(), abs=1e-11 * gross)
    assert report.maintenance_usd == pytest.approx(margin.maintenance(), abs=1e-11 * gross)
    assert report.surplus_usd == pytest.approx(margin.surplus(), abs=1e-11 * gross)
    assert report.margin_usage_ratio == pytest.approx(1.0 - margin.surplus() / margin.equity(), rel=1e-9)
    assert report.distance_ratio == close(margin.distance(), abs=1e-7)
    assert report.margin_call_distance_ratio == close(margin.distance(0.5), abs=1e-7)
    assert len(report.legs) == len(margin.held)
    for item in margin.held:
        [leg] = [leg for leg in report.legs if (leg.symbol, leg.size) == (item.symbol, item.size)]
        price, contract = PRICES[item.symbol], item.leg().contract
        assert (leg.contract, leg.price) == (contract, price)
        assert leg.entry_price == (None if contract == "asset" else item.entry)
        profit = None
        if contract == "linear" and item.entry is not None:
            profit = item.size * (price - item.entry)
        elif contract == "inverse" and item.entry is not None:
            profit = item.size * (1.0 / item.entry - 1.0 / price) * price
        assert leg.unrealized_usd == close(profit, rel=1e-9)
        assert leg.notional_usd == pytest.approx(abs(item.size) * (1.0 if contract == "inverse" else price), rel=1e-12)
        assert leg.liquidation_price == close(margin.liquidation_price(item.symbol), rel=1e-7)
        assert leg.bankruptcy_price == close(margin.bankruptcy_price(item), rel=1e-7)
        ours = leg.liquidation_price
        assert leg.distance_ratio == (None if ours is None else pytest.approx(ours / price - 1.0, abs=1e-12))
        theirs = item.venue_price
        # Kept in single precision.
        assert leg.venue_liquidation_price == close(theirs, rel=1e-7)
        expected = None if theirs is None or ours is None or len(report.legs) > 1 else pytest.approx(ours / theirs - 1.0, abs=1e-6)
        assert leg.disagreement_ratio == expected
    total = sum(leg.maintenance_usd or 0.0 for leg in report.legs)
    assert total == pytest.approx(report.maintenance_usd or 0.0, abs=1e-9)


def test_an_account_in_full_has_the_numbers_of_the_reference() -> None:
    desk = Desk()
    desk.open()
    held = (
        Held("BTC-PERP", 5.0, 61_000.0, "long", venue_price=30_000.0),
        Held("BTC-PERP", -2.0, 59_000.0, "short"),
        Held("ETH-PERP", -40.0, 3_100.0, venue_price=9_000.0),
        Held("BTC-USD", 300_000.0, 58_000.0),
        Held("BTC-USD", 0.5, is_coin=True),
        Held("WETH", 20.0),
        Held("USDC", -10_000.0),
    )
    isolated = Held("ETH-PERP", 10.0, 3_050.0, venue_price=2_600.0)
    desk.account(0, "fund", -120_000.0, *held, isolated=[(-25_000.0, isolated)])
    desk.look(1)
    report = account(desk.engine, "fund", 2.0)
    assert (report.venue, report.account, report.state, report.reasons) == (DESK, "fund", "live", ())
    assert (report.mode, report.sequence, report.age_s, report.as_of_ns) == ("standard", 0, 2.0, ns(2))
    assert not report.simulated
    cross, apart = report.margins
    assert (cross.kind, apart.kind, cross.pool, apart.pool) == ("cross", "isolated", "", "")
    check_margin(cross, Margin(-120_000.0, held))
    check_margin(apart, Margin(-25_000.0, (isolated,)))


def test_accounts_of_a_crowd_in_full_have_the_numbers_of_the_reference(crowd: tuple[Desk, dict[str, Margin]]) -> None:
    desk, margins = crowd
    checked = 0
    for name, margin in margins.items():
        if "/" in name or margin.equity() <= 0.0 or margin.surplus() < 0.0:
            continue
        report = account(desk.engine, name, 6.0)
        assert report.state == "live"
        check_margin(report.margins[0], margin)
        checked += 1
    assert checked > 100


def test_an_account_that_was_never_seen_is_none() -> None:
    desk = Desk()
    assert AccountQueries(desk.engine).account(DESK, "nobody", ns(0)) is None
    assert AccountQueries(desk.engine).account("nowhere", "nobody", ns(0)) is None
    assert desk.engine.accounts.account_count == 0, "asking makes no account"


def test_accounts_of_a_simulation_say_so() -> None:
    desk = Desk(simulated_venues=frozenset({DESK}))
    desk.account(0, "a", 1.0)
    assert account(desk.engine, "a").simulated


def test_accounts_without_equity_have_numbers_and_no_ratios() -> None:
    desk = Desk()
    desk.open()
    for name, cash in (("zero", -30_000.0), ("negative", -31_000.0), ("thin", -29_500.0), ("exact", -29_400.0)):
        desk.account(0, name, cash, Held("ETH-PERP", 10.0))
    desk.account(0, "nothing", 0.0)
    margin = {name: account(desk.engine, name).margins[0] for name in ("zero", "negative", "thin", "exact", "nothing")}
    assert [item.equity_usd for item in margin.values()] == [0.0, -1_000.0, 500.0, 600.0, 0.0]
    assert [item.surplus_usd for item in margin.values()] == pytest.approx([-600.0, -1_600.0, -100.0, 0.0, 0.0], abs=1e-8)
    assert [item.margin_usage_ratio for item in margin.values()] == [None, None, pytest.approx(1.2), pytest.approx(1.0), None]
    assert [item.distance_ratio for item in margin.values()] == [0.0, 0.0, 0.0, close(0.0, abs=1e-12), None]
    # Past its price there is none ahead; exactly on it, it is the present one.
    assert [leg.liquidation_price for item in margin.values() for leg in item.legs] == [None, None, None, pytest.approx(3_000.0)]
    assert [leg.bankruptcy_price for item in margin.values() for leg in item.legs] == [3_000.0, None, 2_950.0, 2_940.0]
    assert at_risk(desk.engine, order="bad_debt", move_ratio=0.0).bad_debt_usd == 1_000.0
    assert {account(desk.engine, name).state for name in margin} == {"live"}


def test_a_price_that_is_missing_is_told_with_the_reason() -> None:
    desk = Desk()
    desk.rules(0)
    desk.prices(0, {"ETH-PERP": 3_000.0})
    desk.look(0)
    desk.account(0, "a", -10_000.0, Held("ETH-PERP", 10.0, 2_900.0), Held("BTC-PERP", 1.0, 60_000.0), Held("USDC", 5.0))
    report = account(desk.engine, "a")
    assert report.state == "stale"
    assert report.reasons == ("BTC-PERP has no live price", "USDC has no live price")
    [margin] = report.margins
    assert margin.cash_usd == -10_000.0
    assert (margin.equity_usd, margin.surplus_usd, margin.distance_ratio, margin.margin_usage_ratio) == (None,) * 4
    known = {leg.symbol: leg for leg in margin.legs}
    assert known["ETH-PERP"].unrealized_usd == 1_000.0
    assert (known["BTC-PERP"].price, known["BTC-PERP"].notional_usd, known["BTC-PERP"].unrealized_usd) == (None, None, None)
    assert {leg.liquidation_price for leg in margin.legs} == {leg.bankruptcy_price for leg in margin.legs} == {None}
    assert at_risk(desk.engine).accounts == ()


def test_rules_and_entry_prices_that_are_missing_are_told_with_the_reason() -> None:
    desk = Desk()
    desk.rules(0, without=("BTC-PERP", "WETH"))
    desk.prices(0, PRICES)
    desk.look(0)
    desk.account(0, "rules", -10_000.0, Held("BTC-PERP", 1.0, 50_000.0))
    desk.account(0, "haircut", -10_000.0, Held("WETH", 10.0))
    desk.account(0, "entry", -10_000.0, Held("BTC-USD", 1_000.0))
    desk.account(0, "zero", -10_000.0, Held("BTC-USD", 1_000.0, 0.0))
    desk.account(0, "debt", 10_000.0, Held("WETH", -1.0))
    for name, symbol in (("rules", "BTC-PERP"), ("haircut", "WETH"), ("entry", "BTC-USD"), ("zero", "BTC-USD")):
        report = account(desk.engine, name)
        assert (report.state, report.reasons) == (
            "stale",
            (f"the margin rules or the entry price of {symbol} are not known",),
        )
        assert report.margins[0].surplus_usd is None
    # A debt counts in full, whatever its asset is worth as collateral.
    assert account(desk.engine, "debt").state == "live"
    assert names(at_risk(desk.engine)) == ["debt"]
    [leg] = account(desk.engine, "rules").margins[0].legs
    assert (leg.notional_usd, leg.unrealized_usd, leg.maintenance_usd) == (60_000.0, 10_000.0, None)


def test_a_price_of_the_venue_that_is_none_is_no_price() -> None:
    desk = Desk()
    desk.open()
    for name, price in (("zero", 0.0), ("negative", -5.0)):
        desk.account(0, name, -20_000.0, Held("ETH-PERP", 10.0, 3_000.0, venue_price=price))
        [leg] = account(desk.engine, name).margins[0].legs
        assert (leg.venue_liquidation_price, leg.disagreement_ratio) == (None, None)
        assert leg.liquidation_price == pytest.approx(2_000.0 / 0.98)


# ------------------------------------------------------------------------------------------------------------ why it is not live


def public_reasons() -> Iterator[tuple[str, Callable[[World], None], str, tuple[str, ...]]]:
    def polled(world: World) -> None:
        world.account(0, "0xa", -500.0, ("BTC", 10.0))

    def seen(world: World) -> None:
        world.trade(0, 100.0, 1.0, "0xa", "0xb")

    yield (
        "on the tape only",
        seen,
        "unknown",
        ("the venue has not reported it yet", "where it keeps its collateral has not been asked yet"),
    )

    def mode_first(world: World) -> None:
        world.engine.apply(AccountModeReport(**world.origin(0, "rest"), account="0xa", mode="standard"))

    yield "mode before state", mode_first, "unknown", ("the venue has not reported it yet",)

    def unasked(world: World) -> None:
        state = AccountSnapshot(
            **world.origin(0, "rest"),
            account="0xa",
            exchange_ns=ns(0),
            cross_cash_usd=-500.0,
            positions=(PositionReport("BTC", 10.0, 90.0, None, 51.0, None),),
        )
        world.engine.apply(state)

    yield "mode not asked", unasked, "unknown", ("where it keeps its collateral has not been asked yet",)

    def portfolio(world: World) -> None:
        unasked(world)
        world.engine.apply(AccountModeReport(**world.origin(0, "rest"), account="0xa", mode="portfolio"))

    yield "portfolio", portfolio, "unknown", ("it keeps its collateral where its positions do not tell",)

    def unified(world: World) -> None:
        world.engine.apply(AccountModeReport(**world.origin(0, "rest"), account="0xa", mode="unified"))
        unasked(world)

    yield "unified without balance", unified, "unknown", ("the balance behind its positions is not known yet",)

    def gap(world: World) -> None:
        polled(world)
        world.trade(0.5, 100.0, 1.0, "0xc", "0xd")
        world.engine.apply(Gap(**world.origin(0.8), reason="disconnected"))
        world.mark(0.9, 100.0)
        world.mark(0.9, 50.0, "ETH")

    yield "gap", gap, "stale", ("something happened since the last report that does not explain itself",)

    def new_market(world: World) -> None:
        polled(world)
        world.trade(0.5, 50.0, 1.0, "0xa", "0xb", symbol="ETH")

    yield "unexplained fill", new_market, "stale", ("something happened since the last report that does not explain itself",)

    def old(world: World) -> None:
        world.account(-700, "0xa", -500.0, ("BTC", 10.0))

    yield "old", old, "stale", ("the last report is older than 600 s",)
    yield "live", polled, "live", ()


@pytest.mark.parametrize("case", list(public_reasons()), ids=lambda case: case[0])
def test_every_reason_for_not_being_live_is_said(case: tuple[str, Callable[[World], None], str, tuple[str, ...]]) -> None:
    _, happen, state, reasons = case
    world = public_world()
    happen(world)
    world.engine.freeze(ns(1))
    report = account(world.engine, "0xa", venue=VENUE)
    assert (report.state, report.reasons) == (state, reasons)
    assert (at_risk(world.engine).live == 1) == (state == "live")
    # Unknown means that there are no numbers: what the venue calls the value of such an account means nothing.
    for margin in report.margins:
        shown = (margin.cash_usd, margin.equity_usd, margin.surplus_usd, margin.distance_ratio, margin.margin_call_distance_ratio)
        assert (shown == (None,) * 5) == (state == "unknown")
        for leg in margin.legs:
            assert leg.notional_usd == 1_000.0, "what a position is by itself is known"
            assert (leg.liquidation_price is None) == (leg.bankruptcy_price is None) == (state == "unknown")
            assert leg.disagreement_ratio is None


def test_several_reasons_are_all_said() -> None:
    world = public_world()
    world.account(-700, "0xa", -500.0, ("BTC", 10.0), ("DOGE", 5.0))
    world.trade(0.5, 50.0, 1.0, "0xa", "0xb", symbol="ETH")
    world.engine.freeze(ns(1))
    assert account(world.engine, "0xa", venue=VENUE).reasons == (
        "something happened since the last report that does not explain itself",
        "the last report is older than 600 s",
        "DOGE has no live price",
    )


def test_a_unified_account_is_reckoned_from_its_balance() -> None:
    world = public_world()
    world.engine.apply(AccountModeReport(**world.origin(0, "rest"), account="0xa", mode="unified"))
    position = PositionReport("BTC", 10.0, 90.0, None, None, None, mark_price=100.0)
    state = AccountSnapshot(
        **world.origin(0, "rest"), account="0xa", exchange_ns=ns(0), cross_cash_usd=-990.0, positions=(position,)
    )
    world.engine.apply(state)
    balances = (HoldingReport("USDC", 700.0), HoldingReport("HYPE", 5.0))
    world.engine.apply(AccountBalances(**world.origin(0.1, "rest"), account="0xa", balances=balances))
    world.mark(1, 101.0)
    world.engine.freeze(ns(1))
    report = account(world.engine, "0xa", venue=VENUE)
    assert (report.state, report.mode) == ("live", "unified")
    [margin] = report.margins
    # The balance of 700 was all its worth at the marks of the state; the price has risen by 1 since.
    assert margin.equity_usd == pytest.approx(710.0)
    assert margin.surplus_usd == pytest.approx(710.0 - 10.1)
    [item] = at_risk(world.engine).accounts
    assert item.account == "0xa"
    assert item.equity_usd == pytest.approx(710.0)


def test_an_account_of_a_feed_does_not_grow_old_but_a_missed_message_makes_it_stale() -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "a", -20_000.0, Held("ETH-PERP", 10.0))
    desk.account(0, "b", -20_000.0, Held("ETH-PERP", 10.0))
    desk.prices(990, PRICES)
    desk.look(990)
    report = account(desk.engine, "a", 990)
    assert (report.state, report.age_s, report.sequence) == ("live", 990.0, 0), "no message was missed, so nothing has changed"
    assert at_risk(desk.engine, 990).live == 2
    desk.delta(991, "a", 1, Held("ETH-PERP", 11.0), cash=-23_000.0)
    report = account(desk.engine, "a", 992)
    assert (report.state, report.age_s, report.sequence) == ("live", 1.0, 1)
    desk.delta(993, "a", 3, Held("ETH-PERP", 12.0))
    report = account(desk.engine, "a", 993)
    assert (report.state, report.reasons) == ("stale", ("messages of its feed were missed, and no snapshot has come since",))
    assert report.margins[0].legs[0].size == 11.0, "as it was when it was known last"
    assert names(at_risk(desk.engine, 993)) == ["b"]
    desk.lose(994)
    assert {account(desk.engine, name, 994).state for name in ("a", "b")} == {"stale"}
    desk.sequences["a"] = 8
    desk.account(995, "a", -26_000.0, Held("ETH-PERP", 12.0))
    assert (account(desk.engine, "a", 995).state, account(desk.engine, "b", 995).state) == ("live", "stale")


def test_an_account_that_is_told_in_pools_is_live_without_a_main_one() -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "a", -20_000.0, Held("ETH-PERP", 10.0), pool="prime")
    desk.account(0, "a", 500.0, Held("BTC-PERP", 0.01), pool="second")
    desk.look(1)
    report = account(desk.engine, "a")
    assert (report.state, report.reasons, report.age_s) == ("live", (), 1.0)
    assert sorted((margin.pool, margin.cash_usd) for margin in report.margins) == [("prime", -20_000.0), ("second", 500.0)]
    assert sorted(item.pool for item in at_risk(desk.engine).accounts) == ["prime"]
    assert at_risk(desk.engine, order="notional").live == 2


def test_disagreements_are_those_of_the_engine() -> None:
    world = public_world()
    mode = AccountModeReport(**world.origin(0, "rest"), account="0xa", mode="standard")
    world.engine.apply(mode)
    position = PositionReport("BTC", 10.0, 90.0, None, 60.0, None, mark_price=100.0)
    world.engine.apply(
        AccountSnapshot(
            **world.origin(0, "rest"),
            account="0xa",
            exchange_ns=ns(0),
            cross_cash_usd=-500.0,
            positions=(position,),
            account_value_usd=400.0,
        )
    )
    worst = AccountQueries(world.engine).disagreements(ns(1), 10)
    assert [(item.figure, item.ours, item.theirs, item.difference_ratio) for item in worst.worst] == [
        ("account_value", 500.0, 400.0, 0.25),
        ("liquidation_price", pytest.approx(500.0 / 9.9), 60.0, pytest.approx(500.0 / 9.9 / 60.0 - 1.0)),
    ]
    assert len(AccountQueries(world.engine).disagreements(ns(1), 1).worst) == 1
