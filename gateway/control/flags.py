"""The bridge to an OpenFeature provider: made by configuration, ready before requests come, asked in process.

Requests call the provider's synchronous methods straight away. What may take its time goes to a thread
of its own: making and initialising it, a first measurement of how fast it answers (so that one that asks a
server is found out before any request waits for it), and looking after its data. An evaluation that
does not end is ended (``gateway.control.flag_interrupt``), and the provider taken out.

Age of the data: a provider with a method ``tend() -> str | None`` (why its data could not be refreshed,
None if it is current) is asked by it every poll, and the age counts from the last good answer. Of others
its events tell: the data is current (age 0) from READY or CONFIGURATION_CHANGED on, and ages from STALE
or ERROR on. Hooks are not run: those of OpenFeature may wait.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ErrorCode, OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import FeatureProvider

from gateway.clock import Clock
from gateway.control.flag_budget import EvaluationBudget
from gateway.control.flag_interrupt import Interrupted, Interrupter
from gateway.control.flag_provider import provider_maker
from gateway.control.run_queue import RunQueue
from gateway.events.records import FlagSource
from gateway.routing.rules import fits
from gateway.settings import FlagSettings

__all__ = ["Evaluation", "Flags", "Tended"]

log = logging.getLogger("turnout.control")

T = TypeVar("T")

_PROBES = 5
_PROBE_FLAG = "turnout-probe"
_LATE_POLLS = 5
_LONGEST_RETRY_S = 900.0
_MOST_KINDS = 4096
_MOST_SAID = 1000
_NOTHING: tuple[int, str, bool] = (0, "", False)
"""The defaults that are handed in: what comes back unchanged and without a variant says nothing."""


@runtime_checkable
class Tended(Protocol):
    """A provider whose data is refreshed from here: why it could not be, None when it is current."""

    def tend(self) -> str | None: ...


class Evaluation(NamedTuple):
    """``value`` None: the flag says nothing here, or (``fault``) it could not be asked."""

    value: int | str | bool | None = None
    variant: str | None = None
    fault: str | None = None


class _Heard(NamedTuple):
    """``since``: when the data was current last; None: it is."""

    state: str
    since: float | None
    reason: str = ""


class Flags:
    """One provider of one process. ``tell`` hears of its standing every poll. ``source`` names the process. ``waited``:
    seconds that the loop's thread has waited for a processor so far; None: as the kernel counts them."""

    def __init__(
        self,
        settings: FlagSettings,
        *,
        clock: Clock,
        source: str = "here",
        tell: Callable[[FlagSource], None] = lambda _: None,
        waited: Callable[[], float] | None = None,
    ) -> None:
        self._make = provider_maker(settings)
        self._settings = settings
        self._clock = clock
        self._source = source
        self._tell = tell
        self.name = settings.provider or "none"
        self._provider: FeatureProvider | None = None
        self._ready = False
        self._fenced: str | None = None
        self._opened_at = self._fenced_at = self._asked_again_at = 0.0
        # Written by the provider's own threads, too: one assignment each.
        self._heard = _Heard("starting" if self._make else "absent", None)
        self._fresh_at: float | None = None
        self._budget = EvaluationBudget(settings.budget_ms / 1000)
        self._interrupter = Interrupter(min(20 * settings.budget_ms / 1000, settings.budget_ms / 1000 + 1.0))
        self._run_queue: RunQueue | None = None
        self._waited = waited
        # What the loop's thread had waited for a processor at the last look.
        self._waited_before = 0.0
        self._retry_s = settings.retry_s
        self._kinds: dict[str, int] = {}
        self._said: set[tuple[str, type[Exception]]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._tending: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Flags {self.name} [{self.standing().state}]>"

    async def start(self) -> None:
        """Returns when the provider is ready, or after ``ready_s``: then it goes on trying, and counts as stale."""
        if self._make is None:
            self._tell(self.standing())
            return
        self._run_queue = RunQueue(threading.get_native_id())
        self._waited_before = self._waited_s()
        self._interrupter.start()
        opening = asyncio.ensure_future(self._open())
        await asyncio.wait({opening}, timeout=self._settings.ready_s)
        if not self._ready:
            why = self._heard.reason or f"not ready after {self._settings.ready_s:g} s"
            log.error("flags of %s: %s; until it is ready, the known good answers for its rules", self.name, why)
        self._tending = asyncio.ensure_future(self._tend_on(opening))
        self._report()

    async def close(self) -> None:
        self._interrupter.close()
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        if self._provider is not None:
            provider, self._provider, self._ready = self._provider, None, False
            provider.detach()
            await asyncio.wait({_aside(provider.shutdown)}, timeout=1.0)
        if self._run_queue is not None:
            self._run_queue.close()

    def standing(self) -> FlagSource:
        age, (state, _, reason) = self.age_s(), self._heard
        late_s = _LATE_POLLS * self._settings.poll_ms / 1000
        if self._fenced is not None:
            state, reason = "fenced", self._fenced
        elif state == "ready" and age is not None and age > max(1.0, late_s):
            state, reason = "stale", "its data has not been looked after"
        return FlagSource(self._source, self.name, state, age, reason)

    def age_s(self) -> float | None:
        """Of the data that a flag would be evaluated with now; None when there is none, or none that is asked."""
        if not self._ready or self._fenced is not None:
            return None
        since = self._fresh_at if self._fresh_at is not None else self._heard.since
        return 0.0 if since is None else max(0.0, self._clock.monotonic() - since)

    def evaluate(self, flag: str, key: str, context: Mapping[str, Any]) -> Evaluation:
        """Never raises, and waits for nobody for long: one that does not end is ended, and one that keeps taking too
        long is not asked any more."""
        provider = self._provider
        if provider is None or self.age_s() is None:
            return Evaluation(fault="not-ready")
        if not fits(context):
            return Evaluation(fault="context")
        interrupter, closely = self._interrupter, self._budget.closely
        before = self._waited_s() if closely else self._waited_before
        began = self._clock.monotonic()
        try:
            interrupter.began()
            said = self._resolve(provider, flag, EvaluationContext(key, context))
            interrupter.ended()
        except Interrupted:
            interrupter.ended()
            self._fence(f"an evaluation of {flag!r} did not end, and was ended")
            return Evaluation(fault="not-ready")
        took = self._clock.monotonic() - began
        waited_s = self._waited_s() - before if took > self._budget.budget_s else 0.0
        if self._budget.took(took, waited_s=waited_s, at_most=not closely):
            self._fence(f"an evaluation took {took * 1000:.1f} ms, of {self._settings.budget_ms:g} ms allowed")
        return said

    # Asking

    def _waited_s(self) -> float:
        if self._waited is not None:
            return self._waited()
        return 0.0 if self._run_queue is None else self._run_queue.waited_s()

    def _resolve(self, provider: FeatureProvider, flag: str, context: EvaluationContext) -> Evaluation:
        """OpenFeature asks by type, and a flag's type is not known here: the kind that fitted last comes first."""
        fitted = self._kinds.get(flag, 0)
        for kind in (fitted, *(other for other in range(len(_NOTHING)) if other != fitted)):
            try:
                details = _ask(provider, kind, flag, context)
                details.raise_for_error()
            except OpenFeatureError as error:
                if error.error_code is ErrorCode.TYPE_MISMATCH:
                    continue
                missing = error.error_code is ErrorCode.FLAG_NOT_FOUND
                return Evaluation(fault="not-found" if missing else self._failed(flag, error))
            except Exception as error:  # noqa: BLE001 - the provider is foreign code; its fault is no request's
                return Evaluation(fault=self._failed(flag, error))
            if fitted != kind:
                self._remember(flag, kind)
            return _evaluation(details, _NOTHING[kind])
        return Evaluation(fault="type")

    def _remember(self, flag: str, kind: int) -> None:
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[flag] = kind

    def _failed(self, flag: str, error: Exception) -> str:
        """Told once for each flag and kind of error: a client's context can bring it about with every request."""
        told = (flag, type(error))
        if told not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(told)
            why = f"{type(error).__name__}: {getattr(error, 'error_message', None) or error}"
            log.error("flags of %s: %r cannot be evaluated, its rules do not match: %.300s", self.name, flag, why)
        return "error"

    def _fence(self, why: str) -> None:
        if self._fenced is None:
            log.error("flags of %s are taken out, the known good answers for their rules: %s", self.name, why)
        self._fenced, self._fenced_at = why, self._clock.monotonic()
        if self._fenced_at - self._asked_again_at > _LONGEST_RETRY_S:
            self._retry_s = self._settings.retry_s
        self._report()

    # Looking after it

    async def _open(self) -> None:
        self._opened_at = self._clock.monotonic()
        made, failure = await _aside(self._opened)
        if failure is not None:
            self._heard = _Heard("error", None, f"{type(failure).__name__}: {failure}"[:300])
            return
        self._fresh_at, took = made
        self._become_ready()
        if took > self._settings.budget_ms / 1000:
            self._fence(f"a first evaluation took {took * 1000:.1f} ms, of {self._settings.budget_ms:g} ms allowed")

    def _opened(self) -> tuple[float | None, float]:
        """In a thread: makes and initialises it; since when its data is current, and how long an answer takes."""
        if self._make is None:
            raise RuntimeError("no flag provider is configured")
        if self._provider is not None:  # an earlier try that failed
            with suppress(Exception):
                self._provider.shutdown()
        self._provider = provider = self._make()
        self.name = provider.get_metadata().name
        began = self._clock.monotonic()
        provider.attach(self._emitted)
        provider.initialize(EvaluationContext())
        return (None if _tended(provider) is None else began), self._probe(provider)

    def _probe(self, provider: FeatureProvider) -> float:
        took = []
        for _ in range(_PROBES):
            began = self._clock.monotonic()
            with suppress(Exception):
                _ask(provider, 1, _PROBE_FLAG, EvaluationContext("turnout", {}))
            took.append(self._clock.monotonic() - began)
        return statistics.median(took)

    def _become_ready(self) -> None:
        self._ready = True
        if self._heard.state in ("starting", "error"):
            self._heard = _Heard("ready", None)
        log.info("flags of %s are ready", self.name)

    def _emitted(self, provider: FeatureProvider, event: ProviderEvent, details: ProviderEventDetails) -> None:
        """On whatever thread the provider likes."""
        if event in (ProviderEvent.PROVIDER_READY, ProviderEvent.PROVIDER_CONFIGURATION_CHANGED):
            self._heard = _Heard("ready", None)
            if event is ProviderEvent.PROVIDER_CONFIGURATION_CHANGED:  # perhaps a repair of what it was taken out for
                self._retry_s, self._fenced_at = self._settings.retry_s, -self._settings.retry_s
            return
        since = self._clock.monotonic() if self._heard.since is None else self._heard.since
        state = "stale" if event is ProviderEvent.PROVIDER_STALE else "error"
        self._heard = _Heard(state, since, details.message or f"the provider says {event.value}")

    async def _tend_on(self, opening: asyncio.Future[None]) -> None:
        while True:
            await self._clock.sleep(self._settings.poll_ms / 1000)
            if opening.done():
                await self.tend()
            else:
                self._report()

    async def tend(self) -> None:
        """One look: refreshes what is refreshed from here, tries again what did not begin or was taken out."""
        self._waited_before = self._waited_s()
        async with self._one_at_a_time:
            await self._tend()
        self._report()

    async def _tend(self) -> None:
        provider, now = self._provider, self._clock.monotonic()
        tended = _tended(provider)
        if tended is not None:
            why, failure = await _aside(tended.tend)
            self._note_tended(now, str(failure) if failure is not None else why)
        elif not self._ready and now - self._opened_at >= self._settings.retry_s:
            await self._open()
        if self._fenced is not None and provider is not None and now - self._fenced_at >= self._retry_s:
            await self._try_again(provider)

    def _note_tended(self, at: float, why: str | None) -> None:
        if why is None:
            self._fresh_at = at
            if not self._ready:
                self._become_ready()
            self._heard = _Heard("ready", None)
        else:
            self._heard = _Heard("stale" if self._ready else "error", None, why)

    async def _try_again(self, provider: FeatureProvider) -> None:
        self._fenced_at = self._clock.monotonic()
        took, failure = await _aside(lambda: self._probe(provider))
        if failure is None and took is not None and took <= self._settings.budget_ms / 1000:
            self._budget = EvaluationBudget(self._settings.budget_ms / 1000)
            self._fenced, self._asked_again_at = None, self._clock.monotonic()
            self._retry_s = min(_LONGEST_RETRY_S, self._retry_s * 2)  # a request pays for each try that fails
            log.info("flags of %s are asked again: an evaluation takes %.1f ms", self.name, took * 1000)

    def _report(self) -> None:
        self._tell(self.standing())


def _tended(provider: object) -> Tended | None:
    return provider if isinstance(provider, Tended) else None


def _ask(
    provider: FeatureProvider, kind: int, flag: str, context: EvaluationContext
) -> FlagResolutionDetails[int] | FlagResolutionDetails[str] | FlagResolutionDetails[bool]:
    if kind == 0:
        return provider.resolve_integer_details(flag, 0, context)
    if kind == 1:
        return provider.resolve_string_details(flag, "", context)
    return provider.resolve_boolean_details(flag, False, context)


def _evaluation(details: FlagResolutionDetails[Any], nothing: int | str | bool) -> Evaluation:
    unsaid = details.variant is None and (
        details.reason in (Reason.DEFAULT, Reason.DISABLED) or details.value == nothing
    )
    return Evaluation(None if unsaid else details.value, details.variant)


def _aside(work: Callable[[], T]) -> asyncio.Future[tuple[Any, BaseException | None]]:
    """The work's result and its failure, done by a thread that nobody waits for at the end: foreign code may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, failure))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - translated at the border, once: foreign code raises anything
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="turnout-flags", daemon=True).start()
    return done
