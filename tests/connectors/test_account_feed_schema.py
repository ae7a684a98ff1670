"""The published schema of account feeds against the parser."""

from __future__ import annotations

import copy
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.account_feed import AccountFeed, AccountFeedError
from connectors.account_feed_schema import PATH, account_feed_schema, encode_schema, write_schema
from connectors.frames import Frame
from tests.connectors.test_account_feed import REFUSALS, documented

FEED = AccountFeed("desk", "our-exchange", has_markets=True)


@cache
def validator(definition: str = "") -> Any:
    schema = account_feed_schema()
    if definition:
        schema = {"$schema": schema["$schema"], "$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    # To JSON Schema 1.0 is an integer. To the feed it is not, as the document says, so that no sequence is ever rounded.
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, type_checker=checker)(schema)


def reason(document: object) -> str | None:
    """Why the parser refuses a document, ``None`` if it does not."""
    try:
        FEED.parse(Frame("desk", "desk", 1, json.dumps(document).encode()))
    except AccountFeedError as error:
        return error.reason
    return None


def agree(document: object) -> None:
    """Check that the schema accepts what the parser accepts, and what only a look at several items tells to be wrong."""
    refused = reason(document)
    assert validator().is_valid(document) == (refused in {None, "inconsistent"}), (refused, document)


def test_the_committed_schema_is_the_generated_one(tmp_path: Path) -> None:
    assert PATH.read_bytes() == encode_schema(), "run `python -m connectors.account_feed_schema` and review the difference"
    write_schema(tmp_path / "schema.json")
    assert (tmp_path / "schema.json").read_bytes() == encode_schema()


def test_it_is_a_schema_in_which_every_field_is_described_by_name_or_text() -> None:
    schema = json.loads(PATH.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        assert definition["additionalProperties"] is False, name


def test_everything_in_the_document_for_users_is_accepted() -> None:
    kinds = ("snapshot", "delta", "instruments", "prices", "heartbeat")
    messages = [message for kind in kinds for message in documented(kind)]
    assert len(messages) == 13
    for message in messages:
        assert validator().is_valid(message)
        agree(message)
    (question,) = documented("resync")
    assert validator("ResyncMessage").is_valid(question)
    assert not validator().is_valid(question)
    assert json.loads(FEED.resync_message("a", None)) == {"type": "resync", "account": "a", "after_sequence": None}
    assert validator("ResyncMessage").is_valid(json.loads(FEED.resync_message("a", None)))


@pytest.mark.parametrize("case", range(len(REFUSALS)), ids=[f"{number}-{case[2]}" for number, case in enumerate(REFUSALS)])
def test_parser_and_schema_refuse_the_same(case: int) -> None:
    message, _, _ = REFUSALS[case]
    try:
        document = json.loads(message) if isinstance(message, bytes) else message
    except ValueError:
        return  # no JSON, so there is no schema for it
    if isinstance(message, bytes) and (b"NaN" in message or b"Infinity" in message):
        return  # Python reads more than JSON
    agree(document)


ODD: Any = st.sampled_from([None, True, "", "BTC", "1", [], {}, [{}], 0, 1.5, "x" * 65])
NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, -1, 0.5, 1.0, 0.999, 60_000, -3.25, 256, 10_000, 10_001, 1e15, -1e18, 1e18, 1e300, 2**62, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**20), 10**20),
)


def often(*likely: Any) -> Any:
    """Mostly a value that fits, sometimes a number that may not, seldom what has no place there."""
    fitting = st.sampled_from(likely)
    return st.integers(0, 19).flatmap(lambda draw: ODD if draw == 0 else NUMBERS if draw == 1 else fitting)


def listed(item: Any) -> Any:
    return st.integers(0, 19).flatmap(lambda draw: ODD if draw == 0 else st.lists(item, max_size=3))


def record(required: dict[str, Any], optional: dict[str, Any]) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


SYMBOLS = often("BTC", "ETH", "SOL", "AVAX", "WETH", "USDC", "DOGE", "x" * 64)
POSITIVE = often(1, 0.5, 60_000.0, 1e14)
SIGNED = often(1, -2.5, 100_000, -0.001)
TIMES = often(1_790_000_000_000_000_000, 10**18, 9 * 10**18 - 1)
COUNTS = often(0, 1, 2, 2**62 - 1)

