"""How large a difference is, beside what chance alone makes of it: per feature, of one window.

* **effect** is the angle between the shares of the two, ``2 arccos(sum sqrt(p q))`` (Fisher-Rao): for a shifted normal
  it is the shift in standard deviations, it is bounded by pi, and it needs no rows in every cell. Its square is,
  without drift, chi-square times ``1/n + 1/m``, so the part that chance makes is taken off and an interval follows.
* **g** is the two-sample G-test on the cells, with its degrees of freedom and p-value (of this one look: what alarms is
  ``evidence``, which holds at any number of looks).
* **psi** stands beside ``(bins - 1)(1/n + 1/m)``, what it is without drift: 0.1 at 100 rows and ten bins.
* **wasserstein** and **shift** are in standard deviations of the reference, from bin edges and from sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.cells import Cells, Counts, Floats
from gateway.telemetry.drift.distributions import chi_square_tail, effect_bounds
from gateway.telemetry.drift.evidence import Reference
from runtimes.counting import FEATURE_SIGMA, Feature

__all__ = [
    "AgainstReference",
    "Effect",
    "FeatureSize",
    "angles",
    "effects",
    "feature_effect",
    "feature_sizes",
    "plain",
    "wave_effect",
]

_BOUND = 1.96


@dataclass(frozen=True, slots=True)
class Effect:
    """With its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FeatureSize:
    """Shares are of the window's rows: ``missing``, ``beyond`` all of the reference, ``unseen`` in it; each with the
    reference's own where that can be more than 0. ``wasserstein`` and ``shift`` are None for what has no order."""

    feature: str
    side: str
    rows: int
    effect: Effect
    g: float
    degrees: int
    p_value: float
    psi: float
    psi_expected: float
    wasserstein: float | None
    shift: float | None
    spread: float | None
    missing: float
    missing_reference: float
    beyond: float
    unseen: float

    def to_json(self) -> dict[str, Any]:
        return {name: plain(value) for name, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """What JSON can hold: infinity is what no rows say."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def effects(reference: Reference, windows: Counts, chosen: NDArray[np.intp]) -> list[Effect]:
    """Of each feature and block, in the window (of windows (s, size)) that ``chosen`` names for it."""
    cells, features = reference.cells, len(reference.plan.features)
    live = cells.count(windows)[cells.spread(chosen[:features]), np.arange(cells.size)].astype(np.float64)
    bounds = _angles(reference, live, windows[chosen[:features], 0].astype(np.float64))
    found = [Effect(*(float(part[place]) for part in bounds)) for place in range(features)]
    blocks = enumerate(chosen[features:])
    return [*found, *(wave_effect(reference, windows[window], index) for index, window in blocks)]


def _angles(reference: Reference, live: Floats, n: Floats) -> tuple[Floats, Floats, Floats]:
    """Estimates and bounds, of cells' counts and rows by feature."""
    known = reference.cell_counts.astype(np.float64)
    return angles(reference.cells, live, known, n, reference.cells.sums(known))


def angles(cells: Cells, one: Floats, other: Floats, n: Floats, m: Floats) -> tuple[Floats, Floats, Floats]:
    """Effects by feature between the counts of two samples (cells) of n and m rows (features), with their bounds."""
    none = (n <= 0) | (m <= 0)
    n, m = np.maximum(n, 1.0), np.maximum(m, 1.0)
    squares = (2.0 * np.arccos(np.clip(cells.sums(np.sqrt(one * other)) / np.sqrt(n * m), 0.0, 1.0))) ** 2
    degrees = np.maximum(cells.sums(((one + other) > 0).astype(np.float64)) - 1.0, 0.0)
    weight = n * m / (n + m)
    low, high = effect_bounds(squares, degrees, weight, _BOUND)
    value = np.sqrt(np.maximum(squares - degrees / weight, 0.0))
    nothing, same = none | (degrees < 1), degrees < 1
    return (
        np.where(nothing, 0.0, value),
        np.where(nothing, 0.0, low),
        np.where(none, math.pi, np.where(same, 0.0, np.minimum(high, math.pi))),
    )


def wave_effect(reference: Reference, window: Counts, index: int) -> Effect:
    """A wave's mean errs no more than a coin's: the bounds hold, and are wider than they need be."""
    rows = int(window[0])
    if rows <= 0 or reference.rows <= 0:
        return Effect(0.0, 0.0, math.pi)
    known, live = reference.wave_shares(reference.counts, index), reference.wave_shares(window, index)
    angles = 2.0 * (np.arcsin(np.sqrt(np.clip(live, 0, 1))) - np.arcsin(np.sqrt(np.clip(known, 0, 1))))
    noise = 1.0 / rows + 1.0 / reference.rows
    square = float((angles * angles).mean())
    width = _BOUND * math.sqrt(noise)
    return Effect(
        math.sqrt(max(0.0, square - noise)),
        max(0.0, math.sqrt(square) - width),
        min(math.pi, math.sqrt(square) + width),
    )


def feature_sizes(reference: Reference, window: Counts, chosen: Sequence[int] | None = None) -> list[FeatureSize]:
    """Of one window (size,), for the features of these places (None: all)."""
    live = reference.cells.count(window)
    rows = np.full(len(reference.plan.features), float(window[0]))
    values, lows, highs = _angles(reference, live.astype(np.float64), rows)
    places = range(len(reference.plan.features)) if chosen is None else chosen
    bounds = [Effect(float(values[i]), float(lows[i]), float(highs[i])) for i in places]
    return [_feature_size(reference, window, live, i, bound) for i, bound in zip(places, bounds, strict=True)]


def feature_effect(reference: Reference, window: Counts, index: int) -> float:
    """The estimate alone, of one feature."""
    place = reference.cells.slice(index)
    c, r = reference.cells.count(window)[place], reference.cell_counts[place]
    n, m = max(1.0, float(c.sum())), max(1.0, float(r.sum()))
    overlap = min(1.0, float(np.sqrt(c * (r / (n * m))).sum()))
    degrees = max(0, int(((c + r) > 0).sum()) - 1)
    return math.sqrt(max(0.0, (2.0 * math.acos(overlap)) ** 2 - degrees * (1.0 / n + 1.0 / m)))


def _feature_size(reference: Reference, window: Counts, live: Counts, index: int, effect: Effect) -> FeatureSize:
    feature, place = reference.plan.features[index], reference.cells.slice(index)
    c, r = live[place].astype(np.float64), reference.cell_counts[place].astype(np.float64)
    n, m = float(c.sum()), float(r.sum())
    used = (c + r) > 0
    degrees = max(int(used.sum()) - 1, 0)
    g = _g(c[used], r[used]) if n and m else 0.0
    moments = _moments(feature, window), _moments(feature, reference.counts)
    ordered = feature.kind == "numeric"
    psi = _psi(feature, window, reference.counts)
    shift = (moments[0][0] - moments[1][0]) if ordered and n else None
    return FeatureSize(
        feature=feature.name,
        side=feature.side,
        rows=int(n),
        effect=effect,
        g=g,
        degrees=degrees,
        p_value=chi_square_tail(g, degrees),
        psi=psi[0],
        psi_expected=psi[1],
        wasserstein=None if shift is None else max(abs(shift), _wasserstein(reference, feature, window)),
        shift=shift,
        spread=moments[0][1] if ordered and n else None,
        missing=int(window[feature.missing]) / n if n else 0.0,
        missing_reference=int(reference.counts[feature.missing]) / m if m else 0.0,
        beyond=int(window[feature.low] + window[feature.high]) / n if n else 0.0,
        unseen=int(window[feature.unseen]) / n if n else 0.0,
    )


def _g(c: Floats, r: Floats) -> float:
    both, n, m = c + r, c.sum(), r.sum()
    found = 0.0
    for side, total in ((c, n), (r, m)):
        some = side > 0
        found += float((side[some] * np.log(side[some] * (n + m) / (total * both[some]))).sum())
    return max(0.0, 2.0 * found)


def _psi(feature: Feature, window: Counts, known: Counts) -> tuple[float, float]:
    """On the profile's bins, and missing values where there are any; and what it is without drift. Each side is
    credited with one row, spread as both together are, so that no bin of either is empty and no constant is made up
    for one."""
    c, r = (np.append(counts[feature.counts], counts[feature.missing]).astype(np.float64) for counts in (window, known))
    used = (c + r) > 0
    c, r = c[used], r[used]
    if not c.sum() or not r.sum():
        return 0.0, math.inf
    row = (c + r) / (c + r).sum()
    q, p = (c + row) / (c.sum() + 1.0), (r + row) / (r.sum() + 1.0)
    return float(((q - p) * np.log(q / p)).sum()), (len(c) - 1) * (1.0 / c.sum() + 1.0 / r.sum())


def _moments(feature: Feature, counts: Counts) -> tuple[float, float]:
    """Mean and standard deviation of what is not missing, in standard deviations of the reference."""
    rows = int(counts[0]) - int(counts[feature.missing])
    if rows <= 0:
        return 0.0, 0.0
    mean = int(counts[feature.total]) / rows
    variance = int(counts[feature.square]) / rows - mean * mean
    return mean / FEATURE_SIGMA, math.sqrt(max(0.0, variance)) / FEATURE_SIGMA


def _wasserstein(reference: Reference, feature: Feature, window: Counts) -> float:
    """The area between the two distribution functions: straight between bin edges; beyond the outermost ones, where
    nothing tells how far the values go, as deep as the bin beside is wide (a normal's tail is, to a tenth)."""
    edges = np.array(feature.edges)
    if feature.scale <= 0.0 or not len(edges):
        return 0.0
    unit = feature.scale / FEATURE_SIGMA
    difference = _climb(feature, window) - _climb(feature, reference.counts)
    left, right = difference[:-1], difference[1:]
    size = np.abs(left) + np.abs(right)
    crossed = left * right < 0
    area = np.where(crossed, (left * left + right * right) / np.where(size > 0, size, 1.0), size) / 2.0
    ranges = edges[0] - feature.lowest, feature.highest - edges[-1]
    beside = (edges[1] - edges[0], edges[-1] - edges[-2]) if len(edges) > 1 else ranges
    depths = [max(0.0, min(far, near)) for far, near in zip(ranges, beside, strict=True)]
    outer = abs(difference[0]) * depths[0] + abs(difference[-1]) * depths[1]
    return float(((area * np.diff(edges)).sum() + outer) * unit)


def _climb(feature: Feature, counts: Counts) -> Floats:
    """The share of rows below each edge."""
    bins = counts[feature.counts].astype(np.float64)
    found: Floats = np.cumsum(bins)[:-1] / max(1.0, float(bins.sum()))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class AgainstReference:
    """Judges every feature and block of a version by its reference."""

    reference: Reference

    @property
    def names(self) -> tuple[str, ...]:
        return self.reference.names

    def log_e(self, windows: Counts) -> Floats:
        return self.reference.log_e(windows)

    def effects(self, windows: Counts, chosen: NDArray[np.intp]) -> list[Effect]:
        return effects(self.reference, windows, chosen)

    def log_return(self, windows: Counts, name: str, drifted: Counts) -> Floats:
        return self.reference.log_return(windows, name, drifted)

    def rows(self, windows: Counts) -> Counts:
        found: Counts = windows[:, 0]
        return found
