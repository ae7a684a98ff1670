"""A replay: recorded receive times are the clock, and what it writes depends on nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.frames import Frame, RestRequest, wrap_rest_response
from connectors.registry import VENUES
from monitor.engine_settings import EngineSettings
from monitor.projection import Projection
from monitor.replay import SILENCE_MAX_NS, Replay
from monitor.settings import ProjectionSettings, StalenessSettings
from monitor.summary import ReplaySummary

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
MS = 1_000_000


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def mark(seconds: float, price: float = 100.0, symbol: str = "BTCUSDT") -> Frame:
    payload = {
        "e": "markPriceUpdate",
        "E": at(seconds) // MS,
        "s": symbol,
        "p": str(price),
        "i": str(price),
        "r": "0.0001",
        "T": at(60) // MS,
    }
    return Frame("binance", "market", at(seconds), json.dumps(payload, separators=(",", ":")).encode())


def delta(seconds: float, ids: tuple[int, int, int], symbol: str = "BTCUSDT") -> Frame:
    first, last, previous = ids
    payload = {
        "e": "depthUpdate",
        "E": at(seconds) // MS,
        "T": at(seconds) // MS,
        "s": symbol,
        "U": first,
        "u": last,
        "pu": previous,
        "b": [["99.0", "1"]],
        "a": [["101.0", "1"]],
    }
    return Frame("binance", "public", at(seconds), json.dumps(payload, separators=(",", ":")).encode())


def snapshot(seconds: float, last_id: int, symbol: str = "BTCUSDT") -> Frame:
    answer = json.dumps(
        {"lastUpdateId": last_id, "E": at(seconds) // MS, "T": at(seconds) // MS, "bids": [["99", "2"]], "asks": [["101", "2"]]}
    )
    request = RestRequest("GET", f"/fapi/v1/depth?symbol={symbol}&limit=1000", weight=20)
    return Frame("binance", "rest", at(seconds), wrap_rest_response(request, answer.encode()))


def market_list(seconds: float, *symbols: str) -> Frame:
    markets = [{"symbol": symbol, "status": "TRADING", "quoteAsset": "USDT", "filters": []} for symbol in symbols]
    answer = json.dumps({"symbols": markets}).encode()
    return Frame("binance", "rest", at(seconds), wrap_rest_response(RestRequest("GET", "/fapi/v1/exchangeInfo"), answer))


class Run:
    """A replay, with all that it handed out."""

    def __init__(self, *symbols: str, interval_ms: int = 100) -> None:
        self.projections: list[Projection] = []
        self.lines: list[bytes] = []
        self.replay = Replay(
            EngineSettings(
                symbols={"binance": symbols},
                projection=ProjectionSettings(interval_ms=interval_ms),
                staleness=StalenessSettings(),
                watch_all=not symbols,
            ),
            VENUES,
            on_projection=self.projections.append,
            on_line=self.lines.append,
        )

    def of(self, frames: Iterable[Frame]) -> Run:
        self.replay.run(frames)
        return self

    @property
    def times_s(self) -> list[float]:
        return [(projection.as_of_ns - START) / SECOND for projection in self.projections]

    @property
    def summary(self) -> ReplaySummary:
        return self.replay.summary(2.0)


def test_each_frame_is_handed_out_after_it_was_applied_and_before_the_next() -> None:
    run = Run()
    prices = []
    for frame in run.replay.feed([mark(0, 100.0), mark(0.01, 101.0), mark(0.02, 102.0)]):
        [market] = run.replay.engine.project(frame.received_ns).markets
        prices.append(market.reference_price)
    assert prices == [100.0, 101.0, 102.0]


def test_projections_fall_on_the_grid_that_begins_with_the_first_frame() -> None:
    run = Run().of([mark(0.0), mark(0.05), mark(0.1), mark(0.31), mark(0.35)])
    # None at the first frame, none at 0.3 because nothing had changed, and one more at the end.
    assert run.times_s == [0.1, 0.2, 0.35]


def test_a_projection_shows_the_state_before_the_frame_that_made_it_due() -> None:
    run = Run().of([mark(0.0, 100.0), mark(0.05, 101.0), mark(0.1, 102.0)])
    assert [market.reference_price for projection in run.projections for market in projection.markets] == [101.0, 102.0]
    assert run.times_s[0] == 0.1


def test_the_end_is_projected_once_more_if_something_came_at_the_moment_of_the_last_projection() -> None:
    run = Run().of([mark(0.0, 1.0), mark(0.0, 1.0, "ETHUSDT"), mark(0.1, 2.0)])
    written = [(json.loads(line)["symbol"], json.loads(line)["reference_price"]) for line in run.lines]
    assert run.times_s == [0.1, 0.1]
    # The market that did not change in between is written once.
    assert written == [("BTCUSDT", 1.0), ("ETHUSDT", 1.0), ("BTCUSDT", 2.0)]


def test_lines_digest_and_summary_agree() -> None:
    run = Run().of([mark(0.0), mark(0.2, symbol="ETHUSDT"), mark(0.5), mark(1.3)])
    digest = hashlib.sha256(b"".join(line + b"\n" for line in run.lines)).hexdigest()
    assert run.summary.projections_sha256 == digest
    assert run.summary.projections == len(run.lines) > 3
    stamps = [json.loads(line)["as_of_ns"] for line in run.lines]
    assert stamps == sorted(stamps)
    assert {json.loads(line)["symbol"] for line in run.lines} == {"BTCUSDT", "ETHUSDT"}


def test_a_market_that_did_not_change_is_not_written_again_until_its_refresh() -> None:
    run = Run("BTCUSDT", "ETHUSDT").of([mark(0.0), mark(0.0, symbol="ETHUSDT"), *(mark(0.1 * number) for number in range(1, 20))])
    written = [(round((json.loads(line)["as_of_ns"] - START) / SECOND, 1), json.loads(line)["symbol"]) for line in run.lines]
    assert [seconds for seconds, symbol in written if symbol == "ETHUSDT"] == [0.1, 1.1]
    assert len([seconds for seconds, symbol in written if symbol == "BTCUSDT"]) > 15


def test_the_summary_counts_and_measures() -> None:
    frames = [
        mark(0.0),
        Frame("binance", "market", at(1.0), b"{"),
        Frame("binance", "market", at(2.0), b'{"e":"markPriceUpdate","s":1}'),
        Frame("binance", "market", at(2.0), b"{"),
        Frame("binance", "market", at(3.0), None),
        mark(4.0),
    ]
    summary = Run().of(frames).summary
    assert (summary.frames, summary.events, summary.gaps) == (6, 3, 1)
    assert summary.parse_errors == {"not_json": 2, "wrong_type": 1}
    assert (summary.span_seconds, summary.wall_seconds, summary.frames_per_second) == (4.0, 2.0, 3.0)
    [market] = summary.markets
    assert (market.venue, market.symbol, market.reference_price, market.best_bid) == ("binance", "BTCUSDT", 100.0, None)


def test_an_empty_recording_gives_an_empty_summary() -> None:
    run = Run().of([])
    summary = run.replay.summary(0.0)
    assert (summary.frames, summary.projections, summary.span_seconds, summary.frames_per_second) == (0, 0, 0.0, 0.0)
    assert summary.projections_sha256 == hashlib.sha256(b"").hexdigest()
    assert (summary.markets, run.projections) == ((), [])


def test_silence_is_shown_until_everything_is_stale_and_then_skipped() -> None:
    run = Run().of([snapshot(0.0, 5), delta(0.0, (5, 6, 4)), mark(0.0), mark(8 * 3_600.0)])
    silent = [projection for projection in run.projections if projection.as_of_ns < at(8 * 3_600.0)]
    assert SILENCE_MAX_NS / SECOND - 5 < len(silent) < SILENCE_MAX_NS / SECOND + 5
    gaps_s = [after - before for before, after in itertools.pairwise(run.times_s[: len(silent)])]
    assert max(gaps_s) <= 1.1
    assert not silent[0].markets[0].stale
    assert silent[-1].markets[0].stale
    stale_from = next((projection.as_of_ns - START) / SECOND for projection in silent if projection.markets[0].stale)
    # Marks count as live for 10 s.
    assert 10.0 < stale_from < 11.2
    assert run.times_s[-1] == 8 * 3_600.0


def test_frames_that_were_stamped_by_a_clock_that_was_set_back_do_not_turn_time_back() -> None:
    run = Run().of([mark(0.0, 1.0), mark(10.0, 2.0), mark(3.0, 3.0), mark(4.0, 4.0), mark(10.2, 5.0)])
    assert run.times_s == sorted(run.times_s)
    assert run.projections[-1].markets[0].reference_price == 5.0
    assert run.summary.span_seconds == pytest.approx(10.2)


frames_of_two_markets = st.lists(
    st.tuples(st.integers(0, 3_000), st.floats(1.0, 1e6), st.sampled_from(["BTCUSDT", "ETHUSDT"]), st.booleans()), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(frames_of_two_markets, st.integers(0, 40))
def test_the_same_frames_give_the_same_bytes_however_they_are_handed_over(
    items: list[tuple[int, float, str, bool]], cut: int
) -> None:
    now_s = 0.0
    frames = []
    for wait_ms, price, symbol, lost in items:
        now_s += wait_ms / 1_000
        frames.append(Frame("binance", "market", at(now_s), None) if lost else mark(now_s, price, symbol))
    whole = Run().of(frames)
    again = Run()
    for part in (frames[:cut], frames[cut:]):
        for _ in again.replay.feed(part):
            pass
    again.replay.finish()
    assert again.lines == whole.lines
    assert again.summary == whole.summary
    assert whole.times_s == sorted(whole.times_s)
    assert len(set(whole.lines)) == len(whole.lines)


def test_only_the_configured_symbols_are_projected_and_others_are_quarantined() -> None:
    run = Run("ETHUSDT").of([mark(0.0), mark(0.1, symbol="ETHUSDT")])
    assert [market.symbol for market in run.projections[-1].markets] == ["ETHUSDT"]
    [venue] = run.projections[-1].venues
    assert venue.quarantined_symbols == ("BTCUSDT",)
    assert run.summary.parse_errors == {"unknown_symbol": 1}


def test_without_a_configuration_every_symbol_that_is_heard_is_watched() -> None:
    run = Run().of([mark(0.0), mark(0.1, symbol="ETHUSDT")])
    assert [market.symbol for market in run.projections[-1].markets] == ["BTCUSDT", "ETHUSDT"]


def test_without_a_configuration_a_list_of_markets_hides_none_with_a_book_and_adds_none_without() -> None:
    # A recording of our own begins with the list of all markets of the venue, of which a few were subscribed to; marks may come
    # for all of them.
    listed = market_list(0.0, "BTCUSDT", "ETHUSDT", "XRPUSDT")
    marks = [mark(0.1, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT")]
    run = Run().of([listed, *marks, delta(0.1, (5, 6, 4)), snapshot(0.2, 6), delta(0.3, (8, 9, 7), "ETHUSDT")])
    assert [market.symbol for market in run.projections[-1].markets] == ["BTCUSDT", "ETHUSDT"]
    assert run.projections[-1].markets[0].best_bid == 99.0
    assert run.summary.projections > 0


def test_a_book_waits_for_its_snapshot_and_is_touched_only_while_it_can_be_relied_on() -> None:
    run = Run()
    frames = [delta(0.0, (5, 6, 4)), snapshot(0.1, 5), delta(0.2, (7, 8, 6)), delta(0.3, (11, 12, 10)), snapshot(0.4, 12)]
    touches = [run.replay.engine.touch("binance", "BTCUSDT") for _ in run.replay.feed(frames)]
    nothing, there = (None, None), (99.0, 101.0)
    assert touches == [nothing, there, there, nothing, there]
    assert run.replay.engine.touch("binance", "OTHER") == nothing
    assert run.summary.gaps == 1
