"""Versions in service are looked at again in their time: on the replica that leads the post, one after the other.

One that does not pass any more goes on answering, since gates are of what was, and a route's guard of what is; but it
is told of: an alarm, which is audited and notified, until it passes or is out of service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.control.alarms import Alarm, Alarms
from gateway.control.coordination import Coordination
from gateway.control.desired import Desired
from gateway.control.ending import ended
from gateway.control.gate_control import GateControl
from gateway.control.reconcile import Reconciler
from gateway.errors import StoreUnavailable, TurnoutError
from gateway.messages import VersionRef
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.gates.purposes import asked_for

__all__ = ["POST", "GateSchedule", "due", "in_service", "standing"]

log = logging.getLogger("turnout.gates")

POST = "gates"
ACTOR = "gates"
KIND = "gates"
TICK_S = 1.0
LOOK_S = 30.0
RETRY_S = 900.0
_HOUR_S = 3600.0
_CLOCKS_DIFFER_S = 300.0


def in_service(desired: Desired) -> frozenset[VersionRef]:
    """Versions that may answer clients."""
    return frozenset(
        route.ref(number)
        for route in desired.routes.values()
        for number in route.document.answering() & route.document.routable()
    )


def due(desired: Desired, now: float) -> Iterator[VersionRef]:
    """Those in service whose model wants them looked at, and that were not for so long. ``now``: wall clock."""
    for ref in sorted(in_service(desired), key=str):
        model = desired.models.get(ref.model)
        every_h = None if model is None or model.gates is None else model.gates.get("revalidate_h")
        entry = None if model is None else next((e for e in model.versions if e.number == ref.number), None)
        if every_h is None or entry is None or model is None:
            continue
        if not any(asked_for(model.gates, one) for one in purposes_of(desired, ref)):
            continue
        age_s = now - last_run(entry)
        if age_s >= every_h * _HOUR_S or age_s < -_CLOCKS_DIFFER_S:  # of the future: a clock was wrong
            yield ref


def purposes_of(desired: Desired, ref: VersionRef) -> frozenset[str]:
    """The changes that put the version where it is: gates for these are looked at again."""
    model, number = desired.models.get(ref.model), ref.number
    if model is None:
        return frozenset()
    routes = {
        f"rollout:{name}"
        for name, route in desired.routes.items()
        if route.document.spec.model == ref.model and number in route.document.answering()
    }
    aliases = {f"alias:{alias}" for alias in model.aliases_of(number)}
    return frozenset({f"target:{target}" for target in model.targets_of(number)} | aliases | routes)


def standing(desired: Desired) -> Mapping[VersionRef, bool]:
    """Versions in service whose gates were run, and whether they passed when they were last."""
    found = {}
    for ref in in_service(desired):
        model = desired.models.get(ref.model)
        entry = None if model is None else next((e for e in model.versions if e.number == ref.number), None)
        runs = [] if entry is None else [result for result in entry.gates if result.get("record")]
        if model is not None and model.gates is not None and runs:
            found[ref] = bool(runs[-1]["passed"])
    return found


def last_run(entry: CatalogueEntry) -> float:
    return max((float(result["at"]) for result in entry.gates if result.get("record")), default=0.0)


@dataclass(slots=True)
class _Under:
    """What is being looked at."""

    ref: VersionRef
    task: asyncio.Task[None]


class GateSchedule:
    """``tick`` is all of it; ``start`` has it called each second, which keeps the post."""

    def __init__(
        self,
        gates: GateControl,
        alarms: Alarms,
        *,
        coordination: Coordination,
        reconciler: Reconciler,
        clock: Clock,
    ) -> None:
        self._gates = gates
        self._alarms = alarms
        self._coordination = coordination
        self._reconciler = reconciler
        self._clock = clock
        self._under: _Under | None = None
        self._not_before: dict[VersionRef, float] = {}
        self._look_at = 0.0
        self._leads = False
        self._settled = False
        self._trouble = ""
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<GateSchedule [{'idle' if self._under is None else self._under.ref}]>"

    def start(self) -> None:
        self._ticking = asyncio.ensure_future(self._tick_on())

    async def close(self) -> None:
        await ended(self._ticking)
        self._ticking = None
        if self._under is not None:
            await ended(self._under.task)
        if self._leads:
            try:
                await self._coordination.resign(POST)
            except StoreUnavailable as error:
                log.info("the post of gates was not given up: %s", error)

    async def _tick_on(self) -> None:
        """A round that fails in a way nobody thought of is logged, and the next one is tried."""
        while True:
            (failure,) = await asyncio.gather(self.tick(), return_exceptions=True)
            if isinstance(failure, Exception):
                self._troubled(failure)
            await self._clock.sleep(TICK_S)

    async def tick(self) -> None:
        """Begins the next look that is due. Where nothing is ever due, nobody leads."""
        desired = self._reconciler.desired
        if not any(model.gates is not None and model.gates.get("revalidate_h") for model in desired.models.values()):
            self._leads = False
            if not self._settled:
                await self._clear(desired)
                self._settled = True
            return
        self._settled = False
        self._leads = await self._coordination.lead(POST) is not None
        if not self._leads or self._under is not None or self._clock.monotonic() < self._look_at:
            return
        await self._clear(desired)
        now = self._clock.monotonic()
        waiting = (ref for ref in due(desired, self._clock.wall()) if self._not_before.get(ref, 0.0) <= now)
        ref = next(waiting, None)
        if ref is None:
            self._look_at = now + LOOK_S
            return
        task = asyncio.ensure_future(self._look(ref))
        self._under = _Under(ref, task)
        task.add_done_callback(self._over)

    def _over(self, _: asyncio.Task[None]) -> None:
        self._under = None

    async def _look(self, ref: VersionRef) -> None:
        # Whatever comes of it, it is not begun again at once.
        self._not_before[ref] = self._clock.monotonic() + RETRY_S
        try:
            purposes = purposes_of(self._reconciler.desired, ref)
            view = await self._gates.run(
                ref.model, str(ref.number), actor=ACTOR, purpose="revalidation", purposes=purposes
            )
        except TurnoutError as fault:
            self._troubled(fault)
            return
        self._trouble = ""
        self._alarms.told(_alarm(ref, view))

    async def _clear(self, desired: Desired) -> None:
        """Alarms of versions that are out of service, or of which nothing is asked any more."""
        serving = {
            str(ref) for ref in in_service(desired) if (m := desired.models.get(ref.model)) and m.gates is not None
        }
        for alarm in await self._alarms.standing():
            version = str(alarm["name"]).removeprefix(f"{KIND}/")
            if alarm.get("kind") == KIND and version not in serving:
                reason = f"{version} is out of service, or nothing is asked of it any more"
                self._alarms.told(Alarm(f"{KIND}/{version}", KIND, f"model/{version}", False, reason, by=ACTOR))

    def _troubled(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self._trouble:
            self._trouble = text
            log.error("versions in service are not looked at: %s", text, exc_info=error)


def _alarm(ref: VersionRef, view: Mapping[str, Any]) -> Alarm:
    raised = not view["passed"]
    reason = f"{ref} is in service and does not pass its gates: {view['why']}" if raised else f"{ref} passes its gates"
    advice = f"See what changed (turnout gate {ref} --last), and roll out a version that passes; it goes on answering"
    numbers = {"Version": str(ref), "Gates that refuse": ", ".join(view["failed"]) or "none", "Record": view["record"]}
    return Alarm(f"{KIND}/{ref}", KIND, f"model/{ref}", raised, reason[:1000], advice, numbers, ACTOR)