POSITION = record(
    {"symbol": SYMBOLS, "size": SIGNED},
    {
        "position_side": often("net", "net", "net", "long", "short"),
        "contract": often("linear", "inverse", None),
        "entry_price": POSITIVE,
        "isolated_cash_usd": SIGNED,
        "liquidation_price": POSITIVE,
        "leverage": often(1, 5.5, 10_000),
    },
)
HOLDING = record({"symbol": SYMBOLS, "quantity": SIGNED}, {})
TIER = record(
    {"lower_bound": often(0, 0, 100, 1_000), "maintenance_rate": often(0.01, 0.01, 0.02, 0.5)},
    {"deduction": often(0, 0, 1), "max_leverage": often(20, 50)},
)
RULES = record(
    {"symbol": SYMBOLS, "contract": often("linear", "inverse", "asset")},
    {
        "tiers": listed(TIER),
        "collateral_ratio": often(0, 0.5, 1, None),
        "e_mode_ratios": listed(record({"category": often(1, 2, 255), "ratio": often(0.9, 1)}, {})),
        "size_step": POSITIVE,
        "price_step": POSITIVE,
        "only_isolated": often(True, False),
        "delisted": often(True, False),
    },
)
PRICE = record({"symbol": SYMBOLS, "mark_price": POSITIVE}, {"index_price": POSITIVE})
ACCOUNT = {"account": often("fund-a", "\u00fc\U0001f600", "x" * 80), "sequence": COUNTS, "time_ns": TIMES}
LISTS = {"positions": listed(POSITION), "holdings": listed(HOLDING)}
MESSAGES = st.one_of(
    record(
        {"type": st.just("snapshot"), **ACCOUNT, "cash_usd": SIGNED, **LISTS},
        {"pool": often("", "xyz"), "e_mode": often(0, 1, 255), "account_value_usd": SIGNED, "maintenance_margin_usd": POSITIVE},
    ),
    record({"type": st.just("delta"), **ACCOUNT}, {"cash_usd": SIGNED, **LISTS}),
    record({"type": st.just("instruments"), "instruments": listed(RULES)}, {"time_ns": TIMES}),
    record({"type": st.just("prices"), "time_ns": TIMES, "prices": listed(PRICE)}, {}),
    record({"type": often("heartbeat", "snapshot")}, {"time_ns": TIMES}),
)

QUICK = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@QUICK
@given(MESSAGES)
def test_parser_and_schema_agree_on_made_up_messages(message: dict[str, Any]) -> None:
    agree(message)


@QUICK
@given(st.data())
def test_parser_and_schema_agree_on_real_messages_with_one_thing_changed(data: st.DataObject) -> None:
    """Near misses: most made-up messages are wrong in several places at once, and so say little of each."""
    kind = data.draw(st.sampled_from(["snapshot", "delta", "instruments", "prices", "heartbeat"]))
    message = copy.deepcopy(data.draw(st.sampled_from(documented(kind))))
    place: Any = message
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    change = data.draw(st.sampled_from(["remove", "odd", "number", "add"]))
    if change == "remove":
        del place[key]
    elif change == "add" and isinstance(place, dict):
        extra = data.draw(
            st.sampled_from(["contract", "entry_price", "position_side", "tiers", "collateral_ratio", "e_mode", "unheard"])
        )
        place[extra] = data.draw(st.one_of(ODD, NUMBERS, st.sampled_from(["inverse", "asset", "long", "short"])))
    else:
        place[key] = data.draw(ODD if change == "odd" else NUMBERS)
    agree(message)


def test_made_up_messages_are_accepted_often_enough_to_mean_something() -> None:
    """Two that always refuse would agree as well."""
    seen: Counter[str | None] = Counter()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(MESSAGES)
    def collect(message: dict[str, Any]) -> None:
        seen[reason(message)] += 1

    collect()
    assert seen[None] > 60
    assert min(seen[refused] for refused in ("bad_number", "wrong_type", "inconsistent")) > 5, seen
