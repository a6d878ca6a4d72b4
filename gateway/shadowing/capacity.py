"""Whether there is capacity to spare, and who may be answered by a version."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.serving.handle import Handle

__all__ = ["Capacity", "answering"]


class Capacity:
    """What this process sees of the machine: the queues of the versions here, and the cores that it may use."""

    def __init__(self, cores: int | None = None) -> None:
        """``cores`` None: those of this process."""
        # One is the loop's.
        self._cores = max(1, (len(os.sched_getaffinity(0)) if cores is None else cores) - 1)

    def __repr__(self) -> str:
        return f"<Capacity [{self._cores} cores]>"

    def spare_for(self, handle: Handle, handles: Mapping[VersionRef, Handle]) -> bool:
        """No request that a client waits for is queued on its device, and there is a core to compute on. A GPU's
        versions take turns, and spare work has what nobody else wants; the processor's do not."""
        if handle.urgent_rows:
            return False
        device, busy = handle.device, 0
        for other in handles.values():
            if other is handle or other.idle or other.device != device:
                continue
            if other.urgent_rows:
                return False
            busy += 1
        return device != "cpu" or busy < self._cores


def answering(table: RoutingTable) -> frozenset[VersionRef]:
    """The versions that clients may be answered by, unless they pin another."""
    found: set[VersionRef] = set()
    for route in table.routes.values():
        numbers = {arm.version for arm in route.arms if arm.weight}
        numbers.update(*(rule.versions() for rule in route.rules), () if route.fallback is None else (route.fallback,))
        found.update(route.ref(number) for number in numbers - route.quarantined)
    return frozenset(found)
