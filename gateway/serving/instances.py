"""The engines of one version: several instances, on one device or more, each under a supervisor of its own.

They share one queue, and a batch goes to the one that is free. One that dies is restarted while the others go on:
the version cannot answer only when none can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.serving.counts import Counting
from gateway.serving.engine import Engine, EngineFactory, EngineInfo, VersionSpec
from gateway.serving.supervision import Prove, Supervisor

__all__ = ["Instances", "specs_of"]


def specs_of(spec: VersionSpec) -> tuple[VersionSpec, ...]:
    """One for each engine: ``instances`` on each of the devices, the devices in turn."""
    devices = spec.devices or (spec.load.device,)
    each = [replace(spec, load=replace(spec.load, device=device)) for device in devices]
    return tuple(each * max(1, spec.instances))


class Instances:
    """All engines of one version. Used from the event loop only."""

    def __init__(
        self,
        spec: VersionSpec,
        factory: EngineFactory,
        *,
        clock: Clock,
        observer: Observer,
        prove: Prove,
        changed: Callable[[], None],
    ) -> None:
        """``prove`` checks a restarted engine (kept short); ``changed`` is told of every new standing of one."""
        self.supervisors = tuple(
            Supervisor(own, factory, clock=clock, observer=observer, prove=prove, changed=changed)
            for own in specs_of(spec)
        )

    def __repr__(self) -> str:
        standings = ", ".join(str(supervisor.standing) for supervisor in self.supervisors)
        return f"<Instances [{standings}]>"

    @property
    def info(self) -> EngineInfo | None:
        """What an engine that is up has loaded; all have loaded the same."""
        return next((s.info for s in self.supervisors if s.info is not None), None)

    @property
    def reason(self) -> str:
        """Why no engine can answer, in words for an operator; empty when one can."""
        if any(supervisor.live is not None for supervisor in self.supervisors):
            return ""
        return "; ".join(dict.fromkeys(supervisor.reason for supervisor in self.supervisors))

    @property
    def deaths(self) -> int:
        return sum(supervisor.deaths for supervisor in self.supervisors)

    @property
    def restarts(self) -> int:
        return sum(supervisor.restarts for supervisor in self.supervisors)

    def memory_bytes(self) -> int:
        return sum(supervisor.memory_bytes() for supervisor in self.supervisors)

    async def engine(self) -> Engine:
        """The first engine, waiting out a restart under way. VersionUnavailable while it backs off or is closed."""
        return await self.supervisors[0].engine()

    @property
    def pause_s(self) -> float:
        """Until the first engine is started again; nothing while it is up, or its start under way."""
        return self.supervisors[0].pause_s

    def count(self, counting: Counting) -> None:
        """All count what they run, those that come after them too."""
        for supervisor in self.supervisors:
            supervisor.count(counting)

    def forgive(self) -> None:
        """The last death of the first engine was one request's fault, not the version's."""
        self.supervisors[0].forgive()

    async def start(self, first: Prove, further: Prove) -> None:
        """Starts one and lets ``first`` measure it undisturbed, then the others, side by side. Whatever is raised,
        ``close`` ends those that are up."""
        head, *rest = self.supervisors
        await head.start(first)
        starting = [asyncio.ensure_future(supervisor.start(further)) for supervisor in rest]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for start in starting:
                start.cancel()
            if starting:
                await asyncio.wait(starting)
            raise

    async def close(self) -> None:
        """Returns when everything is given back. Safe to call again."""
        await asyncio.gather(*(supervisor.close() for supervisor in self.supervisors))
