"""One look at the name that a route follows in another system, and what comes of it: seen, imported, gated, offered or
rolled out. Every step is written to the route's document before the next is taken, fenced by the leader's term: a new
leader, or a gateway that starts again, goes on from the last one, and repeats at most an import, which changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.documents import RouteDocument, route_key
from gateway.control.follow_spec import FollowSpec
from gateway.control.follow_state import FollowPhase, FollowState, standing_of
from gateway.control.gatekeeping import Gatekeeper
from gateway.control.jobs import JobProgress, Jobs
from gateway.control.rollout_control import RolloutControl
from gateway.control.store import AuditEntry, Fence, Snapshot, Store
from gateway.errors import (
    Conflict,
    Fenced,
    GateRefused,
    IntegrityError,
    InvalidInput,
    InvalidRegistration,
    Quarantined,
    RegistryError,
    SourceUnavailable,
    TurnoutError,
    UnknownRoute,
)
from gateway.registry.blobs import Progress
from gateway.registry.registration import RegistrationOptions
from gateway.registry.sources import Resolved

__all__ = ["ACTOR", "Followed", "Following", "Importer", "Resolve"]

ACTOR = "follow"

Resolve = Callable[[str], Awaitable[Resolved]]
"""What a name of another system points at now. Raises SourceUnavailable, InvalidRegistration."""

Step = Callable[[FollowState, float], FollowState]
"""From a state to the next, at a time in seconds since the epoch."""

_ACTIONS: Mapping[FollowPhase, str] = {
    FollowPhase.IMPORTING: "follow-moved",
    FollowPhase.CURRENT: "follow-current",
    FollowPhase.OFFERED: "follow-offered",
    FollowPhase.WAITING: "follow-waiting",
    FollowPhase.STARTED: "follow-started",
    FollowPhase.ENDED: "follow-ended",
    FollowPhase.REFUSED: "follow-refused",
    FollowPhase.FAILED: "follow-failed",
    FollowPhase.UNREACHABLE: "follow-unreachable",
}
"""The audit log's words for a state that is entered."""

_SETTLED = (FollowPhase.CURRENT, FollowPhase.OFFERED, FollowPhase.STARTED, FollowPhase.ENDED, FollowPhase.WAITING)


class Importer(Protocol):
    """What ``ModelControl`` does with a source."""

    async def register(
        self,
        model: str,
        source: str | Path,
        options: RegistrationOptions,
        *,
        actor: str,
        progress: Progress | None = None,
    ) -> Mapping[str, Any]: ...


class Followed(Conflict):
    """The route does not follow this name any more: an operator changed it meanwhile."""


