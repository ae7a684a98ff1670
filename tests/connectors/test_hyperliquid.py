from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.decoding import MAX_PAYLOAD_BYTES
from connectors.events import AnyEvent, BookSnapshot, Gap, Instruments, MarkPrice, OpenInterest, SubscriptionNotice, Trade
from connectors.frames import RestRequest, wrap_rest_response
from connectors.hyperliquid import Hyperliquid
from connectors.venue import AccountQuestion, FeedError, VenueSettings
from tests.connectors.payloads import NASTY, all_payloads, check_survives, damaged, parse, parse_rest, payload, reason_of

HYPERLIQUID = Hyperliquid()
CORPUS = all_payloads("hyperliquid")
ACCOUNT = "0x" + "ab" * 20
SETTINGS = VenueSettings(symbols=("BTC", "kPEPE"), watch_accounts=(ACCOUNT.upper().replace("X", "x"),))


def info(body: dict[str, object], response: bytes) -> list[AnyEvent]:
    return parse_rest(HYPERLIQUID, RestRequest(method="POST", path="/info", body=json.dumps(body)), response)


def test_every_book_resolution_has_a_socket_of_its_own() -> None:
    plans = {plan.name: plan for plan in HYPERLIQUID.connections(SETTINGS)}
    assert list(plans) == ["main", "book", "book-4", "book-3", "book-2"]
    assert {plan.url for plan in plans.values()} == {"wss://api.hyperliquid.xyz/ws"}
    assert plans["book"].subscribe[0] == b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC"}}'
    assert plans["book-3"].subscribe == (
        b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"BTC","nSigFigs":3}}',
        b'{"method":"subscribe","subscription":{"type":"l2Book","coin":"kPEPE","nSigFigs":3}}',
    )
    assert plans["book-3"].expected == {"l2Book:BTC": 30.0, "l2Book:kPEPE": 30.0}


def test_the_main_socket_carries_the_fast_book_and_all_else() -> None:
    main = HYPERLIQUID.connections(SETTINGS)[0]
    assert [json.loads(message)["subscription"] for message in main.subscribe] == [
        {"type": "l2Book", "coin": "BTC", "fast": True},
        {"type": "bbo", "coin": "BTC"},
        {"type": "trades", "coin": "BTC"},
        {"type": "activeAssetCtx", "coin": "BTC"},
        {"type": "l2Book", "coin": "kPEPE", "fast": True},
        {"type": "bbo", "coin": "kPEPE"},
        {"type": "trades", "coin": "kPEPE"},
        {"type": "activeAssetCtx", "coin": "kPEPE"},
        {"type": "userFills", "user": ACCOUNT},
    ]
    assert main.expected["l2Book:BTC"] == main.expected["activeAssetCtx:BTC"] == 10.0
    assert main.expected["bbo:BTC"] is main.expected["trades:BTC"] is main.expected[f"userFills:{ACCOUNT}"] is None
    assert main.heartbeat is not None
    assert (main.heartbeat.interval_s, main.heartbeat.payload) == (20.0, b'{"method":"ping"}')


def test_a_url_of_the_settings_is_used_as_it_is() -> None:
    plans = HYPERLIQUID.connections(VenueSettings(symbols=("BTC",), websocket_url="ws://127.0.0.1:9/ws"))
    assert {plan.url for plan in plans} == {"ws://127.0.0.1:9/ws"}


def test_nothing_to_watch_needs_no_socket_and_accounts_alone_need_one() -> None:
    assert HYPERLIQUID.connections(VenueSettings(symbols=())) == []
    assert [plan.name for plan in HYPERLIQUID.connections(VenueSettings(symbols=(), watch_accounts=(ACCOUNT,)))] == ["main"]


