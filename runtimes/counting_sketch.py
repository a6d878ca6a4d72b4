"""Looks at reference rows once and freezes a plan: which features and blocks, with which bins.

Quantiles and scales are exact for as many rows as ``SAMPLE_BYTES`` hold, and of a reservoir sample with a fixed seed
beyond that, which the profile says. Extremes, distinct values and missing ones are of all rows.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections import Counter as Tallied
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtimes.base import Array
from runtimes.counting import BLOCK_SIGMA, FEATURE_SIGMA, PHASE_BITS, SCHEMA, encoded, rare_hash
from runtimes.counting_rows import column
from runtimes.signature import Signature, TensorSpec

__all__ = ["MAX_FEATURES", "Sketch"]

MAX_FEATURES = 1024
"""Elements of a tensor's row that are features of their own; a wider one is seen as a block only."""

SAMPLE_BYTES = 64 << 20
_SAMPLE_ROWS = 200_000
_BINS = 10
_ROWS_A_BIN = 20
_CATEGORIES = 32
_FEW_VALUES = 12  # of floating-point numbers: more are taken as continuous
_RARE = 4096
_SCORES = 64  # outputs that are features one by one
_PLAIN = 16
_WAVES = 32
_NARROW, _WIDE = (16, 32), (32, 32)  # dimensions, and columns added up for each
_PAIRS_OF = 400  # rows whose distances tell the bandwidth
_LEAST_BANDWIDTH = 8.0

Place = tuple[str, str]


class Sketch:
    """``names``: of the columns of an input, where the reference data has any."""

    def __init__(
        self,
        signature: Signature,
        *,
        seed: int = 1,
        names: Mapping[str, Sequence[str]] | None = None,
        sample_bytes: int = SAMPLE_BYTES,
    ) -> None:
        """``sample_bytes`` bounds what is remembered of each tensor's rows."""
        self.rows = 0
        self._seed = seed
        self._sample_bytes = sample_bytes
        self._names = names or {}
        self._signature = signature
        self._tensors: dict[Place, _Tensor] = {}
        self.skipped: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Sketch [{self.rows} rows | {len(self._tensors)} tensors]>"

    def add(self, tensors: Mapping[Place, Array]) -> None:
        """Flattened rows. Tensors whose rows differ in size are left out, and named in the profile."""
        count = max((len(rows) for rows in tensors.values()), default=0)
        for side, specs in (("input", self._signature.inputs), ("output", self._signature.outputs)):
            for number, spec in enumerate(specs):
                place = side, spec.name
                if place in tensors and count:
                    self._add_to(place, spec, tensors[place], number)
        self.rows += count

    def _add_to(self, place: Place, spec: TensorSpec, rows: Array, number: int) -> None:
        side, name = place
        if name in self.skipped:
            return
        held = self._tensors.get(place)
        if held is None:
            seed = (self._seed, number, side == "output")
            held = self._tensors[place] = _Tensor(side, spec, rows.shape[1], seed, self._names.get(name, ()))
            held.bound(self._sample_bytes)
        if rows.shape[1] != held.width or not held.width:
            self.skipped[name] = "its rows differ in size" if held.width else "its rows are empty"
            del self._tensors[place]
            return
        held.add(rows)

    def frozen(self) -> dict[str, Any]:
        """The profile without its reference counts. ValueError when there is nothing to count."""
        if not self.rows:
            raise ValueError("the reference holds no rows")
        features = [body for tensor in self._tensors.values() for body in tensor.features(self.rows)]
        _name_apart(features)
        blocks = [
            block
            for side in ("input", "output")
            if (block := _block(side, [t for t in self._tensors.values() if t.side == side], self._seed)) is not None
        ]
        if not features and not blocks:
            why = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
            raise ValueError(f"nothing in the reference can be counted ({why})")
        return {
            "schema": SCHEMA,
            "seed": self._seed,
            "rows": self.rows,
            "sampled_rows": min((tensor.sampled for tensor in self._tensors.values()), default=0),
            "features": features,
            "blocks": blocks,
            "skipped": dict(self.skipped),
        }


