from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from alerts.alert import Alert, Severity
from alerts.pipeline import DropRepeated, NotificationLog, Pipeline
from tests.alerts.builders import START_NS, alert

MINUTE_NS = 60 * 1_000_000_000


def resolved(notification: Alert, ends_ns: int = START_NS + MINUTE_NS) -> Alert:
    return msgspec.structs.replace(notification, ends_ns=ends_ns)


def test_a_new_alert_goes_out_once_although_it_goes_on_firing() -> None:
    pipeline = Pipeline(repeat_interval_s=3600)
    assert pipeline.process([alert()], [alert()], 0) == [alert()]
    for second in range(1, 3600):
        assert pipeline.process([], [alert()], second * 1_000_000_000) == []


def test_a_repeat_tells_the_present_numbers() -> None:
    pipeline = Pipeline(repeat_interval_s=60)
    pipeline.process([alert()], [alert()], 0)
    later = msgspec.structs.replace(alert(), summary="other numbers")
    assert pipeline.process([], [later], MINUTE_NS - 1) == []
    assert pipeline.process([], [later], MINUTE_NS) == [later]
    assert pipeline.process([], [later], 2 * MINUTE_NS - 1) == []
    assert pipeline.process([], [later], 2 * MINUTE_NS) == [later]


def test_a_change_of_severity_goes_out_at_once() -> None:
    pipeline = Pipeline(repeat_interval_s=3600)
    pipeline.process([alert()], [alert()], 0)
    worse = alert(severity="critical", starts_ns=START_NS + 1)
    assert pipeline.process([worse], [worse], 1) == [worse]
    assert pipeline.process([], [worse], 2) == []


def test_the_end_goes_out_once() -> None:
    pipeline = Pipeline(repeat_interval_s=3600)
    pipeline.process([alert()], [alert()], 0)
    end = resolved(alert())
    assert pipeline.process([end, end], [], 1) == [end]
    assert pipeline.process([end], [], 2) == []


def test_the_end_of_an_alert_that_never_went_out_is_dropped() -> None:
    assert Pipeline(repeat_interval_s=3600).process([resolved(alert())], [], 0) == []


def test_an_alert_that_begins_and_ends_in_one_batch_is_told_in_full() -> None:
    begin, end = alert(), resolved(alert())
    assert Pipeline(repeat_interval_s=3600).process([begin, end], [], 0) == [begin, end]


def test_an_alert_that_comes_back_is_told_again() -> None:
    pipeline = Pipeline(repeat_interval_s=3600)
    pipeline.process([alert()], [alert()], 0)
    pipeline.process([resolved(alert())], [], 1)
    again = alert(starts_ns=START_NS + 2 * MINUTE_NS)
    assert pipeline.process([again], [again], 2) == [again]


def test_a_clock_that_jumps_back_causes_no_repeat() -> None:
    pipeline = Pipeline(repeat_interval_s=60)
    pipeline.process([alert()], [alert()], 10 * MINUTE_NS)
    assert pipeline.process([], [alert()], 0) == []


def test_a_full_log_refuses_new_alerts_instead_of_telling_them_again_and_again() -> None:
    log = NotificationLog(capacity=2)
    stage = DropRepeated(log, 3600)
    three = [alert("BTC"), alert("ETH"), alert("SOL")]
    assert stage(three, 0) == three[:2]
    assert stage(three, 1) == []
    assert log.refused == 2
    stage([resolved(three[0])], 2)
    assert stage(three[1:], 3) == [three[2]]


@given(
    st.lists(
        st.tuples(st.sampled_from(["BTC", "ETH"]), st.sampled_from(["warning", "critical", "resolved"]), st.integers(0, 90)),
        max_size=40,
    )
)
def test_what_goes_out_is_well_formed_whatever_comes_in(steps: list[tuple[str, str, int]]) -> None:
    """For each alert: a beginning before the end, one end for each beginning, and no repetition within the interval."""
    pipeline = Pipeline(repeat_interval_s=60)
    now_s = 0
    last: dict[str, tuple[str, int]] = {}
    for symbol, state, pause_s in steps:
        now_s += pause_s
        severity: Severity = "critical" if state == "critical" else "warning"
        notification = alert(symbol, severity=severity)
        if state == "resolved":
            notification = resolved(notification)
        for sent in pipeline.process([notification], [], now_s * 1_000_000_000):
            before = last.get(symbol)
            if sent.resolved:
                assert before is not None
                del last[symbol]
                continue
            assert before is None or before[0] != sent.severity or now_s - before[1] >= 60
            last[symbol] = (sent.severity, now_s)
        assert (symbol in last) == (state != "resolved")
