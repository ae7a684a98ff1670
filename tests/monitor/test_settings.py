"""The core's sections by themselves; what the file reader makes of them is in ``test_config.py``."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.registry import VENUES
from connectors.venue import VenueSettings
from monitor.clusters import make_grid
from monitor.settings import BUCKETS_MAX, AccountSettings, ProjectionSettings, StalenessSettings, VenueConfig


@given(
    bucket_ratio=st.floats(0.0001, 0.05, exclude_min=True),
    max_distance_ratio=st.floats(0.01, 0.95),
)
def test_accepted_grids_are_bounded(bucket_ratio: float, max_distance_ratio: float) -> None:
    buckets = -math.log1p(-max_distance_ratio) / math.log1p(bucket_ratio)
    if buckets > BUCKETS_MAX:
        with pytest.raises(ValidationError, match="at most 20,000 are kept"):
            ProjectionSettings(bucket_ratio=bucket_ratio, max_distance_ratio=max_distance_ratio)
    else:
        settings = ProjectionSettings(bucket_ratio=bucket_ratio, max_distance_ratio=max_distance_ratio)
        assert make_grid(settings.bucket_ratio, settings.max_distance_ratio).reach <= BUCKETS_MAX + 2


def test_the_default_book_age_is_above_the_slowest_regular_book() -> None:
    # The full book of Hyperliquid was measured to come every 5.4 seconds: two may be late before it counts as stale.
    assert StalenessSettings().book_s > 2 * 5.4


def test_a_venue_section_becomes_what_the_venue_file_needs() -> None:
    venue = VenueConfig(
        name="hyperliquid",
        symbols=("BTC", "kPEPE"),
        websocket_url="wss://127.0.0.1:8443/ws",
        rest_url="https://127.0.0.1:8443/",
        watch_accounts=("0xB0A55F13D22F66E6D495AC98113841B2326E9540",),
    )
    assert venue.settings() == VenueSettings(
        symbols=("BTC", "kPEPE"),
        websocket_url="wss://127.0.0.1:8443/ws",
        rest_url="https://127.0.0.1:8443",
        watch_accounts=("0xb0a55f13d22f66e6d495ac98113841b2326e9540",),
    )


@pytest.mark.parametrize("symbol", ["", " BTC", "BTC\n", "a/b", "a+b", "#", 'a"b', "a\\b", "x" * 41, "a\tb", "a\x00b"])
def test_symbols_that_would_break_topics_or_labels_are_refused(symbol: str) -> None:
    with pytest.raises(ValidationError, match="no market name"):
        VenueConfig(name="hyperliquid", symbols=(symbol,))


def test_what_the_venue_would_refuse_at_the_start_is_refused_here() -> None:
    with pytest.raises(ValidationError, match="of the dex 'xyz', which is not among the dexes"):
        VenueConfig(name="hyperliquid", symbols=("BTC", "xyz:GOLD"))
    with pytest.raises(ValidationError, match="the venue allows 1000"):
        VenueConfig(name="hyperliquid", symbols=tuple(f"C{number}" for number in range(200)))


def test_as_many_seed_accounts_fit_as_accounts_are_kept() -> None:
    seeds = tuple(f"0x{number:040x}" for number in range(3))
    assert VenueConfig(name="hyperliquid", symbols=("BTC",), seed_accounts=seeds, accounts_max=3).seed_accounts == seeds
    with pytest.raises(ValidationError, match="3 seed accounts"):
        VenueConfig(name="hyperliquid", symbols=("BTC",), seed_accounts=seeds, accounts_max=2)


def test_dexes_and_a_node_become_what_the_venue_file_needs() -> None:
    venue = VenueConfig(
        name="hyperliquid",
        symbols=("BTC", "xyz:GOLD"),
        dexes=("xyz", "flx"),
        node_directory="/var/hl/data",
        node_info_url="http://127.0.0.1:3001/",
    )
    assert venue.settings() == VenueSettings(symbols=("BTC", "xyz:GOLD"), dexes=("xyz", "flx"), has_node_fills=True)
    assert venue.node_info_url == "http://127.0.0.1:3001"
    assert venue.node_consecutive_blocks
    plain = VenueConfig(name="hyperliquid", symbols=("BTC",))
    assert (plain.dexes, plain.node_directory, plain.node_info_url) == ((), "", "")
    assert not plain.settings().has_node_fills


@pytest.mark.parametrize(
    ("field", "value"), [("dexes", ("xyz",)), ("node_directory", "/var/hl/data"), ("node_info_url", "http://127.0.0.1:3001")]
)
def test_only_hyperliquid_has_dexes_and_nodes(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match="is for Hyperliquid only"):
        VenueConfig.model_validate({"name": "binance", "symbols": ("BTCUSDT",), field: value})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dexes": ("XYZ",)}, "'XYZ' is not a dex"),
        ({"dexes": ("a b",)}, "'a b' is not a dex"),
        ({"dexes": tuple(f"d{number}" for number in range(31))}, "at most 30"),
        ({"node_info_url": "127.0.0.1:3001"}, "must be a complete http:// or https:// address"),
        ({"node_info_url": "ws://127.0.0.1:3001"}, "must be a complete http:// or https:// address"),
        ({"node_info_url": "http://u:p@127.0.0.1"}, "must not hold a user name"),
        ({"node_info_url": "http://127.0.0.1:99999"}, "is no valid URL"),
        ({"node_consecutive_blocks": "perhaps"}, "valid boolean"),
    ],
)
def test_dexes_and_addresses_of_nodes_that_cannot_be_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VenueConfig.model_validate({"name": "hyperliquid", "symbols": ("BTC",), **fields})


def test_the_same_dex_twice_is_asked_for_once() -> None:
    venue = VenueConfig(name="hyperliquid", symbols=("BTC",), dexes=("xyz", "xyz"))
    assert len(VENUES["hyperliquid"].bootstrap(venue.settings())) == 2


@pytest.mark.parametrize("ratio", [-0.1, 101.0, math.nan, math.inf])
def test_a_margin_call_comes_before_liquidation_and_not_infinitely_long_before(ratio: float) -> None:
    with pytest.raises(ValidationError):
        AccountSettings(margin_call_ratio=ratio)
