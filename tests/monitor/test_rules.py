from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import assume, given, settings

from alerts.alert import Alert
from monitor import rules as rules_module
from monitor.projection import Cluster, FeedState, MarketProjection
from monitor.rules import MAX_CLUSTERS_PER_MARKET, MAX_WARNING_CLUSTERS_PER_MARKET, RuleBook, RuleSettings
from tests.monitor.projections import at_s, cascade, cluster, market, projection, stale


def book(**rules: Any) -> RuleBook:
    """Return rules with a warning at $10M and critical at $50M within 3 %, clearing at 80 %, at once unless said otherwise."""
    defaults: dict[str, dict[str, Any]] = {
        "large_cluster_near": {"for_s": 0, "clear_for_s": 0},
        "low_barrier": {"for_s": 0, "clear_for_s": 0},
        "stale_feed": {"for_s": 30, "critical_for_s": 300, "clear_for_s": 5},
    }
    merged = {name: {**defaults.get(name, {}), **rules.get(name, {})} for name in (*defaults, *rules)}
    return RuleBook(RuleSettings.model_validate(merged))


def run(rules: RuleBook, markets: Iterable[MarketProjection], *, start_s: float = 0.0) -> list[tuple[float, Alert]]:
    """Project once a second and return (second, notification)."""
    return [
        (start_s + second, change)
        for second, one in enumerate(markets)
        for change in rules.update(projection(start_s + second, one))
    ]


def told(changes: Iterable[tuple[float, Alert]]) -> list[tuple[float, str]]:
    """Return (second, severity or reason for the end)."""
    return [(at, change.annotations["reason"] if change.resolved else change.severity) for at, change in changes]


def with_notional(*notionals: float) -> list[MarketProjection]:
    return [market([cluster(notional_usd=notional)]) for notional in notionals]


# -- LargeClusterNear --------------------------------------------------------------------------------------------------------


def test_a_large_cluster_is_told_once_with_labels_and_numbers() -> None:
    rules = book()
    [(_, change)] = run(rules, with_notional(*[12.4e6] * 10))
    assert change.name == "LargeClusterNear"
    assert change.labels == {
        "venue": "hyperliquid",
        "symbol": "BTC",
        "side": "long",
        "provenance": "observed",
        "cluster": "58500",
    }
    assert (change.severity, change.starts_ns, change.ends_ns) == ("warning", at_s(0), None)
    assert change.annotations["first_fired_ns"] == str(at_s(0))
    assert change.annotations["nearest_distance_ratio"] == "0.01666666667"
    assert [alert.fingerprint for alert in rules.firing()] == [change.fingerprint]


@pytest.mark.parametrize(
    ("notionals", "expected"),
    [
        ([9.9e6], []),
        ([10e6], [(0, "warning")]),
        ([50e6], [(0, "critical")]),
        ([10e6, 49.9e6, 50e6, 60e6], [(0, "warning"), (2, "critical")]),
        ([60e6, 45e6, 40e6, 39.9e6, 45e6, 49.9e6, 50e6], [(0, "critical"), (3, "warning"), (6, "critical")]),
        ([10e6, 8e6, 9.9e6, 8.1e6], [(0, "warning")]),
        ([10e6, 7.9e6], [(0, "warning"), (1, "shrunk")]),
        ([60e6, 7.9e6], [(0, "critical"), (1, "shrunk")]),
        ([10e6, 7.9e6, 9.9e6, 10e6], [(0, "warning"), (1, "shrunk"), (3, "warning")]),
        ([9.99e6, 10.01e6] * 20, [(1, "warning")]),
        ([8.01e6, 7.99e6] * 20, []),
    ],
)
def test_notional_thresholds_have_hysteresis(notionals: list[float], expected: list[tuple[int, str]]) -> None:
    assert told(run(book(), with_notional(*notionals))) == expected


