"""From a finished request to its record: what the route wants kept of it, and no more.

The routing key is hashed with the home's secret here, digests are made of what was asked and answered where nobody has
made them before, and tensors that the route redacts leave neither a digest nor a payload.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any

import numpy as np
import orjson

from gateway.events.records import Content, RequestRecord
from gateway.messages import Array, Arrays, datatype_of
from gateway.recording.arrived import Arrived
from gateway.recording.contents import digest_of
from gateway.routing.table import Recording
from gateway.telemetry.decisions.fields import Line, encoded, named
from gateway.telemetry.decisions.told import recording_of

__all__ = ["Scribe"]

_MAX_ERROR = 500
_DEFAULT = Recording()


class Scribe:
    """``keyed`` hashes a routing key. What it knows of the routes comes by ``heard``; a route that it has not heard of
    is kept as routes are that say nothing, if a decision was taken there."""

    def __init__(self, keyed: Callable[[str], str]) -> None:
        self._keyed = keyed
        self._routes: dict[str, Recording | None] = {}

    def __repr__(self) -> str:
        return f"<Scribe [{len(self._routes)} routes]>"

    def heard(self, table: Mapping[str, Any]) -> None:
        """The whole table, as ``told.table_body`` makes it."""
        self._routes = {name: recording_of(body) for name, body in (table.get("routes") or {}).items()}

    def lines(self, records: Sequence[RequestRecord]) -> list[bytes]:
        """In their canonical form, those that want none left out. Raises what ``line`` does for a value of no type that
        a record has."""
        if isinstance(records, Arrived) and (columns := self._columns(records)) is not None:
            return _rows(columns, len(records))
        return [encoded(line) for line in map(self.line, records) if line is not None]

    def _columns(self, burst: Arrived) -> list[Sequence[Any]] | None:
        """Of ``COLUMNS``, less the last, of which none has any; None: it is to be written record by record."""
        recording = self._routes.get(burst.route, _DEFAULT) if burst.plain else None
        if recording is None or recording.redact or recording.content == "payload":
            return None
        digests: tuple[Sequence[str | None], Sequence[str | None]] | None = _NO_DIGESTS
        if recording.content != "none":
            digests = burst.digests()
        if digests is None:
            return None
        column, decided = burst.column, burst.decided
        number = decided("number")
        return [
            column("decision_id"),
            column("request_id"),
            _micros(column("started_wall")),
            _micros(column("duration_s")),
            column("route"),
            decided("model"),
            number,
            number,
            column("code"),
            decided("reason"),
            decided("bucket"),
            decided("revision"),
            decided("epoch"),
            column("rows"),
            _micros(column("queue_s")),
            _micros(column("compute_s")),
            _micros(column("decode_s")),
            _micros(column("decide_s")),
            _micros(column("encode_s")),
            column("batch"),
            column("batch_rows"),
            column("slow"),
            column("protocol"),
            column("trace_id"),
            column("span_id"),
            column("parent_span_id"),
            [None if key is None else self._keyed(key) for key in column("key")],
            *digests,
            column("client_id"),
            column("chosen_failure"),
            [None if error is None else error[:_MAX_ERROR] for error in column("error")],
        ]

    def line(self, record: RequestRecord) -> Line | None:
        """In the order of ``COLUMNS``; None when the route wants none, and for what is no route's request."""
        recording = self._routes.get(record.route, _DEFAULT)
        decision = record.decision
        if recording is None or (decision is None and record.route not in self._routes):
            return None
        version, answered = None if decision is None else decision.version, record.answered_by
        flag = None if decision is None else decision.flag
        content = record.content
        inputs, outputs, redacted, payload = _NO_CONTENT if content is None else _kept(content, recording)
        aged = None if decision is None or decision.flag_age_s is None else round(decision.flag_age_s * 1e3)
        return [
            record.decision_id,
            record.request_id,
            round(record.started_wall * 1e6),
            round(record.duration_s * 1e6),
            record.route,
            answered.model if version is None and answered else version.model if version else None,
            None if version is None else version.number,
            None if answered is None else answered.number,
            record.code,
            None if decision is None else decision.reason,
            None if decision is None else decision.bucket,
            None if decision is None else decision.revision,
            None if decision is None else decision.epoch,
            record.rows,
            round(record.queue_s * 1e6),
            round(record.compute_s * 1e6),
            round(record.decode_s * 1e6),
            round(record.decide_s * 1e6),
            round(record.encode_s * 1e6),
            record.batch,
            record.batch_rows,
            record.slow,
            record.protocol,
            record.trace_id,
            record.span_id,
            record.parent_span_id,
            None if record.key is None else self._keyed(record.key),
            inputs,
            outputs,
            record.client_id,
            record.chosen_failure,
            None if record.error is None else record.error[:_MAX_ERROR],
            None if flag is None else flag[0],
            None if flag is None else flag[1],
            None if flag is None else flag[2],
            aged,
            decision.flag_stale if decision is not None and (aged is not None or decision.flag_stale) else None,
            redacted,
            payload,
        ]

    def record_of(self, record: RequestRecord) -> Mapping[str, Any] | None:
        """The same by name, as sinks take it."""
        line = self.line(record)
        return None if line is None else named(line)


