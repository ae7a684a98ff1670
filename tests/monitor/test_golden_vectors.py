"""The golden vectors of venues.md section 9 and the model vectors C, I and Q, through the code that the daemon runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.events import AccountSnapshot, MarginTier
from connectors.frames import RestRequest
from connectors.hyperliquid import Hyperliquid
from connectors.okx_sequence import judge
from monitor.contracts import ColumnLegs, bankruptcy_prices, column_values, solve_column
from monitor.lending import (
    bad_debt_after_calls,
    bad_debt_if_halted,
    eligible_drop,
    exhaustion_drop,
    health_factor,
    is_toxic,
    morpho_incentive,
    repayment_for,
    simulate_calls,
)
from monitor.margin import ASSET, INVERSE, LINEAR, Array, build_tier_table, leg_value, solve_tiered_trigger
from monitor.partial_close import (
    closing_fee_usd,
    lending_exponent,
    lending_share_kept,
    perpetual_share_kept,
    shortfall_usd,
    slice_to_restore,
)
from monitor.venue_formulas import (
    IsolatedPosition,
    binance_liquidation_price,
    bybit_isolated_inverse,
    bybit_isolated_inverse_old,
    bybit_isolated_linear,
)
from tests.connectors.payloads import all_payloads, parse_rest

FIRST = np.zeros(1, dtype=np.int32)


def array(*values: float) -> Array:
    return np.array(values, dtype=float)


def linear(size: float) -> ColumnLegs:
    return ColumnLegs(FIRST, np.array([LINEAR], np.int8), array(size), array(math.nan), array(math.nan), FIRST)


def triggers(size: float, cash: float, price: float, *tiers: MarginTier) -> tuple[float, float]:
    """Solve a single linear leg both ways, the long one and the short cut, and return (fall, rise)."""
    table = build_tier_table([tiers])
    found = solve_column(linear(size), array(cash), array(price), table)
    fall, rise = float(found.fall[0]), float(found.rise[0])
    short_cut = float(solve_tiered_trigger(array(size), FIRST, array(cash), table)[0])
    assert short_cut == pytest.approx(fall if size > 0.0 else rise, rel=1e-13)
    return fall, rise


# ------------------------------------------------------------------------------------------------- 1-4 Binance

BINANCE = {
    # number and name: wallet, other maintenance, other profit, cum, size, entry, rate, expected
    "1 binance cross, 3,683.979 at 1,456.84": (
        1_535_443.01,
        71_200.81144,
        -56_354.57,
        135_365.0,
        3_683.979,
        1_456.84,
        0.1,
        1_153.26,
    ),
    "2 binance cross, 109.488 at 32,481.98": (
        1_535_443.01,
        356_512.508,
        -448_192.89,
        16_300.0,
        109.488,
        32_481.98,
        0.025,
        26_316.89,
    ),
    "3 binance isolated, 3,683.979 at 1,456.84": (1_535_443.01, 0.0, 0.0, 135_365.0, 3_683.979, 1_456.84, 0.1, 1_114.78),
    "4 binance isolated, 109.488 at 32,481.98": (1_535_443.01, 0.0, 0.0, 16_300.0, 109.488, 32_481.98, 0.025, 18_778.73),
}


@pytest.mark.parametrize("name", BINANCE)
def test_golden_vectors_1_to_4(name: str) -> None:
    wallet, maintenance, profit, cum, size, entry, rate, expected = BINANCE[name]
    printed = binance_liquidation_price(
        wallet_usd=wallet,
        size=size,
        entry_price=entry,
        rate=rate,
        deduction_usd=cum,
        other_maintenance_usd=maintenance,
        other_profit_usd=profit,
    )
    assert float(printed) == pytest.approx(expected, abs=0.005)
    fall, rise = triggers(size, wallet - maintenance + profit - size * entry, entry, MarginTier(0.0, rate, cum))
    assert fall == pytest.approx(float(printed), rel=1e-12)
    assert math.isnan(rise)


def test_golden_vector_1_to_all_digits() -> None:
    wallet, maintenance, profit, cum, size, entry, rate, _ = BINANCE["1 binance cross, 3,683.979 at 1,456.84"]
    fall, _ = triggers(size, wallet - maintenance + profit - size * entry, entry, MarginTier(0.0, rate, cum))
    assert fall == pytest.approx(1153.256465, abs=5e-7)


# ------------------------------------------------------------------------------------------------- 5-9 Hyperliquid


def hyperliquid_sample() -> AccountSnapshot:
    """The documentation's account, as the connector reads it."""
    request = RestRequest(method="POST", path="/info", body=json.dumps({"type": "clearinghouseState", "user": "0x" + "ab" * 20}))
    events = parse_rest(Hyperliquid(), request, all_payloads("hyperliquid")["clearinghouse_state"])
    (snapshot,) = (event for event in events if isinstance(event, AccountSnapshot))
    return snapshot


