"""Decisions as OpenTelemetry's log records, by OTLP over HTTP in protobuf.

What a collector refuses of a batch (``partial_success``) is not sent again, as the protocol says
(https://opentelemetry.io/docs/specs/otlp/#partial-success); what it answers with 429 or 5xx is.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.telemetry.decisions.fields import COLUMNS, PLACE, Line, decoded
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
_NAMES = tuple(None if name in _ELSEWHERE else _CONVENTIONS.get(name, f"turnout.{name}") for name in COLUMNS)
_CODE, _STARTED = PLACE["code"], PLACE["started"]
_FAILED = 500
_SCOPE = "turnout.decisions"


def make(options: Mapping[str, Any], labels: Mapping[str, str]) -> OtlpLogs:
    return OtlpLogs(options, labels)


class OtlpLogs:
    """``options``: ``url`` (without a path: ``/v1/logs`` is meant), ``timeout_s``, ``headers``, ``certificate``."""

    def __init__(self, options: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        url = str(options["url"]).rstrip("/")
        url += "" if url.count("/") > 2 else _PATH
        self._line = HttpLine(url, timeout_s=options["timeout_s"], certificate=options.get("certificate") or None)
        self.renew(options)
        facts = {"service.name": "turnout", "service.instance.id": labels.get("instance", "")}
        facts["service.version"] = labels.get("build", "")
        pairs = [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in facts.items() if value]
        self._resource = Resource(attributes=pairs)

    def __repr__(self) -> str:
        return f"<OtlpLogs {self._line!r}>"

    def renew(self, secrets: Mapping[str, Any]) -> None:
        lasting = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        self._headers: Mapping[str, str] = {**lasting, **secrets.get("headers", {})}

    def send(self, entries: Sequence[Entry]) -> int:
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource)])
        scope = request.resource_logs[0].scope_logs.add()
        scope.scope.name = _SCOPE
        for entry in entries:
            _fill(scope.log_records.add(), entry)
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


def _fill(into: LogRecord, entry: Entry) -> None:
    """In its place: made apart and put in, a record of 25 fields takes 54 microseconds instead of 14."""
    line = decoded(entry.line)
    code, started = line[_CODE], line[_STARTED]
    failed = code is not None and code >= _FAILED
    into.time_unix_nano = entry.written_ms * 1_000_000 if started is None else started * 1000
    into.observed_time_unix_nano = entry.written_ms * 1_000_000
    into.severity_number = SeverityNumber.SEVERITY_NUMBER_ERROR if failed else SeverityNumber.SEVERITY_NUMBER_INFO
    into.severity_text = "ERROR" if failed else "INFO"
    into.event_name = EVENT
    into.body.string_value = _sentence(line)
    into.trace_id = _octets(line[PLACE["trace"]], _HEX_TRACE)
    into.span_id = _octets(line[PLACE["span"]], _HEX_SPAN)
    attribute = into.attributes.add
    _put(attribute(key="turnout.sequence").value, entry.sequence)
    for name, value in zip(_NAMES, line, strict=True):
        if value is not None and name is not None:
            _put(attribute(key=name).value, value)


def _sentence(line: Line) -> str:
    answered = line[PLACE["answered"]] or line[PLACE["version"]]
    who = "nobody" if answered is None else f"{line[PLACE['model']]}/{answered}"
    return f"{line[PLACE['route']]}: {who} answered {line[_CODE]} ({line[PLACE['reason']] or 'no decision'})"


def _put(into: AnyValue, value: Any) -> None:
    kind = type(value)
    if kind is str:
        into.string_value = value
    elif kind is bool:
        into.bool_value = value
    elif kind is int and -(2**63) <= value < 2**63:
        into.int_value = value
    elif kind is list:
        into.array_value.SetInParent()
        for one in value:
            _put(into.array_value.values.add(), one)
    else:
        into.string_value = str(value)


def _octets(text: object, length: int) -> bytes:
    """Empty for what is no id."""
    if not isinstance(text, str) or len(text) != length:
        return b""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
