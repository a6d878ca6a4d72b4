"""What the engines of one version must show before they answer anybody.

The first is warmed and measured. Each further one must have loaded the very same, and is warmed too. One that was
restarted must be the same and answer once: requests wait for it.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.clock import Clock
from gateway.errors import LoadError
from gateway.messages import Arrays, Signature
from gateway.serving.borrowed_engine import BorrowedEngine
from gateway.serving.cost import CostCurve, hang_limit_s
from gateway.serving.engine import Engine, EngineInfo, VersionSpec
from gateway.serving.warmup import Rehearsal, Warmth

__all__ = ["Acceptance"]


class Acceptance:
    """Remembers what the first engine was, and holds the others to it.

    Each of ``first``, ``further`` and ``restarted`` raises LoadError for an engine that is not to be used.
    """

    def __init__(self, spec: VersionSpec, clock: Clock, warmth: Warmth | None = None) -> None:
        """``warmth``: what warming found elsewhere, for engines that are borrowed warm."""
        self._spec = spec
        self._clock = clock
        self._warm_already = warmth is not None
        self._rehearsal: Rehearsal | None = None
        self.warmth = warmth or Warmth(CostCurve(), spec.batch.max_rows)
        # Known before anything has loaded where the manifest says it.
        self.signature: Signature | None = spec.load.signature
        self.info: EngineInfo | None = None
        # What self-inferences send, the same object each time: engines know by it what is nobody's traffic.
        self.probe: Arrays | None = None

    def __repr__(self) -> str:
        known = "nothing accepted yet" if self.info is None else f"{self.warmth.max_rows} rows"
        return f"<Acceptance {self._spec.ref} [{known}]>"

    async def first(self, engine: Engine, info: EngineInfo) -> None:
        """Nothing else of the version runs, so that its costs can be measured."""
        self.info, self.signature = info, info.signature
        self._rehearsal = Rehearsal(self._spec, info.signature)
        if not self._warm_already:
            self.warmth = await self._rehearsal.warm(engine, self._clock)
        self.probe = self._rehearsal.inputs(1)

    async def further(self, engine: Engine, info: EngineInfo) -> None:
        """Warmed as the first, but beside others, so that only its row limit says something."""
        self._require_same(info)
        if self._rehearsal is not None and not self._warm_already:
            found = await self._rehearsal.warm(engine, self._clock)
            self.warmth = replace(self.warmth, max_rows=min(self.warmth.max_rows, found.max_rows))

    async def restarted(self, engine: Engine, info: EngineInfo) -> None:
        """One row, once. One that is borrowed has answered to its owner: to ask again is to meet another borrower's bad
        request, and to blame the version for it."""
        self._require_same(info)
        self.info = info
        if self._rehearsal is not None and not isinstance(engine, BorrowedEngine):
            limit_s = hang_limit_s(self._spec.batch.hang_floor_ms, self.warmth.cold_s)
            await self._rehearsal.check(engine, limit_s=limit_s)

    def _require_same(self, info: EngineInfo) -> None:
        first = self.info
        if first is not None and (info.signature != first.signature or dict(info.loaded) != dict(first.loaded)):
            ref = self._spec.ref
            raise LoadError(f"{ref} came back with another signature or other files than it was loaded with")
