"""What operators do with models: register versions, name them, take them out of routing, free what nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.desired import Desired, read_desired
from gateway.control.gatekeeping import Gatekeeper, OpenGate, Override, compares_with
from gateway.control.store import AuditEntry, DocumentKey, Snapshot, Store
from gateway.errors import Conflict, IntegrityError, RegistryError, StoreUnavailable, UnknownModel
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore, Progress
from gateway.registry.catalogue import KnownModel, ModelDocument
from gateway.registry.collect import GRACE_S, collect, plan
from gateway.registry.environments import Told
from gateway.registry.loading import read_manifest
from gateway.registry.manifest import Manifest
from gateway.registry.names import check_model_name
from gateway.registry.profile_reading import read_profile, summary
from gateway.registry.registration import Permissions, Prepared, RegistrationOptions, prepare_version

__all__ = ["ModelControl", "model_key", "users_of"]

REGISTRATIONS_AT_ONCE = 2
"""Each takes a thread for as long as its environment is built and its version tried, up to minutes. With one for gc,
the threads are their own: on those that everybody shares large bodies of requests are inflated."""

View = dict[str, Any]


class ModelControl:
    """``permissions``: what the settings allow at registration. ``gates``: who is asked before an alias moves.
    ``targets``: names of targets, whose aliases move with promotions alone."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        clock: Clock,
        permissions: Permissions | None = None,
        gates: Gatekeeper | None = None,
        targets: Collection[str] = (),
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._targets = frozenset(targets)
        self._clock = clock
        self._permissions = permissions or Permissions()
        self._gates = gates or OpenGate()
        self._changes = Changes(store)
        self._last: KnownModel | None = None  # what was registered last: the next is mostly of that model
        self._preparing = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)
        self._threads = ThreadPoolExecutor(REGISTRATIONS_AT_ONCE + 1, thread_name_prefix="turnout-register")

    async def list(self) -> Sequence[View]:
        snapshot = await self._store.snapshot()
        names = sorted(key.name for key in snapshot.documents if key.kind == "model")
        return [_model_view(snapshot, name) for name in names]

    async def get(self, name: str) -> View:
        return _model_view(await self._about(name), name)

    async def _about(self, name: str) -> Snapshot:
        """The model's document alone, where it is there; all of them to tell which are, where it is not."""
        key = model_key(name)
        found = await self._store.read(key)
        return await self._store.snapshot() if found is None else Snapshot(found.revision, {key: found})

    async def resolve(self, name: str, selector: str) -> VersionRef:
        """``3``, ``@champion`` or ``@sha256:…``. Raises UnknownModel, UnknownVersion."""
        return VersionRef(name, _model(await self._about(name), name).resolve(selector).number)

    async def version(self, name: str, selector: str) -> View:
        """Everything known of a version, its manifest included. IntegrityError when that is damaged."""
        model = _model(await self._about(name), name)
        entry = model.resolve(selector)
        manifest = await asyncio.to_thread(read_manifest, entry.digest, self._blobs)
        return {
            "model": name,
            "version": entry.number,
            **entry.to_json(),
            "aliases": list(model.aliases_of(entry.number)),
            "manifest": manifest.to_json(),
            "profiled": await asyncio.to_thread(self._profiled, manifest, entry.profile),
        }

    def _profiled(self, manifest: Manifest, used: str | None) -> View | None:
        """What the profile in use says in a few words: the manifest's, unless a captured one was chosen."""
        computed = None if manifest.profile is None else manifest.profile.computed
        digest = used or (None if computed is None else computed.digest)
        if digest is None:
            return None
        try:
            return {"digest": digest, **summary(read_profile(self._blobs.read(digest), digest))}
        except (IntegrityError, RegistryError) as error:
            return {"digest": digest, "problem": str(error)}

    async def register(
        self,
        model: str,
        source: str | Path,
        options: RegistrationOptions,
        *,
        actor: str,
        progress: Progress | None = None,
        told: Told | None = None,
    ) -> View:
        """Stores a version and gives its number; the same bytes and manifest again give the same version.

        Raises InvalidRegistration, RegistryError, StoreUnavailable: then nothing is registered. Cancelling
        it leaves at most blobs that nobody refers to, which gc removes.
        """
        with self._blobs.registering():
            prepared = await self._prepared(
                partial(
                    prepare_version,
                    *(model, source, options, self._blobs, progress),
                    permissions=self._permissions,
                    told=told,
                )
            )
            digest, key = prepared.manifest.digest, model_key(model)
            imported, tags = _imported(prepared, self._clock), {**prepared.tags, **options.tags}
            made: list[tuple[int, bool]] = []

            def decide(snapshot: Snapshot) -> Decision:
                current = _optional(snapshot, model, self._last) or ModelDocument(check_model_name(model))
                current.refuse_overwritten(digest, imported)
                document, number = current.add_version(
                    digest, created_at=self._clock.wall(), tags=tags, imported=imported
                )
                made[:] = [(number, document is not current)]
                if document is current and options.tags:
                    document = document.with_tags(number, options.tags)
                detail = {"version": number, "digest": digest}
                if imported is not None:
                    detail["imported"] = imported
                body = document.to_json()
                self._last = KnownModel(body, document)
                return Decision(body, AuditEntry(actor, "register", str(key), "", detail))

            written = await self._changes.write(key, decide)
        number, created = made[0]
        return {
            "model": model,
            "version": number,
            "digest": digest,
            "created": created,
            "revision": written.revision,
            **({} if imported is None else {"imported": imported, "remarks": list(prepared.remarks)}),
        }

    async def _prepared(self, work: Callable[[], Prepared]) -> Prepared:
        """In a thread, whose place is taken until it has ended: a client that gives up over a long build and asks again
        waits for the one that is under way, and takes no further thread."""
        await self._preparing.acquire()
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    def _ended(self, running: asyncio.Future[Prepared]) -> None:
        self._preparing.release()
        if not running.cancelled():
            running.exception()  # nobody may be left who waits for it

    async def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        actor: str,
        expected: int | None = None,
        override: Override | None = None,
    ) -> View:
        """Once the version has passed the model's gates, which may take minutes; GateRefused when it does not."""
        self._refuse_target(alias, f"promote: turnout promote {name}/{version} --to {alias}")
        _model(await self._store.snapshot(), name).set_alias(alias, version)  # what cannot be is refused at once
        passed = await self._gates.require(name, version, purpose=f"alias:{alias}", override=override, actor=actor)
        detail = {"alias": alias, "version": version, **passed.detail()}
        entry = AuditEntry(actor, "alias", str(model_key(name)), "" if override is None else override.reason, detail)

        def step(model: ModelDocument) -> ModelDocument:
            passed.check(model, version)
            return model.set_alias(alias, version)

        return await self._change(name, step, entry, expected)

    async def drop_alias(self, name: str, alias: str, *, actor: str, expected: int | None = None) -> View:
        self._refuse_target(alias, f"demote what stands there: turnout demote {name}/VERSION --from {alias}")
        entry = AuditEntry(actor, "alias-drop", str(model_key(name)), "", {"alias": alias})

        def step(model: ModelDocument) -> ModelDocument:
            if alias in model.aliases and compares_with(model, alias):
                raise Conflict(
                    f"gates of {name} compare its versions with @{alias}, and would pass any without; move it to "
                    f"another version, or have an administrator change the gates first (turnout gates {name} -f FILE)"
                )
            return model.drop_alias(alias)

        return await self._change(name, step, entry, expected)

    def _refuse_target(self, alias: str, instead: str) -> None:
        if alias in self._targets:
            raise Conflict(f"{alias} is a target, and the alias of that name moves with what stands there; {instead}")

    async def archive(self, name: str, version: int, *, actor: str, expected: int | None = None) -> View:
        """Conflict while a route, a resident or an alias uses the version."""
        key = model_key(name)

        def decide(snapshot: Snapshot) -> Decision:
            model = _model(snapshot, name)
            document = model.archive(version)
            desired, ref = read_desired(snapshot, Desired()), VersionRef(name, version)
            used = users_of(desired, ref) + (["an explicit load"] if ref in desired.residents else [])
            if used and document != model:
                raise Conflict(
                    f"{ref} is used by {', '.join(used)}; take it out there first (arms of weight 0, rules, fallback "
                    "and known good count too), then archive it"
                )
            entry = AuditEntry(actor, "archive", str(key), "", {"version": version})
            return Decision(document.to_json(), entry)

        await self._changes.write(key, decide, expected=expected)
        return await self.get(name)

    async def collect(self, *, apply: bool, grace_s: float = GRACE_S) -> View:
        """What no version refers to; freed if ``apply``."""
        snapshot = await self._store.snapshot()
        desired = read_desired(snapshot, Desired())
        damaged = sorted(key.name for key in desired.unreadable if key.kind == "model")
        if damaged:
            raise StoreUnavailable(f"nothing was removed: models {', '.join(damaged)} cannot be read")
        digests = [entry.digest for model in desired.models.values() for entry in model.versions]
        beside = [held["digest"] for model in desired.models.values() for e in model.versions for held in e.profiles]
        now = self._clock.wall()
        look = partial(plan, digests, self._blobs, now=now, grace_s=grace_s, beside=beside)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, look)
        freed = await loop.run_in_executor(self._threads, collect, found, self._blobs) if apply else 0
        return found.to_json() | {"freed_bytes": freed}

    async def _change(
        self,
        name: str,
        step: Callable[[ModelDocument], ModelDocument],
        entry: AuditEntry,
        expected: int | None,
    ) -> View:
        def decide(snapshot: Snapshot) -> Decision:
            return Decision(step(_model(snapshot, name)).to_json(), entry)

        await self._changes.write(model_key(name), decide, expected=expected)
        return await self.get(name)


