"""The metrics of a replay as text that Prometheus takes in."""

from __future__ import annotations

import itertools
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from monitor import openmetrics
from monitor.openmetrics import SAMPLE_EVERY_NS, OpenMetricsLog
from monitor.projection import MarketProjection, Projection, VenueHealth
from tests.monitor.projections import START_NS, cluster, market, projection, stale
from tests.servers import find_binary

MINUTE_S = SAMPLE_EVERY_NS / 1e9


def log_of(*projections: Projection) -> OpenMetricsLog:
    log = OpenMetricsLog()
    for one in projections:
        log.add(one)
    return log


def samples(text: bytes) -> Iterator[Sample]:
    """Read the text as strictly as the format's own reference parser does."""
    families = list(text_string_to_metric_families(text.decode()))  # type: ignore[no-untyped-call]
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family is in two parts"
    return itertools.chain.from_iterable(family.samples for family in families)


def values(text: bytes, name: str, **labels: str) -> list[tuple[float, float]]:
    """Return (seconds since the start, value) of one series."""
    return [
        (round(float(sample.timestamp) - START_NS / 1e9, 6), sample.value)
        for sample in samples(text)
        if sample.name == name and labels.items() <= sample.labels.items() and sample.timestamp is not None
    ]


def at_price(seconds: float, price: float, **more: object) -> Projection:
    return projection(seconds, market([cluster()], reference_price=price, **more))


def test_one_sample_a_minute_is_kept_with_its_recorded_time() -> None:
    every_second = [at_price(second, 60_000.0 + second) for second in range(200)]
    text = log_of(*every_second).render()
    assert values(text, "liqmon_reference_price") == [
        (0.0, 60_000.0),
        (MINUTE_S, 60_060.0),
        (2 * MINUTE_S, 60_120.0),
        (3 * MINUTE_S, 60_180.0),
    ]


def test_after_a_hole_the_minutes_are_counted_from_what_comes_next() -> None:
    text = log_of(*(at_price(second, second + 1.0) for second in (0.0, 30.0, 100.0, 130.0, 161.0))).render()
    assert values(text, "liqmon_reference_price") == [(0.0, 1.0), (100.0, 101.0), (161.0, 162.0)]


def test_the_samples_of_a_series_stand_together_in_order_of_time() -> None:
    two = [projection(minute * MINUTE_S, market(), market(symbol="ETH", reference_price=3_000.0)) for minute in range(4)]
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = defaultdict(list)
    order = []
    for sample in samples(log_of(*two).render()):
        key = (sample.name, tuple(sorted(sample.labels.items())))
        order.append(key)
        assert sample.timestamp is not None
        series[key].append(float(sample.timestamp))
    assert len([key for key, _ in itertools.groupby(order)]) == len(series)
    assert all(stamps == sorted(set(stamps)) for stamps in series.values())
    assert all(len(stamps) == 4 for stamps in series.values())


def test_a_stale_market_leaves_a_hole_in_its_values_and_says_that_it_was_stale() -> None:
    live = market()
    text = log_of(projection(0.0, live), projection(MINUTE_S, stale(live)), projection(2 * MINUTE_S, live)).render()
    assert [second for second, _ in values(text, "liqmon_reference_price")] == [0.0, 2 * MINUTE_S]
    assert values(text, "liqmon_market_stale") == [(0.0, 0.0), (MINUTE_S, 1.0), (2 * MINUTE_S, 0.0)]


def test_a_market_that_appears_later_joins_the_families_that_are_there() -> None:
    text = log_of(projection(0.0, market()), projection(MINUTE_S, market(), market(symbol="ETH"))).render()
    assert values(text, "liqmon_best_bid_price", symbol="ETH") == [(MINUTE_S, 59_999.0)]
    assert len(values(text, "liqmon_best_bid_price", symbol="BTC")) == 2


def test_counters_of_the_venue_are_written_as_counters() -> None:
    health = VenueHealth("hyperliquid", 10, 20, {"not_json": 3}, 1, 5, 4, 1, 0, 0, 0, 0, 0, 0, ())
    log = log_of(msgspec.structs.replace(projection(0.0, market()), venues=(health,)))
    assert b"# TYPE liqmon_venue_parse_errors counter" in log.render()
    assert values(log.render(), "liqmon_venue_parse_errors_total", reason="not_json") == [(0.0, 3.0)]


def test_without_a_projection_there_is_only_the_end() -> None:
    assert OpenMetricsLog().render() == b"# EOF\n"


def test_rendering_twice_gives_the_same_text() -> None:
    log = log_of(at_price(0.0, 1.0), at_price(60.0, 2.0))
    assert log.render() == log.render()


def test_samples_beyond_the_bound_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(list(samples(log_of(at_price(0.0, 1.0)).render())))
    monkeypatch.setattr(openmetrics, "SAMPLES_MAX", whole + 10)
    log = log_of(at_price(0.0, 1.0), at_price(60.0, 1.0), at_price(120.0, 1.0))
    assert len(list(samples(log.render()))) == whole + 10
    assert log.dropped == 2 * whole - 10


def test_names_with_quotes_and_line_feeds_stay_one_label() -> None:
    odd: MarketProjection = market(symbol='A"\\\nB')
    text = log_of(projection(0.0, odd)).render()
    assert {sample.labels["symbol"] for sample in samples(text) if "symbol" in sample.labels} == {'A"\\\nB'}


def test_promtool_makes_blocks_of_it(tmp_path: Path) -> None:
    promtool = find_binary("promtool", "prometheus")
    file = tmp_path / "metrics.om"
    file.write_bytes(log_of(*(at_price(minute * MINUTE_S, 60_000.0 + minute) for minute in range(30))).render())
    (tmp_path / "blocks" / "wal").mkdir(parents=True)
    made = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", file, tmp_path / "blocks"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    dump = subprocess.run([promtool, "tsdb", "dump", tmp_path / "blocks"], capture_output=True, text=True, timeout=60, check=True)
    prices = [line.split()[-2:] for line in dump.stdout.splitlines() if '"liqmon_reference_price"' in line]
    expected = [(60_000.0 + minute, START_NS // 1_000_000 + round(minute * MINUTE_S * 1e3)) for minute in range(30)]
    assert [(float(value), int(stamp)) for value, stamp in prices] == expected
