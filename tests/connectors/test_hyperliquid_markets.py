from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.events import AnyEvent, BookSnapshot, Instruments, MarginTier, MarkPrice, OpenInterest, Quote, Trade
from connectors.frames import RestRequest
from connectors.hyperliquid import Hyperliquid
from connectors.hyperliquid_markets import margin_tiers
from connectors.venue import FeedError
from tests.connectors.payloads import RECEIVED_NS, all_payloads, parse, parse_rest, reason_of

HYPERLIQUID = Hyperliquid()
CORPUS = all_payloads("hyperliquid")


XYZ_META = (
    b'{"universe":[{"szDecimals":3,"name":"xyz:TSLA","maxLeverage":20,"marginTableId":20,"growthMode":"enabled"},'
    b'{"szDecimals":4,"name":"GOLD","maxLeverage":10,"marginTableId":51,"onlyIsolated":true},'
    b'{"szDecimals":1,"name":"xyz:SPACEX","maxLeverage":3,"marginTableId":3,"marginMode":"strictIsolated"}],'
    b'"marginTables":[[51,{"description":"tiered 10x","marginTiers":[{"lowerBound":"0.0","maxLeverage":10},'
    b'{"lowerBound":"3000000.0","maxLeverage":5}]}]],"collateralToken":0}'
)


def info(body: dict[str, object], response: bytes) -> list[AnyEvent]:
    return parse_rest(HYPERLIQUID, RestRequest(method="POST", path="/info", body=json.dumps(body)), response)


def maintenance(tiers: tuple[MarginTier, ...], notional: float) -> float:
    tier = [tier for tier in tiers if tier.lower_bound_usd <= notional][-1]
    return notional * tier.maintenance_rate - tier.deduction_usd


@pytest.mark.parametrize(
    ("name", "connection", "layer", "figures"),
    [
        ("l2_book_fast", "main", "fast", None),
        ("l2_book", "book", "plain", None),
        ("l2_book", "main", "plain", None),
        ("l2_book_rounded", "book-4", "figures-4", 4),
        ("l2_book_rounded", "book-2", "figures-2", 2),
        ("l2_book_fast", "book-2", "fast", None),
    ],
)
def test_the_flag_tells_the_fast_book_and_the_socket_the_resolution(
    name: str, connection: str, layer: str, figures: int | None
) -> None:
    (book,) = parse(HYPERLIQUID, CORPUS[name], connection)
    assert isinstance(book, BookSnapshot)
    assert (book.layer, book.significant_figures) == (layer, figures)


def test_the_fast_book_is_known_by_the_name_that_tardis_stores_it_under() -> None:
    stored = CORPUS["l2_book_fast"].replace(b'"channel":"l2Book"', b'"channel":"fastBook"').replace(b',"fast":true', b"")
    assert b'"fast"' not in stored
    assert parse(HYPERLIQUID, stored) == parse(HYPERLIQUID, CORPUS["l2_book_fast"])
    assert HYPERLIQUID.channel_key(stored) == HYPERLIQUID.channel_key(CORPUS["l2_book_fast"])


def test_a_book_is_a_snapshot_with_the_best_first() -> None:
    assert parse(HYPERLIQUID, CORPUS["l2_book"], "book") == [
        BookSnapshot(
            venue="hyperliquid",
            connection="book",
            received_ns=RECEIVED_NS,
            symbol="BTC",
            exchange_ns=1_790_232_236_546_000_000,
            bids=[(84143.0, 10.25923), (84140.0, 0.5)],
            asks=[(84144.0, 50.66449), (84150.0, 3.0)],
            layer="plain",
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"84144.0", b"84143.0", "inconsistent"),
        (b"84140.0", b"84143.5", "inconsistent"),
        (b"84150.0", b"84144.0", "inconsistent"),
        (b"84144.0", b"NaN", "bad_number"),
        (b"84144.0", b"-1", "bad_number"),
        (b"84144.0", b"0", "bad_number"),
        (b"50.66449", b"inf", "bad_number"),
        (b"50.66449", b"1e30", "bad_number"),
        (b"1790232236546", b"-5", "bad_number"),
        (b'"84144.0"', b"[]", "wrong_type"),
    ],
)
def test_an_impossible_book_is_refused(old: bytes, new: bytes, reason: str) -> None:
    assert reason_of(HYPERLIQUID, CORPUS["l2_book"].replace(old, new)) == reason


