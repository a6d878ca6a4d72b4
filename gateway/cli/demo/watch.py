"""Looks at the demo's gateway a few times a second and tells the screen: weights, states, failures, audit records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.cli.backend import Backend
from gateway.cli.demo.screen import Screen, VersionRow
from gateway.cli.demo.traffic import WINDOW_S, Answered, Tally, percentile
from gateway.cli.rollout_view import picture

__all__ = ["Watch", "failures_by_version"]

LOOK_EVERY_S = 0.2
_FALLBACKS = re.compile(r"^gateway_fallbacks_total\{(?P<labels>[^}]*)\} (?P<count>[0-9.e+]+)$", re.MULTILINE)
_VERSION_LABEL = re.compile(r'version="(\d+)"')


@dataclass(slots=True)
class Watch:
    """``kinds`` names each version's format for people. Fields below it are what was seen last, written by ``look``."""

    url: str
    token: str
    route: str
    backend: Backend
    tally: Tally
    screen: Screen
    kinds: Mapping[int, str]
    audited: int = 0
    quarantined: frozenset[int] = frozenset()
    guard_record: Mapping[str, Any] | None = None
    rollout: Mapping[str, Any] = field(default_factory=dict)
    guard_acted: asyncio.Event = field(default_factory=asyncio.Event)
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Ends by cancellation only."""
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10.0, trust_env=False) as client:
            while True:
                await self.look(client)
                await asyncio.sleep(LOOK_EVERY_S)

    async def next_look(self) -> None:
        """Waits for the end of the round under way; cancelling it changes nothing."""
        await self.looked.wait()

    async def look(self, client: httpx.AsyncClient) -> None:
        """One round: everything is asked for, then the picture is drawn."""
        view = await self.backend.route(self.route)
        resident = (await client.get("/admin/versions")).json()["versions"]
        metrics = (await client.get("/metrics")).text
        await self._audit()
        await self._rollout(view)
        self.quarantined = frozenset(int(number) for number in view["status"]["quarantined"])
        states = {int(row["version"]): str(row["state"]) for row in resident if row["model"] == view["spec"]["model"]}
        failures = failures_by_version(metrics, self.route)
        weights = {int(arm["version"]): int(arm["weight"]) for arm in view["status"]["split"]}
        rows = [self._row(number, weights, states, failures) for number in sorted(self.kinds)]
        self.screen.show(rows, self.footer())
        self.looked.set()
        self.looked = asyncio.Event()

    async def _rollout(self, view: Mapping[str, Any]) -> None:
        """The one that runs with its evidence, as ``turnout rollout --watch`` shows it; else the last one."""
        if view["status"]["rollout"] is not None:
            found = await self.backend.rollout(self.route)
            self.rollout = found["rollout"]
            self.screen.evidence(picture(found) if found["running"] else None)
        elif view["status"]["last_rollout"] is not None:
            self.rollout = view["status"]["last_rollout"]

    def footer(self) -> str:
        """The totals, as clients saw them."""
        seen = f"{self.tally.total} requests sent, {self.tally.errors} errors seen by a client"
        return f"{seen}, {self.tally.fallbacks} failures of the chosen version answered by the fallback"

    def _row(
        self, number: int, weights: Mapping[int, int], states: Mapping[int, str], failures: Mapping[int, int]
    ) -> VersionRow:
        recent = self.tally.window(number)
        milliseconds = [answer.seconds * 1000 for answer in recent]
        total = sum(weights.values()) or 1
        return VersionRow(
            number=number,
            kind=self.kinds[number],
            weight=round(100 * weights.get(number, 0) / total),
            per_second=len(recent) / WINDOW_S,
            failures=failures.get(number, 0),
            p50_ms=percentile(milliseconds, 0.5),
            p99_ms=percentile(milliseconds, 0.99),
            right=_share_right(recent),
            state="quarantined" if number in self.quarantined else states.get(number, "not loaded"),
        )

    async def _audit(self) -> None:
        for record in await self.backend.audit(after=self.audited, limit=1000):
            self.audited = int(record["sequence"])
            by_guard = str(record["actor"]).startswith("guard")
            words = f"{record['actor']}: {record['action']} {record['subject']}"
            reason = f" ({record['reason']})" if record["reason"] else ""
            self.screen.event(f"audit {record['sequence']}  {words}{reason}", "bold magenta" if by_guard else "blue")
            if by_guard and self.guard_record is None:
                self.guard_record = record
                self.guard_acted.set()


def _share_right(recent: list[Answered]) -> float | None:
    return sum(answer.right for answer in recent) / len(recent) if recent else None


def failures_by_version(metrics: str, route: str) -> dict[int, int]:
    """Out of the Prometheus text: how often each version was chosen, failed, and was stood in for."""
    found: dict[int, int] = {}
    for line in _FALLBACKS.finditer(metrics):
        version = _VERSION_LABEL.search(line["labels"])
        if version is not None and f'route="{route}"' in line["labels"]:
            number = int(version[1])
            found[number] = found.get(number, 0) + int(float(line["count"]))
    return found
