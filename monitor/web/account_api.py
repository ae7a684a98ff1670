"""The paths about accounts: lists of those at risk, one in full, and where our figures and the venues' differ."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from monitor.account_report import AccountQuery, AccountReport, AccountsAtRisk, Disagreements
from monitor.projection import MarketProjection
from monitor.web import openapi, views
from monitor.web.accounts import AccountSource, BusyError
from monitor.web.answers import RequestError, json_response
from monitor.web.hub import Hub
from monitor.web.parameters import read_parameters

_HEX_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

Answer = TypeVar("Answer")


class AccountApi:
    """The handlers.

    Args:
        hub: has the source, its clock, and says whether accounts are hidden.
        market: finds the market that a request names, or raises the error that says it is not there.
    """

    def __init__(self, hub: Hub, market: Callable[[web.Request], MarketProjection]) -> None:
        self._hub = hub
        self._market = market

    def routes(self) -> list[web.RouteDef]:
        """Return what to route where."""
        return [
            web.get("/api/v1/accounts", self.at_risk),
            web.get("/api/v1/accounts/disagreements", self.disagreements),
            web.get("/api/v1/accounts/{venue}/{account}", self.account),
            web.get("/api/v1/markets/{venue}/{symbol}/accounts", self.market_at_risk),
        ]

    async def at_risk(self, request: web.Request) -> web.Response:
        """Answer with accounts of all markets, or of those that were asked for."""
        asked = read_parameters(request, openapi.ACCOUNTS_QUERY)
        return self._at_risk(_query(asked, asked["venue"], asked["symbol"]))

    async def market_at_risk(self, request: web.Request) -> web.Response:
        """Answer with accounts that have a position in one market."""
        market = self._market(request)
        return self._at_risk(_query(read_parameters(request, openapi.MARKET_ACCOUNTS_QUERY), market.venue, market.symbol))

    async def account(self, request: web.Request) -> web.Response:
        """Answer with one account in full."""
        read_parameters(request, ())
        source, redaction = self._source(), self._hub.redaction
        venue, name = request.match_info["venue"], request.match_info["account"]
        if redaction is None:
            report = self._asked(lambda: _find(source, venue, name, self._hub.clock_ns()))
            message = f"account {name[:100]!r} has never been seen on {venue[:100]!r}"
        else:
            real = redaction.account(venue, name)
            report = None if real is None else self._asked(lambda: source.account(venue, real, self._hub.clock_ns()))
            report = None if report is None else redaction.report(report)
            # The same words for a real name, an alias of another run and nonsense; nothing of the request is repeated.
            message = "no account has this alias; aliases hold until the restart of liqmon and are given in the lists of accounts"
        if report is None:
            raise RequestError(404, "unknown_account", message)
        late = self._hub.late_reasons(report.as_of_ns)
        return json_response(views.account(report, stale_reasons=late, redacted=redaction is not None))

    async def disagreements(self, request: web.Request) -> web.Response:
        """Answer with the worst disagreements between our figures and the venues'."""
        limit: int = read_parameters(request, openapi.DISAGREEMENTS_QUERY)["limit"]
        source, redaction = self._source(), self._hub.redaction

        def compute() -> Disagreements:
            answer = source.disagreements(self._hub.clock_ns(), limit)
            return answer if redaction is None else redaction.disagreements(answer)

        answer, age_s = self._asked_once(("disagreements", limit), compute)
        return json_response(views.disagreements(answer, age_s, redacted=redaction is not None))

    def _at_risk(self, query: AccountQuery) -> web.Response:
        source, redaction = self._source(), self._hub.redaction

        def compute() -> AccountsAtRisk:
            answer = source.at_risk(query, self._hub.clock_ns())
            return answer if redaction is None else redaction.at_risk(answer)

        answer, age_s = self._asked_once(("at_risk", query), compute)
        if not answer.live and not answer.unknown:
            self._expect_known(query)
        return json_response(
            views.accounts(
                answer,
                query,
                age_s,
                stale_reasons=self._hub.late_reasons(answer.as_of_ns),
                redacted=redaction is not None,
                simulated=self._hub.simulated,
            )
        )

    def _expect_known(self, query: AccountQuery) -> None:
        """Refuse a venue that nobody has heard of, rather than say that nobody there is at risk."""
        venues = self._hub.known_venues()
        if query.venue is not None and venues and query.venue not in venues:
            raise RequestError(400, "bad_parameter", f"venue must be one of: {', '.join(venues)}")

    def _source(self) -> AccountSource:
        if self._hub.accounts is None:
            raise RequestError(503, "not_ready", "nothing is known of accounts yet", {"Retry-After": "1"})
        return self._hub.accounts

    def _asked(self, compute: Callable[[], Answer]) -> Answer:
        try:
            return self._hub.ration.ask(compute)
        except BusyError as busy:
            raise _busy(busy) from None

    def _asked_once(self, question: object, compute: Callable[[], Answer]) -> tuple[Answer, float]:
        try:
            return self._hub.ration.ask_once((id(self._hub.accounts), id(self._hub.redaction), question), compute)
        except BusyError as busy:
            raise _busy(busy) from None


def _busy(busy: BusyError) -> RequestError:
    message = "too many questions about accounts; they would keep the feeds waiting"
    return RequestError(503, "busy", message, {"Retry-After": str(max(1, math.ceil(busy.retry_s)))})


def _query(asked: dict[str, Any], venue: str | None, symbol: str | None) -> AccountQuery:
    return AccountQuery(venue=venue, symbol=symbol, order=asked["order"], move_ratio=asked["move"], limit=asked["limit"])


def _find(source: AccountSource, venue: str, name: str, now_ns: int) -> AccountReport | None:
    """Look for an account as it was written; an address also in small letters, because explorers write checksums into the case."""
    report = source.account(venue, name, now_ns)
    if report is None and _HEX_ADDRESS.fullmatch(name) and name != name.lower():
        report = source.account(venue, name.lower(), now_ns)
    return report
