"""The reference profile of a version: computed once, when it is registered, and a blob like any other.

Two passes over the data: the first freezes bins and projections, the second counts the reference itself. Outputs are
the version's own answers, given in a process of its own while the first pass goes on, unless the data holds them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration, RegistryError
from gateway.messages import Array, Signature
from gateway.registry import canonical
from gateway.registry.answering import Answering, Spool
from gateway.registry.profile_data import Batch, Reference, open_reference
from runtimes.base import LoadSpec
from runtimes.counting import Plan
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_rows import flattened
from runtimes.counting_sketch import Sketch

__all__ = ["MAX_PROFILE_BYTES", "compute_profile", "plan_of", "read_profile", "summary"]

SEED = 1
MAX_PROFILE_BYTES = 64 << 20
_NOT_COUNTED_WITH = ("reference", "segments", "spreads")

Progress = Callable[[int], None]
"""Told how many rows have been read so far, of both passes."""


def compute_profile(
    path: Path,
    signature: Signature,
    spec: LoadSpec | None,
    *,
    interpreter: str | None = None,
    timeout_s: float = 120.0,
    seed: int = SEED,
) -> bytes:
    """The profile's canonical JSON: the same data, version and seed give the same bytes.

    ``spec`` None: the version is not asked, and only outputs that the data holds are counted. ``timeout_s`` bounds the
    version's loading, and each batch. InvalidRegistration for data that does not fit, TrialFailed for a version that
    does not answer it.
    """
    reference = open_reference(path, signature)
    with ExitStack() as stack:
        spool = None
        if spec is not None and not reference.answered:
            answering = stack.enter_context(Answering(spec, signature, interpreter, timeout_s))
            spool = stack.enter_context(Spool(answering, signature))
        sketch = Sketch(signature, seed=seed, names=reference.names)
        for inputs, outputs in _first(reference, spool):
            sketch.add(flattened(inputs, outputs))
        try:
            body = sketch.frozen()
            reckoning = Reckoning(body, sketch.rows)
            for inputs, outputs in _again(reference, spool):
                reckoning.add(flattened(inputs, outputs))
            return canonical.dumps(reckoning.finished())
        except ValueError as error:
            raise InvalidRegistration(f"reference {path}: {error}") from error


def _first(reference: Reference, spool: Spool | None) -> Iterator[Batch]:
    for inputs, outputs in reference.batches():
        yield inputs, outputs if spool is None else spool.ask(inputs)


def _again(reference: Reference, spool: Spool | None) -> Iterator[Batch]:
    kept = None if spool is None else spool.again()
    for inputs, outputs in reference.batches():
        yield inputs, outputs if kept is None else next(kept)


def read_profile(data: bytes, digest: str = "") -> Profile:
    """RegistryError for what is no profile."""
    try:
        return Profile.from_json(_body(data), digest)
    except ValueError as error:
        raise RegistryError(f"profile {digest[:19]}: {error}") from error


def plan_of(data: bytes) -> str:
    """What counting needs of a profile: the features and blocks, without the reference's counts. RegistryError."""
    body = _body(data)
    try:
        Plan.from_json(body)
    except ValueError as error:
        raise RegistryError(f"the stored profile: {error}") from error
    return json.dumps({name: value for name, value in body.items() if name not in _NOT_COUNTED_WITH})


def _body(data: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise RegistryError(f"the stored profile is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise RegistryError("the stored profile is no object")
    return body


def summary(profile: Profile) -> dict[str, Any]:
    """A profile in a few words: for ``turnout show``."""
    features = []
    for feature in profile.plan.features:
        counts: Array = profile.reference
        told: dict[str, Any] = {
            "name": feature.name,
            "side": feature.side,
            "kind": feature.kind,
            "bins": feature.bins,
            "missing": int(counts[feature.missing]),
        }
        if feature.kind == "text":
            told["values"] = len(feature.values)
        else:
            told |= {"lowest": feature.lowest, "highest": feature.highest}
        features.append(told)
    blocks = [
        {"name": block.name, "columns": len(block.center), "dimensions": block.dimensions, "waves": block.waves}
        for block in profile.plan.blocks
    ]
    return {
        "rows": profile.rows,
        "exact": profile.told.get("sampled_rows") == profile.rows,
        "sampled_rows": profile.told.get("sampled_rows"),
        "skipped": dict(profile.told.get("skipped", {})),
        "features": features,
        "blocks": blocks,
    }
