"""The life of one inference over HTTP, whatever its dialect: receive, read, infer, write, and one record of it all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from gateway.codec.inflate import accepted_encoding, deflate
from gateway.dataplane import Fitted, Trail
from gateway.errors import QueueFull, RateLimited, TurnoutError
from gateway.events.records import Content, RequestRecord
from gateway.messages import InferRequest, InferResponse, Signature, VersionRef
from gateway.routing.decide import key_by_route, unknown_route
from gateway.routing.table import Route
from gateway.web import large_bodies
from gateway.web.arrival import receive_in_place
from gateway.web.auth import authorise_route
from gateway.web.body import check_content_type, receive_body
from gateway.web.clients import client_of
from gateway.web.disconnect import DisconnectWatch
from gateway.web.exchange import ClientLeft, Exchange, HeaderLine
from gateway.web.headers import Headers
from gateway.web.identity import DecisionIds
from gateway.web.intake import Intake
from gateway.web.problems import Problem, explain
from gateway.web.rates import Rates
from gateway.web.request_facts import RequestFacts, read_facts
from gateway.web.services import Services

__all__ = ["LENGTH_OF_JSON", "Answer", "Asked", "Dialect", "Envelope", "Inference"]

_DEFLATE_IN_THREAD_BYTES = 64 * 1024
_new = tuple.__new__
_JSON = b"application/json"

LENGTH_OF_JSON = b"inference-header-content-length"
"""The header of a body that is binary tensors, with some JSON before them."""

CLIENT_CLOSED_REQUEST = 499
"""What nginx made customary for a client that left; never sent, only recorded."""


class Envelope(Protocol):
    """A request's body as read. ``fit`` types its tensors by a version's signature; pure, may run twice, and may have
    to be awaited where the body lies in another process."""

    @property
    def id(self) -> str | None: ...

    @property
    def key(self) -> str | None: ...

    @property
    def context(self) -> Mapping[str, Any]: ...

    @property
    def timeout_s(self) -> float | None: ...

    @property
    def priority(self) -> str | None: ...

    def fit(self, signature: Signature) -> Fitted | Awaitable[Fitted]: ...


class Answer(NamedTuple):
    """A successful answer's body and the headers that are its own."""

    body: bytes
    content_type: bytes
    headers: tuple[HeaderLine, ...] = ()


class Asked(NamedTuple):
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

    def read(self, body: bytes | memoryview, exchange: Exchange) -> Envelope: ...

    def write(self, envelope: Any, response: InferResponse, decision_id: str) -> Answer: ...


