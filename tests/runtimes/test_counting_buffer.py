"""Rows that ran wait to be counted: bounded, counted when there is time, and what is passed by is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtimes.counting import BUSY_SHARE
from runtimes.counting_buffer import GATHER_ROWS, GATHER_S, MOST_ROWS, Buffer
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

    buffer = Buffer(PROFILE.plan, clock=passing, worked=passing)
    note(buffer, 100)
    assert not buffer.count_beside_work()
    note(buffer, 4000)
    assert buffer.count_beside_work()
    assert not buffer.count_beside_work()
    time.now += 0.002 / BUSY_SHARE
    assert buffer.count_beside_work()


def test_while_others_want_the_processor_counting_keeps_to_its_share_though_nothing_waits() -> None:
    """After a slice it is due again once fifty times as long has passed; where nobody else wants it, at once."""
    time = Time()
    buffer = Buffer(PROFILE.plan, clock=time, worked=_stepping(0.001))
    note(buffer, 4000)
    assert buffer.due_in_s(short=True) == 0.0
    buffer.count()
    assert buffer.due_in_s() == 0.0
    assert buffer.due_in_s(short=True) == pytest.approx(0.001 / BUSY_SHARE)
    time.now += 0.001 / BUSY_SHARE
    assert buffer.due_in_s(short=True) == 0.0


def test_a_share_of_one_counts_whatever_comes() -> None:
    """Nothing is ever put off for the time that counting took."""
    buffer = Buffer(PROFILE.plan, share=1.0)
    for second in range(3):
        for batch in range(50):
            note(buffer, 200, seed=batch)
            while buffer.count_beside_work():
                pass
        counts = buffer.take()
        assert counts is not None
        assert counts.seen == counts.counted > 8000, second


def test_who_loses_the_processor_in_the_midst_of_a_slice_has_not_worked_longer() -> None:
    """A slice is of so many rows as processor time allows: smaller ones would cost several times as much a row."""
    time = Time()

    def stopped() -> float:
        time.now += 1.0
        return time.now

    slow, fast = Buffer(PROFILE.plan, clock=stopped, worked=_stepping(1e-4)), Buffer(PROFILE.plan)
    for buffer in (slow, fast):
        note(buffer, 4000)
    slow.count()
    before = slow.waiting
    slow.count()
    assert before - slow.waiting > 500


def test_each_batch_has_the_same_chance_whatever_its_size_or_its_place() -> None:
    """Four times as many rows come as there is time for, in a pattern: after each pause a large batch of high values,
    then small ones of low values. Both are counted in their share of what came, and never is the buffer full."""
    buffer = Buffer(PROFILE.plan, worked=_stepping(0.001))
    high, low = np.full((32, 3), 3.0, np.float32), np.full((3, 3), -3.0, np.float32)
    plan = PROFILE.plan.features[0]
    came, counted, bins = 0, 0, np.zeros(plan.bins)
    for second in range(100):
        for place in range(400):
            batch = low if place % 4 else high
            buffer.note({"x": batch}, {"y": batch}, len(batch))
        worked = 0
        while worked < 1000 and buffer.waiting:
            before = buffer.waiting
            buffer.count()
            worked += before - buffer.waiting
        counts = buffer.take()
        assert counts is not None
        assert buffer.waiting < MOST_ROWS
        if second >= 20:
            came, counted = came + counts.seen, counted + counts.counted
            bins += counts.vector[plan.counts]
    assert counted / came == pytest.approx(0.25, rel=0.1)
    assert bins[-1] / bins.sum() == pytest.approx(32 / 41, rel=0.03)


def test_bursts_with_pauses_between_them_are_not_counted_by_how_they_begin() -> None:
    """Every other second brings four times as many rows as there is time for in two: high values, then low ones."""
    buffer = Buffer(PROFILE.plan, worked=_stepping(0.001))
    high, low = np.full((32, 3), 3.0, np.float32), np.full((32, 3), -3.0, np.float32)
    plan = PROFILE.plan.features[0]
    bins = np.zeros(plan.bins)
    for second in range(100):
        for place in range(320):
            if second % 2:
                batch = high if place < 160 else low
                buffer.note({"x": batch}, {"y": batch}, 32)
            if place % 16 == 0:
                buffer.count()
        counts = buffer.take()
        if counts is not None and second >= 20:
            bins += counts.vector[plan.counts]
    assert bins[-1] / bins.sum() == pytest.approx(0.5, abs=0.03)


def test_a_thousand_rows_are_all_counted_however_little_time_there_is() -> None:
    """What comes now and then is never sampled: there is room for it until there is time."""
    buffer = Buffer(PROFILE.plan)
    for batch in range(GATHER_ROWS // 8):
        note(buffer, 8, seed=batch)
        if batch % 10 == 0:
            buffer.take()
    while buffer.waiting:
        buffer.count()
    buffer.take()
    note(buffer, 8)
    assert buffer.waiting == 8


def test_once_the_load_is_over_every_row_is_counted_again() -> None:
    """After a second in which nothing came at once, else as soon as little waits."""
    buffer = Buffer(PROFILE.plan)
    for _ in range(2 * MOST_ROWS // 32):
        note(buffer, 32)
    buffer.take()
    before = buffer.waiting
    note(buffer, 8)
    assert buffer.waiting == before, "more waits than should: nothing is noted"
    while buffer.waiting:
        buffer.count()
    buffer.take()
    assert buffer.take() is None
    note(buffer, 8)
    assert buffer.waiting == 8


def test_a_second_in_which_nothing_comes_while_more_waits_than_should_is_borne() -> None:
    """A burst, little time for it, and a pause: what waits is counted and told, and nothing is noted until then."""
    buffer = Buffer(PROFILE.plan)
    for _ in range(MOST_ROWS // 32):
        note(buffer, 32)
    told = [buffer.take(), buffer.take()]
    before = buffer.waiting
    note(buffer, 8)
    assert buffer.waiting == before
    while buffer.waiting:
        buffer.count()
    told += [buffer.take(), buffer.take()]
    assert [(one.seen, one.counted) for one in told if one is not None] == [(0, 0), (0, 0), (MOST_ROWS + 8, MOST_ROWS)]
    note(buffer, 8)
    assert buffer.waiting == 8


def _stepping(seconds: float) -> Time:
    """A clock by which each look is so much later than the one before."""

    class Stepping(Time):
        def __call__(self) -> float:
            self.now += seconds
            return self.now

    return Stepping()


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
