"""Files of another system, brought into a folder of their own beside the blobs, and gone once they are stored."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from gateway.errors import InvalidRegistration, RegistryError
from gateway.registry.disk import explained
from gateway.registry.fields import Fields
from gateway.registry.sources.access import ForeignPlace, SourceAccess
from gateway.registry.sources.calling import call
from gateway.registry.sources.file import Source, SourceLimits, from_path
from gateway.registry.sources.provenance import Provenance, Resolved

__all__ = ["fetched", "resolve"]

_PREFIX = "fetching-"

Progress = Callable[[int, int], None]


@contextmanager
def fetched(
    place: ForeignPlace,
    access: SourceAccess,
    limits: SourceLimits,
    *,
    entry: str | None,
    format_name: str | None,
    progress: Progress | None,
) -> Iterator[Source]:
    """See ``gateway.registry.sources.opened``."""
    with _folder(access) as folder:
        asked = {"entry": entry, "format": format_name}
        answer = call("fetch", place, access, folder=folder, limits=limits, progress=progress, more=asked)
        with _refusing(place), Fields(answer, f"what {place.text} says") as take:
            told_entry, told_format = take.optional_text("entry"), take.optional_text("format")
            provenance = Provenance.from_take(take, place.scheme, folder)
        files = folder / "files"
        with _in_words_of(place, files):
            source = from_path(files, entry=told_entry or entry, format_name=told_format or format_name, limits=limits)
        yield replace(source, provenance=provenance)


def resolve(place: ForeignPlace, access: SourceAccess) -> Resolved:
    """What the name points at now; nothing is fetched. Raises as ``call`` does."""
    with _folder(access) as folder:
        answer = call("resolve", place, access, folder=folder)
    with _refusing(place):
        return Resolved.from_json(answer, place.scheme)


@contextmanager
def _folder(access: SourceAccess) -> Iterator[Path]:
    """Held by a lock that the kernel lets go of when this process dies, so that the next fetch can sweep it away."""
    with explained("keep fetched files"):
        if access.folder is not None:
            access.folder.mkdir(parents=True, exist_ok=True)
            _sweep(access.folder)
        folder, lock = _held(access.folder)
    try:
        with explained("keep fetched files"):
            for name in ("files", "beside"):
                (folder / name).mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _held(parent: Path | None) -> tuple[Path, int]:
    """A new folder and its lock. One that was taken for a dead process's before it was locked is made again."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _sweep(parent: Path) -> None:
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _refusing(place: ForeignPlace) -> Iterator[None]:
    try:
        yield
    except (RegistryError, ValueError) as error:
        raise InvalidRegistration(f"{place.text}: {error}") from error


@contextmanager
def _in_words_of(place: ForeignPlace, files: Path) -> Iterator[None]:
    """Errors name the place that the operator named, and not the folder that nobody will find again."""
    try:
        yield
    except InvalidRegistration as error:
        text = str(error).replace(f"source {files}", place.text).replace(f"{files}", place.text)
        raise InvalidRegistration(text if place.text in text else f"{place.text}: {text}") from error
