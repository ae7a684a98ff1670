"""Query parameters as they are read and described."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from monitor.web.answers import RequestError
from monitor.web.parameters import NAME_CHARACTERS, Choice, Fraction, Name, WholeNumber, read_parameters

PARAMETERS = (
    Name("venue", "Where."),
    Choice("order", ("distance", "notional"), "distance", "In which order."),
    Fraction("move", -1.0, 10.0, -0.1, "How far."),
    WholeNumber("limit", 1, 500, 50, "How many."),
)


def read(query: str) -> dict[str, Any]:
    return read_parameters(make_mocked_request("GET", f"/path?{query}"), PARAMETERS)


def refusal(query: str) -> str:
    with pytest.raises(RequestError) as caught:
        read(query)
    assert (caught.value.status, caught.value.code) == (400, "bad_parameter")
    return caught.value.message


def test_what_is_left_out_has_its_default() -> None:
    assert read("") == {"venue": None, "order": "distance", "move": -0.1, "limit": 50}
    assert read("venue=") == read("")


def test_what_is_given_is_taken() -> None:
    assert read("venue=okx&order=notional&move=0.25&limit=500") == {
        "venue": "okx",
        "order": "notional",
        "move": 0.25,
        "limit": 500,
    }


@pytest.mark.parametrize(
    ("query", "move"),
    [("move=%2B0.1", 0.1), ("move=+0.1", 0.1), ("move=-0.999999", -0.999999), ("move=9.99", 9.99), ("move=0", 0.0)],
)
def test_a_move_may_have_either_sign(query: str, move: float) -> None:
    assert read(query)["move"] == move


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort=distance", "'sort' is no parameter here; allowed: venue, order, move, limit"),
        ("order=size", "order must be one of: distance, notional"),
        ("order=", "order must be one of: distance, notional"),
        ("order=distance&order=notional", "order is given more than once"),
        ("limit=0", "limit must be a whole number from 1 to 500"),
        ("limit=501", "limit must be a whole number from 1 to 500"),
        ("limit=%D9%A3", "limit must be a whole number from 1 to 500"),
        *(
            (f"move={move}", "move must be a decimal fraction between -1 and 10, such as -0.1")
            for move in ("-1", "10", "nan", "inf", "1e-1", "-10%25", "", "0x1", "--1", "%D9%A3", "9" * 400, "0." + "1" * 400)
        ),
        (f"venue={'v' * (NAME_CHARACTERS + 1)}", "venue must have at most 100 characters"),
        (f"{'n' * 5_000}=1", f"{'n' * 100!r} is no parameter here; allowed: venue, order, move, limit"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(query: str, names: str) -> None:
    assert refusal(query) == names


@given(st.text(max_size=12))
def test_no_text_gets_past_the_schema_that_describes_it(text: str) -> None:
    for parameter in PARAMETERS:
        try:
            value = parameter.read(text)
        except RequestError:
            continue
        if value is not None:
            jsonschema.validate(value, parameter.schema())
