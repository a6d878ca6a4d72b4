"""A look that takes long, done a slice at a time by who asks for it again and again: it holds up nobody else."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from gateway.clock import Clock

__all__ = ["SLICE_S", "Look", "Steps"]

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work in steps of a few milliseconds, and what it comes to."""

SLICE_S = 0.025


class Look(Generic[T]):
    """``found`` is there once ``went_on`` has said so."""

    def __init__(self, steps: Steps[T], clock: Clock) -> None:
        self._steps = steps
        self._clock = clock
        self.found: T

    def went_on(self, for_s: float = SLICE_S) -> bool:
        """One step at least; whether it is done. What a step raises ends the look."""
        until = self._clock.monotonic() + for_s
        try:
            next(self._steps)
            while self._clock.monotonic() < until:
                next(self._steps)
        except StopIteration as end:
            self.found = end.value
            return True
        return False
