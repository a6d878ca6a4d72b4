"""Ending a task for good: asked again until it has ended."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["ended"]

_AGAIN_S = 1.0


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Returns when the task has ended. A single cancellation can be lost: ``asyncio.wait_for`` of Python 3.11, by which
    redis-py sends, gives the result instead when it is there at the same moment (python/cpython#86296). A gateway on
    Redis met it once in some fifty ends, on a busy machine, and would have waited for ever."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
