"""The thresholds of the alert rules, and how a single market departs from them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

STRICT = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

Seconds = Annotated[float, Field(ge=0.0, le=86_400.0)]
ClearRatio = Annotated[float, Field(gt=0.0, le=1.0)]
MarketKey = Annotated[str, StringConstraints(pattern=r"^[^/]+/.+$", max_length=200)]


class LargeClusterNearSettings(BaseModel):
    """When a hill of liquidation prices is large and near enough to tell."""

    model_config = STRICT

    enabled: bool = True
    """Whether the rule is evaluated at all."""
    notional_usd: float = Field(default=10_000_000.0, gt=0.0)
    """Forced notional of the cluster in US dollars from which it is a warning."""
    critical_notional_usd: float = Field(default=50_000_000.0, gt=0.0)
    """Forced notional in US dollars from which it is critical; at least ``notional_usd``."""
    within_ratio: float = Field(default=0.03, gt=0.0, lt=1.0)
    """Greatest distance of the cluster's nearest edge from the reference price, as a fraction of that price."""
    clear_ratio: ClearRatio = 0.8
    """The alert clears below ``clear_ratio`` times the notional, or beyond ``within_ratio / clear_ratio``."""
    for_s: Seconds = 0.0
    """Seconds for which the condition has to last before it fires. Not zero means that the first liquidation may come first."""
    clear_for_s: Seconds = 20.0
    """Seconds for which the condition has to be over before the alert is resolved; hills that split come together again."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.critical_notional_usd < self.notional_usd:
            raise ValueError("critical_notional_usd must not be below notional_usd")
        return self


class LowBarrierSettings(BaseModel):
    """When little volume is enough to start a fall (or rise) that feeds itself."""

    model_config = STRICT

    enabled: bool = True
    """Whether the rule is evaluated at all."""
    multiple: float = Field(default=3.0, gt=0.0)
    """Barrier in typical minutes of net taker flow at or below which it is a warning."""
    critical_multiple: float = Field(default=1.0, gt=0.0)
    """The same for critical; at most ``multiple``."""
    minimum_forced_ratio: float = Field(default=0.01, ge=0.0)
    """Gaps that release less than this fraction of the displayed depth on their side are ignored."""
    minimum_flow_covered_ratio: float = Field(default=0.5, ge=0.0, le=1.0)
    """Below this covered fraction of the flow window the typical flow is unknown, and the state is held."""
    clear_ratio: ClearRatio = 0.8
    """The alert clears when the barrier is above ``multiple / clear_ratio`` typical minutes."""
    for_s: Seconds = 10.0
    """Seconds for which the condition has to last before it fires."""
    clear_for_s: Seconds = 30.0
    """Seconds for which the condition has to be over before the alert is resolved."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.critical_multiple > self.multiple:
            raise ValueError("critical_multiple must not be above multiple")
        return self


class StaleFeedSettings(BaseModel):
    """For how long a market may be without live numbers before somebody is told."""

    model_config = STRICT

    enabled: bool = True
    """Whether the rule is evaluated at all."""
    for_s: Seconds = 30.0
    """Seconds of staleness before a warning."""
    critical_for_s: Seconds = 300.0
    """Seconds of staleness before it is critical; at least ``for_s``."""
    clear_for_s: Seconds = 10.0
    """Seconds for which everything has to be live again before the alert is resolved."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.critical_for_s < self.for_s:
            raise ValueError("critical_for_s must not be below for_s")
        return self


class MarketRuleSettings(BaseModel):
    """The rules of one market."""

    model_config = STRICT

    large_cluster_near: LargeClusterNearSettings = LargeClusterNearSettings()
    """Large clusters near the price."""
    low_barrier: LowBarrierSettings = LowBarrierSettings()
    """Low barriers to a cascade."""
    stale_feed: StaleFeedSettings = StaleFeedSettings()
    """Stale markets."""


class RuleSettings(BaseModel):
    """The rules of all markets; what a market does not set itself it takes from the general part."""

    model_config = STRICT

    large_cluster_near: LargeClusterNearSettings = LargeClusterNearSettings()
    """Large clusters near the price."""
    low_barrier: LowBarrierSettings = LowBarrierSettings()
    """Low barriers to a cascade."""
    stale_feed: StaleFeedSettings = StaleFeedSettings()
    """Stale markets."""
    markets: dict[MarketKey, MarketRuleSettings] = Field(default_factory=dict)
    """Departures by market, keyed ``venue/symbol``; only what differs has to be given."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: object) -> object:
        """Lay each market's settings over the general ones, before either is checked."""
        if not isinstance(data, dict) or not isinstance(data.get("markets"), dict):
            return data
        general = {rule: data[rule] for rule in MarketRuleSettings.model_fields if rule in data}
        return {**data, "markets": {key: _overlay(general, own) for key, own in data["markets"].items()}}

    def for_market(self, venue: str, symbol: str) -> MarketRuleSettings:
        """Return the rules of one market."""
        own = self.markets.get(f"{venue}/{symbol}")
        if own is not None:
            return own
        return MarketRuleSettings(
            large_cluster_near=self.large_cluster_near, low_barrier=self.low_barrier, stale_feed=self.stale_feed
        )


def _overlay(general: object, own: object) -> object:
    """Merge what was given, level by level; anything that is not a mapping is left for the model to accept or refuse."""
    below, above = _given(general), _given(own)
    if not isinstance(below, dict) or not isinstance(above, dict):
        return own
    return {**below, **{key: _overlay(below[key], value) if key in below else value for key, value in above.items()}}


def _given(value: object) -> object:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
