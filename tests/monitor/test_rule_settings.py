from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from monitor.rule_settings import (
    LargeClusterNearSettings,
    LowBarrierSettings,
    MarketRuleSettings,
    RuleSettings,
    StaleFeedSettings,
)


def test_a_market_takes_what_it_does_not_set_from_the_general_part() -> None:
    settings = RuleSettings.model_validate(
        {
            "large_cluster_near": {"notional_usd": 5e6, "within_ratio": 0.02},
            "low_barrier": {"multiple": 4.0},
            "markets": {"hyperliquid/BTC": {"large_cluster_near": {"notional_usd": 4e7}}},
        }
    )
    btc, eth = settings.for_market("hyperliquid", "BTC"), settings.for_market("hyperliquid", "ETH")
    assert (btc.large_cluster_near.notional_usd, btc.large_cluster_near.within_ratio) == (4e7, 0.02)
    assert (eth.large_cluster_near.notional_usd, eth.large_cluster_near.within_ratio) == (5e6, 0.02)
    assert btc.low_barrier == eth.low_barrier
    assert btc.low_barrier.multiple == 4.0
    assert eth.stale_feed == StaleFeedSettings()


def test_settings_may_be_given_as_models() -> None:
    settings = RuleSettings(
        stale_feed=StaleFeedSettings(for_s=5),
        markets={"binance/BTCUSDT": MarketRuleSettings(low_barrier=LowBarrierSettings(enabled=False))},
    )
    own = settings.for_market("binance", "BTCUSDT")
    assert not own.low_barrier.enabled
    assert own.stale_feed.for_s == 5


def test_settings_survive_strict_json() -> None:
    text = json.dumps({"low_barrier": {"multiple": 2}, "markets": {"a/b/c": {"stale_feed": {"for_s": 1}}}})
    settings = RuleSettings.model_validate_json(text, strict=True)
    assert settings.for_market("a", "b/c").stale_feed.for_s == 1
    assert settings.for_market("a", "b/c").low_barrier.multiple == 2


@pytest.mark.parametrize(
    ("document", "location"),
    [
        ({"large_cluster_near": {"notional_usd": 0}}, "large_cluster_near.notional_usd"),
        ({"large_cluster_near": {"notional_usd": float("nan")}}, "large_cluster_near.notional_usd"),
        ({"large_cluster_near": {"critical_notional_usd": 1.0}}, "large_cluster_near"),
        ({"large_cluster_near": {"clear_ratio": 1.1}}, "large_cluster_near.clear_ratio"),
        ({"large_cluster_near": {"within_ratio": 1.0}}, "large_cluster_near.within_ratio"),
        ({"low_barrier": {"critical_multiple": 9.0}}, "low_barrier"),
        ({"stale_feed": {"critical_for_s": 1.0}}, "stale_feed"),
        ({"stale_feed": {"for_s": -1}}, "stale_feed.for_s"),
        ({"unknown_rule": {}}, "unknown_rule"),
        ({"markets": {"BTC": {}}}, "markets.BTC.[key]"),
        ({"markets": {"a/b": {"unknown": {}}}}, "markets.a/b.unknown"),
        ({"markets": {"a/b": {"low_barrier": {"unknown": 1}}}}, "markets.a/b.low_barrier.unknown"),
        ({"markets": {"a/b": {"low_barrier": 7}}}, "markets.a/b.low_barrier"),
        ({"markets": {"a/b": None}}, "markets.a/b"),
        ({"markets": {"a/b": {"large_cluster_near": {"critical_notional_usd": 1.0}}}}, "markets.a/b.large_cluster_near"),
        ({"markets": 5}, "markets"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(document: dict[str, Any], location: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RuleSettings.model_validate(document)
    assert location in [".".join(map(str, error["loc"])) for error in caught.value.errors()]


def test_every_setting_is_described() -> None:
    for model in (LargeClusterNearSettings, LowBarrierSettings, StaleFeedSettings, MarketRuleSettings, RuleSettings):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
