"""What a worker serves itself, inference and ``/healthz``, and what it has the node answer: all the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.trace_context import TraceContext
from gateway.web.application import Application
from gateway.web.health import health_routes
from gateway.web.identity import request_id_of
from gateway.web.problems import Problem, render_oip, render_problem
from gateway.web.services import Services
from gateway.workers import tunnel
from gateway.workers.tunnel import Message, Receive, Send

__all__ = ["Face", "Settled"]


class Face(Application):
    """The application of a worker. ``ask`` carries a request's descriptor to the node."""

    def __init__(self, services: Services, ask: Callable[[int], None]) -> None:
        super().__init__(services, health_routes(services))
        self._ask = ask

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz" or self.inference_at(scope["path"]) is not None:
            await super().__call__(scope, receive, send)
        elif not await tunnel.ask(self._ask, scope, receive, send):
            await _answer_absent(scope, send, self.contexts.new())


async def _answer_absent(scope: Message, send: Send, trace: TraceContext) -> None:
    sent = dict(scope["headers"]).get(b"x-request-id")
    request_id = request_id_of(sent, trace)
    detail = "the node process does not answer; it is stopping, or this worker is about to end with it"
    problem = Problem(503, "draining", "The gateway is stopping", detail)
    oip = scope["path"].startswith("/v2")
    body = render_oip(problem) if oip else render_problem(problem, request_id)
    lines = [
        (b"content-type", b"application/json" if oip else b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode("latin-1")),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": lines})
    await send({"type": "http.response.body", "body": body})


class Settled:
    """Answers only once every worker has in force what the node has: so a change that is answered holds everywhere."""

    def __init__(self, application: tunnel.Application, in_force: Callable[[], Awaitable[bool]]) -> None:
        self._application = application
        self._in_force = in_force

    def __repr__(self) -> str:
        return f"<Settled {self._application!r}>"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def settled(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._in_force()
            await send(message)

        await self._application(scope, receive, settled)