def _imported(prepared: Prepared, clock: Clock) -> View | None:
    return None if prepared.imported is None else {**prepared.imported, "at": clock.wall()}


def model_key(name: str) -> DocumentKey:
    return DocumentKey("model", name)


def users_of(desired: Desired, ref: VersionRef) -> list[str]:
    """The routes that name the version. One that only holds it in quarantine does not."""
    routes = [
        f"route {name}"
        for name, route in desired.routes.items()
        if route.document.spec.model == ref.model and ref.number in route.document.named()
    ]
    unreadable = [str(key) for key in desired.unreadable if key.kind == "route"]
    return routes + [f"{key} (which cannot be read)" for key in unreadable]


def _optional(snapshot: Snapshot, name: str, known: KnownModel | None = None) -> ModelDocument | None:
    found = snapshot.documents.get(model_key(name))
    return None if found is None or found.body is None else ModelDocument.from_json(found.body, known=known)


def _model(snapshot: Snapshot, name: str) -> ModelDocument:
    found = _optional(snapshot, name)
    if found is None:
        known = ", ".join(sorted(key.name for key in snapshot.documents if key.kind == "model")) or "none yet"
        raise UnknownModel(f"no model {name!r:.140} is registered; registered are {known}")
    return found


def _model_view(snapshot: Snapshot, name: str) -> View:
    model = _model(snapshot, name)
    return {
        "model": model.name,
        "name": model.name,
        "revision": snapshot.documents[model_key(name)].revision,
        "versions": [{"version": entry.number, **entry.to_json()} for entry in model.versions],
        "aliases": dict(model.aliases),
        "notes": model.notes,
    }
