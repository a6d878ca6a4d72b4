"""The store of desired state in one SQLite file: WAL, ``synchronous=FULL``, a thread of its own.

A commit is one transaction: the documents, their history, the state revision and the audit
record stand or fall together. What is living stands whole in ``living``, and each revision in
``history``, mostly as its difference to the one before; audit records name the revisions they
went from and to, so the chain's digests prove the history too.

SQLite has no watch: commits of this process wake watchers at once, those of other processes
are noticed by polling ``PRAGMA data_version``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from gateway.clock import Clock, SystemClock
from gateway.control.audit import canonical
from gateway.control.sqlite_schema import migrate, refuse_newer, unavailable
from gateway.control.sqlite_tables import (
    KnownBodies,
    PastBodies,
    read_living,
    read_past,
    read_record,
    read_snapshot,
    state_revision,
    write,
)
from gateway.control.store import AuditEntry, AuditRecord, Change, Document, DocumentKey, Fence, Snapshot, Terms
from gateway.errors import StoreUnavailable

__all__ = ["SqliteStore"]

T = TypeVar("T")

_CACHE_KB = 256
"""Of the file, kept in memory. SQLite would take 2 MB a connection, and fill it as changes come."""


class SqliteStore:
    """``poll_s``: how late a commit of another process may be noticed.

    The file is opened (and checked, and migrated) by the first call; ``open`` makes that
    explicit. After a failure of the disk the connection is opened anew by the next call.
    """

    def __init__(
        self, path: Path, *, clock: Clock | None = None, busy_timeout_ms: int = 3000, poll_s: float = 0.1
    ) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._busy_timeout_ms = busy_timeout_ms
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turnout-store")
        self._watchers: set[asyncio.Event] = set()
        self._closed = False
        # Below: touched by the store's thread only.
        self._terms = Terms()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._data_version = -1
        self._revision = -1
        self._bodies: KnownBodies = {}

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path} [revision {self._revision}]>"

    async def open(self) -> SqliteStore:
        """Raises StoreUnavailable when the file is corrupt, newer than this program, or cannot be reached."""
        await self._call(self._newest)
        return self

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connected())
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise unavailable(self._path, error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._require_same_file()
            self._connection = connect(self._path, self._busy_timeout_ms)
            self._file = _identity(self._path)
            self._data_version = -1
        else:
            self._require_same_file()
            refuse_newer(self._connection, self._path)
        return self._connection

    def _require_same_file(self) -> None:
        """SQLite would go on writing to a deleted file and call it durable; and an empty file made in its place
        would say that there are no routes. The connection stays, so that the system cannot give its number away."""
        if self._file is not None and _identity(self._path) != self._file:
            raise StoreUnavailable(
                f"the store file {self._path} was removed or replaced while the gateway ran: "
                "put it back, or restore a backup and start the gateway again"
            )

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _newest(self, connection: sqlite3.Connection) -> int:
        """The state revision; asks the tables only when another connection has written."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._revision = state_revision(connection)
        return self._revision

    async def snapshot(self) -> Snapshot:
        return await self._call(self._snapshot)

    def _snapshot(self, connection: sqlite3.Connection) -> Snapshot:
        return read_snapshot(connection, self._bodies)

    async def read(self, key: DocumentKey) -> Document | None:
        def work(connection: sqlite3.Connection) -> Document | None:
            return read_living(connection, key)

        return await self._call(work)

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        bodies = [None if change.body is None else canonical(change.body).decode("ascii") for change in changes]
        now = self._clock.wall()

        def work(connection: sqlite3.Connection) -> int:
            self._terms.pass_through(fence)
            connection.execute("BEGIN IMMEDIATE")
            try:
                revision = write(connection, changes, bodies=bodies, entry=entry, at=at, now=now)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            self._revision = revision
            return revision

        revision = await self._call(work)
        for event in self._watchers:
            event.set()
        return revision

    async def history(self, key: DocumentKey, *, limit: int = 100) -> Sequence[Document]:
        def work(connection: sqlite3.Connection) -> Sequence[Document]:
            return read_past(connection, key, limit)

        return await self._call(work)

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRecord]:
        def work(connection: sqlite3.Connection) -> Sequence[AuditRecord]:
            rows = connection.execute(
                "SELECT sequence, at, revision, actor, action, subject, reason, detail, changes, previous, digest, "
                "token FROM audit WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
            bodies = PastBodies(connection)
            return tuple(read_record(bodies, row) for row in rows)

        return await self._call(work)

    async def watch(self, after: int) -> AsyncIterator[int]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                event.clear()
                newest = await self._call(self._newest)
                if newest > after:
                    after = newest
                    yield newest
                    continue
                timer = self._clock.call_at(self._clock.monotonic() + self._poll_s, event.set)
                try:
                    await event.wait()
                finally:
                    timer.cancel()
        finally:
            self._watchers.discard(event)

    async def backup(self, target: Path) -> None:
        """A consistent copy of the store at ``target``, made while it is in use; replaces a file there whole."""
        await asyncio.to_thread(self._backup, target)

    def _backup(self, target: Path) -> None:
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with (
                closing(_existing(self._path, self._busy_timeout_ms)) as source,
                closing(sqlite3.connect(partial)) as copy,
            ):
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            _sync(partial)
            partial.replace(target)
            _sync(target.parent)
        except (sqlite3.Error, OSError) as error:
            partial.unlink(missing_ok=True)
            raise StoreUnavailable(
                f"the store {self._path} could not be copied to {target}: {error}; check the path and its free space"
            ) from error


def connect(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    """Opens, checks and migrates the file. Raises StoreUnavailable, ``sqlite3.Error`` or ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_ms / 1000, isolation_level=None)
    try:
        _use_wal(connection, busy_timeout_ms)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {verdict}")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _existing(path: Path, busy_timeout_ms: int) -> sqlite3.Connection:
    """A connection that never makes the file: a backup of nothing must not replace a good one."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=busy_timeout_ms / 1000)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None when nothing is there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _use_wal(connection: sqlite3.Connection, busy_timeout_ms: int) -> None:
    """The change to WAL does not wait for its lock as other statements do; two first starts at once need that."""
    limit = time.monotonic() + busy_timeout_ms / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > limit:
                raise
            time.sleep(0.01)
        else:
            return


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
