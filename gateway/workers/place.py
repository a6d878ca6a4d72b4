"""One place in the crew: a listening socket, and the worker that has it now."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

from gateway.clock import Timer
from gateway.workers.colleague import Colleague

__all__ = ["Place"]


@dataclass(slots=True)
class Place:
    """Its socket stays while workers come and go. Written by the crew only."""

    number: int
    listening: socket.socket | None
    colleague: Colleague | None = None
    deaths: int = 0
    restarts: int = 0
    requests_before: int = 0
    since: float = 0.0
    keeping: asyncio.Task[None] | None = None
    holding: Timer | None = None
    listens: asyncio.Event = field(default_factory=asyncio.Event)
