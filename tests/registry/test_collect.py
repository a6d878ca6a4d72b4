"""Collect: what nobody refers to goes, and nothing else ever does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import Conflict, IntegrityError
from gateway.registry.blobs import BlobStore
from gateway.registry.collect import collect, plan
from gateway.registry.verify import verify
from tests.registry.builders import stored_manifest


def _age(blobs: BlobStore, digest: str, at: float) -> None:
    os.utime(blobs.path(digest), (at, at))


def test_only_what_no_version_needs_and_is_old_enough_goes(tmp_path: Path) -> None:
    """The plan says what and how much; collecting frees exactly that."""
    blobs = BlobStore(tmp_path)
    kept = stored_manifest(blobs, b'{"delay_ms": 1}')
    dropped = stored_manifest(blobs, b'{"delay_ms": 22}')
    young = blobs.put_bytes(b"being registered")
    for digest in blobs.digests():
        _age(blobs, digest, 1000.0)
    _age(blobs, young.digest, 4999.0)
    found = plan([kept.digest], blobs, now=5000.0, grace_s=3600.0)
    assert {entry.digest for entry in found.free} == {dropped.digest, dropped.files[0].digest}
    assert [entry.digest for entry in found.recent] == [young.digest]
    assert found.free_bytes == len(dropped.canonical()) + dropped.files[0].size_bytes
    assert found.to_json()["free_bytes"] == found.free_bytes
    assert collect(found, blobs) == found.free_bytes
    assert verify(kept.digest, blobs).ok
    assert set(blobs.digests()) == {kept.digest, young.digest} | {digest for _, digest, _ in kept.blobs()}


def test_nothing_goes_while_a_registration_is_under_way(tmp_path: Path) -> None:
    """Conflict at once; afterwards it works."""
    blobs = BlobStore(tmp_path)
    orphan = blobs.put_bytes(b"orphan")
    _age(blobs, orphan.digest, 0.0)
    found = plan([], blobs, now=10_000.0)
    with blobs.registering(), pytest.raises(Conflict, match="a registration is under way"):
        collect(found, blobs)
    assert blobs.digests() == (orphan.digest,)
    assert collect(found, blobs) == 6


def test_what_was_stored_again_since_the_plan_stays(tmp_path: Path) -> None:
    """A registration between plan and collection makes the blob young again."""
    blobs = BlobStore(tmp_path)
    orphan = blobs.put_bytes(b"orphan")
    _age(blobs, orphan.digest, 0.0)
    found = plan([], blobs, now=10_000.0)
    blobs.put_bytes(b"orphan")
    assert collect(found, blobs) == 0
    assert blobs.digests() == (orphan.digest,)


def test_a_damaged_manifest_stops_the_collection(tmp_path: Path) -> None:
    """What it needs cannot be known, so nothing may go."""
    blobs = BlobStore(tmp_path)
    manifest = stored_manifest(blobs)
    path = blobs.path(manifest.digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="nothing was removed"):
        plan([manifest.digest], blobs, now=10_000.0)


def test_a_blob_that_a_catalogue_names_itself_stays(tmp_path: Path) -> None:
    """A profile of live rows belongs to no manifest, and to a version all the same."""
    blobs = BlobStore(tmp_path)
    captured, orphan = blobs.put_bytes(b"captured"), blobs.put_bytes(b"orphan")
    for blob in (captured, orphan):
        _age(blobs, blob.digest, 0.0)
    collect(plan([], blobs, now=10_000.0, beside=[captured.digest]), blobs)
    assert blobs.digests() == (captured.digest,)
