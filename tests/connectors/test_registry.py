from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.binance import Binance
from connectors.binance_brackets import BracketError
from connectors.frames import Frame
from connectors.registry import VENUES, configured_venue
from connectors.venue import FeedError, VenueSettings

SYMBOLS = {"binance": "BTCUSDT", "hyperliquid": "BTC"}


@pytest.mark.parametrize("name", list(VENUES))
def test_every_venue_is_known_by_its_own_name_and_plans_unique_connections(name: str) -> None:
    venue = VENUES[name]
    assert venue.name == name
    plans = venue.connections(VenueSettings(symbols=(SYMBOLS[name],)))
    assert len({plan.name for plan in plans}) == len(plans) > 0
    assert all(plan.url.startswith("wss://") and plan.expected for plan in plans)
    assert venue.rest_url.startswith("https://")
    assert venue.rest_weight_per_minute > 0


@pytest.mark.parametrize("name", list(VENUES))
def test_every_venue_refuses_noise_and_reports_a_lost_connection(name: str) -> None:
    with pytest.raises(FeedError):
        VENUES[name].parse(Frame(venue=name, connection="main", received_ns=1, payload=b"\xff"))
    assert len(VENUES[name].parse(Frame(venue=name, connection="main", received_ns=1, payload=None))) == 1


@pytest.mark.parametrize("name", list(VENUES))
def test_steady_requests_stay_within_half_of_the_weight(name: str) -> None:
    settings = VenueSettings(symbols=(SYMBOLS[name],))
    weight = sum(item.request.weight * 60 / item.interval_s for item in VENUES[name].periodic(settings))
    assert weight <= VENUES[name].rest_weight_per_minute / 2
    assert all(request.weight > 0 for request in VENUES[name].bootstrap(settings))


def test_brackets_of_the_settings_replace_the_shipped_ones(tmp_path: Path) -> None:
    path = tmp_path / "brackets.json"
    path.write_text(json.dumps({"version": "mine", "source": "", "symbols": {"ETHUSDT": [[0, 0.005, 0, 100]]}}))
    venue = configured_venue("binance", VenueSettings(symbols=(), brackets_path=str(path)))
    assert isinstance(venue, Binance)
    assert venue.brackets.version == "mine"
    assert configured_venue("binance", VenueSettings(symbols=())) is VENUES["binance"]


def test_brackets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BracketError):
        configured_venue("binance", VenueSettings(symbols=(), brackets_path=str(tmp_path / "absent.json")))
    with pytest.raises(ValueError, match="publishes its margin tables"):
        configured_venue("hyperliquid", VenueSettings(symbols=(), brackets_path="any"))
    with pytest.raises(KeyError):
        configured_venue("nowhere", VenueSettings(symbols=()))
