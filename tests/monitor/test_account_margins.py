"""Every figure of a margin account against one that is searched for slowly, in the words of the venues."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.account_margins import MarginFigures, margin_figures
from tests.monitor.desks import COLUMNS, DESK, PRICES, SYMBOLS, Desk, Held, Margin

CALL_LEVEL = 0.5

SIZES = {"BTC-PERP": 30.0, "ETH-PERP": 300.0, "BTC-USD": 2_000_000.0, "WETH": 400.0, "USDC": 500_000.0}


@st.composite
def holdings(draw: st.DrawFn) -> tuple[Held, ...]:
    """Legs of some markets, among them pairs of a long and a short one in a market, and the coin of the inverse contract."""
    held: list[Held] = []
    for symbol in draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=5, unique=True)):
        most = SIZES[symbol]
        size = draw(st.floats(0.0005, 1.0)) * most * draw(st.sampled_from((-1.0, 1.0)))
        entry = PRICES[symbol] * draw(st.floats(0.5, 2.0))
        if symbol not in ("WETH", "USDC") and draw(st.booleans()):
            short = -draw(st.floats(0.0005, 1.0)) * most
            held += [Held(symbol, abs(size), entry, "long"), Held(symbol, short, entry * 1.1, "short")]
        else:
            held.append(Held(symbol, size, entry))
    if draw(st.booleans()):
        held.append(Held("BTC-USD", draw(st.floats(-20.0, 40.0)), is_coin=True))
    return tuple(item for item in held if item.size)


def figures_of(desk: Desk, *names: str) -> MarginFigures:
    table = desk.engine.accounts
    rows = [table.row_of(DESK, name, create=False) for name in names]
    return margin_figures(table.legs, [row for row in rows if row is not None], CALL_LEVEL)


def margin_of(held: tuple[Held, ...], share: float) -> Margin:
    """Give an account as much cash as makes its surplus some share of its maintenance."""
    poor = Margin(0.0, held)
    return Margin(share * max(poor.maintenance(), 0.1 * poor.gross(), 100.0) - poor.surplus(), held)


def same(ours: float, theirs: float | None, scale: float) -> bool:
    return math.isnan(ours) if theirs is None else abs(ours - theirs) <= 1e-7 * scale


@settings(max_examples=150, deadline=None)
@given(accounts=st.lists(st.tuples(holdings(), st.floats(-0.5, 8.0)), min_size=1, max_size=4))
def test_all_figures_equal_a_slow_search(accounts: list[tuple[tuple[Held, ...], float]]) -> None:
    desk = Desk()
    desk.open()
    margins = [margin_of(held, share) for held, share in accounts]
    names = [f"fund-{number}" for number in range(len(margins))]
    for name, margin in zip(names, margins, strict=True):
        desk.account(0, name, margin.cash, *margin.held)
    figures = figures_of(desk, *names)
    for place, margin in enumerate(margins):
        gross = margin.gross()
        assert figures.equity_usd[place] == pytest.approx(margin.equity(), abs=1e-11 * gross)
        assert figures.maintenance_sum_usd[place] == pytest.approx(margin.maintenance(), abs=1e-11 * gross)
        assert figures.surplus_usd[place] == pytest.approx(margin.surplus(), abs=1e-11 * gross)
        assert figures.notional_sum_usd[place] == pytest.approx(margin.notional(), rel=1e-12)
        doubled = margin.equity(1.0) - margin.equity()
        assert figures.exposure_sum_usd[place] == pytest.approx(doubled, abs=1e-11 * gross)
        legs = figures.legs_at(place)
        assert legs.stop - legs.start == len(margin.held)
        assert {SYMBOLS[market] for market in figures.market[legs]} == {item.symbol for item in margin.held}
        if abs(margin.surplus()) < 1e-9 * gross:
            continue  # On the edge, rounding decides.
        _check_prices(figures, place, margin)


def _check_prices(figures: MarginFigures, place: int, margin: Margin) -> None:
    """Compare what is searched for. The closer a slope is to zero, the less a root is worth, and the reference gives up far out."""
    for level, ours in ((0.0, figures.distance_ratio[place]), (CALL_LEVEL, figures.margin_call_ratio[place])):
        theirs = margin.distance(level)
        assert same(ours, theirs, max(1.0, abs(ours))) or _is_far(ours, theirs, 1e5), (level, ours, theirs)
    legs = figures.legs_at(place)
    for index in range(legs.start, legs.stop):
        symbol, size = SYMBOLS[figures.market[index]], figures.size[index]
        present = PRICES[symbol]
        ours, theirs = figures.trigger_price[index], margin.liquidation_price(symbol)
        assert same(ours, theirs, max(present, abs(ours))) or _is_far(ours, theirs, 1e3 * present), (symbol, ours, theirs)
        ours, theirs = figures.bankruptcy_price[index], margin.bankruptcy_price(Held(symbol, float(size)))
        assert same(ours, theirs, max(present, abs(ours))) or _is_far(ours, theirs, 1e8), (symbol, ours, theirs)


def _is_far(ours: float, theirs: float | None, limit: float) -> bool:
    """Tell whether a figure that one side has is beyond what the other side looks at."""
    return any(abs(each) > limit for each in (ours, math.nan if theirs is None else theirs))


def test_a_leg_without_a_known_value_makes_only_its_own_account_unknown() -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "known", -20_000.0, Held("ETH-PERP", 10.0))
    desk.account(0, "entry", -20_000.0, Held("BTC-USD", 50_000.0), Held("ETH-PERP", 10.0))
    desk.account(0, "asset", -20_000.0, Held("ETH-PERP", 10.0), Held("WETH", 1.0))
    desk.rules(1, without=("WETH",))
    figures = figures_of(desk, "known", "entry", "asset")
    assert np.isfinite(figures.surplus_usd).tolist() == [True, False, False]
    assert np.isfinite(figures.distance_ratio).tolist() == [True, False, False]
    assert np.isfinite(figures.equity_usd).tolist() == [True, False, True], "what an asset is worth is known without its haircut"
    legs = figures.legs_at(1)
    assert np.isnan(figures.trigger_price[legs]).all()
    assert np.isnan(figures.bankruptcy_price[legs]).all()
    assert figures.maintenance_usd[legs][figures.market[legs] == COLUMNS["ETH-PERP"]].tolist() == [600.0]


@pytest.mark.parametrize("entry", [0.0, -1.0, None])
def test_an_entry_price_that_cannot_be_is_none(entry: float | None) -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "a", 10_000.0, Held("BTC-USD", 50_000.0, entry))
    figures = figures_of(desk, "a")
    assert np.isnan([figures.equity_usd[0], figures.surplus_usd[0], figures.distance_ratio[0]]).all()


def test_an_account_margined_in_the_coin_moves_with_its_one_price() -> None:
    """The worked example of the documentation: 1.5 BTC, long 100,000 dollars since 60,000, at 62,500."""
    desk = Desk()
    desk.rules(0)
    desk.prices(0, {"BTC-USD": 62_500.0})
    desk.look(0)
    desk.account(0, "miner", 0.0, Held("BTC-USD", 100_000.0, 60_000.0), Held("BTC-USD", 1.5, is_coin=True))
    figures = figures_of(desk, "miner")
    coins = 1.5 + 100_000.0 * (1.0 / 60_000.0 - 1.0 / 62_500.0)
    assert figures.equity_usd[0] == pytest.approx(62_500.0 * coins, rel=1e-12)
    assert figures.notional_sum_usd[0] == 100_000.0, "the coin is no position"
    # In coin: 1.5 + 100,000 (1/60,000 - 1/p) = 0.005 x 100,000 / p.
    price = 1.005 * 100_000.0 / (1.5 + 100_000.0 / 60_000.0)
    assert figures.trigger_price.tolist() == pytest.approx([price, price], rel=1e-12)
    assert figures.distance_ratio[0] == pytest.approx(price / 62_500.0 - 1.0, rel=1e-12)


def test_a_holding_in_a_linear_market_and_a_position_in_an_asset_are_worth_nothing_known() -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "coin", 1_000.0, Held("ETH-PERP", 1.0, is_coin=True))
    desk.account(0, "position", 1_000.0, Held("ETH-PERP", 1.0))
    desk.engine.accounts.legs.add(
        desk.engine.accounts.row_of(DESK, "position", create=False) or 0, desk.engine.markets.by_key[DESK, "USDC"].index, 5.0
    )
    figures = figures_of(desk, "coin", "position")
    for array in (figures.surplus_usd, figures.distance_ratio, figures.trigger_price):
        assert np.isnan(array).all()
    assert figures.equity_usd[0] == 4_000.0, "what it is worth is known, what of it counts is not"
    assert math.isnan(figures.equity_usd[1])


def test_no_rows_are_no_figures() -> None:
    figures = margin_figures(Desk().engine.accounts.legs, [], CALL_LEVEL)
    assert figures.rows == ()
    assert figures.equity_usd.size == figures.size.size == 0
    assert figures.legs_at(0) == slice(0, 0)


def test_an_account_on_which_nothing_hangs_has_no_distance() -> None:
    desk = Desk()
    desk.open()
    desk.account(0, "cash", 1_000.0)
    desk.account(0, "broke", -1_000.0)
    figures = figures_of(desk, "cash", "broke")
    assert figures.equity_usd.tolist() == [1_000.0, -1_000.0]
    assert math.isnan(figures.distance_ratio[0])
    assert math.copysign(1.0, figures.distance_ratio[1]) == 1.0
    assert figures.distance_ratio[1] == 0.0
