"""``POST /feedback``: one label, or many as lines of JSON, which are kept as they stream in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.codec.inflate import is_compressed
from gateway.control.tokens import Principal, Role
from gateway.errors import (
    BadRequest,
    Conflict,
    FieldProblem,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    RecorderUnavailable,
    StorageFull,
    StoreUnavailable,
    TooLarge,
)
from gateway.web.admin_call import AdminCall, json_response, only
from gateway.web.auth import authenticate
from gateway.web.body import check_content_type, receive_body
from gateway.web.exchange import EXCHANGE, Exchange
from gateway.web.feedback_lines import lines_of
from gateway.web.problem_table import ReceiveTimeout
from gateway.web.services import Labels, Services

__all__ = ["FEEDBACK_TYPES", "TruthEndpoint", "feedback_routes"]

JSON, LINES = "application/json", "application/x-ndjson"
FEEDBACK_TYPES = (JSON, LINES)

MAX_ID_CHARS = 128
MAX_TEXT_CHARS = 200
MAX_LABELS = 10_000
"""Of one answer, one a row."""
MAX_ERRORS = 20
"""Of a bulk, that are told in full; all are counted."""
LINES_AT_ONCE = 500
DAYS = 7
MOST_DAYS = 60

Labelled = tuple[str, Any]


def feedback_routes(services: Services) -> Sequence[BaseRoute]:
    async def feedback(request: Request) -> Response:
        exchange: Exchange = request.scope[EXCHANGE]
        principal = await authenticate(exchange.headers, services.verify)
        principal.require(Role.FEEDBACK)
        labels = _labels(services)
        check_content_type(exchange, frozenset(FEEDBACK_TYPES))
        media = (exchange.headers.get("content-type") or JSON).partition(";")[0].strip().lower()
        if media == LINES:
            return json_response(await _Bulk(labels, principal).taken(_lines(exchange, services)))
        return await _one(labels, principal, await receive_body(exchange, services.limits))

    return [Route("/feedback", feedback, methods=["POST"])]


def _labels(services: Services) -> Labels:
    if services.labels is None:
        raise RecorderUnavailable("labels are not taken here: nothing records this gateway's answers")
    return services.labels


async def _one(labels: Labels, principal: Principal, raw: bytes) -> Response:
    body = _object(raw)
    decision, value = checked(body)
    ((outcome, expected, got),) = await labels.join([(decision, value)], principal.routes, principal.name)
    said = {"decision": decision, "outcome": outcome}
    match outcome:
        case "held":
            return json_response(said, 202)
        case "rejected":
            raise InvalidInput(f"label: expected {expected}, got {got}", FieldProblem("label", expected, got))
        case "conflict":
            raise Conflict(f"decision {decision} has another label already; the first one stands")
        case "expired":
            raise NotFound(f"decision {decision} is older than its route's horizon, or was not kept that long")
        case "forbidden":
            raise Forbidden(f"token {principal.name!r} does not cover the route of decision {decision}")
        case "full":
            raise Overloaded("too many labels wait for answers that nobody knows; send this one later")
    return json_response(said)


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as fault:
        raise BadRequest(f"not valid JSON: {fault}") from None
    if type(value) is not dict:
        raise BadRequest(f"a JSON {type(value).__name__}; expected an object with decision and label")
    return value


def checked(body: Mapping[str, Any]) -> Labelled:
    """Raises InvalidInput naming the field."""
    only(body, "decision", "label")
    decision = body.get("decision")
    if type(decision) is not str or not 0 < len(decision) <= MAX_ID_CHARS:
        raise _wrong("decision", "the id that the answer came with, as text", body)
    if "label" not in body:
        raise _wrong("label", "a class, a number, or a list of them, one a row", body)
    label = body["label"]
    several = label if isinstance(label, list) else [label]
    if len(several) > MAX_LABELS:
        problem = FieldProblem("label", f"at most {MAX_LABELS} of them", f"{len(several)}")
        raise InvalidInput(f"label: expected at most {MAX_LABELS} of them, got {len(several)}", problem)
    for place, one in enumerate(several):
        if not _may_be_label(one):
            field = f"label[{place}]" if isinstance(label, list) else "label"
            problem = FieldProblem(field, f"text of at most {MAX_TEXT_CHARS} characters, or a number", repr(one)[:60])
            raise InvalidInput(f"{field}: expected {problem.expected}, got {problem.got}", problem)
    return decision, label


def _may_be_label(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_CHARS
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int)


def _wrong(name: str, expected: str, body: Mapping[str, Any]) -> InvalidInput:
    got = repr(body[name])[:60] if name in body else "nothing"
    return InvalidInput(f"{name}: expected {expected}, got {got}", FieldProblem(name, expected, got))


async def _lines(exchange: Exchange, services: Services) -> AsyncIterator[bytes]:
    """Of a body that is not compressed as they come; of one that is, once it is here, under the limits of bodies."""
    encoding = exchange.headers.get("content-encoding", "")
    if encoding and is_compressed(encoding):
        for line in (await receive_body(exchange, services.limits)).split(b"\n"):
            yield line
        return
    async for line in lines_of(exchange, idle_s=services.limits.receive_s):
        yield line


class _Bulk:
    """Counts what became of each line; what a line has wrong is told with its number. The lines that were kept before
    an error ends it stay kept, and change nothing when they are sent again."""

    def __init__(self, labels: Labels, principal: Principal) -> None:
        self._labels = labels
        self._principal = principal
        self._waiting: list[tuple[int, Labelled]] = []
        self._outcomes: Counter[str] = Counter()
        self._errors: list[dict[str, Any]] = []
        self._lines = 0

    async def taken(self, lines: AsyncIterator[bytes]) -> Mapping[str, Any]:
        number = 0
        try:
            async for line in lines:
                number += 1
                if line.strip():
                    self._take(number, line)
                if len(self._waiting) >= LINES_AT_ONCE:
                    await self._keep()
            await self._keep()
        except (StoreUnavailable, StorageFull, Overloaded, TooLarge, ReceiveTimeout) as error:
            done = self._waiting[0][0] - 1 if self._waiting else number
            error.args = (f"{error}; the lines up to {done} are kept, send all again or those after it",)
            raise
        if not self._lines:
            raise BadRequest("the body has no line; send one JSON object a line, each with decision and label")
        return {"lines": self._lines, "outcomes": dict(self._outcomes), "errors": self._errors}

    def _take(self, number: int, line: bytes) -> None:
        self._lines += 1
        try:
            self._waiting.append((number, checked(_object(line))))
        except InvalidInput as error:
            self._wrong(number, "invalid", *error.problems)
        except BadRequest as error:
            self._wrong(number, "invalid", FieldProblem("line", "a JSON object with decision and label", str(error)))

    async def _keep(self) -> None:
        if not self._waiting:
            return
        principal, labels = self._principal, [labelled for _, labelled in self._waiting]
        verdicts = await self._labels.join(labels, principal.routes, principal.name)
        for (number, _), (outcome, expected, got) in zip(self._waiting, verdicts, strict=True):
            match outcome:
                case "rejected":
                    self._wrong(number, outcome, FieldProblem("label", expected, got))
                case "conflict":
                    self._wrong(number, outcome, FieldProblem("label", "the label that the decision has", "another"))
                case "expired" | "forbidden" | "full":
                    self._wrong(number, outcome, FieldProblem("decision", _EXPECTED[outcome], outcome))
                case _:
                    self._outcomes[outcome] += 1
        self._waiting = []

    def _wrong(self, number: int, outcome: str, *problems: FieldProblem) -> None:
        self._outcomes[outcome] += 1
        if len(self._errors) < MAX_ERRORS:
            self._errors += [{"line": number, **problem.to_json()} for problem in problems[:1]]


_EXPECTED = {
    "expired": "a decision within its route's horizon",
    "forbidden": "a decision of a route that the token covers",
    "full": "an answered decision: too many labels wait for unknown ones",
}


class TruthEndpoint:
    """``GET /admin/truth/{route}``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def report(self, call: AdminCall) -> Response:
        days = call.query_number("days", DAYS, most=MOST_DAYS)
        return json_response(await _labels(self._services).report(call.part("route"), days))
