"""The rate of false alarms on rows of the reference that nothing was fitted to, beside the promised and the simulated
one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from gateway.cli.drift_command import sentence
from gateway.messages import VersionRef
from gateway.telemetry.drift.calibration import calibrate, measure_held_out
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.figures import figures_of
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.keeping import Belief, from_bytes, to_bytes
from gateway.telemetry.drift.looking import look_at_version
from gateway.telemetry.drift.report import version_report
from gateway.telemetry.drift.sharing import Tally
from gateway.telemetry.drift_families import DriftFamilies
from tests.telemetry.drift.scene import reference_of

Rows = np.ndarray


def shuffled(rows: Rows) -> Rows:
    return np.random.default_rng(1).permutation(rows)


def moving(rows: int, columns: int) -> Rows:
    """In order of time, half a deviation further at the end than at the beginning."""
    return np.random.default_rng(2).standard_normal((rows, columns)) + np.linspace(0.0, 0.5, rows)[:, None]


def believed(reference: Reference) -> tuple[Belief, Policy]:
    counts = np.zeros(reference.plan.size, np.int64)
    policy = Policy(len(reference.names))
    begun = Belief.begin(Tally(0, counts), 1e9)
    return look_at_version(reference, begun, Tally(0, counts), 1e9 + 60, policy=policy, arms_differ=()), policy


@pytest.mark.parametrize("data", [load_wine, load_breast_cancer, load_digits])
def test_rows_that_were_held_out_keep_the_promise_where_order_means_nothing(data: object) -> None:
    """Real data, shuffled: as few alarms as promised, or fewer; the same whenever it is measured."""
    reference = reference_of({"x": shuffled(data().data)})  # type: ignore[operator]
    found = measure_held_out(reference)
    assert found.bets > 50
    assert not found.surprising
    assert found == measure_held_out(reference)


def test_a_reference_whose_parts_differ_is_found_by_its_own_rows_and_by_no_simulation() -> None:
    """A simulation draws rows from one law. The reference has several, and live rows will as well."""
    reference = reference_of({"x": moving(8_000, 6)})
    assert not calibrate(reference).surprising
    found = measure_held_out(reference)
    assert found.surprising
    assert found.ratio > 5.0
    assert not measure_held_out(reference_of({"x": shuffled(moving(8_000, 6))})).surprising


def test_sorted_data_are_told_by_their_own_rows() -> None:
    """Wine comes sorted by its kind."""
    assert measure_held_out(reference_of({"x": load_wine().data})).surprising


def test_over_many_seeds_held_out_rows_raise_no_more_than_promised() -> None:
    """Of ten references without any structure: numbers, whole numbers and categories."""
    alarms, promised = 0, 0.0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = np.column_stack([rng.exponential(1.0, 3_000), rng.integers(0, 4, 3_000), rng.normal(0.0, 1.0, 3_000)])
        found = measure_held_out(reference_of({"x": rows}), seed=seed)
        alarms, promised = alarms + found.alarms, promised + found.promised
    assert promised > 5.0
    assert alarms <= promised


def test_promised_simulated_and_held_out_are_shown_each_by_its_name() -> None:
    """In the report, the command and the metrics; and that parts of the reference differ."""
    reference = reference_of({"x": moving(6_000, 4)})
    belief, policy = believed(reference)
    told = version_report(reference, belief, policy)
    budget = told["budget"]
    assert budget["promised_per_90_days"] == 1.0
    assert budget["simulated_per_90_days"] < 1.0 < budget["held_out_per_90_days"]
    assert budget["held_out_bets"] > 0
    assert budget["parts_differ"] is True
    line = sentence({"model": "m", "version": 1, **told})
    assert "simulated" in line
    assert "held out: parts of the reference differ" in line
    figures = figures_of(VersionRef("m", 1), reference, belief, policy, shown=5)
    families = {family.name: family for family in DriftFamilies(lambda: [figures], dict).collect()}
    kinds = {each.labels["kind"] for each in families["gateway_drift_false_alarms_per_90_days"].samples}
    assert kinds == {"promised", "simulated", "held-out"}


def test_a_profile_of_one_part_has_no_rate_of_its_own() -> None:
    """None is made up for it."""
    reference = replace(reference_of({"x": shuffled(load_wine().data)}), segments=())
    belief, policy = believed(reference)
    assert measure_held_out(reference).bets == 0
    assert version_report(reference, belief, policy)["budget"]["held_out_per_90_days"] is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("count", [-5, 10**12, 1])
def test_a_profile_whose_parts_are_none_of_it_is_judged_all_the_same(place: int, count: int) -> None:
    """It may come from a stranger's store: nothing is measured on it, and nothing fails or takes long."""
    sound = reference_of({"x": shuffled(load_wine().data)})
    spoilt = sound.segments[0].copy()
    spoilt[place] += count
    assert measure_held_out(replace(sound, segments=(spoilt, *sound.segments[1:]))).bets == 0


def test_a_large_reference_takes_no_longer_than_a_small_one() -> None:
    """As many looks, whatever the rows."""
    sound = reference_of({"x": shuffled(moving(4_000, 2))})
    large = Reference.of(sound.plan, sound.counts * 100_000, tuple(part * 100_000 for part in sound.segments))
    assert measure_held_out(large).bets <= 2 * 100


def test_what_was_measured_is_kept_and_is_measured_once_for_a_belief_of_the_release_before() -> None:
    reference = reference_of({"x": shuffled(load_wine().data)})
    belief, _ = believed(reference)
    kept = from_bytes(to_bytes(belief), reference.plan.size)
    assert kept is not None
    assert kept.held_out == belief.held_out
    body = json.loads(to_bytes(belief))
    del body["held_out"]
    older = from_bytes(json.dumps(body).encode(), reference.plan.size)
    assert older is not None
    assert older.held_out is None
    assert older.calibration == belief.calibration
