"""The ASGI application: who serves which path, and the outermost boundary for whatever goes wrong.

``/predict`` and ``/v2/…/infer`` are served on raw ASGI, by comparing strings. The rest goes
through Starlette, which costs three times as much and is asked a thousandth as often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from gateway.errors import NotFound, TurnoutError
from gateway.trace_context import Contexts
from gateway.web.exchange import EXCHANGE, AsgiExchange, ClientLeft, Exchange
from gateway.web.feedback import feedback_routes
from gateway.web.headers import Headers
from gateway.web.health import health_routes
from gateway.web.inference import LENGTH_OF_JSON, Asked, Dialect, Inference
from gateway.web.oip import OpenInferenceDialect, locate_infer
from gateway.web.oip_models import model_routes
from gateway.web.oip_repository import repository_routes
from gateway.web.openapi import openapi_route
from gateway.web.predict import PredictDialect, locate_predict
from gateway.web.problems import Problem, explain, internal_problem, render_oip, render_problem
from gateway.web.services import Services

__all__ = ["Application", "Endpoint", "Head", "build_admin_application", "build_application"]

log = logging.getLogger("turnout.web")

_INFERENCE = (b"/predict", b"/v2/models/")
_MAX_URLS = 1024
_MAX_URL_BYTES = 1024
_MAX_HEADS = 1024
_MAX_HEAD_BYTES = 2048
_PASSING = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"authorization", b"cookie"})
"""Headers that another request will not repeat, and those that should not be kept."""

Endpoint = tuple[Callable[[str], Asked], Dialect]
"""How a path of inference is read, and the dialect that is spoken there."""


class Head(NamedTuple):
    """What a request for inference says before its body. Shared by all requests with the same head. ``in_place``: the
    body may come straight to where it is read (``gateway.web.arrival``)."""

    endpoint: Endpoint
    path: str
    headers: Headers
    body_bytes: int
    in_place: bool


def build_application(
    services: Services,
    *,
    metrics: ASGIApp | None = None,
    admin_routes: Sequence[BaseRoute] = (),
    admin_paths: Callable[[], dict[str, Any]] | None = None,
) -> Application:
    """Everything that is spoken over HTTP. ``metrics`` is mounted at ``/metrics``, ``admin_routes`` stand as they
    are, and ``admin_paths`` gives their part of ``/openapi.json``."""
    routes: list[BaseRoute] = [
        *health_routes(services),
        *model_routes(services),
        *repository_routes(services),
        *feedback_routes(services),
        openapi_route(admin_paths),
        *admin_routes,
    ]
    if metrics is not None:
        routes.append(Route("/metrics", _Mounted(metrics), methods=["GET"]))
    return Application(services, routes)


def build_admin_application(
    services: Services, *, admin_routes: Sequence[BaseRoute], metrics: ASGIApp | None = None
) -> Application:
    """The admin plane alone, for an address of its own."""
    routes = [*health_routes(services), *admin_routes]
    if metrics is not None:
        routes.append(Route("/metrics", _Mounted(metrics), methods=["GET"]))
    return Application(services, routes, inference=False)


class Application:
    """One ASGI callable. Every answer carries a request id; no exception leaves, no trace of one reaches a client."""

    def __init__(self, services: Services, routes: Sequence[BaseRoute], *, inference: bool = True) -> None:
        self._services = services
        self._infers = inference
        self._served = Inference(services).serve
        self.contexts = Contexts(services.trace_ratio)
        # Both filled by those who ask, up to a bound.
        self.heads: dict[bytes, Head] = {}
        self._urls: dict[bytes, tuple[Endpoint, str]] = {}
        self._at_predict: Endpoint = (locate_predict, PredictDialect(services.limits.codec))
        self._at_models: Endpoint = (locate_infer, OpenInferenceDialect(services.limits.codec))
        handlers: dict[Any, ExceptionHandler] = {
            HTTPException: _answer_http_error,
            TurnoutError: _answer_error,
            Exception: _answer_fault,
        }
        self._rest = Starlette(routes=list(routes), exception_handlers=handlers)
        self._rest.router.redirect_slashes = False

    def __repr__(self) -> str:
        return f"<Application {self._services.dataplane!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = AsgiExchange(scope, receive, send, contexts=self.contexts)
            await self.answer(self.inference_at(exchange.path), exchange)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    @property
    def body_bytes(self) -> int:
        """The largest body that is taken."""
        return self._services.limits.body_bytes

    @property
    def receive_s(self) -> float:
        """How long a client may take to send."""
        return self._services.limits.receive_s

    def head_of(self, endpoint: Endpoint, path: str, headers: Headers, body_bytes: int) -> Head:
        limits, large = self._services.limits, self._services.large
        if LENGTH_OF_JSON in headers.raw:
            in_place = endpoint is self._at_models
        else:
            in_place = large is not None and body_bytes >= large.from_bytes
        return Head(endpoint, path, headers, body_bytes, in_place and body_bytes <= limits.body_bytes)

    def remember(self, text: bytes, head: Head) -> None:
        """The head of a request, for those that will begin with the same bytes."""
        if len(text) <= _MAX_HEAD_BYTES and _PASSING.isdisjoint(head.headers.raw):
            if len(self.heads) >= _MAX_HEADS:
                self.heads.clear()
            self.heads[text] = head

    def inference_at_url(self, url: bytes) -> tuple[Endpoint, str] | None:
        """The same by a URL as it came, with its path; None also for one that is not plain. The plain ones of clients
        that ask again and again are remembered."""
        known = self._urls.get(url)
        if known is not None or not url.startswith(_INFERENCE) or b"?" in url or b"%" in url or not url.isascii():
            return known
        path = url.decode("ascii")
        endpoint = self.inference_at(path)
        if endpoint is None:
            return None
        if len(self._urls) < _MAX_URLS and len(url) <= _MAX_URL_BYTES:
            self._urls[url] = (endpoint, path)
        return endpoint, path

    def inference_at(self, path: str) -> Endpoint | None:
        """Who answers inference at this path; None where there is none, here or at all."""
        if not self._infers:
            return None
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return self._at_models
        return self._at_predict if path == "/predict" or path.startswith("/predict/") else None

    async def answer(self, endpoint: Endpoint | None, exchange: Exchange) -> None:
        """Whatever happens, there is an answer, unless the client has left."""
        try:
            if endpoint is not None:
                if exchange.method == "POST":
                    await self.infer(endpoint, exchange)
                else:
                    await exchange.answer_problem(_wrong_method(exchange.method, "POST"))
            elif isinstance(exchange, AsgiExchange):
                await self._endpoint(exchange)
        except ClientLeft:
            return
        except Exception as fault:  # noqa: BLE001 - the outermost boundary: whatever it was, there is an answer
            await self.confess(exchange, fault)

    async def _endpoint(self, exchange: AsgiExchange) -> None:
        exchange.scope[EXCHANGE] = exchange
        try:
            await self._rest(exchange.scope, exchange.receive, exchange.naming_send())
        finally:
            # The scope and its exchange would hold each other, bodies and all, until the collector comes by.
            exchange.scope.pop(EXCHANGE, None)

    def infer(self, endpoint: Endpoint, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """The one answer to a POST of inference. What it raises is a fault of ours: see ``confess``."""
        locate, dialect = endpoint
        return self._served(exchange, locate, dialect)

    async def confess(self, exchange: Exchange, fault: Exception) -> None:
        """A request failed inside the gateway: its client is told that, and nothing else."""
        log.error("request %s failed inside the gateway", exchange.request_id, exc_info=fault)
        if not exchange.started:
            await exchange.answer_problem(internal_problem())


class _Mounted:
    """Starlette takes an object for an ASGI application and a function for an endpoint; this makes any an object."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


async def _answer_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, TurnoutError):
        raise error
    return _response(request, explain(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        return _response(request, _wrong_method(request.method, ", ".join(sorted(allowed))))
    if error.status_code == 404:
        return _response(request, explain(NotFound(f"nothing at {request.url.path!r:.200}; see /openapi.json")))
    problem = Problem(error.status_code, "bad-request", "The request cannot be served", str(error.detail))
    return _response(request, problem)


async def _answer_fault(request: Request, error: Exception) -> Response:  # noqa: ARG001 (the boundary logs it)
    return _response(request, internal_problem())


def _wrong_method(method: str, allowed: str) -> Problem:
    detail = f"{method[:20]} is not served here; use {allowed}"
    headers = ((b"allow", allowed.encode("latin-1")),)
    return Problem(405, "method-not-allowed", "The method is not served", detail, headers=headers)


def _response(request: Request, problem: Problem) -> Response:
    exchange: Exchange = request.scope[EXCHANGE]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in problem.headers}
    if exchange.speaks_oip:
        return Response(render_oip(problem), problem.status, headers, "application/json")
    body = render_problem(problem, exchange.request_id)
    return Response(body, problem.status, headers, "application/problem+json")


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing starts or stops here: the composition root does that, around the server."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