def test_a_delisted_coin_has_an_empty_book_and_levels_without_size_are_none() -> None:
    (book,) = parse(HYPERLIQUID, b'{"channel":"l2Book","data":{"coin":"OLD","time":1790232236546,"levels":[[],[]]}}')
    assert isinstance(book, BookSnapshot)
    assert (book.bids, book.asks) == ([], [])
    (book,) = parse(HYPERLIQUID, CORPUS["l2_book"].replace(b'"0.5"', b'"0.0"'))
    assert isinstance(book, BookSnapshot)
    assert book.bids == [(84143.0, 10.25923)]


def test_a_quote_may_lack_a_side() -> None:
    (quote,) = parse(HYPERLIQUID, CORPUS["bbo"])
    assert isinstance(quote, Quote)
    assert (quote.bid, quote.ask) == ((84143.0, 10.2), (84144.0, 50.6))
    one_sided = b'{"channel":"bbo","data":{"coin":"BTC","time":1790232236546,"bbo":[null,{"px":"84144.0","sz":"50.6","n":18}]}}'
    (quote,) = parse(HYPERLIQUID, one_sided)
    assert isinstance(quote, Quote)
    assert (quote.bid, quote.ask) == (None, (84144.0, 50.6))
    assert reason_of(HYPERLIQUID, CORPUS["bbo"].replace(b"84144.0", b"84143.0")) == "inconsistent"


def test_the_side_of_a_trade_is_the_aggressors_and_its_users_are_buyer_and_seller() -> None:
    sale, purchase = parse(HYPERLIQUID, CORPUS["trades"])
    assert isinstance(sale, Trade)
    assert isinstance(purchase, Trade)
    assert (sale.aggressor, sale.price, sale.size, sale.trade_id) == ("sell", 84143.0, 0.00036, 1045359869404765)
    assert (sale.buyer, sale.seller) == ("0x" + "ab" * 20, "0x" + "12" * 20)
    assert purchase.aggressor == "buy"


def test_trades_of_recordings_without_users_are_anonymous() -> None:
    content = b'{"channel":"trades","data":[{"coin":"BTC","side":"B","px":"1","sz":"2","time":1790232216193,"hash":"0x0","tid":1}]}'
    (trade,) = parse(HYPERLIQUID, content)
    assert isinstance(trade, Trade)
    assert (trade.buyer, trade.seller) == (None, None)
    assert reason_of(HYPERLIQUID, content.replace(b'"sz":"2"', b'"sz":"0"')) == "bad_number"
    assert reason_of(HYPERLIQUID, content.replace(b'"side":"B"', b'"side":"C"')) == "wrong_type"


