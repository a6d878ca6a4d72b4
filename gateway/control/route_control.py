"""What operators do with routes. Every verb checks, writes durably with its audit record, and gives the new view.

A view is ``{"route", "revision", "spec", "status"}``; ``status`` also tells how far this replica
is (``applied``, ``pending``, ``failed``). ``expected`` is the revision of ``If-Match``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from gateway.clock import Clock, SystemClock
from gateway.control import transitions
from gateway.control.changes import Changes, Decision
from gateway.control.coordination import Coordination
from gateway.control.desired import Desired, DesiredRoute, read_desired
from gateway.control.documents import RouteDocument, check_route_name, route_key
from gateway.control.explain import explain, explain_change
from gateway.control.explain_question import Question
from gateway.control.flag_rules import FlagRules
from gateway.control.replica import Replica
from gateway.control.rollout_report import report_of_deleted
from gateway.control.route_spec import RouteSpec
from gateway.control.store import AuditEntry, Document, DocumentKey, Snapshot, Store
from gateway.control.transitions import Catalogue
from gateway.errors import FieldProblem, InvalidInput, NotFound, StoreUnavailable, UnknownRoute
from gateway.registry.catalogue import ModelDocument

__all__ = ["RouteControl"]

_NUMBER = re.compile(r"[1-9][0-9]{0,14}")

View = dict[str, Any]
Transition = Callable[[Snapshot, RouteDocument], RouteDocument]


class RouteControl:
    """``flags`` are asked when a decision is explained; ``clock`` dates what an operator proves by his word;
    ``coordination`` has the evidence of a rollout that ends with its route."""

    def __init__(
        self,
        store: Store,
        replica: Replica,
        flags: FlagRules | None = None,
        *,
        clock: Clock | None = None,
        coordination: Coordination | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._coordination = coordination
        self._store = store
        self._flags = flags
        self._replica = replica
        self._changes = Changes(store)
        self._read = Desired()

    async def list(self) -> Sequence[View]:
        desired = await self._desired()
        return [self._view(name, route) for name, route in desired.routes.items()]

    async def get(self, name: str) -> View:
        """Raises UnknownRoute. While the store is down, what this replica knew last."""
        route = (await self._desired()).routes.get(name)
        if route is None:
            raise UnknownRoute(f"no route {name!r:.140}")
        return self._view(name, route)

    async def put(self, name: str, spec: object, *, actor: str, expected: int | None = None) -> View:
        view, _ = await self.make(name, spec, actor=actor, expected=expected)
        return view

    async def make(self, name: str, spec: object, *, actor: str, expected: int | None = None) -> tuple[View, bool]:
        """As ``put``; and whether there was no such route."""
        key, parsed = route_key(check_route_name(name)), RouteSpec.parse(spec)
        at, is_new = self._clock.wall(), False

        def decide(snapshot: Snapshot) -> Decision:
            nonlocal is_new
            current = _document(snapshot.documents.get(key))
            is_new = current is None
            catalogue = self._catalogue(snapshot, parsed.model)
            document = transitions.put(parsed, current, catalogue, by=actor, at=at)
            return Decision(
                document.to_json(), AuditEntry(actor, "route-create" if is_new else "route-update", str(key))
            )

        return await self._write(name, decide, expected), is_new

    async def delete(self, name: str, *, actor: str, expected: int | None = None) -> int:
        """The revision at which it was deleted. Its history stays. A rollout that runs is aborted by it, and its report
        is in the same commit."""
        key, at = route_key(name), self._clock.wall()
        kept = await self._kept(name)

        def decide(snapshot: Snapshot) -> Decision:
            report = report_of_deleted(name, _existing(snapshot, name), kept, by=actor, at=at)
            return Decision(None, AuditEntry(actor, "route-delete", str(key)), () if report is None else (report,))

        written = await self._changes.write(key, decide, expected=expected)
        await self._replica.taken(written.revision)
        return written.revision

    async def set_weights(
        self, name: str, weights: Mapping[str, object], *, actor: str, expected: int | None = None
    ) -> View:
        """The whole split: versions not named get 0."""
        asked = _weights(weights)

        def step(snapshot: Snapshot, document: RouteDocument) -> RouteDocument:
            return transitions.set_weights(document, asked, self._catalogue(snapshot, document.spec.model))

        detail = {"weights": {str(number): weight for number, weight in asked.items()}}
        return await self._change(name, step, AuditEntry(actor, "weights", str(route_key(name)), "", detail), expected)

    async def rollback(self, name: str, *, to: int | None, reason: str, actor: str, local: bool = False) -> View:
        """In force before it is durable; the view says ``durable`` and ``changed``. ``local``: on this replica, and
        the store is told afterwards."""
        outcome = await self._replica.roll_back(name, to=to, reason=reason, actor=actor, local=local)
        if outcome.durable:
            await self._replica.taken(outcome.revision)
        view = self._view(name, DesiredRoute(outcome.revision, outcome.document))
        return {**view, "durable": outcome.durable, "changed": outcome.changed}

    async def lift(self, name: str, version: int, *, actor: str, expected: int | None = None) -> View:
        def step(snapshot: Snapshot, document: RouteDocument) -> RouteDocument:
            if document.spec.target is None:
                return transitions.lift(document, version)
            return transitions.lift(document, version, self._catalogue(snapshot, document.spec.model))

        entry = AuditEntry(actor, "lift", str(route_key(name)), "", {"version": version})
        return await self._change(name, step, entry, expected)

    async def history(self, name: str, *, limit: int = 100) -> Sequence[View]:
        """Every past document, newest first; ``spec`` None where it was deleted. Raises UnknownRoute."""
        rows = await self._store.history(route_key(name), limit=limit)
        if not rows:
            raise UnknownRoute(f"no route {name!r:.140}, now or before")
        return [_past(row) for row in rows]

    async def restore(self, name: str, revision: int, *, actor: str, expected: int | None = None) -> View:
        """A past document's spec as a new revision; also of a route deleted meanwhile. Quarantines stay as they are,
        or were when it was deleted."""
        key = route_key(name)
        past, newest = await self._past_document(key, revision)

        def decide(snapshot: Snapshot) -> Decision:
            current = _document(snapshot.documents.get(key)) or transitions.at_rest(newest)
            document = transitions.restore(past, current, self._catalogue(snapshot, past.spec.model))
            entry = AuditEntry(actor, "restore", str(key), "", {"revision": revision})
            return Decision(document.to_json(), entry)

        return await self._write(name, decide, expected)

    async def explain(self, name: str, question: Question) -> View:
        """Which version a key gets, or got when the state stood at ``question.revision``; and, with weights, what they
        would change. Raises what ``set_weights`` would for them, UnknownRoute and NotFound."""
        if question.revision is not None:
            document, revision = await self._document_at(route_key(name), question.revision)
            return explain(name, document, revision, question, self._flags)
        desired = await self._desired()
        route = desired.routes.get(name)
        if route is None:
            raise UnknownRoute(f"no route {name!r:.140}")
        view = explain(name, route.document, route.revision, question, self._flags)
        progress = self._replica.progress(name)
        view |= {} if progress is None else {"applied": progress.applied}
        if question.weights is not None:
            catalogue = Catalogue.of(desired.models[route.document.spec.model])
            changed = transitions.set_weights(route.document, _weights(question.weights), catalogue)
            view["change"] = explain_change(name, route.document, changed, question, self._flags)
        return view

    async def wait_applied(self, name: str, revision: int, *, timeout_s: float) -> bool:
        """Whether this replica serves the revision within the time. Ends early when a version of it failed."""
        return await self._replica.applied(revision, name, timeout_s=timeout_s)

    async def _kept(self, name: str) -> Mapping[str, Any]:
        """What the leader last knew of the rollout that runs; nothing where nobody can say."""
        found = await self._store.read(route_key(name))
        document = _document(found)
        if document is None or document.status.rollout is None or self._coordination is None:
            return {}
        try:
            return dict(orjson.loads(await self._coordination.kept(f"{name}/{document.status.rollout.id}") or b"{}"))
        except StoreUnavailable:
            return {}

    async def _past_document(self, key: DocumentKey, revision: int) -> tuple[RouteDocument, RouteDocument]:
        """The document of that revision, and the newest that there has been."""
        rows = await self._store.history(key, limit=100_000)
        if not rows:
            raise UnknownRoute(f"no route {key.name!r:.140}, now or before")
        bodies = {row.revision: row.body for row in rows if row.body is not None}
        if revision in bodies:
            return RouteDocument.from_json(bodies[revision]), RouteDocument.from_json(bodies[max(bodies)])
        known = ", ".join(map(str, list(bodies)[:10]))
        raise NotFound(f"route {key.name!r} has no document of revision {revision}; its newest are {known}")

    async def _document_at(self, key: DocumentKey, revision: int) -> tuple[RouteDocument, int]:
        """The document in force at that revision of the state, and its own."""
        rows = await self._store.history(key, limit=100_000)
        if not rows:
            raise UnknownRoute(f"no route {key.name!r:.140}, now or before")
        row = max((row for row in rows if row.revision <= revision), key=lambda row: row.revision, default=None)
        if row is None:
            oldest = min(row.revision for row in rows)
            raise NotFound(f"route {key.name!r} did not exist at revision {revision}; its first is {oldest}")
        if row.body is None:
            raise NotFound(f"route {key.name!r} did not exist at revision {revision}: it was deleted at {row.revision}")
        return RouteDocument.from_json(row.body), row.revision

    async def _change(self, name: str, step: Transition, entry: AuditEntry, expected: int | None) -> View:
        def decide(snapshot: Snapshot) -> Decision:
            return Decision(step(snapshot, _existing(snapshot, name)).to_json(), entry)

        return await self._write(name, decide, expected)

    async def _write(self, name: str, decide: Callable[[Snapshot], Decision], expected: int | None) -> View:
        written = await self._changes.write(route_key(name), decide, expected=expected)
        await self._replica.taken(written.revision)
        return await self.get(name)

    def _catalogue(self, snapshot: Snapshot, model: str) -> Catalogue:
        """Of a model as the snapshot has it; parsed anew only when it has changed, since that takes 10 ms for a
        thousand versions."""
        key = DocumentKey("model", model)
        found = snapshot.documents.get(key)
        if found is None or found.body is None:
            known = ", ".join(sorted(key.name for key in snapshot.documents if key.kind == "model")) or "none yet"
            problem = FieldProblem("model", f"a registered model ({known})", repr(model))
            raise InvalidInput(f"model: no model {model!r} is registered; registered are {known}", problem)
        revision, parsed = self._read.parsed.get(key, (0, None))
        if revision == found.revision and isinstance(parsed, ModelDocument):
            return Catalogue.of(parsed)
        return Catalogue.of(ModelDocument.from_json(found.body))

    async def _desired(self) -> Desired:
        try:
            snapshot = await self._store.snapshot()
        except StoreUnavailable:
            known = self._replica.desired()
            if known is None:
                raise
            return known
        self._read = read_desired(snapshot, self._read)
        return self._replica.over(self._read)

    def _view(self, name: str, route: DesiredRoute) -> View:
        progress = self._replica.progress(name)
        status = route.document.status.to_json() | {"revision": route.revision}
        status |= {} if progress is None else progress.to_json()
        cached = None if route.document.spec.cache is None else self._replica.cached(name)
        status |= {} if cached is None else {"cache": cached.to_json()}
        return {
            "route": name,
            "revision": route.revision,
            "spec": route.document.spec.to_json(),
            "status": status | {"durable": not route.local},
        }


def _existing(snapshot: Snapshot, name: str) -> RouteDocument:
    document = _document(snapshot.documents.get(route_key(name)))
    if document is None:
        raise UnknownRoute(f"no route {name!r:.140}")
    return document


def _document(found: Document | None) -> RouteDocument | None:
    return None if found is None or found.body is None else RouteDocument.from_json(found.body)


def _past(row: Document) -> View:
    if row.body is None:
        return {"revision": row.revision, "written_at": row.written_at, "spec": None, "status": None}
    document = RouteDocument.from_json(row.body)
    return {
        "revision": row.revision,
        "written_at": row.written_at,
        "spec": document.spec.to_json(),
        "status": document.status.to_json(),
    }


def _weights(weights: Mapping[str, object]) -> dict[int, int]:
    """``{"3": 95}`` as numbers, in order. Raises InvalidInput naming what does not fit."""
    if not weights:
        problem = FieldProblem("weights", "at least one version with its weight", "none")
        raise InvalidInput("weights: name at least one version", problem)
    asked: dict[int, int] = {}
    for name, weight in weights.items():
        text = str(name)
        if not _NUMBER.fullmatch(text):
            problem = FieldProblem(f"weights.{text[:40]}", "a version's number", repr(name)[:60])
            raise InvalidInput(f"weights: {name!r:.60} is no version's number", problem)
        if type(weight) is not int or not 0 <= weight <= 2**31 - 1:
            problem = FieldProblem(f"weights.{text}", "a whole number from 0 to 2147483647", repr(weight)[:60])
            raise InvalidInput(f"weights.{text}: expected a whole number from 0 on, got {weight!r:.60}", problem)
        asked[int(text)] = weight
    return asked
