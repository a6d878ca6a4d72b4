"""One look at a version, or at two: what is believed and what was counted in, what is believed now out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.messages import VersionRef
from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.blame import ADVICE, DATA_PIPELINE, ROUTING, WORLD, Blame, blame_of, more_precise
from gateway.telemetry.drift.calibration import calibrate, measure_held_out
from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.given import Given
from gateway.telemetry.drift.judging import Finding, Policy, Raised, State, judge
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.sharing import Tally
from gateway.telemetry.drift.sizes import AgainstReference

__all__ = ["DriftAlarm", "alarms_of", "corrected", "look_at_arms", "look_at_version", "uncompared"]

_SUSPECT = 0.5
"""Of the threshold: inputs with so much evidence are not called like those of the reference."""
_NAMED = 10
_CHANCE = Given()


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """Of one version on a route, and one kind of blame, whatever the number of features: raised with the first of them,
    cleared with the last. ``numbers`` are the figures of the one that moved furthest; ``others`` the other routes that
    the version answers on. That two versions get different
    inputs is an alarm of the route, about the later one; a version's own features so blamed add none."""

    route: str
    version: VersionRef
    blame: str
    raised: bool
    features: tuple[str, ...]
    reason: str
    advice: str
    numbers: Mapping[str, float]
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"drift/{self.version}/{self.blame}"

    @property
    def broken_data(self) -> bool:
        return self.blame == DATA_PIPELINE


def look_at_version(
    reference: Reference, belief: Belief, tally: Tally, at: float, *, policy: Policy, arms_differ: Sequence[str]
) -> Belief:
    """``arms_differ``: inputs that the versions of the route are not given alike."""
    calibration = belief.calibration or calibrate(reference)
    held_out = belief.held_out or measure_held_out(reference)
    belief = replace(belief, calibration=calibration, held_out=held_out)
    bets = AgainstReference(reference)
    state, finding = judge(_met(belief, tally), bets, tally.counts, at, corrected(policy, belief))
    moved = _moved_inputs(reference, state, finding, policy)
    blames = dict(_blames(reference, state, moved, fresh=finding.raised, before=belief.blames, arms_differ=arms_differ))
    return _after(belief, state, blames, tally, at)


def corrected(policy: Policy, belief: Belief) -> Policy:
    """By what simulation on the reference has shown."""
    return policy if belief.calibration is None else replace(policy, correction=belief.calibration.correction)


def look_at_arms(arms: Arms, belief: Belief, tally: Tally, at: float, policy: Policy) -> Belief:
    """``tally`` holds the counts of the one arm, then those of the other."""
    state, _ = judge(_met(belief, tally), arms, tally.counts, at, policy)
    cause = "the versions of the route do not get the same inputs"
    return _after(belief, state, {name: Blame(ROUTING, cause) for name in state.raised}, tally, at)


def _after(belief: Belief, state: State, blames: Mapping[str, Blame], tally: Tally, at: float) -> Belief:
    groups = belief.groups | {blame.blame for blame in blames.values()}
    return replace(belief, state=state, blames=blames, groups=groups, seen=tally.seen, looked_at=at, lives=tally.lives)


def _met(belief: Belief, tally: Tally) -> State:
    """The state with its counts where the counters are now. Where those of a process are gone, nobody can tell which of
    the others' rows were judged already: none of them is judged again, but where all are gone, all that is there is
    new."""
    if belief.lives <= tally.lives:
        return belief.state
    anew = tally.counts if belief.lives & tally.lives else np.zeros_like(tally.counts)
    return replace(belief.state, starts=belief.state.starts.moved(anew))


def uncompared(route: str, version: VersionRef, why: str) -> DriftAlarm:
    """The end of what was said while the version could be compared."""
    return DriftAlarm(route, version, ROUTING, False, (), f"version {version} is no longer compared: {why}", "", {})


