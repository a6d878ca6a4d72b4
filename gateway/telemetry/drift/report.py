"""What is told of drift: a version's report, made of what is believed of it and nothing else, so that every replica
that reads the same counts writes the same report, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.blame import Blame
from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import Evidence, FeatureState, Policy, Raised, view
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.sizes import AgainstReference, FeatureSize, feature_sizes
from gateway.telemetry.drift.wholes import whole_sizes

__all__ = ["DAYS", "Rates", "arms_report", "rates_of", "version_report"]

DAYS = 90.0
"""Rates are told for as many days, whatever the budget."""

Json = dict[str, Any]


def version_report(reference: Reference, belief: Belief, policy: Policy) -> Json:
    """Every feature and block of one version, the furthest first. ``possible_effect``: the furthest that one which is
    quiet may be, for all its rows tell: silence of few rows is no health."""
    evidence = AgainstReference(reference)
    rows = _rows(reference, belief, evidence, policy)
    states = [row["state"] for row in rows]
    return {
        "state": _whole_state(states),
        "possible_effect": max((row["effect"]["high"] for row in rows if row["state"] == "quiet"), default=None),
        "rows": {
            "seen": belief.seen,
            "counted": int(belief.state.starts.now[0]),
            "sampling": _share(int(belief.state.starts.now[0]), belief.seen),
            "reference": reference.rows,
        },
        "looked_at": _when(belief.looked_at),
        "watched_since": _when(belief.state.began_at),
        "budget": budget_report(belief, policy),
        "features": [row for row in rows if row["kind"] == "feature"],
        "whole": [row for row in rows if row["kind"] == "block"],
    }


def arms_report(arms: Arms, belief: Belief, policy: Policy) -> Json:
    """How far apart the inputs of two versions are."""
    rows = [_told(state, belief, policy) | {"kind": "arms"} for state in view(belief.state, arms, policy)]
    rows.sort(key=_order)
    return {"state": _whole_state([row["state"] for row in rows]), "features": rows}


class Rates(NamedTuple):
    """Of false alarms in 90 days. ``promised`` by the proof; ``simulated`` with rows of a law that the reference leaves
    possible; ``held_out``: with the reference's own rows, as far as its parts differ. None where it is not known."""

    promised: float
    simulated: float | None
    held_out: float | None


def rates_of(belief: Belief, policy: Policy) -> Rates:
    promised, simulated, held_out = DAYS / policy.budget_days, belief.calibration, belief.held_out
    return Rates(
        promised,
        None if simulated is None else promised * min(1.0, simulated.ratio),
        None if held_out is None or not held_out.bets else promised * held_out.ratio * math.exp(-policy.correction),
    )


def budget_report(belief: Belief, policy: Policy) -> Json:
    """Rates as above, and what was observed: alarms there were, true ones too, for the time that was watched."""
    rates, calibration, held_out = rates_of(belief, policy), belief.calibration, belief.held_out
    watched_days = max(0.0, belief.looked_at - belief.state.began_at) / 86_400.0
    return {
        "days": policy.budget_days,
        "tests": policy.tests,
        "threshold_nats": policy.threshold,
        "least_effect": policy.least_effect,
        "promised_per_90_days": rates.promised,
        "simulated_per_90_days": rates.simulated,
        "simulated_bets": 0 if calibration is None else calibration.bets,
        "held_out_per_90_days": rates.held_out,
        "held_out_bets": 0 if held_out is None else held_out.bets,
        "parts_differ": held_out is not None and held_out.surprising,
        "correction_nats": policy.correction,
        "alarms": belief.state.alarms,
        "watched_days": watched_days,
    }


def _rows(reference: Reference, belief: Belief, evidence: Evidence, policy: Policy) -> list[Json]:
    features = len(reference.plan.features)
    states = view(belief.state, evidence, policy)
    seen = [_window(reference, belief, state) for state in states]
    sizes = _sizes(reference, seen[:features])
    found = []
    for place, state in enumerate(states):
        told = _told(state, belief, policy) | {"kind": "feature" if place < features else "block"}
        if place < features:
            told["statistics"] = sizes[place].to_json()
        else:
            told["statistics"] = whole_sizes(reference, seen[place][1])[place - features].to_json()
        found.append(told | {"side": reference.sides[place]})
    return sorted(found, key=_order)


def _window(reference: Reference, belief: Belief, state: FeatureState) -> tuple[str, Counts]:
    """What a feature's statistics are of, with a name: the window that raised its alarm, or the one looked at."""
    standing = belief.state.raised.get(state.name)
    if standing is not None:
        return f"raised {standing.at} {standing.rows}", standing.counts
    if state.window < 0:
        return "nothing", np.zeros(reference.plan.size, np.int64)
    starts = belief.state.starts
    return f"start {state.window}", starts.now - (starts.before[state.window] if starts.before is not None else 0)


def _sizes(reference: Reference, seen: Sequence[tuple[str, Counts]]) -> Mapping[int, FeatureSize]:
    """Features that were seen in one window are measured together: of a thousand, most are."""
    found: dict[int, FeatureSize] = {}
    for name in sorted({name for name, _ in seen}):
        places = [place for place, (other, _) in enumerate(seen) if other == name]
        found |= zip(places, feature_sizes(reference, seen[places[0]][1], places), strict=True)
    return found


def _told(state: FeatureState, belief: Belief, policy: Policy) -> Json:
    standing = belief.state.raised.get(state.name)
    blame = belief.blames.get(state.name)
    effect = state.effect if standing is None else standing.effect
    return {
        "feature": state.name,
        "state": state.state,
        "since": None if standing is None else _when(standing.at),
        "began_about": None if standing is None else _when(standing.began),
        "effect": {"value": effect.value, "low": effect.low, "high": min(effect.high, float(np.pi))},
        "least_effect": policy.least(state.name),
        "evidence_nats": _finite(state.log_evidence if standing is None else standing.log_evidence),
        "threshold_nats": state.threshold,
        "window": _seen_in(state, standing),
        **_blamed(blame),
    }


def _seen_in(state: FeatureState, standing: Raised | None) -> Mapping[str, Any]:
    """The rows that effect and evidence are of: while an alarm stands, those that raised it."""
    if standing is not None:
        return {"rows": standing.rows, "from": _when(standing.began)}
    return {"rows": state.rows, "from": None if state.window < 0 else _when(state.began)}


def _blamed(blame: Blame | None) -> Mapping[str, Any]:
    if blame is None:
        return {"blame": None, "cause": None, "advice": None}
    return {"blame": blame.blame, "cause": blame.cause, "advice": blame.advice}


_FIRST = ("alarm", "minor", "quiet", "no-data")


def _order(row: Json) -> tuple[int, float, str]:
    return _FIRST.index(row["state"]), -row["evidence_nats"], row["feature"]


def _whole_state(states: Sequence[str]) -> str:
    return next((state for state in _FIRST if state in states), "no-data")


def _share(counted: int, seen: int) -> float | None:
    return counted / seen if seen else None


def _finite(value: float) -> float:
    return max(-1e6, min(1e6, value))


def _when(seconds: float) -> str | None:
    return None if seconds <= 0 else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
