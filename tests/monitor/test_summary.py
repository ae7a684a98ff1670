"""The summary of a replay."""

from __future__ import annotations

import json

from monitor.summary import MarketSummary, ReplaySummary, encode_summary, summarise_market
from tests.monitor.full_market import market_projection


def test_a_market_is_summarised_from_its_last_projection() -> None:
    market = market_projection(
        best_bid=99.5, open_interest_base=1234.5, open_interest_usd=123_450.0, coverage_ratio=None, stale=True
    )
    summary = summarise_market(market)
    assert (summary.venue, summary.symbol, summary.best_bid) == ("hyperliquid", "BTC", 99.5)
    assert summary.open_interest == 1234.5
    assert summary.coverage_ratio is None
    assert summary.stale


def test_what_is_unknown_is_written_as_null() -> None:
    market = MarketSummary("binance", "BTCUSDT", None, None, None, 0, None, 0, None, True)
    summary = ReplaySummary(10, 8, {"malformed": 2}, 1, 0.5, 0.25, 40.0, 3, "0" * 64, (market,))
    document = json.loads(encode_summary(summary))
    assert document["parse_errors"] == {"malformed": 2}
    assert document["markets"][0]["reference_price"] is None
    assert encode_summary(summary).endswith(b"}\n")
