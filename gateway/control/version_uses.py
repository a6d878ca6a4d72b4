"""What uses which version, and which blobs are named at all: read off one snapshot of desired state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.control.desired import Desired
from gateway.control.rollout_report import REPORT
from gateway.control.store import Snapshot
from gateway.messages import VersionRef
from gateway.registry.catalogue import ModelDocument
from gateway.registry.naming import digests_in

__all__ = ["Named", "entry_uses", "named_in", "uses_of"]


@dataclass(frozen=True, slots=True)
class Named:
    """``manifests``: of versions with all their files; ``released``: of versions without; ``beside``: every
    other digest that any document names."""

    manifests: frozenset[str] = frozenset()
    released: frozenset[str] = frozenset()
    beside: frozenset[str] = field(default=frozenset())


def uses_of(desired: Desired, snapshot: Snapshot) -> Mapping[VersionRef, list[str]]:
    """In words, by version: aliases, targets, routes (arms, rules, shadows, fallback, known good, a rollout under way),
    explicit loads, and the reports of rollouts that are kept."""
    found: dict[VersionRef, list[str]] = {}

    def use(model: str, numbers: Iterable[int], what: str) -> None:
        for number in numbers:
            found.setdefault(VersionRef(model, number), []).append(what)

    for name, model in desired.models.items():
        for alias, number in model.aliases.items():
            use(name, [number], f"@{alias}")
        for target, state in model.targets.items():
            use(name, {*state.admitted, *([] if state.number is None else [state.number])}, f"target {target}")
    for name, route in desired.routes.items():
        use(route.document.spec.model, route.document.named(), f"route {name}")
    for ref in desired.residents:
        use(ref.model, [ref.number], "an explicit load")
    for key, document in snapshot.documents.items():
        body = document.body
        if key.kind == REPORT and body is not None:
            use(body["model"], {int(body["candidate"]), int(body["baseline"])}, f"the report of rollout {key.name}")
    return found


def named_in(desired: Desired, snapshot: Snapshot, releasing: Mapping[str, Iterable[int]] | None = None) -> Named:
    """``releasing``: versions to be taken as released already, by model."""
    manifests: set[str] = set()
    released: set[str] = set()
    for name, model in desired.models.items():
        going = set((releasing or {}).get(name, ()))
        for entry in model.versions:
            gone = entry.released is not None or entry.number in going
            (released if gone else manifests).add(entry.digest)
    bodies = [document.body for document in snapshot.documents.values() if document.body is not None]
    every = frozenset().union(*map(digests_in, bodies))
    return Named(frozenset(manifests), frozenset(released - manifests), every - manifests - released)


def entry_uses(model: ModelDocument, uses: Mapping[VersionRef, list[str]]) -> dict[int, list[str]]:
    return {entry.number: uses.get(VersionRef(model.name, entry.number), []) for entry in model.versions}