ETH_MARK = 100.02765 / 0.0335
FIFTY_TIMES = MarginTier(0.0, 1.0 / (2.0 * 50.0), 0.0)


def test_golden_vector_5_hyperliquid_isolated_sample() -> None:
    (position,) = hyperliquid_sample().positions
    assert position.isolated_cash_usd == -95.059824
    values = column_values(linear(position.size), array(ETH_MARK), build_tier_table([[FIFTY_TIMES]]))
    assert position.isolated_cash_usd + values.equity_usd[0] == pytest.approx(4.967826, abs=5e-7)
    fall, rise = triggers(position.size, position.isolated_cash_usd, ETH_MARK, FIFTY_TIMES)
    assert fall == pytest.approx(2866.26938, abs=5e-6)
    assert math.isnan(rise)
    # The venue works with more digits of rawUsd than it prints.
    assert fall == pytest.approx(position.liquidation_price, rel=1e-8)


def test_golden_vector_6_hyperliquid_identities() -> None:
    snapshot = hyperliquid_sample()
    (position,) = snapshot.positions
    assert position.isolated_cash_usd is not None
    assert position.entry_price is not None
    assert position.leverage == 20.0
    values = column_values(linear(position.size), array(ETH_MARK), build_tier_table([[FIFTY_TIMES]]))
    isolated_equity = position.isolated_cash_usd + float(values.equity_usd[0])
    assert snapshot.cross_cash_usd + isolated_equity == pytest.approx(13_109.482328, abs=5e-7)
    assert snapshot.cross_cash_usd + position.isolated_cash_usd == pytest.approx(13_009.454678, abs=5e-7)
    margin_at_entry = position.size * position.entry_price / position.leverage
    # The profit is printed with four digits, -0.0134.
    profit = float(values.equity_usd[0]) - position.size * position.entry_price
    assert round(profit, 4) == -0.0134
    assert round(profit, 4) / margin_at_entry == pytest.approx(-0.0026789, abs=5e-8)


def test_golden_vector_7_hyperliquid_tiered_maintenance() -> None:
    table = build_tier_table([(MarginTier(0.0, 0.0125, 0.0), MarginTier(150e6, 0.025, 1_875_000.0))])
    size, price = array(2_000.0, 1_500.0, 1_500.0), array(100_000.0, 100_000.0, float(np.nextafter(100_000.0, 0.0)))
    legs = ColumnLegs(np.arange(3), np.full(3, LINEAR, np.int8), size, np.full(3, math.nan), np.full(3, math.nan), np.zeros(3, int))
    for maintenance in (leg_value(size, price, np.zeros(3, np.int32), table)[1], column_values(legs, price, table).maintenance_usd):
        assert maintenance[:2].tolist() == [3_125_000.0, 1_875_000.0]
        assert maintenance[2] == pytest.approx(1_875_000.0, rel=1e-12)


def test_golden_vector_8_hyperliquid_cross() -> None:
    fall, rise = triggers(10.0, 100_000.0 - 10.0 * 80_000.0, 80_000.0, MarginTier(0.0, 1.0 / 80.0, 0.0))
    assert fall == pytest.approx(70_886.0759, abs=5e-5)
    assert math.isnan(rise)


