"""Versions loaded by name, without a route: what the protocol's model repository extension asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.control.changes import Changes, Decision
from gateway.control.desired import Desired, read_desired
from gateway.control.documents import ResidentDocument
from gateway.control.model_control import users_of
from gateway.control.reconcile import Reconciler
from gateway.control.store import AuditEntry, DocumentKey, Snapshot, Store
from gateway.errors import Conflict, InvalidInput, LoadError, RegistryError, UnknownModel, UnknownVersion
from gateway.messages import VersionRef
from gateway.registry.catalogue import ModelDocument
from gateway.registry.names import split_reference

__all__ = ["Listed", "Residents"]

TAKE_S = 5.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A registered version and how it stands here: ``state`` of its handle, else ``registered`` or ``archived``."""

    ref: VersionRef
    state: str
    reason: str


class Residents:
    """``reference`` is a model, or one version of it: ``digits``, ``digits/5``, ``digits@champion``. A route's
    name stands for its model. ``load_timeout_s``: how long ``load`` waits."""

    def __init__(self, store: Store, reconciler: Reconciler, *, load_timeout_s: float = 120.0) -> None:
        self._store = store
        self._reconciler = reconciler
        self._load_timeout_s = load_timeout_s
        self._changes = Changes(store)

    async def index(self) -> Sequence[Listed]:
        desired = self._reconciler.desired
        return [
            self._listed(VersionRef(model.name, entry.number), archived=entry.archived)
            for _, model in sorted(desired.models.items())
            for entry in model.versions
        ]

    def _listed(self, ref: VersionRef, *, archived: bool) -> Listed:
        handle = self._reconciler.fleet.handles.get(ref)
        if handle is not None:
            return Listed(ref, str(handle.state), handle.reason)
        failure = self._reconciler.failure(ref)
        if failure is not None:
            return Listed(ref, "failed", failure)
        return Listed(ref, "archived" if archived else "registered", "not loaded")

    async def load(self, reference: str, *, actor: str) -> VersionRef:
        """Returns when the version (of a model alone: the newest) is warm here; from then on it is kept loaded.

        Raises UnknownModel, UnknownVersion, Conflict (archived), or LoadError: then it is not kept.
        """
        desired = read_desired(await self._store.snapshot(), self._reconciler.desired)
        ref = _resolved(desired, reference)
        made = ref not in desired.residents and await self._write(ref, actor, "load")
        if await self._reconciler.wait_active(ref, timeout_s=self._load_timeout_s):
            return ref
        reason = self._reconciler.failure(ref) or f"it was not loaded within {self._load_timeout_s:g} s"
        if made:
            await self._write(ref, actor, "unload", reason="it could not be loaded")
        raise LoadError(f"{ref} cannot be loaded: {reason}")

    async def unload(self, reference: str, *, actor: str) -> None:
        """Returns when the version (of a model alone: every one loaded by name) is gone from here.

        Raises UnknownModel, UnknownVersion, and Conflict while a route uses it.
        """
        desired = read_desired(await self._store.snapshot(), self._reconciler.desired)
        for ref in _loaded(desired, reference):
            await self._write(ref, actor, "unload")
            await self._reconciler.wait_gone(ref, timeout_s=self._load_timeout_s)

    async def _write(self, ref: VersionRef, actor: str, action: str, reason: str = "") -> bool:
        document = ResidentDocument(ref.model, ref.number)

        def decide(snapshot: Snapshot) -> Decision:
            body = document.to_json() if action == "load" else None
            if body is None and action == "unload" and not reason:
                _require_unused(read_desired(snapshot, Desired()), ref)
            return Decision(body, AuditEntry(actor, action, str(document.key), reason))

        written = await self._changes.write(document.key, decide)
        await self._reconciler.wait_seen(written.revision, timeout_s=TAKE_S)
        return written.changed


def _require_unused(desired: Desired, ref: VersionRef) -> None:
    used = users_of(desired, ref)
    if used:
        raise Conflict(f"{ref} is used by {', '.join(used)} and stays loaded; take it out there first")


def _loaded(desired: Desired, reference: str) -> Sequence[VersionRef]:
    """What a reference means to ``unload``."""
    name, selector = _parts(reference)
    model = _model(desired, name)
    if selector is not None:
        ref = VersionRef(model.name, model.resolve(selector).number)
        _require_unused(desired, ref)
        return (ref,) if ref in desired.residents else ()
    for entry in model.versions:
        _require_unused(desired, VersionRef(model.name, entry.number))
    return sorted(ref for ref in desired.residents if ref.model == model.name)


def _resolved(desired: Desired, reference: str) -> VersionRef:
    """What a reference means to ``load``."""
    name, selector = _parts(reference)
    model = _model(desired, name)
    if selector is None:
        usable = [entry.number for entry in model.versions if not entry.archived]
        if not usable:
            raise UnknownVersion(f"model {model.name!r} has no version that can be loaded")
        return VersionRef(model.name, usable[-1])
    entry = model.resolve(selector)
    if entry.archived:
        raise Conflict(f"{model.name}/{entry.number} is archived and no longer loaded; name another version")
    return VersionRef(model.name, entry.number)


def _parts(reference: str) -> tuple[str, str | None]:
    if "/" not in reference and "@" not in reference:
        return reference, None
    try:
        return split_reference(reference)
    except RegistryError as error:
        raise InvalidInput(str(error)) from None


def _model(desired: Desired, name: str) -> ModelDocument:
    model = desired.models.get(name)
    if model is None and name in desired.routes:
        model = desired.models.get(desired.routes[name].document.spec.model)
    if model is None:
        why = desired.unreadable.get(DocumentKey("model", name))
        known = ", ".join(sorted(desired.models)) or "none yet"
        raise UnknownModel(why or f"no model {name!r:.140} is registered; registered are {known}")
    return model
