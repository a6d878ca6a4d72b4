"""What boards are drawn from: the few numbers of a version's drift that metrics show."""

from __future__ import annotations

import numpy as np

from gateway.messages import VersionRef
from gateway.telemetry.drift.figures import WHOLE, figures_of
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.looking import look_at_version
from gateway.telemetry.drift.sharing import Tally
from tests.telemetry.drift.scene import counted, reference_of


def test_while_an_alarm_stands_its_evidence_and_effect_are_shown() -> None:
    """Bets begin anew with an alarm: without this, a feature with an alarm would show as one that has not moved."""
    random = np.random.default_rng(3)
    reference = reference_of({"x": random.normal(size=(5_000, 3))})
    policy = Policy(tests=len(reference.names))
    counts = counted(reference.plan, {"x": random.normal(size=(2_000, 3)) + np.array([2.0, 0.0, 0.0])})
    begun = Belief.begin(Tally(0, np.zeros(reference.plan.size, np.int64)), 1e9)
    belief = look_at_version(reference, begun, Tally(2_000, counts), 1e9 + 60, policy=policy, arms_differ=())
    moved = reference.names[0]
    assert moved in belief.state.raised
    figures = figures_of(VersionRef("m", 1), reference, belief, policy, shown=5)
    assert figures.alarms[WHOLE] == figures.alarms[moved] == 1
    assert figures.scores[moved, "effect"] > 1.0
    assert figures.scores[WHOLE, "evidence"] > figures.scores[WHOLE, "threshold"]