def _moved_inputs(reference: Reference, state: State, finding: Finding, policy: Policy) -> Mapping[str, float]:
    """Since when, by name. What is proved not to matter has not moved anything: with enough rows every input differs
    by a little, and no answer would ever be the model's fault."""
    sides = dict(zip(reference.names, reference.sides, strict=True))
    found = {}
    for one in finding.features:
        suspect = one.log_evidence >= _SUSPECT * one.threshold and one.effect.high >= policy.least(one.name)
        standing = state.raised.get(one.name)
        if sides[one.name] == "input" and (standing is not None or suspect):
            found[one.name] = one.began if standing is None else standing.began
    return found


def _blames(
    reference: Reference,
    state: State,
    moved: Mapping[str, float],
    *,
    fresh: Sequence[str],
    before: Mapping[str, Blame],
    arms_differ: Sequence[str],
) -> Iterator[tuple[str, Blame]]:
    """Of inputs, then of answers, which may follow them: those that had moved when the answers' alarm was raised."""
    sides = dict(zip(reference.names, reference.sides, strict=True))
    blocks = {block.name for block in reference.plan.blocks}
    found: dict[str, Blame] = {}
    for name, standing in sorted(
        state.raised.items(), key=lambda item: (sides[item[0]] == "output", item[0] in blocks)
    ):
        window, answers = _all_since(state, standing), sides[name] == "output"
        now = not answers or name in fresh
        earlier = [other for other, began in moved.items() if now or began < standing.at]
        blame = blame_of(reference, window, name, arms_differ=arms_differ, inputs_moved=earlier)
        if answers or name in blocks:
            blame = _followed(blame, {other: found[other] for other in earlier if other in found})
        found[name] = more_precise(before.get(name), blame)
        yield name, found[name]


def _followed(blame: Blame, inputs: Mapping[str, Blame]) -> Blame:
    """What moved with inputs that are broken, or that the versions are not given alike, is not the world's doing."""
    for kind in (DATA_PIPELINE, ROUTING):
        named = [name for name, one in inputs.items() if one.blame == kind]
        if named and blame.blame == WORLD:
            return Blame(kind, f"it moved with {', '.join(named[:3])}")
    return blame


def _all_since(state: State, standing: Raised) -> Counts:
    """What raised the alarm, and what came after it."""
    after = np.flatnonzero(np.array(state.starts.serials) >= standing.serial)
    if not len(after):
        return standing.counts
    windows = state.starts.windows[after]
    found: Counts = standing.counts + windows[int(windows[:, 0].argmax())]
    return found


def alarms_of(
    route: str, version: VersionRef, belief: Belief, *, beside: bool = False, fed_by: Given = _CHANCE
) -> Iterator[DriftAlarm]:
    """As they stand, one for each kind of blame that there ever was. ``beside``: believed of two versions."""
    known = "".join(f"; {words}" for words in fed_by.words)
    for group in sorted(belief.groups):
        if group == ROUTING and not beside:
            continue
        named = [name for name, blame in belief.blames.items() if blame.blame == group and name in belief.state.raised]
        if not named:
            reason = f"version {version}: what it sees and answers is as in its reference again"
            yield DriftAlarm(route, version, group, False, (), reason, "", {}, fed_by.routes)
            continue
        named.sort(key=lambda name: -belief.state.raised[name].effect.value)
        furthest = belief.state.raised[named[0]]
        more = f" (and {len(named) - 1} more: {', '.join(named[1:_NAMED])})" if len(named) > 1 else ""
        yield DriftAlarm(
            route,
            version,
            group,
            True,
            tuple(named),
            f"version {version}, {named[0]}: {belief.blames[named[0]].cause}{more}{known}",
            ADVICE[group],
            {
                "effect": furthest.effect.value,
                "effect_low": furthest.effect.low,
                "effect_high": furthest.effect.high,
                "rows": float(furthest.rows),
                "evidence_nats": min(furthest.log_evidence, 1e6),
            },
            fed_by.routes,
        )
