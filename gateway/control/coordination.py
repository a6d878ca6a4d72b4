"""What replicas agree on beside the documents: who is there, who leads, which keys were counted, and sums of counters.

None of it is desired state: what a route must do stands in the store, and a lost coordination costs a rollout some
evidence, never a route. A leader may be stopped and continue long after another took its post (a lease ends whether
its holder notices or not), so a term goes with all that a leader writes (``Fence``), and the store refuses an old one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from gateway.clock import Clock
from gateway.control.store import Fence
from gateway.errors import Fenced, StoreUnavailable
from gateway.registry.disk import write_whole

__all__ = ["CLAIM_BITS", "Alone", "Claimed", "Coordination", "ReplicaView", "new_replica_name"]

CLAIM_BITS = 24
"""A scope's claims are a bitmap of 2^24 bits, 2 MiB, however many keys come. Two keys that share a bit count as one:
of a million keys, some 3% are not counted, evenly over the arms of a split."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """What a replica says of itself. It serves ``revision``, but for the routes in ``behind``, each with the reason.

    ``address``: where it can be reached, for people. ``told_at``: when the others heard it last, by the coordination's
    clock; ``started_at`` by the replica's own. Both in seconds since the epoch.
    """

    replica: str
    revision: int
    behind: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    version: str = ""
    started_at: float = 0.0
    told_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "replica": self.replica,
            "revision": self.revision,
            "behind": dict(self.behind),
            "address": self.address,
            "version": self.version,
            "started_at": self.started_at,
            "told_at": self.told_at,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ReplicaView:
        """Of another version of Turnout, it may say less. Raises ValueError, TypeError or KeyError."""
        return cls(
            replica=str(body["replica"]),
            revision=int(body["revision"]),
            behind={str(route): str(why) for route, why in dict(body.get("behind", {})).items()},
            address=str(body.get("address", "")),
            version=str(body.get("version", "")),
            started_at=float(body.get("started_at", 0.0)),
            told_at=float(body.get("told_at", 0.0)),
        )


class Coordination(Protocol):
    """All calls raise StoreUnavailable when the others cannot be reached. A scope is any text without line breaks.

    Cancelling a call does not undo it: it may or may not have happened. Each may be made again: none counts twice.
    """

    @property
    def replica(self) -> str:
        """This replica's name, unique among the living."""
        ...

    async def announce(self, view: ReplicaView) -> bool:
        """Renews this replica's lease, with what it serves. False: it had none, or it had ended; those of others may
        have ended likewise, however alive they are."""
        ...

    async def replicas(self) -> Sequence[ReplicaView]:
        """Every replica whose lease stands, this one too, by name."""
        ...

    async def lead(self, post: str) -> int | None:
        """The term in which this replica holds the post, from now for the time of a lease; None: another does.

        Ask again well within the lease to go on in the same term. A term is never given twice, and a later one is
        greater; who lost the post and gets it again begins a new term.
        """
        ...

    async def leader(self, post: str) -> str | None:
        """The replica that holds the post."""
        ...

    async def resign(self, post: str) -> None:
        """Gives the post up, if this replica holds it, so that the next need not wait for the lease's end."""
        ...

    async def claim(self, scope: str, places: Sequence[int]) -> Sequence[bool]:
        """For each place of a key (0..2^32-1): True when no replica had claimed it in the scope. It is claimed now."""
        ...

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None:
        """What this replica has counted in the scope so far, from the first; takes the place of what it said before.
        Nothing: it counts there no more."""
        ...

    async def gather(self, scope: str) -> Mapping[str, int]:
        """The sum of what all replicas published, those that have ended too."""
        ...

    async def keep(self, scope: str, value: bytes, fence: Fence | None = None) -> None:
        """Raises Fenced unless the fence's term is the present one."""
        ...

    async def kept(self, scope: str) -> bytes | None: ...

    async def append(self, scope: str, values: Sequence[bytes]) -> None:
        """Adds to a log that every replica reads, each from where it is; it holds the newest 200,000 or so."""
        ...

    async def following(self, scope: str, after: str) -> tuple[str, Sequence[bytes]]:
        """What was appended after that place, at most a thousand, and the place after it; after "" nothing, and the
        end as it is now."""
        ...

    async def forget(self, scope: str) -> None:
        """Claims, counters and what is kept, of all replicas."""
        ...

    async def close(self) -> None:
        """Ends this replica's lease and its posts."""
        ...


