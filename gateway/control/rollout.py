"""A rollout's steps from one route document to the next: pure, so that a plan can be tried on a recorded stream.

    preparing → shadowing → stepping … → baking → promoted
                     ↘ waiting (gate) · paused ↗   ↘ rolled-back · aborted

``advance`` is what a driver asks again and again: it goes on only when the step has had its time, its requests and its
streams' word that harm is excluded. *Not enough* neither goes on nor goes back; a split that does not split as its
weights say goes nowhere. Harm counts in every phase, also in a pause. The verbs below it are an operator's.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from gateway.control import transitions
from gateway.control.documents import RouteDocument
from gateway.control.rollout_facts import ACTOR, Facts, Finding, Kind, Move
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_state import Phase, Proof, RolloutState
from gateway.control.rollout_truth import check_truth
from gateway.control.rollout_weights import arms_at
from gateway.control.transitions import Catalogue
from gateway.errors import Conflict, Quarantined

__all__ = [
    "ACTOR",
    "Facts",
    "Finding",
    "Kind",
    "Move",
    "abort",
    "advance",
    "arms_at",
    "pause",
    "promote",
    "resume",
    "running",
    "start",
    "targets",
]


def running(document: RouteDocument) -> RolloutState:
    if document.status.rollout is None:
        raise Conflict("no rollout runs on this route; begin one with: turnout rollout ROUTE VERSION")
    return document.status.rollout


def start(
    document: RouteDocument, plan: PlanSpec, catalogue: Catalogue, *, name: str, by: str, at: float
) -> RouteDocument:
    """The candidate is loaded next; no request is answered by it yet. ``name``: unique for ever.

    Raises InvalidInput (no such version), Conflict, or Quarantined.
    """
    candidate, status = plan.candidate, document.status
    if status.rollout is not None:
        raise Conflict(f"a rollout runs already: {transitions.busy(status.rollout)}")
    catalogue.check("candidate", candidate)
    catalogue.check_target(document.spec.target, "candidate", candidate)
    if candidate in status.quarantined:
        why = status.quarantined[candidate].reason or "no reason given"
        raise Quarantined(
            f"candidate: version {candidate} is in quarantine on this route ({why}); lift it first: "
            f"turnout lift ROUTE {candidate}"
        )
    if candidate == status.known_good:
        raise Conflict(f"candidate: version {candidate} is the known good already; to return to it, roll back")
    before = {arm.version: arm.weight for arm in status.split if arm.weight}
    if not before.get(status.known_good):
        serving = ", ".join(map(str, before))
        raise Conflict(
            f"the known good {status.known_good} gets no traffic (the split has {serving}), so there is nothing to "
            "compare a candidate with; name as known_good what serves, or give the known good some weight"
        )
    check_truth(document.spec, plan)
    rollout = RolloutState(
        id=name,
        plan=plan,
        baseline=status.known_good,
        phase=Phase.PREPARING,
        by=by,
        started_at=at,
        entered_at=at,
        before=before,
    )
    rollout = rollout.moved(Phase.PREPARING, at=at, by=by)
    return transitions.turn(document, rollout, before)


def targets(document: RouteDocument) -> tuple[int, ...]:
    """Where a rollback may go, best first: the known good, which is what was proved or named last, then what was proved
    before it. Never the candidate, never what was rolled back itself, nothing that is not kept loaded."""
    status = document.status
    barred = set(status.quarantined) | ({status.rollout.candidate} if status.rollout else set())
    ordered = [status.known_good, *(proof.version for proof in reversed(status.proved))]
    kept = document.routable()
    return tuple(dict.fromkeys(version for version in ordered if version in kept and version not in barred))


def advance(document: RouteDocument, finding: Finding, facts: Facts, *, at: float) -> Move:
    """What is to be done now: wait, go on, pause, go back (the driver's way back is in force before it is stored, so
    the document is left to it), promote, abort."""
    rollout = running(document)
    if rollout.phase is Phase.PREPARING:
        return _prepared(document, rollout, facts, at)
    halted = _halted(document, rollout, finding, facts, at)
    if halted is not None:
        return halted
    waits = _missing(rollout, finding, facts)
    if waits:
        return Move(Kind.WAIT, document, waits=waits)
    if rollout.phase is Phase.STEPPING and rollout.plan.climb[rollout.step].gate == "manual":
        gated = rollout.moved(Phase.WAITING, at=at, by=ACTOR)
        return Move(Kind.GATE, _same_split(document, gated), "the step is done; its gate is manual")
    if facts.unconfirmed:
        return Move(Kind.WAIT, document, waits=(f"confirmation: {facts.unconfirmed}",), due=True)
    return _onward(document, rollout, at=at, by=ACTOR, finding=finding)


def _halted(document: RouteDocument, rollout: RolloutState, finding: Finding, facts: Facts, at: float) -> Move | None:
    """What stops a step, whatever else it has: harm first, also in a pause."""
    plan = rollout.plan
    if finding.harm and not rollout.harm:
        if plan.on_harm == "rollback":
            return Move(Kind.ROLL_BACK, document, finding.reason)
        return _paused(document, rollout, finding.reason, at=at, by=ACTOR, harm=finding.harm)
    if rollout.phase is Phase.PAUSED:
        return Move(Kind.WAIT, document, waits=(f"paused: {rollout.reason or 'no reason given'}",))
    if rollout.phase is Phase.WAITING:
        return Move(Kind.WAIT, document, waits=("an operator promotes (manual gate)",))
    if plan.on_silence == "pause" and facts.quiet_s >= plan.silence_s:
        return _paused(document, rollout, f"no request to judge it by for {facts.quiet_s:.0f} s", at=at, by=ACTOR)
    return None


def _prepared(document: RouteDocument, rollout: RolloutState, facts: Facts, at: float) -> Move:
    if facts.refused:
        reason = f"version {rollout.candidate} cannot serve here: {facts.refused}"
        return Move(Kind.ABORT, abort(document, by=ACTOR, at=at, reason=reason), reason)
    if not facts.ready:
        return Move(Kind.WAIT, document, waits=(f"version {rollout.candidate} is loaded and warm on every replica",))
    return _onward(document, rollout, at=at, by=ACTOR, finding=Finding())


def _missing(rollout: RolloutState, finding: Finding, facts: Facts) -> tuple[str, ...]:
    """What the step lacks, in words; nothing when it is done."""
    least_s, least_units, least_pairs = _least(rollout)
    required = rollout.plan.required
    if rollout.phase is Phase.SHADOWING:
        required = tuple(stream for stream in required if stream == "disagreement")
    waits = [] if facts.ready else [f"version {rollout.candidate} answers on every replica"]
    if finding.broken_split:
        waits.append(f"a split that splits as its weights say: {finding.broken_split}")
    if facts.drift:
        waits.append(f"the end of an alarm of drift ({facts.drift}), or an operator who promotes")
    if facts.elapsed_s < least_s:
        waits.append(f"{ceil(least_s - facts.elapsed_s)} s more")
    if facts.units < least_units:
        waits.append(f"{least_units - facts.units} more requests for version {rollout.candidate}")
    if facts.pairs < least_pairs:
        waits.append(f"{least_pairs - facts.pairs} more compared answers")
    lacking = [f"{stream}: {_lack(stream, rollout, finding)}" for stream in required if stream in finding.lacking]
    return (*waits, *lacking)


def _lack(stream: str, rollout: RolloutState, finding: Finding) -> str:
    """What has not come at all is said: nobody sees from "not enough" that nobody sends labels."""
    needed = finding.lacking[stream]
    if needed is not None:
        return f"not enough yet, about {needed} more"
    seen = finding.detail.get("streams", {}).get(stream, {}).get("candidate", {}).get("units")
    whose = f"of an answer of version {rollout.candidate}, or none of version {rollout.baseline}'s, has come"
    if seen == 0 and stream == "label":
        return f"no label {whose}"
    if seen == 0 and stream == "score" and rollout.plan.score is not None:
        scored = ", and its outputs must hold scores (truth.score)" if rollout.plan.score.of == "brier" else ""
        return f"no {rollout.plan.score.of} {whose}: it takes labels{scored}"
    return "not enough yet"


def _least(rollout: RolloutState) -> tuple[float, int, int]:
    """Seconds, requests and pairs that the present step needs at least."""
    plan = rollout.plan
    if rollout.phase is Phase.SHADOWING:
        return (0.0, 0, 0) if plan.shadow is None else (plan.shadow.min_s, 0, plan.shadow.min_pairs)
    if rollout.phase is Phase.BAKING:
        return (0.0, 0, 0) if plan.bake is None else (plan.bake.min_s, plan.bake.min_requests, 0)
    step = plan.climb[rollout.step]
    return step.min_s, step.min_requests, 0


def _onward(document: RouteDocument, rollout: RolloutState, *, at: float, by: str, finding: Finding) -> Move:
    """The step after this one."""
    plan = rollout.plan
    if rollout.phase is Phase.PREPARING and plan.shadow is not None and plan.shadow.first:
        fresh = rollout.moved(Phase.SHADOWING, at=at, by=by)
        return Move(Kind.STEP, _same_split(document, fresh), f"copies of {100 * plan.shadow.share:g}% of the requests")
    if rollout.phase is Phase.BAKING or (rollout.last_step and plan.bake is None):
        return _promoted(document, rollout, at=at, by=by, finding=finding)
    phase = Phase.BAKING if rollout.last_step else Phase.STEPPING
    fresh = rollout.moved(phase, at=at, by=by, step=rollout.step + 1)
    turned = transitions.turn(document, fresh, arms_at(rollout.before, rollout.candidate, fresh.percent))
    return Move(Kind.BAKE if phase is Phase.BAKING else Kind.STEP, turned, f"{fresh.percent:g}% of the split")


def _promoted(document: RouteDocument, rollout: RolloutState, *, at: float, by: str, finding: Finding) -> Move:
    """All of it; and the known good, if it has baked."""
    baked = rollout.phase is Phase.BAKING
    reason = "it went through its steps" + (" and its bake" if baked else "; without a bake the known good stays")
    ended = rollout.ended(Phase.PROMOTED, at=at, by=by, reason=reason)
    proof = Proof(rollout.candidate, at, by, rollout.id, finding.detail) if baked else None
    arms = {rollout.candidate: sum(arm.weight for arm in document.spec.split)}
    return Move(Kind.PROMOTE, transitions.settle(document, ended, arms, proof), reason)


def _paused(document: RouteDocument, rollout: RolloutState, reason: str, *, at: float, by: str, harm: str = "") -> Move:
    inside = rollout.active_phase
    fresh = rollout.moved(Phase.PAUSED, at=at, by=by, paused_in=inside, reason=reason, harm=harm)
    return Move(Kind.PAUSE, _same_split(document, fresh), reason)


def _same_split(document: RouteDocument, rollout: RolloutState) -> RouteDocument:
    return replace(document, status=replace(document.status, rollout=rollout))


# An operator's verbs


def promote(document: RouteDocument, finding: Finding, *, by: str, at: float, full: bool = False) -> RouteDocument:
    """The next step now, on the operator's word; ``full``: the bake at once; in the bake: its end.

    Raises Conflict while it is not loaded, paused, or its split is broken.
    """
    rollout = running(document)
    if rollout.phase is Phase.PREPARING:
        raise Conflict(f"version {rollout.candidate} is not loaded yet; promote it once it is")
    if rollout.phase is Phase.PAUSED:
        raise Conflict(f"the rollout is paused ({rollout.reason or 'no reason given'}); resume it first")
    if finding.broken_split:
        raise Conflict(f"the split does not split as its weights say ({finding.broken_split}); abort, and look into it")
    if full and rollout.phase is not Phase.BAKING:
        rollout = replace(rollout, step=len(rollout.plan.climb) - 1)
    return _onward(document, rollout, at=at, by=by, finding=finding).document


def pause(document: RouteDocument, *, by: str, at: float, reason: str = "") -> RouteDocument:
    """Weights stay as they are; harm still ends it as the plan says."""
    rollout = running(document)
    if rollout.phase is Phase.PAUSED:
        raise Conflict(f"the rollout is paused already: {rollout.reason or 'no reason given'}")
    return _paused(document, rollout, reason or f"by {by}", at=at, by=by).document


def resume(document: RouteDocument, *, by: str, at: float) -> RouteDocument:
    """Goes on where it was; the step's time begins anew. Conflict when it was paused for harm: evidence does not
    unhappen, and a new rollout begins with fresh evidence."""
    rollout = running(document)
    if rollout.phase is not Phase.PAUSED:
        raise Conflict(f"the rollout is not paused; it is {rollout.phase}")
    if rollout.harm:
        raise Conflict(
            f"the rollout is paused for harm ({rollout.reason}); abort it or roll back, then begin a new one"
        )
    phase = rollout.paused_in or Phase.STEPPING
    fresh = rollout.moved(phase, at=at, by=by, paused_in=None, reason="")
    return _same_split(document, fresh)


def abort(document: RouteDocument, *, by: str, at: float, reason: str = "") -> RouteDocument:
    """Back to the weights before the rollout, in any phase; the candidate is not quarantined."""
    ended = running(document).ended(Phase.ABORTED, at=at, by=by, reason=reason or f"by {by}")
    return transitions.settle(document, ended)
