"""How the store and the replicas stand, as this replica sees it: for the admin plane, ``/readyz`` and the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.control.coordination import Coordination, ReplicaView
from gateway.control.durability import DURABLE_HERE, Durability, durability_of
from gateway.control.ending import ended
from gateway.control.reconcile import Reconciler
from gateway.control.redis_store import RedisStore
from gateway.control.store import Store
from gateway.errors import StoreUnavailable

__all__ = ["StoreStanding", "StoreWatch"]

log = logging.getLogger("turnout.control")

LOOK_S = 15.0


@dataclass(frozen=True, slots=True)
class StoreStanding:
    """``refused``: why the store is not believed; ``newest`` is the revision last seen in it."""

    kind: str
    address: str
    up: bool
    durability: Durability
    refused: str | None
    newest: int
    replicas: int

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "address": self.address,
            "up": self.up,
            "revision": self.newest,
            "refused": self.refused,
            **self.durability.to_json(),
        }


class StoreWatch:
    """Looks every ``LOOK_S``: a Redis may be set otherwise while it runs. ``posts``: those whose leader is shown."""

    def __init__(
        self,
        store: Store,
        coordination: Coordination,
        reconciler: Reconciler,
        *,
        clock: Clock,
        posts: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._reconciler = reconciler
        self._clock = clock
        self._posts = posts
        self._durability = DURABLE_HERE if not isinstance(store, RedisStore) else Durability("unknown", "not asked yet")
        self._replicas = 1
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<StoreWatch {self.standing()}>"

    def start(self) -> None:
        self._looking = asyncio.ensure_future(self._look())

    async def close(self) -> None:
        await ended(self._looking)

    async def _look(self) -> None:
        while True:
            try:
                await self._look_once()
            except StoreUnavailable as error:
                log.debug("the store's settings and the replicas are not known now: %s", error)
            await self._clock.sleep(LOOK_S)

    async def _look_once(self) -> None:
        if isinstance(self._store, RedisStore):
            found = await durability_of(self._store.line)
            if found != self._durability and not found.sound:
                log.warning("%s", found.detail)
            self._durability = found
        self._replicas = max(1, len(await self._coordination.replicas()))

    def standing(self) -> StoreStanding:
        store, now = self._store, self._reconciler.statistics()
        redis = isinstance(store, RedisStore)
        return StoreStanding(
            kind="redis" if redis else "local",
            address=store.line.address if isinstance(store, RedisStore) else "",
            up=now.store_up,
            durability=self._durability,
            refused=store.refusal if isinstance(store, RedisStore) else None,
            newest=store.known.revision if isinstance(store, RedisStore) else now.revision,
            replicas=self._replicas,
        )

    def troubles(self) -> Sequence[str]:
        """What ``/readyz`` says is degraded. Nothing of it keeps a replica from answering."""
        standing = self.standing()
        found = []
        if standing.refused is not None:
            found.append(f"store: {standing.refused}")
        elif not standing.up:
            found.append(
                "store: it does not answer; serving goes on from the last revision, and nothing can be changed"
            )
        if standing.durability.state not in ("always", "unknown"):
            found.append(f"store: {standing.durability.detail}")
        return found

    async def replicas(self) -> tuple[Sequence[ReplicaView], dict[str, str]]:
        """The living replicas, and who leads what; none while the store is away."""
        try:
            views = await self._coordination.replicas()
            leaders = {post: name for post in self._posts if (name := await self._coordination.leader(post))}
        except StoreUnavailable:
            return (), {}
        self._replicas = max(1, len(views))
        return views, leaders
