"""The keyed hash of a routing key: equal keys are seen to be equal, and nobody without the secret can try names."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from gateway.errors import SettingsError

__all__ = ["SECRET_FILE", "KeyedHash"]

SECRET_FILE = "decisions-hash-key"  # noqa: S105 (a name)
_SECRET_BYTES = 32
_HASH_BYTES = 16
_BLOCK_BYTES = 64


class KeyedHash:
    """HMAC-SHA256, its first 128 bits, in hexadecimal (RFC 2104 lets half of it stand for all)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # The two states that HMAC begins from, made once: a third of the time of a call that makes them each time.
        block = (secret if len(secret) <= _BLOCK_BYTES else hashlib.sha256(secret).digest()).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in block))
        self._outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in block))

    def __repr__(self) -> str:
        return f"<KeyedHash {self.name}>"

    @property
    def name(self) -> str:
        """Which secret it is, without telling it: hashes under different ones cannot be compared."""
        return hashlib.sha256(b"turnout-decisions\n" + self._secret).hexdigest()[:8]

    def __call__(self, key: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.digest()[:_HASH_BYTES].hex()

    @classmethod
    def of(cls, home: Path) -> KeyedHash:
        """The home's, made if it has none: mode 0600, whole or not at all. Raises SettingsError."""
        path = home / SECRET_FILE
        try:
            if not path.exists():
                _make(path)
            secret = bytes.fromhex(path.read_text("ascii").strip())
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the secret {path} that routing keys are hashed with cannot be read or made: {error}; check its "
                "owner, or put it back from a backup"
            ) from error
        if len(secret) != _SECRET_BYTES:
            raise SettingsError(f"the secret {path} has {len(secret)} bytes, expected {_SECRET_BYTES} in hexadecimal")
        return cls(secret)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_SECRET_BYTES).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its secret is the home's
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
