"""Whose fault a drift is: the world's, the routing's, the model's, or that of the data on their way here.

* **data-pipeline**: the change has the form of a mistake. More values are missing; a value that the reference never
  had; every number multiplied; two columns that have changed places; a column that stands still; numbers far outside.
* **routing**: the versions of a route are not given the same inputs, though chance alone decides who gets what.
* **model**: what a version answers has moved and what it is given has not.
* **world**: inputs have moved, for all versions alike, in no form that a mistake has.

Pure: sizes in, a blame for each alarm out. An alarm's blame may become more precise as rows come, and never less so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.sizes import FeatureSize, feature_sizes
from runtimes.counting import FEATURE_MOST, FEATURE_SIGMA, Feature

__all__ = ["ADVICE", "DATA_PIPELINE", "MODEL", "ROUTING", "WORLD", "Blame", "blame_of", "more_precise"]

DATA_PIPELINE, ROUTING, MODEL, WORLD = "data-pipeline", "routing", "model", "world"

ADVICE: Mapping[str, str] = {
    DATA_PIPELINE: "Look at what feeds this column: a release, a schema or a source that changed about then. Neither "
    "retrain nor roll back before the data are sound: the model is right for data that it is not being given",
    ROUTING: "Look at what decides who gets which version: rules, pins, keys, a cache or a proxy before the gateway. "
    "Pause the rollout: until then no comparison of the versions is worth anything",
    MODEL: "Look at the version, not at its inputs: its environment, an input that is not watched, inputs that moved "
    "together. Compare it with the known good on the same rows (a shadow), and go back if that one answers as before",
    WORLD: "Look at how well the model does on the new inputs as soon as labels come, and retrain with them if it does "
    "worse. Going back to another version that learned from the old inputs will not help",
}
_PRECISION = (WORLD, MODEL, ROUTING, DATA_PIPELINE)

_MOST_OF_IT = 0.7
_FACTOR_AGREES = 0.15
_LEAST_FACTOR = 1.4
_FAR = 6.0
_MOSTLY_BEYOND = 0.3
_MATCH = 0.25
_HELD = 0.98 * FEATURE_MOST / FEATURE_SIGMA


@dataclass(frozen=True, slots=True)
class Blame:
    """``cause`` says in words what the change looks like; ``advice`` what to do."""

    blame: str
    cause: str

    @property
    def advice(self) -> str:
        return ADVICE[self.blame]


def more_precise(one: Blame | None, other: Blame) -> Blame:
    """The one that says more; the first of two that say as much."""
    if one is None or _PRECISION.index(other.blame) > _PRECISION.index(one.blame):
        return other
    return one


def blame_of(
    reference: Reference,
    window: Counts,
    name: str,
    *,
    arms_differ: Sequence[str] = (),
    inputs_moved: Sequence[str] = (),
) -> Blame:
    """Of the alarm of one feature or block, raised by ``window``. ``arms_differ``: inputs that the route's versions do
    not get alike; ``inputs_moved``: of this version, from its reference."""
    side = dict(zip(reference.names, reference.sides, strict=True))[name]
    if side == "output":
        if inputs_moved:
            return Blame(WORLD, f"answers moved with the inputs ({_listed(inputs_moved)})")
        return Blame(MODEL, "answers moved and inputs did not")
    place = next((i for i, feature in enumerate(reference.plan.features) if feature.name == name), None)
    mistake = None if place is None else _mistake(reference, window, place)
    if mistake is not None:
        return Blame(DATA_PIPELINE, mistake)
    if arms_differ:
        return Blame(ROUTING, f"the versions of the route do not get the same inputs ({_listed(arms_differ)})")
    if place is None:
        return Blame(WORLD, "the inputs together have moved, as no single one of them shows")
    return Blame(WORLD, _moved(feature_sizes(reference, window, [place])[0]))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _moved(size: FeatureSize) -> str:
    if size.shift is None or abs(size.shift) < 0.5 * size.effect.value:
        return "its values are distributed otherwise than in the reference"
    return f"its values are {abs(size.shift):.2g} standard deviations {'higher' if size.shift > 0 else 'lower'}"


def _mistake(reference: Reference, window: Counts, place: int) -> str | None:
    size = feature_sizes(reference, window, [place])[0]
    if _angle(size.missing, size.missing_reference) >= _MOST_OF_IT * size.effect.value and size.effect.value > 0:
        return f"{size.missing:.1%} of its values are missing, {size.missing_reference:.1%} in the reference"
    if _angle(size.unseen, 0.0) >= _MOST_OF_IT * size.effect.value > 0:
        return f"{size.unseen:.1%} of its values are ones that the reference never had"
    feature = reference.plan.features[place]
    if feature.kind == "text" or size.rows < 2:
        return None
    other = _swapped_with(reference, window, place)
    if other is not None:
        return f"its values look like those of {other}, and the other way round: the two columns have changed places"
    return _scaled(feature, reference, window) or _outside(size)


def _angle(share: float, known: float) -> float:
    """As effects are measured, for one share."""
    if share <= known:
        return 0.0
    return 2.0 * (math.asin(math.sqrt(min(1.0, share))) - math.asin(math.sqrt(known)))


@dataclass(frozen=True, slots=True)
class _Moments:
    """In the feature's own units. ``held``: so far off that its sums were cut short."""

    mean: float
    deviation: float
    held: bool


