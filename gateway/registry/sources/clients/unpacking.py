"""Archives of strangers, unpacked: names that stay inside, plain files alone, and no more bytes than are taken.

A member that climbs out of the folder, a link, a device, a second member of the same name, a member that unfolds into
far more than is there (a bomb), or one that is encrypted: the archive is refused as a whole. What is packed within a
packed file stays packed. The standard library keeps headers and lists of members in memory, whatever size they unfold
into, so that memory has a limit of its own meanwhile.
"""

from __future__ import annotations

import re
import resource
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_ARCHIVE = re.compile(r".+\.(zip|tar|tgz|tar\.gz)", re.IGNORECASE)
_CHUNK = 1024 * 1024
MOST_RATIO = 200
"""How many times its packed size an archive may unfold into. Weights shrink to a half or so; a bomb made of DEFLATE
reaches 1,032."""
FREE_BYTES = 64 * 1024 * 1024
"""Below this size nobody asks for the ratio: a small file of zeros is no bomb."""
MOST_MEMORY_BYTES = 512 * 1024 * 1024
"""Beyond what the process has when it begins. The members of ten thousand files take some ten megabytes."""


def is_archive(name: str) -> bool:
    return _ARCHIVE.fullmatch(name) is not None


def checked(name: str) -> str:
    """A relative path with forward slashes that stays inside; ValueError for any other."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"it holds a file named {name[:200]!r}, which would lie outside its folder, or cannot be named so"
        )
    return name


def unpack(packed: Path, name: str, folder: Path, limits: Mapping[str, int]) -> None:
    """Into ``folder``; a single folder at the top of the archive is left out of the names."""
    size = packed.stat().st_size
    budget = _Budget(limits, most=max(FREE_BYTES, size * MOST_RATIO), name=name)
    try:
        with _bounded_memory():
            if name.lower().endswith(".zip"):
                with zipfile.ZipFile(packed) as archive:
                    _write(_zip_members(archive, budget), folder, budget)
            else:
                mode = "r|" if name.lower().endswith(".tar") else "r|gz"
                with tarfile.open(packed, mode) as tar:  # type: ignore[call-overload]  # a stream: each byte is read once
                    _write(_tar_members(tar, budget), folder, budget)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{name} is no archive that can be read: {error}") from error
    except MemoryError:
        raise ValueError(
            f"{name} has a header or a list of members that takes over {MOST_MEMORY_BYTES} bytes of memory: that is no "
            "model but a bomb"
        ) from None
    except OSError as error:
        if error.errno is None:  # gzip's own, which has no number
            raise ValueError(f"{name} is no archive that can be read: {error}") from error
        raise
    _lift(folder)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY_BYTES
    if before != resource.RLIM_INFINITY:
        most = min(most, before)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


class _Budget:
    """What is left to be unpacked."""

    def __init__(self, limits: Mapping[str, int], *, most: int, name: str) -> None:
        self._files = limits["files"]
        self._limit = limits["bytes"]
        self._most = most
        self._name = name
        self._done = 0
        self._names: set[str] = set()

    def add_file(self, name: str) -> str:
        checked(name)
        if name in self._names:
            raise ValueError(f"{self._name} holds two files named {name!r}")
        self._names.add(name)
        if len(self._names) > self._files:
            raise ValueError(f"{self._name} holds over {self._files} files, more than are taken for one version")
        return name

    def add_bytes(self, count: int) -> None:
        self._done += count
        if self._done > self._limit:
            raise ValueError(f"{self._name} unfolds into over {self._limit} bytes, more than are taken for one version")
        if self._done > self._most:
            raise ValueError(
                f"{self._name} unfolds into over {self._most} bytes, {MOST_RATIO} times its own size and more: that is "
                "no model but a bomb; unpack it yourself if you know better, and register the folder"
            )


def _zip_members(archive: zipfile.ZipFile, budget: _Budget) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        mode = member.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise ValueError(f"it holds {member.filename[:200]!r}, which is a link or a device and no file")
        if member.flag_bits & 1:
            raise ValueError(f"it holds {member.filename[:200]!r}, which is encrypted")
        # zipfile itself turns backslashes of its machine's into slashes; the name as it was written counts.
        name = budget.add_file(member.orig_filename)
        with archive.open(member) as source:
            yield name, source


def _tar_members(tar: tarfile.TarFile, budget: _Budget) -> Iterator[tuple[str, Any]]:
    for member in tar:
        if member.isdir():
            continue
        name = member.name.removeprefix("./")
        if not member.isreg() or member.issparse():
            raise ValueError(f"it holds {name[:200]!r}, which is a link, a device or a sparse file")
        yield budget.add_file(name), tar.extractfile(member)


def _write(members: Iterator[tuple[str, IO[bytes]]], folder: Path, budget: _Budget) -> None:
    for name, source in members:
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"it holds {name!r} as a file and as a folder") from None
        with file:
            while chunk := source.read(_CHUNK):
                budget.add_bytes(len(chunk))
                file.write(chunk)


def _lift(folder: Path) -> None:
    """``fraud-1.2/model.onnx`` becomes ``model.onnx``: archives are mostly made of one folder."""
    found = list(folder.iterdir())
    if not found:
        raise ValueError("the archive is empty")
    if len(found) != 1 or not found[0].is_dir():
        return
    top = found[0].rename(folder.parent / "lifted")
    for item in top.iterdir():
        item.rename(folder / item.name)
    top.rmdir()
