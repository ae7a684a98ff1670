from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.events import AccountFill, AnyEvent, Gap, Liquidation, SubscriptionNotice
from connectors.hyperliquid import Hyperliquid
from connectors.hyperliquid_node import NODE_CONNECTION, NODE_STREAM_CONNECTION, is_perpetual
from tests.connectors.payloads import RECEIVED_NS, damaged, parse, payload

HYPERLIQUID = Hyperliquid()
VAULT = "0x2e3d94f0562703b25c83308a05046ddaf9a8dd14"
WINNER = "0x" + "e92d" * 10
VICTIM = "0x" + "cd" * 20
MAKER = "0x" + "ab" * 20
HASH = "0x" + "0f" * 32
BLOCK = payload("hyperliquid", "node_block")


def fill(**changes: object) -> dict[str, object]:
    return {
        "coin": "BTC",
        "px": "66653.0",
        "sz": "0.5",
        "side": "A",
        "time": 1781528065899,
        "startPosition": "2.0",
        "dir": "Close Long",
        "closedPnl": "0.0",
        "hash": HASH,
        "oid": 55030848197,
        "crossed": True,
        "fee": "1.5",
        "tid": 7,
        "feeToken": "USDC",
        "twapId": None,
    } | changes


def block(*pairs: tuple[str, dict[str, object]]) -> bytes:
    stamps = {"local_time": "2026-06-10T13:10:56.723695057", "block_time": "2026-06-10T12:56:15.035481067"}
    return json.dumps({**stamps, "block_number": 1030140001, "events": pairs}, separators=(",", ":")).encode()


def liquidated(method: str = "market", user: str = VICTIM) -> dict[str, object]:
    return {"liquidation": {"liquidatedUser": user, "markPx": "66607.0", "method": method}}


def node(line: bytes, connection: str = NODE_CONNECTION) -> list[AnyEvent]:
    return parse(HYPERLIQUID, line, connection)


def fills_of(events: list[AnyEvent]) -> list[AccountFill]:
    return [event for event in events if isinstance(event, AccountFill)]


def liquidations_of(events: list[AnyEvent]) -> list[Liquidation]:
    return [event for event in events if isinstance(event, Liquidation)]


def test_the_sample_block_of_october_2025_is_a_deleveraging_of_the_vaults_long() -> None:
    """The account that was picked bought back its short; the other party of its fill is not in the excerpt."""
    assert node(BLOCK) == [
        AccountFill(
            venue="hyperliquid",
            connection="node",
            received_ns=RECEIVED_NS,
            account=WINNER,
            symbol="AVAX",
            exchange_ns=1_760_130_964_831_000_000,
            price=22.075,
            size=28.53,
            trade_id=771334864158847,
            start_size=-28.53,
            fee_usd=0.0,
        ),
        Liquidation(
            venue="hyperliquid",
            connection="node",
            received_ns=RECEIVED_NS,
            symbol="AVAX",
            exchange_ns=1_760_130_964_831_000_000,
            side="long",
            price=22.075,
            size=28.53,
            completeness="complete",
            method="deleveraging",
            account=VAULT,
            fill_id=771334864158847,
            liquidation_id=f"{HASH}:{VAULT}:AVAX",
        ),
    ]


@pytest.mark.parametrize("victim_says", ["Auto-Deleveraging", "Close Long", "Liquidated Cross Long"])
def test_with_both_parties_in_the_block_a_deleveraging_is_told_once_whatever_the_victims_fill_calls_it(victim_says: str) -> None:
    sample = json.loads(BLOCK)
    user, picked = sample["events"][0]
    victim = [VAULT, picked | {"side": "A", "startPosition": "40.0", "dir": victim_says}]
    for events in ([[user, picked], victim], [victim, [user, picked]]):
        found = node(json.dumps(sample | {"events": events}).encode())
        assert [
            (event.account, event.size, event.start_size) for event in sorted(fills_of(found), key=lambda event: event.size)
        ] == [
            (VAULT, -28.53, 40.0),
            (WINNER, 28.53, -28.53),
        ]
        assert liquidations_of(found) == liquidations_of(node(BLOCK))


def test_a_liquidation_on_the_book_is_told_once_though_both_parties_fills_carry_it() -> None:
    victim = (VICTIM, fill(**liquidated()))
    maker = (MAKER, fill(side="B", startPosition="0.0", dir="Open Long", crossed=False, **liquidated()))
    for pairs in ([victim, maker], [maker, victim]):
        events = node(block(*pairs))
        assert len(fills_of(events)) == 2
        (event,) = liquidations_of(events)
        assert (event.account, event.side, event.method, event.size, event.fill_id) == (VICTIM, "long", "market", 0.5, 7)
        assert event.completeness == "complete"


