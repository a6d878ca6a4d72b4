"""The SDK's exporters, as the options say, and the way into them for what is encoded already.

Of an exporter the transport is taken: compression, time-outs, retries with back-off, TLS. It takes spans in the SDK's
own classes and encodes them itself, at four fifths of what a trace cost, and has no public way in behind that. So its
insides are used, where they are what they were when this was written (``Delivering``). Another version may have them
otherwise: whether it has all that is named is looked at when it is made, and whether that takes what it is given shows
at the first delivery. Where it does not, it gets the SDK's classes.

Exporters read ``OTEL_…`` variables where an option is not given. All options are given here, and the recorder's process
has no such variables.
"""

from __future__ import annotations

import gzip
import importlib
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult

from gateway.errors import SettingsError
from gateway.telemetry.tracing.options import ExportOptions

__all__ = ["Delivering", "Seldom", "exporter_for"]

_OTLP = "opentelemetry.exporter.otlp.proto.{}.trace_exporter"
_LOGGERS = {"http": _OTLP.format("http"), "grpc": "opentelemetry.exporter.otlp.proto.grpc.exporter"}
_REQUESTS = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
_LINE_EVERY_S = 60.0


@runtime_checkable
class Delivering(Protocol):
    """Takes ``body``, an ``ExportTraceServiceRequest`` of ``spans`` spans, and says whether the collector has it."""

    def deliver(self, body: bytes, spans: int) -> bool:
        """TypeError or AttributeError: the insides are others than they seemed."""

    def plain(self) -> SpanExporter:
        """Another with the same options, which encodes for itself."""

    def shutdown(self) -> None: ...


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


class _Http:
    """Its ``export`` encodes, and hands the bytes to a client of its own. They are compressed here, where that is
    wanted, at the quickest level, 6 µs a trace. The client takes the slowest, 16 µs for a sixteenth less of bytes."""

    def __init__(self, exporter: Any, options: ExportOptions) -> None:
        self._exporter = exporter
        self._options = options
        self._gzipped = options.compression == "gzip"

    @staticmethod
    def fits(kind: type[SpanExporter]) -> bool:
        return {"encode_spans", "_client", "export", "success"} <= _named_in(kind, "export")

    def deliver(self, body: bytes, spans: int) -> bool:
        content = gzip.compress(body, 1, mtime=0) if self._gzipped else body
        found = self._exporter._client.export(content)  # noqa: SLF001 (see above; as it is in export)
        if isinstance(error := getattr(found, "error", None), (TypeError, AttributeError)):
            raise error  # the client catches all that comes from below it
        return bool(found.success)

    def plain(self) -> SpanExporter:
        found: SpanExporter = _http(self._options, plain=True)
        return found

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Encoded(NamedTuple):
    body: bytes
    spans: int


class _Grpc:
    """Its ``export`` asks a method for the request. That is the protocol's class, which is read from the bytes and
    written again at 5 µs a trace: the client that it makes, again after each outage, has its own idea of writing."""

    def __init__(self, exporter: Any, options: ExportOptions) -> None:
        request = importlib.import_module(_REQUESTS).ExportTraceServiceRequest
        exporter._translate_data = lambda encoded: request.FromString(encoded.body)  # noqa: SLF001 (see above)
        exporter._count_data = lambda encoded: encoded.spans  # noqa: SLF001
        self._exporter = exporter
        self._options = options

    @staticmethod
    def fits(kind: type[SpanExporter]) -> bool:
        return "_export" in _named_in(kind, "export") and "_translate_data" in _named_in(kind, "_export")

    def deliver(self, body: bytes, spans: int) -> bool:
        return self._exporter.export(_Encoded(body, spans)) is SpanExportResult.SUCCESS

    def plain(self) -> SpanExporter:
        found: SpanExporter = _grpc(self._options, plain=True)
        return found

    def shutdown(self) -> None:
        self._exporter.shutdown()


def exporter_for(options: ExportOptions) -> SpanExporter | Delivering:
    """The exporter that the options name. SettingsError: it is not installed, or a file that it needs is not there."""
    if options.exporter == "console":
        return ConsoleSpanExporter(service_name="turnout", out=sys.stderr, formatter=_one_line)
    found: SpanExporter | Delivering = _http(options) if options.exporter == "otlp" else _grpc(options)
    return found


def _named_in(kind: type[SpanExporter], method: str) -> frozenset[str]:
    """What the method's code names: globals, attributes, other methods."""
    code = getattr(getattr(kind, method, None), "__code__", None)
    return frozenset(getattr(code, "co_names", ()))


def _one_line(span: ReadableSpan) -> str:
    """As a log takes it, at a third of what the SDK's indented form costs."""
    return str(span.to_json(indent=None)) + "\n"


def _http(options: ExportOptions, *, plain: bool = False) -> Any:
    kind = _installed("http", options)
    compression = importlib.import_module("opentelemetry.exporter.otlp.proto.http").Compression
    gzipped, fits = options.compression == "gzip", not plain and _Http.fits(kind)
    exporter = kind(
        endpoint=_traces_url(options.endpoint or "http://localhost:4318"),
        certificate_file=options.certificate,
        headers={**options.headers, "content-encoding": "gzip"} if gzipped and fits else dict(options.headers),
        timeout=options.timeout_s,
        compression=compression.Gzip if gzipped and not fits else compression.NoCompression,
    )
    return _Http(exporter, options) if fits else exporter


def _grpc(options: ExportOptions, *, plain: bool = False) -> Any:
    kind = _installed("grpc", options)
    grpc = importlib.import_module("grpc")
    endpoint = options.endpoint or "http://localhost:4317"
    credentials = grpc.ssl_channel_credentials(_certificate(options)) if urlsplit(endpoint).scheme == "https" else None
    exporter = kind(
        endpoint=endpoint,
        insecure=credentials is None,
        credentials=credentials,
        headers={name.lower(): value for name, value in options.headers.items()},  # gRPC takes no capitals
        timeout=options.timeout_s,
        compression=grpc.Compression.Gzip if options.compression == "gzip" else grpc.Compression.NoCompression,
    )
    return exporter if plain or not _Grpc.fits(kind) else _Grpc(exporter, options)


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
    return module.OTLPSpanExporter


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


def _traces_url(endpoint: str) -> str:
    """A collector's address with the traces path added where it has none."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"
