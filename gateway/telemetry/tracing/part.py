"""The recorder's part that makes spans and sends them: all that traces cost, in a process that answers nobody."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.events.records import BatchRecord, RequestRecord
from gateway.telemetry.tracing.exporting import Exporter, Exporting
from gateway.telemetry.tracing.message import EVENT, Message, unpack
from gateway.telemetry.tracing.options import ExportOptions
from gateway.telemetry.tracing.spans import Span
from gateway.telemetry.tracing.tree import Kept, Place, batch_span, request_spans, shadow_span

__all__ = ["Traces", "spans_of", "traces_part"]

_SDK = "gateway.telemetry.tracing.sdk"
_EXPORTERS = "gateway.telemetry.tracing.exporters"


class Traces:
    """See ``gateway.recording.parts.Part``. Owns ``exporter``."""

    full = False

    def __init__(self, exporter: Exporter, place: Place) -> None:
        self._exporting = Exporting(exporter)
        self._place = place

    def __repr__(self) -> str:
        return f"<Traces {self._exporting!r}>"

    def take(self, records: Sequence[RequestRecord]) -> None:
        """Which requests are kept is decided in the gateway, where their exemplars are: those alone come, by ``told``,
        with their batches."""

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if event == EVENT:
            self._exporting.put(spans_of(unpack(body), self._place))
        elif event == "secrets":
            self._exporting.renew(body["otlp_headers"])

    def tick(self) -> None:
        """The exporting thread has its own pace."""

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """``traces``: how many spans were exported, and lost, by cause."""
        if kind != EVENT:
            raise KeyError(kind)
        return {"exported": self._exporting.exported, "dropped": dict(self._exporting.dropped)}

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Returns once all that was told has been tried; False when that took too long."""
        return self._exporting.flush(timeout_s)

    def close(self) -> None:
        self._exporting.close()


def traces_part(options: Mapping[str, Any]) -> Traces:
    """From ``ExportOptions.to_json``. SettingsError. OpenTelemetry is imported here and now, and not before."""
    told = ExportOptions.from_json(options)
    sdk, exporters = importlib.import_module(_SDK), importlib.import_module(_EXPORTERS)

    def made(headers: Mapping[str, str]) -> Any:
        return exporters.exporter_for(told._replace(headers=headers))

    exporter: Exporter = sdk.SdkExporter(made(told.headers), gateway=told.gateway, anew=made)
    return Traces(exporter, Place(told.gateway, told.server))


def spans_of(message: Message, place: Place) -> Iterator[Span]:
    """Each request's tree, then the batches, then the shadows' copies."""
    batches = {batch.batch: batch for batch in message.batches}
    riders: dict[int, list[Kept]] = {}
    for kept in message.kept:
        if kept.record.batch:
            riders.setdefault(kept.record.batch, []).append(kept)
        yield from request_spans(kept, _batch_of(kept.record, batches), place)
    for serial, batch in batches.items():
        yield batch_span(batch, riders.get(serial, ()), place)
    for shadow in message.shadows:
        if (span := shadow_span(shadow, place)) is not None:
            yield span


def _batch_of(record: RequestRecord, batches: Mapping[int, BatchRecord]) -> BatchRecord | None:
    return batches.get(record.batch) if record.batch else None
