"""Blobs encrypted at rest: AES-256-GCM in chunks of 1 MiB, so that a file of any size passes through little memory.

    turnout-sealed-1⏎ · key's name (8 bytes) · salt (32 bytes) · chunk · chunk · … · last chunk

Each file has a key of its own, HKDF-SHA256 of the store's key and the salt, so that a nonce never comes twice under one
key. A chunk's nonce is its number and whether it is the last: none can be left out, put elsewhere, or cut off (the
STREAM construction, https://eprint.iacr.org/2015/189). The header is authenticated with every chunk. That the file is
the one of its name is told by the digest of the plain bytes, as ever.

A file without the header is a plain one, stored before there was a key: it is read as it is, and sealed by
``turnout rekey``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import IntegrityError
from gateway.registry.blob_records import Progress, Stored
from gateway.registry.canonical import DIGEST_PREFIX
from gateway.registry.sealing.copies import PlainCopies
from gateway.registry.sealing.forms import CHUNK_BYTES, MAGIC, Readable
from gateway.registry.sealing.keys import KEY_BYTES, NAME_BYTES, SealingKey, SealingKeys

__all__ = ["MAGIC", "Sealed", "key_name_of"]

_SALT_BYTES, _TAG_BYTES = 32, 16
_HEADER_BYTES = len(MAGIC) + NAME_BYTES + _SALT_BYTES


class Sealed:
    """Writes with the key of now; reads what any known one has sealed, and what is not sealed at all."""

    plain = False

    def __init__(self, keys: SealingKeys, copies: PlainCopies) -> None:
        self._keys = keys
        self._copies = copies

    def __repr__(self) -> str:
        return f"<Sealed with {self._keys!r}>"

    @property
    def key_name(self) -> bytes:
        return self._keys.current.name

    def write(self, source: Readable, target: IO[bytes], progress: Progress | None = None, size: int = 0) -> Stored:
        key = self._keys.current
        header = MAGIC + key.name + os.urandom(_SALT_BYTES)
        cipher = _cipher(key, header)
        target.write(header)
        digest, done, number = hashlib.sha256(), 0, 0
        chunk = source.read(CHUNK_BYTES)
        while True:
            following = source.read(CHUNK_BYTES) if chunk else b""
            target.write(cipher.encrypt(_nonce(number, last=not following), chunk, header))
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, max(size, done))
            if not following:
                return Stored(DIGEST_PREFIX + digest.hexdigest(), done)
            chunk, number = following, number + 1

    def chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        header = file.read(_HEADER_BYTES)
        if not header.startswith(MAGIC):
            yield from _plain_chunks(header, file)
            return
        if len(header) < _HEADER_BYTES:
            raise IntegrityError(
                "the file was cut off in its header; restore it from a backup, or push the version here again"
            )
        key = self._keys.named(_name_in(header))
        if key is None:
            raise IntegrityError(
                f"it is sealed with key {_name_in(header).hex()}, which registry.encryption does not hold: name that "
                "key under registry.encryption.previous"
            )
        cipher, number = _cipher(key, header), 0
        chunk = file.read(CHUNK_BYTES + _TAG_BYTES)
        while True:
            following = file.read(CHUNK_BYTES + _TAG_BYTES)
            try:
                yield cipher.decrypt(_nonce(number, last=not following), chunk, header)
            except InvalidTag:
                raise IntegrityError(
                    f"its sealed chunk {number} was altered, or the file was cut off; restore it from a backup, or "
                    "push the version here again"
                ) from None
            if not following:
                return
            chunk, number = following, number + 1

    def size(self, stored_bytes: int) -> int:
        body = max(0, stored_bytes - _HEADER_BYTES)
        return max(0, body - _TAG_BYTES * -(-body // (CHUNK_BYTES + _TAG_BYTES)))

    def local(self, path: Path, digest: str) -> Path:
        """A copy in memory: what is encrypted at rest is not written to a disk in plain."""
        with path.open("rb") as file:
            return self._copies.path(digest, self.chunks(file), self.size(os.fstat(file.fileno()).st_size))

    def close(self) -> None:
        self._copies.close()


def key_name_of(path: Path) -> bytes | None:
    """None: it is a plain file."""
    with path.open("rb") as file:
        header = file.read(len(MAGIC) + NAME_BYTES)
    return _name_in(header) if header.startswith(MAGIC) else None


def _name_in(header: bytes) -> bytes:
    return header[len(MAGIC) : len(MAGIC) + NAME_BYTES]


def _cipher(key: SealingKey, header: bytes) -> AESGCM:
    salt = header[-_SALT_BYTES:]
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"turnout-blob").derive(key.secret))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _plain_chunks(first: bytes, file: IO[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
