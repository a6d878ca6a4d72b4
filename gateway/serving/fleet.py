"""All versions at work on this machine: loaded when asked for, one at a time, kept until retired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.clock import Clock
from gateway.errors import LoadError, ServiceDraining
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.serving.devices import Devices
from gateway.serving.engine import EngineFactory, VersionSpec
from gateway.serving.handle import Handle, HandleStatistics, VersionState
from gateway.serving.warmup import Warmth

__all__ = ["Fleet", "FleetStatistics", "Footprint"]


@dataclass(frozen=True, slots=True)
class FleetStatistics:
    """Every version here, failed ones included, in order."""

    versions: tuple[HandleStatistics, ...]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one loaded version's end would give back to the system: of the machine's memory (``cpu``), or of a GPU's."""

    ref: VersionRef
    device: str
    memory_bytes: int


def _footprints(ref: VersionRef, handle: Handle) -> Iterator[Footprint]:
    info = handle.info
    if info is None:
        return
    yield Footprint(ref, "cpu", handle.memory_bytes())
    if info.device != "cpu":
        yield Footprint(ref, info.device, info.device_memory_bytes)


class Fleet:
    """Handles by version. A failed one stays listed with its reason until it is retired or asked for again."""

    def __init__(
        self,
        factory: EngineFactory,
        *,
        clock: Clock,
        observer: Observer,
        loads_at_once: int = 1,
        drain_timeout_s: float = 30.0,
        probe_interval_s: float = 5.0,
        warmth: Callable[[VersionSpec], Warmth | None] = lambda _: None,
    ) -> None:
        """``loads_at_once``: more would only slow each other down, and what serves beside them. ``warmth``: what
        warming a version's engine found elsewhere, which is then not repeated."""
        self._factory = factory
        self._clock = clock
        self._observer = observer
        self._drain_timeout_s = drain_timeout_s
        self._probe_interval_s = probe_interval_s
        self._warmth = warmth
        self._slots = asyncio.Semaphore(loads_at_once)
        self._devices = Devices()
        self._handles: dict[VersionRef, Handle] = {}
        self._compared: Mapping[VersionRef, Sequence[VersionRef]] = {}
        self._loads: dict[VersionRef, asyncio.Task[Handle]] = {}
        self._closed = False

    def __repr__(self) -> str:
        states = [str(handle.state) for handle in self._handles.values()]
        counts = " | ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<Fleet [{counts or 'empty'}]>"

    @property
    def handles(self) -> Mapping[VersionRef, Handle]:
        """A live view: also those that load, drain or failed. What routing may use is ``active``."""
        return MappingProxyType(self._handles)

    @property
    def idle(self) -> bool:
        """Nothing waits for any version, and nothing runs."""
        return all(handle.idle for handle in self._handles.values())

    async def ensure(self, spec: VersionSpec) -> Handle:
        """The version's handle, active; loads it if need be. Who asks meanwhile shares that load.

        Raises LoadError (IntegrityError), also when the version is retired while it loads; a later
        call tries again. A version that drains is loaded anew once it is gone. Cancelling this
        call leaves the load going on, since it is wanted by the desired state, not by the caller.
        """
        if self._closed:
            raise ServiceDraining(f"{spec.ref} is not loaded: the gateway is shutting down")
        handle = self._handles.get(spec.ref)
        if handle is not None and handle.state is VersionState.ACTIVE:
            return handle
        load = self._loads.get(spec.ref)
        if load is None:
            if handle is None or handle.state is VersionState.FAILED:
                handle = self._handles[spec.ref] = self._made(spec)
            load = asyncio.ensure_future(self._load(spec, handle))
            self._loads[spec.ref] = load
            load.add_done_callback(lambda done: self._loaded(spec.ref, done))
        try:
            return await asyncio.shield(load)
        except asyncio.CancelledError:
            if load.cancelled():
                raise LoadError(f"{spec.ref} was retired before it had loaded") from None
            raise

    async def retire(self, ref: VersionRef, *, abandon: bool = False) -> None:
        """Drains and closes a version; cancels its load. ``abandon`` ends it at once. Unknown ones are no error."""
        load = self._loads.get(ref)
        handle = self._handles.get(ref)
        if load is not None and (handle is None or handle.state not in (VersionState.LOADING, VersionState.WARMING)):
            load.cancel()  # it waits for its turn, or for the same version's former end
            await asyncio.wait({load})
            handle = self._handles.get(ref)
        if handle is None:
            return
        await handle.retire(abandon=abandon)
        if self._handles.get(ref) is handle:
            del self._handles[ref]

    async def close(self, *, abandon: bool = False) -> None:
        """Retires all, side by side; nothing is loaded any more. Returns when everything is given back."""
        self._closed = True
        refs = {*self._handles, *self._loads}
        await asyncio.gather(*(self.retire(ref, abandon=abandon) for ref in refs))

    def weigh(self, weights: Mapping[VersionRef, float]) -> None:
        """How versions that share a device share it: by the traffic they are due. One not named has the least."""
        for ref, handle in self._handles.items():
            handle.weigh(weights.get(ref, 0.0))

    def compare(self, others: Mapping[VersionRef, Sequence[VersionRef]] | None = None) -> None:
        """Whose profiles a version's rows are counted with besides its own, where those others are here. None: the
        same as before, since a profile was replaced."""
        others = self._compared = self._compared if others is None else others
        for ref, handle in self._handles.items():
            found = [self._handles[other] for other in others.get(ref, ()) if other in self._handles]
            handle.compare([other.spec.profile for other in found if other.spec.profile is not None])

    def statistics(self) -> FleetStatistics:
        return FleetStatistics(tuple(self._handles[ref].statistics() for ref in sorted(self._handles)))

    def memory(self) -> tuple[Footprint, ...]:
        """Of every version that has loaded. Slow: any thread may call it, and the event loop should not."""
        handles = list(self._handles.items())
        return tuple(footprint for ref, handle in handles for footprint in _footprints(ref, handle))

    async def _load(self, spec: VersionSpec, handle: Handle) -> Handle:
        if handle.state is not VersionState.REGISTERED:  # the same version, on its way out
            await handle.retire()
            handle = self._handles[spec.ref] = self._made(spec)
        async with self._slots:
            await handle.start()
        return handle

    def _made(self, spec: VersionSpec) -> Handle:
        return Handle(
            spec,
            self._factory,
            clock=self._clock,
            observer=self._observer,
            drain_timeout_s=self._drain_timeout_s,
            probe_interval_s=self._probe_interval_s,
            warmth=self._warmth(spec),
            devices=self._devices,
        )

    def _loaded(self, ref: VersionRef, load: asyncio.Task[Handle]) -> None:
        if self._loads.get(ref) is load:
            del self._loads[ref]
        if not load.cancelled():
            load.exception()  # told to whoever waits; when nobody does, the handle's state tells it