@pytest.mark.parametrize(
    ("venue_settings", "complaint"),
    [
        (VenueSettings(symbols=tuple(f"C{number}" for number in range(126))), "126 coins and 0 accounts need 1008 subscriptions"),
        (VenueSettings(symbols=("xyz:TSLA",)), "'xyz:TSLA' is of the dex 'xyz', which is not among the dexes"),
        (VenueSettings(symbols=("xyz:TSLA",), dexes=("flx",)), "'xyz:TSLA' is of the dex 'xyz', which is not among the dexes"),
        (VenueSettings(symbols=("XYZ:TSLA",), dexes=("xyz",)), "is not a coin"),
        (VenueSettings(symbols=("xyz:",), dexes=("xyz",)), "is not a coin"),
        (VenueSettings(symbols=("BTC",), dexes=("",)), "'' is not a dex"),
        (VenueSettings(symbols=("BTC",), dexes=("XYZ",)), "'XYZ' is not a dex"),
        (VenueSettings(symbols=("PURR/USDC",)), "is not a coin"),
        (VenueSettings(symbols=("",)), "is not a coin"),
        (VenueSettings(symbols=("BTC",), watch_accounts=("0x12",)), "is not an address"),
        (VenueSettings(symbols=("BTC",), watch_accounts=tuple(f"0x{number:040x}" for number in range(11))), "11 watched accounts"),
    ],
)
def test_plans_that_the_venue_would_punish_are_refused(venue_settings: VenueSettings, complaint: str) -> None:
    with pytest.raises(ValueError, match="hyperliquid: ") as caught:
        HYPERLIQUID.connections(venue_settings)
    assert complaint in str(caught.value)


def test_as_many_coins_as_the_venue_allows_are_accepted() -> None:
    plans = HYPERLIQUID.connections(VenueSettings(symbols=tuple(f"C{number}" for number in range(125))))
    assert sum(len(plan.subscribe) for plan in plans) == 1000


def test_coins_of_another_dex_are_subscribed_to_by_their_full_name() -> None:
    plans = HYPERLIQUID.connections(VenueSettings(symbols=("xyz:TSLA",), dexes=("xyz",)))
    assert [json.loads(message)["subscription"] for message in plans[0].subscribe] == [
        {"type": "l2Book", "coin": "xyz:TSLA", "fast": True},
        {"type": "bbo", "coin": "xyz:TSLA"},
        {"type": "trades", "coin": "xyz:TSLA"},
        {"type": "activeAssetCtx", "coin": "xyz:TSLA"},
    ]
    assert plans[1].expected == {"l2Book:xyz:TSLA": 30.0}
    for name in ("l2_book_fast", "bbo", "trades", "active_asset_ctx"):
        content = CORPUS[name].replace(b'"coin":"BTC"', b'"coin":"xyz:TSLA"')
        assert HYPERLIQUID.channel_key(content) in plans[0].expected
        assert {event.symbol for event in parse(HYPERLIQUID, content) if not isinstance(event, Gap)} == {"xyz:TSLA"}  # type: ignore[union-attr]


def test_every_dex_is_asked_for_its_coins_within_a_share_of_the_weight() -> None:
    requests = HYPERLIQUID.bootstrap(VenueSettings(symbols=("BTC",), dexes=("xyz", "flx", "xyz")))
    assert [request.body for request in requests] == [
        '{"type":"metaAndAssetCtxs"}',
        '{"type":"metaAndAssetCtxs","dex":"xyz"}',
        '{"type":"metaAndAssetCtxs","dex":"flx"}',
    ]
    for count in (0, 1, 4, 10, 40):
        main, *others = HYPERLIQUID.periodic(VenueSettings(symbols=(), dexes=tuple(f"d{number}" for number in range(count))))
        assert main.interval_s == 30.0
        assert len(others) == count
        assert all(item.interval_s >= 30.0 for item in others)
        assert sum(item.request.weight * 60.0 / item.interval_s for item in others) <= 160.0 + 1e-9
    with pytest.raises(ValueError, match=r"'\.\./x' is not a dex"):
        HYPERLIQUID.bootstrap(VenueSettings(symbols=(), dexes=("../x",)))


