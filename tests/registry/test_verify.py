"""Verify: every byte of a version is read again and compared."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.registry.blobs import BlobStore
from gateway.registry.verify import verify
from tests.registry.builders import stored_manifest


def test_a_sound_version_is_ok_in_every_part(tmp_path: Path) -> None:
    """Manifest, files and example, each with its progress."""
    blobs = BlobStore(tmp_path)
    manifest = stored_manifest(blobs)
    told: list[tuple[int, int]] = []
    report = verify(manifest.digest, blobs, lambda done, total: told.append((done, total)))
    assert report.ok
    assert [str(finding) for finding in report.findings] == ["(manifest): ok", "script.echo.json: ok", "(example): ok"]
    assert told[-1][0] == told[-1][1]
    assert report.to_json()["ok"] is True


def test_altered_truncated_and_missing_files_are_each_named(tmp_path: Path) -> None:
    """State, both digests, and what to do."""
    blobs = BlobStore(tmp_path)
    manifest = stored_manifest(blobs)
    file = blobs.path(manifest.files[0].digest)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"0", b"9"))
    altered = verify(manifest.digest, blobs).findings[1]
    assert altered.state == "altered"
    assert altered.found is not None
    assert altered.found != altered.expected == manifest.files[0].digest
    assert altered.found in str(altered)
    assert "restore it from a backup" in str(altered)
    os.truncate(file, 3)
    assert verify(manifest.digest, blobs).findings[1].state == "truncated"
    file.unlink()
    report = verify(manifest.digest, blobs)
    assert (report.ok, report.findings[1].state, report.findings[2].state) == (False, "missing", "ok")


def test_a_manifest_edited_by_hand_is_found_by_its_own_digest(tmp_path: Path) -> None:
    """Nothing that it names is believed."""
    blobs = BlobStore(tmp_path)
    manifest = stored_manifest(blobs)
    path = blobs.path(manifest.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"retry":true', b'"retry":false'))
    report = verify(manifest.digest, blobs)
    assert [finding.name for finding in report.findings] == ["(manifest)"]
    assert report.findings[0].state == "altered"


def test_bytes_that_are_no_manifest_are_told_as_that(tmp_path: Path) -> None:
    """A sound blob under a catalogue's digest may still not be a version."""
    blobs = BlobStore(tmp_path)
    report = verify(blobs.put_bytes(b"weights").digest, blobs)
    assert not report.ok
    assert "not valid JSON" in str(report.findings[0])
