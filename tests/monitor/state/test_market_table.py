"""Markets and assets by name and by index, and what their terms are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from connectors.events import Instrument, MarginTier
from monitor.margin import ASSET, INVERSE, LINEAR
from monitor.state import market_table as module
from monitor.state.market_table import MarketTable

ONE_TIER = (MarginTier(0.0, 0.01, 0.0),)
TWO_TIERS = (MarginTier(0.0, 0.01, 0.0), MarginTier(1_000.0, 0.05, 40.0))


def table(*symbols: str) -> MarketTable:
    return MarketTable({"hyperliquid": symbols or ("BTC", "ETH")})


def instrument(symbol: str, **more: Any) -> Instrument:
    return Instrument(symbol, more.pop("tiers", ONE_TIER), **more)


def describe(markets: MarketTable, symbol: str, **more: Any) -> bool:
    return markets.describe("hyperliquid", instrument(symbol, **more))


def test_a_market_is_unknown_until_its_terms_are_told() -> None:
    markets = table()
    assert np.isnan(markets.rebuild_tiers().rate).all()
    assert describe(markets, "ETH", tiers=TWO_TIERS)
    tiers = markets.rebuild_tiers()
    assert tiers.contract is None, "as long as all are linear nobody pays for the others"
    assert np.isnan(tiers.rate[0]).all()
    assert tiers.rate[1].tolist() == [0.01, 0.05]


def test_terms_that_were_told_before_make_nothing_anew() -> None:
    markets = table()
    described = {"contract": "asset", "tiers": (), "collateral_ratio": 0.8, "e_mode_ratios": ((1, 0.9), (2, 0.95))}
    for _ in range(2):
        describe(markets, "BTC", tiers=TWO_TIERS)
        describe(markets, "ETH", **described)
    markets.rebuild_tiers()
    describe(markets, "BTC", tiers=TWO_TIERS)
    describe(markets, "ETH", **described)
    assert not markets.outdated


def test_contracts_have_their_codes() -> None:
    markets = table("BTC", "BTCUSD", "WETH")
    describe(markets, "BTCUSD", contract="inverse")
    describe(markets, "WETH", contract="asset", tiers=(), collateral_ratio=0.5)
    contract = markets.rebuild_tiers().contract
    assert contract is not None
    assert contract.tolist() == [LINEAR, INVERSE, ASSET]
    assert markets.collateral_ratios == {(2, 0): 0.5}


def test_a_ratio_that_is_not_told_any_more_does_not_stay() -> None:
    """What the venue has taken back would otherwise go on as collateral, and every list of instruments as a change."""
    markets = table("WETH", "DAI")
    describe(markets, "DAI", contract="asset", tiers=(), collateral_ratio=0.7)
    describe(markets, "WETH", contract="asset", tiers=(), collateral_ratio=0.8, e_mode_ratios=((1, 0.9), (2, 0.95)))
    describe(markets, "WETH", contract="asset", tiers=(), e_mode_ratios=((2, 0.95),))
    assert markets.collateral_ratios == {(0, 2): 0.95, (1, 0): 0.7}
    markets.rebuild_tiers()
    describe(markets, "WETH", contract="asset", tiers=(), e_mode_ratios=((2, 0.95),))
    assert not markets.outdated
    describe(markets, "WETH", contract="linear")
    assert markets.collateral_ratios == {(1, 0): 0.7}


def test_a_ratio_of_zero_is_known_and_one_that_is_missing_is_not() -> None:
    markets = table("JUNK", "NEW")
    describe(markets, "JUNK", contract="asset", tiers=(), collateral_ratio=0.0)
    describe(markets, "NEW", contract="asset", tiers=())
    assert markets.collateral_ratios == {(0, 0): 0.0}


@pytest.mark.parametrize(
    "tiers",
    [
        (MarginTier(5.0, 0.01, 0.0),),
        (MarginTier(0.0, 0.0, 0.0),),
        (MarginTier(0.0, 1.5, 0.0),),
        (MarginTier(0.0, math.nan, 0.0),),
        (MarginTier(0.0, 0.01, 0.0), MarginTier(0.0, 0.02, 0.0)),
        (MarginTier(0.0, 0.01, 0.0), MarginTier(1_000.0, 0.05, 0.0)),
        (MarginTier(0.0, 0.01, math.nan),),
    ],
)
def test_impossible_tiers_make_a_market_unknown_that_was_known(tiers: tuple[MarginTier, ...]) -> None:
    markets = table()
    describe(markets, "BTC")
    assert not describe(markets, "BTC", tiers=tiers)
    assert np.isnan(markets.rebuild_tiers().rate[0]).all()


def test_markets_of_a_dex_hang_on_the_pool_that_their_name_says() -> None:
    markets = table("BTC", "xyz:TSLA")
    assert markets.index_of("hyperliquid", "flx:OIL") == 2
    assert markets.pools == ["", "xyz", "flx"]


def test_beyond_the_last_place_there_is_one_market_without_terms_for_all_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MARKETS_MAX", 2)
    markets = table()
    assert markets.index_of("hyperliquid", "SPAM") is None
    assert (markets.overflow(), markets.overflow()) == (2, 2)
    assert describe(markets, "SPAM"), "its tiers are possible; there is only no room for them"
    assert np.isnan(markets.rebuild_tiers().rate[2]).all()
    assert (len(markets), len(markets.pools)) == (3, 3)


def test_the_same_symbol_at_two_venues_is_two_markets() -> None:
    markets = MarketTable({"hyperliquid": ("BTC",), "binance": ("BTC",)})
    markets.describe("binance", instrument("BTC", contract="inverse"))
    contract = markets.rebuild_tiers().contract
    assert contract is not None
    assert contract.tolist() == [LINEAR, INVERSE]


def test_a_feed_of_nonsense_names_is_noted_up_to_a_bound() -> None:
    markets = table()
    for number in range(module.QUARANTINED_MAX + 50):
        assert markets.meet("hyperliquid", f"X{number}") is None
    assert len(markets.quarantined("hyperliquid")) == module.QUARANTINED_MAX
    assert len(markets) == 2
