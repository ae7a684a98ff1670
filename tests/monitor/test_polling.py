"""Who is asked, and who never is."""

from __future__ import annotations

from connectors.events import AccountModeReport, AccountSnapshot, PositionReport
from connectors.frames import RestRequest
from monitor.engine import NS
from monitor.polling import Pollster
from tests.monitor.test_engine import live_world
from tests.monitor.world import VENUE, World, ladder, ns


class _Venue:
    name = VENUE

    def account_requests(self, account: str, *, mode_known: bool) -> list[RestRequest]:
        requests = [RestRequest(method="POST", path="/info", body=account, weight=2)]
        return requests if mode_known else [*requests, RestRequest(method="POST", path="/info", body=f"mode {account}", weight=20)]


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
            cost = 2 if demand.mode_known else 22
            if weight < min(cost, 18):
                break
            weight -= cost
            engine.accounts.note_asked(demand, ns(second))
            _answer(world, second + 0.2, demand.account, with_mode=not demand.mode_known)
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
