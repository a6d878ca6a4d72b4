"""Reads a stored profile: what is counted with, what live counts are compared with, and what people are told.

Apart from computing one, which a process of its own does: the gateway keeps what it has imported for all its life.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.errors import RegistryError
from gateway.messages import Array
from runtimes.counting import Plan
from runtimes.counting_profile import Profile

__all__ = ["plan_of", "read_profile", "summary"]

_NOT_COUNTED_WITH = ("reference", "segments", "spreads")


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
