from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulated.market_messages import meta
from connectors.simulated.markets import MARKETS, Market, decimal_text, float_text
from tests.connectors.simulated.worlds import world

BTC, ETH, SOL, HYPE = MARKETS


@pytest.mark.parametrize(
    ("market", "price", "text", "tick"),
    [
        (BTC, 841_430, "84143.0", 10),
        (BTC, 1_043_200, "104320.0", 10),
        (BTC, 99_999, "9999.9", 1),
        (ETH, 298_630, "2986.3", 10),
        (SOL, 1_415_500, "141.55", 100),
        (SOL, 999_990, "99.999", 10),
        (HYPE, 348_010, "34.801", 10),
    ],
)
def test_prices_have_five_significant_figures_and_whole_numbers_are_always_allowed(
    market: Market, price: int, text: str, tick: int
) -> None:
    assert market.price_text(price) == text
    assert market.tick(price) == tick
    assert market.ticks(np.asarray([price])).tolist() == [tick]


@pytest.mark.parametrize(
    ("market", "notional_usd", "expected_usd"),
    [
        (BTC, 200e6, 3_125_000.0),
        (BTC, 150e6, 1_875_000.0),
        (ETH, 100e6, 2_000_000.0),
        (ETH, 130e6, 130e6 / 30 - 4_000_000 / 3),
        (SOL, 80e6, 80e6 * 0.05 - 1_750_000.0),
        (HYPE, 21e6, 21e6 * 0.1 - 1_000_000.0),
        (HYPE, 1_000.0, 50.0),
    ],
)
def test_maintenance_follows_the_published_tiers_and_deductions(market: Market, notional_usd: float, expected_usd: float) -> None:
    assert market.maintenance_usd(notional_usd) == pytest.approx(expected_usd, rel=1e-12)
    assert market.maintenance_array_usd(np.asarray([notional_usd]))[0] == market.maintenance_usd(notional_usd)


def test_margin_tables_are_those_of_the_real_venue(shared_data: Path) -> None:
    exchange, _ = world(MARKETS)
    published = json.loads((shared_data / "data/hl_api_fixtures/index_yassi80/metaAndAssetCtxs.json").read_text())[0]
    tables = dict(published["marginTables"])
    ours = meta(exchange)
    assert ours["universe"] == published["universe"]
    marginals = ours["marginTables"]
    assert isinstance(marginals, list)
    assert dict(marginals) == {number: tables[number] for number in (52, 54, 55, 56)}


@given(st.integers(-(10**15), 10**15), st.integers(0, 8))
def test_decimal_text_is_exact(value: int, decimals: int) -> None:
    text = decimal_text(value, decimals)
    whole, _, fraction = text.partition(".")
    assert fraction
    assert int(whole.lstrip("-") + fraction.ljust(decimals, "0")) // (1 if decimals else 10) == abs(value)
    assert text.startswith("-") == (value < 0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_text_reads_back_as_the_same_float_without_an_exponent(value: float) -> None:
    text = float_text(value)
    assert float(text) == value
    assert "e" not in text
