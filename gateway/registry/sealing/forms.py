"""What bytes look like at rest. A digest is always that of the plain bytes, whatever they are stored as."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from gateway.errors import IntegrityError
from gateway.registry.blob_records import Progress, Stored
from gateway.registry.canonical import DIGEST_PREFIX

__all__ = ["CHUNK_BYTES", "MAGIC", "PLAIN", "Chunks", "Form", "Plain", "Readable", "digest_in", "proved"]

CHUNK_BYTES = 1024 * 1024
MAGIC = b"turnout-sealed-1\n"
"""How a sealed file begins."""


class Readable(Protocol):
    """What bytes are taken from: each ``read`` gives as many as were asked for, the last one what is left; below 0 asks
    for all."""

    def read(self, most: int = -1, /) -> bytes: ...


class Chunks:
    """Bytes that come in pieces of any size, read as if from a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = bytearray()

    def read(self, most: int = -1, /) -> bytes:
        while (most < 0 or len(self._rest) < most) and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        taken = bytes(self._rest if most < 0 else self._rest[:most])
        del self._rest[: len(taken)]
        return taken


class Form(Protocol):
    """Streams: none of these holds more than a few chunks in memory."""

    @property
    def plain(self) -> bool:
        """Whether a stored file is the very file that was put."""
        ...

    def write(self, source: Readable, target: IO[bytes], progress: Progress | None = None, size: int = 0) -> Stored:
        """Plain bytes in, bytes at rest out; digest and size are those of the plain ones."""
        ...

    def chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        """The plain bytes. IntegrityError when they cannot be told from what is there."""
        ...

    def size(self, stored_bytes: int) -> int:
        """Of the plain bytes, told from the size at rest."""
        ...

    def close(self) -> None:
        """Gives back what ``local`` holds."""
        ...

    def local(self, path: Path, digest: str) -> Path:
        """A plain file of this machine, to be opened soon. Bytes that were altered: IntegrityError, if seen here."""
        ...


class Plain:
    """As they are."""

    plain = True

    def __repr__(self) -> str:
        return "<Plain>"

    def write(self, source: Readable, target: IO[bytes], progress: Progress | None = None, size: int = 0) -> Stored:
        digest, done = hashlib.sha256(), 0
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, max(size, done))
        return Stored(DIGEST_PREFIX + digest.hexdigest(), done)

    def chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        first = True
        while chunk := file.read(CHUNK_BYTES):
            if first and chunk.startswith(MAGIC):
                raise IntegrityError("it is sealed, and no key is set: name its key under registry.encryption.key")
            first = False
            yield chunk

    def size(self, stored_bytes: int) -> int:
        return stored_bytes

    def local(self, path: Path, digest: str) -> Path:
        return path

    def close(self) -> None: ...


PLAIN = Plain()


def proved(form: Form, file: IO[bytes]) -> tuple[str | None, str, int]:
    """The digest of the plain bytes in a file at rest, None when they cannot be read; why; and how many there are,
    counted: a sealed store may hold files of before in plain, whose size tells another number."""
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in form.chunks(file):
            digest.update(chunk)
            size += len(chunk)
    except IntegrityError as error:
        return None, str(error), size
    return DIGEST_PREFIX + digest.hexdigest(), "", size


def digest_in(form: Form, file: IO[bytes]) -> str | None:
    return proved(form, file)[0]
