"""Counts rows into the bins of a plan, vectorised: what ``runtimes.counting`` lays down, done.

Every step is one that gives each row the same integers whatever rows are counted beside it: comparisons, rounding of
single numbers, sums of integers below 2^53. A matrix product of numbers with fractions would not be.
"""

from __future__ import annotations

import math
from collections import Counter as Tallied
from collections.abc import Mapping, Sequence

import numpy as np

from runtimes.base import Array, Arrays
from runtimes.counting import (
    BLOCK_MOST,
    COSINE_UNITS,
    FEATURE_MOST,
    PHASE_BITS,
    Block,
    Feature,
    Plan,
    rare_hash,
)

__all__ = ["Counter", "column", "flat_rows", "flattened"]

_SLAB, _NARROW_SLAB = 128, 510
"""Rows at a time. Of many features, what is worked on stays in the processor's cache, and comparisons add up in a byte;
of few, it is the calls that cost, until the waves of their blocks no longer fit (1,020 rows take two thirds longer)."""

_NARROW = 16
"""Up to so many features are counted column by column."""

_TABLE_BITS = 12
_TABLE = np.array(
    [round(COSINE_UNITS * math.cos(2 * math.pi * step / (1 << _TABLE_BITS))) for step in range(1 << _TABLE_BITS)],
    np.float64,
)
"""Whole numbers, as floating-point ones: a product with ones sums them in half the time, and as exactly."""

_QUARTER = 1 << (_TABLE_BITS - 2)


def flat_rows(array: Array, batched: bool) -> Array:
    """A tensor as rows and elements; of one that is not batched, the only row."""
    return array.reshape(array.shape[0] if batched else 1, -1) if array.size else array.reshape(0, 0)


def flattened(inputs: Arrays, outputs: Arrays, *, batched: bool = True) -> dict[tuple[str, str], Array]:
    """All tensors as rows and elements, by side and name."""
    tensors = {("input", name): flat_rows(array, batched) for name, array in inputs.items()}
    return tensors | {("output", name): flat_rows(array, batched) for name, array in outputs.items()}


def column(rows: Array, derive: str, index: int | None) -> Array:
    """One feature's values in flattened rows of its tensor."""
    if derive == "value":
        return np.asarray(rows[:, index or 0])
    # NaN would be the largest of all: a row with one has no largest, so that it counts as missing.
    numbers = rows.astype(np.float64)
    if derive == "max":
        return np.asarray(numbers.max(axis=1))
    found = np.asarray(numbers.argmax(axis=1), np.float64)
    found[np.isnan(numbers).any(axis=1)] = np.nan
    return found


class Counter:
    """Adds up one plan's counts. ``take`` gives what was counted since the last time."""

    def __init__(self, plan: Plan, *, spread: bool = False) -> None:
        """``spread``: the second moments of each block's random features are summed as well, which costs far more."""
        self.plan = plan
        self.rows = 0
        # One more place, for the bins that a feature with fewer than its neighbours does not have.
        self._vector = np.zeros(plan.size + 1, np.int64)
        groups: dict[str, list[Feature]] = {}
        for feature in plan.features:
            groups.setdefault(feature.kind, []).append(feature)
        self._numbers = [_Numbers(members, plan.size) for key, members in groups.items() if key != "text"]
        self._slab = _NARROW_SLAB if all(numbers.narrow for numbers in self._numbers) else _SLAB
        self._texts = [_Text(member) for member in groups.get("text", ())]
        self._blocks = [_Columns(block, spread=spread) for block in plan.blocks]
        widest: dict[tuple[str, str], int] = {}
        for feature in plan.features:
            place = feature.side, feature.tensor
            widest[place] = max(widest.get(place, 0), (feature.index or 0) + 1)
        for block in plan.blocks:
            for tensor, indices in block.columns:
                place = block.side, tensor
                widest[place] = max(widest.get(place, 0), int(indices.max()) + 1)
        self._widest = widest
        # Of a tensor that only one block looks at, its columns alone do: a copy of a few of 150,000.
        used = [((block.side, tensor), indices) for block in plan.blocks for tensor, indices in block.columns]
        single = {(feature.side, feature.tensor) for feature in plan.features}
        self.picks: dict[tuple[str, str], Array] = {place: picked for place, picked in used if place not in single}

    def __repr__(self) -> str:
        return f"<Counter [{self.rows} rows | {self.plan.size} places]>"

    @property
    def tensors(self) -> frozenset[tuple[str, str]]:
        """Those that are counted, by side and name."""
        return frozenset(self._widest)

    @property
    def spreads(self) -> list[Array]:
        """Of each block, sums of products of its random features, cos first; of all rows ever counted."""
        return [block.spread for block in self._blocks if block.spread is not None]

    def add(self, inputs: Arrays, outputs: Arrays, rows: int | None) -> bool:
        """Counts a batch; ``rows`` None: the version is not batched, and it is one row. False, and nothing is counted,
        for tensors that are narrower than those of the reference."""
        return self.add_rows(flattened(inputs, outputs, batched=rows is not None))

    def add_rows(self, tensors: Mapping[tuple[str, str], Array]) -> bool:
        """``add`` of flattened tensors."""
        if all(place in tensors and not len(tensors[place]) for place in self._widest):
            return True
        if not self.fits(tensors):
            return False
        count = len(tensors[next(iter(self._widest))])
        for begin in range(0, count, self._slab):
            slab = {place: tensors[place][begin : begin + self._slab] for place in self._widest}
            with np.errstate(all="ignore"):
                self._count(slab)
        self.rows += count
        self._vector[0] += count
        return True

    def fits(self, tensors: Mapping[tuple[str, str], Array]) -> bool:
        """Every counted tensor is there, as wide as it was in the reference, or just its columns in ``picks``."""
        for place, width in self._widest.items():
            rows = tensors.get(place)
            picked = self.picks.get(place)
            if rows is None or (rows.shape[1] < width and (picked is None or rows.shape[1] != len(picked))):
                return False
        return len({len(tensors[place]) for place in self._widest}) == 1

    def take(self) -> tuple[int, Array]:
        """Rows, and the vector; both begin anew."""
        rows, vector = self.rows, self._vector[:-1].copy()
        self.rows = 0
        self._vector[:] = 0
        return rows, vector

    def _count(self, slab: Mapping[tuple[str, str], Array]) -> None:
        for numbers in self._numbers:
            numbers.count(slab, self._vector)
        for text in self._texts:
            text.count(slab[text.place], self._vector)
        for block in self._blocks:
            block.count(slab, self._vector)