def test_one_forced_order_with_many_makers_is_as_many_liquidations_of_one_id() -> None:
    pairs: list[tuple[str, dict[str, object]]] = []
    for number in range(5):
        pairs.append((VICTIM, fill(tid=number, sz=f"{number + 1}.0", **liquidated())))
        pairs.append((f"0x{number:040x}", fill(tid=number, sz=f"{number + 1}.0", side="B", crossed=False, **liquidated())))
    events = liquidations_of(node(block(*pairs)))
    assert [(event.fill_id, event.size) for event in events] == [(number, number + 1.0) for number in range(5)]
    assert {event.liquidation_id for event in events} == {f"{HASH}:{VICTIM}:BTC"}


def test_a_counterpartys_word_is_enough_in_a_whole_block_and_not_in_a_part_of_one() -> None:
    """Elsewhere the victim's own fill comes in another line, and the liquidation with it."""
    maker = (MAKER, fill(side="B", crossed=False, **liquidated()))
    (event,) = liquidations_of(node(block(maker)))
    assert (event.account, event.side) == (VICTIM, "long")
    assert liquidations_of(node(block(maker), NODE_STREAM_CONNECTION)) == []
    assert liquidations_of(node(json.dumps(maker).encode())) == []
    victim = (VICTIM, fill(**liquidated()))
    assert len(liquidations_of(node(block(victim), NODE_STREAM_CONNECTION))) == 1
    assert len(liquidations_of(node(json.dumps(victim).encode()))) == 1


def test_a_pair_alone_in_its_line_moves_the_position() -> None:
    (event,) = fills_of(
        node(json.dumps([MAKER.upper().replace("X", "x"), fill(side="B", fee="-0.25", startPosition="-1.5")]).encode())
    )
    assert (event.account, event.symbol, event.size, event.start_size, event.fee_usd) == (MAKER, "BTC", 0.5, -1.5, -0.25)


@pytest.mark.parametrize("changes", [{"feeToken": "HYPE"}, {"feeToken": None}, {"feeToken": "USDH"}])
def test_a_fee_in_another_token_is_unknown(changes: dict[str, object]) -> None:
    assert fills_of(node(block((MAKER, fill(**changes)))))[0].fee_usd is None


def test_what_the_node_does_not_tell_of_a_fill_is_unknown() -> None:
    old = {name: value for name, value in fill().items() if name not in {"fee", "feeToken", "startPosition"}}
    (event,) = fills_of(node(block((MAKER, old))))
    assert (event.fee_usd, event.start_size) == (None, None)


@pytest.mark.parametrize(
    ("coin", "expected"),
    [
        ("BTC", True),
        ("kPEPE", True),
        ("xyz:TSLA", True),
        ("oX", True),
        ("@107", False),
        ("PURR/USDC", False),
        ("#12", False),
        ("+9", False),
    ],
)
def test_only_fills_of_perpetuals_move_positions(coin: str, *, expected: bool) -> None:
    assert is_perpetual(coin) == expected
    assert [event.symbol for event in fills_of(node(block((MAKER, fill(coin=coin)))))] == ([coin] if expected else [])


def test_a_block_without_fills_tells_that_the_record_goes_on() -> None:
    for line in (block(), block((MAKER, fill(sz="0.0")))):
        [notice] = node(line)
        assert isinstance(notice, SubscriptionNotice)
        assert (notice.connection, notice.channel, notice.accepted) == ("node", "node_fills", True)


@pytest.mark.parametrize(
    "changes", [{"px": "0.0"}, {"px": "NaN"}, {"sz": "-1"}, {"side": "C"}, {"tid": "x"}, {"startPosition": "1e30"}, {"time": 0}]
)
def test_a_fill_that_cannot_be_read_is_a_gap_beside_the_others(changes: dict[str, object]) -> None:
    """Its account is wrong from here on, and nobody can tell whose it was."""
    events = node(block((VICTIM, fill(tid=1)), (MAKER, fill(**({"tid": 2} | changes))), (VICTIM, fill(tid=3))))
    assert [event.trade_id for event in fills_of(events)] == [1, 3]
    assert events[-1] == Gap(venue="hyperliquid", connection="node", received_ns=RECEIVED_NS, reason="undecodable_fill")


