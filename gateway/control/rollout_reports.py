"""Writes a rollout's report once it has ended, however it ended: the route's status tells, so a crash loses none."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.desired import DesiredRoute
from gateway.control.documents import RouteDocument
from gateway.control.rollout_facts import ACTOR
from gateway.control.rollout_hooks import settled
from gateway.control.rollout_report import KEPT_REPORTS, REPORT, report_key, report_of
from gateway.control.rollout_run import Run
from gateway.control.rollout_state import RolloutState
from gateway.control.store import AuditEntry, Change, Fence, Store

__all__ = ["Reports"]


class Reports:
    """Used by the driver that leads."""

    def __init__(self, store: Store, coordination: Coordination, clock: Clock) -> None:
        self._store = store
        self._coordination = coordination
        self._clock = clock
        self._written: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Reports [{len(self._written)} known to be written]>"

    def owed(self, route: str, document: RouteDocument) -> bool:
        ended = document.status.last_rollout
        return ended is not None and (route, ended.id) not in self._written

    async def look(self, owed: Mapping[str, DesiredRoute]) -> None:
        """Another leads: what it has finished need not be asked for again."""
        for route, found in owed.items():
            if (ended := found.document.status.last_rollout) is not None:
                await self.finished(route, ended)

    async def finished(self, route: str, ended: RolloutState) -> bool:
        """Whether the report is written, and every webhook that it tells of delivered or given up."""
        if (route, ended.id) in self._written:
            return True
        found = await self._store.read(report_key(route, ended.id))
        if found is None or found.body is None:
            return False
        done = settled(f"{route}/{ended.id}", ended, found.body["webhooks"])
        if done:
            self._written.add((route, ended.id))
        return done

    async def write(self, route: str, document: RouteDocument, run: Run, fence: Fence) -> None:
        """Also once more, when the last webhook is done. What was kept of it for a leader is given up then."""
        ended = document.status.last_rollout
        if ended is None:
            return
        key, done = report_key(route, ended.id), not run.hooks.under_way
        found = await self._store.read(key)
        if found is None or found.body is None or done:
            body = report_of(
                *(route, document.spec.model, ended),
                evidence=run.detail,
                webhooks=run.hooks.deliveries,
                written_at=self._clock.wall(),
            )
            same = found is not None and found.body is not None and found.body["webhooks"] == body["webhooks"]
            if not same:
                await self._commit(route, Change(key, body, 0 if found is None else found.revision), fence)
        if done:
            self._written.add((route, ended.id))
            await self._coordination.forget(run.scope)

    async def _commit(self, route: str, change: Change, fence: Fence) -> None:
        """With the report goes the oldest of those that are too many."""
        snapshot = await self._store.snapshot()
        own = [
            document
            for key, document in snapshot.documents.items()
            if key.kind == REPORT and key.name.rpartition("/")[0] == route and key != change.key
        ]
        own.sort(key=lambda document: document.written_at)
        surplus = own[: max(0, len(own) + 1 - KEPT_REPORTS)]
        changes = [change, *(Change(document.key, None, document.revision) for document in surplus)]
        entry = AuditEntry(ACTOR, "rollout-report", str(change.key))
        await self._store.commit(changes, entry, fence=fence)