@pytest.mark.parametrize(
    ("reference_prices", "expected"),
    [
        # The near edge is at 59,000: 3 % of the price away at 60,824.7, and 3.75 % at 61,298.7.
        ([60_825.0], []),
        ([60_824.0, 60_900.0, 61_298.0, 60_825.0], [(0, "warning")]),
        ([60_824.0, 61_299.0], [(0, "warning"), (1, "moved away")]),
        ([60_824.0, 60_826.0] * 20, [(0, "warning")]),
        ([61_298.0, 61_300.0] * 20, []),
    ],
)
def test_distance_has_hysteresis_and_counts_from_the_near_edge(
    reference_prices: list[float], expected: list[tuple[int, str]]
) -> None:
    markets = [market([cluster(notional_usd=20e6)], reference_price=price) for price in reference_prices]
    assert told(run(book(), markets)) == expected


def test_a_short_cluster_counts_from_its_lower_edge() -> None:
    above = cluster(61_500.0, 20e6, side="short")
    [(_, change)] = run(book(), [market([above]), market([above])])
    assert change.labels["side"] == "short"
    assert "above the reference price" in change.summary
    assert run(book(), [market([cluster(62_500.0, 20e6, side="short")])]) == []


def test_a_condition_has_to_last_before_it_fires_and_before_it_ends() -> None:
    rules = book(large_cluster_near={"for_s": 3, "clear_for_s": 4})
    notionals = [10e6, 10e6, 9e6, 10e6, 10e6, 10e6, 10e6, 1e6, 1e6, 9e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6]
    assert told(run(rules, with_notional(*notionals))) == [(6, "warning"), (14, "shrunk")]


def test_the_identity_outlives_a_wobbling_mean_and_a_drifting_band() -> None:
    """The mean moves across every bound of a coarse grid, the band as far as its own width; one alert is told and one ends."""
    rules = book()
    centres = [58_500.0 + 180.0 * math.sin(second) + 12.0 * second for second in range(80)]
    markets = [market([cluster(centre, 20e6, width=200.0)]) for centre in centres]
    changes = run(rules, [*markets, market()])
    assert told(changes) == [(0, "warning"), (80, "gone")]
    assert changes[0][1].fingerprint == changes[1][1].fingerprint


def test_a_hill_of_one_bucket_keeps_its_identity_in_the_next_bucket() -> None:
    markets = [market([cluster(58_500.0 * 1.001**step, 20e6, width=29.0)]) for step in (0, 1, 0, -1, 0)]
    assert told(run(book(), markets)) == [(0, "warning")]


def test_a_hill_that_splits_keeps_its_identity_where_its_centre_was() -> None:
    rules = book()
    whole = cluster(58_500.0, 40e6)
    parts = [cluster(58_800.0, 12e6, width=150.0), cluster(58_350.0, 28e6, width=250.0)]
    changes = run(rules, [market([whole]), market(parts), market([whole]), market([whole])])
    assert told(changes) == [(0, "warning"), (1, "warning"), (2, "merged")]
    assert changes[1][1].labels["cluster"] == "58800"
    assert changes[2][1].labels["cluster"] == "58800"
    assert [alert.labels["cluster"] for alert in rules.firing()] == ["58500"]


def test_two_hills_of_nearly_one_price_have_two_names() -> None:
    rules = book()
    run(rules, [market([cluster(58_510.0, 20e6, width=5.0), cluster(58_490.0, 30e6, width=5.0)])])
    assert sorted(alert.labels["cluster"] for alert in rules.firing()) == ["58500", "58500-2"]
    assert len({alert.fingerprint for alert in rules.firing()}) == 2


def test_sides_and_provenances_are_kept_apart() -> None:
    hills = [
        cluster(59_000.0, 20e6),
        cluster(59_000.0, 20e6, provenance="estimated"),
        cluster(61_000.0, 20e6, side="short"),
    ]
    rules = book()
    changes = run(rules, [market(hills), market(hills[:1])])
    assert told(changes) == [(0, "warning")] * 3 + [(1, "gone")] * 2
    assert {alert.labels["provenance"] for _, alert in changes} == {"observed", "estimated"}
    assert [alert.labels["side"] for alert in rules.firing()] == ["long"]


