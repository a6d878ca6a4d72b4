"""The collector that benchmarks send spans to."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from loadtests.span_collector import SpanCollector


def test_it_takes_spans_from_an_unmodified_exporter_again_and_again() -> None:
    """What it is sent counts, and the exporter takes it for delivered."""
    tracer = TracerProvider().get_tracer("test")
    with SpanCollector() as collector:
        exporter: SpanExporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
        taken = [collector.taken]
        for _ in range(2):
            with tracer.start_as_current_span("a request") as span:
                pass
            assert exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
            taken.append(collector.taken)
        exporter.shutdown()
    assert taken[0] < taken[1] < taken[2]
