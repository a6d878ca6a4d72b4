"""The keys that blobs are sealed with: one to write with, all that are known to read with; they may change."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.errors import SettingsError

__all__ = ["KEY_BYTES", "NAME_BYTES", "SealingKey", "SealingKeys"]

log = logging.getLogger("turnout.registry")

KEY_BYTES, NAME_BYTES = 32, 8


@dataclass(frozen=True, slots=True)
class SealingKey:
    """256 bits. ``name`` stands in every file sealed with it and tells nothing of it."""

    secret: bytes = field(repr=False)

    @property
    def name(self) -> bytes:
        return hashlib.sha256(b"turnout-sealing-key" + self.secret).digest()[:NAME_BYTES]

    @classmethod
    def of_text(cls, text: bytes, place: str) -> SealingKey:
        """32 bytes as base64 or hexadecimal. ``place`` is the key's in the settings. SettingsError."""
        for read in (bytes.fromhex, lambda words: base64.b64decode(words, validate=True)):
            try:
                secret = read(text.decode("ascii").strip())
            except (ValueError, binascii.Error):
                continue
            if len(secret) == KEY_BYTES:
                return cls(secret)
        raise SettingsError(f"{place}: expected 32 random bytes as base64 or hexadecimal: openssl rand -base64 32")


class SealingKeys:
    """``now`` gives the key to seal with and those of before, as they are now. Safe from several threads.

    A key that this process has sealed or read with stays known to it to its end: whoever rotates one writes two places,
    one after the other, and what is sealed with the one before must be read in between, and until it is sealed anew.
    """

    def __init__(self, now: Callable[[], tuple[SealingKey, Sequence[SealingKey]]]) -> None:
        self._now = now
        self._key, previous = now()
        self._known = {one.name: one for one in (*previous, self._key)}

    @classmethod
    def of(cls, key: SealingKey, *previous: SealingKey) -> SealingKeys:
        """That stay as they are."""
        return cls(lambda: (key, previous))

    def __repr__(self) -> str:
        return f"<SealingKeys {self._key.name.hex()} [{len(self._known)} known]>"

    @property
    def current(self) -> SealingKey:
        self._look()
        return self._key

    def named(self, name: bytes) -> SealingKey | None:
        self._look()
        return self._known.get(name)

    def _look(self) -> None:
        key, previous = self._now()
        before, self._key = self._key, key
        self._known |= {one.name: one for one in (*previous, key)}
        if before != key:
            log.info("blobs are sealed with key %s from now on; it was %s", key.name.hex(), before.name.hex())
            if before not in previous:
                log.warning(
                    "what is sealed with key %s is read until this process ends: name it under "
                    "registry.encryption.previous before that, or run rekey", before.name.hex(),
                )  # fmt: skip
