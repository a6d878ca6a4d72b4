"""Alarms: how soon, how seldom without cause, once, and over only when it is."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.telemetry.drift.calibration import LEVEL
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import Policy, State
from gateway.telemetry.drift.keeping import Belief, from_bytes, to_bytes
from gateway.telemetry.drift.starts import START_S, Starts, bets_in, stays
from tests.telemetry.drift.scene import Watched, counted, reference_of

FEATURES = 50


@pytest.fixture(scope="module")
def reference() -> Reference:
    return reference_of({"x": np.random.default_rng(5).standard_normal((10_000, FEATURES))})


def look(watched: Watched, rng: np.random.Generator, rows: int, shift: float = 0.0) -> None:
    """Feature 7 is shifted."""
    values = rng.standard_normal((rows, FEATURES))
    values[:, 7] += shift
    watched.look(counted(watched.reference.plan, {"x": values}))


@pytest.mark.parametrize(("shift", "step", "within"), [(0.2, 250, 3000), (0.5, 50, 500)])
def test_a_small_shift_of_one_feature_in_fifty_is_found(
    reference: Reference, shift: float, step: int, within: int
) -> None:
    """0.2 deviations within 3,000 rows and 0.5 within 500 (medians), after a time without drift, and no other
    feature."""
    found = []
    for run in range(5):
        rng = np.random.default_rng((run, step))
        watched = Watched(reference, Policy(FEATURES))
        for _ in range(4):
            look(watched, rng, 300)
        rows = 0
        while not watched.state.raised and rows < 3 * within:
            look(watched, rng, step, shift)
            rows += step
        assert set(watched.state.raised) <= {"x[7]"}
        found.append(rows if watched.state.raised else 10**9)
    assert np.median(found) <= within, found


def test_without_drift_alarms_keep_to_their_budget(reference: Reference) -> None:
    """150 windows of 50 to 5,000 rows, 50 features: no alarm at a budget of 90 days; and at a level that chance does
    reach, fewer than promised. A limit of 0.1 on the stability index would have alarmed again and again."""
    rng = np.random.default_rng(3)
    watched = Watched(reference, Policy(FEATURES))
    over = 0
    for _ in range(150):
        look(watched, rng, int(rng.integers(50, 5001)))
        over += sum(one.log_evidence >= LEVEL for one in watched.findings[-1].features)
    assert watched.state.alarms == 0
    assert over <= 150 * FEATURES * np.exp(-LEVEL)


def test_an_alarm_is_raised_once_and_cleared_by_evidence_alone(reference: Reference) -> None:
    """More of the drift raises nothing anew, silence clears nothing, and rows of the reference do in the end; what
    drifts again is raised again."""
    rng = np.random.default_rng(4)
    watched = Watched(reference, Policy(FEATURES))
    look(watched, rng, 500)
    for _ in range(8):
        look(watched, rng, 500, shift=1.0)
    assert [finding.raised for finding in watched.findings if finding.raised] == [("x[7]",)]
    for _ in range(50):
        watched.look(np.zeros(reference.plan.size, np.int64))
    assert not any(finding.cleared for finding in watched.findings)
    for _ in range(10):
        look(watched, rng, 200)
    assert [finding.cleared for finding in watched.findings if finding.cleared] == [("x[7]",)]
    assert not watched.state.raised
    look(watched, rng, 1000, shift=1.0)
    assert watched.findings[-1].raised == ("x[7]",)
    assert watched.state.alarms == 2


def test_another_drift_is_no_return(reference: Reference) -> None:
    """What moves on to somewhere else is more like the reference than the drift was, and still is not the reference."""
    rng = np.random.default_rng(4)
    watched = Watched(reference, Policy(FEATURES))
    look(watched, rng, 500, shift=2.0)
    for _ in range(10):
        look(watched, rng, 500, shift=0.6)
    assert set(watched.state.raised) == {"x[7]"}
    assert not any(finding.cleared for finding in watched.findings)


def test_a_proved_difference_that_does_not_matter_raises_nothing(reference: Reference) -> None:
    """With so many rows any two days differ: 0.2 deviations where 0.4 matters is shown as minor. What matters may
    differ by feature."""
    rng = np.random.default_rng(6)
    lax = Watched(reference, Policy(FEATURES, least_effect=0.4))
    strict = Watched(reference, Policy(FEATURES, least_effect=0.4, least_by_feature={"x[7]": 0.05}))
    for _ in range(3):
        state = rng.bit_generator.state
        look(lax, rng, 5000, shift=0.2)
        rng.bit_generator.state = state
        look(strict, rng, 5000, shift=0.2)
    assert [one.state for one in lax.findings[-1].features if one.name == "x[7]"] == ["minor"]
    assert not lax.state.raised
    assert set(strict.state.raised) == {"x[7]"}


def test_no_rows_are_neither_drift_nor_health(reference: Reference) -> None:
    """A version that nobody asks has no data; a handful of rows raises nothing, however odd they are."""
    watched = Watched(reference, Policy(FEATURES))
    finding = watched.look(np.zeros(reference.plan.size, np.int64))
    assert {one.state for one in finding.features} == {"no-data"}
    finding = watched.look(counted(reference.plan, {"x": np.full((4, FEATURES), 50.0)}))
    assert not finding.raised


def test_a_budget_is_divided_over_tests_and_starts() -> None:
    """Fifty features in ninety days: 13.4 nats; looks cost nothing, so how often one looks does not stand in it."""
    assert Policy(50).threshold == pytest.approx(13.38, abs=0.01)
    assert Policy(1, budget_days=90).threshold == pytest.approx(np.log(bets_in(90)))


def test_starts_are_few_however_long_one_watches() -> None:
    """As many for each doubling of age; what was dropped never comes back; a clock that jumps opens one bet at most."""
    now = np.array([0], np.int64)
    starts, before = Starts.begin(now, 0.0), set[int]()
    for number in range(1, 3000):
        starts = starts.counted(now + number).opened_anew(number * START_S, 10**9)
        assert not (before - {number - 1}) < set(starts.serials) - before - {number, number - 1}
        before = set(starts.serials)
    assert len(starts.serials) < 60
    assert starts.serials[-1] == 2999
    assert all(stays(number, 2999) for number in starts.serials)
    back = starts.counted(now + 5000).opened_anew(-1e9, 10**9)
    assert back.opened == starts.opened + 1
    assert back.counted(now + 5001).opened_anew(-1e9 + 1, 10**9).opened == back.opened


def test_a_belief_outlives_its_watcher_to_the_last_bit(reference: Reference) -> None:
    """Written and read again it judges as if nothing had happened; bytes of something else are none."""
    rng = np.random.default_rng(8)
    watched = Watched(reference, Policy(FEATURES))
    for shift in (0.0, 1.0, 0.0):
        look(watched, rng, 400, shift)
    belief = Belief(watched.state, seen=1200, looked_at=5.0)
    octets = to_bytes(belief)
    again = from_bytes(octets, reference.plan.size)
    assert again is not None
    assert to_bytes(again) == octets
    twin = Watched(reference, Policy(FEATURES))
    twin.state, twin.total, twin.at = again.state, watched.total, watched.at
    counts = counted(reference.plan, {"x": rng.standard_normal((300, FEATURES))})
    assert twin.look(counts) == watched.look(counts)
    assert isinstance(twin.state, State)
    for other in (b"", b"{}", b"null", b'{"schema": 99}', octets[:-20], b"\xff" * 50):
        assert from_bytes(other, reference.plan.size) is None
    assert from_bytes(to_bytes(belief), reference.plan.size + 1) is None


def test_a_thousand_features_that_move_at_once_are_kept_in_little() -> None:
    """One window raised all of them, and is kept once."""
    rng = np.random.default_rng(8)
    reference = reference_of({"x": rng.standard_normal((2000, 300))})
    watched = Watched(reference, Policy(300))
    watched.look(counted(reference.plan, {"x": rng.standard_normal((200, 300))}))
    before = len(to_bytes(Belief(watched.state)))
    watched.look(counted(reference.plan, {"x": rng.standard_normal((200, 300)) + 2.0}))
    assert len(watched.state.raised) >= 300
    octets = to_bytes(Belief(watched.state))
    assert len(octets) < 4 * before + 300 * 400
    again = from_bytes(octets, reference.plan.size)
    assert again is not None
    assert len({id(one.counts) for one in again.state.raised.values()}) == 1