@given(st.permutations(range(6)))
def test_trades_of_one_message_are_given_by_time_and_id_however_they_came(order: list[int]) -> None:
    """The market drops what is older than the newest trade seen, so a message out of order would lose fills."""
    template = '{"coin":"BTC","side":"B","px":"1","sz":"2","time":%d,"hash":"0x0","tid":%d}'
    trades = ",".join(template % (1790232216193 + number // 2, 100 + number) for number in order)
    events = parse(HYPERLIQUID, f'{{"channel":"trades","data":[{trades}]}}'.encode())
    assert [event.trade_id for event in events if isinstance(event, Trade)] == [100, 101, 102, 103, 104, 105]


def test_recent_trades_are_given_oldest_first() -> None:
    events = info({"type": "recentTrades", "coin": "BTC"}, CORPUS["recent_trades"])
    assert [event.trade_id for event in events if isinstance(event, Trade)] == [11, 12]


def test_a_context_gives_mark_and_open_interest_in_coins() -> None:
    mark, interest = parse(HYPERLIQUID, CORPUS["active_asset_ctx"])
    assert mark == MarkPrice(
        venue="hyperliquid",
        connection="main",
        received_ns=RECEIVED_NS,
        symbol="BTC",
        exchange_ns=None,
        mark_price=84148.0,
        index_price=84198.0,
        funding_rate=0.0000018952,
    )
    assert isinstance(interest, OpenInterest)
    assert (interest.open_interest_base, interest.exchange_ns) == (36585.31848, None)


def test_what_a_context_lacks_is_not_invented_and_a_mark_of_zero_is_refused() -> None:
    assert parse(HYPERLIQUID, b'{"channel":"activeAssetCtx","data":{"coin":"OLD","ctx":{"markPx":null,"midPx":null}}}') == []
    assert reason_of(HYPERLIQUID, CORPUS["active_asset_ctx"].replace(b"84148.0", b"0.0")) == "bad_number"
    assert reason_of(HYPERLIQUID, CORPUS["active_asset_ctx"].replace(b"0.0000018952", b"25")) == "bad_number"


def test_all_coins_come_with_their_tiers_and_prices() -> None:
    events = info({"type": "metaAndAssetCtxs"}, CORPUS["meta_and_asset_ctxs"])
    instruments = events[0]
    assert isinstance(instruments, Instruments)
    assert instruments.complete
    bitcoin, pepe, old, new = instruments.instruments
    assert (bitcoin.symbol, bitcoin.size_step, bitcoin.price_step, bitcoin.only_isolated) == ("BTC", 1e-5, None, False)
    assert maintenance(bitcoin.tiers, 200e6) == pytest.approx(3_125_000.0)
    assert maintenance(bitcoin.tiers, 150e6) == pytest.approx(1_875_000.0)
    assert pepe.tiers == (MarginTier(lower_bound_usd=0.0, maintenance_rate=0.05, deduction_usd=0.0, max_leverage=10.0),)
    assert (pepe.only_isolated, pepe.size_step) == (True, 1.0)
    assert old.delisted
    assert new.tiers == (), "its table is not among those sent"
    assert new.only_isolated
    marks = {event.symbol: event.mark_price for event in events if isinstance(event, MarkPrice)}
    assert marks == {"BTC": 84981.0, "kPEPE": 0.0124, "NEW": 2.1}
    interest = {event.symbol: event.open_interest_base for event in events if isinstance(event, OpenInterest)}
    assert interest == {"BTC": 38359.47984, "kPEPE": 1000.0, "OLD": 0.0, "NEW": 7.5}


def test_the_coins_of_another_dex_are_not_the_whole_list() -> None:
    events = info({"type": "meta", "dex": "xyz"}, XYZ_META)
    assert isinstance(events[0], Instruments)
    assert not events[0].complete
    tesla, gold, strict = events[0].instruments
    assert tesla.tiers[0].maintenance_rate == 0.025
    assert (tesla.symbol, gold.symbol, strict.symbol) == ("xyz:TSLA", "xyz:GOLD", "xyz:SPACEX")
    assert (tesla.only_isolated, gold.only_isolated, strict.only_isolated) == (False, True, True)
    assert maintenance(gold.tiers, 5e6) == pytest.approx(5e6 / 10.0 - 150_000.0)


def test_the_prices_of_another_dex_go_by_the_full_names_of_its_coins() -> None:
    contexts = b'[{"markPx":"401.5","oraclePx":"401.0","openInterest":"12.5","funding":"0.0"},{"markPx":"4100.0"},{"markPx":"9.0"}]'
    events = info({"type": "metaAndAssetCtxs", "dex": "xyz"}, b"[" + XYZ_META + b"," + contexts + b"]")
    marks = {event.symbol: event.mark_price for event in events if isinstance(event, MarkPrice)}
    assert marks == {"xyz:TSLA": 401.5, "xyz:GOLD": 4100.0, "xyz:SPACEX": 9.0}
    assert [event.symbol for event in events if isinstance(event, OpenInterest)] == ["xyz:TSLA"]


@pytest.mark.parametrize("collateral", [b'"collateralToken":360', b'"collateralToken":null', b'"other":0'])
def test_a_dex_whose_margin_is_not_known_to_be_usdc_has_coins_without_tiers(collateral: bytes) -> None:
    """Sizes of tiers and cash are in that token: an account there is unknown rather than wrong."""
    (event,) = info({"type": "meta", "dex": "xyz"}, XYZ_META.replace(b'"collateralToken":0', collateral))
    assert isinstance(event, Instruments)
    assert [item.tiers for item in event.instruments] == [(), (), ()]
    assert event.instruments[1].only_isolated


def test_a_list_with_a_coin_of_yet_another_dex_is_refused() -> None:
    for dex in ("xyz", ""):
        with pytest.raises(FeedError) as caught:
            info({"type": "meta", "dex": dex}, XYZ_META.replace(b'"GOLD"', b'"flx:GOLD"'))
        assert caught.value.reason == "inconsistent"


def test_symbols_of_other_dexes_are_known_once_their_lists_were_answered() -> None:
    """The list of the main dex says that it is complete, and those of the others add to it."""
    main = info({"type": "metaAndAssetCtxs"}, CORPUS["meta_and_asset_ctxs"])[0]
    other = info({"type": "meta", "dex": "xyz"}, XYZ_META)[0]
    assert isinstance(main, Instruments)
    assert isinstance(other, Instruments)
    assert (main.complete, other.complete) == (True, False)
    assert "xyz:TSLA" not in {item.symbol for item in main.instruments}
    assert "xyz:TSLA" in {item.symbol for item in main.instruments + other.instruments}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"markPx":"2.1"', b'"markPx":"0.0"', "bad_number"),
        (b',{"funding":"0.0","openInterest":"7.5"', b',{"x":[]},{"funding":"0.0","openInterest":"7.5"', "inconsistent"),
        (b'"lowerBound":"0.0"', b'"lowerBound":"5.0"', "inconsistent"),
        (b'"lowerBound":"150000000.0","maxLeverage":20', b'"lowerBound":"150000000.0","maxLeverage":60', "inconsistent"),
        (b'"lowerBound":"150000000.0"', b'"lowerBound":"0.0"', "inconsistent"),
        (b'"maxLeverage":20', b'"maxLeverage":0', "bad_number"),
        (b'"szDecimals":5', b'"szDecimals":500', "bad_number"),
    ],
)
def test_an_impossible_list_is_refused_whole(old: bytes, new: bytes, reason: str) -> None:
    content = CORPUS["meta_and_asset_ctxs"]
    assert old in content
    with pytest.raises(FeedError) as caught:
        info({"type": "metaAndAssetCtxs"}, content.replace(old, new))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "layer", "figures"),
    [({}, "plain", None), ({"nSigFigs": None}, "plain", None), ({"nSigFigs": 3}, "figures-3", 3)],
)
def test_a_requested_book_takes_its_resolution_from_the_request(body: dict[str, object], layer: str, figures: int | None) -> None:
    (book,) = info({"type": "l2Book", "coin": "BTC", **body}, CORPUS["rest_l2_book"])
    assert isinstance(book, BookSnapshot)
    assert (book.layer, book.significant_figures) == (layer, figures)
    assert info({"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 2}, CORPUS["rest_l2_book"]) == []


@pytest.mark.parametrize(
    ("bounds", "leverages", "deduction"),
    [
        ([0.0, 150e6], [40.0, 20.0], 1_875_000.0),
        ([0.0, 100e6], [25.0, 15.0], 1_333_333.3333),
        ([0.0, 70e6], [20.0, 10.0], 1_750_000.0),
        ([0.0, 40e6], [20.0, 10.0], 1_000_000.0),
        ([0.0, 20e6], [10.0, 5.0], 1_000_000.0),
        ([0.0, 3e6], [10.0, 5.0], 150_000.0),
    ],
)
def test_deductions_are_those_of_the_venues_tables(bounds: list[float], leverages: list[float], deduction: float) -> None:
    assert margin_tiers(bounds, leverages)[1].deduction_usd == pytest.approx(deduction)


@given(
    st.lists(st.floats(1.0, 1e10), min_size=1, max_size=8, unique=True).map(sorted),
    st.lists(st.integers(1, 200), min_size=9, max_size=9, unique=True).map(lambda items: sorted(items, reverse=True)),
)
def test_maintenance_is_continuous_over_all_tiers(bounds: list[float], leverages: list[int]) -> None:
    tiers = margin_tiers([0.0, *bounds], [float(leverage) for leverage in leverages[: len(bounds) + 1]])
    for below, tier in pairwise(tiers):
        at_bound = tier.lower_bound_usd * below.maintenance_rate - below.deduction_usd
        assert maintenance(tiers, tier.lower_bound_usd) == pytest.approx(at_bound, rel=1e-9, abs=1e-6 * tier.lower_bound_usd)