class _Numbers:
    """Features of one kind, counted together: rows by features, one comparison a bin."""

    def __init__(self, features: Sequence[Feature], dump: int) -> None:
        self._categories = features[0].kind == "categories"
        # Of each tensor, and of what is derived of it, the columns; features of one stand together.
        pieces: dict[tuple[str, str, str], list[Feature]] = {}
        for feature in features:
            pieces.setdefault((feature.side, feature.tensor, feature.derive), []).append(feature)
        features = [feature for piece in pieces.values() for feature in piece]
        self._pieces = [
            ((side, tensor), derive, np.array([feature.index or 0 for feature in piece], np.int64))
            for (side, tensor, derive), piece in pieces.items()
        ]
        marks = [feature.values if self._categories else feature.edges for feature in features]
        depth = max(map(len, marks), default=0)
        self._marks = np.full((depth, len(features)), np.nan)  # to which nothing compares
        # Where the count of each mark goes: of an edge, rows from there on move from the bin below to that above.
        self._up = np.full((depth, len(features)), dump, np.int64)
        self._down = self._up.copy()
        for place, (feature, own) in enumerate(zip(features, marks, strict=True)):
            self._marks[: len(own), place] = own
            shift = 0 if self._categories else 1
            places = feature.at + np.arange(len(own))
            self._up[: len(own), place] = places + shift
            self._down[: len(own), place] = places
        # Of each feature its marks, the lowest and the highest of the reference, and the end of all numbers.
        self._own = [
            np.array([*own, feature.lowest, feature.highest, np.inf])
            for feature, own in zip(features, marks, strict=True)
        ]
        self._rest = np.array([feature.missing - 1 if self._categories else feature.at for feature in features])
        self._missing = np.array([feature.missing for feature in features])
        self._lowest = np.array([feature.lowest for feature in features])
        self._highest = np.array([feature.highest for feature in features])
        self._center = np.array([feature.center for feature in features])
        self._scale = np.array([feature.scale for feature in features])

    @property
    def narrow(self) -> bool:
        return len(self._own) <= _NARROW

    def count(self, slab: Mapping[tuple[str, str], Array], vector: Array) -> None:
        x = self._matrix(slab)
        present, found, low, high = self._by_sorting(x) if self.narrow else self._by_comparing(x)
        # All begin in one bin, the first or the last; each mark takes its own out of the bin before.
        # All places of the marks differ, but for the one that nobody reads.
        vector[self._rest] += present
        vector[self._up] += found
        if self._categories:
            vector[self._rest] -= found.sum(axis=0)
        else:
            vector[self._down] -= found
        after = self._missing
        vector[after] += len(x) - present
        vector[after + 1] += low
        vector[after + 2] += high
        if self._categories:
            vector[after + 3] += present - found.sum(axis=0)
        q = x - self._center
        q *= self._scale
        np.rint(q, out=q)
        np.clip(q, -FEATURE_MOST, FEATURE_MOST, out=q)
        total = q.sum(axis=0)
        if not np.isfinite(total).all():  # missing values, and infinities where the scale is 0
            q[q != q] = 0.0  # noqa: PLR0124
            total = q.sum(axis=0)
        vector[after + 4] += total.astype(np.int64)
        vector[after + 5] += np.einsum("ij,ij->j", q, q).astype(np.int64)

    def _by_comparing(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """By column: rows that are not missing; by mark, those at it (or from it on); those below and above all."""
        compare = np.equal if self._categories else np.greater_equal
        found = np.zeros(self._marks.shape, np.int64)
        for own, mark in zip(found, self._marks, strict=True):
            own[:] = _column_sums(compare(x, mark))
        present = _column_sums(x == x)  # noqa: PLR0124 - NaN is the one number that is not itself
        return present, found, _column_sums(x < self._lowest), _column_sums(x > self._highest)

    def _by_sorting(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """The same: a comparison of few columns costs a call for each row, a sorted column two for all."""
        found = np.zeros(self._marks.shape, np.int64)
        ends = np.empty((3, len(self._own)), np.int64)
        for place, (column_, marks) in enumerate(zip(np.sort(x.T, axis=1), self._own, strict=True)):
            left = column_.searchsorted(marks, "left")
            right = column_.searchsorted(marks, "right")
            present = right[-1]  # of infinity: NaN is sorted behind it
            own = right[:-3] - left[:-3] if self._categories else present - left[:-3]
            found[: len(own), place] = own
            ends[:, place] = present, left[-3], present - right[-2]
        return ends[0], found, ends[1], ends[2]

    def _matrix(self, slab: Mapping[tuple[str, str], Array]) -> Array:
        parts = [_piece(slab[place], derive, indices) for place, derive, indices in self._pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _piece(rows: Array, derive: str, indices: Array) -> Array:
    if derive != "value":
        return column(rows, derive, None)[:, None]
    return _picked(rows, indices)


class _Text:
    """One feature of byte strings."""

    def __init__(self, feature: Feature) -> None:
        self.place = feature.side, feature.tensor
        self._feature = feature
        self._bins = {value: feature.at + place for place, value in enumerate(feature.values)}

    def count(self, rows: Array, vector: Array) -> None:
        feature, other = self._feature, self._feature.missing - 1
        for value, times in Tallied(column(rows, feature.derive, feature.index).tolist()).items():
            octets = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
            if not octets:
                vector[feature.missing] += times
                continue
            place = self._bins.get(octets, other)
            vector[place] += times
            if place == other and feature.rare is not None and rare_hash(octets) not in feature.rare:
                vector[feature.unseen] += times


class _Columns:
    """A block at work."""

    def __init__(self, block: Block, *, spread: bool) -> None:
        self._block = block
        self.spread = np.zeros((2 * block.waves, 2 * block.waves), np.int64) if spread else None
        self._members = block.members.ravel()
        count, dimensions = len(block.center), block.dimensions
        plain = block.members.shape[1] == 1 and np.array_equal(self._members, np.arange(count))
        self._plain = plain and bool((block.signs == 1).all())
        self._signs = block.signs.ravel().astype(np.float64)
        self._upper = np.triu_indices(dimensions)
        self._frequencies = block.frequencies.astype(np.float64)

    def count(self, slab: Mapping[tuple[str, str], Array], vector: Array) -> None:
        block = self._block
        z = self._projected(self._quantised(slab, vector))
        vector[block.total] += z.sum(axis=0).astype(np.int64)
        # Integers below 2^53 throughout, so that no order of the sums changes one.
        vector[block.outer] += (z.T @ z)[self._upper].astype(np.int64)
        phases = (z @ self._frequencies).astype(np.int64) >> (PHASE_BITS - _TABLE_BITS)
        mask = (1 << _TABLE_BITS) - 1
        phases &= mask
        cosines = _TABLE.take(phases)
        phases -= _QUARTER
        phases &= mask
        sines, ones = _TABLE.take(phases), np.ones(len(z))
        vector[block.cos] += (ones @ cosines).astype(np.int64)
        vector[block.sin] += (ones @ sines).astype(np.int64)
        if self.spread is not None:
            both = np.concatenate([cosines, sines], axis=1)
            self.spread += (both.T @ both).astype(np.int64)

    def _quantised(self, slab: Mapping[tuple[str, str], Array], vector: Array) -> Array:
        block = self._block
        parts = [_picked(slab[block.side, tensor], indices) for tensor, indices in block.columns]
        q = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        q -= block.center
        q *= block.scale
        absent = q != q  # noqa: PLR0124 - NaN is the one number that is not itself
        missing = int(np.count_nonzero(absent))
        if missing:
            q[absent] = 0.0
            vector[block.missing] += missing
        np.rint(q, out=q)
        held: Array = np.clip(q, -BLOCK_MOST, BLOCK_MOST)
        vector[block.clipped] += int(np.count_nonzero(held != q))
        return held

    def _projected(self, q: Array) -> Array:
        if self._plain:
            return q
        signed = q[:, self._members]
        signed *= self._signs
        return np.asarray(signed.reshape(len(q), self._block.dimensions, -1).sum(axis=2))


def _picked(rows: Array, indices: Array) -> Array:
    picked = rows if len(indices) == rows.shape[1] else rows[:, indices]
    return np.asarray(picked.astype(np.float64))


def _column_sums(flags: Array) -> Array:
    return np.asarray(np.add.reduce(flags.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64))
