"""What the settings want recorded, as plain options for the recorder's process, and the descriptors that go with them.

What the operator got wrong is found here, in the gateway, before it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import __version__
from gateway.secret_reading import SecretReader, secret_of
from gateway.settings import Settings
from gateway.telemetry.decisions.configured import decision_options
from gateway.telemetry.decisions.sinks.choice import secrets_of
from gateway.telemetry.feedback.tables import LABELS_FILE
from gateway.telemetry.sink import DescriptorSink, open_sink
from gateway.telemetry.tracing.configured import export_headers, export_options

__all__ = ["SECRETS", "Needs", "recorder_needs", "secrets_told"]

SECRETS = "secrets"
"""The event that tells the parts of secrets that have changed."""


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


def secrets_told(settings: Settings, read: SecretReader) -> dict[str, Any]:
    """The secrets among the options, as they are now. Raises SettingsError."""
    telemetry = settings.telemetry
    headers = {} if telemetry.trace_exporter == "none" else export_headers(settings, read)
    sinks = telemetry.decisions.sinks if telemetry.decisions.enabled else ()
    return {"otlp_headers": headers, "sinks": secrets_of(sinks, read)}


def recorder_needs(settings: Settings, *, gateway: str, read: SecretReader = secret_of) -> Needs:
    """Raises SettingsError. ``gateway``: this replica's name."""
    options: dict[str, Any] = {}
    traces = export_options(settings, gateway=gateway, read=read)
    if traces is not None:
        options["traces"] = traces.to_json()
    sink = open_sink(settings.telemetry.request_log, settings.home)
    if sink is not None:
        options["request_log"] = {"limit": settings.telemetry.request_log_queue}
    decisions = decision_options(settings, instance=gateway, build=__version__, read=read)
    if decisions is not None:
        options["decisions"] = decisions
    options["truth"] = {
        "path": str(settings.home / LABELS_FILE),
        **settings.telemetry.truth.model_dump(),
        "stands_s": settings.telemetry.clock_stands_h * 3600.0,
    }
    return Needs(options, () if sink is None else (sink,))
