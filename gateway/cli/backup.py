"""A home as one archive and back: the store, consistent while in use, and every artifact, each proved by its digest.

A tar file: ``turnout-backup.json`` (schema, time, file names with sizes, what was left out), ``store.sqlite``, then
``blobs/<digest>`` one after the other, then ``home/labels.db`` and ``home/decisions/…``, then ``turnout-records.json``
with the names of those. It is written under a temporary name and renamed when whole. Tokens are in it as hashes only;
the generated admin token and the keys that sign and hash are not: a restored home makes its own, and the logs say so.
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
from gateway.registry.sealing.forms import Chunks, Readable
from gateway.telemetry.saving import Saved, is_saved_name, saved_decisions, saved_labels

__all__ = ["BackupReport", "read_backup", "write_backup"]

SCHEMA = 1
HEAD = "turnout-backup.json"
STORE = "store.sqlite"
BLOBS = "blobs/"
RECORDS = "home/"
LISTED = "turnout-records.json"
KEPT_OUT = ("admin-token", "signing keys", "the secret that keys are hashed with")
HEAD_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What an archive holds. ``records``: files of labels and decisions."""

    file: str
    artifacts: int
    size_bytes: int
    records: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def write_backup(
    store_path: Path,
    blobs: BlobStore,
    target: Path,
    steps: Steps,
    *,
    home: Path | None = None,
    decisions: bool = True,
) -> BackupReport:
    """``home`` has the labels and the decision log that go with it; without ``decisions`` the log stays out. Raises
    CommandFailed, StoreUnavailable or IntegrityError; then nothing new stands at ``target``."""
    with _beside(target) as folder:
        copy = folder / STORE
        asyncio.run(_copy_store(store_path, copy))
        entries = list(blobs.entries())  # after the store: whatever its documents name is already there
        partial = folder / "archive.tar"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            meter = steps("saving", sum(entry.size_bytes for entry in entries))
            records = _records(home, folder, decisions=decisions)
            left_out = [*KEPT_OUT, *([] if home is not None and decisions else ["the decision log"])]
            saved = _write(sink, copy, blobs, entries, records=records, left_out=left_out, meter=meter)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(target)
    return BackupReport(str(target), len(entries), target.stat().st_size, saved)


def _records(home: Path | None, scratch: Path, *, decisions: bool) -> Iterator[Saved]:
    if home is None:
        return
    try:
        yield from saved_labels(home, scratch)
        yield from saved_decisions(home) if decisions else ()
    except OSError as error:
        raise CommandFailed(f"labels or decisions of {home} cannot be read: {error}; nothing was saved") from None


def _write(
    sink: IO[bytes],
    store: Path,
    blobs: BlobStore,
    entries: list[BlobEntry],
    *,
    records: Iterator[Saved],
    left_out: list[str],
    meter: Meter,
) -> int:
    """How many files of records there were."""
    head = {
        "left_out": left_out,
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
            _add(archive, BLOBS + entry.digest, Chunks(blobs.stream(entry.digest)), check.size_bytes)
            meter(entry.size_bytes)
        names = []
        for saved in records:
            with saved.file:
                _add(archive, RECORDS + saved.name, saved.file, saved.size_bytes)
            names.append(saved.name)
        listing = json.dumps(names).encode()
        _add(archive, LISTED, io.BytesIO(listing), len(listing))
    return len(names)


def _add(archive: tarfile.TarFile, name: str, source: Readable, size: int) -> None:
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
                count, records = _extract(archive, source, fresh, store_name, steps)
        except (tarfile.TarError, EOFError) as error:
            raise CommandFailed(f"{source} is no whole backup: {error}. Use another one.") from None
        _check_store(fresh / store_name, source)
        if home.exists():
            home.rmdir()
        fresh.replace(home)
    return BackupReport(str(source), count, source.stat().st_size, records)


def _extract(archive: tarfile.TarFile, source: Path, fresh: Path, store_name: Path, steps: Steps) -> tuple[int, int]:
    head = _read_head(archive, source)
    wanted = {str(row["digest"]): int(row["size_bytes"]) for row in head["blobs"]}
    blobs, meter, seen_store = BlobStore(fresh), steps("restoring", sum(wanted.values())), False
    records: set[str] = set()
    listed: list[str] | None = None
    for member in archive:
        file = archive.extractfile(member)
        if file is None:
            raise CommandFailed(f"{source}: {member.name!r} is not a plain file; this is no backup of Turnout's")
        if member.name == STORE:
            seen_store = True
            _keep(file, fresh / store_name)
        elif member.name == LISTED:
            listed = list(json.loads(file.read(HEAD_MAX_BYTES)))
        elif is_saved_name(name := member.name.removeprefix(RECORDS)) and member.name.startswith(RECORDS):
            (fresh / name).parent.mkdir(exist_ok=True)
            _keep(file, fresh / name)
            records.add(name)
        elif (digest := member.name.removeprefix(BLOBS)) in wanted:
            _put(blobs, file, digest, fresh)
            meter(wanted.pop(digest))
    gone = set(listed or ()) - records
    if wanted or not seen_store or gone or (listed is None and "left_out" in head):
        missing = STORE if not seen_store else next(iter([*wanted, *sorted(gone), LISTED]))
        raise CommandFailed(f"{source} is cut short: {missing} is missing. Use another backup.")
    return len(head["blobs"]), len(records)


def _keep(file: IO[bytes], path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        shutil.copyfileobj(file, sink)
        sink.flush()
        os.fsync(sink.fileno())


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
