"""What is in force on this replica, put together: the desired state with its flags, and what takes a version off at
once."""

from __future__ import annotations

from collections.abc import Callable

from gateway.clock import Clock
from gateway.control.flag_rules import FlagRules
from gateway.control.flag_watch import FlagWatch
from gateway.control.flags import Flags
from gateway.control.kept_rollbacks import KeptRollbacks
from gateway.control.memory_budget import MemoryLimits
from gateway.control.reconcile import Reconciler
from gateway.control.rollbacks import Rollbacks
from gateway.control.signature_rule import Assemble, signed_loads
from gateway.control.store import Snapshot, Store
from gateway.dataplane import Dataplane
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.serving.fleet import Fleet
from gateway.settings import Settings

__all__ = ["InForce"]


class InForce:
    """``reconciler``, ``rollbacks`` and ``flags`` run from ``start`` to ``close``; ``flag_watch`` observes.
    ``limits`` hold for what is loaded."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        blobs: BlobStore,
        fleet: Fleet,
        dataplane: Dataplane,
        assemble: Assemble,
        clock: Clock,
        observer: Observer,
        took: Callable[[Snapshot], None],
        applied: Callable[[], None],
    ) -> None:
        """``took`` is told of each state that was read, ``applied`` of each change of what is served."""
        runtimes = settings.runtimes
        self._dataplane = dataplane
        self.limits = MemoryLimits(runtimes.memory_bytes, runtimes.device_memory_bytes, runtimes.lazy)
        self.flags = Flags(settings.flags, clock=clock)
        self.flag_watch = FlagWatch(self.flags.standing, used=self._names_flags, clock=clock)
        self.reconciler = Reconciler(
            store=store,
            fleet=fleet,
            dataplane=dataplane,
            assemble=signed_loads(settings, blobs, assemble, self._entry),
            clock=clock,
            observer=observer,
            default_route=settings.default_route,
            default_timeout_ms=settings.limits.timeout_ms,
            took=took,
            applied=applied,
            memory=self.limits,
            flags=FlagRules(
                self.flags,
                here=self._serves,
                missed=lambda miss: observer.flag_missed(miss),  # noqa: PLW0108 - it has no observers yet
            ),
        )
        self.rollbacks = Rollbacks(
            store=store,
            reconciler=self.reconciler,
            clock=clock,
            observer=observer,
            kept=KeptRollbacks(settings.home),
        )

    def __repr__(self) -> str:
        return f"<InForce {self.reconciler!r}>"

    async def start(self, last: Snapshot | None = None) -> None:
        """Returns when flags have data, or could not get any in time, and the store was looked at. ``last``: what is
        served until it can be. Raises StoreUnavailable where there is none."""
        await self.flags.start()
        await self.reconciler.start(last)
        self.rollbacks.start()

    async def close(self) -> None:
        """What is in force stays so."""
        await self.rollbacks.close()
        await self.reconciler.close()
        await self.flags.close()

    def asked(self) -> FlagRules:
        """Flags for who only wants to know how a request would be decided: what they miss is told to nobody."""
        return FlagRules(self.flags, here=self._serves, missed=lambda _: None)

    def _serves(self, ref: VersionRef) -> bool:
        return ref in self._dataplane.current.handles

    def _entry(self, ref: VersionRef) -> CatalogueEntry:
        return self.reconciler.desired.models[ref.model].version(ref.number)

    def _names_flags(self) -> bool:
        routes = self.reconciler.in_force.values()
        return any(rule.choose is not None for in_force in routes for rule in in_force.route.rules)
