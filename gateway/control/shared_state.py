"""What operators see of the replicas and of the store that they share, and what they decide about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway import __version__
from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.reconcile import Reconciler, ReconcilerStatistics
from gateway.control.redis_store import RedisStore
from gateway.control.store import Store
from gateway.control.store_recovery import adopt, restore_from_replica
from gateway.control.store_watch import StoreWatch
from gateway.errors import Conflict

__all__ = ["SharedState"]

View = dict[str, Any]


class SharedState:
    """``workers`` shows the web workers of this replica."""

    def __init__(
        self,
        store: Store,
        coordination: Coordination,
        reconciler: Reconciler,
        watch: StoreWatch,
        *,
        clock: Clock,
        workers: Callable[[], Sequence[View]] = tuple,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._reconciler = reconciler
        self._watch = watch
        self._clock = clock
        self._workers = workers

    def __repr__(self) -> str:
        return f"<SharedState {self._watch!r}>"

    async def replicas(self) -> View:
        """Every living replica, this one with more; who leads; and the store."""
        views, leaders = await self._watch.replicas()
        standing, now = self._watch.standing(), self._reconciler.statistics()
        newest = max([standing.newest, now.revision, *(view.revision for view in views)])
        rows = {view.replica: view.to_json() | {"lag": newest - view.revision} for view in views}
        me = self._coordination.replica
        mine = rows.get(me, {"replica": me, "lag": newest - now.revision, "behind": {}, "version": __version__})
        rows[me] = mine | {"revision": now.revision, "here": True, "turnout": __version__, **_here(now)}
        rows[me]["workers"] = self._workers()
        return {
            "replicas": [rows[name] | {"leads": _led(leaders, name)} for name in sorted(rows)],
            "store": standing.to_json(),
        }

    async def adopt(self, *, actor: str, reason: str) -> int:
        """The store as it is becomes this replica's; the revision. Conflict when it is believed anyway."""
        revision = await adopt(self._redis(), actor=actor, reason=reason)
        await self._reconciler.refresh()
        return revision

    async def restore(self, *, actor: str, reason: str, force: bool) -> int:
        """This replica's last state becomes the store's, as a new revision. Conflict when the store is believed."""
        redis, others = self._redis(), self._coordination
        revision = await restore_from_replica(redis, others, actor=actor, reason=reason, clock=self._clock, force=force)
        await self._reconciler.refresh()
        return revision

    def _redis(self) -> RedisStore:
        if not isinstance(self._store, RedisStore):
            raise Conflict("the store is this gateway's own file, not a Redis: there is nothing to adopt or put back")
        return self._store


def _led(leaders: Mapping[str, str], replica: str) -> list[str]:
    return sorted(post for post, name in leaders.items() if name == replica)


def _here(now: ReconcilerStatistics) -> View:
    return {
        "store_up": now.store_up,
        "routes": now.routes,
        "loading": now.loading,
        "failed": now.failed,
        "not_durable": now.overrides,
    }
