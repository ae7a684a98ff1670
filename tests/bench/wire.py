"""Load of a busy day in Hyperliquid's own messages: what the sockets would hand over, second by second."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import orjson

from connectors.frames import RestRequest, wrap_rest_response
from monitor.margin import Array
from tests.bench.population import TIER_BOUNDS_USD, TIER_LEVERAGES, account_name

STAMP = b"1234567890123"
"""Stands in templates where the venue's time in milliseconds goes."""

PER_MARKET = {"mark": 1.0, "fast": 20.0, "plain": 4.0, "book-4": 0.5, "book-3": 0.5, "book-2": 0.5, "bbo": 45.0, "trades": 28.5}
"""Messages per second of one market: 100 in all. Marks come at the real rate, books and tape several times as often as on an
ordinary day; 200 markets make 20,000 messages a second."""

VARIANTS = {"mark": 1, "fast": 3, "plain": 1, "book-4": 1, "book-3": 1, "book-2": 1, "bbo": 4, "trades": 4}
"""Different messages per market, second and kind; the load repeats them with new times."""

BOOK_LEVELS = 20
FAST_BOOK_LEVELS = 5

FIGURES = 5
"""Of the venue's own prices."""

TAPE_ACCOUNTS = 5_000
"""Accounts on the tape. None of them holds a position, and few make most of the trades, as market makers do."""

MARK_STEP_RATIO = 0.0005
"""Standard deviation of a mark's move from second to second."""

FIRST_TAPE_ACCOUNT = 10_000_000


class Message(NamedTuple):
    """A message but for its time; ``market`` and ``price`` are of a mark, else -1 and 0."""

    connection: str
    parts: list[bytes]
    market: int
    price: float

    def payload(self, stamp: bytes) -> bytes:
        """Return the message as it would be sent now."""
        return stamp.join(self.parts)


def symbols(markets: int) -> list[str]:
    """Return made-up coins."""
    return [f"C{number}" for number in range(markets)]


def instruments_payload(markets: int) -> bytes:
    """Return the recorded answer with all coins and their margin table."""
    tiers = [
        {"lowerBound": str(bound), "maxLeverage": int(leverage)}
        for bound, leverage in zip(TIER_BOUNDS_USD, TIER_LEVERAGES, strict=True)
    ]
    meta = {
        "universe": [{"szDecimals": 4, "name": coin, "maxLeverage": 40, "marginTableId": 56} for coin in symbols(markets)],
        "marginTables": [[56, {"description": "tiered 40x", "marginTiers": tiers}]],
    }
    contexts = [{"funding": "0.0000125", "openInterest": "0.0"} for _ in range(markets)]
    request = RestRequest(method="POST", path="/info", body='{"type":"metaAndAssetCtxs"}', weight=20)
    return wrap_rest_response(request, orjson.dumps([meta, contexts]))


