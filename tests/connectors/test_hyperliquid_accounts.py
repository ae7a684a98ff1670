from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.events import (
    AccountBalances,
    AccountFill,
    AccountModeReport,
    AccountSnapshot,
    AnyEvent,
    HoldingReport,
    Liquidation,
    PositionReport,
)
from connectors.frames import RestRequest
from connectors.hyperliquid import Hyperliquid
from connectors.venue import FeedError
from tests.connectors.payloads import RECEIVED_NS, all_payloads, parse, parse_rest

HYPERLIQUID = Hyperliquid()
CORPUS = all_payloads("hyperliquid")
WATCHED = "0x" + "ab" * 20
VICTIM = "0x" + "cd" * 20
HASH = "0x" + "0f" * 32


def info(kind: str, response: bytes, **more: str) -> list[AnyEvent]:
    body = json.dumps({"type": kind, "user": WATCHED.upper().replace("X", "x"), **more})
    return parse_rest(HYPERLIQUID, RestRequest(method="POST", path="/info", body=body), response)


def reason_of_state(response: bytes) -> str:
    with pytest.raises(FeedError) as caught:
        info("clearinghouseState", response)
    return caught.value.reason


def test_the_venues_sample_account_is_read_with_its_isolated_position() -> None:
    assert info("clearinghouseState", CORPUS["clearinghouse_state"]) == [
        AccountSnapshot(
            venue="hyperliquid",
            connection="rest",
            received_ns=RECEIVED_NS,
            account=WATCHED,
            exchange_ns=1_708_622_398_623_000_000,
            cross_cash_usd=13104.514502,
            positions=(
                PositionReport(
                    symbol="ETH",
                    size=0.0335,
                    entry_price=2986.3,
                    isolated_cash_usd=-95.059824,
                    liquidation_price=2866.26936529,
                    leverage=20.0,
                    mark_price=100.02765 / 0.0335,
                    max_leverage=50.0,
                ),
            ),
            account_value_usd=13104.514502,
            maintenance_margin_usd=0.0,
        )
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"totalNtlPos":"100.02765"', b'"totalNtlPos":"250.0"'),
        (b'"szi":"0.0335"', b'"szi":"-0.0335"'),
        (b'"rawUsd":"-95.059824"', b'"rawUsd":"95.059824"'),
        (b'"rawUsd":"-95.059824",', b""),
        (b'"marginUsed":"4.967826"', b'"marginUsed":"49.67826"'),
    ],
)
def test_an_account_whose_positions_do_not_add_up_is_refused(old: bytes, new: bytes) -> None:
    content = CORPUS["clearinghouse_state"]
    assert old in content
    assert reason_of_state(content.replace(old, new)) == "inconsistent"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"totalRawUsd":"13104.514502"', b'"totalRawUsd":"13204.514502"'),
        (b'"totalRawUsd":"13009.454678"', b'"totalRawUsd":"13104.514502"'),
        (b'"accountValue":"13109.482328"', b'"accountValue":"13104.514502"'),
        (b'"accountValue":"13104.514502"', b'"accountValue":"25.9"'),
        (b'"type":"isolated"', b'"type":"cross"'),
    ],
)
def test_an_account_whose_cash_is_kept_elsewhere_still_tells_its_positions_and_is_not_an_error(old: bytes, new: bytes) -> None:
    """Many accounts are unified; were they refused, each would be asked for again before all others."""
    content = CORPUS["clearinghouse_state"]
    assert old in content
    (event,) = info("clearinghouseState", content.replace(old, new))
    assert isinstance(event, AccountSnapshot)
    assert event.mode == "unknown"
    assert event.account_value_usd is None
    assert event.maintenance_margin_usd == 0.0
    assert [(position.symbol, position.size) for position in event.positions] == [("ETH", 0.0335)]


def test_a_position_without_value_has_no_mark() -> None:
    content = CORPUS["clearinghouse_state"]
    for old, new in ((b'"100.02765"', b'"0.0"'), (b'"4.967826"', b'"-95.059824"'), (b'"13109.482328"', b'"13009.454678"')):
        content = content.replace(old, new)
    (event,) = info("clearinghouseState", content)
    assert isinstance(event, AccountSnapshot)
    assert (event.mode, event.positions[0].mark_price) == (None, None)


