"""What nothing refers to any more, found first and freed on request.

Safe beside registrations: nothing goes while one is under way (its lock), nor within a grace
time after it was written, which covers a registration that died and is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.errors import Conflict, IntegrityError
from gateway.registry.blobs import BlobEntry, BlobStore, Progress
from gateway.registry.loading import read_manifest

__all__ = ["GRACE_S", "CollectPlan", "collect", "plan"]

GRACE_S = 3600.0


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """``free`` is what no version needs; ``recent`` is not needed either, but too young to go."""

    free: tuple[BlobEntry, ...]
    recent: tuple[BlobEntry, ...]
    kept: int

    @property
    def free_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.free)

    def to_json(self) -> dict[str, Any]:
        return {
            "free": [{"digest": entry.digest, "size_bytes": entry.size_bytes} for entry in self.free],
            "free_bytes": self.free_bytes,
            "recent": len(self.recent),
            "kept": self.kept,
        }


def plan(
    referenced: Iterable[str], blobs: BlobStore, *, now: float, grace_s: float = GRACE_S, beside: Iterable[str] = ()
) -> CollectPlan:
    """What could go, given the manifest digests of every version in any catalogue whose files stay, archived ones too,
    and the blobs ``beside`` that documents name themselves (manifests of released versions among them).

    ``now`` in seconds since the epoch. IntegrityError when a referenced manifest is damaged: what
    it needs cannot be known, so nothing may go.
    """
    needed = _needed(referenced, blobs) | set(beside)
    unneeded = [entry for entry in blobs.entries() if entry.digest not in needed]
    free = tuple(entry for entry in unneeded if now - entry.stored_at >= grace_s)
    recent = tuple(entry for entry in unneeded if now - entry.stored_at < grace_s)
    return CollectPlan(free, recent, len(needed))


def collect(found: CollectPlan, blobs: BlobStore, progress: Progress | None = None) -> int:
    """Frees what the plan found and nobody has stored again since; the bytes freed.

    Conflict when a registration is under way. One that begins meanwhile waits for a single blob at
    most, since the lock is taken for each; what was freed until then is told in the message.
    """
    freed = 0
    for entry in found.free:
        with blobs.collecting() as alone:
            if not alone:
                raise Conflict(
                    f"a registration is under way; {freed} of {found.free_bytes} bytes were freed. "
                    "Run gc again when it is done"
                )
            if blobs.entry(entry.digest) == entry:
                freed += blobs.delete(entry.digest)
        if progress is not None:
            progress(freed, found.free_bytes)
    return freed


def _needed(referenced: Iterable[str], blobs: BlobStore) -> set[str]:
    needed: set[str] = set()
    for digest in sorted(set(referenced)):
        try:
            manifest = read_manifest(digest, blobs)
        except IntegrityError as error:
            raise IntegrityError(f"nothing was removed, since what a version needs cannot be known: {error}") from error
        needed |= {digest} | {blob for _, blob, _ in manifest.blobs()}
    return needed
