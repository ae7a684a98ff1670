"""Answers to ``POST /info``, with the venue's errors and rate limit (venues.md 1.2, 1.3, 1.7)."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import orjson

from connectors.serving import RestReply
from connectors.simulated.account_messages import account_mode, clearinghouse_state, fills_data, spot_state
from connectors.simulated.exchange import Exchange
from connectors.simulated.market_messages import all_mids, book_data, context_data, meta, recent_trades, trades_data
from connectors.simulated.markets import MarginTier, margin_table

Json = dict[str, object]

WEIGHT_PER_MINUTE: Final = 1_200
LIGHT_TYPES: Final = frozenset({"l2Book", "allMids", "clearinghouseState", "spotClearinghouseState", "exchangeStatus"})
LIGHT_WEIGHT: Final = 2
OTHER_WEIGHT: Final = 20
ITEMS_PER_WEIGHT: Final = 20
RECENT_TRADES_SPAN_MS: Final = 20_000
SINGLE_TIER_IDS: Final = range(1, 50)
"""Margin tables below 50 are not listed: one tier whose leverage is the id."""

ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}\Z")

BAD_TYPE: Final = b"Failed to deserialize the JSON body into the target type"
BAD_JSON: Final = b"Failed to parse the request body as JSON"
PLAIN_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}


class Refusal(Exception):  # noqa: N818 -- what the venue answers instead, not a fault of ours
    """An answer other than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.reply = RestReply(status=status, body=body, headers={} if body == b"null" else PLAIN_TEXT)


class WeightBudget:
    """A bucket of request weight that refills evenly; ``None`` per minute is no limit.

    Attributes:
        refused_total: Requests that were answered with 429.
    """

    def __init__(self, per_minute: int | None) -> None:
        self.refused_total = 0
        self._per_minute = per_minute
        self._level = float(per_minute or 0)
        self._filled_ms = 0.0

    def take(self, weight: int, now_ms: float) -> bool:
        """Take ``weight`` out at a time of any clock that does not go back, or tell that there is not enough."""
        if self._per_minute is None:
            return True
        refill = (now_ms - self._filled_ms) * self._per_minute / 60_000
        self._level = min(float(self._per_minute), self._level + refill)
        self._filled_ms = now_ms
        if self._level <= 0.0:
            self.refused_total += 1
            return False
        # The last request may overdraw: what it costs is known only once its answer is.
        self._level -= weight
        return True


class InfoRequest(msgspec.Struct, frozen=True):
    """The fields of all supported requests."""

    type: str
    coin: str = ""
    user: str = ""
    dex: str | None = ""
    """The main dex is the only one; ``null`` means it too."""
    id: int | None = None
    nSigFigs: int | None = None  # noqa: N815 -- the venue's name
    mantissa: int | None = None


class Info:
    """Answers requests from the state after the last block."""

    def __init__(self, exchange: Exchange, budget: WeightBudget) -> None:
        self._exchange = exchange
        self._budget = budget
        self._coins = {spec.coin: market for market, spec in enumerate(exchange.markets)}

    def reply(self, body: bytes, now_ms: float) -> RestReply:
        """Answer one request body; ``now_ms`` is for the rate limit only."""
        if not self._budget.take(0, now_ms):
            return RestReply(status=429, body=b"null")
        try:
            return RestReply(status=200, body=orjson.dumps(self.answer(body, now_ms)))
        except Refusal as refusal:
            self._budget.take(OTHER_WEIGHT, now_ms)
            return refusal.reply

    def answer(self, body: bytes, now_ms: float) -> object:
        """Return the answer to one request as JSON types and charge its weight.

        Raises:
            Refusal: the venue answers with an error.
        """
        try:
            request = msgspec.json.decode(body, type=InfoRequest)
        except msgspec.ValidationError:
            raise Refusal(422, BAD_TYPE) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Refusal(400, BAD_JSON) from None
        if request.dex:
            raise Refusal(500, b"null")
        answer = self._answer(request)
        weight = LIGHT_WEIGHT if request.type in LIGHT_TYPES else OTHER_WEIGHT
        if request.type in {"recentTrades", "userFills"} and isinstance(answer, list):
            weight += len(answer) // ITEMS_PER_WEIGHT
        self._budget.take(weight, now_ms)
        return answer

    def _answer(self, request: InfoRequest) -> object:
        exchange = self._exchange
        match request.type:
            case "meta":
                return meta(exchange)
            case "metaAndAssetCtxs":
                return [meta(exchange), [context_data(exchange, market) for market in range(len(exchange.markets))]]
            case "allMids":
                return all_mids(exchange)
            case "l2Book":
                return self._book(request)
            case "recentTrades":
                return self._recent_trades(request)
            case "marginTable":
                return self._margin_table(request.id)
            case "perpDexs":
                return [None]
            case "exchangeStatus":
                return {"specialStatuses": None, "time": exchange.time_ms}
            case "clearinghouseState":
                return clearinghouse_state(exchange, self._row(request))
            case "spotClearinghouseState":
                return spot_state(exchange, self._row(request))
            case "userAbstraction":
                return account_mode(exchange, self._row(request))
            case "userFills":
                row = self._row(request)
                return [] if row is None else fills_data(exchange, row, reversed(exchange.fills.get(row, ())))
            case _:
                raise Refusal(422, BAD_TYPE)

    def _row(self, request: InfoRequest) -> int | None:
        if not ADDRESS.match(request.user):
            raise Refusal(422, BAD_TYPE)
        return self._exchange.table.rows.get(request.user.lower())

    def _book(self, request: InfoRequest) -> Json | None:
        if not is_valid_aggregation(request.nSigFigs, request.mantissa):
            raise Refusal(500, b"null")
        market = self._coins.get(request.coin)
        if market is None:
            return None
        return book_data(self._exchange, market, significant_figures=request.nSigFigs, mantissa=request.mantissa)

    def _recent_trades(self, request: InfoRequest) -> list[Json] | None:
        market = self._coins.get(request.coin)
        if market is None:
            raise Refusal(500, b"null")
        trades = recent_trades(self._exchange, market, self._exchange.time_ms - RECENT_TRADES_SPAN_MS)
        return trades_data(self._exchange, reversed(trades))

    def _margin_table(self, table_id: int | None) -> Json:
        if table_id in SINGLE_TIER_IDS:
            assert table_id is not None, "a range holds integers"
            return {"description": "", "marginTiers": [{"lowerBound": "0.0", "maxLeverage": MarginTier(0, table_id).max_leverage}]}
        for spec in self._exchange.markets:
            if spec.margin_table_id == table_id:
                return margin_table(spec)
        raise Refusal(422 if table_id is None else 500, BAD_TYPE if table_id is None else b"null")


def is_valid_aggregation(significant_figures: int | None, mantissa: int | None) -> bool:
    """Tell whether the venue accepts a book with these parameters."""
    if significant_figures is not None and significant_figures not in {2, 3, 4, 5}:
        return False
    return mantissa is None or (mantissa in {2, 5} and significant_figures == 5)