def test_an_account_that_is_as_it_says_makes_no_claim_about_its_mode() -> None:
    """A unified account may well keep all identities, so that only the answer about modes can tell."""
    (event,) = info("clearinghouseState", CORPUS["clearinghouse_state"])
    assert isinstance(event, AccountSnapshot)
    assert (event.mode, event.pool) == (None, "")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"value":20', b'"value":0', "bad_number"),
        (b'"szi":"0.0335"', b'"szi":"NaN"', "bad_number"),
        (b'"totalRawUsd":"13104.514502"', b'"totalRawUsd":"-inf"', "bad_number"),
        (b'"positionValue":"100.02765"', b'"positionValue":"-100.02765"', "bad_number"),
        (b',"time":1708622398623', b"", "wrong_type"),
        (b'"type":"isolated"', b'"type":"other"', "wrong_type"),
        (b"assetPositions", b"positions", "wrong_type"),
    ],
)
def test_an_account_with_impossible_fields_is_refused(old: bytes, new: bytes, reason: str) -> None:
    assert reason_of_state(CORPUS["clearinghouse_state"].replace(old, new)) == reason


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6).filter(lambda size: abs(size) > 1e-6), st.floats(1e-3, 1e6), st.booleans(), st.floats(-1e9, 1e9)
        ),
        max_size=20,
    ),
    st.floats(-1e9, 1e9),
)
def test_every_account_that_keeps_the_identities_is_accepted(
    positions: list[tuple[float, float, bool, float]], cash: float
) -> None:
    """The venue rounds to a millionth, so figures rounded like that must pass whatever the positions are."""
    wire_positions = []
    cross_value = cash
    isolated_cash = isolated_equity = gross = 0.0
    for number, (size, mark, is_cross, raw) in enumerate(positions):
        value = abs(size) * mark
        gross += value
        leverage: dict[str, object] = {"type": "cross", "value": 10}
        used = value / 10
        if is_cross:
            cross_value += size * mark
        else:
            leverage = {"type": "isolated", "value": 10, "rawUsd": f"{raw:.6f}"}
            used = raw + size * mark
            isolated_cash += raw
            isolated_equity += used
        position = {
            "coin": f"C{number}",
            "szi": repr(size),
            "leverage": leverage,
            "positionValue": f"{value:.6f}",
            "marginUsed": f"{used:.6f}",
        }
        wire_positions.append({"position": position, "type": "oneWay"})
    state = {
        "assetPositions": wire_positions,
        "crossMarginSummary": {"accountValue": f"{cross_value:.6f}", "totalRawUsd": f"{cash:.6f}", "totalNtlPos": "0"},
        "marginSummary": {
            "accountValue": f"{cross_value + isolated_equity:.6f}",
            "totalRawUsd": f"{cash + isolated_cash:.6f}",
            "totalNtlPos": f"{gross:.6f}",
        },
        "time": 1708622398623,
    }
    (event,) = info("clearinghouseState", json.dumps(state).encode())
    assert isinstance(event, AccountSnapshot)
    assert len(event.positions) == len(positions)
    assert event.maintenance_margin_usd is None


def test_the_state_on_another_dex_is_a_pool_of_its_own() -> None:
    for coin in (b'"coin":"xyz:TSLA"', b'"coin":"TSLA"'):
        content = CORPUS["clearinghouse_state"].replace(b'"coin":"ETH"', coin)
        (event,) = info("clearinghouseState", content, dex="xyz")
        assert isinstance(event, AccountSnapshot)
        assert (event.pool, event.account, event.cross_cash_usd) == ("xyz", WATCHED, 13104.514502)
        assert [position.symbol for position in event.positions] == ["xyz:TSLA"]


@pytest.mark.parametrize(("dex", "coin"), [("", b'"xyz:TSLA"'), ("flx", b'"xyz:TSLA"')])
def test_a_position_on_another_dex_than_the_one_asked_about_is_refused(dex: str, coin: bytes) -> None:
    with pytest.raises(FeedError) as caught:
        info("clearinghouseState", CORPUS["clearinghouse_state"].replace(b'"ETH"', coin), dex=dex)
    assert caught.value.reason == "inconsistent"