@dataclass(frozen=True, slots=True)
class Following:
    """``look`` is all of it. The parts are the gateway's; ``jobs`` shows imports with their progress."""

    store: Store
    models: Importer
    rollouts: RolloutControl
    gates: Gatekeeper
    jobs: Jobs
    resolve: Resolve
    clock: Clock

    async def look(self, route: str, fence: Fence) -> FollowState:
        """Asks once and does what follows. Raises Followed, Fenced, StoreUnavailable: then the next look goes on.

        Cancelling it leaves the state that was written last; an import under way is ended.
        """
        spec, state = await self._read(route)
        try:
            resolved = await self.resolve(spec.source)
        except RegistryError as error:
            return await self._write(route, spec, fence, _unreachable(error))
        if state.sees(resolved.identity):
            state = await self._write(route, spec, fence, lambda old, at: old.answered(at=at))
            if state.version is not None and state.phase in _SETTLED:
                return await self._advance(route, spec, state, fence)
            if state.phase is FollowPhase.REFUSED:
                return state
        state = await self._write(route, spec, fence, lambda old, at: _seen(old, resolved, at))
        return await self._imported(route, spec, state, fence)

    async def _imported(self, route: str, spec: FollowSpec, state: FollowState, fence: Fence) -> FollowState:
        try:
            number = await self._import(route, spec.source, state)
        except SourceUnavailable as error:
            return await self._write(route, spec, fence, _unreachable(error))
        except (InvalidRegistration, IntegrityError) as error:
            return await self._end(route, spec, fence, FollowPhase.REFUSED, str(error))
        except TurnoutError as error:  # a full disk, a store that is away: nothing is wrong with the version
            return await self._end(route, spec, fence, FollowPhase.FAILED, str(error))
        if number is None:
            return state  # it moved on under the import; the next look sees where to
        return await self._advance(route, spec, replace(state, version=number), fence)

    async def _import(self, route: str, source: str, state: FollowState) -> int | None:
        """Its number here; None when it was not the version seen that came."""
        model = (await self._document(route)).spec.model

        async def work(progress: JobProgress) -> Mapping[str, Any]:
            return await self.models.register(
                model,
                source,
                RegistrationOptions(),
                actor=ACTOR,
                progress=lambda done, total: progress.tell(done, total, "bytes"),
            )

        job = self.jobs.start("import", ACTOR, work, title=f"{source} for route {route}")
        try:
            found = await self.jobs.outcome(job)
        except asyncio.CancelledError:
            if not self.jobs.get(job.id).ended:
                self.jobs.cancel(job.id)
            raise
        imported = found.get("imported") or {}
        same = all(imported.get(name) == state.identity.get(name) for name in ("name", "version"))
        return int(found["version"]) if same else None

    async def _advance(self, route: str, spec: FollowSpec, state: FollowState, fence: Fence) -> FollowState:
        """The version is here: what the route does with it, or what is to be done next."""
        version = state.version
        if version is None:
            raise Conflict(f"route {route}: nothing was imported yet")
        document = await self._document(route)
        await self._withdraw(route, spec, document, version, fence)
        begun = state.phase is FollowPhase.STARTED  # and once only: how it ended counts, whenever a clock says that was
        standing = standing_of(document, version, since=0.0 if begun else state.since)
        if standing is None and begun:
            standing = FollowPhase.ENDED, "its rollout is over, and the route was changed since by somebody else"
        if standing is not None:
            return await self._end(route, spec, fence, *standing, version=version)
        if state.phase is FollowPhase.ENDED or (state.phase is FollowPhase.OFFERED and spec.then == "offer"):
            return state
        try:
            if spec.then == "offer":
                await self._gated(route, document, version)
                return await self._end(route, spec, fence, FollowPhase.OFFERED, version=version)
            await self.rollouts.start(route, spec.plan_for(version), actor=ACTOR, fence=fence)
        except (GateRefused, Quarantined, InvalidInput) as error:
            return await self._end(route, spec, fence, FollowPhase.REFUSED, str(error), version=version)
        except Fenced:
            raise
        except Conflict as error:
            return await self._end(route, spec, fence, FollowPhase.WAITING, str(error), version=version)
        return await self._end(route, spec, fence, FollowPhase.STARTED, version=version)

    async def _gated(self, route: str, document: RouteDocument, version: int) -> None:
        held = document.status.quarantined.get(version)
        if held is not None:
            raise Quarantined(
                f"version {version} is in quarantine on route {route} ({held.reason}); lift it before it is offered"
            )
        await self.gates.require(
            document.spec.model,
            version,
            purpose=f"rollout:{route}",
            against=document.status.known_good,
            actor=ACTOR,
        )

    async def _withdraw(
        self, route: str, spec: FollowSpec, document: RouteDocument, version: int, fence: Fence
    ) -> None:
        """A rollout that was begun here, of a version that the name does not point at any more, ends."""
        rollout = document.status.rollout
        if rollout is None or rollout.by != ACTOR or rollout.candidate == version:
            return
        reason = f"{spec.source} does not point at version {rollout.candidate} any more, but at version {version}"
        await self.rollouts.abort(route, actor=ACTOR, reason=reason, fence=fence)

    # The document

    async def _end(
        self,
        route: str,
        spec: FollowSpec,
        fence: Fence,
        phase: FollowPhase,
        problem: str = "",
        *,
        version: int | None = None,
    ) -> FollowState:
        def made(old: FollowState, at: float) -> FollowState:
            number = old.version if version is None else version
            return old.moved(phase, at=at, problem=problem, version=number)

        return await self._write(route, spec, fence, made)

    async def _write(self, route: str, spec: FollowSpec, fence: Fence, step: Step) -> FollowState:
        """What says the same as before is not written."""
        key, at, made = route_key(route), self.clock.wall(), list[FollowState]()

        def decide(snapshot: Snapshot) -> Decision:
            found = snapshot.documents.get(key)
            if found is None or found.body is None:
                raise UnknownRoute(f"no route {route!r:.140}")
            document = RouteDocument.from_json(found.body)
            before = _checked(document, spec)
            state = step(before or _first(spec, at), at)
            made[:] = [state]
            status = replace(document.status, follow=before if state == before else state)
            if before is None and not state.identity and state.phase is not FollowPhase.UNREACHABLE:
                status = document.status  # nothing is known yet that would be worth a record
            detail = {"follow": state.to_json()}
            entry = AuditEntry(ACTOR, _ACTIONS[state.phase], str(key), state.problem, detail)
            return Decision(replace(document, status=status).to_json(), entry)

        await Changes(self.store).write(key, decide, fence=fence)
        return made[0]

    async def _read(self, route: str) -> tuple[FollowSpec, FollowState]:
        document = await self._document(route)
        spec = document.spec.follow
        if spec is None:
            raise Followed(f"route {route} follows nothing any more")
        return spec, document.status.follow or _first(spec, self.clock.wall())

    async def _document(self, route: str) -> RouteDocument:
        found = await self.store.read(route_key(route))
        if found is None or found.body is None:
            raise UnknownRoute(f"no route {route!r:.140}")
        return RouteDocument.from_json(found.body)


def _first(spec: FollowSpec, at: float) -> FollowState:
    return FollowState(spec.source, FollowPhase.IMPORTING, at)


def _checked(document: RouteDocument, spec: FollowSpec) -> FollowState | None:
    followed = document.spec.follow
    if followed is None or followed.source != spec.source:
        raise Followed(f"the route does not follow {spec.source} any more")
    state = document.status.follow
    return state if state is not None and state.source == spec.source else None


def _unreachable(error: RegistryError) -> Step:
    return lambda old, at: old.unreachable(str(error), at=at)


def _seen(old: FollowState, resolved: Resolved, at: float) -> FollowState:
    """A version that is new, or whose import did not come to its end."""
    version = old.version if old.sees(resolved.identity) else None
    return old.moved(FollowPhase.IMPORTING, at=at, identity=dict(resolved.identity), version=version)
