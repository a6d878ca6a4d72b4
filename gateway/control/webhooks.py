"""Webhooks of rollouts: each event is signed, sent until it is taken or its time is over, and never waited for by a
rollback.

A receiver checks ``x-turnout-signature: t=<seconds>,v1=<hex>``, the HMAC-SHA256 of ``<seconds>.<body>`` under the
shared secret, and refuses an old ``t``. ``x-turnout-delivery`` is the same each time that an event is sent, also after
the leader has changed, so whoever has seen it may ignore it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.control.attempts import Ending, Patience, attempted, delivery_id
from gateway.control.outgoing import Outgoing
from gateway.control.rollout_plan import HookSpec
from gateway.signatures import HEADER, sign

__all__ = ["Delivery", "Webhooks", "delivery_id"]

ATTEMPT_S = 5.0
TOTAL_S = 30.0
LONGEST_RETRY_S = 8.0


@dataclass(slots=True)
class Delivery:
    """One event for one hook. Written by its own task only; ``state`` is ``pending``, ``delivered`` or ``failed``."""

    hook: HookSpec
    event: str
    name: str
    state: str = "pending"
    attempts: int = 0
    answer: str = ""
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.event,
            "url": self.hook.url,
            "delivery": self.name,
            "state": self.state,
            "attempts": self.attempts,
            "answer": self.answer,
            "at": self.at,
        }


class Webhooks:
    """``secrets`` by name. Each delivery is a task of its own; ``close`` gives up what is not delivered."""

    def __init__(self, secrets: Mapping[str, bytes], *, clock: Clock) -> None:
        self._secrets = secrets
        self._clock = clock
        self._outgoing = Outgoing(ATTEMPT_S)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Webhooks [{len(self._tasks)} under way | {len(self._secrets)} secrets]>"

    @property
    def known(self) -> frozenset[str]:
        """The names of the secrets."""
        return frozenset(self._secrets)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._outgoing.close()

    def send(self, hook: HookSpec, event: str, name: str, body: Mapping[str, Any], *, once: bool = False) -> Delivery:
        """Returns at once. ``once``: a question, whose answer counts whatever it is; else it is tried again."""
        delivery = Delivery(hook, event, name)
        content = orjson.dumps({"event": event, "delivery": name, **body}, default=str)
        task = asyncio.ensure_future(self._deliver(delivery, content, once=once))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return delivery

    async def _deliver(self, delivery: Delivery, content: bytes, *, once: bool) -> None:
        def said(answer: str) -> None:
            delivery.attempts += 1
            delivery.answer, delivery.at = answer, self._clock.wall()

        patience = Patience(TOTAL_S, LONGEST_RETRY_S, once=once)
        try:
            ending = await attempted(lambda: self._attempt(delivery, content), patience, self._clock, said)
            delivery.state = "delivered" if ending is Ending.DELIVERED else "failed"
        finally:
            if delivery.state == "pending":
                delivery.state = "failed"

    async def _attempt(self, delivery: Delivery, content: bytes) -> tuple[int, str]:
        """Status (0: none came) and what was answered, for people."""
        headers = {
            "content-type": "application/json",
            "x-turnout-event": delivery.event,
            "x-turnout-delivery": delivery.name,
        }
        secret_name = delivery.hook.secret
        if secret_name is not None:
            secret = self._secrets.get(secret_name)
            if secret is None:
                return 0, f"this gateway's settings have no secret {secret_name!r}"
            headers[HEADER] = sign(secret, int(self._clock.wall()), content)
        return await self._outgoing.post(delivery.hook.url, content, headers)