def test_balances_are_totals_by_token_without_empty_ones_and_outcomes() -> None:
    assert info("spotClearinghouseState", CORPUS["spot_clearinghouse_state"]) == [
        AccountBalances(
            venue="hyperliquid",
            connection="rest",
            received_ns=RECEIVED_NS,
            account=WATCHED,
            balances=(HoldingReport(symbol="USDC", quantity=14.625485), HoldingReport(symbol="PURR", quantity=2000.0)),
        )
    ]


def test_an_account_with_nothing_has_no_balances_and_one_in_debt_a_negative_one() -> None:
    (nothing,) = info("spotClearinghouseState", b'{"balances":[]}')
    assert isinstance(nothing, AccountBalances)
    assert nothing.balances == ()
    (debt,) = info("spotClearinghouseState", CORPUS["spot_clearinghouse_state"].replace(b"14.625485", b"-14.625485"))
    assert isinstance(debt, AccountBalances)
    assert debt.balances[0] == HoldingReport(symbol="USDC", quantity=-14.625485)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"balances":', b'{"portfolioMarginEnabled":true,"balances":'),
        (b'"hold":"1500.0"', b'"hold":"1500.0","borrowed":"12.5","supplied":"0.0"'),
    ],
)
def test_balances_that_show_portfolio_margin_say_so_before_they_are_told(old: bytes, new: bytes) -> None:
    mode, balances = info("spotClearinghouseState", CORPUS["spot_clearinghouse_state"].replace(old, new))
    assert isinstance(mode, AccountModeReport)
    assert mode.mode == "portfolio"
    assert isinstance(balances, AccountBalances)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"coin":"PURR"', b'"coin":"USDC"', "inconsistent"),
        (b'"token":235', b'"token":0', "inconsistent"),
        (b'"coin":"USDE"', b'"coin":"PURR"', "inconsistent"),
        (b'"total":"2000.0"', b'"total":"NaN"', "bad_number"),
        (b'"total":"2000.0"', b'"total":"1e30"', "bad_number"),
        (b'"balances"', b'"other"', "wrong_type"),
    ],
)
def test_impossible_balances_are_refused(old: bytes, new: bytes, reason: str) -> None:
    content = CORPUS["spot_clearinghouse_state"]
    assert old in content
    with pytest.raises(FeedError) as caught:
        info("spotClearinghouseState", content.replace(old, new))
    assert caught.value.reason == reason


def test_a_real_account_keeps_the_identities_of_cash_where_positions_were_not_cut_off(shared_data: Path) -> None:
    """The capture of 2026 lacks positions, so that its totals are cut down to those that are there."""
    content = json.loads((shared_data / "data" / "hl_api_fixtures" / "index_yassi80" / "clearinghouseState.json").read_bytes())
    positions = [item["position"] for item in content["assetPositions"]]
    gross = sum(float(position["positionValue"]) for position in positions)
    net = sum(float(position["positionValue"]) * (1.0 if float(position["szi"]) > 0.0 else -1.0) for position in positions)
    value = float(content["marginSummary"]["accountValue"])
    for name in ("marginSummary", "crossMarginSummary"):
        content[name].update(totalNtlPos=repr(gross), totalRawUsd=repr(value - net))
    (event,) = info("clearinghouseState", json.dumps(content).encode())
    assert isinstance(event, AccountSnapshot)
    assert (event.mode, len(event.positions), event.exchange_ns) == (None, 6, 1_790_518_335_406_000_000)
    content["crossMarginSummary"]["totalRawUsd"] = "3365784.4669949999"
    (event,) = info("clearinghouseState", json.dumps(content).encode())
    assert isinstance(event, AccountSnapshot)
    assert event.mode == "unknown"


def test_an_account_of_2023_keeps_the_identities_once_it_has_a_time(shared_data: Path) -> None:
    path = shared_data / "data" / "hl_api_fixtures" / "sdk_cassettes" / "test_get_user_state.yaml"
    text = path.read_text().split("string: '")[1].split("'\n")[0]
    (event,) = info("clearinghouseState", (text[:-1] + ',"time":1679940322000}').encode())
    assert isinstance(event, AccountSnapshot)
    assert len(event.positions) == 12
    assert event.cross_cash_usd == 86.549602