class Load:
    """Messages of all markets, made second by second from a fixed seed."""

    def __init__(self, price: Array, open_interest: Array, depth_usd: float = 2_000_000.0, seed: int = 4) -> None:
        self._random = np.random.default_rng(seed)
        self._price = price.copy()
        self._interest = open_interest
        self._depth_usd = depth_usd
        self._coins = symbols(price.size)
        self._trade_id = 1_000_000_000
        self._makers: dict[str, Callable[[int], Message]] = {
            "mark": self._mark,
            "fast": lambda market: self._book(market, "main", FAST_BOOK_LEVELS, None),
            "plain": lambda market: self._book(market, "book", BOOK_LEVELS, None),
            "book-4": lambda market: self._book(market, "book-4", BOOK_LEVELS, 4),
            "book-3": lambda market: self._book(market, "book-3", BOOK_LEVELS, 3),
            "book-2": lambda market: self._book(market, "book-2", BOOK_LEVELS, 2),
            "bbo": self._quote,
            "trades": self._trades,
        }

    def once(self) -> dict[str, list[Message]]:
        """Return one message of each kind and market, to begin with."""
        return {kind: [make(market) for market in range(self._price.size)] for kind, make in self._makers.items()}

    def seconds(self, count: int, scale: float = 1.0) -> Iterator[list[Message]]:
        """Yield the messages of each second in the order of their arrival; ``scale`` multiplies all rates but that of marks."""
        markets = self._price.size
        for second in range(count):
            self._price *= np.exp(self._random.normal(0.0, MARK_STEP_RATIO, markets))
            messages: list[Message] = []
            for kind, rate in PER_MARKET.items():
                made = [[self._makers[kind](market) for market in range(markets)] for _ in range(VARIANTS[kind])]
                times = rate if kind == "mark" else rate * scale
                whole = round(times * markets * (second + 1)) - round(times * markets * second)
                start = round(times * markets * second)
                messages += [made[n // markets % len(made)][n % markets] for n in range(start, start + whole)]
            yield [messages[place] for place in self._random.permutation(len(messages)).tolist()]

    def _mark(self, market: int) -> Message:
        # Nine digits, so that every mark differs from those before it and can be recognised.
        text = f"{self._price[market]:.9g}"
        context = {
            "funding": "0.0000125",
            "openInterest": f"{self._interest[market]:.4f}",
            "prevDayPx": text,
            "dayNtlVlm": "1000000.0",
            "premium": "0.0001",
            "oraclePx": text,
            "markPx": text,
            "midPx": text,
            "impactPxs": [text, text],
            "dayBaseVlm": "1000.0",
        }
        payload = orjson.dumps({"channel": "activeAssetCtx", "data": {"coin": self._coins[market], "ctx": context}})
        return Message("main", [payload], market, float(text))

    def _book(self, market: int, connection: str, levels: int, figures: int | None) -> Message:
        price = float(self._price[market])
        sizes = self._random.exponential(self._depth_usd / price / levels, (2, levels)).tolist()
        sides = [
            [_level(rung, size) for rung, size in zip(_rungs(price, figures or FIGURES, levels, side), sizes[side], strict=True)]
            for side in (0, 1)
        ]
        data = {"coin": self._coins[market], "time": int(STAMP), "levels": sides}
        if levels == FAST_BOOK_LEVELS:
            data["fast"] = True
        return _message(connection, {"channel": "l2Book", "data": data})

    def _quote(self, market: int) -> Message:
        price = float(self._price[market])
        sizes = self._random.exponential(self._depth_usd / price / BOOK_LEVELS, 2).tolist()
        best = [_level(_rungs(price, FIGURES, 1, side)[0], sizes[side]) for side in (0, 1)]
        return _message("main", {"channel": "bbo", "data": {"coin": self._coins[market], "time": int(STAMP), "bbo": best}})

    def _trades(self, market: int) -> Message:
        data = []
        for _ in range(1 + int(self._random.geometric(0.7) > 1)):
            self._trade_id += 1
            users = (self._random.zipf(1.5, 2) - 1) % TAPE_ACCOUNTS + FIRST_TAPE_ACCOUNT
            trade = {
                "coin": self._coins[market],
                "side": "B" if self._random.random() < 0.5 else "A",
                "px": f"{self._price[market]:.5g}",
                "sz": f"{self._random.exponential(1_000.0) / self._price[market] + 0.0001:.4f}",
                "time": int(STAMP),
                "hash": f"0x{self._trade_id:064x}",
                "tid": self._trade_id,
                "users": [account_name(int(user)) for user in users],
            }
            data.append(trade)
        return _message("main", {"channel": "trades", "data": data})


def _rungs(price: float, figures: int, count: int, side: int) -> list[float]:
    """Return prices of so many significant figures, from ``price`` down (side 0, bids) or up; steps change at powers of ten."""
    rungs: list[float] = []
    position = price
    while len(rungs) < count:
        exponent = math.floor(math.log10(position)) - (figures - 1)
        number = position / 10.0**exponent
        whole = math.floor(number) + side if not rungs else round(number) + (1 if side else -1)
        if side == 0 and whole < 10 ** (figures - 1):
            # Below a power of ten the steps are a tenth.
            exponent, whole = exponent - 1, 10**figures - 1
        position = float(f"{whole}e{exponent}")
        rungs.append(position)
    return rungs


def _level(price: float, size: float) -> dict[str, object]:
    return {"px": f"{price:.9g}", "sz": f"{size + 0.0001:.4f}", "n": 3}


def _message(connection: str, content: dict[str, object]) -> Message:
    return Message(connection, orjson.dumps(content).split(STAMP), -1, 0.0)