def test_requests_state_their_weight_and_only_what_is_in_question_is_asked_for() -> None:
    (request,) = HYPERLIQUID.bootstrap(SETTINGS)
    assert (request.path, request.body, request.weight) == ("/info", '{"type":"metaAndAssetCtxs"}', 20)
    (poll,) = HYPERLIQUID.periodic(SETTINGS)
    assert poll.request == request
    state = HYPERLIQUID.account_requests(AccountQuestion(account=ACCOUNT.upper().replace("X", "x")))
    assert [(item.body, item.weight) for item in state] == [(f'{{"type":"clearinghouseState","user":"{ACCOUNT}"}}', 2)]
    everything = HYPERLIQUID.account_requests(AccountQuestion(account=ACCOUNT, pools=("", "xyz"), mode=True, balances=True))
    assert [(item.method, item.path, item.body, item.weight) for item in everything] == [
        ("POST", "/info", f'{{"type":"clearinghouseState","user":"{ACCOUNT}"}}', 2),
        ("POST", "/info", f'{{"type":"clearinghouseState","user":"{ACCOUNT}","dex":"xyz"}}', 2),
        ("POST", "/info", f'{{"type":"userAbstraction","user":"{ACCOUNT}"}}', 20),
        ("POST", "/info", f'{{"type":"spotClearinghouseState","user":"{ACCOUNT}"}}', 2),
    ]
    assert HYPERLIQUID.account_requests(AccountQuestion(account=ACCOUNT, pools=())) == []
    assert HYPERLIQUID.book_snapshot("BTC") is None


def test_a_node_serves_states_and_balances_and_neither_modes_nor_prices() -> None:
    question = AccountQuestion(account=ACCOUNT, pools=("", "xyz"), mode=True, balances=True)
    requests = HYPERLIQUID.account_requests(question) + HYPERLIQUID.bootstrap(SETTINGS)
    assert [HYPERLIQUID.is_served_by_node(request) for request in requests] == [True, True, False, True, False]
    assert {"clearinghouseState", "spotClearinghouseState", "meta", "marginTable"} <= HYPERLIQUID.node_types
    assert not HYPERLIQUID.is_served_by_node(RestRequest(method="POST", path="/info", body="{"))
    assert not HYPERLIQUID.is_served_by_node(RestRequest(method="POST", path="/other", body='{"type":"meta"}'))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("l2_book", "l2Book:BTC"),
        ("l2_book_fast", "l2Book:BTC"),
        ("bbo", "bbo:BTC"),
        ("trades", "trades:BTC"),
        ("active_asset_ctx", "activeAssetCtx:BTC"),
        ("user_fills_maker", f"userFills:{ACCOUNT}"),
        ("subscription_response", None),
        ("error_bad_request", None),
        ("pong", None),
        ("candle", None),
        ("rest_l2_book", None),
    ],
)
def test_channels_are_named_after_kind_and_market_or_account(name: str, key: str | None) -> None:
    assert HYPERLIQUID.channel_key(CORPUS[name]) == key


def test_an_account_that_stands_at_the_end_of_a_long_message_is_found() -> None:
    fills = b'{"channel":"userFills","data":{"fills":[' + b'{"coin":"BTC"},' * 100 + b'{}],"user":"' + ACCOUNT.encode() + b'"}}'
    assert HYPERLIQUID.channel_key(fills) == f"userFills:{ACCOUNT}"
    assert HYPERLIQUID.channel_key(b'{"channel":"trades","data":[]}') is None


def test_every_expected_channel_can_be_seen() -> None:
    main = HYPERLIQUID.connections(VenueSettings(symbols=("BTC",), watch_accounts=(ACCOUNT,)))[0]
    names = ("l2_book_fast", "bbo", "trades", "active_asset_ctx", "user_fills_maker")
    assert {HYPERLIQUID.channel_key(CORPUS[name]) for name in names} == set(main.expected)


def test_a_lost_connection_is_a_gap() -> None:
    (event,) = parse(HYPERLIQUID, None, "book-4")
    assert isinstance(event, Gap)
    assert (event.connection, event.symbol, event.reason) == ("book-4", None, "disconnected")


