"""One call of the admin plane: who asks, what the body says, which revision is expected, how the answer is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.codec.json_inputs import refuse_duplicates
from gateway.codec.json_outputs import dump_json
from gateway.codec.limits import CodecLimits, count_strings, read_document
from gateway.control.changes import EXISTING
from gateway.control.tokens import Principal, Role
from gateway.errors import BadRequest, FieldProblem, InvalidInput
from gateway.web.auth import authenticate
from gateway.web.body import check_content_type, receive_body
from gateway.web.exchange import EXCHANGE, Exchange
from gateway.web.services import Services

__all__ = ["MAX_BODY_BYTES", "AdminCall", "json_response"]

MAX_BODY_BYTES = 1024 * 1024
JSON_TYPES = frozenset({"application/json"})
DEFAULT_WAIT_S = 30.0
LONGEST_WAIT_S = 300.0
_PARSED_DEPTH = 1024
"""The JSON parser's own: what a body may hold, and how deep, is for the call to say."""
_MAX_SUSPECTS = 100


class AdminCall:
    """Made by ``authorised`` only, so a handler that has one knows that the caller may call."""

    def __init__(self, request: Request, exchange: Exchange, principal: Principal, services: Services) -> None:
        self.request = request
        self.exchange = exchange
        self.principal = principal
        self._services = services

    @classmethod
    async def authorised(cls, request: Request, services: Services, role: Role, *, bound: bool) -> AdminCall:
        """Raises Unauthenticated, or Forbidden when the token lacks the role, or the route in the path.

        Without a route in the path the token must cover all routes, unless ``bound`` ones may call too.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        principal = await authenticate(exchange.headers, services.verify)
        route = request.path_params.get("route")
        if route is not None:
            principal.require(role, route)
        elif bound:
            principal.require(role)
        else:
            principal.require_everywhere(role)
        return cls(request, exchange, principal, services)

    @property
    def actor(self) -> str:
        return self.principal.actor

    def part(self, name: str) -> str:
        return str(self.request.path_params[name])

    def number(self, name: str) -> int:
        """A whole number in the path. Raises BadRequest."""
        return _whole(f"{name} in the path", self.part(name), least=1)

    async def body(self, *, optional: bool = False) -> Mapping[str, Any]:
        """The JSON object sent. Raises BadRequest, TooLarge, UnsupportedContent."""
        check_content_type(self.exchange, JSON_TYPES)
        limits = replace(self._services.limits, body_bytes=min(MAX_BODY_BYTES, self._services.limits.body_bytes))
        raw = await receive_body(self.exchange, limits)
        if optional and not raw.strip():
            return {}
        document = read_document(raw, CodecLimits(max_depth=_PARSED_DEPTH))
        refuse_duplicates(
            document, count_strings(document.value, CodecLimits(max_depth=_PARSED_DEPTH)), _names(document.value)
        )
        return document.value

    def expected(self) -> int | None:
        """The revision of ``If-Match: "7"`` (0: must not exist, as does ``If-None-Match: *``), ``EXISTING`` for
        ``If-Match: *``; None without one."""
        if self.exchange.headers.get("if-none-match", "").strip() == "*":
            return 0
        sent = self.exchange.headers.get("if-match")
        if sent is None:
            return None
        if sent.strip() == "*":
            return EXISTING
        text = sent.strip().removeprefix("W/").strip('"')
        return _whole("If-Match", text, least=0)

    def has(self, etag: str) -> bool:
        """Whether the caller says (``If-None-Match``) that it has the answer of this tag."""
        sent = self.exchange.headers.get("if-none-match", "")
        return etag in [one.strip().removeprefix("W/").strip('"') for one in sent.split(",")]

    def wait_s(self) -> float | None:
        """How long ``?wait=applied`` waits (``&timeout_s=``); None without it. Raises BadRequest."""
        wait = self.request.query_params.get("wait")
        if wait is None:
            return None
        if wait != "applied":
            raise BadRequest.of("wait", "applied", repr(wait[:40]))
        text = self.request.query_params.get("timeout_s")
        try:
            seconds = DEFAULT_WAIT_S if text is None else float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= LONGEST_WAIT_S:
            raise BadRequest.of("timeout_s", f"seconds from 0 to {LONGEST_WAIT_S:g}", repr(str(text)[:40]))
        return seconds

    def query_number(self, name: str, default: int, *, most: int) -> int:
        text = self.request.query_params.get(name)
        return default if text is None else min(most, _whole(name, text, least=0))


def _names(body: Mapping[str, Any]) -> list[str]:
    """Some of those that may stand twice in a body, for the message."""
    inner = [name for value in body.values() if isinstance(value, dict) for name in value]
    return [*body, *inner][:_MAX_SUSPECTS]


def field(body: Mapping[str, Any], name: str, kind: type, expected: str, *, required: bool = True) -> Any:
    """A field of the body, of exactly that type. Raises InvalidInput naming it."""
    value = body.get(name)
    if value is None and not required:
        return None
    if type(value) is not kind:
        got = "nothing" if name not in body else repr(value)[:60]
        problem = FieldProblem(name, expected, got)
        raise InvalidInput(f"{name}: expected {expected}, got {got}", problem)
    return value


def only(body: Mapping[str, Any], *names: str) -> None:
    """Raises InvalidInput when the body has another field than these."""
    for name in body:
        if name not in names:
            expected = ", ".join(names)
            problem = FieldProblem(str(name)[:60], f"one of {expected}", "an unknown field")
            raise InvalidInput(f"unknown field {str(name)[:60]!r}; this call takes {expected}", problem)


def _whole(name: str, text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) >= least):
        raise BadRequest.of(name, f"a whole number from {least} on", repr(text[:40]))
    return int(text)


def json_response(body: Any, status: int = 200, *, revision: int | None = None) -> Response:
    """``revision`` becomes the ETag."""
    headers = {} if revision is None else {"etag": f'"{revision}"'}
    return Response(dump_json(body), status, headers, media_type="application/json")
