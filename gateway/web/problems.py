"""The one table from error to status, and the two faces of an error: problem details, and the protocol's under ``/v2``.

Problem details follow RFC 9457 (``application/problem+json``) with ``request_id`` and, for bad
input, ``errors``. Under ``/v2`` the body is ``{"error": "…"}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gateway import errors
from gateway.codec.json_outputs import dump_json
from gateway.errors import BadRequest, FieldProblem, TurnoutError

__all__ = [
    "TABLE",
    "Problem",
    "ReceiveTimeout",
    "Row",
    "explain",
    "internal_problem",
    "problem_type",
    "render_oip",
    "render_problem",
]

_MAX_DETAIL_CHARS = 2000
_TYPE_PREFIX = "urn:turnout:problem:"


class ReceiveTimeout(BadRequest):
    """The client took too long to send its body. Only HTTP knows this one, hence here."""


@dataclass(frozen=True, slots=True)
class Row:
    """``kind`` ends the problem's type URI. ``retry_after_s``: where coming back helps and the error has no time
    of its own."""

    status: int
    kind: str
    title: str
    retry_after_s: float | None = None


TABLE: Mapping[type[TurnoutError], Row] = MappingProxyType(
    {
        errors.TurnoutError: Row(500, "internal", "The gateway failed"),
        errors.BadRequest: Row(400, "bad-request", "The request cannot be read"),
        ReceiveTimeout: Row(408, "receive-timeout", "The body did not arrive in time"),
        errors.InvalidInput: Row(422, "invalid-input", "The input does not fit"),
        errors.TooLarge: Row(413, "too-large", "A limit on the request was passed"),
        errors.UnsupportedContent: Row(415, "unsupported-content", "The content is not handled"),
        errors.Unauthenticated: Row(401, "unauthenticated", "A valid token is needed"),
        errors.Forbidden: Row(403, "forbidden", "Not allowed"),
        errors.NotFound: Row(404, "not-found", "There is nothing here"),
        errors.UnknownRoute: Row(404, "unknown-route", "There is no such route"),
        errors.UnknownModel: Row(404, "unknown-model", "There is no such model"),
        errors.UnknownVersion: Row(404, "unknown-version", "There is no such version"),
        errors.Conflict: Row(409, "conflict", "The present state forbids it"),
        errors.Quarantined: Row(409, "quarantined", "The version is quarantined"),
        errors.GateRefused: Row(409, "gate-refused", "A gate holds the version back"),
        errors.Fenced: Row(409, "fenced", "Another replica leads now"),
        errors.StaleRevision: Row(412, "stale-revision", "The document has changed"),
        errors.Overloaded: Row(429, "overloaded", "Too much work"),
        errors.QueueFull: Row(429, "queue-full", "The queue is full"),
        errors.DeadlineUnreachable: Row(429, "deadline-unreachable", "The deadline cannot be met"),
        errors.RateLimited: Row(429, "rate-limited", "Too many requests"),
        errors.DeadlineExceeded: Row(504, "deadline-exceeded", "The deadline has passed"),
        errors.VersionFailed: Row(500, "version-failed", "The version failed"),
        errors.VersionUnavailable: Row(503, "version-unavailable", "Nothing can answer now", 1.0),
        errors.NotBegun: Row(503, "not-begun", "The work had not begun", 1.0),
        errors.ModelError: Row(500, "model-error", "The model raised"),
        errors.VersionCrashed: Row(500, "version-crashed", "The version's process died on this request"),
        errors.VersionHung: Row(500, "version-hung", "The version did not answer"),
        errors.DeviceMemoryExhausted: Row(500, "device-memory-exhausted", "The device's memory does not suffice"),
        errors.LoadError: Row(409, "load-error", "The version cannot be loaded"),
        errors.IntegrityError: Row(409, "integrity-error", "The stored bytes are not what the manifest names"),
        errors.RegistryError: Row(500, "registry-error", "An artifact cannot be stored or read"),
        errors.InvalidRegistration: Row(422, "invalid-registration", "The registry does not take this"),
        errors.StorageFull: Row(507, "storage-full", "The disk is full"),
        errors.SourceUnavailable: Row(502, "source-unavailable", "The source's system does not answer", 10.0),
        errors.StoreUnavailable: Row(503, "store-unavailable", "The store of desired state does not answer", 1.0),
        errors.RecorderUnavailable: Row(503, "recorder-unavailable", "What is recorded cannot be reached now", 1.0),
        errors.StoreRefused: Row(503, "store-refused", "The store of desired state is not the one that was left", 1.0),
        errors.ServiceDraining: Row(503, "draining", "The gateway is shutting down", 1.0),
        errors.DecisionLogFull: Row(503, "decision-log-full", "The answer could not be recorded", 1.0),
        errors.SettingsError: Row(500, "settings-error", "The configuration is wrong"),
    }
)
"""A class that is not here takes its base's row."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error on its way out. ``headers`` beside the content's own. ``report``: what gates found, if they refused."""

    status: int
    kind: str
    title: str
    detail: str
    fields: tuple[FieldProblem, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    report: Mapping[str, Any] | None = None


def explain(error: TurnoutError) -> Problem:
    row = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    headers: list[tuple[bytes, bytes]] = []
    retry_after_s = error.retry_after_s if isinstance(error, errors.Overloaded) else row.retry_after_s
    if retry_after_s is not None:
        # Whole seconds, rounded up: whoever comes back then does not come too early.
        headers.append((b"retry-after", str(max(1, math.ceil(retry_after_s))).encode()))
    if row.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="turnout"'))
    fields = error.problems if isinstance(error, errors.BadRequest | errors.InvalidInput) else ()
    detail = (str(error) or row.title)[:_MAX_DETAIL_CHARS]
    report = error.report if isinstance(error, errors.GateRefused) else None
    return Problem(row.status, row.kind, row.title, detail, tuple(fields), tuple(headers), report)


def internal_problem() -> Problem:
    """For a fault of our own: what it was stands in the log under the request id, never in the answer."""
    return Problem(500, "internal", "The gateway failed", "internal error; the log has it under this request id")


def problem_type(kind: str) -> str:
    return _TYPE_PREFIX + kind


def render_problem(problem: Problem, request_id: str) -> bytes:
    """The body, ``application/problem+json``."""
    body: dict[str, Any] = {
        "type": problem_type(problem.kind),
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    if problem.fields:
        body["errors"] = [field.to_json() for field in problem.fields]
    if problem.report is not None:
        body["report"] = problem.report
    return dump_json(body)


def render_oip(problem: Problem) -> bytes:
    """The body, ``application/json``."""
    return dump_json({"error": problem.detail})
