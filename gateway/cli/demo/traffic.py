"""Traffic for the demo: real digits with known labels, sent at a steady rate; what came back, by version."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

__all__ = ["Answered", "Digits", "Tally", "Traffic", "percentile"]

WINDOW_S = 3.0
"""What rates and percentiles on the screen look back over."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (64 numbers each) and the digit that each one shows."""

    images: Sequence[Sequence[float]]
    labels: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as the client saw it."""

    at: float
    version: int
    reason: str
    seconds: float
    right: bool


@dataclass(slots=True)
class Tally:
    """Counts for the whole demo, and the answers of the last seconds. Written by the traffic tasks alone."""

    total: int = 0
    errors: int = 0
    last_error: str = ""
    fallbacks: int = 0
    first_fallback_wall: float | None = None
    recent: deque[Answered] = field(default_factory=deque)
    by_version: dict[int, int] = field(default_factory=dict)

    def answered(self, answer: Answered) -> None:
        self.total += 1
        self.by_version[answer.version] = self.by_version.get(answer.version, 0) + 1
        if answer.reason == "fallback":
            self.fallbacks += 1
            if self.first_fallback_wall is None:
                self.first_fallback_wall = time.time()
        self.recent.append(answer)
        while self.recent and self.recent[0].at < answer.at - WINDOW_S:
            self.recent.popleft()

    def failed(self, what: str) -> None:
        self.total += 1
        self.errors += 1
        self.last_error = what

    def window(self, version: int) -> list[Answered]:
        """The version's answers of the last seconds."""
        oldest = time.monotonic() - WINDOW_S
        return [answer for answer in self.recent if answer.version == version and answer.at >= oldest]


class Traffic:
    """Sends one image a request, ``rate`` a second over ``clients`` connections, until it is cancelled."""

    def __init__(self, url: str, route: str, digits: Digits, tally: Tally, *, rate: float, clients: int = 8) -> None:
        self._url = f"{url}/predict/{route}"
        self._digits = digits
        self._tally = tally
        self._rate = rate
        self._clients = clients

    async def run(self) -> None:
        """Ends by cancellation only; a request in flight is then abandoned."""
        limits = httpx.Limits(max_connections=self._clients)
        async with (
            httpx.AsyncClient(limits=limits, timeout=10.0, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(self._clients):
                tasks.create_task(self._client(client, number))

    async def _client(self, client: httpx.AsyncClient, number: int) -> None:
        spacing = self._clients / self._rate
        due = time.monotonic() + spacing * number / self._clients
        for turn in itertools.count(number, self._clients):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + spacing, time.monotonic() - spacing)
            await self._send(client, turn)

    async def _send(self, client: httpx.AsyncClient, turn: int) -> None:
        place = turn % len(self._digits.labels)
        body = {"inputs": [self._digits.images[place]], "key": f"user-{turn}"}
        started = time.monotonic()
        try:
            response = await client.post(self._url, json=body)
        except httpx.HTTPError as error:
            self._tally.failed(type(error).__name__)
            return
        if response.status_code != 200:
            self._tally.failed(f"{response.status_code} {response.text[:120]}")
            return
        self._tally.answered(_answer(response.json(), started, self._digits.labels[place]))


def _answer(body: Mapping[str, object], started: float, truth: int) -> Answered:
    now = time.monotonic()
    outputs = body["outputs"]
    labels = outputs["label"] if isinstance(outputs, dict) else []
    return Answered(now, int(str(body["version"])), str(body["reason"]), now - started, list(labels)[:1] == [truth])


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that ``share`` of them do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