def test_a_capture_that_was_shortened_by_hand_is_noticed(shared_data: Path) -> None:
    """Six positions worth 0.2 million are left of a book of 4.4 million."""
    content = (shared_data / "data" / "hl_api_fixtures" / "index_yassi80" / "clearinghouseState.json").read_bytes()
    assert reason_of_state(content) == "inconsistent"


@pytest.mark.parametrize(
    ("response", "mode"),
    [
        (b'"disabled"', "standard"),
        (b'"unifiedAccount"', "unified"),
        (b'"portfolioMargin"', "portfolio"),
        (b'"dexAbstraction"', "unknown"),
        (b'"default"', "unknown"),
        (b"null", "unknown"),
    ],
)
def test_only_a_disabled_abstraction_is_a_standard_account(response: bytes, mode: str) -> None:
    (event,) = info("userAbstraction", response)
    assert isinstance(event, AccountModeReport)
    assert (event.account, event.mode) == (WATCHED, mode)


def fills_message(user: str, **changes: object) -> bytes:
    fill: dict[str, object] = {
        "coin": "BTC",
        "px": "66653.0",
        "sz": "0.001",
        "side": "A",
        "time": 1781528065899,
        "dir": "Open Short",
        "hash": HASH,
        "crossed": False,
        "tid": 745210434703679,
        "liquidation": {"liquidatedUser": VICTIM, "markPx": "66607.0", "method": "market"},
    }
    fill.update(changes)
    return json.dumps({"channel": "userFills", "data": {"user": user, "fills": [fill]}}, separators=(",", ":")).encode()


def test_a_maker_that_sold_met_a_short_that_died() -> None:
    assert parse(HYPERLIQUID, CORPUS["user_fills_maker"]) == [
        Liquidation(
            venue="hyperliquid",
            connection="main",
            received_ns=RECEIVED_NS,
            symbol="BTC",
            exchange_ns=1_781_528_065_899_000_000,
            side="short",
            price=66653.0,
            size=0.001,
            completeness="partial",
            method="market",
            account=VICTIM,
            fill_id=745210434703679,
            liquidation_id=f"{HASH}:{VICTIM}:BTC",
        )
    ]


@pytest.mark.parametrize(
    ("user", "changes", "side", "method"),
    [
        (WATCHED, {"side": "A"}, "short", "market"),
        (WATCHED, {"side": "B"}, "long", "market"),
        (VICTIM, {"side": "A", "dir": "Close Long", "crossed": True}, "long", "market"),
        (VICTIM, {"side": "B", "dir": "Close Short", "crossed": True}, "short", "market"),
        (VICTIM.upper().replace("X", "x"), {"side": "A", "crossed": True}, "long", "market"),
        (VICTIM, {"side": "A", "dir": "Liquidated Cross Long"}, "long", "market"),
        (
            WATCHED,
            {
                "side": "A",
                "dir": "Liquidated Isolated Short",
                "crossed": True,
                "liquidation": {"liquidatedUser": VICTIM, "method": "backstop"},
            },
            "short",
            "backstop",
        ),
        (
            WATCHED,
            {
                "side": "B",
                "dir": "Auto-Deleveraging",
                "crossed": True,
                "liquidation": {"liquidatedUser": VICTIM, "method": "backstop"},
            },
            "long",
            "deleveraging",
        ),
        (
            VICTIM,
            {"side": "A", "dir": "Auto-Deleveraging", "liquidation": {"liquidatedUser": VICTIM, "method": "market"}},
            "long",
            "deleveraging",
        ),
    ],
)
def test_the_side_that_died_is_found_from_either_partys_fill(user: str, changes: dict[str, object], side: str, method: str) -> None:
    (event,) = parse(HYPERLIQUID, fills_message(user, **changes))
    assert isinstance(event, Liquidation)
    assert (event.side, event.method, event.account) == (side, method, VICTIM)


