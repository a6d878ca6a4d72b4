"""The versions that are here as operators see them: state, process, memory, queue; and why one does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.control.memory_budget import RESTING
from gateway.control.reconcile import Reconciler
from gateway.messages import VersionRef
from gateway.serving.handle import HandleStatistics

__all__ = ["VersionViews"]

View = dict[str, Any]


class VersionViews:
    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def __repr__(self) -> str:
        return f"<VersionViews of {self._reconciler!r}>"

    async def all(self, queue_elsewhere: Callable[[VersionRef], Mapping[str, int]]) -> Sequence[View]:
        """Every version that is here, in whatever state; and those that could not even be tried. What queues of other
        processes hold of a version is added to the one here."""
        # The system takes its time to count the memory of large processes, and requests are not to wait for that.
        memory: dict[VersionRef, dict[str, int]] = {}
        for held in await asyncio.to_thread(self._reconciler.fleet.memory):
            memory.setdefault(held.ref, {})[held.device] = held.memory_bytes
        rows = {
            row.ref: _version_view(row, memory.get(row.ref, {})) for row in self._reconciler.fleet.statistics().versions
        }
        for ref, row in rows.items():
            if row["queue"] is not None:
                row["queue"] |= {name: row["queue"][name] + more for name, more in queue_elsewhere(ref).items()}
        for ref in sorted(self._reconciler.desired.wanted() - set(rows)):
            reason = self._reconciler.failure(ref)
            rests = ref in self._reconciler.budget.resting
            state = "resting" if rests else "registered" if reason is None else "failed"
            reason = RESTING if rests else reason
            rows[ref] = {"model": ref.model, "version": ref.number, "state": state, "reason": reason or ""}
            rows[ref] |= {"ready": False, "pid": None, "memory_bytes": 0}
        return [rows[ref] for ref in sorted(rows)]

    def whereabouts(self, ref: VersionRef) -> tuple[str, str]:
        """State and reason of a version that does not answer now: ``absent`` when nothing wants it here.

        One that did not come up stays ``failed``, also while it is tried again.
        """
        reason = self._reconciler.failure(ref)
        if reason is not None:
            return "failed", reason
        handle = self._reconciler.fleet.handles.get(ref)
        if handle is not None:
            return str(handle.state), handle.reason
        if ref in self._reconciler.budget.resting:
            return "resting", RESTING
        if ref in self._reconciler.desired.wanted():
            return "registered", "waits for its turn to load"
        return "absent", "not loaded here"


def _version_view(row: HandleStatistics, memory: Mapping[str, int]) -> View:
    queue = row.batcher
    return {
        "model": row.ref.model,
        "version": row.ref.number,
        "digest": row.digest,
        "state": str(row.state),
        "reason": row.reason,
        "ready": row.ready,
        "pid": row.pid,
        "device": row.device,
        "memory_bytes": memory.get("cpu", 0),
        "memory": dict(memory),
        "leases": row.leases,
        "deaths": row.deaths,
        "restarts": row.restarts,
        "loaded": dict(row.loaded),
        "profile": {"max_rows": row.max_rows, "costs_s": {str(n): cost for n, cost in row.costs_s.items()}},
        "queue": None
        if queue is None
        else {
            "items": queue.queued_items,
            "rows": queue.queued_rows,
            "running": queue.running_items,
            "answered": queue.answered,
            "failed": queue.failed,
            "batches": queue.batches,
        },
    }
