"""What is asked of Hyperliquid over REST, and the names that go into it; the venue file is ``connectors/hyperliquid.py``."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from connectors.frames import RestRequest
from connectors.venue import AccountQuestion

MAX_WATCHED_ACCOUNTS: Final = 10
"""The venue's limit per address, as it writes it."""

INFO_PATH: Final = "/info"
CONTEXTS_WEIGHT: Final = 20
CONTEXTS_INTERVAL_S: Final = 30.0
"""Accounts hold coins that are not watched, and their margin needs those marks too: 40 of the 1,200 weights a minute."""

DEX_CONTEXTS_WEIGHT_PER_MINUTE: Final = 160
"""The lists of all other dexes together take at most this much, so that ten of them leave 880 a minute to the accounts."""

STATE_WEIGHT: Final = 2
BALANCES_WEIGHT: Final = 2
MODE_WEIGHT: Final = 20

NODE_TYPES: Final = frozenset(
    {
        "clearinghouseState",
        "exchangeStatus",
        "liquidatable",
        "marginTable",
        "meta",
        "perpDexs",
        "spotClearinghouseState",
        "webData2",
    }
)
"""Info types that the info server of a node answers, of those that could be of use here: what follows from the present state alone.
It refuses ``metaAndAssetCtxs``, ``l2Book`` and ``userFills``, and ``userAbstraction`` is on no list of what it serves."""


_COIN: Final = re.compile(r"(?:([a-z0-9]{1,16}):)?[A-Za-z0-9]{1,32}")
_DEX: Final = re.compile(r"[a-z0-9]{1,16}")
_ACCOUNT: Final = re.compile(r"0x[0-9a-fA-F]{40}")


def account_requests(question: AccountQuestion) -> list[RestRequest]:
    """Ask for the positions on each dex, for the balances, and for the mode, which costs ten times as much."""
    user = question.account.lower()
    requests = [
        info_request({"type": "clearinghouseState", "user": user, **({"dex": pool} if pool else {})}, STATE_WEIGHT)
        for pool in question.pools
    ]
    if question.mode:
        requests.append(info_request({"type": "userAbstraction", "user": user}, MODE_WEIGHT))
    if question.balances:
        requests.append(info_request({"type": "spotClearinghouseState", "user": user}, BALANCES_WEIGHT))
    return requests


def other_dexes_interval_s(count: int) -> float:
    """Return how often the lists of ``count`` dexes beside the main one may be asked for, in seconds."""
    return max(CONTEXTS_INTERVAL_S, 60.0 * CONTEXTS_WEIGHT * count / DEX_CONTEXTS_WEIGHT_PER_MINUTE)


def info_request(body: dict[str, str], weight: int) -> RestRequest:
    """Return an info request."""
    return RestRequest(method="POST", path=INFO_PATH, body=msgspec.json.encode(body).decode(), weight=weight)


def contexts_request(dex: str) -> RestRequest:
    """Ask for coins, margin tables and prices of one dex; the main one is ``""``."""
    return info_request({"type": "metaAndAssetCtxs", **({"dex": dex} if dex else {})}, CONTEXTS_WEIGHT)


def checked_dexes(dexes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dexes beside the main one, each once.

    Raises:
        ValueError: one is misspelt.
    """
    for dex in dexes:
        if not _DEX.fullmatch(dex):
            raise ValueError(f"hyperliquid: {dex!r} is not a dex; they are written like xyz, and the main one is always there")
    return tuple(dict.fromkeys(dexes))


def checked_coins(symbols: tuple[str, ...], dexes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the coins, each once.

    Raises:
        ValueError: one is misspelt, or of a dex that is not among ``dexes``.
    """
    known = checked_dexes(dexes)
    for symbol in symbols:
        coin = _COIN.fullmatch(symbol)
        if coin is None:
            raise ValueError(
                f"hyperliquid: {symbol!r} is not a coin; they are written like BTC, kPEPE or, of another dex, xyz:TSLA"
            )
        if coin[1] is not None and coin[1] not in known:
            raise ValueError(f"hyperliquid: {symbol!r} is of the dex {coin[1]!r}, which is not among the dexes of the venue")
    return tuple(dict.fromkeys(symbols))


def checked_accounts(accounts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses in lower case, each once.

    Raises:
        ValueError: one is misspelt, or there are more than the venue lets one watch.
    """
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise ValueError(f"hyperliquid: {account!r} is not an address of 0x and 40 hexadecimal digits")
    unique = tuple(dict.fromkeys(account.lower() for account in accounts))
    if len(unique) > MAX_WATCHED_ACCOUNTS:
        raise ValueError(f"hyperliquid: {len(unique)} watched accounts; the venue allows fills of {MAX_WATCHED_ACCOUNTS}")
    return unique