def test_a_token_that_is_sold_for_nothing_is_no_gap() -> None:
    events = node(block((VICTIM, fill(tid=1)), (MAKER, fill(coin="#12", px="0.0"))))
    assert [type(event) for event in events] == [AccountFill]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\x00" * 50,
        b"null",
        b"{}",
        b"[]",
        b"[1,2,3]",
        b'{"events":5}',
        BLOCK[:300],
        BLOCK + b"}",
        b'["0x1",{"coin":"',
        b"[" * 50_000,
        b'{"coin":"BTC","side":"B","time":"2026-06-10T12:56:15.035481067","px":"1","sz":"1","hash":"0x0","side_info":[]}',
    ],
)
def test_a_line_that_is_no_fill_is_a_gap_and_no_error(line: bytes) -> None:
    assert [type(event) for event in node(line)] == [Gap]


def test_a_file_that_was_lost_is_a_gap_of_its_connection() -> None:
    (event,) = parse(HYPERLIQUID, None, NODE_STREAM_CONNECTION)
    assert isinstance(event, Gap)
    assert event.connection == "node-stream"


def test_a_real_fill_is_the_same_as_over_the_socket(shared_data: Path) -> None:
    content = json.loads((shared_data / "data" / "hl_api_fixtures" / "nautilus" / "ws_user_fill_liquidation.json").read_bytes())
    (real,) = content["data"]["fills"]
    (own,) = fills_of(node(block((MAKER, real))))
    assert (own.size, own.start_size, own.fee_usd, own.trade_id) == (-0.001, -0.0213, 0.009997, 745210434703679)
    (told,) = liquidations_of(node(block((MAKER, real))))
    (watched,) = liquidations_of(parse(HYPERLIQUID, json.dumps(content).encode()))
    assert (told.side, told.account, told.fill_id, told.liquidation_id) == (
        watched.side,
        watched.account,
        watched.fill_id,
        watched.liquidation_id,
    )


def test_real_take_overs_are_told_by_the_vaults_fills_where_the_victims_are_missing(shared_data: Path) -> None:
    path = shared_data / "data" / "hl_api_fixtures" / "index_yassi80" / "userFills_liquidator.json"
    events = node(block(*((VAULT, item) for item in json.loads(path.read_bytes()))))
    assert len(fills_of(events)) == 5
    assert [(event.symbol, event.side, event.method, event.account) for event in liquidations_of(events)] == [
        ("HMSTR", "short", "backstop", "0xcb02837caaee310c178501855b63bf7f4f4b1f8b"),
        ("PURR", "short", "backstop", "0xf4349a87d8c71a517ecadbefbbc4b0db70fc6108"),
    ]
    first, second, *buy_backs = fills_of(events)
    assert (first.size, first.start_size, second.size) == (-13385820.0, 0.0, -882.0)
    # The file has the newest first; each buy-back starts from where the one before it ended.
    sizes = [(event.start_size or 0.0) + event.size for event in reversed(buy_backs)]
    assert sizes == [event.start_size for event in list(reversed(buy_backs))[1:]] + [0.0]


@given(
    st.lists(
        st.tuples(st.floats(0.001, 1e6), st.sampled_from("AB"), st.sampled_from([VICTIM, MAKER, WINNER]), st.booleans()),
        max_size=20,
    )
)
def test_every_fill_gives_one_move_and_every_liquidation_is_told_once(trades: list[tuple[float, str, str, bool]]) -> None:
    pairs: list[tuple[str, dict[str, object]]] = []
    for tid, (size, side, user, is_forced) in enumerate(trades):
        more = liquidated(user=user) if is_forced else {}
        pairs.append((user, fill(tid=tid, sz=repr(size), side=side, **more)))
        pairs.append((VAULT, fill(tid=tid, sz=repr(size), side="AB"[side == "A"], crossed=False, **more)))
    events = node(block(*pairs))
    assert sum(event.size for event in fills_of(events)) == pytest.approx(0.0, abs=1e-6)
    assert [event.trade_id for event in fills_of(events)] == [tid for tid in range(len(trades)) for _ in range(2)]
    assert [event.fill_id for event in liquidations_of(events)] == [tid for tid, trade in enumerate(trades) if trade[3]]
    assert [event.side for event in liquidations_of(events)] == [
        "long" if side == "A" else "short" for _, side, _, is_forced in trades if is_forced
    ]


@settings(max_examples=300, deadline=None)
@given(damaged([BLOCK, json.dumps([VICTIM, fill(**liquidated())]).encode(), block((VICTIM, fill()), (MAKER, fill(side="B")))]))
def test_damaged_lines_give_events_and_never_an_error(line: bytes) -> None:
    for connection in (NODE_CONNECTION, NODE_STREAM_CONNECTION):
        for event in node(line, connection):
            assert isinstance(event, AccountFill | Liquidation | Gap)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_a_gap(noise: bytes) -> None:
    assert [type(event) for event in node(noise)] == [Gap]
