"""Drives the rollouts: a small loop that gathers, judges, and commits what ``rollout.advance`` says; one replica leads.

A step is a compare-and-set on the revision that was judged, fenced by the leader's term: a leader that was stopped and
continues commits nothing, and a new one repeats nothing. What the next leader must know is kept before anything is done
by it. Webhooks run beside; harm is looked at first, in every phase, and waits for nobody.

While store or coordination do not answer, nothing goes on; harm that this replica's own counts prove takes the
candidate off here, with its part of the plan's ``alpha``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.control import transitions
from gateway.control.coordination import Coordination
from gateway.control.desired import DesiredRoute
from gateway.control.documents import RouteDocument, route_key
from gateway.control.ending import ended
from gateway.control.evidence import judge
from gateway.control.reconcile import Reconciler
from gateway.control.rollbacks import Rollbacks
from gateway.control.rollout import advance, targets
from gateway.control.rollout_drift import standing_drift
from gateway.control.rollout_evidence import finding_of, policy_of, shares_of
from gateway.control.rollout_facts import ACTOR, Finding, Kind, Move
from gateway.control.rollout_hooks import Subject
from gateway.control.rollout_reports import Reports
from gateway.control.rollout_run import Run, budgeted_alone
from gateway.control.rollout_standing import Standing
from gateway.control.rollout_state import Phase, RolloutState
from gateway.control.store import AuditEntry, Change, Fence, Store
from gateway.control.verdicts import Block
from gateway.control.webhooks import Webhooks
from gateway.errors import Conflict, Fenced, NotFound, StaleRevision, StoreUnavailable, TurnoutError

__all__ = ["POST", "Counts", "RolloutDriver", "scope_of"]

log = logging.getLogger("turnout.rollout")

POST = "rollouts"
TICK_S = 0.5
KEEP_S = 1.0
"""What is kept is written at most so often while nothing happens: in the home it is a write to the disk."""


class Counts(Protocol):
    """The counters of evidence: of all replicas, and of this one alone."""

    async def gather(self, scope: str, epoch: int) -> Mapping[str, int]: ...

    def local(self, scope: str, epoch: int) -> Mapping[str, int]: ...


def scope_of(route: str, rollout: RolloutState) -> str:
    return f"{route}/{rollout.id}"


class RolloutDriver:
    """``tick`` is all of it; ``start`` has it called twice a second."""

    def __init__(
        self,
        *,
        store: Store,
        coordination: Coordination,
        counts: Counts,
        reconciler: Reconciler,
        rollbacks: Rollbacks,
        webhooks: Webhooks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._counts = counts
        self._reconciler = reconciler
        self._rollbacks = rollbacks
        self._webhooks = webhooks
        self._clock = clock
        self._standing = Standing(reconciler, coordination)
        self._reports = Reports(store, coordination, clock)
        self._runs: dict[str, Run] = {}
        self._alone: dict[str, Run] = {}
        self._cut: set[str] = set()
        self._others = 1
        self._troubles: dict[str, str] = {}
        self._driving: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RolloutDriver [{len(self._runs)} driven here]>"

    def start(self) -> None:
        self._driving = asyncio.ensure_future(self._drive_on())

    async def close(self) -> None:
        await ended(self._driving)
        self._driving = None

    async def _drive_on(self) -> None:
        """A round that fails in a way nobody thought of is logged, and the next one is tried: a rollout that stands
        still is shown as that, a gateway that ends is not."""
        while True:
            (failure,) = await asyncio.gather(self.tick(), return_exceptions=True)
            if isinstance(failure, Exception):
                self._trouble("", failure)
            await self._clock.sleep(TICK_S)

    async def tick(self) -> None:
        """One round over all rollouts that run, or whose report is owed."""
        routes = self._reconciler.desired.routes
        running = {name: route for name, route in routes.items() if route.document.status.rollout is not None}
        owed = {name: route for name, route in routes.items() if self._reports.owed(name, route.document)}
        if not running and not owed:
            self._runs.clear()
            self._alone.clear()
            self._cut.clear()
            return
        try:
            term = await self._coordination.lead(POST)
            self._others = max(self._others, len(await self._coordination.replicas()))
        except StoreUnavailable as error:
            await self._cut_off(running, str(error))
            return
        if term is None:
            self._runs.clear()
            await self._reports.look(owed)
            return
        fence = Fence(POST, term)
        await self._each(running, fence)
        for name, route in owed.items():
            if not route.local:
                await self._report(name, route.document, fence)
        states = {name: _of(route) or route.document.status.last_rollout for name, route in (running | owed).items()}
        standing = {scope_of(name, state) for name, state in states.items() if state is not None}
        self._runs = {scope: run for scope, run in self._runs.items() if scope in standing or run.hooks.under_way}

    async def _each(self, running: Mapping[str, DesiredRoute], fence: Fence) -> None:
        """One route's fault stops no other's rollout: it is logged when it is new, and shown."""
        for name, route in running.items():
            (fault,) = await asyncio.gather(self._drive(name, route, fence), return_exceptions=True)
            if isinstance(fault, StoreUnavailable):
                await self._cut_off({name: route}, str(fault))
            elif isinstance(fault, Exception) and not isinstance(fault, StaleRevision | Fenced):
                self._trouble(name, fault)
            elif fault is None:  # stale or fenced: somebody was faster, and the next round sees what he did
                self._troubles.pop(name, None)
                self._cut.discard(name)

    def _trouble(self, name: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != text:
            self._troubles[name] = text
            log.error("the rollout of route %s does not go on: %s", name or "any", text, exc_info=error)

    # One rollout

    async def _drive(self, name: str, route: DesiredRoute, fence: Fence) -> None:
        document, rollout = route.document, _of(route)
        if rollout is None or route.local:
            return  # a rollback of this replica that the store does not have yet
        run, epoch, now = await self._run(name, document, rollout), document.status.epoch, self._clock.monotonic()
        run.look(rollout, epoch, now=now, wall=self._clock.wall())
        run.hooks.tell(Subject(name, document.spec.model, rollout), run.detail)
        if rollout.phase is not Phase.PREPARING:
            counters = await self._counts.gather(run.scope, epoch)
            if run.lost_all or run.lost(counters, epoch):
                await self._renew(name, route, fence)
                run.lost_all = False
                return
            run.judged(counters, shares_of(document), epoch, now=now, plan_of=rollout)
        facts = run.facts(
            rollout,
            now=now,
            ready=await self._standing.ready(name, route),
            refused=self._standing.refused(route, rollout),
            drift=await self._drift(route, rollout),
        )
        move = advance(document, run.finding, facts, at=self._clock.wall())
        run.waits, run.trouble = move.waits, self._troubles.get(name, "")
        if move.kind is Kind.ROLL_BACK:  # first of all: whether anything can be kept matters less
            await self._roll_back(name, route, run.finding)
        if move.kind is not Kind.WAIT or now - run.kept_at >= KEEP_S:
            await self._coordination.keep(run.scope, run.kept(facts, self._clock.wall()), fence)
            run.kept_at = now
        await self._act(name, route, run, move, fence)

    async def _drift(self, route: DesiredRoute, rollout: RolloutState) -> str:
        if rollout.plan.on_drift != "hold" or rollout.phase is Phase.PREPARING:
            return ""
        return await standing_drift(self._store, route.ref(rollout.candidate))

    async def _run(self, name: str, document: RouteDocument, rollout: RolloutState) -> Run:
        scope = scope_of(name, rollout)
        if scope not in self._runs:
            policy = policy_of(rollout.plan, slow_ms=document.spec.limits.slow_ms)
            run = Run(scope, policy, self._webhooks)
            known = run.restore(await self._coordination.kept(scope), rollout.renewals)
            run.lost_all = not known and rollout.phase is not Phase.PREPARING
            if run.counted_epoch and rollout.ended_at is None:
                earlier = await self._counts.gather(scope, run.counted_epoch)
                run.lost_all = run.lost_all or run.lost(earlier, run.counted_epoch)
            self._runs[scope] = run
        return self._runs[scope]

    async def _renew(self, name: str, route: DesiredRoute, fence: Fence) -> None:
        """What was counted is lost: the evidence goes on in a new epoch."""
        reason = "the counters of this epoch were lost with the process or the store that had them"
        move = Move(Kind.EPOCH, transitions.renew(route.document), reason)
        await self._commit(name, route, move, {}, fence)

    async def _act(self, name: str, route: DesiredRoute, run: Run, move: Move, fence: Fence) -> None:
        rollout = _of(route)
        if rollout is None:
            return
        fresh = move.document.status.rollout or move.document.status.last_rollout or rollout
        subject = Subject(name, route.document.spec.model, rollout)
        if move.kind is Kind.WAIT:
            if move.due:
                run.hooks.ask(subject, fresh, now_wall=self._clock.wall())
            return
        if move.kind is Kind.ROLL_BACK:
            return
        if move.kind in (Kind.STEP, Kind.BAKE, Kind.PROMOTE) and not run.hooks.before(subject, fresh):
            run.waits = ("the webhooks before the step are told",)
            return
        detail = dict(run.finding.detail) if rollout.phase is not Phase.PREPARING else {}
        await self._commit(name, route, move, detail, fence)
        log.info("route %s: %s of version %d: %s", name, move.kind, rollout.candidate, move.reason)
        run.hooks.tell(Subject(name, route.document.spec.model, fresh), run.detail)

    async def _commit(
        self, name: str, route: DesiredRoute, move: Move, detail: Mapping[str, Any], fence: Fence
    ) -> None:
        key, rollout = route_key(name), _of(route)
        body = {"rollout": "" if rollout is None else rollout.id, "evidence": detail}
        entry = AuditEntry(ACTOR, str(move.kind), str(key), move.reason, body)
        revision = await self._store.commit([Change(key, move.document.to_json(), route.revision)], entry, fence=fence)
        # The round after this one is to see what this one did.
        await self._reconciler.wait_seen(revision, timeout_s=TICK_S)

    async def _roll_back(self, name: str, route: DesiredRoute, finding: Finding) -> None:
        """In force here when this returns, and stored as soon as the store takes it."""
        rollout = _of(route)
        if rollout is None:
            return
        here = [number for number in targets(route.document) if self._standing.fit(route, number, rollout)]
        if not here:
            raise Conflict(f"version {rollout.candidate} does harm, and no proved version is loaded to go back to")
        try:
            await self._rollbacks.roll_back(
                name,
                to=here[0],
                reason=finding.reason,
                actor=ACTOR,
                trigger=f"rollout:{finding.harm}",
                offender=rollout.candidate,
                evidence=finding.detail,
            )
        except (Conflict, NotFound) as error:
            raise Conflict(f"version {rollout.candidate} does harm and cannot be taken off: {error}") from error

    # Ends and outages

    async def _report(self, name: str, document: RouteDocument, fence: Fence) -> None:
        ended = document.status.last_rollout
        if ended is None:
            return
        try:
            if await self._reports.finished(name, ended):
                return
            run = await self._run(name, document, ended)
            run.hooks.tell(Subject(name, document.spec.model, ended), run.detail)
            await self._reports.write(name, document, run, fence)
        except StaleRevision:
            return
        except TurnoutError as error:
            self._trouble(name, error)

    async def _cut_off(self, running: Mapping[str, DesiredRoute], why: str) -> None:
        """Nothing goes on. What this replica has counted itself may still prove harm; it is one test over all the times
        that this happens, with one budget."""
        for name, route in running.items():
            rollout = _of(route)
            if rollout is None or rollout.phase is Phase.PREPARING or route.local:
                continue
            if rollout.plan.on_harm != "rollback":
                continue
            scope, epoch = scope_of(name, rollout), route.document.status.epoch
            run = self._alone.get(name)
            run = None if run is not None and run.scope != scope else run
            if run is None:
                policy = policy_of(rollout.plan, slow_ms=route.document.spec.limits.slow_ms)
                run = Run(scope, policy, self._webhooks)
                run.policy = budgeted_alone(policy, self._others)
                self._alone[name] = run
            if name not in self._cut:
                self._cut.add(name)
                log.warning("the rollout of route %s stands still, harm is watched for here alone: %s", name, why)
            block = Block(epoch, shares_of(route.document), self._counts.local(scope, epoch))
            run.state, judgement = judge(run.state, block, run.policy)
            finding = finding_of(judgement, rollout.plan)
            if finding.harm:
                try:
                    await self._roll_back(name, route, finding)
                except TurnoutError as error:
                    self._trouble(name, error)


def _of(route: DesiredRoute) -> RolloutState | None:
    return route.document.status.rollout
