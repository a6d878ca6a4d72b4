"""Who signed a version's manifest, of the authors that somebody trusts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import TurnoutError
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.signing.signatures import Authors

__all__ = ["signed_by"]


def signed_by(entry: CatalogueEntry, keys: Mapping[str, str], blobs: BlobStore) -> Mapping[str, Any]:
    """``{"by", "problem"}``: whose of ``keys`` (public, as PEM text, by name) signed the manifest, or why nobody's
    counts. Blocks; never raises for a signature that is wrong."""
    try:
        return {"by": Authors(keys).require("gate", entry, blobs), "problem": ""}
    except TurnoutError as fault:
        return {"by": None, "problem": str(fault)}
