"""Accounts behind aliases: no name gets out, and nobody can ask whether an account is watched."""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from monitor.web.hub import Hub
from monitor.web.redaction import WITHHELD, RedactingFilter, Redaction
from tests.monitor.web.account_builder import Account, Book, Margin, address, book
from tests.monitor.web.running import client, published

ACCOUNTS = "/api/v1/accounts"
ALIAS = re.compile(r"account-[0-9a-f]{12}")
WATCHED = address(1)


def naming_hub() -> tuple[Hub, Book]:
    """Return a hub that knows accounts by name, in lists, reasons and connections."""
    world, hub = published()
    source = hub.accounts = book()
    status = world.status()
    connection = msgspec.structs.replace(
        status.connections[0],
        state="degraded",
        detail=f"1 channels silent: userFills:{WATCHED}; last said of 'Desk-7'",
        silent_channels=(f"userFills:{WATCHED}", "l2Book:BTC"),
    )
    hub.publish_status(msgspec.structs.replace(status, connections=(connection,)))
    return hub, source


def test_an_alias_is_twelve_digits_the_same_every_time_and_another_with_another_key() -> None:
    one, two = Redaction(), Redaction()
    alias = one.alias("hyperliquid", WATCHED)
    assert ALIAS.fullmatch(alias)
    assert one.alias("hyperliquid", WATCHED) == alias
    assert two.alias("hyperliquid", WATCHED) != alias
    assert one.alias("okx", WATCHED) != alias
    assert len(one) == 2


def test_only_an_alias_that_was_given_out_leads_to_its_account() -> None:
    redaction = Redaction()
    alias = redaction.alias("hyperliquid", WATCHED)
    assert redaction.account("hyperliquid", alias) == WATCHED
    assert redaction.account("okx", alias) is None
    assert redaction.account("hyperliquid", WATCHED) is None
    assert redaction.account("hyperliquid", "account-000000000000") is None


def test_aliases_are_bounded_and_what_was_shown_last_stays() -> None:
    redaction = Redaction(aliases_max=3)
    aliases = [redaction.alias("v", f"a{number}") for number in range(3)]
    redaction.alias("v", "a0")
    redaction.alias("v", "a3")
    assert (len(redaction), redaction.forgotten) == (3, 1)
    assert [redaction.account("v", alias) for alias in aliases] == ["a0", None, "a2"]
    assert redaction.alias("v", "a1") == aliases[1]


def test_two_accounts_with_one_hash_get_two_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    redaction = Redaction(key=b"k" * 32)
    whole = Redaction._digest
    # Four bits only: of 12 accounts some are sure to meet.
    monkeypatch.setattr(Redaction, "_digest", lambda self, *name: whole(self, *name)[:1].zfill(12))
    aliases = [redaction.alias("v", f"a{number}") for number in range(12)]
    assert len(set(aliases)) == 12
    assert [redaction.account("v", alias) for alias in aliases] == [f"a{number}" for number in range(12)]
    assert [redaction.alias("v", f"a{number}") for number in range(12)] == aliases


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_has_an_alias_that_leads_back(venue: str, account: str) -> None:
    redaction = Redaction()
    assert redaction.account(venue, redaction.alias(venue, account)) == account


def test_names_are_taken_out_of_texts() -> None:
    redaction = Redaction()
    alias = redaction.alias("v", WATCHED)
    assert redaction.text("v", f"fills of {WATCHED.upper().replace('0X', '0x')} were missed") == f"fills of {alias} were missed"
    assert redaction.text("v", "Desk-7 is behind Desk-77", "Desk-7") == f"{redaction.alias('v', 'Desk-7')} is behind Desk-77"
    assert redaction.text("v", f"block 0x{'ab' * 32}") == f"block {WITHHELD}"
    assert redaction.text("v", "of dydx1" + "q" * 38 + "/3 only") == f"of {WITHHELD} only"
    assert redaction.text("v", "of 7YttLkHDoNj9wyDur5pM1ejNaAvT9X4eqaYcHQqtj2G5") == f"of {WITHHELD}"
    for text in ("", "closed_1006: no close frame received", "http_502: the handshake was answered 502", "l2Book:BTC"):
        assert redaction.text("v", text) == text


def aliases_in(body: Any, key: str) -> list[str]:
    return [row["account"] for row in body[key]]


async def get(session: ClientSession, path: str) -> Any:
    async with session.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_lists_and_reports_name_aliases_that_can_be_asked_for() -> None:
    hub, source = naming_hub()
    async with client(hub, redact_accounts=True) as session:
        listed = await get(session, f"{ACCOUNTS}?limit=500")
        aliases = aliases_in(listed, "accounts")
        assert listed["redacted"] is True
        assert all(ALIAS.fullmatch(alias) for alias in aliases)
        assert len(set(aliases)) == len({account.name for account in source.accounts if account.state == "live"})
        disagreeing = aliases_in(await get(session, f"{ACCOUNTS}/disagreements?limit=500"), "worst")
        # The same account has the same alias wherever it is named, also when its margin accounts are several.
        assert set(aliases) < set(disagreeing)
        nearest = await get(session, f"{ACCOUNTS}/hyperliquid/{aliases[0]}")
        assert nearest["account"] == aliases[0]
        shown = listed["accounts"][0]
        assert nearest["margins"][0]["equity_usd"] == shown["equity_usd"]
        counters = (await get(session, "/api/v1/status"))["web"]
        assert counters["account_aliases"] == len(source.accounts)
        assert counters["account_aliases_forgotten"] == 0


