"""Keeps the versions here within a memory budget: what is idle is unloaded, and loaded again when it is asked for.

``resting`` versions are wanted by desired state and not loaded. One wakes when the routes give it traffic where they
gave it none, when it becomes a known good or a fallback, or when a request asked for it (a pin; with ``lazy``, any
request). The reconciler leaves them out, and is told through ``changed`` when there are others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.control.desired import Desired, DesiredRoute
from gateway.control.eviction import Choice, Demand, Resident, Standing, choose, standing
from gateway.errors import LoadError
from gateway.events.bursts import Burst
from gateway.events.observer import Observer
from gateway.events.records import FlagMiss, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet, Footprint
from gateway.serving.handle import VersionState

__all__ = ["RESTING", "MemoryBudget", "MemoryLimits"]

log = logging.getLogger("turnout.control")

RESTING = "unloaded to keep to the memory budget; it is loaded again when it is asked for"
LOOK_S = 5.0
_CHILD_BYTES = 48 << 20
"""What a version's process takes besides its files: 33 MB with torch and ONNX Runtime shared, measured."""
_LOAD_BYTES_PER_S = 200e6
"""For versions that were never loaded here."""
_LEAVE_S = 60.0


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """None: no limit. ``device_bytes`` holds for each CUDA device by itself."""

    host_bytes: int | None = None
    device_bytes: int | None = None
    lazy: bool = False

    def of(self, device: str) -> int | None:
        return self.host_bytes if device == "cpu" else self.device_bytes

    @property
    def none(self) -> bool:
        return self.host_bytes is None and self.device_bytes is None


@dataclass(slots=True)
class _Known:
    """What was seen of a version. What it is asked to prove itself is no use of it."""

    sizes: dict[str, int] = field(default_factory=dict)
    reload_s: float | None = None
    last_used: float = 0.0


