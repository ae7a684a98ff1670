"""Stamps, counts and silence of a feed."""

from __future__ import annotations

from connectors.account_lines import MAX_LINE_BYTES
from connectors.account_outlet import FeedStatus, Outlet, Surroundings
from connectors.frames import Frame


def make(frames: list[Frame]) -> Outlet:
    return Outlet("desk", Surroundings(deliver=frames.append, clock_ns=lambda: 1_790_000_000_123_456_789, environment={}))


def test_lines_are_stamped_as_recordings_keep_them_and_named_after_the_feed() -> None:
    frames: list[Frame] = []
    make(frames).take(b"{}")
    assert frames == [Frame("desk", "desk", 1_790_000_000_123_456_700, b"{}")]


def test_a_message_becomes_one_frame_a_line() -> None:
    frames: list[Frame] = []
    outlet = make(frames)
    outlet.take_message(b'{"a":1}\r\n\n \t{"b":2}\n')
    assert [frame.payload for frame in frames] == [b'{"a":1}', b'{"b":2}']
    assert (outlet.status().messages, outlet.status().bytes) == (2, 14)


def test_a_line_that_is_too_long_is_counted_and_leaves_a_gap() -> None:
    frames: list[Frame] = []
    outlet = make(frames)
    outlet.take_message(b"{}\n" + b" " * 5 + b"x" * (MAX_LINE_BYTES + 1) + b"\n[]")
    outlet.take(None)
    assert [frame.payload for frame in frames] == [b"{}", None, b"[]", None]
    assert outlet.health().lines_oversized == 2
    assert outlet.status().messages == 2


def test_the_states_of_a_connection_are_told_with_their_reasons() -> None:
    frames: list[Frame] = []
    outlet = make(frames)
    assert (outlet.status().state, outlet.status().last_message_ns) == ("waiting", None)
    outlet.connecting()
    outlet.refused("missing", "no such file")
    assert (outlet.status().state, outlet.status().detail, outlet.status().failures) == ("waiting", "no such file", {"missing": 1})
    outlet.connecting()
    assert (outlet.status().state, outlet.status().detail) == ("connecting", "no such file")
    outlet.refused("refused", "wrong password", fatal=True)
    assert outlet.status().state == "failed"
    outlet.connecting()
    outlet.opened()
    assert (outlet.status().state, outlet.status().detail, outlet.status().attempts, outlet.status().connects) == (
        "connected",
        "",
        3,
        1,
    )
    assert frames == []
    outlet.lost("disconnected", "reset by peer")
    assert [frame.payload for frame in frames] == [None]
    assert (outlet.status().state, outlet.status().disconnects) == ("waiting", {"disconnected": 1})
    assert outlet.health(lines_torn=1, truncations=2, resyncs_asked=3, resyncs_refused=4) == FeedStatus(
        outlet.status(), 0, 1, 2, 3, 4
    )


def test_silence_is_one_gap_and_ends_with_the_next_message() -> None:
    frames: list[Frame] = []
    outlet = make(frames)
    outlet.opened()
    for _ in range(4):
        outlet.take(b"{}")
        outlet.tick(15.0, 60.0)
    assert outlet.status().silent_channels == ()
    for _ in range(3):
        outlet.tick(15.0, 60.0)
    assert outlet.status().silent_channels == ()
    for _ in range(9):
        outlet.tick(15.0, 60.0)
    assert (outlet.status().state, outlet.status().silent_channels) == ("degraded", ("messages",))
    assert [frame.payload for frame in frames] == [b"{}"] * 4 + [None]
    outlet.take(b"{}")
    assert (outlet.status().state, outlet.status().silent_channels) == ("connected", ())
    for _ in range(5):
        outlet.tick(15.0, 60.0)
    assert [frame.payload for frame in frames] == [b"{}"] * 4 + [None, b"{}", None]


def test_a_new_connection_has_the_whole_time_to_say_something() -> None:
    frames: list[Frame] = []
    outlet = make(frames)
    outlet.opened()
    outlet.tick(15.0, 60.0)
    for _ in range(3):
        outlet.tick(15.0, 60.0)
    assert outlet.status().silent_channels == ("messages",)
    outlet.lost("disconnected", "")
    outlet.opened()
    for _ in range(3):
        outlet.tick(15.0, 60.0)
    assert outlet.status().silent_channels == ()
