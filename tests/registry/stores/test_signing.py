"""Signatures on manifests: made and checked by model-signing, and asked for where the settings say."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import IntegrityError, RegistryError, SettingsError
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.signing.signatures import Authors, sign_manifest
from gateway.settings_artifacts import SigningSettings
from tests.registry.builders import stored_manifest


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Private keys alice and bob, and their public halves."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "bob"):
        make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(folder / name)]
        show = ["openssl", "ec", "-in", str(folder / name), "-pubout", "-out", str(folder / f"{name}.pub")]
        for command in (make, show):
            subprocess.run(command, check=True, capture_output=True, timeout=100)
    return folder


def test_a_signature_counts_for_its_manifest_and_its_author_alone(keys: Path, tmp_path: Path) -> None:
    """Another manifest, another author, a spoiled bundle, none at all: refused, each with words that say what to do."""
    blobs = BlobStore(tmp_path)
    manifest, other = stored_manifest(blobs), stored_manifest(blobs, b'{"delay_ms": 9}')
    bundle = sign_manifest(manifest.canonical(), keys / "alice")
    stored = blobs.put_bytes(bundle)
    signature = {"digest": stored.digest, "size_bytes": stored.size_bytes, "by": "alice", "at": 1.0}
    entry = CatalogueEntry(1, manifest.digest, 1.0, signatures=(signature,))
    both = {name: keys / f"{name}.pub" for name in ("alice", "bob")}
    authors = Authors.of_settings(SigningSettings(keys=both, require=("load",)))
    assert authors.require("a load", entry, blobs) == "alice"
    with pytest.raises(IntegrityError, match=r"a load: version 1 .* one of bob, and none of its 1 signatures fits"):
        authors.require("a load", entry, blobs, among=["bob"])
    with pytest.raises(IntegrityError, match="none of its 1 signatures fits"):
        authors.require("a load", replace(entry, digest=other.digest), blobs)
    with pytest.raises(IntegrityError, match=r"it has no signature.*turnout sign"):
        authors.require("a load", replace(entry, signatures=()), blobs)
    assert authors.of(manifest.canonical(), b"[" * 5000) is None


def test_a_key_that_cannot_be_used_is_said(keys: Path) -> None:
    """No file, a public key in place of a private one; a key of the settings that is not there."""
    with pytest.raises(RegistryError, match=r"no key at .*openssl ecparam"):
        sign_manifest(b"{}", keys / "nobody")
    with pytest.raises(RegistryError, match=r"cannot sign.*private key"):
        sign_manifest(b"{}", keys / "alice.pub")
    with pytest.raises(SettingsError, match=r"registry\.signing\.keys\.carol: .* cannot be read"):
        Authors.of_settings(SigningSettings(keys={"carol": keys / "carol.pub"}))
    with pytest.raises(ValueError, match="no key is named"):
        SigningSettings(require=("load",))
