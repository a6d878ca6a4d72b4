"""``GET /admin/routes/{route}/explain``: the question out of the query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from gateway.control.explain_question import Question
from gateway.control.route_control import RouteControl
from gateway.errors import BadRequest
from gateway.messages import NOTHING
from gateway.web.admin_call import AdminCall, json_response

__all__ = ["EXPLAIN_QUERY", "ExplainEndpoint"]

EXPLAIN_QUERY: Mapping[str, str] = {
    "key": "The request's own key",
    "context": "The request's context, a JSON object",
    "header": "name=value, once for each header of the request that matters",
    "weights": "version=weight, joined by commas: what would this split change?",
    "revision": "As it was when the state stood at this revision, as decisions record it",
}

_PAIR = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,15}")
_MAX_HEADERS = 100


class ExplainEndpoint:
    def __init__(self, routes: RouteControl) -> None:
        self._routes = routes

    async def explain(self, call: AdminCall) -> Response:
        return json_response(await self._routes.explain(call.part("route"), _question(call)))


def _question(call: AdminCall) -> Question:
    """Raises BadRequest naming what does not fit."""
    query = call.request.query_params
    strange = sorted(query.keys() - EXPLAIN_QUERY.keys())
    if strange:
        raise BadRequest(f"unknown parameter {strange[0][:60]!r}; this call takes {', '.join(EXPLAIN_QUERY)}")
    weights, revision = query.get("weights"), query.get("revision")
    if weights is not None and revision is not None:
        raise BadRequest("weights asks what a change would do now, revision what was then; leave one of them out")
    headers = {name.lower(): value for name, value in _pairs("header", query.getlist("header"))}
    pin = headers.get("x-model-version")
    return Question(
        key=query.get("key") or headers.get("x-key"),
        context=_context(query.get("context")),
        headers=headers,
        pin=None if pin is None else _whole("header x-model-version", pin),
        weights=None if weights is None else _weights(weights),
        revision=None if revision is None else _whole("revision", revision),
    )


def _pairs(name: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    if len(texts) > _MAX_HEADERS:
        raise BadRequest(f"{name}: {len(texts)} of them; expected at most {_MAX_HEADERS}")
    found = []
    for text in texts:
        match = _PAIR.fullmatch(text)
        if match is None:
            raise BadRequest(f"{name}={text[:60]!r}: expected name=value")
        found.append((match[1].strip(), match[2].strip()))
    return found


def _context(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return NOTHING
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise BadRequest(f"context: expected a JSON object, and it is not valid JSON: {fault}") from None
    if type(value) is not dict:
        raise BadRequest(f"context: expected a JSON object, got {text[:60]!r}")
    return value


def _weights(text: str) -> dict[str, object]:
    """Versions are checked where they are used."""
    asked: dict[str, object] = {}
    for name, weight in _pairs("weights", text.split(",")):
        if name in asked:
            raise BadRequest(f"weights: version {name[:40]} is there twice; give it one weight")
        asked[name] = _whole(f"weights.{name[:40]}", weight)
    return asked


def _whole(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"{name}: expected a whole number, got {text[:40]!r}")
    return int(text)
