"""Profiles of live rows: captured where the rows run, kept beside the version, and used when an operator says so.

A version cannot change, so what is captured later is a blob that its catalogue entry names. Which profile its traffic
is counted with, the manifest's or one of these, is a word in that entry too, and each replica follows it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.desired import Desired, read_desired
from gateway.control.model_control import model_key
from gateway.control.store import AuditEntry, Snapshot, Store
from gateway.errors import Conflict, InvalidRegistration, NotFound, TurnoutError, UnknownModel, VersionUnavailable
from gateway.messages import VersionRef
from gateway.registry import canonical
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry, ModelDocument
from gateway.registry.loading import read_manifest
from gateway.registry.profile_reading import plan_of, read_profile, summary
from gateway.serving.counts import CountingPlan
from gateway.serving.fleet import Fleet

__all__ = ["MOST_ROWS", "ProfileControl"]

log = logging.getLogger("turnout.control")

MOST_ROWS = 1_000_000
_SEED = 1

View = dict[str, Any]
_Change = Callable[[ModelDocument], ModelDocument]


@dataclass(slots=True)
class _Capture:
    """One under way, or the last one. ``problem`` says why it came to nothing."""

    route: str
    rows: int
    since: float
    task: asyncio.Task[None] | None = None
    problem: str = ""

    def to_json(self) -> View:
        state = "failed" if self.problem else "running" if self.task is not None and not self.task.done() else "done"
        return {"state": state, "route": self.route, "rows": self.rows, "since": self.since, "problem": self.problem}


class ProfileControl:
    """``follow`` is told whenever the desired state may have changed. ``counted``: versions count with the profiles
    that are chosen for them, since somebody watches."""

    def __init__(self, store: Store, blobs: BlobStore, fleet: Fleet, *, clock: Clock, counted: bool = True) -> None:
        self._store = store
        self._blobs = blobs
        self._fleet = fleet
        self._clock = clock
        self._counted = counted
        self._changes = Changes(store)
        self._captures: dict[VersionRef, _Capture] = {}
        # What each version that is here shall be counted with, as far as that has been tried.
        self._followed: dict[VersionRef, tuple[str, int]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<ProfileControl [{len(self._captures)} captures]>"

    async def get(self, model: str, selector: str) -> View:
        """The profiles of a version, the one that is used in words, and a capture under way here."""
        entry = _entry(await self._store.snapshot(), model, selector)
        ref = VersionRef(model, entry.number)
        handle, capture = self._fleet.handles.get(ref), self._captures.get(ref)
        counted = None if handle is None or handle.spec.profile is None else handle.spec.profile.digest
        shown = entry.profile or counted
        told = None if shown is None else await asyncio.to_thread(self._summary, shown)
        return {
            "model": model,
            "version": entry.number,
            "used": entry.profile,
            "counted": counted,
            "captured": canonical.thaw(entry.profiles),
            "capture": None if capture is None else capture.to_json(),
            "profile": told,
        }

    async def capture(self, model: str, selector: str, *, route: str, rows: int, use: bool, actor: str) -> View:
        """Begins to make a profile of the rows that the version runs on this replica from now on: the first ``rows``
        freeze the bins, as many more are counted. Conflict while one is under way, or if the route does not name it."""
        if not 100 <= rows <= MOST_ROWS:
            raise InvalidRegistration(f"a profile of {rows} rows; expected 100 to {MOST_ROWS}")
        snapshot = await self._store.snapshot()
        ref = VersionRef(model, _entry(snapshot, model, selector).number)
        _require_served(read_desired(snapshot, Desired()), route, ref)
        running = self._captures.get(ref)
        if running is not None and running.task is not None and not running.task.done():
            raise Conflict(f"a profile of {ref} is being captured already, of {running.rows} rows; wait for its end")
        handle = self._fleet.handles.get(ref)
        if handle is None:
            raise VersionUnavailable(f"{ref} is not loaded here; ask a replica that serves it")
        capture = self._captures[ref] = _Capture(route, rows, self._clock.wall())
        capture.task = asyncio.ensure_future(self._made(ref, capture, use, actor))
        return await self.get(model, str(ref.number))

    async def use(self, model: str, selector: str, digest: str | None, *, actor: str) -> View:
        """From now on the version's traffic is counted with this captured profile; None: with the manifest's."""
        entry = _entry(await self._store.snapshot(), model, selector)
        ref = VersionRef(model, entry.number)
        await self._write(
            ref, lambda held: held.use_profile(ref.number, digest), actor, "profile-use", {"digest": digest}
        )
        return await self.get(model, str(entry.number))

    def follow(self, desired: Desired) -> None:
        """Versions that are here are counted with what their catalogue says."""
        if not self._counted:
            return
        for ref, handle in self._fleet.handles.items():
            model = desired.models.get(ref.model)
            entry = None if model is None else next((e for e in model.versions if e.number == ref.number), None)
            if entry is None:
                continue
            wanted = entry.profile
            tried = (wanted or "", id(handle))
            if self._followed.get(ref, ("", id(handle))) == tried:
                continue
            self._followed[ref] = tried
            reading = asyncio.ensure_future(self._reprofile(ref, entry))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def close(self) -> None:
        tasks = {*self._reading, *(c.task for c in self._captures.values() if c.task is not None)}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _made(self, ref: VersionRef, capture: _Capture, use: bool, actor: str) -> None:
        """The whole of a capture. What goes wrong is kept for who asks how it is."""
        try:
            data = await self._fleet.handles[ref].capture(capture.rows, seed=_SEED)
            with self._blobs.registering():
                digest, size, rows = await asyncio.to_thread(self._stored, data)
                record = {
                    "digest": digest,
                    "size_bytes": size,
                    "route": capture.route,
                    "rows": rows,
                    "captured_at": capture.since,
                }

                def change(held: ModelDocument) -> ModelDocument:
                    added = held.with_profile(ref.number, record)
                    return added.use_profile(ref.number, digest) if use else added

                await self._write(ref, change, actor, "profile-capture", {**record, "used": use})
        except TurnoutError as error:
            capture.problem = str(error)
        except KeyError:
            capture.problem = f"{ref} is not loaded here any more"

    def _stored(self, data: bytes) -> tuple[str, int, int]:
        """A child's profile is held against its own plan before it is kept."""
        profile = read_profile(data)
        try:
            profile.plan.check(profile.reference, profile.rows)
        except ValueError as error:
            raise InvalidRegistration(f"the version's process sent a profile that cannot be: {error}") from error
        stored = self._blobs.put_bytes(canonical.dumps(json.loads(data)))
        return stored.digest, stored.size_bytes, profile.rows

    async def _write(self, ref: VersionRef, change: _Change, actor: str, action: str, detail: View) -> None:
        model, key = ref.model, model_key(ref.model)
        entry = AuditEntry(actor, action, str(key), "", {"version": ref.number, **detail})

        def decide(snapshot: Snapshot) -> Decision:
            return Decision(change(_model(snapshot, model)).to_json(), entry)

        await self._changes.write(key, decide)

    async def _reprofile(self, ref: VersionRef, entry: CatalogueEntry) -> None:
        try:
            plan = await asyncio.to_thread(self._plan, entry)
        except TurnoutError as error:
            log.warning("%s is not counted with the profile that was chosen for it: %s", ref, error)
            return
        handle = self._fleet.handles.get(ref)
        if handle is not None and plan != handle.spec.profile and plan is not None:
            handle.profiled(plan)
            self._fleet.compare()

    def _plan(self, entry: CatalogueEntry) -> CountingPlan | None:
        digest = entry.profile
        if digest is None:
            manifest = read_manifest(entry.digest, self._blobs)
            computed = None if manifest.profile is None else manifest.profile.computed
            digest = None if computed is None else computed.digest
        return None if digest is None else CountingPlan(digest, plan_of(self._blobs.read(digest)))

    def _summary(self, digest: str) -> View | None:
        try:
            return {"digest": digest, **summary(read_profile(self._blobs.read(digest), digest))}
        except TurnoutError as error:
            return {"digest": digest, "problem": str(error)}


def _require_served(desired: Desired, route: str, ref: VersionRef) -> None:
    found = desired.routes.get(route)
    if found is None:
        raise NotFound(f"no route {route!r}; routes are {', '.join(sorted(desired.routes)) or 'none yet'}")
    document = found.document
    if document.spec.model != ref.model or ref.number not in document.routable():
        raise Conflict(f"route {route} sends no request to {ref}; give it an arm, a shadow or a rule there first")


def _model(snapshot: Snapshot, name: str) -> ModelDocument:
    found = snapshot.documents.get(model_key(name))
    if found is None or found.body is None:
        raise UnknownModel(f"no model {name!r:.140} is registered")
    return ModelDocument.from_json(found.body)


def _entry(snapshot: Snapshot, model: str, selector: str) -> CatalogueEntry:
    return _model(snapshot, model).resolve(selector)
