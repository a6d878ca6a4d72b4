"""Which cells a feature's rows fall into, for judging: each row in exactly one, so that counts are multinomial.

A profile's bins, missing values, and, cut out of the outermost bins, what lies beyond all of the reference; of
categories, what the reference never had. The cells of all features lie side by side in one array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.distributions import normal_quantile
from runtimes.counting import Feature, Plan

__all__ = ["Cells", "Counts", "Floats"]

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_INNER = 0.5
"""Jeffreys' share of a row in each inner cell, before any row was seen."""
_OUTER = 1.0
"""Of cells that a reference has nothing in by their making: the next of m + 1 rows is the highest with chance 1/(m +
1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """``begins``: where each feature's cells begin. ``prior``: rows a cell is credited with beforehand. ``ordered``:
    the cells that have a place in a feature's order, so not missing ones and no categories. ``sums_of``: by feature the
    places of missing rows, total and square; ``units``: center and scale."""

    features: tuple[Feature, ...]
    sums_of: NDArray[np.intp]
    units: Floats
    begins: NDArray[np.intp]
    prior: Floats
    ordered: NDArray[np.bool_]
    _plus: NDArray[np.intp]
    _minus: NDArray[np.intp]

    @classmethod
    def of(cls, plan: Plan) -> Cells:
        begins, prior, ordered = [], [], []
        plus: list[int] = []
        minus: list[list[int]] = []
        for feature in plan.features:
            begins.append(len(plus))
            for place, less, share, in_order in _cells(feature):
                plus.append(place)
                minus.append([*less, plan.size, plan.size][:2])
                prior.append(share)
                ordered.append(in_order)
        sums_of = [(feature.missing, feature.total, feature.square) for feature in plan.features]
        return cls(
            plan.features,
            np.array(sums_of, np.intp).reshape(-1, 3).T,
            np.array([(feature.center, feature.scale) for feature in plan.features], np.float64).reshape(-1, 2).T,
            np.array(begins, np.intp),
            np.array(prior, np.float64),
            np.array(ordered, np.bool_),
            np.array(plus, np.intp),
            np.array(minus, np.intp).reshape(-1, 2).T,
        )

    @property
    def size(self) -> int:
        return len(self.prior)

    @property
    def widths(self) -> NDArray[np.intp]:
        return np.diff(np.append(self.begins, self.size))

    def spread(self, by_feature: NDArray[Any]) -> NDArray[Any]:
        """One value a feature, along the last axis, to one a cell."""
        return np.repeat(by_feature, self.widths, axis=-1)

    def sums(self, by_cell: NDArray[Any]) -> NDArray[Any]:
        """One value a cell, along the last axis, summed for each feature."""
        if not self.size:
            return np.zeros((*by_cell.shape[:-1], 0), by_cell.dtype)
        return np.add.reduceat(by_cell, self.begins, axis=-1)

    def slice(self, feature: int) -> slice:
        end = self.begins[feature + 1] if feature + 1 < len(self.begins) else self.size
        return slice(int(self.begins[feature]), int(end))

    def count(self, vectors: Counts) -> Counts:
        """Vectors of counts (along the last axis) to counts of cells. Place ``plan.size`` is made here, and holds 0."""
        widened = np.concatenate([vectors, np.zeros((*vectors.shape[:-1], 1), np.int64)], axis=-1)
        found: Counts = widened[..., self._plus] - widened[..., self._minus[0]] - widened[..., self._minus[1]]
        return found

    @property
    def unseen(self) -> NDArray[np.intp]:
        """The cells of categories that the reference never had."""
        ends = np.append(self.begins[1:], self.size)
        named = np.array([feature.kind != "numeric" for feature in self.features], np.bool_)
        return np.asarray(ends[named] - 2, np.intp)

    def known(self, vector: Counts) -> Counts:
        """The reference's own counts of cells. A category that one row alone has would be unseen without that row, so
        it counts as unseen: the share of those is what the next rows will have that is new (Good, *The population
        frequencies of species*, 1953). Without it every column of names would alarm."""
        found = self.count(vector)
        for index, feature in enumerate(self.features):
            if feature.kind == "numeric":
                continue
            place = self.slice(index)
            other, unseen = place.stop - 3, place.stop - 2
            named = found[place.start : other]
            alone = named == 1
            rare = min(feature.singles, int(found[other]))
            found[unseen] += int(alone.sum()) + rare
            found[other] -= rare
            named[alone] = 0
        return found

    def scores(self, shares: Floats) -> Floats:
        """A standard normal's place of each ordered cell, mean 0 and deviation 1 within its feature; 0 elsewhere."""
        scores = np.zeros(self.size)
        for index in range(len(self.features)):
            place = self.slice(index)
            inner = np.flatnonzero(self.ordered[place]) + place.start
            if len(inner) > 1:
                scores[inner] = _normal_scores(shares[inner])
        return scores


def _cells(feature: Feature) -> Sequence[tuple[int, Sequence[int], float, bool]]:
    """Place, the places whose counts are taken off it, rows credited, and whether it has a place in an order."""
    first, last = feature.at, feature.at + feature.bins - 1
    missing = (feature.missing, (), _OUTER, False)
    if feature.kind != "numeric":
        named = [(place, (), _INNER, False) for place in range(first, last)]
        return [*named, (last, (feature.unseen,), _INNER, False), (feature.unseen, (), _OUTER, False), missing]
    found: list[tuple[int, Sequence[int], float, bool]] = [(feature.low, (), _OUTER, True)]
    for place in range(first, last + 1):
        low, high = ([feature.low] if place == first else []), ([feature.high] if place == last else [])
        found.append((place, low + high, _INNER, True))
    return [*found, (feature.high, (), _OUTER, True), missing]


def _normal_scores(shares: Floats) -> Floats:
    total = shares.sum()
    if total <= 0.0:
        return np.zeros_like(shares)
    weights = shares / total
    middles = np.cumsum(weights) - weights / 2.0
    scores = np.array([normal_quantile(float(middle)) for middle in middles])
    scores -= (weights * scores).sum()
    deviation = np.sqrt((weights * scores * scores).sum())
    return scores / deviation if deviation > 0.0 else scores
