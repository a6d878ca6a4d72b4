"""Whether what the store acknowledges outlives its machine: asked at the start and now and then, and told plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.control.redis_line import RedisLine

__all__ = ["DURABLE_HERE", "Durability", "durability_of"]


@dataclass(frozen=True, slots=True)
class Durability:
    """``state``: ``always`` (acknowledged is durable), ``everysec``, ``except-rewrites``, ``no``, ``off``, ``evicts``,
    or ``unknown``. ``detail``: what that means and what to do; '' when all is well."""

    state: str
    detail: str = ""

    @property
    def sound(self) -> bool:
        return self.state == "always"

    def to_json(self) -> dict[str, Any]:
        return {"durable": self.state, "detail": self.detail}


DURABLE_HERE = Durability("always")
"""SQLite's: every commit is synced."""

_REMEDY = "set appendonly yes and appendfsync always in its configuration"
_LOSES = {
    "everysec": "a crash of its machine loses up to two seconds of changes that were acknowledged",
    "no": "a crash of its machine loses what the system has not written yet, often half a minute of changes",
}


async def durability_of(line: RedisLine) -> Durability:
    """Raises StoreUnavailable."""
    appends, syncs = await line.setting("appendonly"), await line.setting("appendfsync")
    if appends is None or syncs is None:
        said = f"the Redis {line.address} does not tell its settings (CONFIG is not allowed), so whether an"
        return Durability("unknown", f"{said} acknowledged change is durable is unknown: ask who runs it")
    if appends != "yes":
        return Durability("off", f"the Redis {line.address} keeps its data in memory only (appendonly no): {_REMEDY}")
    if syncs != "always":
        loss = _LOSES.get(syncs, "acknowledged changes may be lost")
        return Durability(syncs, f"the Redis {line.address} has appendfsync {syncs}: {loss}; {_REMEDY}")
    if await line.setting("no-appendfsync-on-rewrite") == "yes":
        loss = "while it rewrites its file, a crash of its machine loses changes that were acknowledged"
        remedy = "set no-appendfsync-on-rewrite no in its configuration"
        said = f"the Redis {line.address} has no-appendfsync-on-rewrite yes"
        return Durability("except-rewrites", f"{said}: {loss}; {remedy}")
    policy = await line.setting("maxmemory-policy") or "noeviction"
    if policy.startswith("allkeys") and await line.setting("maxmemory") not in (None, "0"):
        loss = "when its memory is full, it drops routes, versions and their history without a word"
        return Durability("evicts", f"the Redis {line.address} has maxmemory-policy {policy}: {loss}; set noeviction")
    return Durability("always")
