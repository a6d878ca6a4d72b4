"""What a part outside control shares with the other replicas: counters that add up, and what its leader keeps.

Binds the coordination to one post, so that the part needs to know neither terms nor fences. It says so by a Protocol of
its own (``gateway.telemetry.drift.sharing.Shared``).
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.control.coordination import Coordination
from gateway.control.store import Fence

__all__ = ["SharedWatch"]


class SharedWatch:
    """Raises what the coordination raises: StoreUnavailable, Fenced."""

    def __init__(self, coordination: Coordination, post: str) -> None:
        self._coordination = coordination
        self._post = post

    def __repr__(self) -> str:
        return f"<SharedWatch {self._post} of {self._coordination!r}>"

    async def lead(self) -> int | None:
        return await self._coordination.lead(self._post)

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None:
        await self._coordination.publish(scope, counters)

    async def gather(self, scope: str) -> Mapping[str, int]:
        return await self._coordination.gather(scope)

    async def keep(self, scope: str, value: bytes, term: int) -> None:
        await self._coordination.keep(scope, value, Fence(self._post, term))

    async def kept(self, scope: str) -> bytes | None:
        return await self._coordination.kept(scope)
