"""Counts of what a version was given and what it answered, in bins that a profile has frozen: integers that add up.

A *profile* is made once, from reference data (``gateway.registry.profile``), and never changes. Its JSON is a *plan*:
what is counted, and where in one vector of 64-bit integers. Whoever counts with the same plan may add vectors in any
order and any partition: each number is a sum over rows of an integer that depends on that row alone. So nothing here
sums floating-point numbers: moments are of values rounded to fixed point, and random features are looked up in a table.

The vector, in order::

    [0]                       rows counted
    each feature, in order    bins …, missing, low, high, unseen, total, square
    each block, in order      missing, clipped, total[d], outer[d (d + 1) / 2], cos[m], sin[m]

A **feature** is one column of an input, one element of a tensor's row, or something derived from an output's row (its
largest value ``max``, and where that is, ``argmax``). By ``kind``:

* ``numeric``: ``edges`` e_1 < … < e_(k-1) make k bins; bin j holds e_j <= x < e_(j+1), the first and the last are open.
* ``categories``: ``values``, and a last bin ``other`` for all else (also counted as ``unseen``, since all were named).
* ``text``: the same over byte strings (``values`` in base64); ``rare`` holds 8-byte hashes of reference values that
  got no bin of their own: those are ``other``, what is not even there is ``other`` and ``unseen``. ``rare`` None: there
  were too many to keep, and ``unseen`` stays 0. ``singles`` of them came once: as many of the reference's rows would
  have been unseen in the rest of it.

``bins`` and ``missing`` add up to the rows. ``missing`` is NaN, or an empty string. ``low`` and ``high`` are rows below
and above all of the reference (infinities too), besides their bin. ``total`` and ``square`` are sums of q and q² over
rows that are not missing, q = round((x - center) * scale), held within ±``FEATURE_MOST``; the scale makes the
reference's standard deviation 256 units. For texts ``low``, ``high``, ``total`` and ``square`` are 0.

A **block** sees many columns together. Each is brought to q = round((x - center) * scale), a standard deviation being
64 units, held within ±``BLOCK_MOST`` (``clipped`` counts elements beyond, ``missing`` those that are NaN, taken as 0),
and a row becomes z = d sums of signed columns: the columns themselves where there are at most 16, else a sparse random
projection whose columns and signs the profile holds. ``total`` sums z, ``outer`` the products z_i z_j (i <= j, row by
row), and cos and sin those of m random frequencies: ``COSINE_UNITS`` cos(2 pi (z . w) / 2^28), w the integer columns
of ``frequencies``. Divided by rows they are mean, second moments and the mean embedding of a Gaussian kernel.

``runtimes.counting_rows.Counter`` does the counting. Numpy only: this runs in children of other interpreters, too.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.base import Array

__all__ = [
    "BLOCK_MOST",
    "BLOCK_SIGMA",
    "BUSY_SHARE",
    "COSINE_UNITS",
    "FEATURE_MOST",
    "FEATURE_SIGMA",
    "PHASE_BITS",
    "SCHEMA",
    "Block",
    "Feature",
    "Plan",
    "decoded",
    "encoded",
    "rare_hash",
]

SCHEMA = "turnout-profile/1"
FEATURE_SIGMA = 256
FEATURE_MOST = 1 << 16
BLOCK_SIGMA = 64
BLOCK_MOST = 1 << 12
COSINE_UNITS = 1 << 14
PHASE_BITS = 28
BUSY_SHARE = 0.02
"""Of the time, unless somebody says otherwise: what counting with a plan takes while the processor is wanted
elsewhere."""

_AFTER_BINS = 6  # missing, low, high, unseen, total, square


def encoded(vector: Array) -> str:
    """Integers as they stand in a profile: base64 of 64 bits each, little-endian."""
    return base64.b64encode(np.ascontiguousarray(vector, "<i8").tobytes()).decode("ascii")


def decoded(text: str) -> Array:
    """What ``encoded`` made, flat."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<i8").astype(np.int64)


