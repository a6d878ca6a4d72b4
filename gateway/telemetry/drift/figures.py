"""The few numbers of a version's drift that metrics show: of the whole, of the features that moved furthest, and of the
budget. Bounded, whatever the number of features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.messages import VersionRef
from gateway.telemetry.drift.blame import ADVICE
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import FeatureState, Policy, Raised, view
from gateway.telemetry.drift.keeping import Belief
from gateway.telemetry.drift.report import rates_of
from gateway.telemetry.drift.sizes import AgainstReference, feature_sizes
from gateway.telemetry.drift.wholes import whole_sizes

__all__ = ["WHOLE", "Figures", "figures_of"]

WHOLE = "all"
"""Stands for all features together: the largest effect and evidence of any, and whether any alarm stands."""

_ALARMS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """``scores`` by feature and statistic; ``alarms``: 1 or 0 by feature; ``blames``: how many of
    them by whose fault it is. Rates are false alarms in 90 days; ``raised``
    counts the alarms that there ever were, true ones too."""

    version: VersionRef
    seen: int
    counted: int
    promised: float
    simulated: float | None
    held_out: float | None
    raised: int
    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)
    alarms: Mapping[str, int] = field(default_factory=dict)
    blames: Mapping[str, int] = field(default_factory=dict)


def figures_of(version: VersionRef, reference: Reference, belief: Belief, policy: Policy, shown: int) -> Figures:
    """``shown``: of how many features."""
    states = view(belief.state, AgainstReference(reference), policy)
    rates = rates_of(belief, policy)
    standing = [one.name for one in states if one.state == "alarm"]
    furthest = sorted(states, key=lambda one: (one.state != "alarm", -one.log_evidence, one.name))
    blocks = set(reference.names[len(reference.plan.features) :])
    chosen = {one.name for one in [one for one in furthest if one.name not in blocks][:shown]} | blocks
    named = {one.name for one in furthest[: max(shown, min(len(standing), _ALARMS_SHOWN))]} | chosen
    return Figures(
        version=version,
        seen=belief.seen,
        counted=int(belief.state.starts.now[0]),
        promised=rates.promised,
        simulated=rates.simulated,
        held_out=rates.held_out,
        raised=belief.state.alarms,
        scores=dict(_scores(reference, belief, states, chosen)),
        blames={blame: sum(one.blame == blame for one in belief.blames.values()) for blame in ADVICE},
        alarms={WHOLE: int(bool(standing))} | {name: int(name in standing) for name in sorted(named)},
    )


def _scores(
    reference: Reference, belief: Belief, states: Sequence[FeatureState], chosen: set[str]
) -> Iterator[tuple[tuple[str, str], float]]:
    known = [_lasting(one, belief.state.raised.get(one.name)) for one in states if one.state != "no-data"]
    if known:
        yield (WHOLE, "effect"), max(one.effect.value for one in known)
        yield (WHOLE, "evidence"), max(one.log_evidence for one in known)
        yield (WHOLE, "threshold"), known[0].threshold
    windows, features = belief.state.starts.windows, len(reference.plan.features)
    places = {name: place for place, name in enumerate(reference.names)}
    for one in known:
        if one.name not in chosen:
            continue
        yield (one.name, "effect"), one.effect.value
        yield (one.name, "effect_low"), one.effect.low
        yield (one.name, "effect_high"), one.effect.high
        yield (one.name, "evidence"), one.log_evidence
        window, place = windows[one.window], places[one.name]
        if place < features:
            size = feature_sizes(reference, window, [place])[0]
            yield (one.name, "psi"), size.psi
            yield (one.name, "psi_expected"), size.psi_expected
            if size.wasserstein is not None:
                yield (one.name, "wasserstein"), size.wasserstein
        else:
            whole = whole_sizes(reference, window)[place - features]
            yield (one.name, "mean_shift"), whole.mean_shift.value
            yield (one.name, "mmd"), whole.mmd


def _lasting(one: FeatureState, standing: Raised | None) -> FeatureState:
    """While an alarm stands, evidence is that which raised it, and so is the effect until rows have come since: bets
    begin anew with an alarm, and a board would show nothing beside it."""
    if standing is None:
        return one
    effect = one.effect if one.rows else standing.effect
    return replace(one, effect=effect, log_evidence=max(one.log_evidence, standing.log_evidence))