class Claimed:
    """The claims of one scope in this process: one bit a place."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray(1 << (CLAIM_BITS - 3))

    def claim(self, places: Sequence[int]) -> list[bool]:
        return [self._take(place >> (32 - CLAIM_BITS)) for place in places]

    def _take(self, bit: int) -> bool:
        place, mask = bit >> 3, 1 << (bit & 7)
        if self._bits[place] & mask:
            return False
        self._bits[place] |= mask
        return True


class Alone:
    """The coordination of a replica that has no others: it leads every post.

    Terms and what is kept are files under ``home``; claims and counters live in memory, so after a restart nothing
    tells which keys were counted, and whoever counts begins anew.
    """

    def __init__(self, home: Path, clock: Clock) -> None:
        self._folder = home / "coordination"
        self._clock = clock
        self._replica = new_replica_name()
        self._view: ReplicaView | None = None
        self._terms: dict[str, int] = {}
        self._writing = threading.Lock()
        self._claims: dict[str, Claimed] = {}
        self._counters: dict[str, dict[str, int]] = {}

    def __repr__(self) -> str:
        return f"<Alone {self._replica} [{len(self._terms)} posts]>"

    @property
    def replica(self) -> str:
        return self._replica

    async def announce(self, view: ReplicaView) -> bool:
        had = self._view is not None
        self._view = replace(view, told_at=self._clock.wall())
        return had

    async def replicas(self) -> Sequence[ReplicaView]:
        return () if self._view is None else (self._view,)

    async def lead(self, post: str) -> int | None:
        if post not in self._terms:
            self._terms[post] = await asyncio.to_thread(self._next_term, post)
        return self._terms[post]

    async def leader(self, post: str) -> str | None:
        return self._replica if post in self._terms else None

    async def resign(self, post: str) -> None:
        self._terms.pop(post, None)

    def _next_term(self, post: str) -> int:
        found = self._read(f"term {post}")
        try:
            term = 1 if found is None else int(json.loads(found)) + 1
        except (TypeError, ValueError):
            term = 1
        self._write(f"term {post}", str(term).encode("ascii"))
        return term

    async def claim(self, scope: str, places: Sequence[int]) -> Sequence[bool]:
        return self._claims.setdefault(scope, Claimed()).claim(places)

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None:
        if counters:
            self._counters[scope] = dict(counters)
        else:
            self._counters.pop(scope, None)

    async def gather(self, scope: str) -> Mapping[str, int]:
        return dict(self._counters.get(scope, {}))

    async def keep(self, scope: str, value: bytes, fence: Fence | None = None) -> None:
        if fence is not None and self._terms.get(fence.post) != fence.term:
            raise Fenced(f"term {fence.term} of {fence.post!r} has ended: what it says of {scope!r} is not kept")
        await asyncio.to_thread(self._write, f"kept {scope}", value)

    async def kept(self, scope: str) -> bytes | None:
        return await asyncio.to_thread(self._read, f"kept {scope}")

    async def append(self, scope: str, values: Sequence[bytes]) -> None:
        """Nobody else would read it."""

    async def following(self, scope: str, after: str) -> tuple[str, Sequence[bytes]]:
        return after, ()

    async def forget(self, scope: str) -> None:
        self._claims.pop(scope, None)
        self._counters.pop(scope, None)
        await asyncio.to_thread(self._path(f"kept {scope}").unlink, missing_ok=True)

    async def close(self) -> None:
        self._view = None
        self._terms.clear()

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode("utf-8")).hexdigest()

    def _read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{self._path(name)} cannot be read: {error}; check owner, mode and disk") from error

    def _write(self, name: str, value: bytes) -> None:
        """Whole or not at all, also when the machine dies."""
        path = self._path(name)
        try:
            with self._writing:  # a thread whose caller was cancelled writes on
                write_whole(path, value)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error}; check the disk and its free space") from error


def new_replica_name() -> str:
    """Not taken from the machine: a container's host name may be anybody's, and two replicas may share a machine."""
    return uuid4().hex[:12]
