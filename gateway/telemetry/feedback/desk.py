"""The gateway's end of the truth: labels go to the recorder's part many at a time, what they show comes back.

Labels of callers that wait together cross as one question, so that they share one write to the disk. What is owed to
the rollouts' evidence is fetched twice a second and acknowledged only with the next look, so a gateway that dies in
between is told again: the evidence counts a key once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from gateway.clock import Clock
from gateway.errors import Overloaded, StoreUnavailable, TurnoutError
from gateway.messages import VersionRef
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_OUTCOMES, ASK_REPORT, ASK_SCORES, ASK_SHARE

__all__ = ["LOOK_S", "Ask", "JoinedLabel", "TruthDesk", "Verdict"]

log = logging.getLogger("turnout.truth")

LOOK_S = 0.5
SCOPE = "labels"
SCORES_EVERY_LOOKS = 4
AT_ONCE = 1000
MAX_WAITING = 20_000

Verdict = tuple[str, str, str]
"""Outcome, and of a label that does not fit, what was expected and what came."""


class Ask(Protocol):
    """The recorder's."""

    def __call__(self, kind: str, body: Mapping[str, Any], /) -> Awaitable[Mapping[str, Any]]: ...


class SharedLog(Protocol):
    """What all replicas write and read (``gateway.control.coordination``)."""

    async def append(self, scope: str, values: Sequence[bytes], /) -> None: ...

    async def following(self, scope: str, after: str, /) -> tuple[str, Sequence[bytes]]: ...


class JoinedLabel(NamedTuple):
    """A label that has joined an answer which the split of the epoch had its version give to a key. ``wrong`` None:
    nothing says so. ``score``: of what, and how much (``gateway.routing.truth.Truth.scored``). ``age_s``: how long
    ago the answer was given; None: it joined under a release that did not keep that."""

    route: str
    version: VersionRef
    bucket: int
    epoch: int
    split: str
    wrong: bool | None
    score: tuple[str, float] | None = None
    age_s: float | None = None


class _Waiting(NamedTuple):
    labels: Sequence[tuple[str, Any]]
    routes: tuple[str, ...] | None
    sender: str
    verdicts: asyncio.Future[list[Verdict]]