@pytest.mark.parametrize(
    ("content", "channel", "accepted"),
    [
        (CORPUS["subscription_response"], "l2Book:BTC", True),
        (CORPUS["error_already_subscribed"], "trades:BTC", True),
        (CORPUS["error_bad_request"], "trades:NOPE", False),
        (
            b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"userFills","user":"0xAB"}}}',
            "userFills:0xab",
            True,
        ),
    ],
)
def test_the_answer_to_a_subscription_names_its_channel(content: bytes, channel: str, *, accepted: bool) -> None:
    (event,) = parse(HYPERLIQUID, content)
    assert isinstance(event, SubscriptionNotice)
    assert (event.channel, event.accepted) == (channel, accepted)
    assert accepted or "Error parsing JSON" in event.detail


@pytest.mark.parametrize(
    "content",
    [
        b"Websocket connection established.",
        CORPUS["pong"],
        CORPUS["candle"],
        CORPUS["error_users"],
        CORPUS["post_l2_book"],
        b'{"channel":"subscriptionResponse","data":{}}',
        b'{"channel":"subscriptionResponse","data":{"method":"unsubscribe","subscription":{"type":"bbo","coin":"BTC"}}}',
        b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"allMids"}}}',
        rb'{"channel":"error","data":"Already unsubscribed: {\"type\":\"trades\",\"coin\":\"BTC\"}"}',
        rb'{"channel":"error","data":"Error parsing JSON into valid websocket request: {{{"}',
        b'{"channel":"user","data":{"funding":{"time":1681222254710,"coin":"ETH","usdc":"-3.6","szi":"49.1","fundingRate":"0.00004"}}}',
    ],
)
def test_legitimate_messages_without_use_give_nothing(content: bytes) -> None:
    assert parse(HYPERLIQUID, content) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"channel":"somethingNew","data":{}}', "unknown_message"),
        (b'{"hello":"world"}', "wrong_type"),
        (b'[{"block":1}]', "wrong_type"),
        (b'{"channel":"l2Book"}', "wrong_type"),
        (b'{"channel":"l2Book","data":{"coin":"BTC","time":1,"levels":[[]]}}', "wrong_type"),
        (b'{"channel":"l2Book","data":{"coin":"BTC","ti', "not_json"),
        (b"Websocket connection lost.", "not_json"),
        (b'{"channel":"post","data":{"id":1,"response":{"type":"error","payload":"no"}}}', "refused"),
    ],
)
def test_other_messages_are_refused_with_a_reason(content: bytes, reason: str) -> None:
    assert reason_of(HYPERLIQUID, content) == reason


def test_an_oversized_message_is_not_even_decoded() -> None:
    assert reason_of(HYPERLIQUID, b"[" * (MAX_PAYLOAD_BYTES + 1)) == "oversized"


def test_the_answer_for_an_unknown_coin_is_a_refusal() -> None:
    with pytest.raises(FeedError) as caught:
        info({"type": "l2Book", "coin": "NOPE"}, b"null")
    assert caught.value.reason == "refused"


def test_a_posted_list_of_coins_is_not_taken_for_the_whole_one() -> None:
    content = (
        b'{"channel":"post","data":{"id":3,"response":{"type":"info","payload":{"type":"metaAndAssetCtxs","data":'
        + CORPUS["meta_and_asset_ctxs"]
        + b"}}}}"
    )
    instruments = parse(HYPERLIQUID, content)[0]
    assert isinstance(instruments, Instruments)
    assert not instruments.complete


@pytest.mark.parametrize("content", NASTY)
def test_hostile_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    check_survives(HYPERLIQUID, content)


def rest_corpus() -> list[bytes]:
    bodies = {
        "clearinghouse_state": f'{{"type":"clearinghouseState","user":"{ACCOUNT}"}}',
        "meta_and_asset_ctxs": '{"type":"metaAndAssetCtxs"}',
        "recent_trades": '{"type":"recentTrades","coin":"BTC"}',
        "rest_l2_book": '{"type":"l2Book","coin":"BTC"}',
        "spot_clearinghouse_state": f'{{"type":"spotClearinghouseState","user":"{ACCOUNT}"}}',
    }
    return [wrap_rest_response(RestRequest(method="POST", path="/info", body=body), CORPUS[name]) for name, body in bodies.items()]


