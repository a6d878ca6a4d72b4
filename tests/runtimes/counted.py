"""Profiles for tests of counting: made of arrays in a moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtimes.base import Array
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_rows import flattened
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature, TensorSpec, datatype_of

__all__ = ["profile_body", "profile_of", "signature_of"]


def signature_of(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Signature:
    def specs(tensors: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, datatype_of(a), ("batch", *a.shape[1:])) for name, a in tensors.items())

    return Signature(specs(inputs), specs(outputs))


def profile_body(inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> dict[str, Any]:
    """The JSON of a profile of these rows."""
    given = outputs or {}
    tensors = flattened(inputs, given)
    sketch = Sketch(signature_of(inputs, given))
    sketch.add(tensors)
    reckoning = Reckoning(sketch.frozen(), sketch.rows)
    reckoning.add(tensors)
    return reckoning.finished()


def profile_of(inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> Profile:
    return Profile.from_json(profile_body(inputs, outputs), "sha256:test")


def rows_of(count: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
