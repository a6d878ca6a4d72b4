"""Rate limits: how many requests a second one client may send on a route, and how many of them at once.

The generic cell rate algorithm (ITU-T I.371), which is a token bucket in one number: the time at which the client's
bucket would be full again. A client whose time has passed is as good as never seen, so forgetting it loses nothing, and
neither does forgetting a route whose clients all are. Each web worker counts for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.errors import RateLimited
from gateway.routing.table import Limits, Route

__all__ = ["ClientRates", "Rates", "RatesStatistics"]

MAX_CLIENTS = 65_536
"""Clients of one route that are remembered at a time; past it the one that was let in longest ago starts afresh."""

_ROUNDING_S = 1e-9
"""Who comes back at the very moment that it was told must not be too early by a rounding."""


@dataclass(frozen=True, slots=True)
class RatesStatistics:
    """Routes that limit rates here, and clients that have used some of theirs."""

    routes: int
    clients: int


class ClientRates:
    """The clients of one route. ``full_at``: when the last of them has its whole burst again."""

    __slots__ = ("_full", "_interval_s", "_slack_s", "burst", "full_at", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.full_at = float("-inf")
        self._interval_s = 1 / rate_per_s
        self._slack_s = (burst - 1) / rate_per_s
        self._full: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<ClientRates {self.rate_per_s:g} a second, {self.burst} at once [{len(self._full)} clients]>"

    def __len__(self) -> int:
        return len(self._full)

    def wait_s(self, client: str, now: float) -> float:
        """0 and the request counts; else the seconds until the next one would be let in, and it does not."""
        full_at = self._full.get(client, now)
        wait_s = full_at - self._slack_s - now
        if wait_s > _ROUNDING_S:
            return wait_s
        self._full[client] = full_at = max(full_at, now) + self._interval_s
        self._full.move_to_end(client)
        self.full_at = max(self.full_at, full_at)
        self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Up to two that are idle, for the one that may have come; any, when there are too many."""
        for _ in range(2):
            if next(iter(self._full.values())) > now:
                break
            self._full.popitem(last=False)
        if len(self._full) > MAX_CLIENTS:
            self._full.popitem(last=False)


class Rates:
    """All routes that limit rates. ``admit`` is asked only where ``limits.rate_per_s`` is set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._routes: dict[str, ClientRates] = {}

    def __repr__(self) -> str:
        return f"<Rates {list(self._routes.values())}>"

    def statistics(self) -> RatesStatistics:
        return RatesStatistics(len(self._routes), sum(map(len, self._routes.values())))

    def admit(self, route: Route, client: str) -> None:
        """Counts a request of the client; RateLimited, with the true time to come back, when it is one too many."""
        now, limits = self._clock.monotonic(), route.limits
        rates = self._routes.get(route.name)
        if rates is None or (rates.rate_per_s, rates.burst) != (limits.rate_per_s, limits.burst):
            rates = self._begin(route.name, limits, now)
        wait_s = rates.wait_s(client, now)
        if wait_s > 0:
            raise RateLimited(
                f"route {route.name!r} lets {rates.rate_per_s:g} requests a second of one client through, and"
                f" {rates.burst} at once; come back in {wait_s:.3g} s, or ask the operator for a higher rate",
                retry_after_s=wait_s,
            )

    def _begin(self, name: str, limits: Limits, now: float) -> ClientRates:
        """Counting starts anew for a route whose rate has changed; routes that are gone or idle are forgotten."""
        for idle in [known for known, rates in self._routes.items() if rates.full_at <= now]:
            del self._routes[idle]
        rates = self._routes[name] = ClientRates(limits.rate_per_s or 1.0, limits.burst)
        return rates
