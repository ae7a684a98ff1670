"""The benchmarks run, and their report holds what it should. Nothing here looks at how long anything took."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from connectors.frames import Frame
from connectors.hyperliquid import Hyperliquid
from monitor.triggers import sweep
from tests.bench import accounts
from tests.bench.__main__ import SECTIONS, main, run
from tests.bench.filling import fill_legs
from tests.bench.frames import NoRecordingsError
from tests.bench.frames import measure as measure_frames
from tests.bench.population import as_legs, draw_population
from tests.bench.report import Report, Row, render
from tests.bench.rounds import interleave, timing_rows
from tests.bench.wire import Load, instruments_payload


def by_section(rows: list[Row] | tuple[Row, ...]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.section, {})[row.what] = row
    return found


@pytest.mark.parametrize("section", ["sweep", "cascade"])
def test_a_section_compares_everything_with_its_floor(section: str) -> None:
    for rows in by_section(SECTIONS[section](quick=True)).values():
        floor = next(iter(rows.values()))
        assert floor.ratio == floor.ratio_least == 1.0
        assert "floor" in floor.note
        for row in rows.values():
            assert row.median > 0.0
            assert row.least is not None
            assert 0.0 < row.least <= row.median
            assert row.ratio is not None
            assert row.ratio > 0.0


def test_the_account_table_is_weighed_and_everything_between_sweeps_is_compared_with_one() -> None:
    memory, between = by_section(SECTIONS["accounts"](quick=True)).values()
    arrays, rows, everything = (row.median for row in memory.values())
    assert 0.0 < arrays < rows < everything
    assert {row.target for row in memory.values()} == {100.0}
    assert next(iter(between)) == "full sweep"
    assert between["tick of the largest market"].target_ratio == 0.1
    assert all(row.ratio is not None and row.ratio > 0.0 for row in between.values())
    # The fills were carried, not refused, and the sums they changed are right.
    *_, trades = between.values()
    assert "0 unexplained, 0 contradicted; drift of the sums " in trades.note
    assert float(trades.note.rsplit(" ", 1)[1]) < 1e-9


def test_a_burst_changes_the_positions_that_it_is_drawn_for() -> None:
    population = draw_population(3_000)
    engine = accounts._engine(population)
    accounts._fill(engine, population)
    legs = engine.accounts.legs
    bursts = accounts.Bursts(engine, population)
    sizes = [legs.column(market).size.copy() for market in range(population.price.size)]
    bursts.fills()()
    bursts.trades()()
    changed = sum(np.count_nonzero(size != legs.column(market).size[: size.size]) for market, size in enumerate(sizes))
    assert changed > 1_000
    assert legs.leg_count == 3_000
    counts = engine.accounts.counts(accounts.VENUE, accounts.START_NS, 1)
    assert counts.live == counts.known == population.cash_usd.size


def test_a_table_filled_at_once_is_the_one_that_events_make() -> None:
    population = draw_population(3_000)
    engine = accounts._engine(population)
    accounts._fill(engine, population)
    by_event, at_once = engine.accounts.legs, fill_legs(population)
    rows = population.cash_usd.size + 1
    assert at_once.row_count == by_event.row_count == rows
    for row in range(rows):
        assert list(at_once.legs_of(row)) == list(by_event.legs_of(row))
    for name in ("cash_usd", "surplus_usd", "gross_usd", "distance_ratio"):
        np.testing.assert_allclose(getattr(at_once, name)[:rows], getattr(by_event, name)[:rows], rtol=1e-9)
    for market in range(population.price.size):
        mine, theirs = at_once.column(market), by_event.column(market)
        assert mine.count == theirs.count
        for name in ("row", "size", "slope", "second", "following", "entry_price", "venue_price", "is_holding"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name)[: theirs.count])
    # Both go on from there.
    at_once.set_price(0, float(population.price[0]) * 1.01)
    assert at_once.sweep().largest_ratio < 1e-9


@pytest.mark.usefixtures("shared_data")
def test_recorded_frames_are_parsed_applied_and_replayed() -> None:
    (rows,) = by_section(measure_frames(quick=True)).values()
    assert list(rows) == [
        "orjson.loads",
        "parse",
        "parse and apply",
        "orjson.loads, again",
        "read from file",
        "read, apply and project",
    ]
    assert rows["parse and apply"].target_ratio == 2.5
    # What was measured is the work itself and not its refusal.
    assert "1,540 frames" in rows["parse and apply"].note
    assert ", 0 refused, 0 gaps" in rows["parse and apply"].note


def test_a_daemon_under_load_answers_marks_and_says_where_its_time_goes() -> None:
    handlers = logging.getLogger().handlers[:]
    answered, alone, stages = by_section(SECTIONS["latency"](quick=True)).values()
    assert "messages/s" in answered["mark put to projection, median"].section
    assert math.isfinite(answered["mark put to projection, median"].median)
    assert answered["mark put to projection, median"].target == 35.0
    assert answered["mark put to projection, p99"].median >= answered["mark put to projection, median"].median
    assert "24,000 positions" in answered["clusters per market"].note
    assert answered["clusters per market"].median > 0
    assert "0 refused, 0 gaps" in answered["messages"].note
    assert list(alone) == ["freeze", "evaluate", "adopt", "publish", "all four"]
    assert {"loop: freeze", "thread: evaluate", "loop: publish", "  all prices", "  triggers"} <= set(stages)
    assert logging.getLogger().handlers == handlers


def test_the_report_is_written_as_a_table_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cascade", "--quick", "--json", str(tmp_path / "bench.json")]) == 0
    report = msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Report)
    text = capsys.readouterr().out
    assert report.quick
    assert report.environment.cores_usable >= 1
    assert report.environment.libraries["numpy"] == np.__version__
    assert {row.section for row in report.rows} == {
        "cascade: full resolution, 500 triggers, 50 levels",
        "cascade: aggregated, 500 triggers, 50 levels",
    }
    assert report.environment.waited_s is None or report.environment.waited_s >= 0.0
    for word in ("python ", "build ", "machine ", "noise ", "x floor", "nothing about speed", "  barrier"):
        assert word in text


def test_a_section_without_its_data_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NoRecordingsError, match="no recordings"):
        measure_frames(quick=True, data=tmp_path)
    monkeypatch.setitem(SECTIONS, "frames", lambda *, quick: measure_frames(quick=quick, data=tmp_path))
    report = run(["frames"], quick=True)
    assert report.rows == ()
    assert "no recordings" in report.omitted["frames"]
    assert "left out: frames: no recordings" in render(report)


def test_a_section_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["speed"])
    assert stopped.value.code == 2
    assert "no such section: speed" in capsys.readouterr().err


def test_rounds_interleave_and_compare_within_each_round() -> None:
    calls: list[str] = []
    times = interleave({name: lambda name=name: lambda: calls.append(name) for name in "ab"}, 2)  # type: ignore[misc]
    # One round to warm up and two that count; each begins with the other step.
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [len(seconds) for seconds in times.values()] == [2, 2]
    rows = timing_rows("s", {"floor": [1.0, 2.0, 4.0], "step": [2.0, 6.0, 4.0]}, floor="floor", scale=1e3, unit="ms")
    assert (rows[1].median, rows[1].least, rows[1].ratio, rows[1].ratio_least) == (4_000.0, 2_000.0, 2.0, 2.0)


def test_the_population_is_one_that_a_venue_could_have() -> None:
    population = draw_population(30_000)
    pairs = population.account.astype(np.int64) * population.price.size + population.market
    assert np.unique(pairs).size == 30_000
    assert (np.diff(population.account) >= 0).all()
    legs, tiers = as_legs(population)
    swept = sweep(legs, population.cash_usd, population.price, tiers)
    # Everybody is above maintenance, and a good part within a move that the histogram covers.
    assert (swept.surplus_usd >= 0.0).all()
    assert 0.1 < np.mean(np.abs(swept.shock) < 0.25) < 0.9


def test_the_load_is_what_the_venue_file_understands() -> None:
    venue = Hyperliquid()
    price = np.array([10.4, 99_999.7, 0.0812])
    load = Load(price, open_interest=np.array([1.0, 2.0, 3.0]))
    parsed = venue.parse(Frame("hyperliquid", "rest", 1, instruments_payload(3)))
    assert len(parsed[0].instruments) == 3  # type: ignore[union-attr]
    for kind, messages in load.once().items():
        for message in messages:
            events = venue.parse(Frame("hyperliquid", message.connection, 1, message.payload(b"1790232236546")))
            assert events, kind
    marks: dict[tuple[int, float], int] = {}
    for second in load.seconds(3, scale=0.5):
        for message in second:
            if message.market >= 0:
                marks[message.market, message.price] = marks.get((message.market, message.price), 0) + 1
    # Every market has one mark a second, whatever the scale, and no price comes twice.
    assert sorted(market for market, _ in marks) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert set(marks.values()) == {1}
