"""Metrics made from a projection at scrape time."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from monitor.metrics import ProjectionCollector, Reading
from monitor.metrics_catalogue import CATALOGUE
from monitor.projection import DisagreementCounts, MarketProjection, Projection
from tests.conftest import missing
from tests.monitor.web.builder import World, alert

WEB = {
    "connections": 3,
    "connections_refused": 1,
    "connections_cut": 2,
    "stream_clients": 1,
    "stream_clients_cut": 0,
    "stream_clients_refused": 0,
    "history_markets": 3,
    "history_markets_refused": 0,
    "account_questions": 5,
    "account_requests_refused": 0,
    "account_aliases": 2,
    "account_aliases_forgotten": 0,
}
LABELS = {"venue", "symbol", "side", "provenance", "within", "move", "scenario", "completeness"}
OPERATIONAL_LABELS = {
    "channel",
    "figure",
    "connection",
    "state",
    "reason",
    "sink",
    "name",
    "severity",
    "version",
    "instance",
    "venue",
    "symbol",
}


def reading(world: World | None = None, **changes: Any) -> Reading:
    world = world or World()
    projection = changes.pop("projection", None) or world.step()
    fields = {"projection": projection, "status": world.status(), "firing": (alert(),), "evaluation_age_s": 0.25, "web": WEB}
    return Reading(**{**fields, **changes})


def exposition(read: Reading, **limits: Any) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProjectionCollector(lambda: read, **limits))
    return generate_latest(registry)


def values(read: Reading, **limits: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(read, **limits).decode())
        for sample in family.samples
    }


def value(read: Reading, name: str, **labels: str) -> float | None:
    return values(read).get((f"liqmon_{name}", frozenset(labels.items())))


def with_market(projection: Projection, index: int = 0, **changes: Any) -> Projection:
    markets = list(projection.markets)
    markets[index] = msgspec.structs.replace(markets[index], **changes)
    return msgspec.structs.replace(projection, markets=tuple(markets))


def of(market: MarketProjection) -> dict[str, str]:
    return {"venue": market.venue, "symbol": market.symbol, "provenance": market.provenance}


def test_promtool_finds_nothing_to_complain_about() -> None:
    if shutil.which("promtool") is None:
        missing("promtool is not installed")
    for text in (exposition(reading()), exposition(Reading())):
        result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_an_empty_hub_gives_a_scrape_without_any_market() -> None:
    names = {name for name, _ in values(Reading())}
    assert names == {"liqmon_ready", "liqmon_series", "liqmon_series_dropped_total", "liqmon_series_invalid_total"}
    assert value(Reading(), "ready") == 0.0


def test_values_are_those_of_the_projection() -> None:
    world = World()
    read = reading(world)
    assert read.projection is not None
    market = read.projection.markets[0]
    labels = of(market)
    got = values(read)

    def series(name: str, **more: str) -> float | None:
        return got.get((f"liqmon_{name}", frozenset({**labels, **more}.items())))

    assert series("reference_price") == market.reference_price
    assert series("market_stale") == 0.0
    assert series("coverage_ratio") == market.coverage_ratio
    assert market.reference_price is not None
    assert series("observed_notional_usd", side="long") == market.observed_long_base * market.reference_price
    near = [c for c in market.clusters if c.side == "short" and abs(c.distance_ratio) <= 0.05]
    assert near
    assert series("cluster_notional_usd", side="short", within="0.05") == pytest.approx(sum(c.notional_usd for c in near))
    largest = max((c for c in market.clusters if c.side == "long"), key=lambda c: c.notional_usd)
    assert series("largest_cluster_distance_ratio", side="long") == largest.distance_ratio
    assert largest.distance_ratio < 0
    histogram = market.histogram
    assert histogram is not None
    within = [abs(price / market.reference_price - 1) <= 0.1 for price in histogram.price]
    triggers = sum(usd for usd, inside in zip(histogram.long_usd, within, strict=True) if inside)
    assert series("trigger_notional_usd", side="long", within="0.1") == pytest.approx(triggers)
    assert series("liquidated_usd_total", side="long", completeness="partial") == market.liquidated_long_usd
    assert series("landing_book_exhausted", side="long", scenario="3") == 1.0
    assert got[("liqmon_alerts_firing", frozenset({("name", "ClusterNear"), ("severity", "warning")}))] == 1.0
    errors = frozenset({("venue", "hyperliquid"), ("reason", "bad_json")})
    assert got[("liqmon_venue_parse_errors_total", errors)] == 3.0
    assert got[("liqmon_web_cut_connections_total", frozenset())] == 2.0


def test_a_barrier_is_taken_at_the_first_level_at_or_beyond_the_move() -> None:
    read = reading()
    assert read.projection is not None
    market = read.projection.markets[0]
    assert market.reference_price is not None
    assert market.cascade_down is not None
    assert market.cascade_up is not None
    down = [p for p in market.cascade_down.barrier if p.price <= market.reference_price * 0.98]
    up = [p for p in market.cascade_up.barrier if p.price >= market.reference_price * 1.02]
    assert value(read, "barrier_base", **of(market), move="-0.02") == down[0].volume_base
    assert value(read, "barrier_upper_base", **of(market), move="0.02") == up[0].upper_base
    # The book of the test world ends before 10 %: no number is better than a wrong one.
    assert value(read, "barrier_base", **of(market), move="-0.1") is None


def test_survival_is_that_of_the_largest_exogenous_volume() -> None:
    world = World()
    projection = world.step()
    market = projection.markets[0]
    cascade = market.cascade_down
    assert cascade is not None
    assert market.reference_price is not None
    smaller = tuple(msgspec.structs.replace(p, exogenous_base=1.0, survival_ratio=0.123) for p in cascade.survival)
    both = msgspec.structs.replace(cascade, survival=(*smaller, *cascade.survival))
    read = reading(world, projection=with_market(projection, cascade_down=both))
    expected = next(p for p in cascade.survival if p.price <= market.reference_price * 0.99)
    assert value(read, "survival_ratio", **of(market), move="-0.01") == expected.survival_ratio


def test_a_stale_market_has_only_staleness_ages_and_feeds() -> None:
    world = World()
    world.markets[0].stale_reasons = ("book silent for 41 s",)
    read = reading(world)
    names = {name for name, labels in values(read) if ("symbol", "BTC") in labels}
    assert names == {
        "liqmon_market_stale",
        "liqmon_reference_age_seconds",
        "liqmon_oldest_account_age_seconds",
        "liqmon_median_account_age_seconds",
        "liqmon_feed_age_seconds",
        "liqmon_feed_stale",
    }
    assert read.projection is not None
    assert value(read, "market_stale", **of(read.projection.markets[0])) == 1.0
    assert value(read, "reference_price", **of(read.projection.markets[1])) is not None
    assert value(read, "ready") == 1.0


def test_when_the_evaluation_has_stopped_every_market_is_stale_and_ages_go_on() -> None:
    read = reading(evaluation_late=True, evaluation_age_s=60.0)
    assert read.projection is not None
    for market in read.projection.markets:
        assert value(read, "market_stale", **of(market)) == 1.0
        assert value(read, "reference_price", **of(market)) is None
        assert value(read, "reference_age_seconds", **of(market)) == pytest.approx(60.4)
    assert value(read, "ready") == 0.0
    assert value(read, "projection_age_seconds") == 60.0


def test_unknown_numbers_have_no_series() -> None:
    world = World()
    changes: dict[str, Any] = {
        "coverage_ratio": None,
        "cascade_down": None,
        "histogram": None,
        "clusters": (),
        "typical_flow_base": None,
        "liquidation_completeness": "none",
    }
    projection = with_market(world.step(), **changes)
    got = {name for name, labels in values(reading(world, projection=projection)) if ("symbol", "BTC") in labels}
    for absent in ("coverage_ratio", "cluster_notional_usd", "trigger_notional_usd", "typical_flow_base", "liquidated_usd_total"):
        assert f"liqmon_{absent}" not in got
    assert "liqmon_barrier_base" in got  # of the other direction


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_left_out_and_counted(bad: float) -> None:
    world = World()
    projection = with_market(world.step(), index_price=bad, coverage_ratio=bad)
    read = reading(world, projection=projection)
    text = exposition(read).decode()
    assert not re.search(r"[ ](NaN|[+-]?Inf)\b", text)
    assert value(read, "series_invalid_total") == 2.0


def test_a_label_bomb_stays_under_the_cap_and_is_counted() -> None:
    names = tuple(("hyperliquid", f"COIN{index}", 10.0) for index in range(3))
    world = World(markets=names)
    market = world.step().markets[0]
    markets = tuple(msgspec.structs.replace(market, symbol=f"COIN{index}") for index in range(2_000))
    projection = Projection(world.now_ns, 1, markets, world.venues())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProjectionCollector(lambda: reading(world, projection=projection), max_series=20_000))
    started = time.process_time()
    first = generate_latest(registry).decode()
    took_s = time.process_time() - started
    samples = [line for line in first.splitlines() if not line.startswith("#")]
    assert len(samples) == 20_000
    assert took_s < 1.0
    dropped = float(re.search(r"^liqmon_series_dropped_total (\S+)$", first, re.MULTILINE)[1])  # type: ignore[index]
    assert dropped > 100_000
    second = generate_latest(registry).decode()
    again = float(re.search(r"^liqmon_series_dropped_total (\S+)$", second, re.MULTILINE)[1])  # type: ignore[index]
    assert again == 2 * dropped
    # Health comes before values, so staleness of every market survives the cap.
    assert sum(line.startswith("liqmon_market_stale{") for line in samples) == 2_000


def test_labels_are_few_bounded_and_never_an_account() -> None:
    for family in CATALOGUE.values():
        assert set(family.labels) <= LABELS | OPERATIONAL_LABELS, family.name
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
    for _, labels in values(reading()):
        names = {name for name, _ in labels}
        assert not any("account" in name for name in names)


def test_the_openmetrics_text_parses_and_can_be_stamped_for_backfilling() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProjectionCollector(reading, timestamp_s=1_700_000_000.5))
    text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    families = list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    assert len(families) > 60
    stamps = [sample.timestamp for family in families for sample in family.samples]
    assert {float(stamp) for stamp in stamps if stamp is not None} == {1_700_000_000.5}
    assert None not in stamps


def with_disagreements() -> Reading:
    read = reading()
    assert read.projection is not None
    counts = DisagreementCounts("liquidation_price", (1e-9, 1e-6, 0.1), (5, 3, 1, 2), 4.5)
    venue = msgspec.structs.replace(read.projection.venues[0], disagreements=(counts,))
    return msgspec.structs.replace(read, projection=msgspec.structs.replace(read.projection, venues=(venue,)))


def test_disagreements_with_a_venue_are_a_histogram_of_relative_differences() -> None:
    read = with_disagreements()
    assert read.projection is not None
    labels = {"venue": read.projection.venues[0].venue, "figure": "liquidation_price"}
    buckets = [value(read, "account_disagreement_ratio_bucket", **labels, le=bound) for bound in ("1e-09", "1e-06", "0.1", "+Inf")]
    assert buckets == [5.0, 8.0, 9.0, 11.0]
    assert value(read, "account_disagreement_ratio_count", **labels) == 11.0
    assert value(read, "account_disagreement_ratio_sum", **labels) == 4.5
    assert value(read, "account_disagreement_ratio_count", venue="elsewhere", figure="liquidation_price") is None


def test_a_histogram_that_does_not_fit_the_cap_is_left_out_whole_and_counted() -> None:
    read = with_disagreements()
    series = value(read, "series")
    assert series is not None
    for limit in range(30, 40):
        got = [name for name, _ in values(read, max_series=limit) if name.startswith("liqmon_account_disagreement")]
        assert len(got) in {0, 6}


def test_every_family_of_the_catalogue_can_occur() -> None:
    got = {name.removesuffix("_bucket") for name, _ in values(with_disagreements())}
    # The market and its up and down cascades fill everything in the test world.
    assert set(CATALOGUE) - got == set()
