"""The protocol's model repository, served by the control plane."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.residents import Residents
from gateway.web.services import IndexEntry

__all__ = ["ControlRepository"]


class ControlRepository:
    """See ``gateway.web.services.Repository``."""

    def __init__(self, residents: Residents) -> None:
        self._residents = residents

    async def index(self) -> Sequence[IndexEntry]:
        rows = await self._residents.index()
        return [IndexEntry(row.ref.model, row.ref.number, row.state, row.reason) for row in rows]

    async def load(self, reference: str, *, actor: str) -> None:
        await self._residents.load(reference, actor=actor)

    async def unload(self, reference: str, *, actor: str) -> None:
        await self._residents.unload(reference, actor=actor)