def test_both_parties_fills_of_one_liquidation_have_the_same_identity() -> None:
    (maker,) = parse(HYPERLIQUID, fills_message(WATCHED, side="A"))
    (victim,) = parse(HYPERLIQUID, fills_message(VICTIM, side="B", dir="Close Short", crossed=True))
    assert maker == victim


def test_the_fills_that_a_subscription_starts_with_are_history() -> None:
    content = fills_message(WATCHED)
    assert len(parse(HYPERLIQUID, content.replace(b'"fills"', b'"isSnapshot":false,"fills"'))) == 1
    assert parse(HYPERLIQUID, content.replace(b'"fills"', b'"isSnapshot":true,"fills"')) == []


def test_fills_of_watched_accounts_move_no_position() -> None:
    """The public tape has the same fills with both accounts, and they would be counted twice."""
    for message in (fills_message(WATCHED), CORPUS["user_fills_maker"], user_event(crossed=False)):
        events = parse(HYPERLIQUID, message)
        assert [type(event) for event in events] == [Liquidation]
        assert not any(isinstance(event, AccountFill) for event in events)


@pytest.mark.parametrize(("crossed", "side"), [(True, "long"), (False, "short"), (None, None)])
def test_a_victim_that_is_not_named_is_known_by_its_order(crossed: bool | None, side: str | None) -> None:
    events = parse(HYPERLIQUID, fills_message(WATCHED, crossed=crossed, liquidation={"markPx": "66607.0", "method": "market"}))
    assert [(event.side, event.account, event.liquidation_id) for event in events if isinstance(event, Liquidation)] == (
        [] if side is None else [(side, None, None)]
    )


def test_fills_of_no_size_or_of_no_liquidation_are_left_out() -> None:
    assert parse(HYPERLIQUID, fills_message(WATCHED, sz="0.0")) == []
    assert parse(HYPERLIQUID, fills_message(WATCHED, liquidation=None)) == []
    assert parse(HYPERLIQUID, fills_message(WATCHED, dir="Liquidated Somehow")) == []


def user_event(**changes: object) -> bytes:
    fill = json.loads(fills_message(WATCHED, **changes))["data"]["fills"][0]
    return json.dumps({"channel": "user", "data": {"fills": [fill]}}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"side": "A", "crossed": False}, ["short"]),
        ({"side": "A", "crossed": True}, ["long"]),
        ({"dir": "Liquidated Cross Long", "liquidation": {"liquidatedUser": VICTIM, "method": "backstop"}}, ["long"]),
        ({"dir": "Auto-Deleveraging", "liquidation": {"liquidatedUser": VICTIM, "method": "backstop"}}, []),
        ({"dir": "Auto-Deleveraging", "crossed": True}, []),
        ({"crossed": None}, []),
    ],
)
def test_without_the_account_the_side_is_told_only_where_it_is_certain(changes: dict[str, object], sides: list[str]) -> None:
    events = parse(HYPERLIQUID, user_event(**changes))
    assert [event.side for event in events if isinstance(event, Liquidation)] == sides


def test_a_real_liquidation_fill_is_read(shared_data: Path) -> None:
    content = (shared_data / "data" / "hl_api_fixtures" / "nautilus" / "ws_user_fill_liquidation.json").read_bytes()
    (event,) = parse(HYPERLIQUID, content)
    assert isinstance(event, Liquidation)
    assert (event.side, event.size, event.account) == ("short", 0.001, "0x360878d351f05975e25f1807a27895e1e5e004fb")


def test_real_take_overs_by_the_liquidator_vault_are_read(shared_data: Path) -> None:
    content = (shared_data / "data" / "hl_api_fixtures" / "index_yassi80" / "userFills_liquidator.json").read_bytes()
    message = b'{"channel":"userFills","data":{"user":"0x2e3d94f0562703b25c83308a05046ddaf9a8dd14","fills":' + content + b"}}"
    events = parse(HYPERLIQUID, message)
    assert [(event.symbol, event.side, event.method, event.size) for event in events if isinstance(event, Liquidation)] == [
        ("HMSTR", "short", "backstop", 13385820.0),
        ("PURR", "short", "backstop", 882.0),
    ]
    assert info("userFills", content) == [], "what was asked for is history"