class Inference:
    """Serves one exchange at a time for any dialect; tells the observer of each exactly once, however it ends."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rates = Rates(services.clock)
        self.intake = Intake(services.clock, services.limits.under_way_bytes)
        self._decision_ids = DecisionIds(services.clock)

    def serve(self, exchange: Exchange, locate: Callable[[str], Asked], dialect: Dialect) -> Coroutine[Any, Any, None]:
        """Answers the exchange. Raises what no answer was found for, after recording it as a 500."""
        return _Story(self, exchange, dialect, self._decision_ids()).serve(locate)


class _Story(Trail):
    """One inference under way; what the record will say of it is gathered here."""

    __slots__ = (
        "_began", "_context", "_dialect", "_encoding", "_ended", "_exchange", "_found", "_key", "_services", "_shared",
        "_started_wall", "client", "client_id", "code", "decision_id", "error", "response",
    )  # fmt: skip

    def __init__(self, shared: Inference, exchange: Exchange, dialect: Dialect, decision_id: str) -> None:
        super().__init__()
        self._shared = shared
        self._services = services = shared.services
        self._exchange = exchange
        self._dialect = dialect
        clock = services.clock
        self._began = clock.monotonic()
        self._started_wall = clock.wall()
        self._encoding: float | None = None
        self._ended: float | None = None
        self._found: Route | None = None
        self._key: str | None = None
        self._context: Mapping[str, Any] | None = None
        self.decision_id = decision_id
        self.client: str | None = None
        self.client_id: str | None = None
        self.response: InferResponse | None = None
        self.code = 500
        self.error: str | None = None

    async def serve(self, locate: Callable[[str], Asked]) -> None:
        """One coroutine for all of it, since each one more that a small request passes costs half a microsecond."""
        services, exchange, dialect = self._services, self._exchange, self._dialect
        problem: Problem | None = None
        try:
            try:
                asked = locate(exchange.path)
                self._found = route = self._find(asked.route)
                if route.protected:
                    await self._authorise(route)
                facts, envelope = self._at_hand()
                if envelope is None:
                    envelope = await self._receive(asked, route, facts)
                request = self._request(asked, route, facts, envelope)
                if exchange.cancelled_by_leaving:
                    response = self.response = await services.dataplane.infer(request, envelope.fit, self)
                else:
                    with DisconnectWatch(exchange.receive, after_s=services.limits.watch_after_s):
                        response = self.response = await services.dataplane.infer(request, envelope.fit, self)
                self._encoding = services.clock.monotonic()
                answer: Answer = dialect.write(envelope, response, self.decision_id)
                if dialect.compresses and b"accept-encoding" in exchange.headers.raw:
                    answer = await _compressed(answer, exchange.headers, from_bytes=services.limits.compress_from_bytes)
                self._ended = services.clock.monotonic()
            except TurnoutError as error:
                self._failed(error)
                problem = explain(error)
            if problem is None:
                self.code = 200
                body, content_type, headers = answer
                lines = f"x-decision-id: {self.decision_id}\r\n{_version_text(response.decision.version)}"
                if not exchange.answer_at_once(200, body, content_type, lines, headers):
                    await exchange.answer(200, body, content_type, (*self._names(), *headers))
            else:  # out here: see docs/architecture.md, "The short way"
                await exchange.answer_problem(problem, self._names())
        except ClientLeft:
            self._left()
        except asyncio.CancelledError:
            self._left()
            raise
        finally:
            self._tell()

    def _at_hand(self) -> tuple[RequestFacts, Envelope | None]:
        """What the headers say; and the envelope, if the body is there and small."""
        exchange, dialect, limits = self._exchange, self._dialect, self._services.limits
        if exchange.headers.raw.get(b"content-type") != _JSON:
            check_content_type(exchange, dialect.content_types)
        facts, body = read_facts(exchange.headers, limits.codec), exchange.body
        if body is not None and len(body) < limits.decode_elsewhere_bytes:
            return facts, dialect.read(body, exchange)
        return facts, None

    async def _receive(self, asked: Asked, route: Route, facts: RequestFacts) -> Envelope:
        """The envelope of a body that is on its way. A large one of JSON alone is decoded in another process."""
        services, exchange, dialect = self._services, self._exchange, self._dialect
        large = services.large
        if large is None or LENGTH_OF_JSON in exchange.headers.raw:
            if exchange.arriving is not None:
                return dialect.read(await receive_in_place(exchange.arriving, self._shared.intake), exchange)
            body = exchange.body or await receive_body(exchange, services.limits, intake=self._shared.intake)
            return dialect.read(body, exchange)
        body = b""
        if exchange.arriving is None:
            body = exchange.body or await receive_body(exchange, services.limits, until_bytes=large.from_bytes)
        if exchange.whole and len(body) < large.from_bytes:
            return dialect.read(body, exchange)
        known = large_bodies.Asked(
            dialect.protocol,
            self._likely(asked, route),
            None if facts.timeout_s is None else self._began + facts.timeout_s,
            route.limits.timeout_ms / 1000,
        )
        if exchange.whole:
            return await large.decode(exchange, body, known)
        return await large.receive(exchange, exchange.arriving.begun if exchange.arriving else body, known)

    def _likely(self, asked: Asked, route: Route) -> Signature | None:
        """The signature of the version that will most probably answer."""
        handles = self._services.dataplane.current.handles
        number = asked.version
        if number is None:
            number = max(route.arms, key=lambda arm: arm.weight).version if route.arms else route.fallback
        handle = None if number is None else handles.get(route.ref(number))
        return None if handle is None else handle.signature

    async def _authorise(self, route: Route) -> None:
        """Who has a token is known by it: one that asks too often is refused before its body is read."""
        principal = await authorise_route(self._exchange.headers, self._services.verify, route)
        self.client = client_of(token=principal.name)
        if route.limits.rate_per_s is not None:
            self._shared.rates.admit(route, self.client)

    def _failed(self, error: TurnoutError) -> None:
        self._ended = self._services.clock.monotonic()
        self.code = explain(error).status
        self.error = type(error).__name__
        if self._found is None:
            return
        if isinstance(error, RateLimited):
            self._services.observer.request_rejected(self._found.name, "rate-limit")
        elif isinstance(error, QueueFull) and self.route is None:  # its body: the data plane has not seen it
            self._services.observer.request_rejected(self._found.name, "queue-full")

    def _left(self) -> None:
        self._ended = self._services.clock.monotonic()
        if not self._exchange.started:
            self.code = CLIENT_CLOSED_REQUEST
            self.error = ClientLeft.__name__

    def _names(self) -> tuple[HeaderLine, ...]:
        """Which decision and version the answer is of, as far as known."""
        mine = (b"x-decision-id", self.decision_id.encode())
        decision = self.decision if self.response is None else self.response.decision
        return (mine,) if decision is None else (mine, *_version_lines(decision.version))

    def _tell(self) -> None:
        services, exchange = self._services, self._exchange
        ended = services.clock.monotonic() if self._ended is None else self._ended
        if self.route is None and self._found is not None:
            # Refused before the data plane saw it; whoever counts what is in flight needs both ends.
            services.observer.request_started(self._found.name)
        content = None
        if self.inputs is not None:
            content = _new(Content, (self.inputs, self.outputs, self._context, None, None))
        trace, began, decided, submitted = exchange.trace, self.began, self.decided, self.submitted
        services.observer.request_finished(
            _new(
                RequestRecord,
                (
                    self.route or ("" if self._found is None else self._found.name),
                    exchange.request_id,
                    self.decision_id,
                    self.decision,
                    self.answered_by if self.code == 200 else None,
                    self.code,
                    self.chosen_failure,
                    self.error or (None if self.code == 200 else "internal"),
                    self.rows,
                    self._started_wall,
                    ended - self._began,
                    self.queue_s,
                    self.compute_s,
                    self.slow,
                    self._dialect.protocol,
                    trace.trace_id,
                    trace.span_id,
                    trace.parent_span_id,
                    self.client_id,
                    trace.sampled,
                    self.batch,
                    self.batch_rows,
                    self._key,
                    (began - self._began if began else 0.0) + (submitted - decided if submitted else 0.0),
                    decided - began if decided else 0.0,
                    0.0 if self._encoding is None else ended - self._encoding,
                    content,
                    trace.state,
                ),
            )
        )

    def _find(self, name: str | None) -> Route:
        table = self._services.dataplane.current.table
        wanted = table.default_route if name is None else name
        route = None if wanted is None else table.routes.get(wanted)
        if route is None:
            raise unknown_route(name, table.routes)
        return route

    def _request(self, asked: Asked, route: Route, facts: RequestFacts, envelope: Envelope) -> InferRequest:
        exchange = self._exchange
        self.client_id = envelope.id
        key, context = envelope.key or facts.key, envelope.context or facts.context
        said = key if key or route.key is None else key_by_route(route.key, exchange.headers, context)
        self._key, self._context = said, context or None
        if self.client is None:
            self.client = client_of(key=said, peer=exchange.peer)
            if route.limits.rate_per_s is not None:
                self._shared.rates.admit(route, self.client)
        return _new(
            InferRequest,
            (
                asked.route,
                exchange.request_id,
                self.decision_id,
                self._deadline(facts, envelope),
                key,
                context,
                exchange.headers,
                facts.pin if asked.version is None else asked.version,
                self._dialect.pins_by_protocol,
                envelope.id,
                exchange.traceparent,
                envelope.priority or facts.priority,
                self.client,
            ),
        )

    def _deadline(self, facts: RequestFacts, envelope: Envelope) -> float | None:
        """The nearest of header, body and route; None leaves it to the route alone."""
        header_s, body_s = facts.timeout_s, envelope.timeout_s
        if header_s is None and body_s is None:
            return None
        asked_s = [seconds for seconds in (header_s, body_s) if seconds is not None]
        route_s = [] if self._found is None else [self._found.limits.timeout_ms / 1000]
        return self._began + min(*asked_s, *route_s)


@lru_cache(maxsize=4096)
def _version_lines(version: VersionRef) -> tuple[HeaderLine, HeaderLine]:
    model = version.model.encode("latin-1", "replace")
    return (b"x-model", model), (b"x-model-version", str(version.number).encode())


@lru_cache(maxsize=4096)
def _version_text(version: VersionRef) -> str:
    return "".join(f"{name.decode()}: {value.decode('latin-1')}\r\n" for name, value in _version_lines(version))


async def _compressed(answer: Answer, headers: Headers, *, from_bytes: int) -> Answer:
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
