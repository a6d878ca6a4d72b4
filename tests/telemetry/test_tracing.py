"""Request spans: the ids the client was told, the decision as attributes, nothing for what is not sampled."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.errors import SettingsError
from gateway.events import RequestRecord
from gateway.settings import TelemetrySettings
from gateway.telemetry.tracing import Tracing, exporter_for
from tests.telemetry.records import DIGITS_3, DIGITS_4, PARENT_ID, SPAN_ID, TRACE_ID, decision, request


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    found = Tracing(exporter)
    yield found
    found.close(timeout_s=30)


def sampled(**changes: Any) -> RequestRecord:
    return request(sampled=True, **changes)


def only(tracing: Tracing, exporter: InMemorySpanExporter, record: RequestRecord) -> ReadableSpan:
    tracing.request_finished(record)
    tracing.flush()
    spans = exporter.get_finished_spans()
    assert len(spans) == 1
    return spans[0]


def test_a_span_has_the_ids_that_the_client_was_told(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """A trace that starts here: no parent, and the very ids of the ``traceparent`` that was answered."""
    span = only(tracing, exporter, sampled())
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.context.span_id:016x}" == SPAN_ID
    assert span.parent is None
    assert span.kind is SpanKind.SERVER


def test_a_continued_trace_hangs_under_the_callers_span(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """The parent is remote and keeps its id."""
    span = only(tracing, exporter, sampled(parent_span_id=PARENT_ID))
    assert span.parent is not None
    assert span.context is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert span.parent.is_remote


def test_a_span_starts_and_ends_when_the_request_did(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """From the record, not from when the span was made."""
    span = only(tracing, exporter, sampled())
    assert span.start_time == 1_700_000_000_250_000_000
    assert span.end_time == 1_700_000_000_254_000_000


def test_attributes_say_what_was_asked_and_decided(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """HTTP's names, the feature flag's names (a route is a flag, versions are its variants), and our own."""
    span = only(tracing, exporter, sampled())
    assert span.name == "POST /predict/{route}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/predict/{route}",
        "http.response.status_code": 200,
        "turnout.request_id": "r-1",
        "turnout.decision_id": "0190b0a8-0000-7000-8000-000000000001",
        "feature_flag.key": "digits",
        "feature_flag.provider.name": "turnout",
        "feature_flag.result.variant": "3",
        "feature_flag.result.reason": "split",
        "feature_flag.version": "7",
        "turnout.route": "digits",
        "turnout.model": "digits",
        "turnout.version": 3,
        "turnout.reason": "split",
        "turnout.epoch": 2,
        "turnout.rows": 2,
        "turnout.queue_s": 0.001,
        "turnout.compute_s": 0.002,
        "turnout.bucket": 17,
        "turnout.answered_by": "digits/3",
    }
    assert span.resource.attributes["service.name"] == "turnout"


@pytest.mark.parametrize(
    ("reason", "expected"), [("pin", "static"), ("rule:staff", "targeting_match"), ("split", "split")]
)
def test_reasons_are_told_in_the_flags_vocabulary_too(
    tracing: Tracing, exporter: InMemorySpanExporter, reason: str, expected: str
) -> None:
    """OpenFeature's words beside our own."""
    span = only(tracing, exporter, sampled(decision=decision(reason=reason), protocol="oip"))
    attributes = span.attributes or {}
    assert (attributes["feature_flag.result.reason"], attributes["turnout.reason"]) == (expected, reason)
    assert span.name == "POST /v2/models/{name}/infer"


