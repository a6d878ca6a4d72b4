"""The life of one inference over HTTP, whatever its dialect: receive, read, infer, write, and one record of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.codec.inflate import accepted_encoding, deflate
from gateway.dataplane import Trail
from gateway.errors import RateLimited, TurnoutError, UnknownRoute
from gateway.events import RequestRecord
from gateway.messages import Arrays, InferRequest, InferResponse, Signature
from gateway.routing.table import Route
from gateway.web.auth import authorise_route
from gateway.web.body import check_content_type, receive_body
from gateway.web.disconnect import DisconnectWatch
from gateway.web.exchange import ClientLeft, Exchange, HeaderLine
from gateway.web.identity import DecisionIds
from gateway.web.problems import explain
from gateway.web.request_facts import RequestFacts, read_facts
from gateway.web.services import Services

__all__ = ["Answer", "Asked", "Dialect", "Envelope", "Inference", "unknown_route"]

_DEFLATE_IN_THREAD_BYTES = 64 * 1024

CLIENT_CLOSED_REQUEST = 499
"""What nginx made customary for a client that left; never sent, only recorded."""


class Envelope(Protocol):
    """A request's body as read. ``fit`` types its tensors by a version's signature; pure, may run twice."""

    @property
    def id(self) -> str | None: ...

    @property
    def key(self) -> str | None: ...

    @property
    def context(self) -> Mapping[str, Any]: ...

    @property
    def timeout_s(self) -> float | None: ...

    def fit(self, signature: Signature) -> tuple[Arrays, int]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer's body and the headers that are its own."""

    body: bytes
    content_type: bytes
    headers: tuple[HeaderLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL says: the route (None: the default one), and the version if it names one."""

    route: str | None
    version: int | None = None


class Dialect(Protocol):
    """How one protocol writes requests and answers. ``pins_by_protocol``: its clients choose versions by URL.
    ``compresses``: answers go out as Accept-Encoding allows.

    ``read`` raises BadRequest or TooLarge; ``write`` may raise InvalidInput for an answer that
    cannot be written as it was asked for.
    """

    @property
    def protocol(self) -> str: ...

    @property
    def content_types(self) -> frozenset[str]: ...

    @property
    def pins_by_protocol(self) -> bool: ...

    @property
    def compresses(self) -> bool: ...

    def read(self, body: bytes, exchange: Exchange) -> Envelope: ...

    def write(self, envelope: Any, response: InferResponse, decision_id: str) -> Answer: ...


class Inference:
    """Serves one exchange at a time for any dialect; tells the observer of each exactly once, however it ends."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decision_ids = DecisionIds(services.clock)

    async def serve(self, exchange: Exchange, locate: Callable[[], Asked], dialect: Dialect) -> None:
        """Answers the exchange. Raises what no answer was found for, after recording it as a 500."""
        story = _Story(self._services, exchange, dialect, self._decision_ids())
        try:
            try:
                answer = await story.run(locate)
            except TurnoutError as error:
                story.failed(error)
                await exchange.answer_problem(explain(error), story.names())
            else:
                story.code = 200
                await exchange.answer(200, answer.body, answer.content_type, (*answer.headers, *story.names()))
        except ClientLeft:
            story.left()
        except asyncio.CancelledError:
            story.left()
            raise
        finally:
            story.tell()


class _Story:
    """One inference under way; what the record will say of it is gathered here."""

    __slots__ = (
        "_began", "_dialect", "_ended", "_envelope", "_exchange", "_route", "_services", "_started_wall",
        "code", "decision_id", "error", "response", "trail",
    )  # fmt: skip

    def __init__(self, services: Services, exchange: Exchange, dialect: Dialect, decision_id: str) -> None:
        self._services = services
        self._exchange = exchange
        self._dialect = dialect
        self._began = services.clock.monotonic()
        self._started_wall = services.clock.wall()
        self._ended: float | None = None
        self._envelope: Envelope | None = None
        self._route: Route | None = None
        self.decision_id = decision_id
        self.trail = Trail()
        self.response: InferResponse | None = None
        self.code = 500
        self.error: str | None = None

    async def run(self, locate: Callable[[], Asked]) -> Answer:
        asked = locate()
        services, exchange, dialect = self._services, self._exchange, self._dialect
        self._route = route = self._find(asked.route)
        await authorise_route(exchange.headers, services.verify, route)
        check_content_type(exchange, dialect.content_types)
        facts = read_facts(exchange.headers, services.limits.codec)
        body = await receive_body(exchange, services.limits)
        self._envelope = envelope = dialect.read(body, exchange)
        request = self._request(asked, facts, envelope)
        with DisconnectWatch(exchange.receive, after_s=services.limits.watch_after_s):
            self.response = await services.dataplane.infer(request, envelope.fit, self.trail)
        answer: Answer = dialect.write(envelope, self.response, self.decision_id)
        if dialect.compresses:
            answer = await _compressed(answer, exchange.headers, from_bytes=services.limits.compress_from_bytes)
        self._ended = services.clock.monotonic()
        return answer

    def failed(self, error: TurnoutError) -> None:
        self._ended = self._services.clock.monotonic()
        self.code = explain(error).status
        self.error = type(error).__name__
        if isinstance(error, RateLimited) and self._route is not None:
            self._services.observer.request_rejected(self._route.name, "rate-limit")

    def left(self) -> None:
        self._ended = self._services.clock.monotonic()
        if not self._exchange.started:
            self.code = CLIENT_CLOSED_REQUEST
            self.error = ClientLeft.__name__

    def names(self) -> list[HeaderLine]:
        """Which decision and version the answer is of, as far as known."""
        lines = [(b"x-decision-id", self.decision_id.encode())]
        decision = self.trail.decision if self.response is None else self.response.decision
        if decision is not None:
            lines.append((b"x-model", decision.version.model.encode("latin-1", "replace")))
            lines.append((b"x-model-version", str(decision.version.number).encode()))
        return lines

    def tell(self) -> None:
        trail, observer = self.trail, self._services.observer
        ended = self._services.clock.monotonic() if self._ended is None else self._ended
        if trail.route is None and self._route is not None:
            # Refused before the data plane saw it; whoever counts what is in flight needs both ends.
            observer.request_started(self._route.name)
        trace = self._exchange.trace
        observer.request_finished(
            RequestRecord(
                route=trail.route or ("" if self._route is None else self._route.name),
                request_id=self._exchange.request_id,
                decision_id=self.decision_id,
                decision=trail.decision,
                answered_by=trail.answered_by if self.code == 200 else None,
                code=self.code,
                chosen_failure=trail.chosen_failure,
                error=self.error or (None if self.code == 200 else "internal"),
                rows=trail.rows,
                started_wall=self._started_wall,
                duration_s=ended - self._began,
                queue_s=trail.queue_s,
                compute_s=trail.compute_s,
                slow=trail.slow,
                protocol=self._dialect.protocol,
                trace_id=trace.trace_id,
                span_id=trace.span_id,
                parent_span_id=trace.parent_span_id,
                client_id=None if self._envelope is None else self._envelope.id,
                sampled=trace.sampled,
            )
        )

    def _find(self, name: str | None) -> Route:
        table = self._services.dataplane.current.table
        wanted = table.default_route if name is None else name
        route = None if wanted is None else table.routes.get(wanted)
        if route is None:
            raise unknown_route(name, table.routes)
        return route

    def _request(self, asked: Asked, facts: RequestFacts, envelope: Envelope) -> InferRequest:
        exchange = self._exchange
        return InferRequest(
            route=asked.route,
            request_id=exchange.request_id,
            decision_id=self.decision_id,
            deadline=self._deadline(facts, envelope),
            key=envelope.key or facts.key,
            context=envelope.context or facts.context,
            headers=exchange.headers,
            pin=facts.pin if asked.version is None else asked.version,
            pin_by_protocol=self._dialect.pins_by_protocol,
            client_id=envelope.id,
            trace=exchange.traceparent,
        )

    def _deadline(self, facts: RequestFacts, envelope: Envelope) -> float | None:
        """The nearest of header, body and route; None leaves it to the route alone."""
        asked_s = [seconds for seconds in (facts.timeout_s, envelope.timeout_s) if seconds is not None]
        if not asked_s:
            return None
        route_s = [] if self._route is None else [self._route.limits.timeout_ms / 1000]
        return self._began + min(*asked_s, *route_s)


async def _compressed(answer: Answer, headers: Mapping[str, str], *, from_bytes: int) -> Answer:
    """The answer as Accept-Encoding allows; one that is small goes out as it is, one that is large takes a thread."""
    accept = headers.get("accept-encoding")
    encoding = accepted_encoding(accept) if accept is not None and len(answer.body) >= from_bytes else None
    if encoding is None:
        return answer
    if len(answer.body) < _DEFLATE_IN_THREAD_BYTES:
        body = deflate(answer.body, encoding)
    else:
        body = await asyncio.to_thread(deflate, answer.body, encoding)
    added: tuple[HeaderLine, ...] = ((b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding"))
    return Answer(body, answer.content_type, (*answer.headers, *added))


def unknown_route(name: str | None, routes: Mapping[str, Route]) -> UnknownRoute:
    known = ", ".join(sorted(routes)[:10]) or "none yet"
    if name is None:
        return UnknownRoute(f"no default route is set; name one in the URL (routes here: {known})")
    return UnknownRoute(f"no route {name!r:.200}; routes here: {known}")