class MemoryBudget(Observer):
    """Used from the event loop; what a version holds is measured in a thread. ``gone`` waits until a version left."""

    def __init__(
        self,
        limits: MemoryLimits,
        fleet: Fleet,
        *,
        clock: Clock,
        changed: Callable[[], None],
        gone: Callable[[VersionRef, float], Awaitable[bool]],
    ) -> None:
        self._limits = limits
        self._fleet = fleet
        self._clock = clock
        self._changed = changed
        self._gone = gone
        self._desired = Desired()
        self._in_force: tuple[DesiredRoute, ...] = ()
        # Resting versions, with the standing that they had when they went.
        self._resting: dict[VersionRef, Standing] = {}
        self._asked: set[VersionRef] = set()
        self._coming: dict[VersionRef, dict[str, int]] = {}
        self._known: dict[VersionRef, _Known] = {}
        self._one_at_a_time = asyncio.Lock()
        self._due = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MemoryBudget [{len(self._resting)} resting | {len(self._coming)} coming]>"

    @property
    def resting(self) -> Mapping[VersionRef, Standing]:
        return self._resting

    def start(self) -> None:
        if not self._limits.none:
            self._looking = asyncio.ensure_future(self._look_again_and_again())
            self._looking.add_done_callback(self._stopped)

    def _stopped(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled():
            log.critical("the memory of versions is not looked after any more", exc_info=looking.exception())

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def settle(self, desired: Desired, in_force: Iterable[DesiredRoute]) -> frozenset[VersionRef]:
        """The versions to leave unloaded, now that this is desired; others that rested wake."""
        self._desired, self._in_force = desired, tuple(in_force)
        wanted = desired.wanted()
        for ref, then in list(self._resting.items()):
            now = self._standing(ref)
            serves_more = now is Standing.SERVING and (then < now or not self._limits.lazy)
            if ref not in wanted or now is Standing.PINNED or serves_more:
                del self._resting[ref]
            else:
                self._resting[ref] = now
        return frozenset(self._resting)

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        """A request that found its version resting wakes it. One that ran in another process is told here, too."""
        if self._limits.none:
            return
        burst = Burst.of(records)
        for group in burst.good:
            self._see(group.version).last_used = self._clock.monotonic()
        for record in burst.others:
            if record.decision is None:
                continue
            ref = record.decision.version
            self._see(ref).last_used = self._clock.monotonic()
            if self._resting and record.error == "VersionUnavailable":
                self.wake(ref)

    def fell_back(self, decision: Decision, cause: str) -> None:
        """So does one that its fallback answered."""
        if self._resting:
            self.wake(decision.version)

    def flag_missed(self, record: FlagMiss) -> None:
        """So does a flag that names it."""
        if self._resting and record.cause == "not-loaded" and record.version is not None:
            self.wake(VersionRef(record.model, record.version))

    def wake(self, ref: VersionRef) -> None:
        if self._resting.pop(ref, None) is not None:
            log.info("%s was asked for and is loaded again", ref)
            self._asked.add(ref)
            self._changed()

    async def admit(self, spec: VersionSpec) -> bool:
        """Makes room for a version that is to be loaded; False when it is to rest instead, since nobody asks for it and
        others would have to go. LoadError, and nobody unloaded, when there is no room to make."""
        if self._limits.none:
            return True
        async with self._one_at_a_time:
            needed = self._expected(spec)
            held = await asyncio.to_thread(self._fleet.memory)
            self._note(held)
            victims: list[VersionRef] = []
            for device, count in needed.items():
                choice = self._choice(device, held, count, beside=spec.ref)
                if (choice.short_bytes or choice.victims) and self._idles(spec.ref):
                    self._resting[spec.ref] = Standing.UNUSED
                    return False
                if choice.short_bytes:
                    raise LoadError(self._refusal(spec.ref, device, count, choice))
                victims += choice.victims
            self._rest(victims, f"for {spec.ref}")
            self._coming[spec.ref] = needed
            for ref in dict.fromkeys(victims):
                await self._gone(ref, _LEAVE_S)
        self._asked.discard(spec.ref)
        self._see(spec.ref).last_used = self._clock.monotonic()
        return True

    def _idles(self, ref: VersionRef) -> bool:
        return ref not in self._asked and self._standing(ref) is Standing.UNUSED

    def loaded(self, ref: VersionRef, seconds: float | None) -> None:
        """What was to be loaded is here, after so many seconds; or (None) it is not."""
        self._coming.pop(ref, None)
        if seconds is not None:
            self._see(ref).reload_s = seconds
            self._due.set()  # it may be larger than was thought

    async def look(self) -> None:
        """Unloads what is too much by now: versions grow."""
        async with self._one_at_a_time:
            held = await asyncio.to_thread(self._fleet.memory)
            self._note(held)
            for device in dict.fromkeys(one.device for one in held):
                self._rest(self._choice(device, held, 0).victims, "since the versions here have grown")

    async def _look_again_and_again(self) -> None:
        while True:
            timer = self._clock.call_at(self._clock.monotonic() + LOOK_S, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            self._due.clear()
            await self.look()

    def _standing(self, ref: VersionRef) -> Standing:
        routes = (*self._desired.routes.values(), *self._in_force)
        return standing(ref, routes, self._desired.residents)

    def _see(self, ref: VersionRef) -> _Known:
        return self._known.setdefault(ref, _Known(last_used=self._clock.monotonic()))

    def _note(self, held: Iterable[Footprint]) -> None:
        """Sizes, and who is at work now, for anybody but itself."""
        for one in held:
            self._see(one.ref).sizes[one.device] = one.memory_bytes
        for ref, handle in self._fleet.handles.items():
            if handle.at_work:
                self._see(ref).last_used = self._clock.monotonic()

    def _choice(self, device: str, held: Iterable[Footprint], needed: int, beside: VersionRef | None = None) -> Choice:
        budget = self._limits.of(device)
        if budget is None:
            return Choice()
        coming = sum(sizes.get(device, 0) for ref, sizes in self._coming.items() if ref != beside)
        residents = [
            self._resident(one)
            for one in held
            if one.device == device
            and one.ref in self._fleet.handles
            and one.ref not in {*self._resting, *self._coming}
        ]
        # A version that serves nobody sends nobody away that serves.
        lazy = self._limits.lazy and (beside is None or self._standing(beside) > Standing.UNUSED)
        return choose(residents, Demand(budget - coming, needed, lazy), self._clock.monotonic())

    def _resident(self, one: Footprint) -> Resident:
        known = self._see(one.ref)
        reload_s = one.memory_bytes / _LOAD_BYTES_PER_S if known.reload_s is None else known.reload_s
        handle = self._fleet.handles.get(one.ref)
        # One that leaves already, and one that a request has just asked for, are nobody to choose.
        settled = handle is not None and handle.state is VersionState.ACTIVE and one.ref not in self._asked
        rank = self._standing(one.ref) if settled else Standing.PINNED
        return Resident(one.ref, one.memory_bytes, reload_s, known.last_used, rank)

    def _rest(self, victims: Iterable[VersionRef], why: str) -> None:
        fresh = [ref for ref in victims if ref not in self._resting]
        for ref in fresh:
            self._resting[ref] = self._standing(ref)
            log.info("%s is unloaded to keep to the memory budget, %s", ref, why)
        if fresh:
            self._changed()

    def _expected(self, spec: VersionSpec) -> dict[str, int]:
        known = self._known.get(spec.ref)
        files = sum(file.size_bytes for file in spec.load.files)
        devices = spec.devices or (spec.load.device,)
        if known is not None and known.sizes:
            return dict(known.sizes)
        needed = {"cpu": (files + _CHILD_BYTES) * spec.instances * len(devices)}
        for device in devices:
            if device.startswith("cuda"):
                needed["cuda:0" if device == "cuda" else device] = files * spec.instances
        return needed

    def _refusal(self, ref: VersionRef, device: str, needed: int, choice: Choice) -> str:
        key = "memory_bytes" if device == "cpu" else "device_memory_bytes"
        return (
            f"{ref} needs about {needed >> 20} MiB on {device}, and {choice.short_bytes >> 20} MiB of the budget "
            f"(runtimes.{key}: {(self._limits.of(device) or 0) >> 20} MiB) would still be lacking with every version "
            f"unloaded that may be. Take versions off their routes, raise the budget, or allow runtimes.lazy"
        )
