"""Whole accounts as the venue answered them, of 2026 and of 2023: its liquidation prices from nothing but its own other fields."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from connectors.hyperliquid_markets import margin_tiers
from monitor.margin import build_tier_table, leg_value, solve_tiered_trigger

Floats = NDArray[np.float64]

FIXTURES: Final = "hl_api_fixtures"


class Account(NamedTuple):
    """One answer: arrays per cross position, ``printed`` as the venue wrote it, ``None`` for no price."""

    coins: tuple[str, ...]
    size: Floats
    mark: Floats
    max_leverage: tuple[float, ...]
    printed: tuple[str | None, ...]
    value_usd: float
    notional_usd: float
    maintenance_usd: float | None


def account_of(state: dict[str, Any], max_leverage: dict[str, float]) -> Account:
    """Take an answer apart; a position's own maximum leverage goes before that of its coin."""
    positions = [item["position"] for item in state["assetPositions"]]
    assert all(position["leverage"]["type"] == "cross" for position in positions)
    maintenance = state.get("crossMaintenanceMarginUsed")
    return Account(
        coins=tuple(position["coin"] for position in positions),
        size=np.array([float(position["szi"]) for position in positions]),
        # Exact before it is a double: values have six decimals, and the price that the venue divided out has five figures.
        mark=np.array([float(Decimal(p["positionValue"]) / abs(Decimal(p["szi"]))) for p in positions]),
        max_leverage=tuple(float(p.get("maxLeverage") or max_leverage[p["coin"]]) for p in positions),
        printed=tuple(position["liquidationPx"] for position in positions),
        value_usd=float(state["crossMarginSummary"]["accountValue"]),
        notional_usd=float(state["crossMarginSummary"]["totalNtlPos"]),
        maintenance_usd=None if maintenance is None else float(maintenance),
    )


def predicted(account: Account, maintenance_usd: float) -> Floats:
    """Return each position's liquidation price by the project's arithmetic."""
    tiers = build_tier_table([margin_tiers([0.0], [leverage]) for leverage in account.max_leverage])
    rows = np.arange(account.size.size, dtype=np.int32)
    elsewhere = account.value_usd - maintenance_usd - leg_value(account.size, account.mark, rows, tiers)[0]
    return solve_tiered_trigger(account.size, rows, elsewhere, tiers)


def by_the_rule_of_2023(account: Account, maintenance_usd: float) -> Floats:
    """Return the prices that the venue printed then: the surplus spread over the size, without the change of maintenance."""
    return account.mark - (account.value_usd - maintenance_usd) / account.size


def relative_errors(account: Account, prices: Floats) -> dict[str, float]:
    """Return the relative error of each printed price."""
    return {
        coin: abs(price / float(printed) - 1.0)
        for coin, price, printed in zip(account.coins, prices, account.printed, strict=True)
        if printed is not None
    }


def figures(text: str) -> int:
    """Count the significant digits of a decimal."""
    return len(text.replace(".", "").lstrip("0"))


# ---------------------------------------------------------------------------------------------------------------------- 2026


@pytest.fixture
def of_2026(shared_data: Path) -> Account:
    folder = shared_data / "data" / FIXTURES / "index_yassi80"
    return account_of(json.loads((folder / "clearinghouseState.json").read_bytes()), {})


def test_prices_of_2026_are_reproduced_to_ten_digits(of_2026: Account) -> None:
    assert of_2026.maintenance_usd is not None
    prices = predicted(of_2026, of_2026.maintenance_usd)
    for coin, price, printed in zip(of_2026.coins, prices, of_2026.printed, strict=True):
        print(f"\n{coin}: printed {printed}, ours {price:.10f}", end="")
        if printed is None:
            assert not price > 0.0
        else:
            assert figures(printed) >= 10
            assert f"{price:.9e}" == f"{float(printed):.9e}"
    print()
    assert sum(printed is not None for printed in of_2026.printed) == 2


