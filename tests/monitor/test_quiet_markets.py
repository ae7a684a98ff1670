"""No false alarm where nothing is wrong."""

from __future__ import annotations

from connectors.events import Trade
from tests.monitor.test_engine import live_world
from tests.monitor.world import ladder, ns


def test_a_quiet_market_whose_subscription_came_back_is_not_called_stale() -> None:
    """The first message of a new subscription repeats old trades: nothing new, but the channel is there again."""
    world = live_world()
    world.trade(0.5, 100.0, 1.0)
    world.gap(1)
    world.mark(2, 100.0)
    world.interest(2, 20.0)
    world.book(2, ladder(99.9, -0.1, 100), ladder(100.1, 0.1, 100))
    world.engine.apply(
        Trade(**world.origin(2), symbol="BTC", price=100.0, size=1.0, aggressor="sell", trade_id=1, exchange_ns=ns(0.5))
    )
    stale = [feed.channel for feed in world.market(3).feeds if feed.stale]
    assert stale == [], "StaleFeed fires on this until somebody trades"
