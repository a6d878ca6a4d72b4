"""Answers of batches on their way to the decision log, beside those that clients got, and told apart from them.

Their route is ``batch:MODEL``, which no route can be called, their reason and protocol are ``batch``, their request is
the job and the row: ``JOB:4097``. They go to the recorder alone: a batch is nobody's traffic, so neither metrics of
routes nor guard, rollouts, drift or truth see it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef

__all__ = ["BATCH", "BatchRecords", "RecordsTaken"]

log = logging.getLogger("turnout.control")

BATCH = "batch"
_AGAIN_S = 0.05


class RecordsTaken(Protocol):
    """The recorder, as far as this needs it."""

    @property
    def full(self) -> bool: ...

    def take(self, records: Sequence[RequestRecord]) -> None: ...


class BatchRecords:
    """``decision_id`` names a record. A batch has time: while there is no room for its records, it waits."""

    def __init__(self, taken: RecordsTaken, decision_id: Callable[[], str], clock: Clock) -> None:
        self._taken = taken
        self._decision_id = decision_id
        self._clock = clock

    async def take(self, ref: VersionRef, job: str, records: Sequence[Sequence[Any]]) -> None:
        """``records`` as ``gateway.batch.scoring`` makes them."""
        if self._taken.full:
            log.warning("batch %s waits: its records cannot be kept now (the decision log has no room)", job)
        while self._taken.full:
            await self._clock.sleep(_AGAIN_S)
        decision = Decision(f"{BATCH}:{ref.model}", ref, BATCH, None, 0)
        self._taken.take([self._record(decision, job, record) for record in records])

    def _record(self, decision: Decision, job: str, record: Sequence[Any]) -> RequestRecord:
        first, rows, key, began, took_s, batch_rows, inputs, outputs = record
        return RequestRecord(
            route=decision.route,
            request_id=f"{job}:{first + 1}",
            decision_id=self._decision_id(),
            decision=decision,
            answered_by=decision.version,
            code=200,
            chosen_failure=None,
            error=None,
            rows=rows,
            started_wall=began,
            duration_s=took_s,
            compute_s=took_s,
            protocol=BATCH,
            batch_rows=batch_rows,
            key=key,
            content=Content(input_digest=inputs, output_digest=outputs),
        )