def test_a_cluster_is_told_before_its_first_liquidation_and_its_end_afterwards_each_once() -> None:
    """The price falls from 63,000 through a hill between 59,000 and 58,000, whose positions die as it passes them."""
    rules = book(large_cluster_near={"clear_for_s": 10})
    markets, liquidated_at = [], None
    for second in range(200):
        price = max(63_000.0 - 50.0 * second, 57_500.0)
        low, high = 58_000.0, min(59_000.0, price)
        if price < 59_000.0 and liquidated_at is None:
            liquidated_at = second
        left = max(high - low, 0.0) / 1_000.0
        hill = msgspec.structs.replace(cluster(notional_usd=20e6 * left), price=(low + high) / 2, nearest_price=high)
        markets.append(market([hill] if left else [], reference_price=price))
    changes = run(rules, markets)
    assert liquidated_at is not None
    assert [reason for _, reason in told(changes)] == ["warning", "reached"]
    begin, end = changes
    assert begin[0] < liquidated_at < end[0]
    assert end[1].starts_ns == begin[1].starts_ns
    assert end[1].ends_ns == at_s(end[0])
    assert end[1].summary.startswith("Resolved: the price reached it. Last known: BTC on hyperliquid: ")
    assert rules.firing() == ()


def test_what_is_left_of_a_shrunken_cluster_is_reached_too() -> None:
    rules = book(large_cluster_near={"clear_for_s": 5})
    small = cluster(58_500.0, 2e6)
    markets = [
        market([cluster(notional_usd=20e6)]),
        market([small]),
        *[market([small], reference_price=58_950.0)] * 2,
        *[market()] * 3,
    ]
    assert told(run(rules, markets)) == [(0, "warning"), (6, "reached")]


def test_a_cluster_whose_positions_are_closed_is_gone_and_not_reached() -> None:
    assert told(run(book(), [market([cluster(notional_usd=20e6)]), market()])) == [(0, "warning"), (1, "gone")]


def test_a_price_that_comes_after_the_cluster_has_gone_does_not_make_it_reached() -> None:
    rules = book(large_cluster_near={"clear_for_s": 5})
    live = market([cluster(notional_usd=20e6)])
    late = market(reference_price=58_500.0)
    assert told(run(rules, [live, market(), market(), late, late, late, late])) == [(0, "warning"), (6, "gone")]


def test_a_book_wholly_past_the_edge_makes_it_reached_before_the_slower_mark_tells() -> None:
    """Liquidations follow the exchange's own mark at once, and what we know of it is a second or three behind."""
    live = market([cluster(notional_usd=20e6)])
    for ask, expected in ((58_990.0, "reached"), (59_010.0, "gone")):
        fallen = market([cluster(notional_usd=20e6)], best_bid=58_900.0, best_ask=ask)
        after = market(best_bid=58_900.0, best_ask=ask)
        assert told(run(book(), [live, fallen, after])) == [(0, "warning"), (2, expected)]
    shorts = market([cluster(61_500.0, 20e6, side="short")])
    risen = market([cluster(61_500.0, 20e6, side="short")], best_bid=61_010.0, best_ask=61_020.0)
    assert told(run(book(), [shorts, risen, market()])) == [(0, "warning"), (2, "reached")]


def test_what_was_liquidated_while_it_fired_is_told_with_the_completeness_of_the_feed() -> None:
    before = market([cluster(notional_usd=20e6)], liquidated_long_usd=5e6)
    touched = market([cluster(notional_usd=20e6)], reference_price=58_950.0, liquidated_long_usd=5e6)
    for completeness, expected in (
        ("partial", "; meanwhile $8.1M of long positions of this market were seen liquidated, in a partial view of them."),
        ("complete", "; meanwhile $8.1M of long positions of this market were seen liquidated."),
        ("none", "."),
    ):
        after = market(liquidated_long_usd=13.1e6, liquidated_short_usd=99e6, liquidation_completeness=completeness)
        (_, end) = run(book(), [before, touched, after])[-1]
        assert end.summary.startswith(f"Resolved: the price reached it{expected} Last known: ")


