"""What the node tells a worker, as JSON and back: versions, routes in force, tokens, an engine's identity.

A field added to a spec or a policy crosses by itself, as long as it is plain data.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from gateway.control.desired import DesiredRoute
from gateway.control.documents import RouteDocument
from gateway.control.plan import InForce
from gateway.messages import Array, Arrays, Signature, VersionRef
from gateway.serving.cost import CostCurve
from gateway.serving.counts import CountingPlan
from gateway.serving.engine import BatchPolicy, EngineInfo, VersionSpec
from gateway.serving.warmup import Warmth
from runtimes.base import LoadSpec

__all__ = [
    "WarmVersion",
    "info_from_json",
    "info_to_json",
    "reference_from_json",
    "reference_to_json",
    "route_from_json",
    "route_to_json",
]

_FORMED = frozenset({"ref", "load", "batch", "example", "profile"})


@dataclass(frozen=True, slots=True)
class WarmVersion:
    """A version that is active at the node: all that a worker needs to serve it, too."""

    spec: VersionSpec
    warmth: Warmth

    def to_json(self) -> dict[str, Any]:
        spec, warmth = self.spec, self.warmth
        plain = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in _FORMED}
        return {
            **plain,
            "ref": reference_to_json(spec.ref),
            "load": spec.load.to_json(),
            "batch": asdict(spec.batch),
            "example": None if spec.example is None else {k: _array_to_json(a) for k, a in spec.example.items()},
            # A child counts for its owner; what runs inside a worker is counted there.
            "profile": list(spec.profile) if spec.profile is not None and spec.placement == "inline" else None,
            "warmth": {"points": list(warmth.curve.points), "max_rows": warmth.max_rows, "cold_s": warmth.cold_s},
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> WarmVersion:
        plain = {field.name: _frozen(body[field.name]) for field in fields(VersionSpec) if field.name not in _FORMED}
        example: Arrays | None = None
        if body["example"] is not None:
            example = {name: _array_from_json(array) for name, array in body["example"].items()}
        spec = VersionSpec(
            ref=reference_from_json(body["ref"]),
            load=LoadSpec.from_json(body["load"]),
            batch=BatchPolicy(**body["batch"]),
            example=example,
            profile=None if body["profile"] is None else CountingPlan(*body["profile"]),
            **plain,
        )
        warmth = body["warmth"]
        points = tuple((int(rows), float(seconds)) for rows, seconds in warmth["points"])
        return cls(spec, Warmth(CostCurve(points), warmth["max_rows"], warmth["cold_s"]))


def reference_to_json(ref: VersionRef) -> list[Any]:
    return [ref.model, ref.number]


def reference_from_json(body: Any) -> VersionRef:
    """Raises ValueError: this one also comes from workers."""
    if not (isinstance(body, list) and len(body) == 2 and isinstance(body[0], str) and isinstance(body[1], int)):
        raise ValueError(f"expected a version as [model, number], got {body!r:.100}")
    return VersionRef(body[0], body[1])


def route_to_json(in_force: InForce) -> dict[str, Any]:
    desired = in_force.desired
    return {"revision": desired.revision, "local": desired.local, "document": desired.document.to_json()}


def route_from_json(body: Mapping[str, Any]) -> DesiredRoute:
    return DesiredRoute(body["revision"], RouteDocument.from_json(body["document"]), body["local"])


def info_to_json(info: EngineInfo) -> dict[str, Any]:
    plain = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "signature"}
    return {**plain, "loaded": dict(info.loaded), "signature": info.signature.to_json()}


def info_from_json(body: Mapping[str, Any]) -> EngineInfo:
    return EngineInfo(**{**body, "signature": Signature.from_json(body["signature"])})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _array_to_json(array: Array) -> dict[str, Any]:
    if array.dtype.kind == "O":
        octets = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
        return {"shape": list(array.shape), "strings": [base64.b64encode(item).decode() for item in octets]}
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.str, "data": data}


def _array_from_json(body: Mapping[str, Any]) -> Array:
    if "strings" in body:
        values = np.empty(len(body["strings"]), dtype=object)
        values[:] = [base64.b64decode(item) for item in body["strings"]]
        return values.reshape(body["shape"])
    return np.frombuffer(base64.b64decode(body["data"]), np.dtype(body["dtype"])).reshape(body["shape"])