def test_a_flag_that_chose_stands_in_the_specifications_names(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Key, variant and provider of the flag; how old its data was; and that it was too old to go by."""
    chose = decision(DIGITS_4, reason="rule:beta")._replace(flag_age_s=0.5, flag=("new-model", "on", "flagd-file"))
    attributes = only(tracing, exporter, sampled(decision=chose)).attributes or {}
    names = ("feature_flag.key", "feature_flag.result.variant", "feature_flag.provider.name", "turnout.flag_age_s")
    assert [attributes[name] for name in names] == ["new-model", "on", "flagd-file", 0.5]
    assert attributes["feature_flag.result.reason"] == "targeting_match"
    exporter.clear()
    attributes = only(tracing, exporter, sampled(decision=chose._replace(flag_stale=True))).attributes or {}
    assert (attributes["feature_flag.result.reason"], attributes["turnout.flag_stale"]) == ("stale", True)


def test_a_failure_of_ours_is_an_error_and_a_clients_is_not(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """As the HTTP conventions have it for servers: 5xx."""
    tracing.request_finished(sampled(code=500, error="ModelError", chosen_failure="ModelError", answered_by=None))
    tracing.request_finished(sampled(code=422, error="InvalidInput", decision=None, answered_by=None))
    tracing.flush()
    ours, theirs = exporter.get_finished_spans()
    assert (ours.status.status_code, ours.status.description) == (StatusCode.ERROR, "ModelError")
    assert theirs.status.status_code is StatusCode.UNSET
    assert (theirs.attributes or {})["error.type"] == "InvalidInput"
    assert (theirs.attributes or {})["turnout.route"] == "digits"


def test_a_fallback_shows_who_failed_and_who_answered(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """The chosen version is the variant; the other stands beside it."""
    record = sampled(decision=decision(DIGITS_4), answered_by=DIGITS_3, chosen_failure="VersionCrashed")
    attributes = only(tracing, exporter, record).attributes or {}
    assert attributes["turnout.version"] == 4
    assert attributes["turnout.chosen_failure"] == "VersionCrashed"
    assert attributes["turnout.answered_by"] == "digits/3"


def test_what_is_not_sampled_makes_no_span(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Nor does a record without a trace."""
    tracing.request_finished(request(sampled=False))
    tracing.request_finished(sampled(trace_id=None))
    tracing.request_finished(sampled(span_id=None))
    tracing.flush()
    assert exporter.get_finished_spans() == ()
    assert repr(tracing) == "<Tracing [0 spans]>"


def test_the_global_provider_is_left_alone(tracing: Tracing) -> None:
    """Whoever embeds the gateway may have set their own."""
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_two_gateways_in_one_process_keep_their_spans_apart(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    """Providers belong to a lifetime."""
    elsewhere = InMemorySpanExporter()
    other = Tracing(elsewhere)
    other.request_finished(sampled())
    assert other.close(timeout_s=30)
    tracing.flush()
    assert (len(exporter.get_finished_spans()), len(elsewhere.get_finished_spans())) == (0, 1)


class FaultyExporter(SpanExporter):
    """Raises, or holds its caller until ``gate`` opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.called = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.called.set()
        self.gate.wait(30)
        raise ConnectionError("no collector")

    def shutdown(self) -> None:
        return None


def test_an_exporter_that_raises_touches_nothing() -> None:
    """The SDK logs it; requests go on, and so does closing."""
    exporter = FaultyExporter()
    exporter.gate.set()
    tracing = Tracing(exporter)
    tracing.request_finished(sampled())
    tracing.flush()
    tracing.request_finished(sampled())
    assert tracing.close(timeout_s=30)
    assert exporter.called.is_set()


def test_an_exporter_that_hangs_is_given_up_at_close() -> None:
    """A dead collector must not keep the gateway from ending; spans past the queue's end are lost, not waited for."""
    exporter = FaultyExporter()
    tracing = Tracing(exporter)
    for _ in range(3_000):
        tracing.request_finished(sampled())
    assert exporter.called.wait(30)
    assert not tracing.close(timeout_s=0.01)
    exporter.gate.set()
    assert tracing.close(timeout_s=30)


def test_settings_choose_the_exporter() -> None:
    """None, the console (standard error, since logs own standard output), or OTLP where it is installed."""
    assert exporter_for(TelemetrySettings()) is None
    console = exporter_for(TelemetrySettings(trace_exporter="console"))
    assert isinstance(console, ConsoleSpanExporter)


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter") is not None, reason="the optional exporter is installed here"
)
def test_otlp_without_its_package_says_what_to_install() -> None:
    """At start, not at the first span."""
    with pytest.raises(SettingsError, match=r"pip install 'turnout\[otlp\]'"):
        exporter_for(TelemetrySettings(trace_exporter="otlp"))