def _moments(feature: Feature, counts: Counts) -> _Moments | None:
    rows = int(counts[0]) - int(counts[feature.missing])
    if rows <= 0 or feature.scale <= 0.0:
        return None
    mean = int(counts[feature.total]) / rows
    variance = max(0.0, int(counts[feature.square]) / rows - mean * mean)
    root_square = math.sqrt(int(counts[feature.square]) / rows) / FEATURE_SIGMA
    return _Moments(
        feature.center + mean / feature.scale, math.sqrt(variance) / feature.scale, root_square >= 0.5 * _HELD
    )


def _scaled(feature: Feature, reference: Reference, window: Counts) -> str | None:
    """Every value multiplied by one factor: mean and deviation both are."""
    live, known = _moments(feature, window), _moments(feature, reference.counts)
    if live is None or known is None or known.deviation <= 0.0:
        return None
    if live.held:
        least = abs(live.mean) / max(abs(known.mean), known.deviation)
        return f"its values are {least:,.0f} times as large or more: another unit, or a scale that is not applied"
    factor = live.deviation / known.deviation
    if live.deviation == 0.0:
        return "all its values are the same: the column stands still"
    if not (factor >= _LEAST_FACTOR or factor <= 1 / _LEAST_FACTOR):
        return None
    noise = 3.0 * live.deviation / math.sqrt(max(1, int(window[0])))
    told_by_mean = abs(known.mean) >= 2.0 * known.deviation
    agrees = abs(live.mean - factor * known.mean) <= _FACTOR_AGREES * abs(factor * known.mean) + noise
    if (told_by_mean and agrees) or (agrees and (factor >= 5.0 or factor <= 0.2)):
        return f"its values are about {factor:.3g} times those of the reference: another unit, or a scale not applied"
    return None


def _outside(size: FeatureSize) -> str | None:
    if size.beyond >= _MOSTLY_BEYOND:
        return f"{size.beyond:.0%} of its values lie outside all of the reference"
    if size.shift is not None and abs(size.shift) >= _FAR:
        return f"its mean is {abs(size.shift):.0f} standard deviations off"
    return None


def _swapped_with(reference: Reference, window: Counts, place: int) -> str | None:
    """The column whose values this one has, and which has this one's; of several the one that fits best."""
    features = reference.plan.features
    mine = features[place]
    found, best = None, math.inf
    own = _misfit(mine, window, mine, reference.counts)
    if own <= 2 * _MATCH:
        return None
    for other in features:
        if other.name == mine.name or other.side != "input" or other.kind == "text":
            continue
        there, here = _misfit(mine, window, other, reference.counts), _misfit(other, window, mine, reference.counts)
        away = _misfit(other, window, other, reference.counts) > 2 * _MATCH
        if max(there, here) <= _MATCH and there + here < best and away:
            found, best = other.name, there + here
    return found


def _misfit(live: Feature, window: Counts, like: Feature, known: Counts) -> float:
    """How far the live values of one column are from the reference values of another: in its standard deviations, and
    the logarithm of the ratio of deviations. Values that were cut short fit whatever lies that far off."""
    now, then = _moments(live, window), _moments(like, known)
    if now is None or then is None or then.deviation <= 0.0:
        return math.inf
    if now.held:
        beyond = abs(then.mean - live.center) * live.scale / FEATURE_SIGMA
        return 0.0 if beyond >= 0.4 * _HELD else math.inf
    noise = 2.0 / math.sqrt(max(1.0, float(window[0])))
    off = abs(now.mean - then.mean) / then.deviation
    if now.deviation <= 0.0:
        return math.inf
    return max(0.0, max(off, abs(math.log(now.deviation / then.deviation))) - noise)
