"""How the providers of flags stand, over the processes of this gateway: for ``/readyz`` and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.events.records import FlagSource

__all__ = ["FlagWatch"]

FORGET_S = 30.0
"""A web worker tells every poll; one that has been silent for this long is gone."""


class FlagWatch(Observer):
    """``own`` is asked whenever somebody looks; what web workers told last is kept. ``used``: whether a route in force
    names a flag."""

    def __init__(self, own: Callable[[], FlagSource], *, used: Callable[[], bool], clock: Clock) -> None:
        self._own = own
        self._used = used
        self._clock = clock
        self._told: dict[str, tuple[float, FlagSource]] = {}

    def __repr__(self) -> str:
        return f"<FlagWatch [{len(self._told)} workers]>"

    def flag_source(self, record: FlagSource) -> None:
        self._told[record.source] = self._clock.monotonic(), record

    def sources(self) -> Sequence[FlagSource]:
        """This process first, then the web workers."""
        since = self._clock.monotonic() - FORGET_S
        for source in [source for source, (at, _) in list(self._told.items()) if at < since]:
            self._told.pop(source, None)
        return [self._own(), *(record for _, record in list(self._told.values()))]

    def degraded(self) -> Sequence[str]:
        """A sentence for each process whose flags are not as they should be; none while no route names a flag."""
        if not self._used():
            return ()
        return [_sentence(source) for source in self.sources() if source.state != "ready"]


def _sentence(source: FlagSource) -> str:
    age = "no data to go by" if source.age_s is None else f"data {source.age_s:.1f} s old"
    if source.state == "absent":
        return "a route names a flag, and no provider of flags is configured (flags.provider)"
    why = f": {source.reason}" if source.reason else ""
    return f"flags of {source.provider} ({source.source}) are {source.state}, {age}{why}"
