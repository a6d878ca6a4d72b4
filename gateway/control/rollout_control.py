"""What operators do with rollouts: begin, look, promote, pause, resume, abort, and read the reports of the ended."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.control import rollout as steps
from gateway.control.changes import Changes, Decision
from gateway.control.compatibility import incompatibility
from gateway.control.coordination import Coordination
from gateway.control.documents import RouteDocument, route_key
from gateway.control.gatekeeping import Gatekeeper, GateOutcome, OpenGate, Override
from gateway.control.replica import Replica
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_report import REPORT, report_key
from gateway.control.rollout_state import RolloutState
from gateway.control.rollout_truth import check_scores
from gateway.control.store import AuditEntry, Body, Document, DocumentKey, Fence, Snapshot, Store
from gateway.control.transitions import Catalogue
from gateway.errors import Conflict, FieldProblem, InvalidInput, LoadError, NotFound, RegistryError, UnknownRoute
from gateway.messages import Signature
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import ModelDocument
from gateway.registry.loading import read_manifest

__all__ = ["RolloutControl"]

View = dict[str, Any]
Step = Callable[[Snapshot, RouteDocument], RouteDocument]


class RolloutControl:
    """``coordination``: where the driver keeps how far it is; None where nothing is served. ``known_secrets``: names of
    the settings' webhook secrets; None where only a gateway would know. ``gates``: who is asked before one starts."""

    def __init__(
        self,
        store: Store,
        replica: Replica,
        *,
        clock: Clock,
        blobs: BlobStore,
        coordination: Coordination | None = None,
        known_secrets: frozenset[str] | None = None,
        gates: Gatekeeper | None = None,
    ) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._blobs = blobs
        self._coordination = coordination
        self._known_secrets = known_secrets
        self._gates = gates or OpenGate()
        self._changes = Changes(store)

    async def start(
        self,
        route: str,
        body: object,
        *,
        actor: str,
        expected: int | None = None,
        override: Override | None = None,
        fence: Fence | None = None,
    ) -> View:
        """Once the candidate has passed the model's gates. Raises InvalidInput naming the field, UnknownRoute,
        Conflict, Quarantined, or GateRefused."""
        plan = PlanSpec.parse(body)
        self._check_secrets(plan)
        await self._check_signatures(route, plan)
        name = f"{plan.candidate}-{secrets.token_hex(4)}"

        def begun(snapshot: Snapshot, document: RouteDocument) -> RouteDocument:
            catalogue = Catalogue.of(_model(snapshot, document))
            return steps.start(document, plan, catalogue, name=name, by=actor, at=self._clock.wall())

        passed, known_good = await self._passed(route, plan, begun, override, actor)

        def step(snapshot: Snapshot, document: RouteDocument) -> RouteDocument:
            passed.check(_model(snapshot, document), plan.candidate)
            if passed.record is not None and document.status.known_good != known_good:
                raise Conflict(
                    f"the known good of route {route} changed from {known_good} to {document.status.known_good} while "
                    f"{plan.candidate} was compared with it; begin the rollout again"
                )
            return begun(snapshot, document)

        said: dict[str, Any] = {} if override is None else {"reason": override.reason}
        return await self._change(
            route, step, actor, "rollout-start", expected, fence=fence, plan=plan.to_json(), **passed.detail(), **said
        )

    async def get(self, route: str) -> View:
        """The rollout that runs, else the last one; NotFound when there was none."""
        document = await self._document(route)
        state = document[1].status.rollout or document[1].status.last_rollout
        if state is None:
            raise NotFound(f"route {route!r:.140} has had no rollout; begin one with: turnout rollout ROUTE VERSION")
        return await self._view(route, *document, state)

    async def promote(self, route: str, *, actor: str, full: bool = False, expected: int | None = None) -> View:
        """The next step now; ``full``: the bake now. In the bake: its end."""
        live, at = await self._live(route), self._clock.wall()
        ratio = live.get("judgement", {}).get("sample_ratio", {})
        broken = str(ratio.get("reason") or "see its evidence") if ratio.get("broken") else ""
        finding = steps.Finding(broken_split=broken, detail=live.get("judgement", {}))

        def step(_: Snapshot, document: RouteDocument) -> RouteDocument:
            return steps.promote(document, finding, by=actor, at=at, full=full)

        return await self._change(route, step, actor, "rollout-promote", expected, full=full, evidence=finding.detail)

    async def pause(self, route: str, *, actor: str, reason: str = "", expected: int | None = None) -> View:
        at = self._clock.wall()
        return await self._change(
            route,
            lambda _, document: steps.pause(document, by=actor, at=at, reason=reason),
            *(actor, "rollout-pause", expected),
            reason=reason,
        )

    async def resume(self, route: str, *, actor: str, expected: int | None = None) -> View:
        at = self._clock.wall()
        step: Step = lambda _, document: steps.resume(document, by=actor, at=at)  # noqa: E731
        return await self._change(route, step, actor, "rollout-resume", expected)

    async def abort(
        self, route: str, *, actor: str, reason: str = "", expected: int | None = None, fence: Fence | None = None
    ) -> View:
        """In any phase: back to the weights before it."""
        at = self._clock.wall()
        return await self._change(
            route,
            lambda _, document: steps.abort(document, by=actor, at=at, reason=reason),
            *(actor, "rollout-abort", expected),
            fence=fence,
            reason=reason,
        )

    async def reports(self, route: str) -> Sequence[View]:
        """Of the ended rollouts, newest first, without plan and evidence."""
        found = [row for row in (await self._store.snapshot()).documents.values() if _is_report(row, route)]
        found.sort(key=lambda row: row.written_at, reverse=True)
        brief = ("id", "candidate", "baseline", "verdict", "trigger", "reason", "started_at", "ended_at", "ended_by")
        return [{name: row.body.get(name) for name in brief} for row in found if row.body is not None]

    async def report(self, route: str, rollout: str) -> View:
        """``rollout`` is an id, or ``last``."""
        if rollout == "last":
            rollout = await self._last(route)
        found = await self._store.read(report_key(route, rollout))
        if found is None or found.body is None:
            raise NotFound(
                f"no report {rollout!r:.60} of route {route!r:.140}; it is written within a second of its end"
            )
        return dict(found.body)

    # How

    async def _last(self, route: str) -> str:
        """The one that ended last; also of a route that was deleted meanwhile."""
        found = await self._store.read(route_key(route))
        ended = None
        if found is not None and found.body is not None:
            ended = RouteDocument.from_json(found.body).status.last_rollout
        if ended is not None:
            return ended.id
        written = await self.reports(route)
        if not written:
            raise NotFound(f"no rollout of route {route!r:.140} has ended yet")
        return str(written[0]["id"])

    async def _passed(
        self, route: str, plan: PlanSpec, begun: Step, override: Override | None, actor: str
    ) -> tuple[GateOutcome, int | None]:
        """And the known good that it was compared with."""
        snapshot = await self._store.snapshot()
        document = _route(snapshot, route)
        begun(snapshot, document)  # what cannot be is refused before its gates have run
        known_good = document.status.known_good
        passed = await self._gates.require(
            document.spec.model,
            plan.candidate,
            purpose=f"rollout:{route}",
            against=known_good,
            override=override,
            actor=actor,
        )
        return passed, known_good

    def _check_secrets(self, plan: PlanSpec) -> None:
        if self._known_secrets is None:
            return
        for event in ("confirm", "before", "after", "rolled_back"):
            for index, hook in enumerate(getattr(plan.webhooks, event)):
                if hook.secret is not None and hook.secret not in self._known_secrets:
                    place = f"webhooks.{event}[{index}].secret"
                    known = ", ".join(sorted(self._known_secrets)) or "none"
                    problem = FieldProblem(place, f"a secret of the settings ({known})", repr(hook.secret))
                    raise InvalidInput(
                        f"{place}: the settings have no secret {hook.secret!r}; they have {known}", problem
                    )

    async def _check_signatures(self, route: str, plan: PlanSpec) -> None:
        """Early, by the manifests; the driver looks again at what was really loaded."""
        snapshot = await self._store.snapshot()
        document = _route(snapshot, route)
        model = _model(snapshot, document)
        numbers = {entry.number for entry in model.versions}
        if {plan.candidate, document.status.known_good} <= numbers:
            digests = [model.version(number).digest for number in (document.status.known_good, plan.candidate)]
            old, new = [await asyncio.to_thread(self._signature, digest) for digest in digests]
            for number, signature in ((document.status.known_good, old), (plan.candidate, new)):
                if signature is not None:
                    check_scores(document.spec, plan, number, signature)
            why = "" if old is None or new is None else incompatibility(old, new)
            if why:
                raise Conflict(
                    f"candidate: version {plan.candidate} cannot stand in for {document.status.known_good}: {why}; "
                    "serve it on a route of its own"
                )

    def _signature(self, digest: str) -> Signature | None:
        try:
            return read_manifest(digest, self._blobs).signature
        except (LoadError, RegistryError):
            return None  # its load will say what is wrong with it

    async def _document(self, route: str) -> tuple[int, RouteDocument]:
        found = await self._store.read(route_key(route))
        if found is None or found.body is None:
            raise UnknownRoute(f"no route {route!r:.140}")
        return found.revision, RouteDocument.from_json(found.body)

    async def _live(self, route: str) -> Body:
        """What the driver last kept of the rollout that runs."""
        state = (await self._document(route))[1].status.rollout
        if state is None or self._coordination is None:
            return {}
        kept = dict(orjson.loads(await self._coordination.kept(f"{route}/{state.id}") or b"{}"))
        kept.pop("state", None)
        return kept

    async def _change(
        self,
        route: str,
        step: Step,
        actor: str,
        action: str,
        expected: int | None,
        *,
        fence: Fence | None = None,
        **detail: Any,
    ) -> View:
        key, made = route_key(route), list[RouteDocument]()

        def decide(snapshot: Snapshot) -> Decision:
            document = step(snapshot, _route(snapshot, route))
            made[:] = [document]
            state = document.status.rollout or document.status.last_rollout
            entry = AuditEntry(
                actor, action, str(key), str(detail.get("reason", "")), {"rollout": _id(state), **detail}
            )
            return Decision(document.to_json(), entry)

        written = await self._changes.write(key, decide, expected=expected, fence=fence)
        await self._replica.taken(written.revision)
        state = made[0].status.rollout or made[0].status.last_rollout
        if state is None:
            raise NotFound(f"no rollout runs on route {route!r:.140}")
        view = await self._view(route, written.revision, made[0], state)
        view.get("live", {}).pop("waits", None)  # of before this change; the next round says what it waits for now
        return view

    async def _view(self, route: str, revision: int, document: RouteDocument, state: RolloutState) -> View:
        runs = document.status.rollout is not None
        split = [arm.model_dump() for arm in document.status.split]
        view: View = {"route": route, "revision": revision, "running": runs, "split": split, "rollout": state.to_json()}
        return view | ({"live": await self._live(route)} if runs else {})


def _id(state: RolloutState | None) -> str:
    return "" if state is None else state.id


def _is_report(row: Document, route: str) -> bool:
    return row.key.kind == REPORT and row.key.name.rpartition("/")[0] == route


def _route(snapshot: Snapshot, route: str) -> RouteDocument:
    found = snapshot.documents.get(route_key(route))
    if found is None or found.body is None:
        raise UnknownRoute(f"no route {route!r:.140}")
    return RouteDocument.from_json(found.body)


def _model(snapshot: Snapshot, document: RouteDocument) -> ModelDocument:
    found = snapshot.documents.get(DocumentKey("model", document.spec.model))
    if found is None or found.body is None:
        raise InvalidInput(f"model: no model {document.spec.model!r} is registered")
    return ModelDocument.from_json(found.body)
