"""One observer that tells several: each only what it watches, and a failure of one is no other's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gateway.clock import Clock, Timer
from gateway.events.bursts import Burst
from gateway.events.observer import EVENTS, Observer
from gateway.events.records import RequestRecord

__all__ = ["FULL_BURST", "GATHER_S", "FanOut"]

log = logging.getLogger("turnout.events")

GATHER_S = 0.02
"""How long finished requests gather before those are told who take them in bursts."""

FULL_BURST = 256


class FanOut(Observer):
    """Tells several observers, in order; each only of the events that it overrides, so that one that watches
    nothing of a request costs a request nothing. The first failure of one is logged, and that one is dropped.

    Finished requests are gathered for who takes them in bursts: until there are ``FULL_BURST`` of them, ``GATHER_S``
    have passed or ``flush`` is called. Without a ``clock`` nobody would end the wait, so each is a burst of its own.
    """

    def __init__(self, *observers: Observer, clock: Clock | None = None) -> None:
        self._clock = clock
        self._observers: tuple[Observer, ...] = ()
        self._gathered: list[RequestRecord] = []
        # Of the burst that gathers; one that rings after a burst was full finds a younger one, which does no harm.
        self._timer: Timer | None = None
        self._install(observers)

    def __repr__(self) -> str:
        return f"<FanOut [{', '.join(type(observer).__name__ for observer in self._observers)}]>"

    def add(self, observer: Observer) -> None:
        """For one that can only be built once those it watches are there."""
        self._install((*self._observers, observer))

    def flush(self) -> None:
        """Tells at once what has gathered: before it is shown, and before those who watch are closed."""
        records = Burst(self._gathered)
        self._gathered.clear()
        if records:
            self._tell_burst(records)

    def _install(self, observers: tuple[Observer, ...]) -> None:
        """Each event becomes a function of this very object: a call less for whoever tells it. One that nobody watches
        is left to the class, which does nothing."""
        self._observers = observers
        for event in EVENTS:
            listeners = self._listeners(event)
            if listeners:
                setattr(self, event, self._teller(event, listeners))
            else:
                vars(self).pop(event, None)
        self._install_bursts()

    def _install_bursts(self) -> None:
        """A request is told at once to those who want that; the others take it with its burst. Whole bursts that come
        from elsewhere (the web workers) are told to both."""
        each = [listen for _, listen in self._listeners("request_finished")]
        self._tell_burst: Callable[[Sequence[RequestRecord]], None] = vars(self).get(
            "requests_finished", super().requests_finished
        )
        tell_each = vars(self).get("request_finished", super().request_finished)
        if self._listeners("requests_finished"):
            vars(self)["request_finished"] = self._gatherer(tell_each if each else None)
        if each:
            vars(self)["requests_finished"] = self._spreader(tell_each)

    def _gatherer(self, tell_each: Callable[[RequestRecord], None] | None) -> Callable[[RequestRecord], None]:
        gathered, full = self._gathered, FULL_BURST if self._clock is not None else 1

        def gather(record: RequestRecord) -> None:
            if tell_each is not None:
                tell_each(record)
            gathered.append(record)
            if self._timer is None or len(gathered) >= full:
                self._gather_on(full)

        return gather

    def _gather_on(self, full: int) -> None:
        if len(self._gathered) >= full:
            self.flush()
        elif self._timer is None and self._clock is not None:
            self._timer = self._clock.call_at(self._clock.monotonic() + GATHER_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.flush()

    def _spreader(self, tell_each: Callable[[RequestRecord], None]) -> Callable[[Sequence[RequestRecord]], None]:
        def spread(records: Sequence[RequestRecord]) -> None:
            for record in records:
                tell_each(record)
            self._tell_burst(records)

        return spread

    def _listeners(self, event: str) -> list[tuple[Observer, Callable[..., None]]]:
        return [(observer, getattr(observer, event)) for observer in self._observers if _watches(observer, event)]

    def _teller(self, event: str, listeners: Sequence[tuple[Observer, Callable[..., None]]]) -> Callable[..., None]:
        def tell(*args: object) -> None:
            for observer, listen in listeners:
                try:
                    listen(*args)
                except Exception:  # an observer's fault must never reach the work it watches
                    log.exception("observer %s failed in %s and is dropped", type(observer).__name__, event)
                    self._install(tuple(other for other in self._observers if other is not observer))

        return tell


def _watches(observer: Observer, event: str) -> bool:
    return getattr(getattr(observer, event), "__func__", None) is not getattr(Observer, event)
