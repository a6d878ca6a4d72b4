"""Mean and deviation of every column, in its own units, and whether two columns have changed places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.cells import Counts, Floats
from gateway.telemetry.drift.evidence import Reference
from runtimes.counting import FEATURE_MOST, FEATURE_SIGMA

__all__ = ["Columns", "Moments", "columns", "swapped_with"]

_MATCH = 0.25
_HELD = 0.98 * FEATURE_MOST / FEATURE_SIGMA
_ROUNDED = 1.0 / 12.0
"""What rounding to whole units adds to a square: it counts when numbers come in thousandths of what they were."""


@dataclass(frozen=True, slots=True)
class Moments:
    """In the feature's own units. ``held``: so far off that its sums were cut short. ``unit``: the finest difference
    that is told."""

    mean: float
    deviation: float
    held: bool
    unit: float


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Moments of all features; infinite where there are none. ``reach``: how far off a value is no longer told
    apart."""

    rows: int
    center: Floats
    mean: Floats
    deviation: Floats
    held: NDArray[np.bool_]
    reach: Floats
    unit: Floats

    def one(self, place: int) -> Moments:
        return Moments(
            float(self.mean[place]), float(self.deviation[place]), bool(self.held[place]), float(self.unit[place])
        )


def columns(reference: Reference, counts: Counts) -> Columns:
    missing, totals, squares = reference.cells.sums_of
    center, scale = reference.cells.units
    rows = (counts[0] - counts[missing]).astype(np.float64)
    told = (rows > 0) & (scale > 0)
    rows, units = np.where(told, rows, 1.0), np.where(told, scale, 1.0)
    mean, square = counts[totals] / rows, counts[squares] / rows
    deviation = np.sqrt(np.maximum(square - mean * mean - _ROUNDED, 0.0))
    held = told & (np.sqrt(square) / FEATURE_SIGMA >= 0.5 * _HELD)
    return Columns(
        int(counts[0]),
        center,
        np.where(told, center + mean / units, np.inf),
        np.where(told, deviation / units, np.inf),
        held,
        0.4 * _HELD * FEATURE_SIGMA / units,
        1.0 / units,
    )


def swapped_with(reference: Reference, live: Columns, known: Columns, place: int) -> str | None:
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


def _misfits(live: Columns, known: Columns, live_at: int | None = None, known_at: int | None = None) -> Floats:
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
