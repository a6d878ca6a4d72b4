"""What ``turnout top`` asks of a gateway: two requests at each look, and the admin plane when something has changed.

Metrics and ``/readyz`` need no token and cost the gateway little; the admin plane's lists are asked for when the
revision, a state or a restart says that they are others, and every ten seconds. A call that this token may not make
is made once, and said once; one that fails costs what it would have told, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.cli.admin_client import AdminClient
from gateway.cli.failures import CommandFailed, NoAnswer
from gateway.cli.http_backend import HttpBackend
from gateway.cli.top.exposition_text import read_samples
from gateway.cli.top.picture import Event
from gateway.cli.top.rates import Look
from gateway.cli.top.told import NAMES, RESTARTS, Facts, revision_of
from gateway.clock import Clock, SystemClock
from gateway.errors import Forbidden, NotFound, StoreUnavailable, TurnoutError, Unauthenticated

__all__ = ["Asking"]

T = TypeVar("T")
Json = Mapping[str, Any]

ANSWER_S = 10.0
FACTS_S = 10.0
EVENTS = 20
ROLLOUTS = 5
"""Whose reasons to wait are asked for at each look; of more that run, phase and percent are told."""
_EVENTS, _WAITS = "events", "why rollouts wait"
_SAMPLES = {"name[]": list(NAMES)}


@dataclass(frozen=True, slots=True)
class _Known:
    """When the facts were asked for, and what the looks said of revision, states and restarts then."""

    at_s: float
    signs: object
    revision: int | None


class Asking:
    """Each method raises CommandFailed where nothing answers as a gateway does."""

    def __init__(self, admin: AdminClient, clock: Clock | None = None) -> None:
        self._admin = admin
        self._clock = clock or SystemClock()
        self._backend = HttpBackend(admin)
        self._facts = Facts()
        self._known: _Known | None = None
        self._refused: dict[str, str] = {}
        # Of the last time that each was asked for; empty where the store is down, as the head line says.
        self._failed: dict[str, str] = {}

    @property
    def address(self) -> str:
        return self._admin.address

    async def look(self) -> Look:
        """The metrics, and how ready it is, of the same moment."""
        metrics, standing = await asyncio.gather(
            self._admin.exchange("GET", "/metrics", params=_SAMPLES, timeout=ANSWER_S),
            self._admin.exchange("GET", "/readyz", timeout=ANSWER_S),
        )
        at_s = self._clock.monotonic()
        if metrics.status_code != 200 or standing.status_code not in (200, 503):
            raise CommandFailed(
                f"{self.address} is no gateway's address: /metrics answered {metrics.status_code} and /readyz "
                f"{standing.status_code}. With server.admin_port set, TURNOUT_URL names the admin plane's address."
            )
        try:
            said = standing.json()
        except ValueError:
            said = None
        if not isinstance(said, dict) or "routes" not in said:
            raise CommandFailed(f"{self.address} is no gateway's address: /readyz told of no routes")
        return Look(at_s, read_samples(metrics.text), said)

    async def facts(self, look: Look) -> Facts:
        """What the admin plane tells, asked for as seldom as the look allows."""
        signs, known = _signs(look), self._known
        if known is None or known.signs != signs or look.at_s - known.at_s >= FACTS_S:
            same = known is not None and known.revision == revision_of(look) and _EVENTS not in self._failed
            self._failed.clear()
            self._facts = await self._asked_anew(self._facts, events=not same)
            self._known = _Known(look.at_s, signs, revision_of(look))
        self._failed.pop(_WAITS, None)
        running = [name for name, view in self._facts.routes.items() if view["status"].get("rollout")]
        rollouts = {name: await self._rollout(name) for name in running[:ROLLOUTS]}
        told = {name: view for name, view in rollouts.items() if view is not None}
        return replace(self._facts, rollouts=told, withheld=tuple(self._withheld()))

    async def _asked_anew(self, before: Facts, *, events: bool) -> Facts:
        return Facts(
            routes=await self._allowed("known good and rollouts", self._routes, {}, before.routes),
            versions=await self._allowed("pids and devices", self._versions, {}, before.versions),
            replicas=await self._allowed("replicas", self._replicas, None, before.replicas),
            events=await self._allowed(_EVENTS, self._events, (), before.events) if events else before.events,
        )

    async def _routes(self) -> Mapping[str, Json]:
        return {str(view["route"]): view for view in await self._backend.routes()}

    async def _versions(self) -> Mapping[tuple[str, int], Json]:
        rows = await self._admin.list("/versions", "versions")
        return {(str(row["model"]), int(row["version"])): row for row in rows}

    async def _replicas(self) -> int:
        return len(await self._admin.list("/replicas", "replicas"))

    async def _events(self) -> tuple[Event, ...]:
        records = await self._admin.list(f"/audit?limit={EVENTS}", "records")
        return tuple(
            Event(float(one["at"]), str(one["actor"]), str(one["action"]), str(one["subject"]), str(one["reason"]))
            for one in reversed(records)
        )

    async def _rollout(self, route: str) -> Json | None:
        """None when it has just ended."""

        async def asked() -> Json | None:
            try:
                view = await self._backend.rollout(route)
            except NotFound:
                return None
            return view if view["running"] else None

        return await self._allowed(_WAITS, asked, None, None)

    async def _allowed(self, what: str, ask: Callable[[], Awaitable[T]], nothing: T, before: T) -> T:
        """``nothing`` where this token may not; what was known ``before`` while it cannot be told."""
        if what in self._refused:
            return nothing
        try:
            return await ask()
        except (Unauthenticated, Forbidden) as refusal:
            self._refused[what] = str(refusal)
            return nothing
        except NoAnswer:
            raise
        except TurnoutError as trouble:
            self._failed[what] = "" if isinstance(trouble, StoreUnavailable) else str(trouble)
            return before

    def _withheld(self) -> list[str]:
        return [*_by_reason("not shown", self._refused), *_by_reason("not told now", self._failed)]


def _signs(look: Look) -> object:
    """What tells that routes or versions are others than before."""
    states = [
        (name, row["version"], row["state"])
        for name, route in look.standing["routes"].items()
        for row in route["versions"]
    ]
    return revision_of(look), states, look.started, look.samples.get(RESTARTS)


def _by_reason(how: str, reasons: Mapping[str, str]) -> list[str]:
    """One line for each reason."""
    found: dict[str, list[str]] = {}
    for what, reason in reasons.items():
        if reason:
            found.setdefault(reason, []).append(what)
    return [f"{how}: {', '.join(what)} ({reason})" for reason, what in found.items()]
