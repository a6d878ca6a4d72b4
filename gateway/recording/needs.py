"""What the settings want recorded, as plain options for the recorder's process, and the descriptors that go with them.

What the operator got wrong is found here, in the gateway, before it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import __version__
from gateway.settings import Settings
from gateway.telemetry.decisions.configured import decision_options
from gateway.telemetry.feedback.tables import LABELS_FILE
from gateway.telemetry.sink import DescriptorSink, open_sink
from gateway.telemetry.tracing.configured import export_options

__all__ = ["Needs", "recorder_needs"]


@dataclass(frozen=True, slots=True)
class Needs:
    """``options`` by part (``gateway.recording.process``); nothing, where nothing is to be recorded."""

    options: Mapping[str, Any]
    sinks: Sequence[DescriptorSink]

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(sink.fileno() for sink in self.sinks)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def recorder_needs(settings: Settings, *, gateway: str) -> Needs:
    """Raises SettingsError. ``gateway``: this replica's name."""
    options: dict[str, Any] = {}
    traces = export_options(settings, gateway=gateway)
    if traces is not None:
        options["traces"] = traces.to_json()
    sink = open_sink(settings.telemetry.request_log, settings.home)
    if sink is not None:
        options["request_log"] = {"limit": settings.telemetry.request_log_queue}
    decisions = decision_options(settings, instance=gateway, build=__version__)
    if decisions is not None:
        options["decisions"] = decisions
    options["truth"] = {
        "path": str(settings.home / LABELS_FILE),
        **settings.telemetry.truth.model_dump(),
        "stands_s": settings.telemetry.clock_stands_h * 3600.0,
    }
    return Needs(options, () if sink is None else (sink,))
