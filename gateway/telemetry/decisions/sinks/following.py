"""All sinks of the decision log: built from plain options, told that there is more, asked how they stand."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.telemetry.decisions.segments import Segment
from gateway.telemetry.decisions.sinks.cursor import CursorFile
from gateway.telemetry.decisions.sinks.delivery import Make
from gateway.telemetry.decisions.sinks.pump import Pump, PumpOptions
from gateway.telemetry.decisions.sinks.trail import Trail

__all__ = ["KINDS", "Sinks"]

KINDS: Mapping[str, str] = {
    "otlp": "gateway.telemetry.decisions.sinks.otlp_logs",
    "redis": "gateway.telemetry.decisions.sinks.redis_stream",
    "cloudevents": "gateway.telemetry.decisions.sinks.cloud_events",
}
"""Imported when one is asked for: protobuf takes 12 MB, and most logs have no sink."""


class Sinks:
    """``options`` are those that ``sinks.choice.options_of`` makes of the settings. ``durable`` gives the last line
    that the log's disk has; ``labels`` name this instance."""

    def __init__(
        self,
        options: Sequence[Mapping[str, Any]],
        *,
        folder: Path,
        durable: Callable[[], int],
        clock: Clock,
        labels: Mapping[str, str],
    ) -> None:
        self._holds = {one["name"]: int(one["hold_bytes"]) for one in options}
        self._pumps = [_pump(one, folder, durable, clock, labels) for one in options]
        for pump in self._pumps:
            pump.start()

    def __repr__(self) -> str:
        return f"<Sinks {self._pumps}>"

    def tick(self) -> None:
        for pump in self._pumps:
            pump.wake()

    def renew(self, secrets: Mapping[str, Mapping[str, Any]]) -> None:
        """``secret`` and ``headers`` by the sink's name: what is sent from now on goes by them."""
        for pump in self._pumps:
            pump.renew(secrets.get(pump.options.name, {}))

    def close(self) -> None:
        """Of all at once, so that several that hang cost no more than one."""
        for pump in self._pumps:
            pump.end()
        for pump in self._pumps:
            pump.close()

    def statistics(self) -> Sequence[Mapping[str, Any]]:
        return [asdict(pump.statistics()) for pump in self._pumps]

    def first_needed(self, segments: Sequence[Segment]) -> int | None:
        """The first segment whose frames a sink has still to read; None: nobody needs any. A sink holds back so much
        of closed segments as it may, and no more."""
        needed = [first for pump in self._pumps if (first := self._needed(pump, segments)) is not None]
        return min(needed, default=None)

    def _needed(self, pump: Pump, segments: Sequence[Segment]) -> int | None:
        standing = pump.statistics()
        if not standing.lag_lines:
            return pump.segment or None
        held, first = 0, None
        for segment in reversed(segments):
            if not segment.raw or segment.number < pump.segment:
                continue
            held += segment.bytes
            if first is not None and held > self._holds[standing.name]:
                break
            first = segment.number
        return first


def _pump(
    options: Mapping[str, Any], folder: Path, durable: Callable[[], int], clock: Clock, labels: Mapping[str, str]
) -> Pump:
    make: Make = importlib.import_module(KINDS[options["kind"]]).make
    name = str(options["name"])
    chosen = PumpOptions(
        name=name,
        batch_records=int(options["batch_records"]),
        batch_bytes=int(options["batch_bytes"]),
        from_start=bool(options["from_start"]),
    )
    return Pump(chosen, make(options, labels), Trail(folder, durable), CursorFile(folder, name), clock=clock)
