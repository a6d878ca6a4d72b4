"""Rows that ran wait to be counted: bounded, counted when there is time, and what is passed by is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtimes.counting_buffer import BUSY_SHARE, GATHER_ROWS, GATHER_S, MOST_ROWS, Buffer
from runtimes.counting_capture import Capture
from runtimes.counting_profile import Profile
from runtimes.counting_rows import Counter
from tests.runtimes.counted import profile_of, rows_of, signature_of

PROFILE = profile_of({"x": rows_of(500, 3)}, {"y": rows_of(500, 3)})


class Time:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def note(buffer: Buffer, rows: int, seed: int = 0) -> None:
    live = rows_of(rows, 3, seed)
    buffer.note({"x": live}, {"y": live}, rows)


def test_little_waits_for_more_and_not_for_ever() -> None:
    """A quarter of a second, or a thousand rows."""
    time = Time()
    buffer = Buffer(PROFILE.plan, clock=time)
    assert buffer.due_in_s() is None
    note(buffer, 10)
    assert buffer.due_in_s() == GATHER_S
    time.now += GATHER_S
    assert buffer.due_in_s() == 0.0
    note(buffer, GATHER_ROWS)
    assert buffer.due_in_s() == 0.0


def test_what_finds_the_buffer_full_is_seen_and_not_counted() -> None:
    """Memory is bounded; the share that was counted is told."""
    buffer = Buffer(PROFILE.plan)
    for _ in range(2 * MOST_ROWS // 512):
        note(buffer, 512)
    assert buffer.waiting == MOST_ROWS
    while buffer.waiting:
        buffer.count()
    counts = buffer.take()
    assert counts is not None
    assert (counts.seen, counts.counted) == (2 * MOST_ROWS, MOST_ROWS)
    assert buffer.take() is None


def test_rows_that_still_wait_are_seen_when_they_are_counted() -> None:
    """No row is told twice, none is lost between two tellings."""
    buffer = Buffer(PROFILE.plan)
    note(buffer, 1000)
    buffer.count()
    first = buffer.take()
    while buffer.waiting:
        buffer.count()
    note(buffer, 5, seed=3)
    while buffer.waiting:
        buffer.count()
    second = buffer.take()
    assert first is not None
    assert second is not None
    assert first.seen == first.counted < 1000
    assert (first.seen + second.seen, first.counted + second.counted) == (1005, 1005)
    whole = Counter(PROFILE.plan)
    for live in (rows_of(1000, 3), rows_of(5, 3, seed=3)):
        whole.add({"x": live}, {"y": live}, len(live))
    assert np.array_equal(first.vector + second.vector, whole.take()[1])


def test_under_load_counting_takes_a_small_share_of_the_time() -> None:
    """A slice, and no other until twenty times as long has passed; nothing at all while little waits."""
    time = Time()

    def passing() -> float:
        time.now += 0.001
        return time.now

    buffer = Buffer(PROFILE.plan, clock=passing)
    note(buffer, 100)
    assert not buffer.count_beside_work()
    note(buffer, 4000)
    assert buffer.count_beside_work()
    assert not buffer.count_beside_work()
    time.now += 0.002 / BUSY_SHARE
    assert buffer.count_beside_work()


def test_what_is_noted_is_a_copy() -> None:
    """The memory that a batch lay in is written again before it is counted."""
    buffer = Buffer(PROFILE.plan)
    live = rows_of(20, 3, seed=4)
    expected = Counter(PROFILE.plan)
    expected.add({"x": live}, {"y": live}, 20)
    buffer.note({"x": live}, {"y": live[:, :]}, 20)
    live[:] = 0
    buffer.count()
    counts = buffer.take()
    assert counts is not None
    assert np.array_equal(counts.vector, expected.take()[1])


@pytest.mark.parametrize("rows", [0, 1])
def test_batches_of_no_rows_and_of_one_are_batches(rows: int) -> None:
    """Nothing waits of the one, and all of the other."""
    buffer = Buffer(PROFILE.plan)
    note(buffer, rows)
    assert buffer.waiting == rows


def test_a_capture_freezes_bins_of_the_first_rows_and_counts_the_next() -> None:
    """As many again; what comes after it is done changes nothing."""
    live = rows_of(700, 3, seed=5)
    capture = Capture(signature_of({"x": live}, {"y": live}), 300, 1)
    for begin in range(0, 700, 7):
        batch = live[begin : begin + 7]
        capture.note({"x": batch}, {"y": batch}, 7)
        if capture.due:
            capture.work()
    assert capture.profile is not None
    profile = Profile.from_json(json.loads(capture.profile))
    expected = Counter(profile.plan)
    expected.add({"x": live[300:600]}, {"y": live[300:600]}, 300)
    assert profile.rows == 300
    assert np.array_equal(profile.reference, expected.take()[1])


def test_a_capture_of_nothing_that_can_be_counted_says_why() -> None:
    """Rows that differ in size, and nothing else."""
    live = rows_of(300, 3)
    capture = Capture(signature_of({"x": live}, {}), 100, 1)
    capture.note({"x": live[:50]}, {}, 50)
    capture.note({"x": rows_of(60, 4)}, {}, 60)
    while not capture.done:
        capture.work()
    assert "can be counted" in capture.problem