class TruthDesk:
    """``wanted``: whether any route in force has a truth; without one nobody is asked. ``joined`` is told of evidence.

    ``scores`` is the latest that the recorder said for the metrics.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        wanted: Callable[[], bool],
        joined: Callable[[JoinedLabel], None],
        clock: Clock,
        shared: SharedLog | None = None,
    ) -> None:
        self._ask = ask
        self._wanted = wanted
        self._joined = joined
        self._clock = clock
        self._shared = shared
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._sending: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._delivered = 0
        self._looks = 0
        self._going_on = False
        self._reporting = asyncio.Lock()
        self.scores: Mapping[str, Any] = {"changes": -1}

    def __repr__(self) -> str:
        return f"<TruthDesk [{self._queued} labels waiting]>"

    def start(self) -> None:
        self._looking = asyncio.ensure_future(self._look_on())

    async def close(self) -> None:
        for task in (self._looking, self._sending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._fail(StoreUnavailable("the gateway is shutting down; send the labels again"))

    # Labels

    async def join(
        self, labels: Sequence[tuple[str, Any]], routes: frozenset[str] | None, sender: str = ""
    ) -> Sequence[Verdict]:
        """What became of each, durable. ``routes``: those that the sender may label (None: all). Raises Overloaded,
        Conflict (no route wants labels), StoreUnavailable, StorageFull: then send them again, which changes nothing of
        those that were kept. Cancelling it does not take the labels back."""
        if self._queued + len(labels) > MAX_WAITING:
            raise Overloaded(f"{self._queued} labels wait to be kept; send more in a moment")
        bound = None if routes is None else tuple(sorted(routes))
        waiting = _Waiting(labels, bound, sender, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._queued += len(labels)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())
        return await waiting.verdicts

    async def _send(self) -> None:
        while self._queue:
            group = self._next_group()
            labels = [[*label, waiting.sender] for waiting in group for label in waiting.labels]
            try:
                answer = await self._ask(ASK_JOIN, {"labels": labels, "routes": group[0].routes})
                verdicts = iter([(str(one[0]), str(one[1]), str(one[2])) for one in answer["verdicts"]])
                for waiting in group:
                    mine = [next(verdicts) for _ in waiting.labels]
                    if not waiting.verdicts.done():
                        waiting.verdicts.set_result(mine)
            except TurnoutError as error:
                for waiting in group:
                    if not waiting.verdicts.done():
                        waiting.verdicts.set_exception(_own(error))

    def _next_group(self) -> list[_Waiting]:
        """Of one reach, as many as go at once; a caller's labels stay together."""
        group: list[_Waiting] = []
        count = 0
        while self._queue and (not group or self._fits(group, count)):
            group.append(self._queue.popleft())
            count += len(group[-1].labels)
        self._queued -= count
        return group

    def _fits(self, group: Sequence[_Waiting], count: int) -> bool:
        following = self._queue[0]
        return following.routes == group[0].routes and count + len(following.labels) <= AT_ONCE

    def _fail(self, error: TurnoutError) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            self._queued -= len(waiting.labels)
            if not waiting.verdicts.done():
                waiting.verdicts.set_exception(_own(error))

    # What they show

    async def report(self, route: str, days: int) -> Mapping[str, Any]:
        """See ``GET /admin/truth/{route}``. Raises NotFound, StoreUnavailable. One at a time, a slice after the other,
        so that labels, answers and records find the recorder free between."""
        async with self._reporting:
            asked: dict[str, Any] = {"route": route, "days": days, "look": None}
            while "look" in (said := await self._ask(ASK_REPORT, asked)):
                asked["look"] = said["look"]
            return said

    async def _look_on(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            if self._wanted():
                (failure,) = await asyncio.gather(self.look(), return_exceptions=True)
                if isinstance(failure, Exception) and not isinstance(failure, TurnoutError):
                    log.error("what labels show could not be fetched", exc_info=failure)

    async def _share(self, shared: SharedLog) -> None:
        """Labels of answers that another replica gave find their way: what is held here is told to all, and who knows
        the answer joins it and says so. Told before it is known as told: whoever hears it twice changes nothing."""
        said = await self._ask(ASK_SHARE, {"place": None, "told": [[], []]})
        place, values = await shared.following(SCOPE, said["place"])
        if place != said["place"]:
            labels, settled = _read(values)
            heard = {"labels": labels, "settled": settled, "place": place, "told": [[], []]}
            said = await self._ask(ASK_SHARE, heard)
        keys, settled = [label[0] for label in said["labels"]], said["settled"]
        if keys or settled:
            told = [_entry("label", key.hex(), *rest) for key, *rest in said["labels"]]
            await shared.append(SCOPE, [*told, *(_entry("settled", key.hex()) for key in settled)])
            await self._ask(ASK_SHARE, {"place": None, "told": [keys, settled]})

    async def look(self) -> None:
        """Tells the evidence what is owed to it, and now and then fetches what the metrics show."""
        while True:
            owed = (await self._ask(ASK_OUTCOMES, {"delivered": self._delivered}))["outcomes"]
            self._delivered = 0
            for number, route, model, version, bucket, epoch, split, wrong, score, age_ms in owed:
                scored = None if score is None else (score[0], score[1])
                age_s = None if age_ms is None else age_ms / 1000
                ref = VersionRef(model, version)
                self._joined(JoinedLabel(route, ref, bucket, epoch, split, wrong, scored, age_s))
                self._delivered = number
            if not owed:
                break
        if self._shared is not None:
            await self._share(self._shared)
        self._looks += 1
        if self._going_on or self._looks % SCORES_EVERY_LOOKS == 1:
            found = await self._ask(ASK_SCORES, {"seen": self.scores["changes"]})
            self._going_on = "going_on" in found
            if "scores" in found:
                self.scores = found


def _entry(kind: str, *said: Any) -> bytes:
    return orjson.dumps([kind, *said])


def _read(values: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
    """Labels and settled ids; what cannot be read is of another release, and left out."""
    labels: list[Any] = []
    settled: list[bytes] = []
    for value in values:
        try:
            kind, key, *rest = orjson.loads(value)
            if kind == "label":
                label, routes, sender = [*rest, ""][:3]
                labels.append([bytes.fromhex(key), label, routes, str(sender)])
            elif kind == "settled":
                settled.append(bytes.fromhex(key))
        except (ValueError, TypeError):
            log.warning("what a replica said of a label cannot be read: %.200r", value)
    return labels, settled


def _own(error: TurnoutError) -> TurnoutError:
    """One exception for each who waits: one that is raised in several tasks gathers all their tracebacks."""
    if isinstance(error, Overloaded):
        return type(error)(str(error), retry_after_s=error.retry_after_s)
    return type(error)(str(error))
