"""Environments that no version in use asks for any more: found first, removed on request.

One of an archived version goes too: should the version be loaded again, its lock file builds it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.errors import IntegrityError
from gateway.registry.blobs import BlobStore
from gateway.registry.environments.environments import Environments
from gateway.registry.manifest import Manifest

__all__ = ["collect_environments"]


def collect_environments(
    manifests: Iterable[str],
    blobs: BlobStore,
    environments: Environments,
    *,
    now: float,
    grace_s: float,
    apply: bool,
) -> dict[str, Any]:
    """``manifests``: digests of those of every version that is not archived. While a registration is under way nothing
    is removed. IntegrityError when a manifest is damaged: what it needs cannot be known."""
    if not environments.entries():
        return {"free": [], "free_bytes": 0, "freed_bytes": 0}
    needed: set[str] = set()
    for digest in manifests:
        try:
            manifest = Manifest.from_bytes(blobs.read(digest))
        except IntegrityError as error:
            raise IntegrityError(
                f"no environment was removed, since what a version needs is unknown: {error}"
            ) from error
        if manifest.environment is not None:
            needed.add(manifest.environment.digest)
    free = environments.unneeded(needed, now=now, grace_s=grace_s)
    freed = 0
    if apply:
        with blobs.collecting() as alone:
            freed = sum(environments.remove(entry.digest) for entry in free) if alone else 0
            if alone:
                environments.sweep()
    total = sum(entry.size_bytes for entry in free)
    return {"free": [entry.to_json() for entry in free], "free_bytes": total, "freed_bytes": freed}