def test_a_cluster_that_is_gone_is_not_described_as_if_it_were_there_until_its_alert_ends() -> None:
    rules = book(large_cluster_near={"clear_for_s": 5})
    run(rules, [market([cluster(notional_usd=20e6)]), market()])
    assert rules.firing()[0].summary.startswith("No longer seen, about to end. Last known: BTC on hyperliquid: $20M ")
    [(_, end)] = run(rules, [market()] * 5, start_s=2)
    assert end.summary.startswith("Resolved: its positions are gone. Last known: BTC on hyperliquid: $20M ")


def test_numbers_from_before_a_gap_are_told_at_the_end_without_its_words() -> None:
    live = market([cluster(notional_usd=20e6)])
    (_, end) = run(book(), [live, stale(live), market()])[-1]
    assert end.summary.startswith("Resolved: its positions are gone. Last known: BTC on hyperliquid: $20M ")
    assert "Not live" not in end.summary


def test_a_touch_long_ago_does_not_make_it_reached() -> None:
    touched = market([cluster(notional_usd=20e6)], reference_price=59_000.0)
    assert told(run(book(), [touched, *with_notional(*[20e6] * 100), market()])) == [(0, "warning"), (101, "gone")]


def test_numbers_of_a_firing_alert_are_refreshed_without_telling() -> None:
    rules = book()
    run(rules, with_notional(12e6, 13e6))
    assert rules.firing()[0].annotations["notional_usd"] == "13000000"
    assert rules.firing()[0].starts_ns == at_s(0)


def test_numbers_of_a_firing_alert_are_refreshed_at_most_once_a_second() -> None:
    rules = book()
    for tenth, notional in enumerate([12e6, 13e6, 14e6, 15e6, 16e6, 17e6, 18e6, 19e6, 20e6, 21e6, 22e6]):
        rules.update(projection(tenth / 10, market([cluster(notional_usd=notional)])))
        expected = "12000000" if tenth < 10 else "22000000"
        assert rules.firing()[0].annotations["notional_usd"] == expected
        assert rules.firing()[0].annotations["as_of_ns"] == str(at_s(0 if tenth < 10 else 1))


def test_live_numbers_return_at_once_after_a_gap() -> None:
    rules = book()
    live = market([cluster(notional_usd=20e6)])
    for tenth, one in enumerate([live, stale(live), live]):
        rules.update(projection(tenth / 10, one))
        assert rules.firing()[0].annotations["stale"] == ("true" if tenth == 1 else "false")


def test_an_escalation_has_a_key_of_its_own_and_remembers_the_beginning() -> None:
    changes = [change for _, change in run(book(), with_notional(12e6, 60e6, 12e6, 1e6))]
    assert [change.severity for change in changes] == ["warning", "critical", "warning", "warning"]
    assert len({change.delivery_key for change in changes}) == 4
    assert len({change.fingerprint for change in changes}) == 1
    assert {change.annotations["first_fired_ns"] for change in changes} == {str(at_s(0))}


def test_the_number_of_clusters_is_bounded_with_places_kept_for_critical_ones() -> None:
    rules = book()
    small = [cluster(58_300.0 + 40.0 * n, 11e6 + n, width=5.0) for n in range(20)]
    changes = run(rules, [market(small)])
    assert len(changes) == MAX_WARNING_CLUSTERS_PER_MARKET
    assert rules.suppressed == 20 - MAX_WARNING_CLUSTERS_PER_MARKET
    assert min(float(change.annotations["notional_usd"]) for _, change in changes) == 11e6 + 8
    large = [cluster(59_200.0 + 40.0 * n, 60e6, width=5.0) for n in range(10)]
    run(rules, [market([*small, *large])], start_s=1)
    assert len(rules.firing()) == MAX_CLUSTERS_PER_MARKET


def test_no_account_is_named() -> None:
    changes = run(book(), [market([cluster(notional_usd=20e6)], cascade_down=cascade(barrier_base=50.0))])
    assert all("0x" not in msgspec.json.encode(change).decode() for _, change in changes)


# -- LowBarrier --------------------------------------------------------------------------------------------------------------


