"""A collector as far as traces go: takes OTLP over HTTP and gRPC, decodes the protobuf, keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["OtlpReceiver", "Received"]


class Received(NamedTuple):
    """One span as it came, ids in hexadecimal, attributes as Python has them."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    links: Sequence[tuple[str, str]]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    error: str | None
    server: bool
    state: str
    resource: Mapping[str, Any]


class OtlpReceiver:
    """Listens on two free ports of the loopback. ``headers`` are those of the last export. While ``broken`` is set,
    every export is refused for good."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.broken = threading.Event()
        self.exports = 0
        self._spans: list[Received] = []
        self._came = threading.Condition()

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                fine = self.path == "/v1/traces" and not receiver.broken.is_set()
                if fine:
                    receiver.take(ExportTraceServiceRequest.FromString(body), self.headers.items())
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if fine else 400)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """A test's output is not the place."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._serving = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._serving.start()
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(_Service(self), self._grpc)
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._serving.join()
        self._http.server_close()
        self._grpc.stop(None).wait()

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self._grpc_port}"

    def endpoint(self, exporter: str) -> str:
        return self.http_endpoint if exporter == "otlp" else self.grpc_endpoint

    @property
    def spans(self) -> list[Received]:
        with self._came:
            return list(self._spans)

    def take(self, request: ExportTraceServiceRequest, headers: Iterable[tuple[str, str]]) -> None:
        with self._came:
            self.exports += 1
            self.headers = {name.lower(): value for name, value in headers}
            self._spans += _decoded(request)
            self._came.notify_all()

    def wait_for(self, found: Callable[[list[Received]], Any], *, within_s: float = 60.0) -> Any:
        """What ``found`` makes of the spans so far, once it is something."""
        with self._came:
            return self._came.wait_for(lambda: found(self._spans), within_s) or found(self._spans)

    def tree(self, trace_id: str, *, stages: int = 2) -> dict[str, Received]:
        """The spans of one trace by name, once its request and so many more are here."""

        def whole(spans: list[Received]) -> dict[str, Received]:
            mine = {span.name: span for span in spans if span.trace_id == trace_id}
            return mine if any(span.server for span in mine.values()) and len(mine) > stages else {}

        found: dict[str, Received] = self.wait_for(whole)
        if not found:
            raise AssertionError(f"no tree of {trace_id} among {[(s.name, s.trace_id) for s in self.spans][:50]}")
        return found


class _Service(TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802 (the protocol's name)
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        if self._receiver.broken.is_set():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "broken")
        metadata = [(str(name), str(value)) for name, value in context.invocation_metadata()]
        self._receiver.take(request, metadata)
        return ExportTraceServiceResponse()


def _decoded(request: ExportTraceServiceRequest) -> Iterable[Received]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: Span, resource: Mapping[str, Any]) -> Received:
    return Received(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        [(event.name, _attributes(event.attributes)) for event in span.events],
        span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        span.kind == Span.SPAN_KIND_SERVER,
        span.trace_state,
        resource,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    return None if which is None else getattr(value, which)
