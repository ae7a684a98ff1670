"""Which channel is overdue, and since when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.watchdog import ChannelWatchdog


def test_first_message_is_awaited_from_the_subscription() -> None:
    watchdog = ChannelWatchdog({"book": 10.0}, now_s=100.0)
    assert watchdog.check(110.0).silent == ()
    assert watchdog.check(110.0).unheard == 1
    assert watchdog.check(110.5).silent == ("book",)
    assert watchdog.check(110.5).all_silent


def test_channel_without_a_deadline_is_never_overdue() -> None:
    watchdog = ChannelWatchdog({"liquidations": None}, now_s=0.0)
    watchdog.saw("liquidations", 1.0)
    silence = watchdog.check(1e9)
    assert (silence.silent, silence.all_silent, silence.unheard, watchdog.deadlines) == ((), False, 0, 0)


def test_some_silent_is_not_all_silent() -> None:
    watchdog = ChannelWatchdog({"book": 10.0, "mark": 5.0, "liquidations": None}, now_s=0.0)
    watchdog.saw("book", 9.0)
    silence = watchdog.check(12.0)
    assert (silence.silent, silence.all_silent, silence.unheard) == (("mark",), False, 1)


def test_each_period_of_silence_asks_for_one_resend() -> None:
    watchdog = ChannelWatchdog({"mark": 10.0, "book": 100.0}, now_s=0.0)
    resends = {now_s: watchdog.check(float(now_s)).resend for now_s in range(0, 45, 3)}
    assert [now_s for now_s, keys in resends.items() if keys] == [12, 21, 30, 42]
    assert watchdog.check(42.0).periods == 3


def test_data_ends_the_silence_and_the_next_one_counts_anew() -> None:
    watchdog = ChannelWatchdog({"mark": 10.0, "book": 100.0}, now_s=0.0)
    assert watchdog.check(25.0).resend == ("mark",)
    watchdog.saw("mark", 26.0)
    assert watchdog.check(27.0).silent == ()
    assert watchdog.check(37.0).resend == ("mark",)
    assert watchdog.check(37.0).periods == 0


def test_unplanned_channels_are_not_remembered() -> None:
    watchdog = ChannelWatchdog({"book": 10.0}, now_s=0.0)
    for number in range(1000):
        watchdog.saw(f"other{number}", 1.0)
    assert watchdog.check(11.0).silent == ("book",)


def test_standstill_of_this_process_is_forgiven() -> None:
    watchdog = ChannelWatchdog({"book": 10.0}, now_s=0.0)
    watchdog.postpone(60.0)
    assert watchdog.check(70.0).silent == ()
    assert watchdog.check(71.0).silent == ("book",)


def test_checks_are_frequent_enough_for_the_shortest_deadline() -> None:
    assert ChannelWatchdog({"a": 2.0, "b": 60.0, "c": None}, now_s=0.0).tick_s() == 0.5
    assert ChannelWatchdog({"a": 600.0}, now_s=0.0).tick_s() == 1.0
    assert ChannelWatchdog({}, now_s=0.0).tick_s() == 1.0


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
def test_deadline_must_be_positive(deadline_s: float) -> None:
    with pytest.raises(ValueError, match="book"):
        ChannelWatchdog({"book": deadline_s}, now_s=0.0)


@given(
    deadline_s=st.floats(0.5, 100.0),
    heard_s=st.lists(st.floats(0.0, 1000.0), max_size=20).map(sorted),
    now_s=st.floats(1000.0, 2000.0),
)
def test_overdue_exactly_when_the_last_data_is_older_than_the_deadline(
    deadline_s: float, heard_s: list[float], now_s: float
) -> None:
    watchdog = ChannelWatchdog({"book": deadline_s}, now_s=0.0)
    for moment_s in heard_s:
        watchdog.saw("book", moment_s)
    last_s = heard_s[-1] if heard_s else 0.0
    assert bool(watchdog.check(now_s).silent) == (now_s - last_s > deadline_s)


def test_channel_that_may_be_silent_for_ever_has_to_be_confirmed() -> None:
    watchdog = ChannelWatchdog({"book": 10.0, "trades": None, "fills": None}, now_s=0.0, confirm_s=20.0)
    watchdog.confirm("trades")
    watchdog.saw("book", 20.5)
    silence = watchdog.check(20.5)
    assert (silence.silent, silence.resend, silence.unheard) == (("fills",), ("fills",), 1)
    watchdog.saw("fills", 21.0)
    watchdog.saw("book", 1e6)
    silence = watchdog.check(1e6)
    assert (silence.silent, silence.unheard, watchdog.deadlines) == ((), 0, 1)


def test_refused_channel_is_in_doubt_until_it_is_confirmed() -> None:
    watchdog = ChannelWatchdog({"book": 10.0, "trades": None}, now_s=0.0, confirm_s=20.0)
    watchdog.confirm("trades")
    watchdog.doubt("trades", 30.0)
    watchdog.doubt("trades", 45.0)  # Being refused again is no sign of life.
    watchdog.doubt("book", 30.0)
    watchdog.doubt("never asked for", 30.0)
    watchdog.saw("book", 50.5)
    assert watchdog.check(50.5).silent == ("trades",)
    assert watchdog.deadlines == 2
