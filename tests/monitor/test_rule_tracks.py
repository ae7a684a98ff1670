from __future__ import annotations

import msgspec

from monitor.projection import Cluster
from monitor.rule_tracks import MATCH_MARGIN_RATIO, Track, band, follow, liquidated_usd, match
from tests.monitor.projections import at_s, cluster, market


def following(*clusters: Cluster) -> list[Track]:
    tracks: list[Track] = []
    for one in clusters:
        tracks.append(follow(one, market(clusters), tracks))
    return tracks


def test_a_band_goes_upwards_on_either_side() -> None:
    assert band(cluster(58_500.0)) == (58_000.0, 59_000.0)
    assert band(cluster(61_500.0, side="short")) == (61_000.0, 62_000.0)


def test_a_hill_is_followed_under_its_first_price_with_what_was_liquidated_before() -> None:
    hill = cluster(61_512.0, side="short")
    track = follow(hill, market([hill], liquidated_long_usd=1e6, liquidated_short_usd=2e6), [])
    assert (track.identity, track.watch.labels["cluster"]) == ("short-observed-61500", "61500")
    assert track.liquidated_usd == 2e6
    assert liquidated_usd(market(liquidated_long_usd=1e6), "long") == 1e6


def test_each_hill_goes_to_the_nearest_track_and_no_track_gets_two() -> None:
    tracks = following(cluster(58_500.0), cluster(58_900.0))
    near, far = cluster(58_520.0), cluster(58_950.0)
    elsewhere = cluster(50_000.0)
    matches, unmatched = match(tracks, (far, elsewhere, near))
    assert matches == {tracks[0].identity: near, tracks[1].identity: far}
    assert unmatched == [elsewhere]
    matches, unmatched = match(tracks[:1], (far, near))
    assert matches == {tracks[0].identity: near}
    assert unmatched == [far]
    assert match([], (near,)) == ({}, [near])


def test_hills_of_the_other_side_or_another_provenance_are_others() -> None:
    tracks = following(cluster(58_500.0))
    others = (cluster(58_500.0, side="short"), cluster(58_500.0, provenance="estimated"))
    assert match(tracks, others) == ({}, list(others))


def test_bands_overlap_within_the_width_of_a_bucket() -> None:
    [track] = following(cluster(58_500.0, width=10.0))
    edge = 58_510.0 * (1.0 + MATCH_MARGIN_RATIO)
    assert track.overlaps(cluster(edge + 9.0, width=10.0))
    assert not track.overlaps(cluster(edge + 11.0, width=10.0))


def test_a_touch_is_by_the_mark_or_by_the_whole_book_and_only_while_something_is_left() -> None:
    for changes, met in (
        ({"reference_price": 59_000.0}, True),
        ({"best_bid": 58_900.0, "best_ask": 59_000.0}, True),
        ({"best_bid": 58_900.0, "best_ask": 59_001.0}, False),
        ({"best_bid": None, "best_ask": None}, False),
    ):
        [track] = following(cluster(58_500.0))
        now = msgspec.structs.replace(market(), **changes)
        track.touch(now, at_s(3), left=True)
        assert track.touched_ns == (at_s(3) if met else None)
        track.vanishing_ns = at_s(4)
        track.touch(now, at_s(5), left=False)
        assert track.touched_ns == (at_s(3) if met else None)
        track.touch(now, at_s(6), left=True)
        assert track.touched_ns == (at_s(6) if met else None)
