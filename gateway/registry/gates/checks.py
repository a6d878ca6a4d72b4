"""Gates that need no answers of the version: its signature, its environment, its author."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.registry.gates.kinds import AuthorGate, EnvironmentGate, SignatureGate
from gateway.registry.gates.report import Finding, State

__all__ = ["author", "environment", "signature"]

SHOWN = 5


def signature(gate: SignatureGate, routes: Sequence[Mapping[str, Any]]) -> Finding:
    """``routes``: ``{"route", "version", "why"}`` each: why the version cannot stand in there, or nothing."""
    numbers = {"routes": [dict(one) for one in routes]}
    wrong = [
        f"on route {one['route']} it cannot stand in for {one['version']}: {one['why']}" for one in routes if one["why"]
    ]
    missing = sorted(set(gate.routes) - {str(one["route"]) for one in routes})
    wrong += [f"there is no route {name} of this model" for name in missing]
    if wrong:
        return Finding(gate.name, gate.kind, State.FAILED, "; ".join(wrong), numbers)
    if not routes:
        return Finding(gate.name, gate.kind, State.SKIPPED, "no route serves the model yet", numbers)
    names = ", ".join(str(one["route"]) for one in routes)
    return Finding(gate.name, gate.kind, State.PASSED, f"it takes and gives what is asked on {names}", numbers)


def environment(gate: EnvironmentGate, found: Mapping[str, Any]) -> Finding:
    """``found``: ``{"lock", "problem", "mismatches"}`` of the version's own environment; nothing where it has none."""
    lock = found.get("lock")
    if lock is None:
        said = "the version names no environment of its own"
        if gate.required:
            return Finding(gate.name, gate.kind, State.FAILED, f"{said}; register it with --environment")
        return Finding(gate.name, gate.kind, State.SKIPPED, said)
    wrong = found.get("mismatches") or []
    if found.get("problem") or wrong:
        said = found.get("problem") or f"its environment is not as its lock file says: {'; '.join(wrong[:SHOWN])}"
        return Finding(gate.name, gate.kind, State.FAILED, str(said), dict(found))
    return Finding(
        gate.name, gate.kind, State.PASSED, f"its environment {lock[:19]} is as its lock file says", dict(found)
    )


def author(gate: AuthorGate, signed: Mapping[str, Any]) -> Finding:
    """``signed``: ``{"by", "problem"}``: which of the authors has signed the manifest, or why none counts."""
    if signed.get("by") is None:
        said = str(signed.get("problem") or "its manifest is not signed")
        return Finding(gate.name, gate.kind, State.FAILED, said, dict(signed))
    return Finding(gate.name, gate.kind, State.PASSED, f"its manifest is signed by {signed['by']}", dict(signed))
