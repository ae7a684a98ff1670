"""Numbers that stay live although an input behind them died."""

from __future__ import annotations

from connectors.events import BookSnapshot, Level, MarkPrice, SubscriptionNotice
from connectors.frames import REST_CONNECTION, Frame
from connectors.hyperliquid import Hyperliquid
from monitor.evaluate import evaluate
from monitor.ingest import Ingest
from monitor.settings import StalenessSettings
from tests.monitor.test_engine import live_world
from tests.monitor.world import VENUE, World, ladder, ns, reasons


def _feed_market(world: World, at_s: float, symbol: str = "BTC", price: float = 100.0) -> None:
    world.mark(at_s, price, symbol)
    world.book(at_s, ladder(price - 0.1, -0.1, 20), ladder(price + 0.1, 0.1, 20), symbol)


def test_accounts_polled_while_the_tape_was_down_are_not_trusted_once_it_is_back() -> None:
    """Fills between the poll and the new subscription were missed, so the position of the poll is not the position of now."""
    world = live_world()
    world.trade(0.5, 100.0, 1.0, "0xother", "0xsomebody")
    world.gap(1)
    world.account(2, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    world.account(2, "0xshort", 106.0 * 4.0 * 1.01, ("BTC", -4.0))
    # The socket is back a minute later. Whatever both traded from 2 to 60 s is unknown here.
    _feed_market(world, 60)
    world.trade(60, 100.0, 1.0, "0xother", "0xsomebody")
    market = world.market(60)
    assert market.accounts == 0
    assert market.stale


def test_a_lost_socket_invalidates_accounts_of_markets_that_have_not_traded_yet() -> None:
    world = live_world()
    notice = SubscriptionNotice(**world.origin(0), channel="trades:BTC", accepted=True)
    world.engine.apply(notice)
    # What was reported before the tape was there to tell of it is no state of now.
    assert world.market(0.1).accounts == 0
    world.account(0.2, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0))
    world.account(0.2, "0xshort", 106.0 * 4.0 * 1.01, ("BTC", -4.0))
    assert world.market(0.5).accounts == 2
    world.gap(1)  # No trade has come so far, but the venue said that the tape comes over this connection.
    _feed_market(world, 60)
    assert world.market(60).accounts == 0


def test_a_malformed_trade_message_is_a_hole_in_the_tape() -> None:
    world = live_world()
    venue = Hyperliquid()
    world.trade(0.5, 100.0, 1.0, "0xother", "0xsomebody")
    payload = (
        b'{"channel":"trades","data":[{"coin":"BTC","side":"A","px":"NaN","sz":"10","time":1700000001000,"tid":9,"hash":"0x0",'
        b'"users":["0xlong","0xother"]}]}'
    )
    Ingest(world.engine, {VENUE: venue}).apply(Frame(VENUE, "main", ns(1), payload))
    assert sum(world.engine.counters[VENUE].parse_errors.values()) == 1
    assert world.market(1).accounts == 0, "accounts are carried forward over a trade that nobody read"


def test_a_rest_snapshot_does_not_revive_a_book_whose_socket_is_gone() -> None:
    world = World("BTC")
    world.mark(0, 100.0)
    world.sequenced(0, 100, ladder(99.9, -0.1, 5), ladder(100.1, 0.1, 5))
    world.delta(0, (100, 101, 99), [], [])
    world.gap(1)
    assert world.market(1).best_bid is None
    world.mark(8, 100.0)
    world.sequenced(2, 200, ladder(99.9, -0.1, 5), ladder(100.1, 0.1, 5))  # Asked for because the book waits; REST still answers.
    market = world.market(9)
    assert market.best_bid is None, "seven seconds without an update, on a socket known to be lost, shown as live"
    assert market.stale


def test_the_age_of_a_layered_book_is_that_of_the_layers_that_are_left() -> None:
    world = World("BTC")
    world.mark(18, 100.0)
    bids, asks = ladder(99.9, -0.1, 20), ladder(100.1, 0.1, 20)
    world.engine.apply(_layer(world, 0, "book", "book", bids, asks))
    world.engine.apply(_layer(world, 9, "main", "fast", bids[:5], asks[:5]))
    world.gap(9.5)
    world.mark(18, 100.0)
    market = world.market(18)
    assert market.stale, "the only layer is 18 s old, the limit is 10 s"


def _layer(world: World, at_s: float, connection: str, layer: str, bids: list[Level], asks: list[Level]) -> BookSnapshot:
    return BookSnapshot(
        **world.origin(at_s, connection),
        symbol="BTC",
        exchange_ns=ns(at_s),
        bids=bids,
        asks=asks,
        layer=layer,
    )


