"""Who observes requests for the recorder: lines, decisions, spans and what is known of the recorder itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.clock import SystemClock
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.recording.recorder import KEEPS, Losses, Recorder
from gateway.recording.telling import Telling
from gateway.routing.table import RoutingTable
from gateway.settings import Settings
from gateway.telemetry.decisions.families import DecisionFamilies
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder_families import RecorderFamilies
from gateway.telemetry.request_log import EventLines
from gateway.telemetry.sink_families import SinkFamilies
from gateway.telemetry.trace_families import TraceCounts, TraceFamilies
from gateway.telemetry.tracing.keeping import Keeping
from gateway.telemetry.tracing.message import EVENT as TRACES
from gateway.telemetry.tracing.observer import Tracing

__all__ = ["recording_observers"]


def recording_observers(
    recorder: Recorder,
    metrics: Metrics,
    clock: SystemClock,
    settings: Settings,
    *,
    table: Callable[[], RoutingTable],
    loaded: Callable[[VersionRef], Mapping[str, Any] | None],
    ends: Callable[[Callable[[], None]], object],
) -> Iterator[Observer]:
    """After the metrics among the observers: what is kept of a trace becomes an exemplar of what was counted. ``ends``
    gets what is to be called at the end."""
    metrics.registry.register(RecorderFamilies(lambda: recorder.statistics().restarts))
    yield recorder if settings.server.workers == 1 else Losses(recorder)
    if "request_log" in recorder.options:
        yield EventLines(recorder.tell, clock=clock)
    if not KEEPS.isdisjoint(recorder.options):
        yield Telling(recorder, clock=clock, table=table, loaded=loaded)
    if "decisions" in recorder.options:
        road = recorder.road
        metrics.registry.register(
            DecisionFamilies(lambda: recorder.shown("decisions"), lambda: sum(road.statistics().lost.values()))
        )
        metrics.registry.register(SinkFamilies(lambda: recorder.shown("decisions").get("sinks", ())))
    if "traces" in recorder.options:
        telemetry = settings.telemetry
        tracing = Tracing(
            lambda body: recorder.tell(TRACES, body),
            Keeping(telemetry.trace_kept_per_s, sampled_per_s=telemetry.trace_most_per_s),
            clock=clock,
            table=table,
            exemplars=metrics,
        )
        ends(tracing.close)
        metrics.registry.register(TraceFamilies(lambda: _trace_counts(tracing, recorder.shown(TRACES))))
        yield tracing


def _trace_counts(tracing: Tracing, part: Mapping[str, Any]) -> TraceCounts:
    dropped = {**part.get("dropped", {}), "recorder": tracing.lost_spans}
    return TraceCounts(tracing.kept, tracing.suppressed, part.get("exported", 0), dropped)