def test_the_maintenance_of_2026_is_by_the_leverage_of_the_positions_not_of_their_coins(
    of_2026: Account, shared_data: Path
) -> None:
    assert of_2026.maintenance_usd is not None
    # Each position is rounded to a millionth, and most are not in the fixture.
    assert of_2026.maintenance_usd == pytest.approx(of_2026.notional_usd / (2 * 50), abs=1e-3)
    meta = json.loads((shared_data / "data" / FIXTURES / "index_yassi80" / "metaAndAssetCtxs.json").read_bytes())[0]
    now = {asset["name"]: asset["maxLeverage"] for asset in meta["universe"]}
    both = [coin for coin in of_2026.coins if coin in now]
    assert set(of_2026.max_leverage) == {50.0}
    assert {coin: now[coin] for coin in both} == {"BTC": 40, "ETH": 25, "SOL": 20, "HYPE": 10}
    # At a rate that a market's table could have, a short would be off by far more than a digit.
    assert by_leverage(of_2026, 10.0) > 0.03


def by_leverage(account: Account, leverage: float) -> float:
    """Return the smallest error of a printed price if every position had another maximum leverage."""
    other = account._replace(max_leverage=(leverage,) * len(account.coins))
    assert account.maintenance_usd is not None
    return min(relative_errors(other, predicted(other, account.maintenance_usd)).values())


def test_prices_of_2026_do_not_follow_the_rule_of_2023(of_2026: Account) -> None:
    assert of_2026.maintenance_usd is not None
    errors = relative_errors(of_2026, by_the_rule_of_2023(of_2026, of_2026.maintenance_usd))
    assert min(errors.values()) > 0.009


# ---------------------------------------------------------------------------------------------------------------------- 2023


def cassette(shared_data: Path, name: str) -> Any:
    """Return the answer in a cassette: a string in single quotes, in which a quote is written twice."""
    text = (shared_data / "data" / FIXTURES / "sdk_cassettes" / name).read_text()
    (body,) = re.findall(r"^ +string: '((?:[^']|'')*)'$", text, flags=re.MULTILINE)
    return json.loads(body.replace("''", "'"))


@pytest.fixture
def of_2023(shared_data: Path) -> Account:
    leverages = {asset["name"]: asset["maxLeverage"] for asset in cassette(shared_data, "test_get_info.yaml")["universe"]}
    assert set(leverages.values()) == {50}
    return account_of(cassette(shared_data, "test_get_user_state.yaml"), leverages)


def maintenance_of(account: Account) -> float:
    """Return the maintenance of all positions, each cut off to a millionth of a dollar; answers did not state it yet."""
    tiers = build_tier_table([margin_tiers([0.0], [leverage]) for leverage in account.max_leverage])
    rows = np.arange(account.size.size, dtype=np.int32)
    exact = leg_value(account.size, account.mark, rows, tiers)[1]
    # What is a whole number of millionths may be a hair below it as a double.
    return float(np.floor(exact * 1e6 + 1e-6).sum() / 1e6)


def test_prices_of_2023_are_reproduced_by_the_rule_of_their_time(of_2023: Account) -> None:
    maintenance = maintenance_of(of_2023)
    assert maintenance == pytest.approx(of_2023.notional_usd / 100, abs=1e-6)
    prices = by_the_rule_of_2023(of_2023, maintenance)
    for coin, price, printed in zip(of_2023.coins, prices, of_2023.printed, strict=True):
        print(f"\n{coin}: printed {printed}, ours {price:.8f}", end="")
        if printed is None:
            assert not price > 0.0
        else:
            # A unit of the last of the eight decimals.
            assert price == pytest.approx(float(printed), abs=1.01e-8, rel=1e-12)
    print()
    assert sum(printed is not None for printed in of_2023.printed) == 5


def test_prices_of_2023_lack_the_factor_of_today_and_nothing_else(of_2023: Account) -> None:
    today = predicted(of_2023, maintenance_of(of_2023))
    for coin, error in relative_errors(of_2023, today).items():
        row = of_2023.coins.index(coin)
        printed = float(of_2023.printed[row] or "nan")
        # All with a price are short, whose distance to it shrinks by 1 + 1 %.
        assert of_2023.size[row] < 0.0
        assert (printed - of_2023.mark[row]) / (today[row] - of_2023.mark[row]) == pytest.approx(1.01, abs=1e-7)
        assert 0.005 < error < 0.01
