"""Decisions as OpenTelemetry's log records, by OTLP over HTTP in protobuf.

What a collector refuses of a batch (``partial_success``) is not sent again, as the protocol says
(https://opentelemetry.io/docs/specs/otlp/#partial-success); what it answers with 429 or 5xx is.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.telemetry.decisions.fields import decoded, named
from gateway.telemetry.decisions.sinks.http_line import HttpLine, checked
from gateway.telemetry.decisions.sinks.trail import Entry

__all__ = ["EVENT", "OtlpLogs", "make"]

EVENT = "turnout.decision"
_PATH = "/v1/logs"
_HEX_TRACE, _HEX_SPAN = 32, 16
_CONVENTIONS: Mapping[str, str] = {
    "code": "http.response.status_code",
    "error": "error.type",
    "flag": "feature_flag.key",
    "variant": "feature_flag.result.variant",
    "provider": "feature_flag.provider.name",
}
"""Fields that OpenTelemetry has names for (semantic conventions 1.34); the others are ``turnout.<field>``."""
_ELSEWHERE = frozenset({"started", "trace", "span"})


def make(options: Mapping[str, Any], labels: Mapping[str, str]) -> OtlpLogs:
    return OtlpLogs(options, labels)


class OtlpLogs:
    """``options``: ``url`` (without a path: ``/v1/logs`` is meant), ``timeout_s``, ``headers``, ``certificate``."""

    def __init__(self, options: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        url = str(options["url"]).rstrip("/")
        url += "" if url.count("/") > 2 else _PATH
        self._line = HttpLine(url, timeout_s=options["timeout_s"], certificate=options.get("certificate") or None)
        self._headers = {
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            **options.get("headers", {}),
        }
        facts = {"service.name": "turnout", "service.instance.id": labels.get("instance", "")}
        facts["service.version"] = labels.get("build", "")
        self._resource = Resource(attributes=[_pair(name, value) for name, value in facts.items() if value])

    def __repr__(self) -> str:
        return f"<OtlpLogs {self._line!r}>"

    def send(self, entries: Sequence[Entry]) -> int:
        scope = ScopeLogs(scope=InstrumentationScope(name="turnout.decisions"), log_records=map(_record, entries))
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scope])])
        content = gzip.compress(request.SerializeToString(), compresslevel=1)
        answer = checked(self._line.post(content, self._headers))
        try:
            told = ExportLogsServiceResponse.FromString(answer.body)
        except DecodeError:
            return 0
        return min(len(entries), max(0, int(told.partial_success.rejected_log_records)))

    def abort(self) -> None:
        self._line.abort()

    def close(self) -> None:
        self._line.close()


def _record(entry: Entry) -> LogRecord:
    record = {name: value for name, value in named(decoded(entry.line)).items() if value is not None}
    failed = int(record.get("code") or 0) >= 500
    return LogRecord(
        time_unix_nano=int(record.get("started", entry.written_ms * 1000)) * 1000,
        observed_time_unix_nano=entry.written_ms * 1_000_000,
        severity_number=SeverityNumber.SEVERITY_NUMBER_ERROR if failed else SeverityNumber.SEVERITY_NUMBER_INFO,
        severity_text="ERROR" if failed else "INFO",
        event_name=EVENT,
        body=AnyValue(string_value=_sentence(record)),
        attributes=_attributes(entry, record),
        trace_id=_octets(record.get("trace"), _HEX_TRACE),
        span_id=_octets(record.get("span"), _HEX_SPAN),
    )


def _attributes(entry: Entry, record: Mapping[str, Any]) -> Iterator[KeyValue]:
    yield _pair("turnout.sequence", entry.sequence)
    for name, value in record.items():
        if name not in _ELSEWHERE:
            yield _pair(_CONVENTIONS.get(name, f"turnout.{name}"), value)


def _sentence(record: Mapping[str, Any]) -> str:
    answered = record.get("answered") or record.get("version")
    who = "nobody" if answered is None else f"{record.get('model')}/{answered}"
    return f"{record.get('route')}: {who} answered {record.get('code')} ({record.get('reason') or 'no decision'})"


def _pair(name: str, value: Any) -> KeyValue:
    return KeyValue(key=name, value=_any(value))


def _any(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value) if -(2**63) <= value < 2**63 else AnyValue(string_value=str(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any(one) for one in value]))
    return AnyValue(string_value=str(value))


def _octets(text: object, length: int) -> bytes:
    """Empty for what is no id."""
    if not isinstance(text, str) or len(text) != length:
        return b""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
