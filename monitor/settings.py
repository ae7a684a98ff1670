"""The sections of the config file that belong to the core: what is watched, how finely, and when an input is too old.

Field descriptions are shown to operators as hints, with the default behind them. Ranges keep every table bounded; the HTTP server,
rules and sinks have settings of their own beside their code.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from connectors.registry import VENUES
from connectors.venue import VenueSettings

BUCKETS_MAX = 20_000
"""Of one side of a histogram: 2 sides x 20,000 x 8 bytes x 300 markets = 96 MB at the very most; the default has 700."""

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
"""How every section is validated; that text is no number is decided where the file is read."""

ACCOUNT = re.compile(r"0x[0-9a-fA-F]{40}")
"""An address on Hyperliquid."""

# Slash, plus and hash are syntax of MQTT topics, quotes and backslashes of metric labels; no perpetual market needs them.
_SYMBOL = re.compile(r"[^\s/+#\"'\\\x00-\x1f\x7f]{1,40}")

PositiveFloat = Annotated[float, Field(gt=0.0, lt=1e15)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class ProjectionSettings(BaseModel):
    """How often, how fine and how far the core looks."""

    model_config = STRICT

    interval_ms: int = Field(default=100, ge=20, le=10_000, description="20 to 10000 milliseconds between two evaluations")
    bucket_ratio: float = Field(
        default=0.001,
        ge=0.0001,
        le=0.05,
        description="width of a price bucket as a fraction of the price, 0.0001 to 0.05: 0.001 is 0.1 %",
    )
    max_distance_ratio: float = Field(
        default=0.25,
        ge=0.01,
        le=0.95,
        description="how far from the reference price to look, as a fraction, 0.01 to 0.95: 0.25 is 25 %",
    )
    cluster_min_share: float = Field(
        default=0.01, ge=0.0, le=1.0, description="smallest cluster, as a share of the notional of its side, 0 to 1: 0.01 is 1 %"
    )
    exogenous_flow_multiples: tuple[PositiveFloat, ...] = Field(
        default=(1.0, 5.0, 20.0),
        max_length=10,
        description="outside flows to land, in multiples of a typical minute's flow; ascending, at most 10",
    )
    exogenous_notional_usd: tuple[PositiveFloat, ...] = Field(
        default=(1_000_000.0, 10_000_000.0),
        max_length=10,
        description="outside flows to land, in US dollars; ascending, at most 10",
    )
    barrier_levels_max: int = Field(
        default=60, ge=10, le=5_000, description="points of the barrier curve that are published per direction, 10 to 5000"
    )

    @field_validator("exogenous_flow_multiples", "exogenous_notional_usd")
    @classmethod
    def _ascending(cls, volumes: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(volumes)):
            raise ValueError("must be ascending, without repetitions")
        return volumes

    @model_validator(mode="after")
    def _bounded_and_useful(self) -> ProjectionSettings:
        # The grid is logarithmic and reaches further down than up: ln(1 / (1 - d)) of log price at a distance ratio d.
        buckets = -math.log1p(-self.max_distance_ratio) / math.log1p(self.bucket_ratio)
        if buckets > BUCKETS_MAX:
            raise ValueError(
                f"bucket_ratio {self.bucket_ratio} makes {buckets:,.0f} buckets up to max_distance_ratio "
                f"{self.max_distance_ratio}; at most {BUCKETS_MAX:,} are kept"
            )
        if not self.exogenous_flow_multiples and not self.exogenous_notional_usd:
            raise ValueError("exogenous_flow_multiples and exogenous_notional_usd are both empty: nothing would be landed")
        return self


class StalenessSettings(BaseModel):
    """Ages beyond which an input no longer counts as live; see the README for what each venue delivers how often."""

    model_config = STRICT

    book_s: Seconds = Field(default=15.0, description="seconds, up to 86400; Hyperliquid sends its full book about every 5.4 s")
    mark_s: Seconds = Field(default=10.0, description="seconds, up to 86400; venues send marks every 1 to 3 s")
    open_interest_s: Seconds = Field(default=120.0, description="seconds, up to 86400; Binance is polled for it")
    account_s: Seconds = Field(
        default=900.0,
        description="seconds, up to 86400; Hyperliquid allows 600 account polls a minute, so 9,000 accounts take 15 minutes",
    )


class VenueConfig(BaseModel):
    """One venue and what is watched there."""

    model_config = STRICT

    name: Literal["hyperliquid", "binance"]
    symbols: tuple[str, ...] = Field(min_length=1, max_length=300, description="1 to 300 market names, as the venue writes them")
    websocket_url: str = Field(
        default="", max_length=500, description="ws:// or wss:// address; leave it out for the venue's public one"
    )
    rest_url: str = Field(
        default="", max_length=500, description="http:// or https:// address; leave it out for the venue's public one"
    )
    rest_weight_per_minute: int | None = Field(
        default=None,
        ge=20,
        le=10_000_000,
        description="REST weight per minute, 20 to 10000000, for an own node or a higher tier; leave it out for the public limit",
    )
    watch_accounts: tuple[str, ...] = Field(
        default=(),
        max_length=10,
        description="at most 10 Hyperliquid addresses whose own fills are followed: 0x and 40 hexadecimal digits",
    )
    seed_accounts: tuple[str, ...] = Field(
        default=(), description="Hyperliquid addresses that are always polled: 0x and 40 hexadecimal digits"
    )
    seed_accounts_file: str = Field(
        default="", description="text file with one address a line, relative to the config file; # begins a comment"
    )
    brackets_path: str = Field(default="", description="JSON file with Binance's margin brackets, relative to the config file")
    dexes: tuple[str, ...] = Field(
        default=(),
        max_length=30,
        description="further dexes of Hyperliquid whose markets, written dex:COIN, and accounts are followed, such as xyz",
    )
    node_directory: str = Field(
        default="",
        description="data folder of an own Hyperliquid node that writes fills (--write-fills), relative to the config file; "
        "positions then follow its complete record in place of the public tape",
    )
    node_consecutive_blocks: bool = Field(
        default=True,
        description="true or false: whether the node writes a line for every block (--batch-by-block), so that holes can be seen",
    )
    node_info_url: str = Field(
        default="",
        max_length=500,
        description="http:// address of the info server of an own node (--serve-info); accounts are then asked for there",
    )
    simulated: bool = Field(
        default=False, description="true or false: whether what comes from here is a simulation and is marked as one"
    )
    accounts_max: int = Field(default=100_000, ge=1, le=1_000_000, description="1 to 1000000 accounts kept in memory")

    @field_validator("symbols")
    @classmethod
    def _symbols_are_names(cls, symbols: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for symbol in symbols:
            if not _SYMBOL.fullmatch(symbol):
                raise ValueError(f"{symbol!r} is no market name: 1 to 40 characters without spaces, quotes or any of / + # \\")
            if info.data.get("name") == "binance" and symbol != symbol.upper():
                raise ValueError(f"{symbol!r} must be in capitals on Binance: {symbol.upper()!r}")
        return _without_repetitions(symbols)

    @field_validator("websocket_url", "rest_url", "node_info_url")
    @classmethod
    def _url_is_complete(cls, url: str, info: ValidationInfo) -> str:
        if not url:
            return url
        schemes = ("ws", "wss") if info.field_name == "websocket_url" else ("http", "https")
        try:
            parts = urlsplit(url)
            port_is_valid = parts.port is None or parts.port > 0
        except ValueError:
            raise ValueError("is no valid URL") from None
        if parts.scheme not in schemes or not parts.hostname or not port_is_valid or re.search(r"\s", url):
            raise ValueError(f"must be a complete {schemes[0]}:// or {schemes[1]}:// address")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must not hold a user name, a password, a query or a fragment: public feeds need none")
        return url if info.field_name == "websocket_url" else url.rstrip("/")

    @field_validator("watch_accounts", "seed_accounts")
    @classmethod
    def _accounts_are_addresses(cls, accounts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if accounts and info.data.get("name") == "binance":
            raise ValueError("is for Hyperliquid only: Binance does not publish accounts")
        for account in accounts:
            if not ACCOUNT.fullmatch(account):
                raise ValueError(f"{account[:60]!r} is no address: 0x and 40 hexadecimal digits")
        # The venue answers in lower case, whatever the question was written in.
        return _without_repetitions(tuple(account.lower() for account in accounts))

    @field_validator("dexes", "node_directory", "node_info_url")
    @classmethod
    def _only_hyperliquid_has_these(cls, value: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        if value and info.data.get("name") == "binance":
            raise ValueError("is for Hyperliquid only")
        return value

    @field_validator("brackets_path")
    @classmethod
    def _brackets_are_for_binance(cls, path: str, info: ValidationInfo) -> str:
        if path and info.data.get("name") == "hyperliquid":
            raise ValueError("is for Binance only: Hyperliquid publishes its margin tables")
        return path

    @model_validator(mode="after")
    def _seeds_fit(self) -> VenueConfig:
        if len(self.seed_accounts) > self.accounts_max:
            raise ValueError(f"accounts_max is {self.accounts_max}, but there are {len(self.seed_accounts)} seed accounts")
        return self

    @model_validator(mode="after")
    def _venue_accepts_the_plan(self) -> VenueConfig:
        # The venue knows its spelling and its limits; what it refuses here would otherwise be refused when the daemon starts.
        try:
            VENUES[self.name].connections(self.settings())
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{self.name}: ")) from None
        return self

    def settings(self) -> VenueSettings:
        """Return what the venue's own file needs to know."""
        return VenueSettings(
            symbols=self.symbols,
            websocket_url=self.websocket_url,
            rest_url=self.rest_url,
            watch_accounts=self.watch_accounts,
            brackets_path=self.brackets_path,
            dexes=self.dexes,
            has_node_fills=bool(self.node_directory),
        )


class AccountSettings(BaseModel):
    """What is said of accounts."""

    model_config = STRICT

    margin_call_ratio: float = Field(
        default=0.5,
        ge=0.0,
        le=100.0,
        description="0 to 100: a margin call comes when the surplus over maintenance falls below this multiple of the maintenance",
    )


class RecordingSettings(BaseModel):
    """Whether and where everything that arrives is written down."""

    model_config = STRICT

    enabled: bool = Field(default=False, description="true or false")
    directory: str = Field(default="recordings", min_length=1, description="folder, relative to the config file; made when missing")


class LogSettings(BaseModel):
    """What is logged, and in which form."""

    model_config = STRICT

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


def _without_repetitions(items: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"{item!r} is listed twice")
        seen.add(item)
    return items