_NO_DIGESTS: tuple[Sequence[None], Sequence[None]] = ((None,), (None,))


def _micros(seconds: Sequence[float]) -> list[int]:
    return [round(each * 1e6) for each in seconds]


def _rows(columns: list[Sequence[Any]], count: int) -> list[bytes]:
    while len(columns[-1]) == 1 and columns[-1][0] is None:
        columns.pop()
    if None not in columns[-1]:
        with suppress(TypeError):  # text that is not Unicode, see ``encoded``
            return list(map(orjson.dumps, _across(columns, count)))
    return list(map(encoded, _across(columns, count)))


def _across(columns: list[Sequence[Any]], count: int) -> Iterator[tuple[Any, ...]]:
    """A row at a time: each takes the memory of the one before."""
    return zip(*(repeat(one[0], count) if len(one) == 1 else one for one in columns), strict=True)


_Kept = tuple[str | None, str | None, list[str] | None, str | None]
_NO_CONTENT: _Kept = (None, None, None, None)


def _kept(content: Content, recording: Recording) -> _Kept:
    """Digests of inputs and outputs, names left out, payload."""
    if recording.content == "none":
        return _NO_CONTENT
    inputs, outputs, redact = content.inputs, content.outputs, recording.redact
    redacted = sorted(redact & {*(inputs or ()), *(outputs or ())}) if redact else None
    payload = _payload(content, redact) if recording.content == "payload" else None
    return (
        content.input_digest or _digest(inputs, redact),
        content.output_digest or _digest(outputs, redact),
        redacted or None,
        payload,
    )


def _digest(arrays: Arrays | None, redact: frozenset[str]) -> str | None:
    return None if arrays is None else digest_of(arrays, redact)


def _payload(content: Content, redact: frozenset[str]) -> str:
    """Each tensor with its datatype, its shape, and its bytes in base64 (of strings, a list of each one's): what is
    read back is what was asked, to the bit. Of a side that came as its digest there is none."""
    sides = ("inputs", content.inputs, content.input_digest), ("outputs", content.outputs, content.output_digest)
    body = {
        side: {name: _tensor(array) for name, array in sorted(arrays.items()) if name not in redact}
        for side, arrays, digest in sides
        if arrays is not None and digest is None
    }
    return orjson.dumps(body).decode()


def _tensor(array: Array) -> dict[str, Any]:
    return {"datatype": datatype_of(array), "shape": list(array.shape), "base64": _base64(array)}


def _base64(array: Array) -> str | Sequence[str]:
    if array.dtype.hasobject or array.dtype.kind in "SU":
        return [_text(one if isinstance(one, bytes) else str(one).encode()) for one in array.ravel().tolist()]
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return _text(np.ascontiguousarray(little).tobytes())


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
