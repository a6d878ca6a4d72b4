"""What operators do with the artifact store: take versions from elsewhere, restore archived ones, sign, make room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.desired import Desired, read_desired
from gateway.control.model_control import model_key
from gateway.control.store import AuditEntry, Snapshot, Store
from gateway.control.version_uses import Named, entry_uses, named_in, uses_of
from gateway.errors import Conflict, StoreUnavailable, UnknownModel
from gateway.registry.blobs import BlobStore, Progress
from gateway.registry.catalogue import ModelDocument
from gateway.registry.collect import GRACE_S, CollectPlan, collect, plan
from gateway.registry.environments import EnvironmentEntry, Environments
from gateway.registry.loading import read_manifest
from gateway.registry.remote.cached import CachedBlobStore
from gateway.registry.retention import RetentionRule, surplus
from gateway.registry.transfer.ends import RemoteEnd
from gateway.registry.transfer.records import VersionRecord
from gateway.registry.verify import verify
from gateway.settings import Settings

__all__ = ["ArtifactControl", "GarbagePlan", "retention_rule"]

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GarbagePlan:
    """What would be freed, and why: ``releasing`` are versions whose files go by the rules of retention,
    ``environments`` those that no version needs whose files stay."""

    found: CollectPlan
    releasing: Mapping[str, tuple[int, ...]]
    environments: tuple[EnvironmentEntry, ...] = ()

    @property
    def free_bytes(self) -> int:
        return self.found.free_bytes + sum(entry.size_bytes for entry in self.environments)

    @property
    def empty(self) -> bool:
        return not (self.found.free or self.releasing or self.environments)

    @property
    def released(self) -> list[str]:
        return [f"{model}/{number}" for model, numbers in sorted(self.releasing.items()) for number in numbers]

    def to_json(self) -> View:
        environments = [entry.to_json() for entry in self.environments]
        return {**self.found.to_json(), "released": self.released, "environments": environments}


class ArtifactControl:
    """On the documents of ``store`` and the bytes of ``blobs``."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        clock: Clock,
        rule: RetentionRule | None = None,
        environments: Environments | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._rule = rule or RetentionRule()
        self._environments = environments
        self._changes = Changes(store)

    def __repr__(self) -> str:
        return f"<ArtifactControl of {self._blobs!r}>"

    async def records(self) -> list[VersionRecord]:
        """Of every version in the catalogue, as another store is told of it."""
        desired = read_desired(await self._store.snapshot(), Desired())
        return [VersionRecord(name, e) for name, model in sorted(desired.models.items()) for e in model.versions]

    async def aliases(self) -> dict[tuple[str, str], str]:
        """Model and alias, and the digest that it points at."""
        desired = read_desired(await self._store.snapshot(), Desired())
        return {
            (name, alias): model.version(number).digest
            for name, model in desired.models.items()
            for alias, number in model.aliases.items()
        }

    async def adopt(self, record: VersionRecord, *, origin: str, actor: str) -> View:
        """Takes a version into the catalogue whose bytes are here already; hold ``blobs.registering()`` around it and
        their arrival. The same digest again is the same version."""
        key, made = model_key(record.model), [0]

        def decide(snapshot: Snapshot) -> Decision:
            found = snapshot.documents.get(key)
            current = ModelDocument(record.model)
            if found is not None and found.body is not None:
                current = ModelDocument.from_json(found.body)
            document, made[0] = current.adopt(record.entry)
            detail = {"version": made[0], "digest": record.digest, "from": origin, "number_there": record.entry.number}
            return Decision(document.to_json(), AuditEntry(actor, "pull", str(key), "", detail))

        written = await self._changes.write(key, decide)
        view = {"model": record.model, "version": made[0], "digest": record.digest, "changed": written.changed}
        return view | {"number_there": record.entry.number, "revision": written.revision}

    async def restore(self, name: str, number: int, *, actor: str, expected: int | None = None) -> View:
        """Makes an archived version routable again. Conflict when its files are not all here."""
        model = _model(await self._store.snapshot(), name)
        entry = model.version(number)
        report = await asyncio.to_thread(verify, entry.digest, self._blobs)
        if not report.ok:
            missing = "; ".join(str(finding) for finding in report.findings if not finding.ok)
            freed = " Its files were given up by gc." if entry.released is not None else ""
            raise Conflict(
                f"{name}/{number} cannot be restored:{freed} {missing:.1000}. Bring them back first: turnout pull "
                f"STORE {name}@{entry.digest}, or register the version again from its source"
            )

        def decide(snapshot: Snapshot) -> Decision:
            audit = AuditEntry(actor, "unarchive", str(model_key(name)), "", {"version": number})
            return Decision(_model(snapshot, name).unarchive(number).to_json(), audit)

        written = await self._changes.write(model_key(name), decide, expected=expected)
        view = {"model": name, "version": number, "digest": entry.digest, "archived": False}
        return view | {"revision": written.revision}

    async def add_signature(self, name: str, number: int, bundle: bytes, *, by: str, actor: str) -> View:
        """Keeps a signature that was checked: ``by`` is the name of the key that it fits."""
        with self._blobs.registering():
            stored = await asyncio.to_thread(self._blobs.put_bytes, bundle)
            record = {"digest": stored.digest, "size_bytes": stored.size_bytes, "by": by, "at": self._clock.wall()}

            def decide(snapshot: Snapshot) -> Decision:
                document = _model(snapshot, name).with_signature(number, record)
                detail = {"version": number, "by": by, "signature": stored.digest}
                return Decision(document.to_json(), AuditEntry(actor, "sign", str(model_key(name)), "", detail))

            written = await self._changes.write(model_key(name), decide)
        return {"model": name, "version": number, "by": by, "signature": stored.digest, "revision": written.revision}

    async def garbage(self, *, grace_s: float = GRACE_S) -> GarbagePlan:
        """What could be freed now. Raises StoreUnavailable, IntegrityError: then it cannot be known."""
        desired, snapshot = await self._read()
        releasing = self._surplus(desired, snapshot)
        named = named_in(desired, snapshot, releasing)
        environments = await asyncio.to_thread(self._environments_of, named, grace_s)
        return GarbagePlan(await self._plan(named, grace_s), releasing, environments)

    async def free(self, shown: GarbagePlan, *, actor: str, progress: Progress | None = None) -> int:
        """Frees what was shown and is still not needed; the bytes freed. Raises Conflict while a registration is under
        way."""
        for name in shown.releasing:
            await self._release(name, shown.releasing[name], actor)
        desired, snapshot = await self._read()
        named = named_in(desired, snapshot)
        again = await self._plan(named, 0.0)
        freed = await asyncio.to_thread(self._remove, shown.environments, named)
        still = {entry.digest for entry in again.free}
        sure = replace(shown.found, free=tuple(entry for entry in shown.found.free if entry.digest in still))
        return freed + await asyncio.to_thread(collect, sure, self._blobs, progress)

    async def _plan(self, named: Named, grace_s: float) -> CollectPlan:
        return await asyncio.to_thread(self._planned, named, self._clock.wall(), grace_s)

    def _planned(self, named: Named, now: float, grace_s: float) -> CollectPlan:
        """What others have pushed to the same place is theirs."""
        manifests, beside = set(named.manifests), set(named.beside | named.released)
        if isinstance(self._blobs, CachedBlobStore):
            for record in RemoteEnd(self._blobs.remote).records():
                manifests.add(record.digest)
                beside |= record.beside
        return plan(manifests, self._blobs, now=now, grace_s=grace_s, beside=beside)

    def _environments_of(self, named: Named, grace_s: float) -> tuple[EnvironmentEntry, ...]:
        if self._environments is None:
            return ()
        locks = set()
        for digest in named.manifests:
            lock = read_manifest(digest, self._blobs).environment
            locks |= set() if lock is None else {lock.digest}
        return self._environments.unneeded(locks, now=self._clock.wall(), grace_s=grace_s)

    def _remove(self, shown: Iterable[EnvironmentEntry], named: Named) -> int:
        still = {entry.digest for entry in self._environments_of(named, 0.0)}
        if self._environments is None:
            return 0
        return sum(self._environments.remove(entry.digest) for entry in shown if entry.digest in still)

    async def _read(self) -> tuple[Desired, Snapshot]:
        snapshot = await self._store.snapshot()
        desired = read_desired(snapshot, Desired())
        damaged = sorted(str(key) for key in desired.unreadable)
        if damaged:
            raise StoreUnavailable(
                f"nothing was removed: {', '.join(damaged)} cannot be read, so what they need is not known"
            )
        return desired, snapshot

    def _surplus(self, desired: Desired, snapshot: Snapshot) -> Mapping[str, tuple[int, ...]]:
        uses, now = uses_of(desired, snapshot), self._clock.wall()
        found = {
            name: tuple(surplus(model, entry_uses(model, uses), self._rule, now=now))
            for name, model in desired.models.items()
        }
        return {name: numbers for name, numbers in found.items() if numbers}

    async def _release(self, name: str, numbers: Iterable[int], actor: str) -> None:
        """Those that are still used by nothing."""
        at = self._clock.wall()

        def decide(snapshot: Snapshot) -> Decision:
            desired = read_desired(snapshot, Desired())
            still = [number for number in self._surplus(desired, snapshot).get(name, ()) if number in set(numbers)]
            document = _model(snapshot, name)
            for number in still:
                document = document.release(number, {"at": at, "why": "retention"})
            return Decision(
                document.to_json(), AuditEntry(actor, "release", str(model_key(name)), "retention", {"versions": still})
            )

        await self._changes.write(model_key(name), decide)


def retention_rule(settings: Settings) -> RetentionRule:
    asked = settings.registry.retention
    return RetentionRule(asked.keep_last, asked.keep_days, asked.keep_tags)


def _model(snapshot: Snapshot, name: str) -> ModelDocument:
    found = snapshot.documents.get(model_key(name))
    if found is None or found.body is None:
        raise UnknownModel(f"no model {name!r:.140} is registered")
    return ModelDocument.from_json(found.body)
