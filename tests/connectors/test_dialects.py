"""Both dialects have the same shape."""

from __future__ import annotations

import pytest

from connectors.binance_dialect import BinanceDialect
from connectors.dialects import Answer, Dialect, Feed
from connectors.hyperliquid_dialect import HyperliquidDialect


@pytest.mark.parametrize("dialect", [BinanceDialect(), HyperliquidDialect()])
def test_a_socket_that_asked_for_nothing_gets_nothing(dialect: Dialect) -> None:
    client = dialect.opened("/", "")
    assert not client.subscribed
    assert not client.wants(Feed("trades", "BTC"))
    assert not client.wants(Feed("trade", "BTCUSDT"))
    assert client.receive(b"nonsense") != Answer()
