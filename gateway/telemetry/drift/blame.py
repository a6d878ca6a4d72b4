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
from gateway.telemetry.drift.columns import Columns, Moments, columns, swapped_with
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.sizes import feature_effect
from gateway.telemetry.drift.units import Rescaling, may_have_grown, rescaling
from runtimes.counting import Feature

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
_PRECISION = (MODEL, WORLD, ROUTING, DATA_PIPELINE)
"""The model is blamed for want of inputs that moved: those may be proved later than the answers that follow them."""

_MOST_OF_IT = 0.7
_FAR, _FAR_FOR_GROWTH = 6.0, 20.0
_MOSTLY_BEYOND = 0.3


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
        watched = "input" in reference.sides
        return Blame(MODEL, "answers moved and inputs did not" if watched else "answers moved; no input is watched")
    place = next((i for i, feature in enumerate(reference.plan.features) if feature.name == name), None)
    seen = None if place is None else _Seen.of(reference, window, place)
    mistake = None if seen is None else _mistake(reference, window, seen)
    if mistake is not None:
        return Blame(DATA_PIPELINE, mistake)
    if name in arms_differ or (place is None and arms_differ):
        return Blame(ROUTING, f"the versions of the route do not get the same inputs ({_listed(arms_differ)})")
    if seen is None:
        return Blame(WORLD, "the inputs together have moved, as no single one of them shows")
    return Blame(WORLD, _moved(reference, window, seen))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One feature of a window beside the reference."""

    place: int
    feature: Feature
    columns: Columns
    live: Moments
    known: Moments
    rescaling: Rescaling | None

    @classmethod
    def of(cls, reference: Reference, window: Counts, place: int) -> _Seen:
        feature = reference.plan.features[place]
        now, then = columns(reference, window), columns(reference, reference.counts)
        live, known = now.one(place), then.one(place)
        told = feature.kind != "text" and int(window[0]) >= 2
        found = rescaling(feature, window, reference.counts, live, known) if told else None
        return cls(place, feature, now, live, known, found)


def _moved(reference: Reference, window: Counts, seen: _Seen) -> str:
    if seen.rescaling is not None:
        return seen.rescaling.cause
    live, known = seen.live, seen.known
    ordered = seen.feature.kind == "numeric" and known.deviation > 0.0
    shift = (live.mean - known.mean) / known.deviation if ordered and math.isfinite(live.mean) else 0.0
    if abs(shift) < max(0.01, 0.5 * feature_effect(reference, window, seen.place)):
        return "its values are distributed otherwise than in the reference"
    return f"its values are {abs(shift):.2g} standard deviations {'higher' if shift > 0 else 'lower'}"


def _mistake(reference: Reference, window: Counts, seen: _Seen) -> str | None:
    rows = int(window[0])
    if rows <= 0:
        return None
    strange = _strange(reference, window, seen)
    if strange is not None or seen.feature.kind == "text" or rows < 2:
        return strange
    other = swapped_with(reference, seen.columns, columns(reference, reference.counts), seen.place)
    if other is not None:
        return f"its values look like those of {other}, and the other way round: the two columns have changed places"
    if seen.rescaling is not None and seen.rescaling.unit:
        return seen.rescaling.cause
    return _outside(seen.feature, window, seen.live, seen.known)


def _strange(reference: Reference, window: Counts, seen: _Seen) -> str | None:
    """Values that are none, or that never were."""
    feature, rows = seen.feature, int(window[0])
    effect = feature_effect(reference, window, seen.place)
    missing, known = (int(counts[feature.missing]) / max(1, int(counts[0])) for counts in (window, reference.counts))
    if _angle(missing, known) >= _MOST_OF_IT * effect > 0:
        return f"{missing:.1%} of its values are missing, {known:.1%} in the reference"
    unseen, expected = int(window[feature.unseen]) / rows, _unseen(reference, seen.place)
    if _angle(unseen, expected) >= _MOST_OF_IT * effect > 0:
        usual = f", where {expected:.1%} would be usual" if expected else ""
        return f"{unseen:.1%} of its values are ones that the reference never had{usual}"
    return None


def _unseen(reference: Reference, place: int) -> float:
    """The share of new values that the reference lets one expect."""
    if reference.plan.features[place].kind == "numeric":
        return 0.0
    cells = reference.cell_counts[reference.cells.slice(place)]
    return int(cells[-2]) / max(1, int(cells.sum()))


def _angle(share: float, known: float) -> float:
    """As effects are measured, for one share."""
    if share <= known:
        return 0.0
    return 2.0 * (math.asin(math.sqrt(min(1.0, share))) - math.asin(math.sqrt(known)))


def _outside(feature: Feature, window: Counts, live: Moments, known: Moments) -> str | None:
    grown = may_have_grown(feature, live, known)
    beyond = int(window[feature.low] + window[feature.high]) / max(1, int(window[0]))
    if beyond >= _MOSTLY_BEYOND and not grown:
        return f"{beyond:.0%} of its values lie outside all of the reference"
    off = abs(live.mean - known.mean) / known.deviation if known.deviation > 0.0 else 0.0
    if math.isfinite(off) and off >= (_FAR_FOR_GROWTH if grown else _FAR):
        return f"its mean is {off:.0f} standard deviations off"
    return None