def rare_hash(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature and its place in the vector (see the module). ``bins`` counts them, ``other`` included.

    ``name`` is unique in the plan; ``labels`` names each bin for people. ``index`` is the element of the tensor's row,
    None for what is derived from the whole row (``derive`` is then ``max`` or ``argmax``).
    """

    name: str
    side: str
    tensor: str
    index: int | None
    derive: str
    kind: str
    at: int
    bins: int
    edges: tuple[float, ...] = ()
    values: tuple[Any, ...] = ()
    rare: frozenset[bytes] | None = None
    singles: int = 0
    center: float = 0.0
    scale: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0

    @property
    def counts(self) -> slice:
        """The bins in the vector."""
        return slice(self.at, self.at + self.bins)

    @property
    def missing(self) -> int:
        return self.at + self.bins

    @property
    def low(self) -> int:
        return self.at + self.bins + 1

    @property
    def high(self) -> int:
        return self.at + self.bins + 2

    @property
    def unseen(self) -> int:
        return self.at + self.bins + 3

    @property
    def total(self) -> int:
        return self.at + self.bins + 4

    @property
    def square(self) -> int:
        return self.at + self.bins + 5

    @property
    def end(self) -> int:
        return self.at + self.bins + _AFTER_BINS

    @property
    def labels(self) -> tuple[str, ...]:
        if self.kind == "numeric":
            told = ["", *(f"{edge:.6g}" for edge in self.edges), ""]
            return tuple(f"{low or '-inf'} … {high or 'inf'}" for low, high in itertools.pairwise(told))
        named = (v.decode("utf-8", "replace") if isinstance(v, bytes) else f"{v:g}" for v in self.values)
        return (*named, "other")

    @classmethod
    def from_json(cls, body: Mapping[str, Any], at: int) -> Feature:
        kind = str(body["kind"])
        edges = tuple(float(edge) for edge in body.get("edges", ()))
        rare = None
        if kind == "text":
            values: tuple[Any, ...] = tuple(base64.b64decode(value) for value in body["values"])
            rare = None if body["rare"] is None else frozenset(base64.b64decode(value) for value in body["rare"])
        else:
            values = tuple(float(value) for value in body.get("values", ()))
        if kind not in ("numeric", "categories", "text") or body["derive"] not in ("value", "max", "argmax"):
            raise ValueError(f"feature {body['name']!r}: a {kind!r} of {body['derive']!r} is not known here")
        return cls(
            name=str(body["name"]),
            side=str(body["side"]),
            tensor=str(body["tensor"]),
            index=None if body["index"] is None else int(body["index"]),
            derive=str(body["derive"]),
            kind=kind,
            at=at,
            bins=len(edges) + 1 if kind == "numeric" else len(values) + 1,
            edges=edges,
            values=values,
            rare=rare,
            singles=int(body.get("singles", len(rare or ()))),
            center=float(body.get("center", 0.0)),
            scale=float(body.get("scale", 0.0)),
            lowest=float(body.get("lowest", 0.0)),
            highest=float(body.get("highest", 0.0)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Many columns together, and their place in the vector (see the module).

    ``columns``: by tensor, the elements of its row. ``members`` (d x n) are places among all columns in that order,
    with ``signs``; ``center`` and ``scale`` hold one number a column; ``frequencies`` is d x m.
    """

    name: str
    side: str
    at: int
    columns: tuple[tuple[str, Array], ...]
    center: Array
    scale: Array
    members: Array
    signs: Array
    frequencies: Array

    @property
    def dimensions(self) -> int:
        return int(self.members.shape[0])

    @property
    def waves(self) -> int:
        return int(self.frequencies.shape[1])

    @property
    def missing(self) -> int:
        return self.at

    @property
    def clipped(self) -> int:
        return self.at + 1

    @property
    def total(self) -> slice:
        return slice(self.at + 2, self.at + 2 + self.dimensions)

    @property
    def outer(self) -> slice:
        """Products i <= j, in the order of ``numpy.triu_indices(dimensions)``."""
        begin = self.at + 2 + self.dimensions
        return slice(begin, begin + self.dimensions * (self.dimensions + 1) // 2)

    @property
    def cos(self) -> slice:
        return slice(self.outer.stop, self.outer.stop + self.waves)

    @property
    def sin(self) -> slice:
        return slice(self.cos.stop, self.cos.stop + self.waves)

    @property
    def end(self) -> int:
        return self.at + 2 + self.dimensions * (self.dimensions + 3) // 2 + 2 * self.waves

    @classmethod
    def from_json(cls, body: Mapping[str, Any], at: int) -> Block:
        columns = tuple((str(part["tensor"]), np.array(part["indices"], np.int64)) for part in body["columns"])
        count, dimensions = sum(len(indices) for _, indices in columns), int(body["dimensions"])
        block = cls(
            name=str(body["name"]),
            side=str(body["side"]),
            at=at,
            columns=columns,
            center=np.array(body["center"], np.float64),
            scale=np.array(body["scale"], np.float64),
            members=decoded(body["members"]).reshape(dimensions, -1),
            signs=decoded(body["signs"]).reshape(dimensions, -1),
            frequencies=decoded(body["frequencies"]).reshape(dimensions, -1),
        )
        whole = block.center.shape == block.scale.shape == (count,) and block.members.shape == block.signs.shape
        if not whole or not count or block.members.min() < 0 or block.members.max() >= count:
            raise ValueError(f"block {block.name!r}: its parts do not fit each other")
        return block


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is counted and where. ``size`` is the vector's length; ``digest`` names the profile."""

    digest: str
    features: tuple[Feature, ...]
    blocks: tuple[Block, ...]
    size: int
    # What a vector of one row may hold, lowest and highest, and by feature where its bins begin and end.
    _least: Array
    _most: Array
    _begins: Array
    _ends: Array

    @classmethod
    def from_json(cls, profile: Mapping[str, Any], digest: str = "") -> Plan:
        """ValueError for what is no profile of this schema."""
        try:
            if profile["schema"] != SCHEMA:
                raise ValueError(f"a profile of schema {profile['schema']!r}; this program reads {SCHEMA}")
            at, features, blocks = 1, [], []
            for body in profile["features"]:
                features.append(Feature.from_json(body, at))
                at = features[-1].end
            for body in profile["blocks"]:
                blocks.append(Block.from_json(body, at))
                at = blocks[-1].end
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no profile: {type(error).__name__}: {error}") from error
        least, most = _bounds(features, blocks, at)
        begins = np.array([feature.at for feature in features], np.int64)
        ends = np.array([feature.missing + 1 for feature in features], np.int64)
        return cls(digest, tuple(features), tuple(blocks), at, least, most, begins, ends)

    def check(self, counts: Array, rows: int) -> None:
        """ValueError for a vector that cannot be the counts of so many rows: what a child sends is not believed."""
        if counts.shape != (self.size,) or counts.dtype != np.int64:
            raise ValueError(f"{counts.shape} {counts.dtype} are no counts of this plan; expected {self.size} integers")
        if not 0 <= rows <= 1 << 24 or counts[0] != rows:
            raise ValueError(f"counts of {int(counts[0])} rows, said to be {rows}")
        wrong = np.flatnonzero((counts < self._least * rows) | (counts > self._most * rows))
        if wrong.size:
            raise ValueError(f"place {int(wrong[0])} holds {int(counts[wrong[0]])}, which {rows} rows cannot give")
        sums = np.concatenate(([0], np.cumsum(counts)))
        if (sums[self._ends] - sums[self._begins] != rows).any():
            raise ValueError(f"the bins of a feature do not add up to {rows} rows")


def _bounds(features: Sequence[Feature], blocks: Sequence[Block], size: int) -> tuple[Array, Array]:
    least, most = np.zeros(size, np.int64), np.ones(size, np.int64)
    for feature in features:
        least[feature.total], most[feature.total] = -FEATURE_MOST, FEATURE_MOST
        most[feature.square] = FEATURE_MOST**2
    for block in blocks:
        bound = BLOCK_MOST * int(block.members.shape[1])
        most[block.missing] = most[block.clipped] = len(block.center)
        for place, limit in ((block.total, bound), (block.outer, bound**2), (block.cos, COSINE_UNITS)):
            least[place], most[place] = -limit, limit
        least[block.sin], most[block.sin] = -COSINE_UNITS, COSINE_UNITS
    return least, most
