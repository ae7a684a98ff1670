"""The queue between the sockets and the core: in order, bounded, and never silent about a loss."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.frames import Frame
from connectors.intake import FrameIntake
from tests.virtual_time import run_in_virtual_time


def frame(number: int, connection: str = "a", payload: bytes | None = b"x") -> Frame:
    return Frame("plain", connection, number, payload)


async def test_frames_come_out_in_order_and_in_batches() -> None:
    intake = FrameIntake()
    for number in range(5):
        intake.put(frame(number))
    assert [item.received_ns for item in await intake.take(3)] == [0, 1, 2]
    assert (len(intake), intake.waiting_bytes, intake.oldest_received_ns) == (2, 2, 3)
    assert [item.received_ns for item in await intake.take(3)] == [3, 4]
    assert (len(intake), intake.waiting_bytes, intake.oldest_received_ns) == (0, 0, None)


async def test_take_waits_until_something_is_put() -> None:
    intake = FrameIntake()
    taking = asyncio.create_task(intake.take(10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not taking.done()
    intake.put(frame(1))
    intake.put(frame(2))
    assert [item.received_ns for item in await taking] == [1, 2]


async def test_cancelled_take_loses_nothing() -> None:
    intake = FrameIntake()
    taking = asyncio.create_task(intake.take(10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    intake.put(frame(1))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert [item.received_ns for item in await intake.take(10)] == [1]


async def test_second_consumer_is_refused() -> None:
    intake = FrameIntake()
    first = asyncio.create_task(intake.take(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one consumer"):
        await intake.take(1)
    intake.put(frame(1))
    assert len(await first) == 1


@pytest.mark.parametrize("limit", [0, -1])
async def test_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        await FrameIntake().take(limit)


async def test_dropped_frames_leave_one_gap_where_they_were() -> None:
    intake = FrameIntake(max_frames=2)
    for number in range(5):
        intake.put(frame(number))
    assert intake.dropped == 3
    assert intake.dropped_by_connection == {("plain", "a"): 3}
    assert await intake.take(10) == [frame(0), frame(1), frame(2, payload=None)]


async def test_a_loss_after_a_gap_was_handed_out_is_told_again() -> None:
    intake = FrameIntake(max_frames=2)
    for number in range(3):
        intake.put(frame(number))
    assert await intake.take(10) == [frame(0), frame(1), frame(2, payload=None)]
    for number in range(3, 6):
        intake.put(frame(number))
    assert await intake.take(10) == [frame(3), frame(4), frame(5, payload=None)]


async def test_each_loss_of_a_frame_that_never_fits_is_told() -> None:
    intake = FrameIntake(max_bytes=10)
    for number in range(2):
        intake.put(frame(number, payload=b"x" * 11))
        assert await intake.take(10) == [frame(number, payload=None)]
    assert intake.dropped == 2


async def test_bytes_are_bounded_too_and_the_gap_stands_before_what_still_fits() -> None:
    intake = FrameIntake(max_bytes=10)
    intake.put(frame(0, payload=b"12345678"))
    intake.put(frame(1, payload=b"1234"))
    intake.put(frame(2, payload=b"12"))
    intake.put(frame(3, payload=b"1"))
    assert [(item.received_ns, item.payload) for item in await intake.take(10)] == [
        (0, b"12345678"),
        (1, None),
        (2, b"12"),
        (3, None),
    ]
    assert intake.waiting_bytes == 0


async def test_full_queue_of_one_connection_does_not_break_another() -> None:
    intake = FrameIntake(max_frames=2)
    intake.put(frame(0, "a"))
    intake.put(frame(1, "b"))
    intake.put(frame(2, "a"))
    assert await intake.take(10) == [frame(0, "a"), frame(1, "b"), frame(2, "a", None)]
    intake.put(frame(3, "b"))
    intake.put(frame(4, "a"))
    assert await intake.take(10) == [frame(3, "b"), frame(4, "a")]


async def test_disconnects_of_a_full_queue_share_one_gap() -> None:
    intake = FrameIntake(max_frames=1)
    intake.put(frame(0))
    for number in range(1, 1000):
        intake.put(frame(number, payload=None))
    assert len(intake) == 2
    assert intake.dropped == 0


@settings(max_examples=200, deadline=None)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 12))),
            st.integers(1, 4),
        ),
        max_size=80,
    ),
)
def test_every_loss_is_announced_before_any_later_frame_of_the_connection(
    actions: list[tuple[str, int | None] | int],
) -> None:
    async def scenario() -> None:
        intake = FrameIntake(max_frames=5, max_bytes=20)
        put: dict[str, list[int | None]] = {"a": [], "b": [], "c": []}
        taken: list[Frame] = []
        for number, action in enumerate(actions):
            if isinstance(action, int):
                if len(intake) > 0:
                    taken += await intake.take(action)
            else:
                connection, size = action
                put[connection].append(None if size is None else number)
                intake.put(frame(number, connection, None if size is None else b"x" * size))
            assert len(intake) <= 5 + 3
            assert intake.waiting_bytes <= 20
        while len(intake) > 0:
            taken += await intake.take(100)
        for connection, sent in put.items():
            got = [None if item.payload is None else item.received_ns for item in taken if item.connection == connection]
            numbers = [number for number in got if number is not None]
            assert numbers == sorted(numbers)
            # Whatever is missing between two frames that came through, a gap stands between them.
            remaining = iter(got)
            pending_loss = False
            for expected in sent:
                if expected is not None and expected in numbers:
                    before = []
                    for item in remaining:
                        if item == expected:
                            break
                        before.append(item)
                    assert not pending_loss or None in before
                    pending_loss = False
                else:
                    pending_loss = True
            assert not pending_loss or None in list(remaining)

    run_in_virtual_time(scenario())
