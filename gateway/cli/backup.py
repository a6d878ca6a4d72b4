"""A home as one archive and back: the store, consistent while in use, and every artifact, each proved by its digest.

A tar file: ``turnout-backup.json`` (schema, time, file names with sizes), ``store.sqlite``, then
``blobs/<digest>`` one after the other. It is written under a temporary name and renamed when
whole. Tokens are in it as hashes only, the generated admin token is not.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway import __version__
from gateway.cli.failures import CommandFailed
from gateway.cli.output import Meter, Steps
from gateway.control.audit import Verification, verify_store
from gateway.control.sqlite_store import SqliteStore
from gateway.errors import IntegrityError
from gateway.registry.blobs import BlobEntry, BlobStore

__all__ = ["BackupReport", "read_backup", "write_backup"]

SCHEMA = 1
HEAD = "turnout-backup.json"
STORE = "store.sqlite"
BLOBS = "blobs/"
HEAD_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What an archive holds."""

    file: str
    artifacts: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "artifacts": self.artifacts, "size_bytes": self.size_bytes}


def write_backup(store_path: Path, blobs: BlobStore, target: Path, steps: Steps) -> BackupReport:
    """Raises CommandFailed, StoreUnavailable or IntegrityError; then nothing new stands at ``target``."""
    with _beside(target) as folder:
        copy = folder / STORE
        asyncio.run(_copy_store(store_path, copy))
        entries = list(blobs.entries())  # after the store: whatever its documents name is already there
        partial = folder / "archive.tar"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            _write(sink, copy, blobs, entries, steps("saving", sum(entry.size_bytes for entry in entries)))
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(target)
    return BackupReport(str(target), len(entries), target.stat().st_size)


def _write(sink: IO[bytes], store: Path, blobs: BlobStore, entries: list[BlobEntry], meter: Meter) -> None:
    head = {
        "schema": SCHEMA,
        "turnout": __version__,
        "created_at": time.time(),
        "blobs": [{"digest": entry.digest, "size_bytes": entry.size_bytes} for entry in entries],
    }
    with tarfile.open(fileobj=sink, mode="w") as archive:
        _add(archive, HEAD, io.BytesIO(json.dumps(head).encode()), len(json.dumps(head).encode()))
        with store.open("rb") as file:
            _add(archive, STORE, file, store.stat().st_size)
        for entry in entries:
            if not (check := blobs.verify(entry.digest, entry.size_bytes)).state == "ok":
                raise IntegrityError(
                    f"{entry.digest} is {check.state} in the artifact store, so a backup of it would be worthless. "
                    "Run turnout verify --all, heal what it names, then back up again."
                )
            with blobs.path(entry.digest).open("rb") as file:
                _add(archive, BLOBS + entry.digest, file, entry.size_bytes)
            meter(entry.size_bytes)


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    archive.addfile(member, source)


def read_backup(source: Path, home: Path, store_name: Path, steps: Steps) -> BackupReport:
    """Makes ``home`` out of an archive: whole and checked, or not at all. ``home`` must be absent or empty."""
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise CommandFailed(
            f"{home} is not empty: restore into a fresh home (set TURNOUT_HOME), then move it into place"
        )
    with _beside(home) as folder:
        fresh = folder / "home"
        fresh.mkdir()
        try:
            with tarfile.open(source, mode="r:") as archive:
                count = _extract(archive, source, fresh, store_name, steps)
        except (tarfile.TarError, EOFError) as error:
            raise CommandFailed(f"{source} is no whole backup: {error}. Use another one.") from None
        _check_store(fresh / store_name, source)
        if home.exists():
            home.rmdir()
        fresh.replace(home)
    return BackupReport(str(source), count, source.stat().st_size)


def _extract(archive: tarfile.TarFile, source: Path, fresh: Path, store_name: Path, steps: Steps) -> int:
    head = _read_head(archive, source)
    wanted = {str(row["digest"]): int(row["size_bytes"]) for row in head["blobs"]}
    blobs, meter, seen_store = BlobStore(fresh), steps("restoring", sum(wanted.values())), False
    for member in archive:
        file = archive.extractfile(member)
        if file is None:
            raise CommandFailed(f"{source}: {member.name!r} is not a plain file; this is no backup of Turnout's")
        if member.name == STORE:
            seen_store = True
            with (fresh / store_name).open("xb") as sink:
                shutil.copyfileobj(file, sink)
                sink.flush()
                os.fsync(sink.fileno())
        elif (digest := member.name.removeprefix(BLOBS)) in wanted:
            _put(blobs, file, digest, fresh)
            meter(wanted.pop(digest))
    if wanted or not seen_store:
        missing = STORE if not seen_store else next(iter(wanted))
        raise CommandFailed(f"{source} is cut short: {missing} is missing. Use another backup.")
    return len(head["blobs"])


def _put(blobs: BlobStore, file: IO[bytes], digest: str, folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix="restoring-") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        blobs.put_file(Path(copy.name), expected=digest)


def _read_head(archive: tarfile.TarFile, source: Path) -> dict[str, Any]:
    first = archive.next()
    file = archive.extractfile(first) if first is not None and first.name == HEAD else None
    if file is None:
        raise CommandFailed(f"{source} is no backup made by turnout backup: it does not begin with {HEAD}")
    try:
        head: dict[str, Any] = json.loads(file.read(HEAD_MAX_BYTES))
        schema = int(head["schema"])
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(f"{source}: {HEAD} cannot be read. Use another backup.") from None
    if schema > SCHEMA:
        raise CommandFailed(
            f"{source} was written by a newer turnout ({head.get('turnout')}); restore it with that one"
        )
    return head


async def _copy_store(path: Path, target: Path) -> None:
    store = SqliteStore(path)
    try:
        await store.backup(target)
    finally:
        await store.close()


async def _verified(path: Path) -> Verification:
    store = SqliteStore(path)
    try:
        return await verify_store(store)
    finally:
        await store.close()


def _check_store(path: Path, source: Path) -> None:
    fault = asyncio.run(_verified(path)).fault
    if fault is not None:
        raise CommandFailed(f"{source}: the audit chain in it is broken: {fault}. Use another backup.")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A private folder in the target's file system, so that the last step is a rename; gone at the end."""
    parent = target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{target.name}-") as folder:
        yield Path(folder)