def with_barriers(*barriers: float | None) -> list[MarketProjection]:
    return [market(cascade_down=cascade(barrier_base=barrier)) for barrier in barriers]


@pytest.mark.parametrize(
    ("barriers", "expected"),
    [
        ([301.0], []),
        ([300.0], [(0, "warning")]),
        ([100.0], [(0, "critical")]),
        ([0.0], [(0, "critical")]),
        ([300.0, 375.0, 301.0, 374.0], [(0, "warning")]),
        ([300.0, 376.0], [(0, "warning"), (1, "risen")]),
        ([300.0, None], [(0, "warning"), (1, "no gap")]),
        ([90.0, 125.0, 126.0, 90.0], [(0, "critical"), (2, "warning"), (3, "critical")]),
        ([299.0, 301.0] * 10, [(0, "warning")]),
        ([374.0, 376.0] * 10, []),
    ],
)
def test_barriers_are_compared_with_the_typical_flow(barriers: list[float | None], expected: list[tuple[int, str]]) -> None:
    assert told(run(book(), with_barriers(*barriers))) == expected


def test_the_direction_is_a_label() -> None:
    rules = book()
    both = market(cascade_down=cascade(barrier_base=90.0), cascade_up=cascade(barrier_base=200.0))
    changes = run(rules, [both])
    assert [(change.labels["direction"], change.severity) for _, change in changes] == [("down", "critical"), ("up", "warning")]
    assert "selling" in changes[0][1].summary
    assert "buying" in changes[1][1].summary


def test_gaps_that_release_little_are_ignored() -> None:
    little = market(cascade_down=cascade(barrier_base=50.0, forced_base=9.9))
    assert run(book(), [little]) == []
    assert told(run(book(low_barrier={"minimum_forced_ratio": 0.0}), [little])) == [(0, "critical")]


@pytest.mark.parametrize(
    "unknown",
    [
        {"typical_flow_base": None},
        {"typical_flow_base": math.nan},
        {"flow_window_covered_ratio": 0.49},
        {"cascade_down": None},
        {"reference_price": None},
    ],
)
def test_what_is_unknown_neither_fires_nor_resolves(unknown: dict[str, Any]) -> None:
    live: dict[str, Any] = {"cascade_down": cascade(barrier_base=50.0)}
    assert run(book(), [market(**{**live, **unknown})]) == []
    rules = book()
    away = {"cascade_down": cascade(), **unknown}
    changes = run(rules, [market(**live), market(**away), market(**away), market(**live)])
    assert told(changes) == [(0, "critical")]


def test_without_any_flow_only_a_barrier_of_nothing_is_low() -> None:
    assert run(book(), [market(cascade_down=cascade(barrier_base=1.0), typical_flow_base=0.0)]) == []
    assert len(run(book(), [market(cascade_down=cascade(barrier_base=0.0), typical_flow_base=0.0)])) == 1


# -- StaleFeed and holding ---------------------------------------------------------------------------------------------------


def test_staleness_is_told_after_its_time_gets_critical_and_ends() -> None:
    rules = book()
    changes = run(rules, [stale(market())] * 310 + [market()] * 10)
    assert told(changes) == [(30, "warning"), (300, "critical"), (315, "live again")]
    assert {change.name for _, change in changes} == {"StaleFeed"}
    assert "stale for 30 s (book: silent, last message 45 s ago)" in changes[0][1].summary
    assert changes[1][1].annotations["stale_s"] == "300"


def test_a_short_silence_is_not_told() -> None:
    assert run(book(), ([stale(market())] * 30 + [market()]) * 10) == []


def test_a_stale_feed_of_a_live_market_is_told_and_holds_nothing() -> None:
    feeds = (FeedState("liquidations", 100.0, stale=True, reason="refused"),)
    rules = book(stale_feed={"for_s": 2})
    changes = run(rules, [market([cluster(notional_usd=20e6)], feeds=feeds)] * 3 + [market(feeds=feeds)])
    assert [(at, change.name) for at, change in changes] == [
        (0, "LargeClusterNear"),
        (2, "StaleFeed"),
        (3, "LargeClusterNear"),
    ]
    assert "liquidations: refused" in changes[1][1].summary


