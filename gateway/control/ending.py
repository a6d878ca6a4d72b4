"""Ending a task for good: asked again until it has ended."""

from __future__ import annotations

import asyncio

__all__ = ["ended"]

_AGAIN_S = 1.0


async def ended(task: asyncio.Task[None] | None) -> None:
    """Returns when the task has ended. A cancellation can get lost on its way through a client library, which may take
    it for that of its own time-out: then one that is waited for after a single ``cancel`` goes on for ever."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
