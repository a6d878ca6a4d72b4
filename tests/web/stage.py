"""A whole data plane for the web's tests: echo versions inline, a real fleet, a real table, a recording observer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.clock import SystemClock
from gateway.codec.limits import CodecLimits
from gateway.control.tokens import Principal, Role
from gateway.dataplane import Current, Dataplane
from gateway.errors import Conflict, Unauthenticated, UnknownModel
from gateway.events.fan_out import FanOut
from gateway.events.observer import RecordingObserver
from gateway.events.records import RequestRecord
from gateway.messages import DATATYPES, Signature, TensorSpec, VersionRef
from gateway.routing.table import Arm, CachePolicy, Limits, Route, RoutingTable
from gateway.serving.engine import BatchPolicy, Engine, VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.inline_engine import InlineEngine
from gateway.serving.scripted_engine import Script, ScriptedEngine
from gateway.web.application import Application, build_application
from gateway.web.large_bodies import LargeBodies, large_bodies
from gateway.web.services import IndexEntry, Services, WebLimits
from gateway.web.statistics import ModelStatistics
from gateway.web.wire import WireProtocol
from runtimes.base import LoadSpec

T = TypeVar("T")

LIMITS = WebLimits(
    body_bytes=1 << 20, receive_s=60.0, codec=CodecLimits(max_depth=16, max_elements=100_000), watch_after_s=0.001
)

FOUR = Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch", 4)),))
WORDS = Signature((TensorSpec("words", "BYTES", ("batch", 2)),), (TensorSpec("echo", "BYTES", ("batch", 2)),))
ALONE = Signature((TensorSpec("v", "FP64", (3,)),), (TensorSpec("w", "FP64", (3,)),), batched=False)
EVERY = Signature(
    tuple(TensorSpec(f"in_{name}", name, ("batch", 2)) for name in DATATYPES),
    tuple(TensorSpec(f"out_{name}", name, ("batch", 2)) for name in DATATYPES),
)

MODELS: Mapping[VersionRef, tuple[Signature, Mapping[str, Any]]] = {
    VersionRef("digits", 1): (FOUR, {}),
    VersionRef("digits", 2): (FOUR, {"outputs": {"y": 2.0}}),
    VersionRef("words", 1): (WORDS, {}),
    VersionRef("alone", 1): (ALONE, {}),
    VersionRef("every", 1): (EVERY, {}),
    VersionRef("strange", 1): (FOUR, {"outputs": {"y": float("nan")}}),
    VersionRef("strange", 2): (FOUR, {"outputs": {"y": float("-inf")}}),
    VersionRef("fussy", 1): (FOUR, {"invalid": {"equals": 13}, "fail": {"equals": 666}}),
    VersionRef("slow", 1): (FOUR, {}),
    VersionRef("bytes", 1): (
        Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("raw", "BYTES", ("batch", 1)),)),
        {"outputs": {"raw": b"\xff\xfe"}},
    ),
}
"""What is loaded. ``slow`` is a scripted engine that waits at a gate when told to. ``fussy`` refuses 13
and fails on 666, so that warm-up with ones passes."""

RATED = Limits(rate_per_s=0.01, burst=2)

ROUTES: Sequence[Route] = (
    Route("digits", "digits", (Arm(1, 100), Arm(2, 0)), pinnable=frozenset({1, 2, 9}), known_good=1),
    Route("pinned", "digits", (Arm(1, 100),), pin="allowed", pinnable=frozenset({1, 2}), quarantined=frozenset({2})),
    Route("words", "words", (Arm(1, 1),), pinnable=frozenset({1})),
    Route("alone", "alone", (Arm(1, 1),), pinnable=frozenset({1})),
    Route("every", "every", (Arm(1, 1),), pinnable=frozenset({1})),
    Route("strange", "strange", (Arm(1, 1), Arm(2, 0)), pin="allowed", pinnable=frozenset({1, 2})),
    Route("fussy", "fussy", (Arm(1, 1),), pinnable=frozenset({1})),
    Route("slow", "slow", (Arm(1, 1),), pinnable=frozenset({1}), limits=Limits(timeout_ms=60_000, slow_ms=50)),
    Route("bytes", "bytes", (Arm(1, 1),), pinnable=frozenset({1})),
    Route("locked", "digits", (Arm(1, 1),), pinnable=frozenset({1}), protected=True),
    Route("falls", "digits", (Arm(9, 1),), fallback=1, pinnable=frozenset({9, 1})),
    Route("kept", "digits", (Arm(1, 1),), pinnable=frozenset({1}), cache=CachePolicy(1 << 20)),
    Route("rated", "digits", (Arm(1, 1),), pinnable=frozenset({1}), limits=RATED),
    Route("rated-locked", "digits", (Arm(1, 1),), pinnable=frozenset({1}), limits=RATED, protected=True),
)
"""Version 9 of ``digits`` is named and never loaded."""

TOKENS = {
    "operator-token": Principal("olga", Role.OPERATOR),
    "locked-token": Principal("lars", Role.PREDICT, frozenset({"locked"})),
    "rated-token": Principal("rita", Role.PREDICT, frozenset({"rated-locked"})),
    "other-token": Principal("otto", Role.PREDICT, frozenset({"digits"})),
}


def verify(token: str) -> Principal:
    if token not in TOKENS:
        raise Unauthenticated("the token is not known")
    return TOKENS[token]


class ListedRepository:
    """Registered versions by name; loading one puts it on the list, a version that a route uses stays on it."""

    def __init__(self) -> None:
        self.states = {("digits", 9): "failed", ("spare", 1): "registered"}
        self.actors: list[str] = []

    async def index(self) -> Sequence[IndexEntry]:
        return [IndexEntry(name, version, state, "") for (name, version), state in self.states.items()]

    async def load(self, reference: str, *, actor: str) -> None:
        self._change(reference, "active", actor)

    async def unload(self, reference: str, *, actor: str) -> None:
        if reference.startswith("digits"):
            raise Conflict(f"{reference} is used by route 'digits'; take it off the route first")
        self._change(reference, "registered", actor)

    def _change(self, reference: str, state: str, actor: str) -> None:
        name, _, version = reference.partition("/")
        key = (name, int(version or 1))
        if key not in self.states:
            raise UnknownModel(f"no model {name!r}")
        self.states[key] = state
        self.actors.append(actor)


@dataclass
class Stage:
    """What a test may look at. ``started`` counts ``request_started`` by route."""

    application: Application
    dataplane: Dataplane
    observer: RecordingObserver
    repository: ListedRepository
    statistics: ModelStatistics
    slow: Script
    started: list[str] = field(default_factory=list)
    large: LargeBodies | None = None

    def last(self) -> RequestRecord:
        return self.observer.requests[-1]


class _Starts(RecordingObserver):
    def __init__(self, started: list[str]) -> None:
        super().__init__()
        self.started = started

    def request_started(self, route: str) -> None:
        self.started.append(route)


@contextlib.asynccontextmanager
async def build_stage(
    limits: WebLimits = LIMITS,
    models: Sequence[str] | None = None,
    *,
    trace_ratio: float = 0.0,
    elsewhere: bool = False,
) -> AsyncIterator[Stage]:
    """Loads the named models (all by default) and the routes onto them; closes every engine at the end. ``elsewhere``:
    large bodies are decoded in another process."""
    clock = SystemClock()
    large = large_bodies(limits, clock, cores=2) if elsewhere else None
    started: list[str] = []
    recording, statistics = _Starts(started), ModelStatistics()
    observer = FanOut(recording, statistics)
    slow = Script(signature=FOUR, model=lambda inputs: {"y": inputs["x"]})

    def engine(spec: VersionSpec, on_exit: Callable[[str], None]) -> Engine:
        if spec.ref.model == "slow":
            slow.engines.append(ScriptedEngine(slow, on_exit, clock=clock, pid=1))
            return slow.engines[-1]
        return InlineEngine(spec)

    fleet = Fleet(engine, clock=clock, observer=observer, probe_interval_s=3600.0)
    dataplane = Dataplane(observer=observer, clock=clock)
    try:
        for ref, (signature, options) in MODELS.items():
            if models is None or ref.model in models:
                await fleet.ensure(_spec(ref, signature, options))
        loaded = {ref.model for ref in fleet.handles}
        table = RoutingTable({route.name: route for route in ROUTES if route.model in loaded}, "digits", 7)
        dataplane.install(Current(table, dict(fleet.handles)))
        repository = ListedRepository()
        services = Services(
            dataplane=dataplane,
            observer=observer,
            clock=clock,
            verify=verify,
            repository=repository,
            statistics=statistics,
            limits=limits,
            trace_ratio=trace_ratio,
            large=large,
        )
        yield Stage(build_application(services), dataplane, recording, repository, statistics, slow, started, large)
    finally:
        if slow.gate is not None:
            slow.gate.set()
        await fleet.close()
        if large is not None:
            await large.close()


def _spec(ref: VersionRef, signature: Signature, options: Mapping[str, Any]) -> VersionSpec:
    load = LoadSpec(format="echo", entry="", files=(), signature=signature, options=options)
    example = {spec.name: _ones(spec) for spec in signature.inputs}
    policy = BatchPolicy(max_rows=8, hang_floor_ms=60_000)  # a gate that is held is no hang
    digest = "sha256:" + hashlib.sha256(str(ref).encode()).hexdigest()
    return VersionSpec(ref, digest, load, placement="inline", batch=policy, example=example)


def _ones(spec: TensorSpec) -> np.ndarray[Any, Any]:
    shape = [1 if isinstance(size, str) else size for size in spec.shape]
    one: Any = b"a" if spec.datatype == "BYTES" else 1
    return np.full(shape, one, DATATYPES[spec.datatype])


class ServedStage:
    """A stage behind a real uvicorn on a free port, in a thread with its own loop. ``protocol``: the gateway's own, or
    uvicorn's, through which everything takes the round through ASGI. ``elsewhere``: the limits of one that decodes
    large bodies in another process. ``loop`` makes the one that it runs on, ``certificate`` is a file with its key: it
    speaks TLS."""

    def __init__(
        self,
        protocol: type[HttpToolsProtocol],
        *,
        limits: WebLimits = LIMITS,
        elsewhere: WebLimits | None = None,
        keep_alive_s: int = 5,
        loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._protocol = protocol
        self._limits = elsewhere or limits
        self._certificate = certificate
        self._keep_alive_s = keep_alive_s
        self._elsewhere = elsewhere
        self.stage: Stage | None = None
        self.socket = socket.create_server(("127.0.0.1", 0))
        self._up = threading.Event()
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, args=[loop])

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def on_loop(self, function: Callable[[], T]) -> T:
        """Calls where the application lives, since its objects belong to its loop."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: answer.set_result(function()))
        return answer.result(60)

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(60), "the server did not come up"

    def begin_stop(self) -> None:
        """No new connections; returns when those that are open have been told."""
        if self._server is not None:
            self._server.should_exit = True
            while self._server.servers and any(one.is_serving() for one in self._server.servers):
                time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(60)
        self.socket.close()

    def _run(self, loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with build_stage(self._limits, elsewhere=self._elsewhere is not None) as self.stage:
            config = uvicorn.Config(
                self.stage.application,
                http=self._protocol,
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_keep_alive=self._keep_alive_s,
                timeout_graceful_shutdown=30,
                ssl_certfile=self._certificate,
            )
            self._server = uvicorn.Server(config)
            self._up.set()
            await self._server.serve([self.socket])


@contextlib.contextmanager
def serve_stage(protocol: type[HttpToolsProtocol] = WireProtocol, **options: Any) -> Iterator[ServedStage]:
    """``options`` as ServedStage has them."""
    served = ServedStage(protocol, **options)
    served.start()
    try:
        yield served
    finally:
        served.stop()
