"""The guard's rule: what it acts on, and above all what it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.judge import GuardPolicy, judge
from gateway.control.outcomes import Death, Deaths, Evidence, Interval, Outcome, Window

POLICY = GuardPolicy()
NOW = 1000.0


def outcomes(good: int = 0, failed: int = 0, late: int = 0, *, ago: float = 1.0) -> Evidence:
    return Evidence((Interval(NOW - ago, good, failed, late),))


def deaths(*found: Death, good: int = 0) -> Evidence:
    return Evidence((Interval(NOW - 1, good),), found)


def rule(evidence: Evidence) -> str | None:
    verdict = judge(evidence, POLICY, NOW)
    return None if verdict is None else verdict.rule


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (Evidence(), None),
        (outcomes(good=1000), None),
        (outcomes(failed=1), None),
        (outcomes(failed=4), None),
        (outcomes(failed=5), "error-burst"),
        (outcomes(failed=5, good=5), "error-burst"),
        (outcomes(failed=5, good=6), None),
        (outcomes(failed=5, good=1000), None),
        (outcomes(failed=500, good=500), "error-burst"),
        (outcomes(failed=5, ago=6.0), None),
        (outcomes(late=4), None),
        (outcomes(late=5), "deadline"),
        (outcomes(late=8, good=2), "deadline"),
        (outcomes(late=7, good=3), None),
    ],
)
def test_it_acts_on_enough_failures_that_are_a_large_share(evidence: Evidence, expected: str | None) -> None:
    """A single poison request, a handful of failures among many good answers, or old ones: nothing."""
    assert rule(evidence) == expected


def crash(
    ago: float, *, chained: bool = True, isolating: bool = False, cause: str = "crash", waiting: int = 0
) -> Death:
    return Death(NOW - ago, cause, isolating, waiting, chained)


@pytest.mark.parametrize("per_second", [8, 25, 1000])
def test_a_version_that_turns_bad_is_found_within_a_second_however_long_it_was_good(per_second: int) -> None:
    """Five seconds of good answers, then nothing but failures, at 8, 25 and 1,000 requests a second."""
    window = Window(POLICY.window_s)
    turned = 2000.0
    for index in range(int(POLICY.window_s * per_second)):
        window.add(turned - POLICY.window_s + index / per_second, Outcome.GOOD)
    for index in range(per_second):
        now = turned + index / per_second
        window.add(now, Outcome.FAILED)
        verdict = judge(Evidence(window.intervals()), POLICY, now)
        if verdict is not None:
            assert verdict.rule == "error-burst"
            assert now - turned < 1.0
            return
    pytest.fail("not found within a second")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (deaths(crash(1, chained=False)), None),
        (deaths(crash(2, chained=False), crash(1)), None),
        (deaths(crash(3, chained=False), crash(2), crash(1)), "crash-loop"),
        (deaths(crash(33, chained=False), crash(32), crash(1)), None),
        (deaths(crash(3), crash(2), crash(1, chained=False)), None),
        (deaths(*(crash(n, chained=False) for n in (5, 4, 3, 2, 1))), None),
        (deaths(*(crash(n, chained=False) for n in (6, 5, 4, 3, 2, 1))), "crash-loop"),
        # One poison request in a batch of 32: twice whole, then halved until it stands alone.
        (deaths(crash(3, chained=False), *(crash(2, isolating=True) for _ in range(6))), None),
        (deaths(crash(3, chained=False), *(crash(2, isolating=True) for _ in range(9))), "crash-loop"),
        # It never came up: the route goes on by its fallback.
        (deaths(*(crash(n, cause="load") for n in (5, 4, 3, 2, 1))), None),
        (deaths(crash(5), crash(4, cause="load"), crash(3, cause="load")), "crash-loop"),
    ],
)
def test_it_acts_on_deaths_that_no_good_batch_comes_between(evidence: Evidence, expected: str | None) -> None:
    """A child killed now and then, or by one poison request, is no crash loop."""
    assert rule(evidence) == expected


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (deaths(crash(0.1, cause="hang", waiting=4, chained=False)), None),
        (deaths(crash(0.1, cause="hang", waiting=5, chained=False)), "hang"),
        (deaths(crash(0.1, cause="hang", waiting=50, chained=False), good=49), "hang"),
        (deaths(crash(0.1, cause="hang", waiting=50, chained=False), good=50), None),
        (
            deaths(crash(1, cause="hang", waiting=50, chained=False), crash(0.1, cause="hang", waiting=50), good=50),
            "hang",
        ),
        (
            deaths(
                crash(1, cause="hang", waiting=50, chained=False),
                crash(0.1, cause="hang", waiting=50, chained=False),
                good=50,
            ),
            None,
        ),
        (deaths(crash(0.1, cause="hang", waiting=50, isolating=True)), None),
        (deaths(crash(6, cause="hang", waiting=50, chained=False)), None),
    ],
)
def test_it_acts_on_a_hang_that_holds_requests_up(evidence: Evidence, expected: str | None) -> None:
    """At once, but for a version that has lately answered many: one poison request would look the same."""
    assert rule(evidence) == expected


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from([Outcome.GOOD])), max_size=50),
    st.floats(0, 100),
)
def test_good_answers_alone_never_convict(answers: list[tuple[float, Outcome]], later: float) -> None:
    """Whatever their number and times."""
    window = Window(POLICY.window_s)
    for at, outcome in sorted(answers):
        window.add(at, outcome)
    assert judge(Evidence(window.intervals()), POLICY, 20 + later) is None


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(list(Outcome))), max_size=200))
def test_a_window_counts_what_is_recent_and_nothing_else(answers: list[tuple[float, Outcome]]) -> None:
    """Up to the width of an interval, its counts are those of the last seconds."""
    window, answers = Window(5.0), sorted(answers)
    for at, outcome in answers:
        window.add(at, outcome)
    now = answers[-1][0] if answers else 0.0
    recent = [interval for interval in window.intervals() if interval.start > now - 5.0]
    counted = sum(interval.good + interval.failed + interval.late for interval in recent)
    exact = sum(at > now - 5.0 for at, _ in answers)
    within = sum(at > now - 5.0 + 0.25 for at, _ in answers)
    assert within <= counted <= exact


def test_deaths_are_chained_until_a_batch_comes_back() -> None:
    """The first death after a good batch begins a new chain."""
    found = Deaths()
    found.died(1.0, "crash", isolating=False, waiting=0)
    found.died(2.0, "crash", isolating=False, waiting=0)
    found.batch_came_back()
    found.died(3.0, "crash", isolating=False, waiting=0)
    assert [death.chained for death in found.listed()] == [False, True, False]