class _Tensor:
    """What is remembered of one tensor: a sample of its rows, and of each element what all rows tell."""

    def __init__(
        self, side: str, spec: TensorSpec, width: int, seed: tuple[int, int, bool], names: Sequence[str]
    ) -> None:
        self.side, self.spec, self.width = side, spec, width
        self.text = spec.datatype == "BYTES"
        self._whole = spec.datatype not in ("FP16", "BF16", "FP32", "FP64")
        self._names = names
        self._random = np.random.default_rng(seed)
        self.wide = width > MAX_FEATURES
        dimensions, members = _WIDE
        most = dimensions * members
        picked = np.arange(width)
        if self.wide and width > most:
            picked = np.sort(self._random.choice(width, most, replace=False))
        self.picked = picked
        self.seen = 0
        self._kept: list[Array] = []
        self._sample: Array | None = None
        self._capacity = _SAMPLE_ROWS
        derived = self._derived()
        self._columns = [_Column(index, "value", self._whole) for index in self._own()]
        self._columns += [_Column(None, derive, derive == "argmax") for derive in derived]
        self._texts = {index: Tallied[bytes]() for index in range(width)} if self.text and not self.wide else {}
        self._many: set[int] = set()

    def bound(self, sample_bytes: int) -> None:
        """Before the first row."""
        self._capacity = max(1, min(_SAMPLE_ROWS, sample_bytes // (8 * max(1, len(self.picked)))))

    @property
    def sampled(self) -> int:
        return min(self.seen, self._capacity) if not self.text else self.seen

    @property
    def numeric(self) -> bool:
        return not self.text

    def _own(self) -> range:
        alone = not self.text and not self.wide and (self.side == "input" or self.width <= _SCORES)
        return range(self.width if alone else 0)

    def _derived(self) -> tuple[str, ...]:
        scores = self.side == "output" and not self.text and not self._whole and self.width > 1
        return ("max", "argmax") if scores else ()

    def add(self, rows: Array) -> None:
        if self.text:
            self._add_texts(rows)
        else:
            numbers = rows.astype(np.float64)
            for own in self._columns:
                own.add(numbers[:, own.index] if own.index is not None else column(rows, own.derive, None))
            self._keep(numbers[:, self.picked] if len(self.picked) != self.width else numbers)
        self.seen += len(rows)

    def _add_texts(self, rows: Array) -> None:
        for index, told in self._texts.items():
            if index in self._many:
                continue
            told.update(_octets(value) for value in rows[:, index].tolist())
            if len(told) > _RARE + _CATEGORIES:
                self._many.add(index)

    def _keep(self, numbers: Array) -> None:
        """Algorithm R: every row that came has the same chance to be in the sample."""
        room = self._capacity - self.seen
        if room > 0:
            self._kept.append(numbers[:room].copy())
        late = numbers[max(0, room) :]
        if len(late):
            sample = self.sample()
            places = self._random.integers(0, np.arange(len(late)) + self.seen + max(0, room) + 1)
            for row, place in zip(late[places < self._capacity], places[places < self._capacity], strict=True):
                sample[place] = row

    def sample(self) -> Array:
        if self._kept:
            self._sample = np.concatenate([*([] if self._sample is None else [self._sample]), *self._kept])
            self._kept = []
        if self._sample is None:
            return np.empty((0, len(self.picked)))
        return self._sample

    def features(self, rows: int) -> list[dict[str, Any]]:
        bodies = [self._text_feature(index) for index in self._texts]
        sample = self.sample()
        for own in self._columns:
            values = sample[:, own.index] if own.index is not None else column(sample, own.derive, None)
            bodies.append(self._told(own.index, own.derive) | own.frozen(values, rows))
        return bodies

    def _told(self, index: int | None, derive: str) -> dict[str, Any]:
        return {
            "name": self._name(index, derive),
            "side": self.side,
            "tensor": self.spec.name,
            "index": index,
            "derive": derive,
        }

    def _name(self, index: int | None, derive: str) -> str:
        if index is None:
            return f"{self.spec.name}.{derive}"
        if len(self._names) == self.width:
            return self._names[index]
        return self.spec.name if self.width == 1 else f"{self.spec.name}[{index}]"

    def _text_feature(self, index: int) -> dict[str, Any]:
        told = self._texts[index]
        told.pop(b"", None)
        # By how often they came, then by their bytes, so that equal data gives an equal profile.
        ordered = sorted(told, key=lambda value: (-told[value], value))
        named, rest = sorted(ordered[:_CATEGORIES]), ordered[_CATEGORIES:]
        values = [base64.b64encode(value).decode() for value in named]
        body = self._told(index, "value") | {"kind": "text", "values": values, "rare": None}
        if index in self._many:
            return body
        rare = sorted(base64.b64encode(rare_hash(value)).decode() for value in rest)
        return body | {"rare": rare, "singles": sum(told[value] == 1 for value in rest)}


class _Column:
    """One element of a tensor's row, or something derived from it: extremes and distinct values of all rows."""

    def __init__(self, index: int | None, derive: str, whole: bool) -> None:
        self.index, self.derive = index, derive
        self._most = _CATEGORIES if whole else _FEW_VALUES
        self._values: Array | None = np.empty(0)
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, numbers: Array) -> None:
        finite = numbers[np.isfinite(numbers)]
        if not finite.size:
            return
        self._lowest = min(self._lowest, float(finite.min()))
        self._highest = max(self._highest, float(finite.max()))
        if self._values is not None:
            values = np.unique(np.concatenate([self._values, finite]))
            self._values = values if len(values) <= self._most else None

    def frozen(self, sample: Array, rows: int) -> dict[str, Any]:
        finite = np.sort(sample[np.isfinite(sample)])
        center, scale = _scale(finite, FEATURE_SIGMA)
        found = self._values is None or self._values.size
        body: dict[str, Any] = {
            "center": center,
            "scale": scale,
            "lowest": self._lowest if found else 0.0,
            "highest": self._highest if found else 0.0,
        }
        few = self._values is not None and (self._most == _CATEGORIES or rows >= 2 * len(self._values))
        if few and self._values is not None:
            return body | {"kind": "categories", "values": self._values.tolist()}
        return body | {"kind": "numeric", "edges": _edges(finite)}


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _edges(ordered: Array) -> list[float]:
    """At equal shares of the reference; where many values are equal there are fewer, and none makes an empty bin."""
    count = len(ordered)
    bins = max(2, min(_BINS, count // _ROWS_A_BIN))
    at = (np.arange(1, bins) * count) // bins
    edges = np.unique(ordered[at])
    return [float(edge) for edge in edges[edges > ordered[0]]]


def _scale(finite: Array, units: int) -> tuple[float, float]:
    """Mean, and units a standard deviation, to nine digits: the last ones hang on the order of a sum."""
    if not finite.size:
        return 0.0, 1.0
    with np.errstate(all="ignore"):
        center, spread = float(finite.mean()), float(finite.std())
    if not (math.isfinite(center) and math.isfinite(spread)):
        return 0.0, 0.0  # numbers so large that they have no moments
    scale = units / spread if spread > 1e-12 * max(1.0, abs(center)) else units / max(1.0, abs(center))
    return float(f"{center:.9g}"), float(f"{scale:.9g}") if math.isfinite(scale) else 0.0


def _name_apart(features: Sequence[dict[str, Any]]) -> None:
    """An output that is named as an input is told as what it is."""
    seen: set[str] = set()
    for body in features:
        name = body["name"] if body["name"] not in seen else f"{body['side']}.{body['name']}"
        tries = itertools.count(2)
        while name in seen:
            name = f"{body['name']}.{next(tries)}"
        body["name"] = name
        seen.add(name)


def _block(side: str, tensors: Sequence[_Tensor], seed: int) -> dict[str, Any] | None:
    """All numbers of a side together; None when there are fewer than two."""
    parts = [tensor for tensor in tensors if tensor.numeric and tensor.seen]
    count = sum(len(tensor.picked) for tensor in parts)
    if count < 2:
        return None
    random = np.random.default_rng((seed, side == "output", 1))
    members, signs = _projection(count, any(tensor.wide for tensor in parts), random)
    common = min(len(tensor.sample()) for tensor in parts)
    sample = np.concatenate([tensor.sample()[:common] for tensor in parts], axis=1)
    scales = [_scale(own[np.isfinite(own)], BLOCK_SIGMA) for own in sample.T]
    center, scale = np.array([c for c, _ in scales]), np.array([s for _, s in scales])
    with np.errstate(all="ignore"):
        q = np.nan_to_num((sample[:_PAIRS_OF] - center) * scale, nan=0.0, posinf=0.0, neginf=0.0)
    z = (q[:, members.ravel()] * signs.ravel()).reshape(len(q), *members.shape).sum(axis=2)
    bandwidth = max(_LEAST_BANDWIDTH, _median_distance(z))
    waves = random.standard_normal((len(members), _WAVES)) * (2.0**PHASE_BITS / (2.0 * math.pi * bandwidth))
    return {
        "name": f"{side}s",
        "side": side,
        "columns": [{"tensor": tensor.spec.name, "indices": tensor.picked.tolist()} for tensor in parts],
        "center": center.tolist(),
        "scale": scale.tolist(),
        "dimensions": len(members),
        "members": encoded(members),
        "signs": encoded(signs),
        "frequencies": encoded(np.rint(waves)),
    }


def _projection(count: int, wide: bool, random: np.random.Generator) -> tuple[Array, Array]:
    if count <= _PLAIN:
        return np.arange(count)[:, None], np.ones((count, 1), np.int64)
    dimensions, many = _WIDE if wide else _NARROW
    many = min(many, max(1, count // dimensions))
    # Each dimension has columns of its own, so that none counts twice and, where they go round, none is left out.
    members = random.permutation(count)[: dimensions * many].reshape(dimensions, many)
    return members, random.choice(np.array([-1, 1]), members.shape)


def _median_distance(z: Array) -> float:
    if len(z) < 2:
        return 0.0
    squares = np.square(z).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2.0 * (z @ z.T)
    apart = distances[np.triu_indices(len(z), 1)]
    return float(f"{math.sqrt(max(0.0, float(np.median(apart)))):.6g}")
