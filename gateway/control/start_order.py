"""When an outcome may be counted, so that outcomes count in the order in which their requests *began*. Pure.

A candidate that takes longer would otherwise tell of a burst after the baseline, among outcomes of quieter times, and
seem to be alone in it: each outcome waits until somewhat longer after its request's start than the requests of the
route have lately taken, whichever arm they had.
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ["HOLD_SHRINKS", "HOLD_TIMES", "LEAST_HOLD_S", "MOST_HOLD_S", "StartOrder"]

LEAST_HOLD_S, MOST_HOLD_S = 0.5, 30.0
HOLD_TIMES = 1.5
HOLD_SHRINKS = 0.99
"""A look, of which there are five a second: one long request is forgotten after some minutes at most."""


class StartOrder:
    """By route, how long after its start an outcome is counted."""

    def __init__(self) -> None:
        self._holds: dict[str, float] = {}

    def due(self, route: str, took_s: float, now: float) -> float:
        """When to count a request that ends now: so long after it began as any lately took, and longer."""
        hold = max(self._holds.get(route, LEAST_HOLD_S), min(HOLD_TIMES * took_s, MOST_HOLD_S))
        self._holds[route] = hold
        return now + hold - took_s

    def looked(self) -> None:
        """To be told at each look: what was long ago counts less."""
        self._holds = {route: max(LEAST_HOLD_S, HOLD_SHRINKS * hold) for route, hold in self._holds.items()}

    def keep(self, routes: Container[str]) -> None:
        """Other routes are forgotten."""
        self._holds = {route: hold for route, hold in self._holds.items() if route in routes}
