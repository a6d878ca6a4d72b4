"""Has a batch scored in a process of its own (``gateway.batch.process``), and hears of it.

Pyarrow's hundred megabytes, the files, and the interpreter's lock are that process's affair. It ends with the one that
started it, and whatever it had finished stays.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from gateway import errors
from gateway.batch.plan import BatchPlan
from gateway.errors import FieldProblem, InvalidInput, RegistryError, TurnoutError

__all__ = ["Recorded", "Told", "scored_elsewhere"]

Told = Callable[[int, int | None], None]
"""Rows that are answered, and rows in all, where the file tells."""

Recorded = Callable[[Sequence[Sequence[Any]]], Awaitable[None]]
"""Takes some records (see ``scoring``); returns when they are somebody's."""

_MODULE = "gateway.batch.process"
_LINE_BYTES = 16 << 20
_TAIL_BYTES = 8192


async def scored_elsewhere(plan: BatchPlan, told: Told, recorded: Recorded | None = None) -> Mapping[str, Any]:
    """The receipt, or what ``score`` raises. ``recorded`` is asked where the plan says so. Cancelling it ends the
    process, with all that it started."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _MODULE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    said = asyncio.create_task(_tail(child.stderr))
    try:
        request = {"parent": os.getpid(), "plan": plan.to_json()}
        await _answer(child, json.dumps(request).encode())
        last = await _followed(child, told, recorded)
        if last is None:
            status = await child.wait()
            words = (await said).decode("utf-8", "replace").strip()
            raise RegistryError(
                f"the process that scores {plan.source} ended with status {status}; what it had finished stays, so the "
                f"same again goes on from there{': ' if words else ''}{words[-2000:]}"
            )
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # a group that it makes itself; one that has not begun has none yet
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        said.cancel()
    if last["event"] == "failed":
        raise _raised(last)
    receipt: Mapping[str, Any] = last["receipt"]
    return receipt


async def _followed(
    child: asyncio.subprocess.Process, told: Told, recorded: Recorded | None
) -> Mapping[str, Any] | None:
    """Its last word; None when it ended without one."""
    if child.stdout is None:
        return None
    total: int | None = None
    async for line in child.stdout:
        event: Mapping[str, Any] = orjson.loads(line)
        kind = event["event"]
        if kind in ("done", "failed"):
            return event
        if kind == "began":
            total = event["total"]
        if kind in ("began", "answered"):
            told(event["done"], total)
        elif kind == "records" and recorded is not None:
            await recorded(event["records"])
        elif kind == "part":
            await _answer(child, b"taken")
    return None


async def _answer(child: asyncio.subprocess.Process, line: bytes) -> None:
    """One that is gone is seen to be gone by who reads."""
    if child.stdin is not None:
        with suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(line + b"\n")
            await child.stdin.drain()


async def _tail(stream: asyncio.StreamReader | None) -> bytes:
    """The last that it said; what model code prints is unbounded."""
    tail = b""
    while stream is not None and (piece := await stream.read(_TAIL_BYTES)):
        tail = (tail + piece)[-_TAIL_BYTES:]
    return tail


def _raised(last: Mapping[str, Any]) -> TurnoutError:
    kind = getattr(errors, str(last["kind"]), TurnoutError)
    if kind is InvalidInput:
        return InvalidInput(str(last["message"]), *(FieldProblem(**one) for one in last["fields"]))
    known = isinstance(kind, type) and issubclass(kind, TurnoutError)
    error: TurnoutError = kind(str(last["message"])) if known else TurnoutError(str(last["message"]))
    return error
