"""Where the settings ask for an author's signature: before a version is promoted, and whenever it is loaded.

What comes from another store is asked by ``gateway.cli.transfer_commands``. An override passes gates, not this: who is
allowed to sign is the settings' to say, and no command's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.control.gatekeeping import Gatekeeper, GateOutcome, Override
from gateway.control.store import DocumentKey, Store
from gateway.errors import Conflict, IntegrityError, LoadError
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry, ModelDocument
from gateway.registry.signing.signatures import Authors
from gateway.serving.engine import VersionSpec
from gateway.settings import Settings

__all__ = ["Assemble", "SignedGate", "signed_gate", "signed_loads"]

Assemble = Callable[[VersionRef, str], VersionSpec]


class SignedGate:
    """A Gatekeeper that looks at the signature first, then asks the gates."""

    def __init__(self, store: Store, blobs: BlobStore, authors: Authors, gates: Gatekeeper) -> None:
        self._store = store
        self._blobs = blobs
        self._authors = authors
        self._gates = gates

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        """As Gatekeeper; Conflict when no author has signed the version."""
        found = await self._store.read(DocumentKey("model", model))
        if found is not None and found.body is not None:
            entry = ModelDocument.from_json(found.body).version(version)
            try:
                await asyncio.to_thread(self._authors.require, f"{model}/{version}, {purpose}", entry, self._blobs)
            except IntegrityError as error:
                raise Conflict(str(error)) from error
        return await self._gates.require(
            model, version, purpose=purpose, against=against, override=override, actor=actor
        )


def signed_gate(settings: Settings, store: Store, blobs: BlobStore, gates: Gatekeeper) -> Gatekeeper:
    """The gates as they are, unless the settings ask for signatures. Raises SettingsError for a key that cannot be
    read."""
    signing = settings.registry.signing
    if "promotion" not in signing.require:
        return gates
    return SignedGate(store, blobs, Authors.of_settings(signing), gates)


def signed_loads(
    settings: Settings, blobs: BlobStore, assemble: Assemble, entry_of: Callable[[VersionRef], CatalogueEntry]
) -> Assemble:
    """``assemble`` as it is, unless the settings ask for signatures: then LoadError for a version without."""
    signing = settings.registry.signing
    if "load" not in signing.require:
        return assemble
    authors = Authors.of_settings(signing)

    def assemble_signed(ref: VersionRef, digest: str) -> VersionSpec:
        entry = entry_of(ref)
        if entry.digest != digest:
            raise LoadError(f"{ref} is {entry.digest} by now, not {digest}; it is loaded as that")
        authors.require(f"{ref} is not loaded", entry, blobs)
        return assemble(ref, digest)

    return assemble_signed
