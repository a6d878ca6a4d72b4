"""What a watch of drift needs of those that it shares its counts with, and what this process has counted so far.

Counts are cumulative integers of one process, version and profile, published whole, so that a call that is made twice
counts once, and summed over replicas: those that have ended are still in the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from gateway.events.records import CountsRecord
from gateway.messages import VersionRef
from gateway.telemetry.drift.cells import Counts

__all__ = ["Counted", "Profiled", "Shared", "Tally"]

_SEEN = "seen"
_HALF_ROUND = 1 << 63
_LIFE = "life:"
"""Each process that counted leaves its name, so that one whose counts are gone is missed."""


class Shared(Protocol):
    """Every call may raise StoreUnavailable. ``lead`` gives the term in which this replica judges, None while another
    does; ``keep`` raises Fenced once that term has ended."""

    async def lead(self) -> int | None: ...

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None: ...

    async def gather(self, scope: str) -> Mapping[str, int]: ...

    async def keep(self, scope: str, value: bytes, term: int) -> None: ...

    async def kept(self, scope: str) -> bytes | None: ...


class Profiled(NamedTuple):
    """A version's rows, counted with one profile (its digest)."""

    version: VersionRef
    profile: str

    @property
    def scope(self) -> str:
        return f"drift/{self.version}/{self.profile.removeprefix('sha256:')[:32]}"


class Tally(NamedTuple):
    """``seen`` rows ran, some were counted, in the processes ``lives``."""

    seen: int
    counts: Counts
    lives: frozenset[str] = frozenset()

    def to_counters(self) -> dict[str, int]:
        places = np.flatnonzero(self.counts)
        numbers = zip(places.tolist(), self.counts[places].tolist(), strict=True)
        told = {_SEEN: self.seen} | {str(place): number for place, number in numbers}
        return told | {f"{_LIFE}{life}": 1 for life in self.lives}

    @classmethod
    def from_counters(cls, counters: Mapping[str, int], size: int) -> Tally:
        """Places beyond ``size`` are nobody's: two programs disagree about a plan, and nothing is made of it. A sum
        beyond 64 bits goes round, as the counts that it is of do: what came between two looks is right all the same.
        Squares of what is far off reach that in 2^31 rows."""
        counts = np.zeros(size, np.int64)
        for name, number in counters.items():
            if name.isdecimal() and int(name) < size:
                counts[int(name)] = (number + _HALF_ROUND) % (2 * _HALF_ROUND) - _HALF_ROUND
        lives = frozenset(name.removeprefix(_LIFE) for name in counters if name.startswith(_LIFE))
        return cls(int(counters.get(_SEEN, 0)), counts, lives)


@dataclass(slots=True)
class Counted:
    """All that this process has counted. ``life`` is its own name; what begins anew after it was dropped counts as
    another's. Written by the watch alone, on the event loop."""

    life: str
    _tallies: dict[Profiled, Tally] = field(default_factory=dict)
    _unpublished: set[Profiled] = field(default_factory=set)
    _begun: int = 0

    def add(self, record: CountsRecord) -> None:
        """A record whose counts are not as long as those before is of another plan, and is left out."""
        key = Profiled(record.version, record.profile)
        held = self._tallies.get(key)
        counts = np.frombuffer(record.counts, "<i8").astype(np.int64)
        if held is None:
            self._begun += 1
            self._tallies[key] = Tally(record.seen, counts, frozenset({f"{self.life}.{self._begun}"}))
        elif not len(held.counts):
            self._tallies[key] = Tally(held.seen + record.seen, counts, held.lives)
        elif not len(counts) or len(counts) == len(held.counts):
            summed = held.counts + counts if len(counts) else held.counts
            self._tallies[key] = Tally(held.seen + record.seen, summed, held.lives)
        self._unpublished.add(key)

    def unpublished(self) -> Iterator[tuple[Profiled, Tally]]:
        """Those that changed since they were ``published``."""
        for key in list(self._unpublished):
            yield key, self._tallies[key]

    def published(self, key: Profiled, tally: Tally) -> None:
        if self._tallies.get(key) is tally:
            self._unpublished.discard(key)

    def of(self, version: VersionRef) -> list[Profiled]:
        return [key for key in self._tallies if key.version == version]

    def drop(self, key: Profiled) -> None:
        """What was not published is lost."""
        self._tallies.pop(key, None)
        self._unpublished.discard(key)
