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

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.cells import Counts, Floats
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.sizes import feature_effect
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
_PRECISION = (MODEL, WORLD, ROUTING, DATA_PIPELINE)
"""The model is blamed for want of inputs that moved: those may be proved later than the answers that follow them."""

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
        watched = "input" in reference.sides
        return Blame(MODEL, "answers moved and inputs did not" if watched else "answers moved; no input is watched")
    place = next((i for i, feature in enumerate(reference.plan.features) if feature.name == name), None)
    mistake = None if place is None else _mistake(reference, window, place)
    if mistake is not None:
        return Blame(DATA_PIPELINE, mistake)
    if name in arms_differ or (place is None and arms_differ):
        return Blame(ROUTING, f"the versions of the route do not get the same inputs ({_listed(arms_differ)})")
    if place is None:
        return Blame(WORLD, "the inputs together have moved, as no single one of them shows")
    return Blame(WORLD, _moved(reference, window, place))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _moved(reference: Reference, window: Counts, place: int) -> str:
    live, known = _columns(reference, window).one(place), _columns(reference, reference.counts).one(place)
    ordered = reference.plan.features[place].kind == "numeric" and known.deviation > 0.0
    shift = (live.mean - known.mean) / known.deviation if ordered and math.isfinite(live.mean) else 0.0
    if abs(shift) < max(0.01, 0.5 * feature_effect(reference, window, place)):
        return "its values are distributed otherwise than in the reference"
    return f"its values are {abs(shift):.2g} standard deviations {'higher' if shift > 0 else 'lower'}"


def _mistake(reference: Reference, window: Counts, place: int) -> str | None:
    feature, rows = reference.plan.features[place], int(window[0])
    if rows <= 0:
        return None
    effect = feature_effect(reference, window, place)
    missing, known = (int(counts[feature.missing]) / max(1, int(counts[0])) for counts in (window, reference.counts))
    if _angle(missing, known) >= _MOST_OF_IT * effect > 0:
        return f"{missing:.1%} of its values are missing, {known:.1%} in the reference"
    unseen, expected = int(window[feature.unseen]) / rows, _unseen(reference, place)
    if _angle(unseen, expected) >= _MOST_OF_IT * effect > 0:
        usual = f", where {expected:.1%} would be usual" if expected else ""
        return f"{unseen:.1%} of its values are ones that the reference never had{usual}"
    if feature.kind == "text" or rows < 2:
        return None
    live, then = _columns(reference, window), _columns(reference, reference.counts)
    other = _swapped_with(reference, live, then, place)
    if other is not None:
        return f"its values look like those of {other}, and the other way round: the two columns have changed places"
    return _scaled(live.one(place), then.one(place), rows) or _outside(
        feature, window, live.one(place), then.one(place)
    )


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


@dataclass(frozen=True, slots=True)
class _Moments:
    """In the feature's own units. ``held``: so far off that its sums were cut short."""

    mean: float
    deviation: float
    held: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Moments of all features; infinite where there are none. ``reach``: how far off a value is no longer told
    apart."""

    rows: int
    center: Floats
    mean: Floats
    deviation: Floats
    held: NDArray[np.bool_]
    reach: Floats

    def one(self, place: int) -> _Moments:
        return _Moments(float(self.mean[place]), float(self.deviation[place]), bool(self.held[place]))


def _columns(reference: Reference, counts: Counts) -> _Columns:
    missing, totals, squares = reference.cells.sums_of
    center, scale = reference.cells.units
    rows = (counts[0] - counts[missing]).astype(np.float64)
    told = (rows > 0) & (scale > 0)
    rows, units = np.where(told, rows, 1.0), np.where(told, scale, 1.0)
    mean, square = counts[totals] / rows, counts[squares] / rows
    deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
    held = told & (np.sqrt(square) / FEATURE_SIGMA >= 0.5 * _HELD)
    return _Columns(
        int(counts[0]),
        center,
        np.where(told, center + mean / units, np.inf),
        np.where(told, deviation / units, np.inf),
        held,
        0.4 * _HELD * FEATURE_SIGMA / units,
    )


def _scaled(live: _Moments, known: _Moments, rows: int) -> str | None:
    """Every value multiplied by one factor: mean and deviation both are."""
    if not (math.isfinite(live.mean) and math.isfinite(known.mean)) or known.deviation <= 0.0:
        return None
    if live.held:
        least = abs(live.mean) / max(abs(known.mean), known.deviation)
        return f"its values are {least:,.0f} times as large or more: another unit, or a scale that is not applied"
    factor = live.deviation / known.deviation
    if live.deviation == 0.0:
        return "all its values are the same: the column stands still"
    if not (factor >= _LEAST_FACTOR or factor <= 1 / _LEAST_FACTOR):
        return None
    noise = 3.0 * live.deviation / math.sqrt(max(1, rows))
    told_by_mean = abs(known.mean) >= 2.0 * known.deviation
    agrees = abs(live.mean - factor * known.mean) <= _FACTOR_AGREES * abs(factor * known.mean) + noise
    if agrees and (told_by_mean or factor >= 5.0 or factor <= 0.2):
        return f"its values are about {factor:.3g} times those of the reference: another unit, or a scale not applied"
    return None


def _outside(feature: Feature, window: Counts, live: _Moments, known: _Moments) -> str | None:
    beyond = int(window[feature.low] + window[feature.high]) / max(1, int(window[0]))
    if beyond >= _MOSTLY_BEYOND:
        return f"{beyond:.0%} of its values lie outside all of the reference"
    off = abs(live.mean - known.mean) / known.deviation if known.deviation > 0.0 else 0.0
    if math.isfinite(off) and off >= _FAR:
        return f"its mean is {off:.0f} standard deviations off"
    return None


def _swapped_with(reference: Reference, live: _Columns, known: _Columns, place: int) -> str | None:
    """The column whose values this one has, and which has this one's; of several the one that fits best."""
    away = _misfits(live, known)
    if not away[place] > 2 * _MATCH:
        return None
    there = _misfits(live, known, live_at=place)
    here = _misfits(live, known, known_at=place)
    fit = np.maximum(there, here)
    others = np.array([feature.side == "input" and feature.kind != "text" for feature in reference.plan.features])
    fits = others & (fit <= _MATCH) & (away > 2 * _MATCH)
    fits[place] = False
    if not fits.any():
        return None
    return reference.plan.features[int(np.where(fits, there + here, np.inf).argmin())].name


def _misfits(live: _Columns, known: _Columns, live_at: int | None = None, known_at: int | None = None) -> Floats:
    """How far the live values of columns are from the reference values of columns: in their standard deviations, and
    the logarithm of the ratio of deviations. ``live_at``, ``known_at``: of this one, beside every other. Values that
    were cut short fit whatever lies that far off."""
    now, then = slice(None) if live_at is None else live_at, slice(None) if known_at is None else known_at
    noise = 2.0 / math.sqrt(max(1, live.rows))
    with np.errstate(all="ignore"):
        off = np.abs(live.mean[now] - known.mean[then]) / known.deviation[then]
        wider = np.abs(np.log(live.deviation[now] / known.deviation[then]))
        found = np.maximum(0.0, np.maximum(off, wider) - noise)
        far = np.abs(known.mean[then] - live.center[now]) >= live.reach[now]
        found = np.where(live.held[now], np.where(far, 0.0, np.inf), found)
        return np.asarray(np.where(np.isfinite(found) & (known.deviation[then] > 0.0), found, np.inf))
