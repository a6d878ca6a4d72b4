"""The version at work on a batch: one process of its own, tried again when it dies, and blamed row by row."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from gateway.batch.plan import BatchPlan
from gateway.errors import InvalidInput, ModelError, VersionCrashed
from gateway.messages import Array, Arrays
from gateway.registry.answering import Answering
from gateway.registry.inspection import TrialFailed

__all__ = ["BatchEngine"]

_GONE = "no-answer"


class BatchEngine:
    """A context. Answers of a batch have its rows first, also where the version takes one row at a time."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._answering: Answering | None = None

    def __repr__(self) -> str:
        return f"<BatchEngine {self._plan.version}>"

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answering is not None:
            self._answering.__exit__(kind, fault, trace)

    def _start(self) -> Answering:
        plan = self._plan
        made = Answering(plan.load, plan.signature, plan.interpreter, plan.timeout_s, what="this batch")
        self._answering = made.__enter__()
        return self._answering

    def answers(self, inputs: Arrays, first: int) -> dict[str, Array]:
        """``first``: the place of the batch's first row, for messages.

        Raises InvalidInput or ModelError naming the row that the version does not take, VersionCrashed when it dies
        of the batch twice (once, where its effects must not repeat).
        """
        try:
            return self._checked(self._once(inputs), inputs)
        except TrialFailed as failure:
            if failure.kind == _GONE:
                return self._again(inputs, first, failure)
            raise self._blamed(inputs, first, failure) from failure

    def _again(self, inputs: Arrays, first: int, failure: TrialFailed) -> dict[str, Array]:
        rows = _rows(inputs)
        where = f"rows {first + 1} to {first + rows}" if rows > 1 else f"row {first + 1}"
        if not self._plan.retry:
            raise VersionCrashed(f"{where}: {failure}; its effects must not repeat, so it is not tried again")
        self.__exit__(None, None, None)
        self._start()
        try:
            return self._checked(self._once(inputs), inputs)
        except TrialFailed as second:
            if second.kind == _GONE:
                raise VersionCrashed(f"{where}: {second}; it was tried twice") from failure
            raise self._blamed(inputs, first, second) from failure

    def _once(self, inputs: Arrays) -> dict[str, Array]:
        answering = self._answering or self._start()
        if self._plan.signature.batched:
            return answering.once(inputs)
        outputs = answering.once({name: array[0] for name, array in inputs.items()})
        return {name: np.asarray(array)[np.newaxis] for name, array in outputs.items()}

    def _checked(self, outputs: dict[str, Array], inputs: Arrays) -> dict[str, Array]:
        rows = _rows(inputs)
        for spec in self._plan.signature.outputs:
            array = outputs.get(spec.name)
            if array is None or not array.ndim or len(array) != rows:
                shape = "nothing" if array is None else list(array.shape)
                raise ModelError(f"{self._plan.version} gave {shape} as {spec.name!r} for {rows} rows")
        return {spec.name: outputs[spec.name] for spec in self._plan.signature.outputs}

    def _blamed(self, inputs: Arrays, first: int, failure: TrialFailed) -> InvalidInput | ModelError:
        """The first row that fails by itself, found by halves; the whole batch when none does."""
        start, stop, last = 0, _rows(inputs), failure
        while stop - start > 1:
            middle = (start + stop) // 2
            half = self._failure({name: array[start:middle] for name, array in inputs.items()})
            if half is not None:
                stop, last = middle, half
                continue
            half = self._failure({name: array[middle:stop] for name, array in inputs.items()})
            if half is None:
                break
            start, last = middle, half
        where = f"row {first + start + 1}" if stop - start == 1 else f"rows {first + start + 1} to {first + stop}"
        kind = InvalidInput if last.kind == "invalid-input" else ModelError
        return kind(f"{where}: {last}")

    def _failure(self, inputs: Arrays) -> TrialFailed | None:
        try:
            self._once(inputs)
        except TrialFailed as failure:
            if failure.kind == _GONE:
                self.__exit__(None, None, None)
                self._start()
            return failure
        return None


def _rows(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))
