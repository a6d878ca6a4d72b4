"""A disk that is full while a version is being stored: nothing half-written, and a message that helps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import RegistryError
from gateway.registry.blobs import BlobStore
from tests.registry.builders import stored_manifest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stores_nothing_and_says_what_to_do(small_disk: Path) -> None:
    """What was there stays sound; the room is given back; a smaller file still fits."""
    blobs = BlobStore(small_disk)
    before = stored_manifest(blobs).blobs()
    held = blobs.digests()
    with pytest.raises(RegistryError, match=r"No space left on device\. Nothing of it was stored; free some space"):
        blobs.put_bytes(os.urandom(2_000_000))
    assert blobs.digests() == held
    assert list((small_disk / "blobs" / "tmp").iterdir()) == []
    assert all(blobs.verify(digest, size).state == "ok" for _, digest, size in before)
    assert blobs.read(blobs.put_bytes(b"small").digest) == b"small"


def test_a_disk_without_room_for_a_directory_says_the_same(small_disk: Path) -> None:
    """Also when the very first byte does not fit."""
    blobs = BlobStore(small_disk)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2_000_000))
    with pytest.raises(RegistryError, match="Nothing of it was stored"):
        blobs.put_bytes(b"x" * 10_000)
    assert blobs.digests() == ()
