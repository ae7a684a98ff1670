"""The paths about accounts, asked over a real connection."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from aiohttp import ClientSession

from monitor.account_report import AccountQuery
from monitor.web.hub import Hub
from tests.monitor.web.account_builder import Account, Book, Margin, address, book
from tests.monitor.web.builder import START_NS, World
from tests.monitor.web.running import Clock, client, published

ACCOUNTS = "/api/v1/accounts"
BTC = "/api/v1/markets/hyperliquid/BTC/accounts"
TEMPLATES = {
    ACCOUNTS: ACCOUNTS,
    BTC: "/api/v1/markets/{venue}/{symbol}/accounts",
    f"{ACCOUNTS}/disagreements": f"{ACCOUNTS}/disagreements",
    f"{ACCOUNTS}/hyperliquid/{address(1)}": f"{ACCOUNTS}/{{venue}}/{{account}}",
}


def with_book(source: Book | None = None, **hub: Any) -> tuple[Hub, Book]:
    """Return a hub that has something to tell of accounts."""
    _, result = published(**hub)
    known = source if source is not None else book()
    result.accounts = known
    result.clock_ns = lambda: START_NS
    return result, known


async def answer(session: ClientSession, path: str, status: int = 200) -> Any:
    async with session.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_every_answer_and_refusal_fits_the_openapi_document() -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        document = await answer(session, "/api/v1/openapi.json")

        async def validate(path: str, status: int) -> None:
            template = TEMPLATES[path.partition("?")[0]]
            responses = document["paths"][template]["get"]["responses"]
            schema = responses[str(status)]["content"]["application/json"]["schema"]
            body = await answer(session, path, status)
            jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(body)

        for path in TEMPLATES:
            await validate(path, 200)
            await validate(f"{path}?unheard=1", 400)
        hub.accounts = None
        for path in TEMPLATES:
            await validate(path, 503)


async def test_parameters_are_described_as_they_are_read() -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        paths = (await answer(session, "/api/v1/openapi.json"))["paths"]
    named = {template: [item["name"] for item in paths[template]["get"]["parameters"]] for template in TEMPLATES.values()}
    assert named == {
        ACCOUNTS: ["venue", "symbol", "order", "move", "limit"],
        TEMPLATES[BTC]: ["venue", "symbol", "order", "move", "limit"],
        f"{ACCOUNTS}/disagreements": ["limit"],
        f"{ACCOUNTS}/{{venue}}/{{account}}": ["venue", "account"],
    }
    by_name = {item["name"]: item for item in paths[ACCOUNTS]["get"]["parameters"]}
    assert by_name["order"]["schema"]["enum"] == ["distance", "notional", "bad_debt"]
    assert by_name["move"]["schema"] == {"type": "number", "exclusiveMinimum": -1.0, "exclusiveMaximum": 10.0, "default": -0.1}
    assert {item["name"]: item["in"] for item in paths[TEMPLATES[BTC]]["get"]["parameters"]}["venue"] == "path"


async def test_the_list_is_what_the_source_says_with_the_question_it_answers() -> None:
    hub, source = with_book()
    async with client(hub) as session:
        body = await answer(session, f"{ACCOUNTS}?order=bad_debt&move=-0.2&limit=7&symbol=ETH")
    expected = source.at_risk(AccountQuery(symbol="ETH", order="bad_debt", move_ratio=-0.2, limit=7), START_NS)
    assert len(body["accounts"]) == 7
    for row, known in zip(body["accounts"], expected.accounts, strict=True):
        assert row == {name: getattr(known, name) for name in known.__struct_fields__} | {"simulated": False}
    for name in ("as_of_ns", "move_ratio", "live", "unknown", "bad_debt_usd"):
        assert body[name] == getattr(expected, name)
    assert (body["venue"], body["symbol"], body["order"], body["limit"]) == (None, "ETH", "bad_debt", 7)
    assert (body["stale"], body["stale_reasons"], body["redacted"], body["evaluation_age_s"]) == (False, [], False, 0.0)


async def test_the_market_of_the_path_is_the_market_asked_for() -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        one = await answer(session, f"{BTC}?order=notional&limit=20")
        same = await answer(session, f"{ACCOUNTS}?venue=hyperliquid&symbol=BTC&order=notional&limit=20")
        assert one["accounts"] == same["accounts"]
        assert (one["venue"], one["symbol"]) == ("hyperliquid", "BTC")
        tesla = await answer(session, "/api/v1/markets/hyperliquid/xyz:TSLA/accounts")
        assert tesla["symbol"] == "xyz:TSLA"
        assert tesla["live"] < (await answer(session, ACCOUNTS))["live"]
        error = (await answer(session, "/api/v1/markets/hyperliquid/btc/accounts", 404))["error"]
        assert error["code"] == "unknown_market"
        assert "near it: hyperliquid/BTC" in error["message"]
        error = (await answer(session, f"{BTC}?venue=okx", 400))["error"]
        assert error["message"] == "'venue' is no parameter here; allowed: order, move, limit"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("order=size", "order must be one of: distance, notional, bad_debt"),
        ("limit=501", "limit must be a whole number from 1 to 500"),
        ("move=-1", "move must be a decimal fraction between -1 and 10, such as -0.1"),
        ("sort=distance", "'sort' is no parameter here; allowed: venue, symbol, order, move, limit"),
        ("venue=nowhere", "venue must be one of: hyperliquid"),
    ],
)
async def test_wrong_parameters_are_named_with_what_is_allowed(query: str, message: str) -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        assert await answer(session, f"{ACCOUNTS}?{query}", 400) == {"error": {"code": "bad_parameter", "message": message}}


async def test_a_venue_with_accounts_and_without_markets_can_be_asked_for() -> None:
    source = book(20)
    source.accounts[5].venue = "desk"
    hub, _ = with_book(source)
    async with client(hub) as session:
        assert (await answer(session, f"{ACCOUNTS}?venue=desk"))["live"] == 1


async def test_without_a_source_nothing_is_ready() -> None:
    _, hub = published()
    async with client(hub) as session:
        for path in TEMPLATES:
            async with session.get(path) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert (await response.json())["error"]["code"] == "not_ready"


async def test_one_account_is_told_in_full() -> None:
    hub, source = with_book()
    async with client(hub) as session:
        body = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(1)}")
        assert (body["state"], body["reasons"], body["redacted"]) == ("live", [], False)
        assert [margin["kind"] for margin in body["margins"]] == ["cross", "isolated"]
        bitcoin = body["margins"][0]["legs"][0]
        margin = source.accounts[0].margins[0]
        assert bitcoin["liquidation_price"] == margin.leg_price("BTC", source.prices)
        assert bitcoin["disagreement_ratio"] == pytest.approx(1 / 1.0002 - 1)
        stale = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(2)}")
        assert (stale["state"], len(stale["reasons"])) == ("stale", 1)
        unknown = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(3)}")
        assert unknown["state"] == "unknown"
        assert unknown["margins"][0]["equity_usd"] is None


async def test_an_account_that_was_never_seen_is_not_found() -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        for venue, name in (("hyperliquid", "0x" + "1" * 40), ("nowhere", address(1)), ("hyperliquid", "x" * 5_000)):
            error = (await answer(session, f"{ACCOUNTS}/{venue}/{name}", 404))["error"]
            assert error == {
                "code": "unknown_account",
                "message": f"account {name[:100]!r} has never been seen on {venue!r}",
            }


async def test_an_address_is_found_in_the_spelling_of_an_explorer() -> None:
    hub, source = with_book()
    source.accounts[4].name = "Desk-7"
    async with client(hub) as session:
        spelt = "0x" + address(1)[2:].upper()
        assert (await answer(session, f"{ACCOUNTS}/hyperliquid/{spelt}"))["account"] == address(1)
        assert (await answer(session, f"{ACCOUNTS}/hyperliquid/Desk-7"))["account"] == "Desk-7"
        await answer(session, f"{ACCOUNTS}/hyperliquid/desk-7", 404)


@pytest.mark.parametrize("name", ["dydx1abc/0", "desk 7", "a?b#c", "disagreements", "<b>&amp;", "ü✓"])
async def test_an_account_may_have_any_name(name: str) -> None:
    hub, _ = with_book(Book([Account(name, [Margin("cross", 1_000.0, {"BTC": 0.1})])]))
    async with client(hub) as session:
        assert (await answer(session, f"{ACCOUNTS}/hyperliquid/{quote(name, safe='')}"))["account"] == name


async def test_disagreements_are_listed_with_when_they_were_compared() -> None:
    hub, _ = with_book()
    async with client(hub) as session:
        body = await answer(session, f"{ACCOUNTS}/disagreements?limit=5")
        assert [row["difference_ratio"] for row in body["worst"]] == sorted((n / 60_000 for n in range(5)), reverse=True)
        assert {row["compared_ns"] for row in body["worst"]} == {START_NS}
        assert (body["as_of_ns"], body["redacted"]) == (START_NS, False)
        await answer(session, f"{ACCOUNTS}/disagreements?limit=0", 400)


async def test_a_stopped_evaluation_is_not_live() -> None:
    clock = Clock()
    hub, _ = with_book(monotonic=clock)
    async with client(hub) as session:
        clock.seconds += 30
        reason = "no new evaluation for more than 10 s"
        body = await answer(session, BTC)
        assert (body["stale"], body["stale_reasons"]) == (True, [reason])
        live = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(1)}")
        assert (live["state"], live["reasons"]) == ("stale", [reason])
        unknown = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(3)}")
        assert (unknown["state"], unknown["reasons"][-1]) == ("unknown", reason)


async def test_a_source_that_stands_still_is_not_live() -> None:
    hub, source = with_book()
    now_ns = START_NS
    hub.clock_ns = lambda: now_ns
    async with client(hub) as session:
        assert (await answer(session, BTC))["stale"] is False
        answered = source.at_risk(AccountQuery(limit=50), START_NS)
        report = source.account("hyperliquid", address(1), START_NS)
        # From now on it says the same, whatever the time.
        source.at_risk = lambda query, now_ns: answered  # type: ignore[method-assign]
        source.account = lambda venue, account, now_ns: report  # type: ignore[method-assign]
        now_ns += 10_000_000_001
        body = await answer(session, f"{ACCOUNTS}?limit=50")
        assert (body["stale"], body["stale_reasons"]) == (True, ["the numbers are older than 10 s"])
        one = await answer(session, f"{ACCOUNTS}/hyperliquid/{address(1)}")
        assert (one["state"], one["reasons"]) == ("stale", ["the numbers are older than 10 s"])


async def test_simulated_accounts_say_so() -> None:
    hub = Hub()
    hub.publish(World(simulated=True).step())
    hub.accounts = book(simulated=True)
    async with client(hub) as session:
        assert {row["simulated"] for row in (await answer(session, ACCOUNTS))["accounts"]} == {True}
        assert (await answer(session, f"{ACCOUNTS}/hyperliquid/{address(1)}"))["simulated"] is True


async def test_equal_questions_are_computed_once_a_second() -> None:
    clock = Clock()
    hub, source = with_book(monotonic=clock)
    async with client(hub) as session:
        for path in (BTC, f"{ACCOUNTS}?symbol=BTC&venue=hyperliquid", f"{BTC}?move=-0.10&order=distance"):
            body = await answer(session, path)
        assert source.asked == ["at_risk"]
        clock.seconds += 0.5
        body = await answer(session, BTC)
        assert body["evaluation_age_s"] == 0.5
        await answer(session, f"{BTC}?limit=51")
        assert source.asked == ["at_risk"] * 2
        clock.seconds += 0.5
        assert (await answer(session, BTC))["evaluation_age_s"] == 0.0
        assert source.asked == ["at_risk"] * 3
        assert (await answer(session, "/api/v1/status"))["web"]["account_questions"] == 3


async def test_an_answer_of_one_source_is_not_given_for_another() -> None:
    hub, source = with_book()
    async with client(hub) as session:
        before = await answer(session, ACCOUNTS)
        other = hub.accounts = book(30)
        assert (await answer(session, ACCOUNTS))["live"] < before["live"]
        assert (source.asked, other.asked) == (["at_risk"], ["at_risk"])


class Slow(Book):
    """A book whose questions take 100 ms each."""

    clock: Clock

    def at_risk(self, query: AccountQuery, now_ns: int) -> Any:
        self.clock.seconds += 0.1
        return super().at_risk(query, now_ns)


async def test_readers_cannot_keep_the_feeds_waiting() -> None:
    clock = Clock()
    source = Slow(book(20).accounts)
    source.clock = clock
    hub, _ = with_book(source, monotonic=clock)
    async with client(hub) as session:
        statuses = []
        for limit in range(1, 31):
            async with session.get(f"{ACCOUNTS}?limit={limit}") as response:
                statuses.append(response.status)
                if response.status == 503:
                    assert (await response.json())["error"]["code"] == "busy"
                    assert int(response.headers["Retry-After"]) >= 1
        assert statuses.count(200) == 5
        assert (await answer(session, "/api/v1/status"))["web"]["account_requests_refused"] == 25
        # What is known already costs nothing.
        await answer(session, f"{ACCOUNTS}?limit=1")
        clock.seconds += 1.0
        await answer(session, f"{ACCOUNTS}?limit=30")