@settings(max_examples=500, deadline=None)
@given(damaged([*CORPUS.values(), *rest_corpus()]))
def test_damaged_messages_give_finite_events_or_a_feed_error(content: bytes) -> None:
    check_survives(HYPERLIQUID, content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_gives_a_feed_error(noise: bytes) -> None:
    check_survives(HYPERLIQUID, noise)
    check_survives(HYPERLIQUID, b'{"channel":"' + noise)
    check_survives(HYPERLIQUID, b'{"generated":true,"request":' + noise)


def test_every_frame_of_the_recording_is_understood(shared_data: Path) -> None:
    found: Counter[str] = Counter()
    with gzip.open(shared_data / "data" / "ws_raw_hftbacktest" / "hyperliquid_btcusd_20250126.gz") as lines:
        for line in lines:
            for event in parse(HYPERLIQUID, line.split(b" ", 1)[1].strip()):
                found[type(event).__name__] += 1
                if isinstance(event, BookSnapshot):
                    assert len(event.bids) == len(event.asks) == 20
                if isinstance(event, Trade):
                    assert event.buyer != event.seller
    assert found == {"BookSnapshot": 46, "Trade": 64}


def cassette(path: Path) -> list[tuple[str, bytes]]:
    """Request bodies and responses of a recorded session: single-quoted YAML texts, folded at blanks."""
    text = path.read_text()
    texts = [re.findall(rf"{key}: '((?:[^']|'')*)'", text) for key in ("body", "string")]
    bodies, responses = ([re.sub(r"\n +", " ", item).replace("''", "'") for item in found] for found in texts)
    return [(body, response.encode()) for body, response in zip(bodies, responses, strict=True)]


def test_answers_recorded_in_2023_are_understood(shared_data: Path) -> None:
    found: Counter[str] = Counter()
    refused = []
    for path in sorted((shared_data / "data" / "hl_api_fixtures" / "sdk_cassettes").glob("*.yaml")):
        for body, response in cassette(path):
            found["requests"] += 1
            try:
                events = parse_rest(HYPERLIQUID, RestRequest(method="POST", path="/info", body=body), response)
            except FeedError as error:
                refused.append((json.loads(body)["type"], error.reason))
                continue
            found.update(type(event).__name__ for event in events)
    # The account states of those days had no time, and without one nobody can say how old they are.
    assert refused == [("clearinghouseState", "wrong_type")]
    assert found == {"requests": 15, "Instruments": 4, "BookSnapshot": 1}


def test_answers_recorded_in_2026_are_understood(shared_data: Path) -> None:
    folder = shared_data / "data" / "hl_api_fixtures"
    events = info({"type": "metaAndAssetCtxs"}, (folder / "index_yassi80" / "metaAndAssetCtxs.json").read_bytes())
    assert Counter(type(event) for event in events) == {Instruments: 1, MarkPrice: 4, OpenInterest: 4}
    trades = info({"type": "recentTrades", "coin": "BTC"}, (folder / "nautilus" / "http_recent_trades_btc.json").read_bytes())
    assert [event.trade_id for event in trades if isinstance(event, Trade)] == [300001, 300002, 300003]
    (book,) = info({"type": "l2Book", "coin": "BTC"}, (folder / "nautilus" / "ws_book_data.json").read_bytes())
    assert isinstance(book, BookSnapshot)
    assert (book.bids[0], book.asks[0]) == ((98450.5, 2.5), (98451.0, 1.5))
    assert parse(HYPERLIQUID, (folder / "nautilus" / "ws_all_dexs_asset_ctxs.json").read_bytes()) == []


def test_payloads_are_the_ones_that_the_tests_name() -> None:
    assert payload("hyperliquid", "pong") == b'{"channel":"pong"}'
