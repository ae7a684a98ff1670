"""Who is asked, and who never is."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import structlog

from connectors.events import AccountModeReport, AccountSnapshot, PositionReport
from connectors.frames import RestRequest
from connectors.http_exchange import RestError
from connectors.hyperliquid import Hyperliquid
from connectors.venue import AccountQuestion, VenueSettings
from monitor.engine import NS
from monitor.polling import BOOTSTRAP_TRIES, Pollster, fetch_instruments
from tests.monitor.test_engine import live_world
from tests.monitor.world import VENUE, World, ladder, ns
from tests.virtual_time import run_in_virtual_time


class _Venue:
    name = VENUE

    def account_requests(self, question: AccountQuestion) -> list[RestRequest]:
        requests = [RestRequest(method="POST", path="/info", body=question.account, weight=2)]
        asks_mode = [RestRequest(method="POST", path="/info", body=f"mode {question.account}", weight=20)]
        return requests + asks_mode if question.mode else requests


class _Poller:
    """Takes what the governor would take in a quarter of a second, and refuses what the venue refused for good."""

    def __init__(self, weight: int, refused: frozenset[str]) -> None:
        self.weight = weight
        self.refused = refused
        self.sent: list[str] = []

    def free_weight(self) -> int:
        return self.weight

    def submit(self, request: RestRequest, *, urgent: bool = False) -> bool:
        if request.body in self.refused:
            return False
        self.sent.append(request.body)
        return True


def test_accounts_that_the_venue_refuses_do_not_keep_all_others_from_being_asked() -> None:
    world = live_world()
    refused = frozenset(f"0xbad{number}" for number in range(30))
    for account in sorted(refused):
        world.engine.accounts.pin(VENUE, account)
    world.engine.project(ns(1))
    poller = _Poller(60, refused)
    pollster = Pollster(world.engine, _Venue(), poller, lambda: 0)  # type: ignore[arg-type]
    for step in range(40):
        pollster._ask_for_accounts(ns(30) + step * NS // 4)
    assert {"0xlong", "0xshort"} <= set(poller.sent), "30 refused accounts used up the whole limit for ten minutes"


def test_accounts_that_hold_something_become_live_although_strangers_keep_coming() -> None:
    """Ten new names a second on the tape is a busy minute of one venue; 18 weights a second is its public limit."""
    world = World("BTC")
    world.instruments(0)
    engine = world.engine
    live = 0
    for second in range(1, 121):
        for number in range(5):
            world.trade(second, 100.0, 1.0, f"0xb{second}-{number}", f"0xs{second}-{number}")
        world.mark(second, 100.0)
        world.book(second, ladder(99.9, -0.1, 5), ladder(100.1, 0.1, 5))
        weight = 18
        for demand in engine.poll_demands(VENUE, ns(second), weight, pause_ns=10 * NS):
            if weight <= 0:
                break
            weight -= demand.weight
            engine.polls.note_asked(demand, ns(second))
            _answer(world, second + 0.2, demand.question.account, with_mode=demand.question.mode)
        live = engine.project(ns(second + 0.5)).markets[0].accounts
    assert live > 0, "after two minutes nobody's mode has been asked, so coverage is zero and stays there"


def _answer(world: World, at_s: float, account: str, *, with_mode: bool) -> None:
    position = PositionReport("BTC", 1.0, None, None, None, None)
    world.engine.apply(
        AccountSnapshot(
            **world.origin(at_s, "rest"), account=account, exchange_ns=ns(at_s), cross_cash_usd=-50.0, positions=(position,)
        )
    )
    if with_mode:
        world.engine.apply(AccountModeReport(**world.origin(at_s, "rest"), account=account, mode="standard"))


# -------------------------------------------------------------------------------------------------------------------- an own node


HYPERLIQUID = Hyperliquid()


class _Way(_Poller):
    """A way to a venue or a node, with as much weight as a turn brings; what is sent is answered at once."""

    def __init__(self, world: World, name: str, weight: int, log: list[tuple[str, str, str]]) -> None:
        super().__init__(weight, frozenset())
        self.name, self._world, self._log = name, world, log
        self.now_s = 0.0

    def submit(self, request: RestRequest, *, urgent: bool = False) -> bool:
        self.weight -= request.weight
        question = json.loads(request.body)
        self._log.append((self.name, question["type"], question["user"]))
        _answer(self._world, self.now_s, question["user"], with_mode=question["type"] == "userAbstraction")
        return True


def _node_world(accounts: int) -> tuple[World, list[tuple[str, str, str]], _Way, _Way, Pollster]:
    world = World("BTC")
    log: list[tuple[str, str, str]] = []
    world.instruments(0)
    for number in range(accounts):
        world.engine.accounts.pin(VENUE, f"0x{number:040x}")
    public, node = _Way(world, "public", 0, log), _Way(world, "node", 0, log)
    pollster = Pollster(world.engine, HYPERLIQUID, public, lambda: 0, node=node)  # type: ignore[arg-type]
    return world, log, public, node, pollster


def test_the_node_is_asked_for_what_it_serves_and_the_venue_for_the_rest() -> None:
    world, log, public, node, pollster = _node_world(3)
    for step in range(1, 9):
        public.weight, node.weight = 40, 500
        public.now_s = node.now_s = step / 4
        pollster._ask_for_accounts(ns(step / 4))
    assert {(way, kind) for way, kind, _ in log} == {("node", "clearinghouseState"), ("public", "userAbstraction")}
    assert world.engine.accounts.counts(VENUE, ns(2), 10**12)[:2] == (3, 3)


def test_without_a_node_the_venue_is_asked_for_everything() -> None:
    world, log, public, _, _ = _node_world(2)
    pollster = Pollster(world.engine, HYPERLIQUID, public, lambda: 0)  # type: ignore[arg-type]
    for step in range(1, 9):
        public.weight, public.now_s = 40, step / 4
        pollster._ask_for_accounts(ns(step / 4))
    assert {(way, kind) for way, kind, _ in log} == {("public", "clearinghouseState"), ("public", "userAbstraction")}


def test_no_way_is_asked_for_more_than_it_has_room_for() -> None:
    _, log, public, node, pollster = _node_world(1_000)
    for step in range(1, 41):
        public.weight, node.weight = min(public.weight + 5, 40), 60
        public.now_s = node.now_s = step / 4
        before = public.weight, node.weight
        pollster._ask_for_accounts(ns(step / 4))
        for way, had in zip((public, node), before, strict=True):
            # The last request may cost more than was left: the poller then waits for it.
            assert way.weight > -22 or way.weight == had
    assert sum(way == "public" for way, _, _ in log) <= (40 + 40 * 5) / 20 + 1


def test_questions_that_only_the_venue_answers_do_not_keep_the_node_idle() -> None:
    """Eight thousand accounts whose mode is not known take the venue hours; meanwhile the node keeps the others fresh."""
    world, log, public, node, pollster = _node_world(20_000)
    accounts = world.engine.accounts
    for number in range(20_000):
        _answer(world, 1, f"0x{number:040x}", with_mode=number < 12_000)
    asked_of_node = []
    for step in range(200):
        at_s = 20 + step / 4
        public.weight, node.weight = min(public.weight + 5, 22), 500
        public.now_s = node.now_s = at_s
        log.clear()
        pollster._ask_for_accounts(ns(at_s))
        asked_of_node.append(sum(way == "node" for way, _, _ in log))
    assert min(asked_of_node) > 200, asked_of_node
    known = accounts.rows_of(VENUE)[:12_000]
    assert (accounts.polled_ns[known] > ns(20)).mean() > 0.95, "two accounts a question of 12,000 in 50 s"


def test_questions_of_which_one_way_has_no_room_wait_whole() -> None:
    """A mode without its state, or a state without its mode, would only be asked for again."""
    world, log, public, node, pollster = _node_world(1)
    address = f"0x{0:040x}"
    _answer(world, 1, address, with_mode=False)
    public.weight, node.weight = 0, 500
    public.now_s = node.now_s = 20.0
    pollster._ask_for_accounts(ns(20))
    assert log == []
    assert world.engine.accounts.asked_ns[world.engine.accounts.row_of(VENUE, address, create=False)] == 0
    public.weight = 20
    pollster._ask_for_accounts(ns(20.25))
    assert log == [("node", "clearinghouseState", address), ("public", "userAbstraction", address)]


def test_all_dexes_and_balances_of_a_unified_account_are_asked_for_at_the_node() -> None:
    world = World("BTC", dexes={VENUE: ("xyz",)})
    world.instruments(0)
    log: list[tuple[str, str, str]] = []
    public, node = _Way(world, "public", 100, log), _Way(world, "node", 100, log)
    address = "0x" + "a" * 40
    world.engine.accounts.pin(VENUE, address)
    world.engine.apply(AccountModeReport(**world.origin(0, "rest"), account=address, mode="unified"))
    Pollster(world.engine, HYPERLIQUID, public, lambda: 0, node=node)._ask_for_accounts(ns(20))  # type: ignore[arg-type]
    assert [(way, kind) for way, kind, _ in log] == [
        ("node", "clearinghouseState"),
        ("node", "clearinghouseState"),
        ("node", "spotClearinghouseState"),
    ]


# ---------------------------------------------------------------------------------------------------------------------- bootstrap


class _Site:
    """Answers bootstrap requests by their dex, after as many failures as a test wants."""

    def __init__(self, failures: dict[str, list[RestError | bytes]]) -> None:
        self.failures = failures
        self.asked: list[tuple[float, str]] = []

    async def fetch(self, request: RestRequest) -> bytes:
        dex = json.loads(request.body).get("dex", "")
        self.asked.append((asyncio.get_running_loop().time(), dex))
        waiting = self.failures.get(dex, [])
        if waiting:
            answer = waiting.pop(0)
            if isinstance(answer, RestError):
                raise answer
            return answer
        coin = {"name": f"{dex}:GOLD" if dex else "BTC", "szDecimals": 5, "maxLeverage": 50, "marginTableId": 50}
        gone = {"name": "GONE", "szDecimals": 5, "maxLeverage": 3, "marginTableId": 3, "isDelisted": True}
        meta = {"universe": [coin] if dex else [coin, gone], "marginTables": [], "collateralToken": 0}
        context = {"markPx": "100", "oraclePx": "100", "funding": "0", "openInterest": "1"}
        return json.dumps([meta, [context] * len(meta["universe"])]).encode()  # type: ignore[arg-type]


def _refusal() -> RestError:
    return RestError("500", retryable=True, kind="http_500", status=500)


def _bootstrap(site: _Site, *dexes: str) -> frozenset[str] | None:
    settings = VenueSettings(symbols=("BTC",), dexes=dexes)
    with structlog.testing.capture_logs():
        return run_in_virtual_time(fetch_instruments(HYPERLIQUID, settings, site))  # type: ignore[arg-type]


def test_the_list_of_markets_is_asked_for_until_it_comes() -> None:
    site = _Site({"": [_refusal()] * 7 + [b"[]", b"{"]})
    assert _bootstrap(site) == frozenset({"BTC"}), "without the delisted one"
    assert [at_s for at_s, _ in site.asked] == [5.0 * number for number in range(10)]


def test_a_dex_that_does_not_answer_is_given_up_and_the_others_are_asked() -> None:
    site = _Site({"xyz": [_refusal()] * 1_000})
    assert _bootstrap(site, "xyz", "flx") == frozenset({"BTC", "flx:GOLD"})
    assert Counter(dex for _, dex in site.asked) == {"": 1, "xyz": BOOTSTRAP_TRIES, "flx": 1}


def test_a_dex_that_answers_late_is_known() -> None:
    site = _Site({"xyz": [_refusal()] * (BOOTSTRAP_TRIES - 1)})
    assert _bootstrap(site, "xyz") == frozenset({"BTC", "xyz:GOLD"})


def test_giving_up_is_said_with_the_request() -> None:
    site = _Site({"xyz": [_refusal()] * 1_000})
    settings = VenueSettings(symbols=("BTC",), dexes=("xyz",))
    with structlog.testing.capture_logs() as logs:
        run_in_virtual_time(fetch_instruments(HYPERLIQUID, settings, site))  # type: ignore[arg-type]
    assert [entry["event"] for entry in logs] == ["bootstrap_failed"] * BOOTSTRAP_TRIES + ["bootstrap_given_up"]
    assert json.loads(logs[-1]["request"]) == {"type": "metaAndAssetCtxs", "dex": "xyz"}
