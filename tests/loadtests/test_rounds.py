"""Rounds: what counts, what is thrown away, and what slices of one add up to."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.measurement import Sample, joined
from loadtests.scenarios.rounds import Plan, clients_table, steady_rounds


def plan(rounds: int) -> Plan:
    return Plan(rounds, 1.0, Path())


def test_a_round_in_which_the_generator_was_late_is_measured_again() -> None:
    """The late one goes, whatever it found; the order of the others stays."""
    late = [1.0, 30.0, 1.2, 0.9, 1.1]
    steady = steady_rounds(plan(3), lambda number: number, lambda number: late[number])
    assert steady.rounds == [0, 2, 3]
    assert steady.thrown_away == 1
    assert steady.worst_ms == 1.2
    assert "1 rounds thrown away" in steady.said()


def test_on_a_machine_that_is_always_late_the_least_late_rounds_count() -> None:
    """There is an end to trying, and the lateness is on the page."""
    late = [30.0, 10.0, 50.0, 20.0]
    steady = steady_rounds(plan(2), lambda number: number, lambda number: late[number])
    assert steady.rounds == [1, 3]
    assert steady.thrown_away == 2
    assert "20.0 ms" in steady.said()


def test_among_rounds_in_time_none_is_preferred() -> None:
    """Choosing the least late of good rounds would be choosing the quietest."""
    late = [4.9, 0.1, 4.0]
    assert steady_rounds(plan(3), lambda number: number, lambda number: late[number]).rounds == [0, 1, 2]
    assert steady_rounds(plan(1), lambda number: number, lambda number: late[number]).rounds == [0]


def test_slices_are_weighed_by_their_answers() -> None:
    """Processor time over all answers, not the mean of means; no error is lost."""
    busy, stalled = Sample(300.0, 1.0, 2.0, 5.0, 80.0, 0), Sample(100.0, 2.0, 4.0, 50.0, 90.0, 3)
    whole = joined([busy, stalled])
    assert whole.per_second == 200
    assert whole.cpu_ms == pytest.approx(1.25)
    assert whole.errors == 3
    assert whole.resident_mb == 90


def test_slices_without_an_answer_have_no_cost() -> None:
    """NaN meets nothing; a zero would be the best of all."""
    assert joined([Sample(0.0, 0.0, 0.0, 0.0, 80.0, 7)]).cpu_ms != joined([Sample(0.0, 0.0, 0.0, 0.0, 80.0, 7)]).cpu_ms


def test_a_table_over_clients_has_a_row_for_each_server_and_number() -> None:
    """Ratios are each number of clients' own."""

    def sample(cpu_ms: float) -> list[Sample]:
        return [Sample(10.0, cpu_ms, 1.0, 2.0, 3.0, 0)]

    found = {1: {"bare": sample(1), "process": sample(3)}, 64: {"bare": sample(1), "process": sample(2)}}
    rows = clients_table("t", found).rows
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("1", "bare", "1.00"),
        ("1", "process", "3.00"),
        ("64", "bare", "1.00"),
        ("64", "process", "2.00"),
    ]
