"""OpenFeature providers for tests, named by configuration as anybody's would be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from gateway.clock import ManualClock


def said(value: Any, *, by: Callable[[EvaluationContext], Any] | None = None) -> InMemoryFlag[Any]:
    """A flag with one variant, or one that is worked out from the context."""
    if by is None:
        return InMemoryFlag("only", {"only": value})
    return InMemoryFlag("only", {"only": value}, context_evaluator=lambda _, c: FlagResolutionDetails(by(c)))


class Taking(InMemoryProvider):
    """Each evaluation takes ``seconds``, by the clock that the test moves; ``before`` it something else happens."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, flags: dict[str, InMemoryFlag[Any]], clock: ManualClock, seconds: float = 0.0) -> None:
        super().__init__(flags)
        self.seconds = seconds
        self._clock = clock

    def _resolve(self, flag_key: str, default_value: Any, evaluation_context: Any) -> Any:
        self.before()
        self._clock.advance(self.seconds)
        return super()._resolve(flag_key, default_value, evaluation_context)


class Raising(InMemoryProvider):
    """Knows nothing but how to fail."""

    def __init__(self) -> None:
        super().__init__({})

    def _resolve(self, flag_key: str, default_value: Any, evaluation_context: Any) -> Any:
        raise ZeroDivisionError("no flag today")


class Stuck(InMemoryProvider):
    """Each evaluation of a flag it has waits for what never comes; ``deaf``: and takes whatever ends that for noise."""

    def __init__(self, flags: dict[str, InMemoryFlag[Any]], *, deaf: int = 0) -> None:
        super().__init__(flags)
        self._deaf = deaf

    def _resolve(self, flag_key: str, default_value: Any, evaluation_context: Any) -> Any:
        while flag_key in self._flags:
            try:
                threading.Event().wait()
            except BaseException:
                self._deaf -= 1
                if self._deaf < 0:
                    raise
        return super()._resolve(flag_key, default_value, evaluation_context)


class Waiting(InMemoryProvider):
    """Is ready when the test says so."""

    def __init__(self, flags: dict[str, InMemoryFlag[Any]], ready: threading.Event) -> None:
        super().__init__(flags)
        self._ready = ready

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        self._ready.wait(100)


class Hanging(InMemoryProvider):
    """Its data is looked after from outside, and a look takes until the test lets it go."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__({})
        self._released = released

    def tend(self) -> str | None:
        self._released.wait(100)
        return None
