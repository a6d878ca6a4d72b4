"""The two faces of an error: problem details, and the protocol's under ``/v2``.

Problem details follow RFC 9457 (``application/problem+json``) with ``request_id`` and, for bad
input, ``errors``. Under ``/v2`` the body is ``{"error": "…"}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import errors
from gateway.codec.json_outputs import dump_json
from gateway.errors import FieldProblem, TurnoutError
from gateway.web.problem_table import TABLE

__all__ = [
    "Problem",
    "explain",
    "internal_problem",
    "problem_type",
    "render_oip",
    "render_problem",
]

_MAX_DETAIL_CHARS = 2000
_TYPE_PREFIX = "urn:turnout:problem:"


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
