"""The virtual environments of versions: one for each lock file, built once, under the digest of its bytes.

    FOLDER/<sha256>/              a whole environment; ``environment.json`` in it says what was put there
    FOLDER/.building-<sha256>-*   one that is being built, or was when its builder died
    FOLDER/.lock-<sha256>         held while it is built or removed; the kernel lets go when its holder dies

Where the gateway's own interpreter has all that the lock file names, the folder says just that. An environment can
always be built again, so nothing here is worth a backup.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import RegistryError, StorageFull
from gateway.registry import canonical
from gateway.registry.disk import explained, sync_folder
from gateway.registry.environments.building import LOCK, Build, Told
from gateway.registry.environments.contents import altered, differences, folder_bytes, installed, python_of
from gateway.registry.environments.lock import MAX_LOCK_BYTES, Lock, read_lock
from gateway.registry.environments.mismatch import EnvironmentRefused, Mismatch
from gateway.registry.environments.own import OWN, lacking_here
from gateway.registry.environments.record import EnvironmentEntry, read_record, write_record
from gateway.registry.names import check_digest
from gateway.registry.offered import read_offered
from gateway.settings_environments import EnvironmentSettings

__all__ = ["FOLDER", "Environments"]

FOLDER = "environments"
"""In the home."""

_BUILDING, _GONE, _LOCK = ".building-", ".gone-", ".lock-"
_LOOK_S = 0.1
_SHOWN = 5


class Environments:
    """Safe from several threads and processes. One build at a time in this process."""

    def __init__(self, folder: Path, settings: EnvironmentSettings | None = None) -> None:
        self._folder = folder
        self._settings = settings or EnvironmentSettings()
        self._turn = threading.Lock()
        self._build: Build | None = None
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Environments {self._folder}>"

    def read(self, lock: Path | bytes) -> Lock:
        """The lock file, looked through. InvalidRegistration names the line that is not taken."""
        data = lock if isinstance(lock, bytes) else read_offered(lock, "the lock file", MAX_LOCK_BYTES)
        return read_lock(data, indexes=self._settings.indexes)

    def interpreter(self, lock_digest: str) -> Path | None:
        """The Python of the environment; None where it is not built here, or files of it are gone or cut off, or it was
        the gateway's own and that has changed."""
        folder = self._place(lock_digest)
        record = read_record(folder)
        if record is not None and record.own:
            return None if self._lacking(folder, lock_digest) else OWN
        if record is None or next(altered(folder, hashed=False), None) is not None:
            return None
        python = python_of(folder)
        return python if os.access(python, os.X_OK) else None

    def build(self, lock: Path | bytes, *, progress: Told | None = None) -> Path:
        """Builds the environment, unless it is here, and gives its Python. Blocks, for minutes perhaps.

        InvalidRegistration when the lock file is none; EnvironmentRefused when it cannot be met here; StorageFull,
        RegistryError when there is no room.
        """
        told = progress or _silent
        asked = self.read(lock)
        digest = canonical.digest_of(asked.text)
        built = self.interpreter(digest)
        if built is not None:
            return built
        with self._turns(told), explained(f"build an environment in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone(digest, told):
                built = self.interpreter(digest)
                return built or self._built(asked, digest, told)

    def check(self, lock_digest: str) -> tuple[Mismatch, ...]:
        """What is not as the lock file says: nothing, if the environment is sound. Reads all of it, runs nothing."""
        folder = self._place(lock_digest)
        record = read_record(folder)
        if record is None:
            return (Mismatch("environment", lock_digest, None),)
        if record.own:
            return self._lacking(folder, lock_digest)
        text = self._lock_text(folder)
        if canonical.digest_of(text) != lock_digest:
            return (Mismatch("environment", lock_digest, canonical.digest_of(text)),)
        wrong = differences(self.read(text), installed(folder))
        if not os.access(python_of(folder), os.X_OK):
            wrong = (*wrong, Mismatch("python", str(python_of(folder)), None))
        return (*wrong, *altered(folder, hashed=True))

    def entries(self) -> tuple[EnvironmentEntry, ...]:
        """Those that are built, by digest."""
        found = [read_record(folder) for folder in sorted(self._folder.glob("[0-9a-f]*"))]
        return tuple(entry for entry in found if entry is not None)

    def unneeded(self, needed: Collection[str], *, now: float, grace_s: float) -> tuple[EnvironmentEntry, ...]:
        """Those that none of the lock files ``needed`` (digests) asks for, and that were not built just now."""
        return tuple(
            entry for entry in self.entries() if entry.digest not in needed and now - entry.built_at >= grace_s
        )

    def remove(self, lock_digest: str) -> int:
        """The bytes freed; 0 where it is not there, or is being built."""
        folder = self._place(lock_digest)
        record = read_record(folder)
        if record is None:
            return 0
        with self._lock(lock_digest) as lock:
            if not _taken(lock):
                return 0
            self._dispose(folder)
        return record.size_bytes

    def sweep(self) -> None:
        """Removes what dead builders left."""
        for left in [*self._folder.glob(f"{_BUILDING}*"), *self._folder.glob(f"{_GONE}*")]:
            digest = canonical.DIGEST_PREFIX + left.name.split("-")[1]
            with self._lock(digest) as lock:
                if _taken(lock):
                    shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Ends what is being built; nothing is built any more."""
        self._closed.set()
        build = self._build
        if build is not None:
            build.end(_closing())

    def _lock_text(self, folder: Path) -> bytes:
        try:
            return (folder / LOCK).read_bytes()
        except OSError:
            return b""

    def _lacking(self, folder: Path, lock_digest: str) -> tuple[Mismatch, ...]:
        text = self._lock_text(folder)
        if canonical.digest_of(text) != lock_digest:
            return (Mismatch("environment", lock_digest, canonical.digest_of(text)),)
        return lacking_here(self.read(text))

    def _built(self, lock: Lock, digest: str, told: Told) -> Path:
        """Under the environment's lock: what is left of an earlier build is a dead builder's."""
        name, target = digest.removeprefix(canonical.DIGEST_PREFIX), self._place(digest)
        for left in self._folder.glob(f"{_BUILDING}{name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{name}-", dir=self._folder))
        try:
            if self._settings.own and not lock.hashed and not lacking_here(lock):
                (folder / LOCK).write_bytes(lock.text)
                self._seal(folder, lock, platform.python_version(), own=True)
            else:
                version = self._run(Build(lock, folder, self._settings, room_bytes=self._room(), told=told))
                self._seal(folder, lock, version, own=False)
            if target.exists():  # one that is no longer whole
                self._dispose(target)
            folder.rename(target)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self.interpreter(digest) or python_of(target)

    def _run(self, build: Build) -> str:
        self._build = build
        try:
            if self._closed.is_set():
                raise _closing()
            return build.run()
        finally:
            self._build = None

    def _seal(self, folder: Path, lock: Lock, version: str, *, own: bool) -> None:
        """Written last: a folder without it is no environment."""
        found = {package.name: package.version for package in lock.packages} if own else installed(folder)
        wrong = differences(lock, found)
        if wrong:
            raise EnvironmentRefused(
                f"the environment is not what its lock file says: {'; '.join(map(str, wrong[:_SHOWN]))}"
            )
        if "numpy" not in found and not own:
            raise EnvironmentRefused(
                "the lock file's packages do not have numpy among them, which every version's process needs; add it, "
                "like numpy==2.2.6"
            )
        digest = canonical.digest_of(lock.text)
        write_record(folder, lock=digest, python=version, packages=found, size_bytes=folder_bytes(folder), own=own)

    def _room(self) -> int:
        used = sum(entry.size_bytes for entry in self.entries())
        room = self._settings.max_bytes - used
        if room <= 0:
            raise StorageFull(
                f"environments take {used} bytes, and registry.environments.max_bytes allows "
                f"{self._settings.max_bytes}; free some with turnout gc, or raise it"
            )
        return room

    def _place(self, lock_digest: str) -> Path:
        return self._folder / check_digest(lock_digest).removeprefix(canonical.DIGEST_PREFIX)

    def _dispose(self, folder: Path) -> None:
        """Gone at once for whoever looks, whatever time its files take."""
        with suppress(FileNotFoundError):
            gone = folder.with_name(f"{_GONE}{folder.name}-{os.getpid()}-{threading.get_ident()}")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def _turns(self, told: Told) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            told("waiting for another environment to be built")
            while not self._turn.acquire(timeout=_LOOK_S):
                if self._closed.is_set():
                    raise _closing()
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _alone(self, digest: str, told: Told) -> Iterator[None]:
        with self._lock(digest) as lock:
            if not _taken(lock):
                told("waiting for another process that builds the same environment")
                while not _taken(lock):
                    if self._closed.wait(_LOOK_S):
                        raise _closing()
            yield

    @contextmanager
    def _lock(self, digest: str) -> Iterator[int]:
        path = self._folder / f"{_LOCK}{digest.removeprefix(canonical.DIGEST_PREFIX)}"
        with explained(f"lock an environment in {self._folder}"):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock
        finally:
            os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _silent(_: str) -> None:
    pass


def _closing() -> RegistryError:
    return RegistryError("the environment was not built, since the gateway is shutting down")
