"""Ending a task that loses a cancellation."""

from __future__ import annotations

import asyncio

from gateway.control.ending import ended


async def test_a_task_that_lost_a_cancellation_is_asked_again() -> None:
    """As one that a library takes for its own; no task, or one that has ended, is nothing to wait for."""
    lost = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await ended(task)
        await ended(task)
        await ended(None)
    assert lost.is_set()
    assert task.cancelled()