async def test_reasons_do_not_name_the_account_that_they_are_about() -> None:
    hub, source = naming_hub()
    async with client(hub, redact_accounts=True) as session:
        disagreeing = aliases_in(await get(session, f"{ACCOUNTS}/disagreements?limit=500"), "worst")
        stale = await get(session, f"{ACCOUNTS}/hyperliquid/{disagreeing[::-1][1]}")
        assert stale["state"] == "stale"
        assert stale["reasons"] == [f"fills of {stale['account']} were missed while the feed was down"]
        assert source.accounts[1].name not in str(stale)


async def test_a_real_name_is_answered_like_any_unknown_one_and_never_reaches_the_source() -> None:
    hub, source = naming_hub()
    async with client(hub, redact_accounts=True) as session:
        alias = aliases_in(await get(session, ACCOUNTS), "accounts")[0]
        real = {account.name for account in source.accounts if account.state == "live"}
        asked = list(source.asked)
        seen = set()
        strange = ("0x" + "1" * 40, "account-000000000000", Redaction().alias("hyperliquid", WATCHED), "nonsense", "x" * 5_000)
        for venue in ("hyperliquid", "nowhere"):
            for name in (*sorted(real)[:20], WATCHED.upper().replace("0X", "0x"), *strange):
                async with session.get(f"{ACCOUNTS}/{venue}/{name}") as response:
                    headers = tuple(sorted((key, value) for key, value in response.headers.items() if key != "Date"))
                    seen.add((response.status, await response.read(), headers))
        async with session.get(f"{ACCOUNTS}/nowhere/{alias}") as response:
            assert response.status == 404
        assert len(seen) == 1
        assert seen.pop()[0] == 404
        assert source.asked == asked


async def test_no_path_and_no_message_of_the_stream_names_an_account() -> None:
    hub, source = naming_hub()
    named = hub.status
    assert named is not None
    names = [account.name for account in source.accounts] + ["Desk-7"]
    paths = (
        "/readyz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/markets",
        "/api/v1/markets/hyperliquid/BTC",
        "/api/v1/markets/hyperliquid/BTC/liquidations",
        "/api/v1/markets/hyperliquid/BTC/history",
        "/api/v1/markets/hyperliquid/BTC/accounts?limit=500",
        "/api/v1/alerts",
        f"{ACCOUNTS}?limit=500",
        f"{ACCOUNTS}/disagreements?limit=500",
    )

    async def everything(session: ClientSession) -> str:
        texts = [await (await session.get(path)).text() for path in paths]
        async with session.ws_connect("/api/v1/stream") as stream:
            kinds: set[str] = set()
            while not kinds >= {"hello", "markets", "status", "alerts"}:
                message = await stream.receive_json()
                kinds.add(message["type"])
                texts.append(str(message))
        return "\n".join(texts)

    # The same hub without redaction first, so that the check is seen to find what it looks for.
    async with client(hub) as session:
        text = await everything(session)
        assert all(name in text for name in names)
    async with client(hub, redact_accounts=True) as session:
        text = await everything(session)
        assert [name for name in names if name in text] == []
        assert f"userFills:{hub.redaction.alias('hyperliquid', WATCHED)}" in text  # type: ignore[union-attr]
        assert "l2Book:BTC" in text
        # What is published later is hidden as well.
        hub.publish_status(named)
        assert WATCHED not in await everything(session)


class Broken(Book):
    """A book with a mistake, whose error carries the name of the account."""

    def account(self, venue: str, account: str, now_ns: int) -> Any:
        raise KeyError(f"row of {account}") from ValueError(account)


@pytest.mark.parametrize("name", [WATCHED, "Desk-7"])
async def test_the_log_of_a_mistake_tells_where_and_not_whose(name: str, caplog: pytest.LogCaptureFixture) -> None:
    _, hub = published()
    hub.accounts = Broken([Account(name, [Margin("cross", 1_000.0, {"BTC": 0.1})])])
    async with client(hub) as session:
        assert (await session.get(f"{ACCOUNTS}/hyperliquid/{name}")).status == 500
    assert name in caplog.text
    caplog.clear()
    async with client(hub, redact_accounts=True) as session:
        alias = aliases_in(await get(session, ACCOUNTS), "accounts")[0]
        assert (await session.get(f"{ACCOUNTS}/hyperliquid/{alias}")).status == 500
    assert "KeyError" in caplog.text
    assert "in account" in caplog.text
    assert name not in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


def test_paths_and_addresses_are_taken_out_of_log_lines() -> None:
    record = logging.LogRecord(
        "web", logging.ERROR, "x.py", 1, "failed: %s for %s", (f"GET {ACCOUNTS}/okx/Desk-7?x", WATCHED), None
    )
    assert RedactingFilter().filter(record)
    assert record.getMessage() == f"failed: GET {ACCOUNTS}/{WITHHELD} for {WITHHELD}"