def test_golden_vector_9_hyperliquid_cross_with_a_tier_crossing() -> None:
    first, second = MarginTier(0.0, 0.05, 0.0), MarginTier(20e6, 0.1, 1_000_000.0)
    cash = 7e6 + 500_000.0 * 30.0
    _, naive = triggers(-500_000.0, cash, 30.0, first)
    assert naive == pytest.approx(41.9048, abs=5e-5)
    fall, rise = triggers(-500_000.0, cash, 30.0, first, second)
    assert rise == pytest.approx(41.8182, abs=5e-5)
    assert math.isnan(fall)


# ------------------------------------------------------------------------------------------------- 10-11 dYdX

DYDX = {
    "10 dydx isolated": (-3.0, 0.0, 3_174.60),
    "11 dydx cross": (-1.5, 175.0, 3_380.95),
}


@pytest.mark.parametrize("name", DYDX)
def test_golden_vectors_10_and_11(name: str) -> None:
    size, other_maintenance, expected = DYDX[name]
    fall, rise = triggers(size, 1_000.0 - size * 3_000.0 - other_maintenance, 3_000.0, MarginTier(0.0, 0.05, 0.0))
    assert rise == pytest.approx(expected, abs=0.005)
    assert math.isnan(fall)


# ------------------------------------------------------------------------------------------------- 12-13 Bybit


def test_golden_vector_12_bybit_isolated_linear_long() -> None:
    found = bybit_isolated_linear(IsolatedPosition(*(array(value) for value in (1.0, 20_000.0, 50.0, 0.005, 0.0, 0.0))))
    assert found.tolist() == [19_700.0]
    # Maintenance at the price itself is lower than at entry, so the position lives 1.5 USD longer.
    fall, _ = triggers(1.0, 400.0 - 20_000.0, 20_000.0, MarginTier(0.0, 0.005, 0.0))
    assert fall == pytest.approx(19_600.0 / 0.995, rel=1e-12)
    assert fall < 19_700.0


BYBIT_INVERSE = {
    "13 bybit inverse isolated long": (60_000.0, 45_662.10, 45_681.82),
    "13 bybit inverse isolated short": (-60_000.0, 55_248.62, 55_277.78),
}


@pytest.mark.parametrize("name", BYBIT_INVERSE)
def test_golden_vector_13(name: str) -> None:
    size, old, new = BYBIT_INVERSE[name]
    position = IsolatedPosition(*(array(value) for value in (size, 50_000.0, 10.0, 0.005, 0.0, 0.0)))
    assert bybit_isolated_inverse_old(position)[0] == pytest.approx(old, abs=0.005)
    assert bybit_isolated_inverse(position)[0] == pytest.approx(new, abs=0.005)
    # An inverse leg, and its initial margin of 0.12 coins as an asset.
    legs = ColumnLegs(
        np.zeros(2, int), np.array([INVERSE, ASSET], np.int8), array(size, 0.12), array(50_000.0, math.nan), array(math.nan, 1.0),
        np.zeros(2, int),
    )  # fmt: skip
    found = solve_column(legs, array(0.0), array(50_000.0), build_tier_table([[MarginTier(0.0, 0.005, 0.0)]]))
    assert (found.fall if size > 0.0 else found.rise)[0] == pytest.approx(new, abs=0.005)


# ------------------------------------------------------------------------------------------------- 14-16


def test_golden_vector_14_aave_health_factor() -> None:
    assert float(health_factor(array(10 * 2_000.0), array(0.83), array(12_000.0))) == pytest.approx(1.3833, abs=5e-5)


MORPHO = {"0.77": 1.07411, "0.86": 1.04384, "0.945": 1.01678, "0.625": 1.12676}


@pytest.mark.parametrize("lltv", MORPHO)
def test_golden_vector_15_morpho_incentive_at_an_lltv_of(lltv: str) -> None:
    assert float(morpho_incentive(float(lltv))) == pytest.approx(MORPHO[lltv], abs=5e-6)


