"""Where servers and clients run: on a core of their own each, or together on two that they share."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Cores", "pinned", "shared"]


@dataclass(frozen=True, slots=True)
class Cores:
    """``server`` and ``clients`` are lists as ``taskset -c`` takes them."""

    name: str
    server: str
    clients: str

    @property
    def server_prefix(self) -> tuple[str, ...]:
        return ("taskset", "-c", self.server)

    @property
    def client_prefix(self) -> tuple[str, ...]:
        return ("taskset", "-c", self.clients)


def pinned() -> Cores:
    """A server with all its children on one core, clients on another. On a machine with one core they share it."""
    first, *others = sorted(os.sched_getaffinity(0))
    return Cores("one core", str(first), str(others[0] if others else first))


def shared() -> Cores:
    """Two cores (or the only one), free to both."""
    both = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:2])
    return Cores("two cores", both, both)