def test_a_dead_mark_of_one_market_is_not_silent_about_the_clusters_of_another() -> None:
    """Accounts that hold a coin without a price drop out; with all of them gone the market must not look calm."""
    world = World("BTC", "ETH")
    world.instruments(0)
    _feed_market(world, 0)
    _feed_market(world, 0, "ETH", 50.0)
    for number in range(10):
        world.account(0, f"0x{number}", -95.0 * 10.0 * 0.99 - 1.0, ("BTC", 10.0), ("ETH", 0.02))
    before = world.market(1)
    assert before.clusters
    assert not before.stale
    _feed_market(world, 15)  # ETH has been silent for 15 s, BTC lives.
    market = world.market(15)
    assert market.clusters == ()
    assert market.stale, "all ten accounts vanished and BTC says that it is live and has no clusters"
    assert "accounts" in reasons(market)


def test_margin_tables_that_become_unusable_are_not_silent() -> None:
    world = live_world()
    assert world.market(0.5).clusters
    world.instruments(1, rate=2.0)  # Refused as impossible: maintenance is unknown from now on.
    market = world.market(1.6)
    assert market.clusters == ()
    assert market.stale


def test_marks_of_unwatched_coins_live_from_one_poll_to_the_next() -> None:
    """Coins that are only held get their marks from the poll every 30 s (connectors.hyperliquid.CONTEXTS_INTERVAL_S)."""
    world = World("BTC", "ETH")
    world.engine.settings = type(world.engine.settings)(
        symbols=world.engine.settings.symbols, projection=world.engine.settings.projection, staleness=StalenessSettings()
    )
    world.instruments(0, "BTC", "ETH", "SOL")
    world.account(0, "0xlong", -95.0 * 10.0 * 0.99, ("BTC", 10.0), ("SOL", 0.001))
    world.mark(0, 10.0, "SOL")
    counts = []
    for second in range(1, 30):
        _feed_market(world, second)
        counts.append(world.market(second).accounts)
    assert counts == [1] * 29, f"live in {sum(counts)} of 29 seconds"


def test_a_polled_mark_does_not_replace_a_newer_one_from_the_socket() -> None:
    world = World("BTC")
    _feed_market(world, 10, price=90.0)
    # Asked for at 0 s, when the mark was 100; the answer took ten seconds.
    world.engine.apply(MarkPrice(**world.origin(10.1, REST_CONNECTION), symbol="BTC", exchange_ns=None, mark_price=100.0))
    assert world.market(10.2).reference_price == 90.0


def test_the_index_price_ages_too() -> None:
    world = World("BTC")
    world.engine.apply(
        MarkPrice(**world.origin(0), symbol="BTC", exchange_ns=None, mark_price=100.0, index_price=100.0, funding_rate=1e-4)
    )
    _feed_market(world, 3600)
    market = world.market(3600)
    assert not market.stale
    assert market.index_price is None
    assert market.funding_rate is None


def test_sums_over_many_positions_do_not_outlive_a_lost_tape() -> None:
    world = live_world()
    world.trade(0.5, 100.0, 1.0, "0xother", "0xsomebody")
    assert world.market(1).accounts == 2
    world.gap(1.1)
    _feed_market(world, 1.2)
    market = world.market(1.2)
    assert market.clusters == ()
    assert (market.accounts, market.observed_notional_usd) == (0, 0.0)
    assert market.stale


def test_sums_of_an_evaluation_that_began_before_a_gap_are_not_reused_after_it() -> None:
    world = live_world()
    world.trade(0.5, 100.0, 1.0, "0xother", "0xsomebody")
    inputs = world.engine.freeze(ns(1))
    world.gap(1.1)
    world.engine.adopt(evaluate(inputs))
    _feed_market(world, 1.2)
    market = world.market(1.2)
    assert market.accounts == 0
    assert market.stale


def test_one_lost_whale_among_small_accounts_is_not_silent() -> None:
    """What is lost is counted in heads: a market may lose 99 % of its observed notional and stay live."""
    world = World("BTC", "ETH")
    world.instruments(0)
    _feed_market(world, 0)
    _feed_market(world, 0, "ETH", 50.0)
    world.account(0, "0xwhale", -95.0 * 1_000.0 * 0.99, ("BTC", 1_000.0))
    for number in range(5):
        world.account(0, f"0x{number}", -95.0 * 0.01 * 0.99, ("BTC", 0.01))
    assert max(cluster.notional_usd for cluster in world.market(1).clusters) > 90_000.0
    # A dollar's worth of a coin that the whale did not hold, which the tape cannot explain: it waits for its next poll.
    world.trade(1.5, 50.0, 0.02, "0xwhale", "0xother", symbol="ETH")
    market = world.market(2)
    assert sum(cluster.notional_usd for cluster in market.clusters) < 10.0
    assert market.stale
