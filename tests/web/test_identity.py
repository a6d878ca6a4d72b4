"""Decision ids: version 7, ever growing, whatever the clock does."""

from __future__ import annotations

import uuid

from gateway.clock import ManualClock
from gateway.web.identity import DecisionIds


def test_decision_ids_are_uuids_of_version_7_with_the_time_in_front() -> None:
    """RFC 9562: 48 bits of milliseconds since the epoch, the version, the variant."""
    clock = ManualClock(wall=1_700_000_000.123)

    found = uuid.UUID(DecisionIds(clock)())

    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == 1_700_000_000_123


def test_decision_ids_grow_while_the_clock_stands_jumps_back_and_goes_on() -> None:
    """Sorting them is sorting by time of decision."""
    clock = ManualClock()
    ids = DecisionIds(clock)
    made = [ids() for _ in range(10_000)]
    clock.jump_wall(-3600)
    made += [ids() for _ in range(1000)]
    clock.jump_wall(7200)
    made += [ids() for _ in range(1000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(uuid.UUID(one).version == 7 for one in made)


def test_a_random_part_that_runs_over_takes_the_time_one_further() -> None:
    """Instead of spilling into the version."""
    ids = DecisionIds(ManualClock())
    first = uuid.UUID(ids())
    ids._tail = (0b11 << 62) - 1

    second = uuid.UUID(ids())

    assert second > first
    assert second.version == 7
    assert second.int >> 80 == (first.int >> 80) + 1
