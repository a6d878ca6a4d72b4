"""Counters of each version as the protocol's statistics extension reports them. An observer like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.events.bursts import Burst
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, RequestRecord
from gateway.messages import VersionRef

__all__ = ["ModelStatistics"]


@dataclass(slots=True)
class _Duration:
    """Grows with every sample; written by the observer's methods only."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": int(self.seconds * 1e9)}


@dataclass(slots=True)
class _VersionCounters:
    last_inference: float = 0.0
    inferences: int = 0
    executions: int = 0
    answered: int = 0
    success_s: float = 0.0
    queue_s: float = 0.0
    fail: _Duration = field(default_factory=_Duration)
    compute: _Duration = field(default_factory=_Duration)
    batches: dict[int, _Duration] = field(default_factory=dict)


class ModelStatistics(Observer):
    """Successes count for the version that answered, failures for the one that was chosen.

    Input and output are copied by the engine within a batch's compute time, so the protocol's
    ``compute_input`` and ``compute_output`` stay at zero and ``compute_infer`` holds all of it.
    """

    def __init__(self) -> None:
        self._versions: dict[VersionRef, _VersionCounters] = {}

    def __repr__(self) -> str:
        return f"<ModelStatistics [{len(self._versions)} versions]>"

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        burst = Burst.of(records)
        for good in burst.good:
            counters = self._versions.get(good.version) or self._of(good.version)
            counters.inferences += good.rows
            counters.answered += len(good)
            counters.success_s += sum(good.durations)
            counters.queue_s += good.queue_s
            counters.last_inference = good.ended_wall
        for record in burst.others:
            self._finished(record)

    def _finished(self, record: RequestRecord) -> None:
        if record.decision is None:
            return
        chosen = record.decision.version
        if record.code == 200:
            counters = self._versions.get(record.answered_by or chosen) or self._of(record.answered_by or chosen)
            counters.inferences += record.rows
            counters.answered += 1
            counters.success_s += record.duration_s
            counters.queue_s += record.queue_s
            counters.last_inference = record.started_wall + record.duration_s
        if record.chosen_failure is not None or record.code >= 400:
            self._of(chosen).fail.add(record.duration_s)

    def batch_finished(self, record: BatchRecord) -> None:
        if record.failure is not None:
            return
        counters = self._of(record.version)
        counters.executions += 1
        counters.compute.add(record.compute_s)
        counters.batches.setdefault(record.rows, _Duration()).add(record.compute_s)

    def version_retired(self, version: VersionRef) -> None:
        self._versions.pop(version, None)

    def report(self, name: str, version: VersionRef) -> dict[str, Any]:
        """One ``model_stat`` of the extension; ``name`` is what the client calls the model."""
        counters = self._versions.get(version) or _VersionCounters()
        nothing = _Duration().to_json()
        return {
            "name": name,
            "version": str(version.number),
            "last_inference": int(counters.last_inference * 1000),
            "inference_count": counters.inferences,
            "execution_count": counters.executions,
            "inference_stats": {
                "success": _Duration(counters.answered, counters.success_s).to_json(),
                "fail": counters.fail.to_json(),
                "queue": _Duration(counters.answered, counters.queue_s).to_json(),
                "compute_input": nothing,
                "compute_infer": counters.compute.to_json(),
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": nothing,
                    "compute_infer": duration.to_json(),
                    "compute_output": nothing,
                }
                for rows, duration in sorted(counters.batches.items())
            ],
        }

    def _of(self, version: VersionRef) -> _VersionCounters:
        counters = self._versions.get(version)
        if counters is None:
            counters = self._versions[version] = _VersionCounters()
        return counters