def test_while_a_market_is_stale_its_alerts_are_held_and_say_so() -> None:
    rules = book(stale_feed={"for_s": 1000, "critical_for_s": 1000})
    live = market([cluster(notional_usd=60e6)], cascade_down=cascade(barrier_base=50.0))
    assert len(run(rules, [live])) == 2
    before = rules.firing()
    assert run(rules, [stale(market())] * 100, start_s=1) == []
    held = rules.firing()
    assert [alert.fingerprint for alert in held] == [alert.fingerprint for alert in before]
    for alert, original in zip(held, before, strict=True):
        assert alert.summary == f"Not live (stale: book: silent); last known: {original.summary}"
        assert alert.annotations["stale"] == "true"
        assert alert.annotations["as_of_ns"] == str(at_s(0))
    assert run(rules, [live], start_s=200) == []
    assert [alert.annotations["stale"] for alert in rules.firing()] == ["false", "false"]


def test_nothing_fires_on_stale_numbers() -> None:
    rules = book(stale_feed={"enabled": False})
    assert run(rules, [stale(market([cluster(notional_usd=60e6)], cascade_down=cascade(barrier_base=1.0)))] * 100) == []


def test_what_vanished_during_a_gap_is_resolved_after_it_with_what_the_price_did() -> None:
    rules = book(large_cluster_near={"clear_for_s": 3})
    live = market([cluster(notional_usd=20e6)])
    after = market(reference_price=57_000.0)
    changes = run(rules, [live, *[stale(live)] * 20, *[after] * 5])
    assert told(changes) == [(0, "warning"), (24, "reached")]


def test_waits_begin_anew_after_a_gap() -> None:
    rules = book(large_cluster_near={"for_s": 5})
    live = market([cluster(notional_usd=20e6)])
    assert told(run(rules, [*[live] * 4, *[stale(live)] * 10, *[live] * 10])) == [(19, "warning")]


def test_a_market_that_disappears_is_stale_and_its_alerts_are_held() -> None:
    rules = book()
    live = market([cluster(notional_usd=20e6)])
    other = market(symbol="ETH")
    rules.update(projection(0, live, other))
    changes = [(at, change) for at in range(1, 40) for change in rules.update(projection(at, other))]
    assert [(at, change.name, change.labels["symbol"]) for at, change in changes] == [(31, "StaleFeed", "BTC")]
    assert "missing from the projection for 30 s" in changes[0][1].summary
    assert {alert.name for alert in rules.firing()} == {"LargeClusterNear", "StaleFeed"}
    changes = [(at, change) for at in range(40, 60) for change in rules.update(projection(at, live, other))]
    assert told(changes) == [(45, "live again")]


