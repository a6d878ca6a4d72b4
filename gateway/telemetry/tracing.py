"""One span a sampled request, through the OpenTelemetry SDK, on a provider that lives as long as the app.

The span is made when the request has finished, out of its record: sampling was decided when the
request came in (``gateway.trace_context``), so a request that is not sampled costs one comparison
here and no object. Export happens in batches on the SDK's own thread; an exporter that fails is
logged there, one that cannot keep up loses spans, and neither delays a request. The global provider is
left to whoever embeds the gateway.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, set_span_in_context

from gateway import __version__
from gateway.errors import SettingsError
from gateway.events import Observer, RequestRecord
from gateway.messages import Decision
from gateway.settings import TelemetrySettings

__all__ = ["Tracing", "exporter_for"]

_OTLP_MODULE = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_ROUTES = {"predict": "/predict/{route}", "oip": "/v2/models/{name}/infer"}
_FLAG_REASONS = {"pin": "static", "split": "split", "fallback": "default"}
_QUEUE_SPANS = 2048
_EXPORT_EVERY_MS = 1000

Attributes = Mapping[str, str | int | float | bool]


def exporter_for(settings: TelemetrySettings) -> SpanExporter | None:
    """The exporter that ``telemetry.trace_exporter`` names, None for ``none``. SettingsError: it is not installed."""
    if settings.trace_exporter == "none":
        return None
    if settings.trace_exporter == "console":
        return ConsoleSpanExporter(service_name="turnout", out=sys.stderr)
    try:
        module = importlib.import_module(_OTLP_MODULE)
    except ImportError as missing:
        raise SettingsError(
            f"telemetry.trace_exporter is 'otlp', but {missing.name} is not installed; pip install 'turnout[otlp]'"
        ) from None
    exporter: SpanExporter = module.OTLPSpanExporter(endpoint=_traces_url(settings.otlp_endpoint))
    return exporter


class Tracing(Observer):
    """Owns a provider, its batch processor and ``exporter``."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": "turnout", "service.version": __version__}),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_span_attribute_length=500),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=_QUEUE_SPANS, schedule_delay_millis=_EXPORT_EVERY_MS)
        )
        self._tracer = self._provider.get_tracer("turnout", __version__)
        self._spans = 0

    def __repr__(self) -> str:
        return f"<Tracing [{self._spans} spans]>"

    def request_finished(self, record: RequestRecord) -> None:
        if not record.sampled or record.trace_id is None or record.span_id is None:
            return
        self._spans += 1
        self._ids.trace_id = int(record.trace_id, 16)
        self._ids.span_id = int(record.span_id, 16)
        began = _nanoseconds(record.started_wall)
        span = self._tracer.start_span(
            f"POST {_ROUTES.get(record.protocol, record.protocol)}",
            context=_caller(record),
            kind=SpanKind.SERVER,
            attributes={**_http(record), **_decision(record)},
            start_time=began,
        )
        if record.code >= 500:
            span.set_status(StatusCode.ERROR, record.error)
        span.end(began + _nanoseconds(record.duration_s))

    def flush(self) -> None:
        """Exports what is queued, on the calling thread; for tests and short-lived processes."""
        self._provider.force_flush()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Exports what is queued and shuts the exporter down; False when it was given up after ``timeout_s``.

        The SDK would wait 30 s for an exporter that hangs; the thread that waits here ends with the process.
        """
        thread = threading.Thread(target=self._provider.shutdown, name="turnout-tracing-close", daemon=True)
        thread.start()
        thread.join(timeout_s)
        return not thread.is_alive()


class _GivenIds(IdGenerator):
    """The ids of the span about to be made: they were told to the client before the span exists."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return True


def _nanoseconds(seconds: float) -> int:
    """To the microsecond: a float of seconds since the epoch holds no more."""
    return round(seconds * 1_000_000) * 1_000


def _caller(record: RequestRecord) -> Context:
    """The caller's span as parent, or an empty context: whatever is current in this process has no part in it."""
    if record.parent_span_id is None or record.trace_id is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(int(record.trace_id, 16), int(record.parent_span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _http(record: RequestRecord) -> Attributes:
    """https://opentelemetry.io/docs/specs/semconv/http/http-spans/"""
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": _ROUTES.get(record.protocol, record.protocol),
        "http.response.status_code": record.code,
        "turnout.request_id": record.request_id,
        "turnout.decision_id": record.decision_id,
    }
    if record.error is not None:
        attributes["error.type"] = record.error
    return attributes


def _decision(record: RequestRecord) -> Attributes:
    """A route is a feature flag whose variants are versions: https://opentelemetry.io/docs/specs/semconv/feature-flags/"""
    decision = record.decision
    if decision is None:
        return {"turnout.route": record.route}
    attributes: dict[str, str | int | float] = {
        "feature_flag.key": decision.route,
        "feature_flag.provider.name": "turnout",
        "feature_flag.result.variant": str(decision.version.number),
        "feature_flag.result.reason": _FLAG_REASONS.get(decision.reason, "targeting_match"),
        "feature_flag.version": str(decision.revision),
        "turnout.route": decision.route,
        "turnout.model": decision.version.model,
        "turnout.version": decision.version.number,
        "turnout.reason": decision.reason,
        "turnout.epoch": decision.epoch,
        "turnout.rows": record.rows,
        "turnout.queue_s": record.queue_s,
        "turnout.compute_s": record.compute_s,
    }
    if decision.flag_age_s is not None:
        attributes["turnout.flag_age_s"] = decision.flag_age_s
    if decision.flag is not None:
        attributes |= _flag(decision, *decision.flag)
    if decision.bucket is not None:
        attributes["turnout.bucket"] = decision.bucket
    if record.chosen_failure is not None:
        attributes["turnout.chosen_failure"] = record.chosen_failure
    if record.answered_by is not None:
        attributes["turnout.answered_by"] = str(record.answered_by)
    return attributes


def _traces_url(endpoint: str | None) -> str | None:
    """A collector's address with the traces path added where it has none; None leaves it to the exporter's defaults."""
    if endpoint is None or urlsplit(endpoint).path.strip("/"):
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/traces"


def _flag(decision: Decision, key: str, variant: str | None, provider: str) -> dict[str, str | int | float]:
    """A flag of a provider stands in the place of the route, in the specification's names."""
    said: dict[str, str | int | float] = {
        "feature_flag.key": key,
        "feature_flag.provider.name": provider,
        "feature_flag.result.variant": variant or str(decision.version.number),
        "turnout.flag_stale": decision.flag_stale,
    }
    if decision.flag_stale:
        said["feature_flag.result.reason"] = "stale"
    return said
