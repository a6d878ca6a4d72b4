"""Seals anew what is at rest in plain, or under a key of before: blob by blob, each whole at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.errors import SettingsError
from gateway.registry.blob_records import BlobEntry, Progress
from gateway.registry.blobs import BlobStore
from gateway.registry.sealing.sealed import Sealed, key_name_of

__all__ = ["RekeyReport", "rekey"]


@dataclass(slots=True)
class RekeyReport:
    """``files`` of ``bytes`` (plain ones) were sealed anew; ``kept`` are so already."""

    files: int = 0
    bytes: int = 0
    kept: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"files": self.files, "bytes": self.bytes, "kept": self.kept}


def rekey(blobs: BlobStore, progress: Progress | None = None, *, dry_run: bool = False) -> RekeyReport:
    """Blocks. SettingsError when there is no key; IntegrityError at a blob that is damaged or whose key is not known.

    Readers meanwhile find the old file or the new one, since both keys are known to them. Space for one more copy of
    the largest blob is needed.
    """
    form = blobs.form
    if not isinstance(form, Sealed):
        raise SettingsError("registry.encryption.key is not set: name the key to seal with, then run rekey")
    report, entries = RekeyReport(), list(blobs.entries())
    total = sum(entry.size_bytes for entry in entries)
    done = 0
    for entry, sealed in _standing(blobs, form, entries):
        if sealed:
            report.kept += 1
        else:
            report.files += 1
            report.bytes += entry.size_bytes
            if not dry_run:
                blobs.reseal(entry.digest)
        done += entry.size_bytes
        if progress is not None:
            progress(done, max(total, done))
    return report


def _standing(blobs: BlobStore, form: Sealed, entries: list[BlobEntry]) -> Iterator[tuple[BlobEntry, bool]]:
    for entry in entries:
        with blobs.at_rest(entry.digest) as path:
            sealed = key_name_of(path) == form.key_name
        yield entry, sealed
