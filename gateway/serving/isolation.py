"""A batch that failed: run again, and cut, until every item in it is answered, whatever its engine does.

A batch that fails is cut in two, and the halves again, until what is at fault stands alone and
fails alone. A batch under which the child died is run again on the restarted child; if it kills
that one too, it is cut in the same way. Items whose client left, or whose deadline passed, drop
out between runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.errors import (
    DeviceMemoryExhausted,
    InvalidInput,
    ModelError,
    NotBegun,
    TurnoutError,
    VersionCrashed,
    VersionFailed,
    VersionUnavailable,
)
from gateway.messages import Arrays
from gateway.serving.batch import cut, halve, halve_rows, join
from gateway.serving.batch_teller import BatchTeller, Launched
from gateway.serving.engine import BatchResult, VersionSpec
from gateway.serving.item import BATCHES, Answer, Item, Priority
from gateway.serving.supervision import Supervisor
from gateway.serving.tally import Tally

__all__ = ["BatchRunner", "unforeseen"]

SUSPECTS = 3
"""So many requests in a row that kill the child, with no good batch between: the version is at fault, not they."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """Items to run together. ``deaths``: children that died under them; ``by_rows``: one item, its rows cut."""

    items: tuple[Item, ...]
    deaths: int = 0
    isolating: bool = False
    by_rows: bool = False

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.items)


class BatchRunner:
    """Runs failed batches of one version again, through its supervisor, one at a time."""

    def __init__(
        self,
        spec: VersionSpec,
        supervisor: Supervisor,
        teller: BatchTeller,
        *,
        batched: bool,
        limit_s: Callable[[int], float],
        succeeded: Callable[[], None],
        tally: Tally,
        clock: Clock,
    ) -> None:
        """``limit_s``: time a batch of so many rows is given; ``succeeded`` is told of good runs."""
        self._spec = spec
        self._supervisor = supervisor
        self._batched = batched
        self._limit_s = limit_s
        self._succeeded = succeeded
        self._tally = tally
        self._clock = clock
        self._teller = teller
        self._killers = 0

    def succeeded(self) -> None:
        """A batch went through that needed nothing of this: the next killer is the first again."""
        self._killers = 0

    async def settle(self, items: Sequence[Item], failure: TurnoutError) -> None:
        """Returns when every item of a batch that met ``failure`` is answered. Cancelling it ends the engine and leaves
        items unanswered."""
        trials = self._narrow(_Trial(tuple(items)), failure)
        while trials:
            trial = trials.pop()
            live = tuple(item for item in trial.items if not item.left)
            if not live:
                continue
            if self._killers >= SUSPECTS and trial.isolating:
                self._fail(live, VersionCrashed(f"{self._killers} requests in a row killed {self._spec.ref}"))
                continue
            trials.extend(await self._attempt(replace(trial, items=live)))

    async def _attempt(self, trial: _Trial) -> list[_Trial]:
        """Runs one trial; what is left to try, the next one last."""
        try:
            if trial.by_rows:
                await self._run_by_rows(trial)
            else:
                await self._run_joined(trial)
        except TurnoutError as failure:
            return self._narrow(trial, failure)
        except Exception as fault:  # noqa: BLE001 - the batch boundary: whatever went wrong, all items are answered
            self._fail(trial.items, unforeseen(self._spec, fault))
        else:
            self._killers = 0
        return []

    def _narrow(self, trial: _Trial, failure: TurnoutError) -> list[_Trial]:
        """What to try after this failure of the trial, the next one last."""
        if isinstance(failure, NotBegun):
            return [trial]
        if isinstance(failure, ModelError | InvalidInput):
            return self._narrowed(trial, failure)
        if isinstance(failure, DeviceMemoryExhausted):
            return self._smaller(trial, failure)
        if isinstance(failure, VersionCrashed):
            return self._after_death(trial, failure)
        if isinstance(failure, VersionUnavailable):
            failure = self._not_restarted(trial, failure)
        self._fail(trial.items, failure)
        return []

    def _narrowed(self, trial: _Trial, failure: ModelError | InvalidInput) -> list[_Trial]:
        if len(trial.items) == 1:
            self._fail(trial.items, failure)
            return []
        return _halves(trial)

    def _smaller(self, trial: _Trial, failure: DeviceMemoryExhausted) -> list[_Trial]:
        if len(trial.items) > 1:
            return _halves(trial)
        if trial.rows > 1 and self._batched and self._spec.retry and not trial.by_rows:
            return [replace(trial, by_rows=True)]
        self._fail(trial.items, failure)
        return []

    def _after_death(self, trial: _Trial, failure: VersionCrashed) -> list[_Trial]:
        if not self._spec.retry:
            self._fail(trial.items, failure)
            return []
        deaths = trial.deaths + 1
        # Nobody waits for a shadow's copy, and clients wait for the child to come back: one death is enough to know.
        spare = len(trial.items) == 1 and trial.items[0].priority is Priority.SPARE
        if deaths < 2 and not spare:
            return [replace(trial, deaths=deaths)]
        if len(trial.items) > 1:
            return _halves(replace(trial, deaths=1, isolating=True))
        self._killers += 1
        if self._killers < SUSPECTS:
            self._supervisor.forgive()
        self._fail(trial.items, VersionCrashed(f"this request killed {self._spec.ref} again and again: {failure}"))
        return []

    def _not_restarted(self, trial: _Trial, failure: VersionUnavailable) -> VersionFailed:
        if not trial.deaths:
            return failure
        return VersionCrashed(f"{self._spec.ref} died on this batch, and is not back yet: {failure}")

    def _fail(self, items: Sequence[Item], cause: TurnoutError) -> None:
        for item in items:
            self._tally.fail_with_batch(item, cause)

    async def _run_joined(self, trial: _Trial) -> None:
        items = trial.items
        began = self._clock.monotonic()
        batch, result = await self._run([item.inputs for item in items], trial.rows, trial)
        alone = len(items) == 1
        outputs = [result.outputs] if alone else list(cut(result.outputs, [item.rows for item in items]))
        self._answer(items, outputs, began, result.compute_s, batch)

    async def _run_by_rows(self, trial: _Trial) -> None:
        item = trial.items[0]
        began = self._clock.monotonic()
        runs = await self._halved(item.inputs, item.rows, trial)
        outputs = join([result.outputs for _, result in runs])
        self._answer([item], [outputs], began, sum(result.compute_s for _, result in runs), runs[0][0])

    def _answer(
        self, items: Sequence[Item], outputs: Sequence[Arrays], began: float, compute_s: float, batch: int
    ) -> None:
        rows = sum(item.rows for item in items)
        for item, own in zip(items, outputs, strict=True):
            if not item.left:
                item.answer(Answer(own, began - item.enqueued, compute_s, batch, rows))
                self._tally.answer([began - item.enqueued], self._clock.monotonic())

    async def _halved(self, inputs: Arrays, rows: int, trial: _Trial) -> list[tuple[int, BatchResult]]:
        """The rows in two halves, each halved again while the device has no memory for it; in order."""
        results: list[tuple[int, BatchResult]] = []
        for part, count in halve_rows(inputs, rows):
            try:
                results.append(await self._run([part], count, trial))
            except DeviceMemoryExhausted:
                if count == 1:
                    raise
                results.extend(await self._halved(part, count, trial))
        return results

    async def _run(self, parts: Sequence[Arrays], rows: int, trial: _Trial) -> tuple[int, BatchResult]:
        """One run of the engine, told to the observer, and its serial number. Waits are told once an item, however
        often it runs."""
        began = self._clock.monotonic()
        waits = tuple(began - item.enqueued for item in trial.items if not item.attempts)
        for item in trial.items:
            item.attempts += 1
        isolating = trial.isolating or trial.deaths > 0
        batch = Launched(next(BATCHES), rows, len(trial.items), "again")
        try:
            result = await self._supervisor.run(parts, limit_s=self._limit_s(rows), isolating=isolating)
        except VersionUnavailable:  # NotBegun among them: nothing ran
            raise
        except TurnoutError as failure:
            elapsed = self._clock.monotonic() - began
            self._teller.tell(batch, elapsed, waits, took_s=elapsed, failure=type(failure).__name__)
            raise
        elapsed = self._clock.monotonic() - began
        self._tally.ran(rows, elapsed)
        self._succeeded()
        self._teller.tell(batch, result.compute_s, waits, took_s=elapsed)
        return batch.serial, result


def unforeseen(spec: VersionSpec, fault: Exception) -> ModelError:
    """What no engine should raise, as an error that items can be failed with."""
    cause = ModelError(f"{spec.ref}: the batch failed: {type(fault).__name__}: {fault}")
    cause.__cause__ = fault
    return cause


def _halves(trial: _Trial) -> list[_Trial]:
    """Two trials, the first half last, since trials are taken from the end."""
    first, second = halve(trial.items)
    return [replace(trial, items=second), replace(trial, items=first)]