@pytest.mark.parametrize("field", ["price", "notional_usd", "nearest_price", "furthest_price"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_never_reaches_an_alert(field: str, value: float) -> None:
    broken = msgspec.structs.replace(cluster(notional_usd=20e6), **{field: value})
    rules = book()
    assert run(rules, [market([broken])]) == []
    run(rules, [market([cluster(notional_usd=20e6)])], start_s=1)
    assert run(rules, [market([broken])], start_s=2) == []
    assert rules.firing()[0].annotations["stale"] == "true"


# -- All of them -------------------------------------------------------------------------------------------------------------


def test_markets_have_rules_of_their_own() -> None:
    rules = book(markets={"hyperliquid/ETH": {"large_cluster_near": {"notional_usd": 1e6}, "stale_feed": {"enabled": False}}})
    small = [cluster(notional_usd=2e6)]
    changes = rules.update(projection(0, market(small), market(small, symbol="ETH")))
    assert [change.labels["symbol"] for change in changes] == ["ETH"]


def test_rules_can_be_switched_off() -> None:
    off: dict[str, Any] = {"enabled": False}
    rules = book(large_cluster_near=off, low_barrier=off, stale_feed=off)
    busy = market([cluster(notional_usd=90e6)], cascade_down=cascade(barrier_base=1.0))
    assert run(rules, [busy, *[stale(busy)] * 400]) == []
    rules.update(projection(500))
    assert rules.firing() == ()


def test_the_number_of_markets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "MAX_MARKETS", 2)
    rules = book()
    hills = [cluster(notional_usd=20e6)]
    changes = rules.update(projection(0, *(market(hills, symbol=symbol) for symbol in ("A", "B", "C"))))
    assert [change.labels["symbol"] for change in changes] == ["A", "B"]
    assert rules.markets_ignored == 1


def test_a_wall_clock_that_jumps_makes_no_storm() -> None:
    rules = book(large_cluster_near={"for_s": 3, "clear_for_s": 3})
    live = market([cluster(notional_usd=20e6)])
    assert len(run(rules, [live] * 10)) == 1
    assert run(rules, [live] * 10, start_s=3600) == []
    assert run(rules, [live] * 10, start_s=-3600) == []
    assert told(run(rules, [market()] * 10, start_s=-3590)) == [(-3587, "gone")]


hill_strategy = st.builds(
    lambda price, notional, width, side: cluster(price, notional, side=side, width=width),
    st.floats(50_000.0, 70_000.0),
    st.sampled_from([1e6, 7.9e6, 8.1e6, 10e6, 39e6, 41e6, 60e6]),
    st.floats(1.0, 1_500.0),
    st.sampled_from(["long", "short"]),
)
moment = st.builds(
    lambda hills, reference, barrier, is_stale: (
        stale(market(hills, reference_price=reference))
        if is_stale
        else market(hills, reference_price=reference, cascade_down=cascade(barrier_base=barrier))
    ),
    st.lists(hill_strategy, max_size=6),
    st.floats(55_000.0, 65_000.0),
    st.sampled_from([None, 50.0, 110.0, 200.0, 350.0, 500.0]),
    st.booleans(),
)


def replay(moments: Sequence[MarketProjection], wait_s: float) -> tuple[list[Alert], RuleBook]:
    rules = book(
        large_cluster_near={"for_s": wait_s, "clear_for_s": wait_s},
        low_barrier={"for_s": wait_s, "clear_for_s": wait_s},
        stale_feed={"for_s": 2, "critical_for_s": 4, "clear_for_s": wait_s},
    )
    return [change for _, change in run(rules, moments)], rules


@settings(max_examples=200, deadline=None)
@given(st.lists(moment, max_size=25), st.sampled_from([0.0, 2.0]))
def test_whatever_happens_each_alert_begins_changes_and_ends_in_order(moments: list[MarketProjection], wait_s: float) -> None:
    open_alerts: dict[str, str] = {}
    changes, rules = replay(moments, wait_s)
    for change in changes:
        before = open_alerts.get(change.fingerprint)
        if change.resolved:
            assert before is not None
            assert change.annotations["reason"]
            assert change.ends_ns is not None
            assert change.ends_ns >= change.starts_ns
            del open_alerts[change.fingerprint]
        else:
            assert before != change.severity
            open_alerts[change.fingerprint] = change.severity
        assert "nan" not in str(change.annotations.values())
    assert {alert.fingerprint: alert.severity for alert in rules.firing()} == open_alerts
    assert len({change.delivery_key for change in changes}) == len(changes)
    assert replay(moments, wait_s)[0] == changes


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(hill_strategy, max_size=3), min_size=1, max_size=10), st.data())
def test_the_order_of_clusters_changes_nothing(steps: list[list[Cluster]], data: st.DataObject) -> None:
    shuffled = [data.draw(st.permutations(hills)) for hills in steps]

    def outcome(sequence: Sequence[Sequence[Cluster]]) -> list[tuple[float, str, str, str, str]]:
        return sorted(
            (at, change.labels["side"], change.severity, change.annotations["price"], change.annotations.get("reason", ""))
            for at, change in run(book(), [market(hills) for hills in sequence])
        )

    # Hills of the same size or price are told apart by their order only.
    assume(all(len({one.price for one in hills}) == len({one.notional_usd for one in hills}) == len(hills) for hills in steps))
    assert outcome(steps) == outcome(shuffled)
