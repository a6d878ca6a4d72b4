"""What holds a rollout whose plan says ``on_drift: hold``: alarms of drift that stand about its candidate.

Not the world's doing: both versions meet it, and going on or not changes nothing about it. Nor is drift ever harm: a
step is held, nothing goes back, and an operator may promote all the same.
"""

from __future__ import annotations

from gateway.control.alarms import ALARM
from gateway.control.store import DocumentKey, Store
from gateway.messages import VersionRef

__all__ = ["HOLDING", "standing_drift"]

HOLDING = ("data-pipeline", "routing", "model")
"""Whose fault a drift must be; as ``gateway.telemetry.drift.blame`` names it."""


async def standing_drift(store: Store, candidate: VersionRef) -> str:
    """The reason of an alarm that stands, with whose fault it is; empty where none does. Raises StoreUnavailable."""
    for blame in HOLDING:
        found = await store.read(DocumentKey(ALARM, f"drift/{candidate}/{blame}"))
        if found is not None and found.body is not None:
            return f"{blame}: {found.body['reason']}"
    return ""
