"""What traces cost: in the gateway, a request that is looked at and one that is kept; in the recorder, its tree."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.clock import ManualClock
from gateway.events.bursts import Burst
from gateway.events.records import BatchRecord, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.routing.table import RoutingTable
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing.keeping import Keeping
from gateway.telemetry.tracing.message import unpack
from gateway.telemetry.tracing.observer import Tracing
from gateway.telemetry.tracing.part import spans_of
from gateway.telemetry.tracing.sdk import SdkExporter
from gateway.telemetry.tracing.tree import Place
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["traces"]

_VERSION = VersionRef("digits", 3)
_REQUESTS, _A_BATCH, _A_BURST = 4096, 8, 256


def traces(plan: Plan) -> Outcome:
    work = "traces (processor time)"
    costs: dict[str, list[float]] = {}
    for _ in range(plan.rounds):
        for name, cost in _Case().costs().items():
            costs.setdefault(name, []).append(cost)
    share = [sum(parts) for parts in zip(costs["looked at"], _each(costs["batch"], _A_BATCH), strict=True)]
    figures = (
        Figure(work, "gateway, a request, none kept", tuple(share), "µs", 1.0, 0.3),
        Figure(work, "gateway, a request that is kept", tuple(costs["kept"]), "µs", 10, 4),
        Figure(work, "recorder, a request that is kept", tuple(costs["made"]), "µs", 800, 300),
    )
    rows = tuple((name, f"{min(each):.3g}") for name, each in costs.items())
    return Outcome(figures, (Table("What traces are made of", ("step", "µs"), rows),))


def _each(costs: list[float], by: int) -> list[float]:
    return [cost / by for cost in costs]


class _Nowhere:
    """Takes what is encoded, short of the network."""

    def deliver(self, body: bytes, spans: int) -> bool:
        return bool(body and spans)

    def plain(self) -> Any:
        raise NotImplementedError("what is encoded here is taken at once")

    def shutdown(self) -> None:
        """Nothing is open."""


class _Case:
    """Requests that went well, in batches; the same again, as if all had been sampled."""

    def __init__(self) -> None:
        noise = random.Random(1)
        self._records = [_record(number, noise.expovariate(1000)) for number in range(_REQUESTS)]
        self._batches = [_batch(number) for number in range(1, _REQUESTS // _A_BATCH + 1)]
        self._messages: list[Mapping[str, Any]] = []

    def costs(self) -> dict[str, float]:
        looked, batch = self._look(), self._note()
        kept = self._keep()
        return {"looked at": looked, "batch": batch, "kept": kept, "made": self._make()}

    def _tracing(self) -> Tracing:
        def take(body: Mapping[str, Any]) -> bool:
            self._messages.append(body)
            return True

        table = RoutingTable({}, None, 1)
        metrics = Metrics(table=lambda: table)
        return Tracing(
            take, Keeping(10.0, sampled_per_s=10_000), clock=ManualClock(), table=lambda: table, exemplars=metrics
        )

    def _look(self) -> float:
        """What a burst's sorting costs is paid by all who take bursts, and not counted here."""
        keeping = Keeping(0.001)
        bursts = [Burst(self._records[at : at + _A_BURST]) for at in range(0, _REQUESTS, _A_BURST)]
        for burst in bursts:
            burst.good  # noqa: B018 (sorted now)
        return _microseconds(lambda: [keeping.choose(burst, 0.0) for burst in bursts], _REQUESTS)

    def _note(self) -> float:
        tracing = self._tracing()
        return _microseconds(lambda: [tracing.batch_finished(batch) for batch in self._batches], len(self._batches))

    def _keep(self) -> float:
        sampled = Burst(record._replace(sampled=True) for record in self._records[:_A_BURST])

        def keep() -> None:
            tracing = self._tracing()
            for batch in self._batches[: _A_BURST // _A_BATCH]:
                tracing.batch_finished(batch)
            tracing.requests_finished(sampled)
            tracing.close()

        return _microseconds(keep, _A_BURST)

    def _make(self) -> float:
        exporter = SdkExporter(_Nowhere(), gateway="bench")
        place = Place("bench")

        def make() -> None:
            exporter.export(exporter.prepared(spans_of(unpack(self._messages[0]), place)))

        return _microseconds(make, _A_BURST)


def _microseconds(work: Callable[[], object], count: int) -> float:
    """Of the processor; the best of three, since other processes take their share of its caches."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best * 1e6 / count


def _record(number: int, duration_s: float) -> RequestRecord:
    decision = Decision("digits", _VERSION, "split", 17, 7, 2)
    return RequestRecord(
        "digits", f"{number:032x}", f"{number:036x}", decision, _VERSION, 200, None, None, 1, 1.7e9, duration_s,
        0.0001, 0.0002, trace_id=f"{number + 1:032x}", span_id=f"{number + 1:016x}", batch=number // _A_BATCH + 1,
        batch_rows=_A_BATCH, decode_s=0.00002, decide_s=0.00001, encode_s=0.00001,
    )  # fmt: skip


def _batch(number: int) -> BatchRecord:
    return BatchRecord(
        _VERSION, _A_BATCH, _A_BATCH, 0.0002, (0.0001,) * _A_BATCH, None, number, 1.7e9 + 0.0005, 0.0003, "idle", 32,
        _A_BATCH, 0, "process", 0, "cpu",
    )  # fmt: skip
