"""Spans as bytes: what a collector reads out of ours is what it reads out of the SDK's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.telemetry.tracing.encoding import Encoding
from gateway.telemetry.tracing.sdk import SdkExporter
from gateway.telemetry.tracing.spans import Event, Link, Span, Window


class Delivered:
    """Keeps what came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def deliver(self, body: bytes, spans: int) -> bool:
        self.bodies.append(body)
        return True

    def plain(self) -> SpanExporter:
        raise NotImplementedError("it takes bytes")

    def shutdown(self) -> None:
        """Nothing is open."""


class Exported(SpanExporter):
    """Encodes as the SDK does it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.bodies.append(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS


def sent(to: Delivered | Exported, *batches: Sequence[Span]) -> list[str]:
    """What is read out of the bytes, as text: NaN is there what it is, and nothing else is lost by it."""
    exporter = SdkExporter(to, gateway="replica-1")
    for spans in batches:
        assert exporter.export([span for span in exporter.prepared(spans) if span is not None])
    return [str(ExportTraceServiceRequest.FromString(body)) for body in to.bodies]


def both(*batches: Sequence[Span]) -> tuple[list[str], list[str]]:
    return sent(Delivered(), *batches), sent(Exported(), *batches)


def span(**changes: Any) -> Span:
    return Span("work", "0a" * 16, "0b" * 8, None, Window(1, 2), {})._replace(**changes)


texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(["", "digits", "x" * 3000, "ä€𝄞\x00"])
# Of few keys, so that values that are equal and not the same meet at one.
keys = st.sampled_from(["turnout.rows", "turnout.request_id", "", "ключ"]) | texts
numbers = st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, -1, 127, 128, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1])
values = st.booleans() | numbers | st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf]) | texts
attributes = st.dictionaries(keys, values, max_size=6)
trace_ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
span_ids = st.binary(min_size=8, max_size=8).map(bytes.hex)
moments = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1_700_000_000_000_000_000])
states = st.sampled_from(["", "vendor=1", "a=1, b=2 ,,c=3", "a=1,a=2", "=", "ä=1", "x" * 600, "\ud800=1"])
spans = st.builds(
    Span,
    texts,
    trace_ids,
    span_ids,
    st.none() | span_ids,
    st.builds(Window, moments, moments),
    attributes,
    st.lists(st.builds(Link, trace_ids, span_ids, attributes), max_size=3).map(tuple),
    st.lists(st.builds(Event, texts, moments, attributes), max_size=3).map(tuple),
    st.none() | texts,
    st.booleans(),
    states,
)


@settings(max_examples=150)
@given(st.lists(st.lists(spans, min_size=1, max_size=4), min_size=1, max_size=3))
@example([[span(attributes={"k": value}) for value in (1, True, 1.0, "1", 0, False, 0.0, -0.0)]])
@example([[span(attributes={"k": "v"}, links=(Link("0c" * 16, "0d" * 8, {"k": "v"}),))] * 2, [span()]])
@example([[span(attributes={"k": 2**63, "": math.nan})], [span(attributes={"k": -(2**63)})]])
def test_what_is_read_out_of_the_bytes_is_what_is_read_out_of_the_sdks(batches: list[list[Span]]) -> None:
    """Resource, scope, ids, flags, kind, times, attributes of each type, links, events, status; also the second time,
    when an attribute is known; and what the protocol has no form for, the one leaves out as the other does."""
    ours, theirs = both(*batches)
    assert ours == theirs


def test_equal_values_of_different_types_are_not_mixed_up() -> None:
    """``True``, ``1`` and ``1.0`` are one key of a dictionary; each comes first once."""
    ones = [True, 1, 1.0]
    orders = [[span(attributes={"k": one}) for one in (ones * 2)[at : at + 3]] for at in range(3)]
    ours, theirs = both(*orders)
    assert ours == theirs


def test_text_that_has_no_utf8_form_costs_its_character() -> None:
    """JSON can name half of a surrogate pair. The SDK leaves out an attribute with one, and for one in a name loses
    all spans that go with it."""
    bad, good = (
        span(
            name=f"n{mark}",
            attributes={f"k{mark}": f"v{mark}"},
            events=(Event(f"e{mark}", 1, {"k": mark}),),
            links=(Link("0c" * 16, "0d" * 8, {"k": mark}),),
            error=f"no {mark}",
        )
        for mark in ("\ud800", "?")
    )
    assert sent(Delivered(), [bad, span()]) == sent(Exported(), [good, span()])


@pytest.mark.parametrize(
    "hopeless",
    [
        {"trace_id": "xyz"},
        {"trace_id": "0a" * 15},
        {"span_id": ""},
        {"parent_id": "0b" * 9},
        {"trace_id": "0a" * 17, "span_id": "0b" * 7, "parent_id": "0b" * 9},
        {"trace_id": "0a" * 17, "span_id": "0b" * 7},
        {"span_id": "0b" * 7, "parent_id": "0b" * 9},
        {"trace_id": "0a" * 15 + "  "},
        {"parent_id": ""},
        {"links": (Link("0c" * 17, "0d" * 7, {}),)},
        {"window": Window(-1, 1)},
        {"window": Window(1, 2**64)},
        {"links": (Link("0c" * 16, "0d", {}),)},
        {"events": (Event("e", -1, {}),)},
        {"attributes": None, "name": None},
    ],
)
@pytest.mark.parametrize("to", [Delivered, Exported])
def test_a_span_that_cannot_be_written_is_left_out_alone(
    hopeless: dict[str, Any], to: type[Delivered | Exported]
) -> None:
    """Those around it are as they would have been without it, also where the SDK writes them."""
    exporter = SdkExporter(to(), gateway="replica-1")
    first, none, last = exporter.prepared([span(name="first"), span(**hopeless), span(name="last")])
    assert none is None
    assert [first, last] == list(exporter.prepared([span(name="first"), span(name="last")]))


def test_ids_and_long_values_are_not_kept_and_what_is_kept_is_bounded() -> None:
    """A client may send as many values as it likes."""
    encoding = Encoding(b"", b"", str)
    once = {
        "turnout.request_id": "r-1",
        "turnout.decision_id": "d-1",
        "turnout.queue_s": 0.1,
        "turnout.route": "x" * 300,
    }
    encoding.encoded([span(attributes=once)])
    assert repr(encoding) == "<Encoding [0 attributes known]>"
    encoding.encoded([span(attributes={"turnout.bucket": bucket}) for bucket in range(4096)])
    assert repr(encoding) == "<Encoding [4096 attributes known]>"
    encoding.encoded([span(attributes={"turnout.bucket": 4096})])
    assert repr(encoding) == "<Encoding [1 attributes known]>"
