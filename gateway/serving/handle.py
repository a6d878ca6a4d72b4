"""A version at work here: its states, its leases, its queue, and its end.

    registered → loading → warming → active → draining → retired, or failed with the reason

It becomes visible (``active``) only after load, warm-up and one self-inference through the real
queue. It ends when nobody leases it any more and its queue is empty, or at once when abandoned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from gateway.clock import Clock
from gateway.errors import InvalidInput, LoadError, TurnoutError, VersionUnavailable
from gateway.events.observer import Observer
from gateway.messages import Arrays, Signature, VersionRef
from gateway.serving.acceptance import Acceptance
from gateway.serving.batcher import Batcher
from gateway.serving.cost import hang_limit_s
from gateway.serving.counts import CountingPlan
from gateway.serving.devices import Devices
from gateway.serving.engine import Engine, EngineFactory, EngineInfo, VersionSpec
from gateway.serving.instances import Instances
from gateway.serving.item import Answer, Item, Priority
from gateway.serving.leases import Leases
from gateway.serving.readiness import Readiness
from gateway.serving.states import HandleStatistics, VersionState
from gateway.serving.supervision import within
from gateway.serving.version_counting import VersionCounting
from gateway.serving.warmup import Warmth

__all__ = ["Answer", "Handle", "HandleStatistics", "Item", "Priority", "VersionState"]


class Handle:
    """One version from load to end. Used from the event loop only; a handle that ended is never used again."""

    def __init__(
        self,
        spec: VersionSpec,
        factory: EngineFactory,
        *,
        clock: Clock,
        observer: Observer,
        drain_timeout_s: float = 30.0,
        probe_interval_s: float = 5.0,
        warmth: Warmth | None = None,
        devices: Devices | None = None,
    ) -> None:
        """``warmth``: what warming found elsewhere, for an engine that is borrowed warm; ``devices``: those that
        versions here share."""
        self._spec = spec
        self._clock = clock
        self._observer = observer
        self._drain_timeout_s = drain_timeout_s
        self._probe_interval_s = probe_interval_s
        self._devices = devices
        self._weight = 1.0
        self._state = VersionState.REGISTERED
        self._reason = ""
        self._acceptance = Acceptance(spec, clock, warmth)
        self._instances = Instances(
            spec,
            factory,
            clock=clock,
            observer=observer,
            prove=self._acceptance.restarted,
            changed=self._standing_changed,
        )
        self._counting = VersionCounting(spec, self._instances.count, observer)
        self._readiness = Readiness(self.prove, clock=clock, interval_s=probe_interval_s)
        self._batcher: Batcher | None = None
        self._proving = 0
        self._leases = Leases()
        self._abandoned = asyncio.Event()
        self._loading: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        condition = "ready" if self.ready else self.reason or "not ready"
        return f"<Handle {self.ref} [{self._state} | {self._leases.count} leases | {condition}]>"

    @property
    def ref(self) -> VersionRef:
        return self._spec.ref

    @property
    def spec(self) -> VersionSpec:
        return self._spec

    @property
    def state(self) -> VersionState:
        return self._state

    @property
    def reason(self) -> str:
        """Why it failed or is not ready, in words for an operator; empty when all is well."""
        if self._state is VersionState.ACTIVE:
            return self._instances.reason or self._readiness.problem
        return self._reason

    @property
    def signature(self) -> Signature:
        """What the loaded version takes and gives. VersionUnavailable before that is known."""
        signature = self._acceptance.signature
        if signature is None:
            raise VersionUnavailable(f"{self.ref} is {self._state}; its signature is known once it has loaded")
        return signature

    @property
    def info(self) -> EngineInfo | None:
        """What was really loaded: the running engine's, else that of the one before it."""
        return self._instances.info or self._acceptance.info

    @property
    def warmth(self) -> Warmth:
        """What warming found: for whoever borrows the engine."""
        return self._acceptance.warmth

    @property
    def ready(self) -> bool:
        return self._state is VersionState.ACTIVE and not self.reason

    @property
    def device(self) -> str:
        info = self.info
        return "cpu" if info is None else info.device

    @property
    def idle(self) -> bool:
        """Nothing waits for it here, and nothing runs."""
        return self._batcher is None or self._batcher.idle

    @property
    def at_work(self) -> bool:
        """Something waits or runs here that is no proof of its own."""
        found = None if self._batcher is None else self._batcher.statistics()
        return found is not None and found.queued_items + found.running_items > self._proving

    @property
    def urgent_rows(self) -> int:
        """Rows that wait for it here, and that a client waits for."""
        return 0 if self._batcher is None else self._batcher.urgent_rows

    async def start(self) -> None:
        """Loads, warms, proves; then the version is active.

        LoadError or IntegrityError: the state is failed with the reason, and nothing is left behind.
        Cancelling it does the same.
        """
        if self._state is not VersionState.REGISTERED:
            raise LoadError(f"{self.ref} is {self._state}; a handle starts once, make a new one")
        self._loading = asyncio.ensure_future(self._load())
        try:
            await self._loading
        except asyncio.CancelledError:
            if self._retiring is not None:
                raise LoadError(f"{self.ref} was retired while it loaded") from None
            self._enter(VersionState.FAILED, "loading was cancelled")
            raise
        except LoadError as failure:
            self._enter(VersionState.FAILED, str(failure))
            raise
        except BaseException as fault:
            self._enter(VersionState.FAILED, f"loading it went wrong: {type(fault).__name__}: {fault}")
            raise

    def lease(self) -> Leases:
        """A context in which the version is not closed; enter it at once. VersionUnavailable unless active."""
        if self._state is not VersionState.ACTIVE:
            raise VersionUnavailable(f"{self.ref} is {self._state}{': ' if self._reason else ''}{self._reason}")
        return self._leases

    def submit(
        self,
        inputs: Arrays,
        rows: int,
        deadline: float | None,
        *,
        queue_rows: int | None = None,
        priority: Priority = Priority.NORMAL,
        client: str = "",
    ) -> Item:
        """Queues ``rows`` rows that fit the signature; ``await item.future`` gives the Answer. Who stops waiting for
        it calls ``forget``. ``queue_rows`` lowers the queue's bound for this request; ``client`` is who asks: a
        queue in want of room shares it fairly among clients.

        Raises QueueFull, DeadlineUnreachable, DeadlineExceeded and VersionUnavailable at once; the future raises
        InvalidInput, QueueFull (something of higher priority took its place), DeadlineExceeded, or a VersionFailed.
        """
        if self._batcher is None:
            raise VersionUnavailable(f"{self.ref} is {self._state}: {self._reason or 'not yet active'}")
        return self._batcher.submit(inputs, rows, deadline, queue_rows=queue_rows, priority=priority, client=client)

    def forget(self, item: Item) -> None:
        """Nobody waits for the item any more: it leaves the queue. One that runs already is run to its end."""
        if self._batcher is not None:
            self._batcher.forget(item)

    async def infer(
        self,
        inputs: Arrays,
        rows: int,
        deadline: float | None,
        *,
        queue_rows: int | None = None,
        priority: Priority = Priority.NORMAL,
        client: str = "",
    ) -> Answer:
        """``submit`` and the wait for the answer. Cancelling it drops the work."""
        item = self.submit(inputs, rows, deadline, queue_rows=queue_rows, priority=priority, client=client)
        try:
            return await item.future
        except asyncio.CancelledError:
            self.forget(item)
            raise

    async def retire(self, *, abandon: bool = False) -> None:
        """Ends the version: waits for leases and queue, at most for the drain time, then closes.

        ``abandon`` ends it at once, also when it drains already: what waits or runs fails with
        VersionUnavailable. While it loads, the load is cancelled. Cancelling this call does not
        undo it; calling it again waits for the same end.
        """
        if abandon:
            self._abandoned.set()
        if self._retiring is None:
            self._retiring = asyncio.ensure_future(self._retire())
        await asyncio.shield(self._retiring)

    async def kill(self) -> None:
        """``retire(abandon=True)``: for a version that hangs or must not answer again."""
        await self.retire(abandon=True)

    async def engine(self) -> Engine:
        """The engine that runs it now, for whoever shares it. VersionUnavailable when there is none."""
        return await self._instances.engine()

    @property
    def pause_s(self) -> float:
        """Until that engine is started again; nothing while it is up, or its start under way."""
        return self._instances.pause_s

    def forgive(self) -> None:
        """The last death of its engine was one request's fault, as those who share the engine have found."""
        self._instances.forgive()

    def weigh(self, weight: float) -> None:
        """Its share of a device that it has with other versions, beside theirs: by the traffic it is due."""
        self._weight = weight
        if self._batcher is not None:
            self._batcher.weigh(weight)

    def compare(self, others: Sequence[CountingPlan]) -> None:
        """Counts with these profiles besides the version's own from now on: those that it is compared with."""
        self._counting.compare(others)

    def profiled(self, plan: CountingPlan) -> None:
        """Counts with this profile in place of the version's own from now on."""
        self._spec = replace(self._spec, profile=plan)
        self._counting.profiled(plan)

    async def capture(self, rows: int, *, seed: int) -> bytes:
        """The JSON, unchecked, of a profile of rows to come, of one instance. VersionUnavailable."""
        return await (await self._instances.engine()).capture(rows, seed)

    def memory_bytes(self) -> int:
        """What its end would give back. Any thread may ask, and a thread should: the system counts a large process's
        memory for tens of milliseconds."""
        return self._instances.memory_bytes()

    def statistics(self) -> HandleStatistics:
        info = self.info
        return HandleStatistics(
            ref=self.ref,
            digest=self._spec.digest,
            state=self._state,
            reason=self.reason,
            ready=self.ready,
            pid=None if self._instances.info is None else self._instances.info.pid,
            device=None if info is None else info.device,
            loaded={} if info is None else dict(info.loaded),
            leases=self._leases.count,
            deaths=self._instances.deaths,
            restarts=self._instances.restarts,
            max_rows=self.warmth.max_rows,
            costs_s=dict(self.warmth.curve.points),
            batcher=None if self._batcher is None else self._batcher.statistics(),
        )

    def _enter(self, state: VersionState, reason: str = "") -> None:
        if state is self._state:
            return
        self._state = state
        self._reason = reason
        self._observer.version_state(self.ref, state.value, reason)

    def _standing_changed(self) -> None:
        """The engine came or went under an active version: the state stays, its reason changes."""
        if self._state is VersionState.ACTIVE:
            self._observer.version_state(self.ref, self._state.value, self.reason)

    async def _load(self) -> None:
        self._enter(VersionState.LOADING)
        failure: BaseException | None = None
        reason = "it could not be loaded"
        try:
            await within(self._clock, self._spec.load_timeout_s, self._come_up())
        except LoadError as fault:
            failure = fault
        except TimeoutError as late:
            reason = "it could not be loaded in time"
            failure = LoadError(
                f"{self.ref} was not loaded and warm within {self._spec.load_timeout_s:g} s; allow it more time"
                " (load_timeout_s), or fewer rows a batch (max_rows)"
            )
            failure.__cause__ = late
        except (TurnoutError, OSError) as fault:
            failure = LoadError(f"{self.ref} could not be loaded: {type(fault).__name__}: {fault}")
            failure.__cause__ = fault
        except BaseException as fault:  # noqa: BLE001 - raised below, once all is given back
            reason, failure = "loading was cancelled", fault
        if failure is not None:  # out here: see docs/architecture.md, "The short way"
            try:
                await self._give_back(reason)
                raise failure
            finally:
                failure = None  # it knows this frame

    async def _come_up(self) -> None:
        await self._instances.start(self._warm, self._acceptance.further)
        self._batcher = Batcher(
            self._spec,
            self._instances.supervisors,
            signature=self.signature,
            max_rows=self.warmth.max_rows,
            curve=self.warmth.curve,
            clock=self._clock,
            observer=self._observer,
            succeeded=self._readiness.succeeded,
            devices=self._devices,
        )
        self._batcher.weigh(self._weight)
        self._counting.begin(self._acceptance.probe)
        with suppress(InvalidInput):  # the model's own refusal is an answer; warm-up has judged an example
            await self.prove()
        self._enter(VersionState.ACTIVE)
        self._readiness.start()

    async def _warm(self, engine: Engine, info: EngineInfo) -> None:
        self._enter(VersionState.WARMING)
        await self._acceptance.first(engine, info)

    async def prove(self) -> None:
        """One self-inference through the queue, within the probe interval, or longer if full batches take longer."""
        probe = self._acceptance.probe
        if self._batcher is None or probe is None:
            raise VersionUnavailable(f"{self.ref} is not warm")
        patience_s = hang_limit_s(0, self.warmth.curve.predict(self.warmth.max_rows))
        deadline = self._clock.monotonic() + max(self._probe_interval_s, patience_s)
        self._proving += 1
        try:
            await self._batcher.infer(probe, 1, deadline)
        finally:
            self._proving -= 1

    async def _retire(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait({self._loading})
        if self._state is VersionState.ACTIVE:
            self._enter(VersionState.DRAINING)
            await self._readiness.stop()
            await self._drained()
        await self._give_back("it was rolled back or unloaded" if self._abandoned.is_set() else "it was retired")
        self._enter(VersionState.RETIRED)
        self._observer.version_retired(self.ref)

    async def _drained(self) -> None:
        """Nobody leases it and nothing waits or runs; or it was abandoned; or the drain time is over."""
        quiet = asyncio.ensure_future(self._quiet())
        over = asyncio.ensure_future(self._abandoned.wait())
        timer = self._clock.call_at(self._clock.monotonic() + self._drain_timeout_s, self._abandoned.set)
        await asyncio.wait({quiet, over}, return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        for waiter in (quiet, over):
            waiter.cancel()
        await asyncio.wait({quiet, over})

    async def _quiet(self) -> None:
        await self._leases.ended()
        if self._batcher is not None:
            await self._batcher.drained()

    async def _give_back(self, reason: str) -> None:
        """Ends queue and engine; returns when every byte is back."""
        await self._readiness.stop()
        if self._batcher is not None:
            await self._batcher.close(reason)
        await self._instances.close()
