"""What a training ran with: parameters and seeds as recorded, and how this machine and interpreter differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import RegistryError
from gateway.registry.lineage.environment import lock_digest
from gateway.registry.lineage.interpreters import environment_of
from gateway.registry.lineage.places import Kinds
from gateway.registry.lineage.reproduction.asked import MAX_TOLD, Check

__all__ = ["environment_again", "parameters_again"]

Json = Mapping[str, Any]


def parameters_again(kinds: Kinds) -> list[Check]:
    values, seeds = kinds.parameters.values, kinds.parameters.seeds
    if not values and not seeds:
        return [Check("parameters", "unknown", "no parameters were recorded")]
    seeded = "" if seeds else ", and no seed: training again will not give the same bytes unless nothing is drawn"
    return [Check("parameters", "ok", f"{len(values)} values, {len(seeds)} seeds{seeded}")]


def environment_again(kinds: Kinds, interpreter: str) -> Iterator[Check]:
    recorded = kinds.environment
    if not recorded.packages and recorded.python is None:
        yield Check("environment", "unknown", "no environment was recorded")
        return
    if recorded.lock is not None and recorded.packages and lock_digest(dict(recorded.packages)) != recorded.lock:
        yield Check("environment lock", "differs", f"{recorded.lock} → {lock_digest(dict(recorded.packages))}")
    try:
        here = environment_of(interpreter)
    except RegistryError as error:
        yield Check("environment", "unknown", str(error))
        return
    yield _same("environment python", recorded.python, here.python)
    wrong = [
        f"{name} {version} → {here.packages.get(name, 'not installed')}"
        for name, version in recorded.packages.items()
        if here.packages.get(name) != version and here.packages.get(name.replace("_", "-").lower()) != version
    ]
    told = "; ".join(wrong[:MAX_TOLD]) + (f"; and {len(wrong) - MAX_TOLD} more" if len(wrong) > 20 else "")
    yield Check(
        "environment packages", "differs" if wrong else "ok", told or f"all {len(recorded.packages)} as they were"
    )
    for name in ("os", "machine"):
        yield _same(f"environment {name}", getattr(recorded, name), getattr(here, name))
    yield _same("environment cpu", _features(recorded.cpu), _features(here.cpu))
    yield _same("environment cuda", dict(recorded.cuda or {}) or None, dict(here.cuda or {}) or None)


def _features(cpu: Json) -> str | None:
    return " ".join(map(str, cpu["features"])) if cpu.get("features") else None


def _same(what: str, recorded: Any, here: Any) -> Check:
    if recorded is None:
        return Check(what, "unknown", "not recorded") if here is not None else Check(what, "ok", "none then, none here")
    return Check(what, "ok", str(here)) if recorded == here else Check(what, "differs", f"{recorded} → {here}")
