"""Spans on their way to an exporter: as the protocol's bytes where it takes them, or else in OpenTelemetry's classes.
Imported only when spans go out.

The SDK's tracer, sampler and batch processor have no part in it: sampling is decided and ids are given before a span
exists (``gateway.trace_context``), spans are made when all is over, and the queue counts what it loses
(``gateway.telemetry.tracing.exporting``). What is taken from the SDK is what a span is, what its state may be, and the
exporters' transport. The global provider is left to whoever embeds this.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState
from opentelemetry.trace.status import Status, StatusCode

from gateway import __version__
from gateway.telemetry.tracing.encoding import Encoding
from gateway.telemetry.tracing.exporters import Delivering
from gateway.telemetry.tracing.spans import Span, Window

__all__ = ["KnownResource", "SdkExporter"]

log = logging.getLogger("turnout.telemetry.tracing")

_ENCODER = "opentelemetry.exporter.otlp.proto.common.trace_encoder"
_ANY = Span("", "0" * 32, "0" * 16, None, Window(0, 0), {})
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCHEMA = list(Schemas)[-1].value
_WENT_WELL = Status(StatusCode.UNSET)
_MOST_STATE = 512  # as the door lets in; the SDK writes all of a bad one to the log


class KnownResource(Resource):
    """Its hash is made once. Exporters of the SDK's spans ask for it at each, to sort them, and the SDK writes all of
    its attributes as JSON each time: an eighth of what a trace cost."""

    def __init__(self, attributes: Mapping[str, str], schema_url: str) -> None:
        super().__init__(attributes, schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class _Both(NamedTuple):
    """A span as it waits until it is known which of the two the exporter takes."""

    span: Span
    written: bytes


class SdkExporter:
    """See ``gateway.telemetry.tracing.exporting.Exporter``."""

    def __init__(
        self,
        exporter: SpanExporter | Delivering,
        *,
        gateway: str,
        anew: Callable[[Mapping[str, str]], SpanExporter | Delivering] | None = None,
    ) -> None:
        """``gateway`` is this gateway's name, unique among its replicas; ``anew`` makes an exporter with other headers,
        which the SDK gives to an exporter once."""
        # It delivers bytes where there is an encoding, and takes spans where there is none. The thread that exports
        # writes the two, and ``_proven``: that an exporter of this kind took what it was given.
        self._exporter: Any = exporter
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
        self._trying = Encoding(b"", b"", _passed_on)
        self._proven = False
        self._encoding: Encoding | None = None
        if isinstance(exporter, Delivering):
            try:
                self._encoding = self._encoder()
            except (AttributeError, ImportError, TypeError, ValueError) as error:
                self._let_it_encode(error)

    def prepared(self, spans: Iterable[Span]) -> Sequence[Any]:
        encoding = self._encoding
        if encoding is not None and self._proven:
            return encoding.encoded(spans)
        # The SDK encodes all that go together, or none: one without an id would cost five hundred others.
        given = list(spans)
        tried = (encoding or self._trying).encoded(given)
        if encoding is None:
            return [None if written is None else span for span, written in zip(given, tried, strict=True)]
        return [None if written is None else _Both(span, written) for span, written in zip(given, tried, strict=True)]

    def export(self, prepared: Sequence[Any]) -> bool:
        self._take_headers()
        if self._encoding is not None:
            body = self._encoding.request([one.written if isinstance(one, _Both) else one for one in prepared])
            try:
                delivered = bool(self._exporter.deliver(body, len(prepared)))
            except (AttributeError, TypeError) as error:
                if self._proven:
                    raise
                self._let_it_encode(error)
            else:
                self._proven = True
                return delivered
        made = [self._made(one.span if isinstance(one, _Both) else one) for one in prepared]
        return bool(self._exporter.export(made) is SpanExportResult.SUCCESS)

    def renew(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def close(self) -> None:
        self._exporter.shutdown()

    def _take_headers(self) -> None:
        headers = self._headers  # of another thread, which may write it again at any time
        if headers is None or headers == self._used or self._anew is None:
            return
        exporter = self._anew(headers)
        if self._encoding is None and isinstance(exporter, Delivering):
            exporter = _plain(exporter)
        before, self._exporter = self._exporter, exporter
        self._used = headers
        before.shutdown()

    def _let_it_encode(self, error: Exception) -> None:
        """Nothing is lost by it: before a delivery went as it should, there is no span of which only the bytes wait."""
        self._exporter, self._encoding = _plain(self._exporter), None
        log.warning(
            "the installed OpenTelemetry exporter has other insides than those that this release knows (%r): it gets"
            " spans in OpenTelemetry's own classes, which takes the recorder five times as long and loses none; the"
            " versions in constraints.txt are known",
            error,
        )

    def _encoder(self) -> Encoding:
        """With resource and scope as the SDK writes them."""
        [around] = importlib.import_module(_ENCODER).encode_spans([self._made(_ANY)]).resource_spans
        [scope] = around.scope_spans
        scope.ClearField("spans")
        written = scope.SerializeToString()
        around.ClearField("scope_spans")
        return Encoding(around.SerializeToString(), written, _passed_on)

    def _made(self, span: Span) -> ReadableSpan:
        state = _state(span.state) if span.state else None
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


def _plain(exporter: Delivering) -> SpanExporter:
    """In its place."""
    found = exporter.plain()
    exporter.shutdown()
    return found


def _context(trace_id: str, span_id: str, *, remote: bool, state: TraceState | None = None) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=_SAMPLED, trace_state=state)


def _state(header: str) -> TraceState:
    return TraceState.from_header([header] if len(header) <= _MOST_STATE else [])


def _passed_on(header: str) -> str:
    return _state(header).to_header()
