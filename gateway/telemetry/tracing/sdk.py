"""Spans in OpenTelemetry's own classes, and the exporters that speak to a collector. Imported only when spans go out.

The SDK's tracer, sampler and batch processor have no part in it: sampling is decided and ids are given before a span
exists (``gateway.trace_context``), spans are made when all is over, and the queue counts what it loses
(``gateway.telemetry.tracing.exporting``). What is taken from the SDK is what a span is, and from its exporters the
protocol: encoding, compression, time-outs, retries with back-off. The global provider is left to whoever embeds this.

Exporters read ``OTEL_…`` variables where an option is not given. All options are given here, and the recorder's process
has no such variables.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState
from opentelemetry.trace.status import Status, StatusCode

from gateway import __version__
from gateway.errors import SettingsError
from gateway.telemetry.tracing.options import ExportOptions
from gateway.telemetry.tracing.spans import Span

__all__ = ["KnownResource", "SdkExporter", "exporter_for"]

_OTLP = "opentelemetry.exporter.otlp.proto.{}.trace_exporter"
_LOGGERS = {"http": _OTLP.format("http"), "grpc": "opentelemetry.exporter.otlp.proto.grpc.exporter"}
_LINE_EVERY_S = 60.0
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCHEMA = list(Schemas)[-1].value
_WENT_WELL = Status(StatusCode.UNSET)
_MOST_STATE = 512  # as the door lets in; the SDK writes all of a bad one to the log


class Seldom(logging.Filter):
    """Lets one line a minute through: an exporter writes several for each batch that it cannot deliver, with the reason
    in each, and goes on so for as long as the collector is gone. How many spans that costs is a metric."""

    def __init__(self) -> None:
        super().__init__()
        self._last: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if self._last is not None and 0 <= record.created - self._last < _LINE_EVERY_S:
            return False
        self._last = record.created
        return True


class KnownResource(Resource):
    """Its hash is made once. Exporters ask for it at each span, to sort them, and the SDK writes all of its attributes
    as JSON each time: an eighth of what a trace cost."""

    def __init__(self, attributes: Mapping[str, str], schema_url: str) -> None:
        super().__init__(attributes, schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class SdkExporter:
    """See ``gateway.telemetry.tracing.exporting.Exporter``."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        gateway: str,
        anew: Callable[[Mapping[str, str]], SpanExporter] | None = None,
    ) -> None:
        """``gateway`` is this gateway's name, unique among its replicas; ``anew`` makes an exporter with other headers,
        which the SDK gives to an exporter once."""
        self._exporter = exporter
        self._anew = anew
        self._headers: Mapping[str, str] | None = None
        self._used: Mapping[str, str] | None = None
        self._resource = KnownResource(
            {
                "service.name": "turnout",
                "service.version": __version__,
                "service.instance.id": gateway,
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.version": sdk_version,
            },
            _SCHEMA,
        )
        self._scope = InstrumentationScope("turnout", __version__, _SCHEMA)

    def export(self, spans: Sequence[Span]) -> bool:
        headers = self._headers  # of another thread, which may write it again at any time
        if headers is not None and headers != self._used and self._anew is not None:
            before, self._exporter = self._exporter, self._anew(headers)
            self._used = headers
            before.shutdown()
        made = [self._made(span) for span in spans]
        return self._exporter.export(made) is SpanExportResult.SUCCESS

    def renew(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def close(self) -> None:
        self._exporter.shutdown()

    def _made(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if 0 < len(span.state) <= _MOST_STATE else None
        return ReadableSpan(
            span.name,
            _context(span.trace_id, span.span_id, remote=False, state=state),
            None if span.parent_id is None else _context(span.trace_id, span.parent_id, remote=span.serves),
            self._resource,
            span.attributes,
            [Event(event.name, event.attributes, event.at_ns) for event in span.events],
            [Link(_context(link.trace_id, link.span_id, remote=False), link.attributes) for link in span.links],
            SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
            status=_WENT_WELL if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.window.start_ns,
            end_time=span.window.end_ns,
            instrumentation_scope=self._scope,
        )


def exporter_for(options: ExportOptions) -> SpanExporter:
    """The exporter that the options name. SettingsError: it is not installed, or a file that it needs is not there."""
    if options.exporter == "console":
        return ConsoleSpanExporter(service_name="turnout", out=sys.stderr, formatter=_one_line)
    return _http(options) if options.exporter == "otlp" else _grpc(options)


def _one_line(span: ReadableSpan) -> str:
    """As a log takes it, at a third of what the SDK's indented form costs."""
    return str(span.to_json(indent=None)) + "\n"


def _http(options: ExportOptions) -> SpanExporter:
    module = _installed("http", options)
    package = importlib.import_module("opentelemetry.exporter.otlp.proto.http")
    gzip = options.compression == "gzip"
    exporter: SpanExporter = module.OTLPSpanExporter(
        endpoint=_traces_url(options.endpoint or "http://localhost:4318"),
        certificate_file=options.certificate,
        headers=dict(options.headers),
        timeout=options.timeout_s,
        compression=package.Compression.Gzip if gzip else package.Compression.NoCompression,
    )
    return exporter


def _grpc(options: ExportOptions) -> SpanExporter:
    module = _installed("grpc", options)
    grpc = importlib.import_module("grpc")
    endpoint = options.endpoint or "http://localhost:4317"
    credentials = grpc.ssl_channel_credentials(_certificate(options)) if urlsplit(endpoint).scheme == "https" else None
    exporter: SpanExporter = module.OTLPSpanExporter(
        endpoint=endpoint,
        insecure=credentials is None,
        credentials=credentials,
        headers={name.lower(): value for name, value in options.headers.items()},  # gRPC takes no capitals
        timeout=options.timeout_s,
        compression=grpc.Compression.Gzip if options.compression == "gzip" else grpc.Compression.NoCompression,
    )
    return exporter


def _installed(protocol: str, options: ExportOptions) -> Any:
    try:
        module = importlib.import_module(_OTLP.format(protocol))
    except ImportError as missing:
        raise SettingsError(
            f"telemetry.trace_exporter is {options.exporter!r}, but {missing.name} is not installed;"
            " pip install 'turnout[otlp]'"
        ) from None
    logger = logging.getLogger(_LOGGERS[protocol])
    if not any(isinstance(one, Seldom) for one in logger.filters):
        logger.addFilter(Seldom())
    return module


def _certificate(options: ExportOptions) -> bytes | None:
    if options.certificate is None:
        return None
    try:
        return Path(options.certificate).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"telemetry.otlp_certificate: {options.certificate} cannot be read: {error.strerror};"
            " expected the certificates, in PEM, that sign the collector's"
        ) from None


def _context(trace_id: str, span_id: str, *, remote: bool, state: TraceState | None = None) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=_SAMPLED, trace_state=state)


def _traces_url(endpoint: str) -> str:
    """A collector's address with the traces path added where it has none."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"
