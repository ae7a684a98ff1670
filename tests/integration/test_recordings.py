"""Real recordings from the first byte to the projections, compared with what the venue itself said at every moment."""

from __future__ import annotations

import bisect
import gzip
import hashlib
import heapq
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgspec
import pytest

from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.registry import VENUES
from monitor.projection import MarketProjection, Projection, encode_market
from monitor.replay import Replay
from monitor.schema import FOLDER
from tests.conftest import missing
from tests.integration.captures import BTC, ETH, LIQMON, NS, Capture, book_of, environment, is_depth, replayed, settings
from tests.servers import find_binary

# ------------------------------------------------------------------------------------------- the command, on whole recordings

TIMEOUT_S = 100.0


class Output(NamedTuple):
    """What two runs of the command over the same files left; ``lines`` is of the first."""

    capture: Capture
    stdout: str
    summaries: tuple[dict[str, Any], dict[str, Any]]
    lines: Path
    metrics: Path


@pytest.fixture(scope="module", params=[BTC, ETH], ids=lambda capture: capture.symbol)
def output(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Output]:
    """Run `liqmon replay` twice, side by side, under different seeds of Python's hashes, on which no order may depend."""
    if not Path(LIQMON).exists():
        missing(f"liqmon is not installed as {LIQMON}")
    capture: Capture = request.param
    folder = tmp_path_factory.mktemp(capture.symbol)
    lines, metrics = folder / "projections.jsonl", folder / "metrics.om"
    runs = [
        subprocess.Popen(
            [LIQMON, "replay", *map(str, capture.paths(shared_data)), "--summary", str(folder / f"{seed}.json"), *more],
            env=environment(PYTHONHASHSEED=str(seed)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed, more in enumerate([["--projections", str(lines), "--openmetrics", str(metrics)], []])
    ]
    try:
        results = [run.communicate(timeout=TIMEOUT_S) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [(run.returncode, stderr) for run, (_, stderr) in zip(runs, results, strict=True)] == [(0, b""), (0, b"")]
    first, second = (json.loads((folder / f"{seed}.json").read_bytes()) for seed in range(2))
    yield Output(capture, results[0][0].decode(), (first, second), lines, metrics)
    lines.unlink()  # 80 MB that pytest would keep.


def test_a_real_recording_replays_without_errors_or_gaps_and_twice_to_the_same_bytes(output: Output) -> None:
    first, second = output.summaries
    assert first["frames"] == {"BTCUSDT": 73_765, "ETHUSDT": 69_913}[output.capture.symbol]
    assert first["parse_errors"] == {}
    assert first["gaps"] == 0
    assert first["projections_sha256"] == second["projections_sha256"]
    assert hashlib.sha256(output.lines.read_bytes()).hexdigest() == first["projections_sha256"]
    measured = {"wall_seconds", "frames_per_second"}
    assert {key: first[key] for key in first.keys() - measured} == {key: second[key] for key in second.keys() - measured}
    [market] = first["markets"]
    assert (market["venue"], market["symbol"], market["stale"]) == ("binance", output.capture.symbol, False)


def test_the_command_says_what_it_did_in_whole_lines(output: Output) -> None:
    summary = output.summaries[0]
    counts, digest, market = output.stdout.splitlines()
    assert counts.startswith(f"{summary['frames']:,} frames, {summary['events']:,} events, 0 gaps, parse errors: {{}}; ")
    assert digest == f"{summary['projections']:,} projections, sha256 {summary['projections_sha256']}"
    assert market.startswith(f"  binance {output.capture.symbol}: reference {summary['markets'][0]['reference_price']}, bid ")


def test_every_projection_and_the_summary_follow_the_published_schemas(output: Output) -> None:
    schema = json.loads((FOLDER / "projection.schema.json").read_bytes())
    # Validating 70 MB would take minutes. The schema looks at types and words only, so lines that differ in nothing but the digits
    # of their numbers are valid together, and one of each kind is validated.
    bounds = re.compile(rb'"(minimum|maximum|exclusiveMinimum|exclusiveMaximum|multipleOf|pattern|minLength|maxLength|const)"')
    assert not bounds.search((FOLDER / "projection.schema.json").read_bytes())
    digits = re.compile(rb"(?<=[:\[,])-?\d+(\.\d+)?([eE][-+]?\d+)?(?=[,\]}])")
    kinds: dict[bytes, int] = {}
    count = 0
    with output.lines.open("rb") as lines:
        for line in lines:
            kind = digits.sub(lambda match: b"1" if match[1] is None and match[2] is None else b"1.5", line)
            kinds[kind] = kinds.get(kind, 0) + 1
            count += 1
    assert count == output.summaries[0]["projections"]
    assert len(kinds) < count / 4, "too many kinds of lines to validate them one by one"
    validator = jsonschema.Draft202012Validator(schema)
    for kind in kinds:
        validator.validate(json.loads(kind))
    summary_schema = json.loads((FOLDER / "summary.schema.json").read_bytes())
    for summary in output.summaries:
        jsonschema.Draft202012Validator(summary_schema).validate(summary)


def test_projections_come_ten_times_a_second_in_order_and_hold_no_impossible_number(output: Output) -> None:
    before_ns = 0
    live = 0
    count = 0
    with output.lines.open("rb") as lines:
        for line in lines:
            market = msgspec.json.decode(line)
            count += 1
            assert market["as_of_ns"] > before_ns
            before_ns = market["as_of_ns"]
            if market["stale"]:
                assert market["stale_reasons"]
                continue
            live += 1
            assert market["best_bid"] < market["best_ask"]
            # A mark price is smoothed, but never far from the book of a market as busy as these.
            assert market["best_bid"] * 0.995 < market["reference_price"] < market["best_ask"] * 1.005
            for direction, sign in (("down", -1.0), ("up", 1.0)):
                points = market["cascade"][direction]["barrier"]
                assert all((after["price"] - before["price"]) * sign > 0.0 for before, after in itertools.pairwise(points))
                assert all(after["volume_base"] >= before["volume_base"] >= 0.0 for before, after in itertools.pairwise(points))
    span_s = output.summaries[0]["span_seconds"]
    assert span_s * 9.0 < count < span_s * 10.1
    assert live > 0.95 * count


def test_the_metrics_of_a_replay_become_blocks_of_a_real_prometheus(output: Output, tmp_path: Path) -> None:
    promtool = find_binary("promtool", "prometheus")
    (tmp_path / "wal").mkdir()  # Without it promtool does not take a folder for one of Prometheus.
    made = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", output.metrics, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    dump = subprocess.run([promtool, "tsdb", "dump", tmp_path], capture_output=True, text=True, timeout=60, check=True).stdout
    stored = re.findall(r'^\{__name__="liqmon_best_bid_price"[^}]*\} (\S+) (\d+)$', dump, re.MULTILINE)
    # One sample a minute, each at its recorded time (Prometheus keeps milliseconds) with the value that was projected then.
    projected = {}
    with output.lines.open("rb") as lines:
        for line in lines:
            market = msgspec.json.decode(line)
            projected[market["as_of_ns"] // 1_000_000] = market["best_bid"]
    assert len(stored) == {"BTCUSDT": 8, "ETHUSDT": 7}[output.capture.symbol]
    assert all(float(value) == projected[int(stamp)] for value, stamp in stored)
    stamps = sorted(int(stamp) for _, stamp in stored)
    assert all(60_000 <= later - earlier < 61_000 for earlier, later in itertools.pairwise(stamps))


# ------------------------------------------------------------------------------------------------- the book against the ticker


class Truth(NamedTuple):
    """What the venue's own ticker says, taken from the raw file without any of our parsers."""

    update_ids: list[int]
    touches: list[tuple[float, float]]

    def at(self, update_id: int) -> tuple[float, float] | None:
        """Return best bid and ask as of the last ticker that is not newer than a change of the book."""
        index = bisect.bisect_right(self.update_ids, update_id) - 1
        return self.touches[index] if index >= 0 else None


def truth_of(capture: Capture, shared_data: Path) -> Truth:
    tickers = []
    for path in capture.paths(shared_data):
        with gzip.open(path, "rb") as lines:
            for line in lines:
                if b"@bookTicker" in line[:80]:
                    data = json.loads(line.partition(b" ")[2])["data"]
                    tickers.append((data["u"], (float(data["b"]), float(data["a"]))))
    tickers.sort()
    return Truth([update_id for update_id, _ in tickers], [touch for _, touch in tickers])


@pytest.mark.parametrize(
    ("capture", "compared", "passed_over"), [(BTC, 16_110, 0), (ETH, 8_922, 7)], ids=["BTCUSDT 2023", "ETHUSDT 2024"]
)
def test_best_bid_and_ask_equal_the_ticker_after_every_change_of_the_book(
    shared_data: Path, capture: Capture, compared: int, passed_over: int
) -> None:
    truth = truth_of(capture, shared_data)
    replay = Replay(settings(), VENUES)
    equal = 0
    before_snapshot = 0
    for frame in replay.feed(capture.frames(shared_data)):
        if not is_depth(frame):
            continue
        touch = replay.engine.touch("binance", capture.symbol)
        if touch == (None, None):
            assert equal == 0, "the book was lost after it had been there"
            before_snapshot += 1
            continue
        update_id = json.loads(frame.payload or b"")["data"]["u"]
        assert touch == truth.at(update_id), f"after update {update_id}"
        equal += 1
    assert (equal, before_snapshot) == (compared, passed_over)
    assert replay.engine.counters["binance"].gaps == 0


# ------------------------------------------------------------------------------------------------------- recordings gone wrong


STRETCH = 12_000
"""Frames of each recording for the tests below: more than a minute of each market, snapshot included."""


@pytest.fixture(scope="module")
def two_markets(shared_data: Path) -> list[Frame]:
    """The beginnings of both recordings as if they had been received at the same time, on the same connections."""
    btc, eth = BTC.frames(shared_data)[:STRETCH], ETH.frames(shared_data)[:STRETCH]
    later_ns = eth[0].received_ns - btc[0].received_ns
    moved = [msgspec.structs.replace(frame, received_ns=frame.received_ns - later_ns) for frame in eth]
    end_ns = min(btc[-1].received_ns, moved[-1].received_ns)
    merged = heapq.merge(btc, moved, key=lambda frame: frame.received_ns)
    return [frame for frame in merged if frame.received_ns <= end_ns]


class Watched(NamedTuple):
    """A replay and all its projections."""

    replay: Replay
    projections: list[Projection]

    def markets(self, symbol: str) -> list[MarketProjection]:
        found = (market for projection in self.projections for market in projection.markets)
        return [market for market in found if market.symbol == symbol]

    @property
    def errors(self) -> dict[str, int]:
        return self.replay.engine.counters["binance"].parse_errors

    @property
    def gaps(self) -> int:
        return self.replay.engine.counters["binance"].gaps

    @property
    def digest(self) -> str:
        return self.replay.summary(1.0).projections_sha256


def watch(frames: list[Frame], *, interval_ms: int = 500) -> Watched:
    projections: list[Projection] = []
    replay = Replay(settings(interval_ms=interval_ms), VENUES, on_projection=projections.append)
    replay.run(frames)
    return Watched(replay, projections)


@pytest.fixture(scope="module")
def clean(two_markets: list[Frame]) -> Watched:
    watched = watch(two_markets)
    assert (watched.errors, watched.gaps) == ({}, 0)
    assert all(not market.stale for market in watched.projections[-1].markets)
    return watched


def middle(frames: list[Frame], symbol: str) -> int:
    """Return where the change of a book stands that is closest behind the middle."""
    return next(index for index in range(len(frames) // 2, len(frames)) if is_depth(frames[index], symbol))


def assert_lost(market: MarketProjection) -> None:
    """A market whose book is lost shows nothing that was made of it."""
    assert market.stale
    assert any(reason.startswith("book: ") for reason in market.stale_reasons)
    assert (market.best_bid, market.best_ask, market.book_levels) == (None, None, 0)
    assert (market.cascade_down, market.cascade_up) == (None, None)


@pytest.mark.parametrize(("lost", "other"), [("BTCUSDT", "ETHUSDT"), ("ETHUSDT", "BTCUSDT")])
def test_one_lost_change_of_a_book_makes_exactly_that_market_stale_from_there_on(
    two_markets: list[Frame], clean: Watched, lost: str, other: str
) -> None:
    index = middle(two_markets, lost)
    gap_ns = next(frame.received_ns for frame in two_markets[index + 1 :] if is_depth(frame, lost))
    watched = watch([*two_markets[:index], *two_markets[index + 1 :]])
    assert watched.gaps == 1
    assert watched.errors == {}
    for market in watched.markets(lost):
        if market.as_of_ns >= gap_ns:
            assert_lost(market)
    # Up to the gap, and of the other market throughout, not a byte differs.
    for symbol in (lost, other):
        pairs = list(zip(watched.markets(symbol), clean.markets(symbol), strict=True))
        same = [(one, two) for one, two in pairs if symbol == other or one.as_of_ns < two_markets[index].received_ns]
        assert len(same) > len(pairs) / 3
        assert all(encode_market(one) == encode_market(two) for one, two in same)


def test_a_new_snapshot_brings_a_lost_book_back_and_it_is_right_again(shared_data: Path, two_markets: list[Frame]) -> None:
    truth = truth_of(BTC, shared_data)
    index = middle(two_markets, "BTCUSDT")
    later = index + 400
    last_id = max(json.loads(frame.payload or b"")["data"]["u"] for frame in two_markets[:later] if is_depth(frame, "BTCUSDT"))
    # What the venue would have answered at that moment: the book of an undisturbed replay.
    book = book_of(replayed(two_markets[:later]).engine, "BTCUSDT")
    sides = {name: [[repr(price), repr(size)] for price, size in side[:1000]] for name, side in book._asdict().items()}
    answer = json.dumps({"lastUpdateId": last_id, "E": 1680652735000, "T": 1680652735000, **sides}).encode()
    payload = wrap_rest_response(RestRequest("GET", "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", weight=20), answer)
    snapshot = Frame("binance", "rest", two_markets[later - 1].received_ns, payload)
    replay = Replay(settings(), VENUES)
    right = lost = 0
    broken = [*two_markets[:index], *two_markets[index + 1 : later], snapshot, *two_markets[later:]]
    for frame in replay.feed(broken):
        if is_depth(frame, "BTCUSDT"):
            touch = replay.engine.touch("binance", "BTCUSDT")
            if touch == (None, None):
                lost += 1
            else:
                assert touch == truth.at(json.loads(frame.payload or b"")["data"]["u"])
                right += 1
    depths = sum(is_depth(frame, "BTCUSDT") for frame in broken)
    assert lost == sum(is_depth(frame, "BTCUSDT") for frame in two_markets[index + 1 : later]) > 10
    assert right == depths - lost
    assert replay.engine.counters["binance"].gaps == 1
    assert not replay.engine.project(two_markets[-1].received_ns).markets[0].stale


def test_two_changes_of_a_book_in_the_wrong_order_are_a_gap_and_not_a_wrong_book(two_markets: list[Frame]) -> None:
    first = middle(two_markets, "ETHUSDT")
    second = next(index for index in range(first + 1, len(two_markets)) if is_depth(two_markets[index], "ETHUSDT"))
    swapped = list(two_markets)
    swapped[first], swapped[second] = (
        msgspec.structs.replace(two_markets[other], received_ns=two_markets[place].received_ns)
        for place, other in ((first, second), (second, first))
    )
    watched = watch(swapped)
    assert watched.gaps == 1
    for market in watched.markets("ETHUSDT"):
        if market.as_of_ns >= two_markets[second].received_ns:
            assert_lost(market)
    assert not watched.projections[-1].markets[0].stale


def test_every_message_twice_gives_the_same_state_at_every_moment(two_markets: list[Frame], clean: Watched) -> None:
    doubled = watch([frame for frame in two_markets for _ in range(2)])
    assert doubled.digest == clean.digest
    assert (doubled.errors, doubled.gaps) == ({}, 0)
    assert doubled.projections[-1].markets == clean.projections[-1].markets
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert book_of(doubled.replay.engine, symbol) == book_of(clean.replay.engine, symbol)


def test_what_a_venue_repeats_after_a_reconnect_changes_nothing(two_markets: list[Frame], clean: Watched) -> None:
    # All of it is older than what is known; marks are left out, because the latest one counts whatever it is.
    last_ns = two_markets[-1].received_ns
    repeated = [
        msgspec.structs.replace(frame, received_ns=last_ns)
        for frame in two_markets[-2_000:]
        if b"@markPrice" not in (frame.payload or b"")[:60]
    ]
    watched = watch([*two_markets, *repeated])
    assert watched.gaps == 0
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert book_of(watched.replay.engine, symbol) == book_of(clean.replay.engine, symbol)
    for one, two in zip(watched.projections[-1].markets, clean.projections[-1].markets, strict=True):
        assert (one.typical_flow_base, one.best_bid, one.cascade_down) == (two.typical_flow_base, two.best_bid, two.cascade_down)


def hostile(depth: bytes) -> list[tuple[str, bytes, str]]:
    """Return (what it is, message, reason for refusing it), made of a real message of the same stream."""
    price = json.loads(depth)["data"]["b"][0][0].encode()
    quoted = b'"' + price + b'"'

    def with_price(text: bytes) -> bytes:
        return depth.replace(quoted, text, 1)

    return [
        ("torn", depth[: len(depth) // 2], "not_json"),
        ("empty", b"", "not_json"),
        ("binary", bytes(range(256)), "not_json"),
        ("an HTML page", b"<html><body>502 Bad Gateway</body></html>", "not_json"),
        ("truncated UTF-8 in a name", depth.replace(b'"s":"', b'"s":"\xe2\x82', 1), "not_json"),
        ("a name that is a list", re.sub(rb'"s":"\w+"', b'"s":["BTCUSDT"]', depth, count=1), "wrong_type"),
        ("no update id", re.sub(rb'"u":\d+,', b"", depth, count=1), "wrong_type"),
        ("levels that are no pairs", with_price(b'{"price":1}'), "wrong_type"),
        ("a word for a price", with_price(b'"cheap"'), "wrong_type"),
        ("NaN", with_price(b'"NaN"'), "bad_number"),
        ("infinity", with_price(b'"Infinity"'), "bad_number"),
        ("beyond a double", with_price(b'"1e999"'), "bad_number"),
        ("1e30", with_price(b'"1e30"'), "bad_number"),
        ("zero", with_price(b'"0.0"'), "bad_number"),
        ("negative", with_price(b'"-' + price + b'"'), "bad_number"),
        ("a negative update id", re.sub(rb'"u":(\d+)', rb'"u":-\1', depth, count=1), "bad_number"),
        ("nested 2,000 deep", b'{"stream":"btcusdt@depth@0ms","data":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "oversized"),
        ("17 MB", depth[:-1] + b" " * (17 * 1024 * 1024) + b"}", "oversized"),
        ("an unknown event", re.sub(rb'"e":"\w+"', b'"e":"surprise"', depth, count=1), "unknown_message"),
    ]


HOSTILE_NAMES = [name for name, _, _ in hostile(b'{"data":{"e":"depthUpdate","s":"A","u":1,"b":[["1","1"]]}}')]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_message_that_cannot_be_used_is_counted_and_changes_nothing_else(two_markets: list[Frame], name: str) -> None:
    index = middle(two_markets, "BTCUSDT")
    stretch = two_markets[: index + 300]
    at = stretch[index]
    payload, reason = next((payload, reason) for other, payload, reason in hostile(at.payload or b"") if other == name)
    # Beside the real messages it leaves no trace but its count.
    beside = [*stretch[:index], msgspec.structs.replace(at, payload=payload), *stretch[index:]]
    untouched, disturbed = replayed(stretch), replayed(beside)
    assert disturbed.engine.counters["binance"].parse_errors == {reason: 1}
    assert disturbed.engine.counters["binance"].gaps == 0
    assert disturbed.summary(1.0).projections_sha256 == untouched.summary(1.0).projections_sha256
    assert book_of(disturbed.engine, "BTCUSDT") == book_of(untouched.engine, "BTCUSDT")
    # In the place of a real one, the next change of that book shows that something is missing.
    instead = replayed([*stretch[:index], msgspec.structs.replace(at, payload=payload), *stretch[index + 1 :]])
    assert instead.engine.counters["binance"].parse_errors == {reason: 1}
    assert instead.engine.counters["binance"].gaps == 1
    assert instead.projection is not None
    btc, eth = instead.projection.markets
    assert_lost(btc)
    assert not eth.stale


def test_a_lost_connection_breaks_what_came_over_it_and_nothing_else(two_markets: list[Frame]) -> None:
    index = len(two_markets) // 2
    at_ns = two_markets[index].received_ns
    watched = watch([*two_markets[:index], Frame("binance", "public", at_ns, None), *two_markets[index:]])
    assert watched.gaps == 1
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for market in watched.markets(symbol):
            if market.as_of_ns >= at_ns:
                assert_lost(market)
                # Marks come over the other connection; the recording of ETHUSDT has none, so there the book was the only source.
                feeds = {feed.channel: feed for feed in market.feeds}
                assert feeds["mark"].stale is (symbol == "ETHUSDT")
                assert (market.reference_price is None) is (symbol == "ETHUSDT")
    other = watch([*two_markets[:index], Frame("binance", "market", at_ns, None), *two_markets[index:]])
    broken = [market for market in other.markets("BTCUSDT") if market.as_of_ns >= at_ns and market.stale]
    # Marks come once a second, so they are back with the next one; the book was never in doubt.
    assert 0 < len(broken) <= 4
    assert all(market.stale_reasons == ("mark: disconnected",) and market.best_bid is not None for market in broken)
    assert all(market.reference_price is None for market in broken)


def test_a_recording_that_falls_silent_ends_stale(two_markets: list[Frame]) -> None:
    last = two_markets[-1]
    # One message of another market an hour later: by then nothing of the two can be relied on.
    late = Frame(
        "binance",
        "market",
        last.received_ns + 3_600 * NS,
        (last.payload or b"").replace(b"usdt", b"usdc").replace(b"USDT", b"USDC"),
    )
    watched = watch([*two_markets, late], interval_ms=1_000)
    final = {market.symbol: market for market in watched.projections[-1].markets}
    for symbol, mark in (("BTCUSDT", "mark: silent for longer than 10 s"), ("ETHUSDT", "mark: nothing received")):
        assert_lost(final[symbol])
        assert final[symbol].stale_reasons == ("book: silent for longer than 15 s", mark)
    # The beginning of the silence is shown, the rest of the hour skipped.
    behind = [
        projection.as_of_ns - last.received_ns for projection in watched.projections if projection.as_of_ns > last.received_ns
    ]
    assert 50 < len(behind) < 70
    assert sorted(behind)[-2] < 65 * NS
    assert behind[-1] == 3_600 * NS