def test_golden_vector_16_okx_sequence_chain() -> None:
    last_id: int | None = None
    verdicts = []
    for previous_id, sequence_id in ((-1, 10), (10, 15), (15, 15), (15, 3), (3, 5)):
        verdicts.append(judge(last_id, previous_id, sequence_id))
        last_id = sequence_id
    assert verdicts == ["snapshot", "update", "keep_alive", "reset", "update"]


# ------------------------------------------------------------------------------------------------- model vectors


def model_vector(shared_data: Path, letter: str) -> dict[str, Any]:
    (path,) = (shared_data / "vectors").glob(f"{letter}_*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_model_vector_c_partial_liquidation(shared_data: Path) -> None:
    cases = model_vector(shared_data, "C")["cases"]
    assert [case["kind"] for case in cases] == ["perp"] * 4 + ["lending"] * 4
    for case in cases:
        price, trigger = case["p"], case["p_trigger"]
        if case["kind"] == "perp":
            kept = perpetual_share_kept(price, trigger, case["mu"], case["fee"])
        else:
            kept = lending_share_kept(price, trigger, case["LT"], case["bonus"])
            assert float(lending_exponent(case["LT"], case["bonus"])) == pytest.approx(case["kappa"], rel=1e-12)
        assert float(kept) == pytest.approx(case["fraction_kept"], rel=1e-12)


def test_model_vector_i_lending_toxic_frontier(shared_data: Path) -> None:
    cases = model_vector(shared_data, "I")["cases"]
    assert len(cases) == 7
    threshold, bonus, ltv = (array(*(case[key] for case in cases)) for key in ("LT", "bonus", "ltv0"))
    collateral, debt = np.full(len(cases), 100.0), 100.0 * ltv

    def column(key: str) -> list[Any]:
        return [case[key] for case in cases]

    assert health_factor(collateral[:, None], threshold[:, None], debt[:, None]) == pytest.approx(column("HF_before"), rel=1e-12)
    # The third borrower is at the frontier itself, 1/1.05, which is not beyond it.
    assert is_toxic(collateral, debt, bonus).tolist() == column("toxic")
    repaid = np.minimum(0.5 * debt, repayment_for(collateral, bonus))
    left, owed = collateral - repaid * (1.0 + bonus), debt - repaid
    assert health_factor(left[:, None], threshold[:, None], owed[:, None]) == pytest.approx(column("HF_after_50pct"), rel=1e-12)
    assert owed / left == pytest.approx(column("LTV_after_50pct"), rel=1e-12)
    series = simulate_calls(collateral, debt, threshold, bonus)
    assert series.calls.tolist() == column("calls")
    # The third borrower is halved 37 times down to a ten-billionth, so its last digits are those of the order of operations.
    assert series.collateral == pytest.approx(column("final_collateral"), rel=1e-12, abs=1e-13)
    assert series.debt == pytest.approx(column("final_debt"), rel=1e-11, abs=1e-13)
    assert series.bad_debt == pytest.approx(column("bad_debt_spiral"), rel=1e-11)
    assert bad_debt_if_halted(collateral, debt) == pytest.approx(column("bad_debt_if_halted"), abs=1e-12)
    assert bad_debt_after_calls(collateral, debt, bonus) == pytest.approx(column("closed_form_bad_debt"), rel=1e-12, abs=1e-12)


def test_model_vector_i_anchor_of_an_e_mode_borrower(shared_data: Path) -> None:
    anchor = model_vector(shared_data, "I")["gatto_anchor"]
    health, threshold, bonus = anchor["HF0"], anchor["LT"], anchor["bonus"]
    assert float(eligible_drop(health)) == pytest.approx(anchor["eligible_drop"], rel=1e-12)
    assert float(exhaustion_drop(health, threshold, bonus)) == pytest.approx(anchor["exhaustion_drop"], rel=1e-12)


def adl_position(vector: dict[str, Any], name: str) -> tuple[float, float]:
    """Signed size, and the cash that goes with it: collateral less the cost of the position."""
    case = vector["positions"][name]
    size = case["side"] * case["q"]
    return size, case["c"] - size * vector["p0"]


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E"])
def test_model_vector_q_bankruptcy_and_liquidation_prices_of_position(shared_data: Path, name: str) -> None:
    """The paper prints 0 for position A, whose collateral is twice its size: no positive price hurts it."""
    vector = model_vector(shared_data, "Q")
    case = vector["positions"][name]
    size, cash = adl_position(vector, name)
    p0 = array(float(vector["p0"]))
    bankruptcy = bankruptcy_prices(linear(size), array(cash), p0)
    liquidation = solve_column(linear(size), array(cash), p0, build_tier_table([[MarginTier(0.0, vector["mu"], 0.0)]]))
    for found, expected in ((bankruptcy, case["bankruptcy"]), (liquidation, case["liquidation_mu10"])):
        ours, other = (found.fall, found.rise) if size > 0.0 else (found.rise, found.fall)
        assert math.isnan(other[0])
        assert np.nan_to_num(ours[0], nan=0.0) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "mark", "execution", "amount"),
    [
        # The paper's slices: linear impact of 1 per unit, half of it on average.
        ("D", 0.98, 0.98 - 0.5 * 0.4, 0.4),
        ("E", 1.05, 1.05 + 0.5 * 1.0, 1.0),
    ],
)
def test_model_vector_q_shortfalls_of_position(shared_data: Path, name: str, mark: float, execution: float, amount: float) -> None:
    """The paper counts unmarked collateral from the present mark, so its bankruptcy price wanders with the mark.

    At the mark the equity is ``c + side q (p_t - p0)`` and not ``c``: both starting points must give the same price, and with the
    entry-consistent one they do. The paper's 0.8747 and 1.1510 are off by exactly the move of the mark, and its shortfalls by that
    move times the slice.
    """
    vector = model_vector(shared_data, "Q")
    case, printed = vector["positions"][name], vector[name]
    size, cash = adl_position(vector, name)
    found = bankruptcy_prices(linear(size), array(cash), array(mark))
    consistent = float((found.fall if size > 0.0 else found.rise)[0])
    assert consistent == pytest.approx(printed["consistent_bk"], rel=1e-12)
    from_mark = mark - case["side"] * (cash + size * mark) / case["q"]
    assert from_mark == pytest.approx(consistent, rel=1e-12)
    papers = mark - case["side"] * case["c"] / case["q"]
    assert papers == pytest.approx(printed["paper_bk"], rel=1e-12)
    assert papers - consistent == pytest.approx(mark - vector["p0"], rel=1e-9)
    part = case["side"] * amount
    assert float(shortfall_usd(part, consistent, execution)) == pytest.approx(printed["consistent_shortfall"], rel=1e-12)
    assert float(shortfall_usd(part, papers, execution)) == pytest.approx(printed["paper_shortfall"], rel=1e-12)


def test_model_vector_q_fees(shared_data: Path) -> None:
    """The paper's slice of 0.5 at a mark of 1.30, done at 1.32: 40 bp of mark, or 20 bp of mark and 10 bp of execution."""
    fees = model_vector(shared_data, "Q")["fees"]
    assert float(closing_fee_usd(0.5, 1.30, 1.32, 0.0040, 0.0)) == pytest.approx(fees["binance_40bps"], rel=1e-12)
    assert float(closing_fee_usd(0.5, 1.30, 1.32, 0.0020, 0.0010)) == pytest.approx(fees["hyperliquid"], rel=1e-12)


def test_model_vector_q_slice_that_would_restore_position_e(shared_data: Path) -> None:
    """The paper's mark jumps to 5.5, execution is 5.55, the fee 30 bp: ten times what there is would have to be closed."""
    vector = model_vector(shared_data, "Q")
    size, cash = adl_position(vector, "E")
    found = slice_to_restore(size, cash + size * 5.5, 5.5, maintenance_rate=vector["mu"], execution_price=5.55, fee_rate=0.003)
    assert float(found) == pytest.approx(vector["liq_size_E"], rel=1e-12)
    assert found > abs(size)
