"""Warming a version before anybody sees it: a grid of batch sizes, run twice each, the second run timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.clock import Clock
from gateway.errors import (
    DeviceMemoryExhausted,
    InvalidInput,
    LoadError,
    ModelError,
    VersionCrashed,
    VersionHung,
)
from gateway.messages import Arrays, Signature
from gateway.serving.cost import CostCurve
from gateway.serving.engine import Engine, VersionSpec
from runtimes.example import synthetic_inputs

__all__ = ["Rehearsal", "Warmth", "grid"]


@dataclass(frozen=True, slots=True)
class Warmth:
    """What warming found: the cost curve, the most rows that the device took at once, and the seconds of the
    very first run, which pays for what is set up lazily."""

    curve: CostCurve
    max_rows: int
    cold_s: float = 0.0


def grid(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4 … and ``max_rows`` itself."""
    sizes = []
    size = 1
    while size < max_rows:
        sizes.append(size)
        size *= 2
    return (*sizes, max_rows)


class Rehearsal:
    """Inputs that prove a version works: its example where it has one, else made from the signature.

    Made-up input may be refused by the model's own checks (InvalidInput): that too is an answer,
    so it proves the version alive, but costs nothing that could be measured.
    """

    def __init__(self, spec: VersionSpec, signature: Signature) -> None:
        self._spec = spec
        self._signature = signature

    def inputs(self, rows: int) -> Arrays:
        """One request's inputs with ``rows`` rows (one, whatever was asked, when the version is not batched)."""
        example = self._spec.example
        if example is None:
            return synthetic_inputs(self._signature, rows if self._signature.batched else 1)
        if not self._signature.batched:
            return example
        return {name: np.repeat(array[:1], rows, axis=0) for name, array in example.items()}

    @property
    def sizes(self) -> tuple[int, ...]:
        return grid(self._spec.batch.max_rows) if self._signature.batched else (1,)

    async def check(self, engine: Engine, *, limit_s: float) -> None:
        """One row, once: enough to trust a restarted engine. LoadError when it does not answer in time."""
        await self._run(engine, self.inputs(1), 1, limit_s)

    async def warm(self, engine: Engine, clock: Clock) -> Warmth:
        """The whole grid. Stops early at a size the device has no memory for. LoadError when a run fails."""
        limit_s = self._spec.load_timeout_s  # load and warm-up have one time limit, which the caller holds
        points: list[tuple[int, float]] = []
        most, cold_s = 0, 0.0
        for rows in self.sizes:
            inputs = self.inputs(rows)
            began = clock.monotonic()
            try:
                await self._run(engine, inputs, rows, limit_s)
                first_done = clock.monotonic()
                measured = await self._run(engine, inputs, rows, limit_s)
            except DeviceMemoryExhausted as failure:
                if not most:
                    raise LoadError(f"{self._spec.ref}: one row does not fit the device: {failure}") from failure
                return Warmth(CostCurve(tuple(points)), most, cold_s)
            most, cold_s = rows, cold_s or first_done - began
            if measured:
                points.append((rows, clock.monotonic() - first_done))
        return Warmth(CostCurve(tuple(points)), self._spec.batch.max_rows, cold_s)

    async def _run(self, engine: Engine, inputs: Arrays, rows: int, limit_s: float) -> bool:
        """Whether the model answered; False when it refused made-up input."""
        try:
            await engine.run([inputs], limit_s=limit_s)
        except InvalidInput as failure:
            if self._spec.example is None:
                return False
            raise LoadError(self._failed(rows, failure)) from failure
        except (ModelError, VersionCrashed, VersionHung) as failure:
            raise LoadError(self._failed(rows, failure)) from failure
        return True

    def _failed(self, rows: int, failure: Exception) -> str:
        text = f"{self._spec.ref} failed its warm-up at {rows} row{'' if rows == 1 else 's'}: {failure}"
        if self._spec.example is None:
            inputs = _described(self.inputs(1))
            text += f" (input was made up from the signature: {inputs}; if the model cannot take such values, "
            text += "register the version with an example input)"
        return text


def _described(inputs: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
