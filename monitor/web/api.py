"""The read-only HTTP API. Every answer is one struct of ``monitor/web/views.py``; every failure is an ``ErrorResponse``."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from monitor.metrics import ProjectionCollector, Reading
from monitor.projection import MarketProjection
from monitor.web import openapi, views
from monitor.web.account_api import AccountApi
from monitor.web.answers import JSON, RequestError, json_response
from monitor.web.hub import Hub
from monitor.web.parameters import read_parameters
from monitor.web.settings import HttpSettings


class Api:
    """The handlers of all paths but the stream and the page."""

    def __init__(self, hub: Hub, settings: HttpSettings) -> None:
        self._hub = hub
        self._accounts = AccountApi(hub, self._market)
        self._openapi = msgspec.json.encode(openapi.document())
        self._reading = Reading()
        self._scraping = asyncio.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(ProjectionCollector(lambda: self._reading, max_series=settings.max_series))
        ProcessCollector(registry=self._registry)

    def routes(self) -> list[web.RouteDef]:
        """Return what to route where."""
        market = "/api/v1/markets/{venue}/{symbol}"
        return [
            web.get("/healthz", self.health),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/markets", self.markets),
            web.get(market, self._about_market(views.market_fields)),
            web.get(f"{market}/clusters", self._about_market(views.clusters)),
            web.get(f"{market}/cascade", self._about_market(views.cascade)),
            web.get(f"{market}/liquidations", self._about_market(views.liquidations)),
            web.get(f"{market}/history", self.history),
            *self._accounts.routes(),
            web.get("/api/v1/alerts", self.alerts),
            web.get("/api/v1/openapi.json", self.openapi),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Answer that the process is alive."""
        return json_response(views.HealthResponse(status="alive"))

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 while at least one market is fed and fresh, else 503 with the reasons."""
        ready, reasons = self._hub.readiness()
        return json_response(views.ReadyResponse(ready=ready, reasons=reasons), 200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics in a thread, one scrape at a time; the reading is taken here, where nothing is published meanwhile."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        async with self._scraping:
            self._reading = self._hub.reading()
            body = await asyncio.to_thread(encode, self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def status(self, _: web.Request) -> web.Response:
        """Answer with the health of everything."""
        return json_response(self._hub.status_view())

    async def markets(self, _: web.Request) -> web.Response:
        """Answer with one line per market."""
        return json_response(self._hub.summaries())

    async def history(self, request: web.Request) -> web.Response:
        """Answer with the recent past of a market."""
        market = self._market(request)
        asked = read_parameters(request, openapi.HISTORY_QUERY)
        history = self._hub.history((market.venue, market.symbol))
        if history is None:
            raise RequestError(404, "no_history", f"no history is kept for {market.venue}/{market.symbol}: all places are taken")
        return json_response(
            views.history(market, self._hub.evaluation_age_s() or 0.0, history.query(asked["seconds"], asked["columns"]))
        )

    async def alerts(self, _: web.Request) -> web.Response:
        """Answer with what fires and what changed last."""
        return json_response(self._hub.alerts_view())

    async def openapi(self, _: web.Request) -> web.Response:
        """Answer with the description of this API."""
        return web.Response(body=self._openapi, content_type=JSON, headers={"Cache-Control": "no-store"})

    def _about_market(self, view: Callable[[MarketProjection, float], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return json_response(view(self._market(request), self._hub.evaluation_age_s() or 0.0))

        return handle

    def _market(self, request: web.Request) -> MarketProjection:
        venue, symbol = request.match_info["venue"], request.match_info["symbol"]
        market = self._hub.market((venue, symbol))
        if market is None:
            known = ["/".join(key) for key in self._hub.market_keys()]
            raise RequestError(404, "unknown_market", unknown_market(f"{venue}/{symbol}", known))
        return market


def unknown_market(name: str, known: list[str]) -> str:
    """Name the market that is not there, and up to five that sound like it (or the first five)."""
    shown = name[:100]
    if not known:
        return f"{shown!r} is not watched: no market is known yet"
    by_lower = {market.lower(): market for market in known}
    near = [by_lower[market] for market in difflib.get_close_matches(shown.lower(), by_lower, n=5, cutoff=0.4)]
    if near:
        return f"{shown!r} is not watched; near it: {', '.join(near)}"
    return f"{shown!r} is not watched; of {len(known)} watched markets the first are: {', '.join(known[:5])}"
