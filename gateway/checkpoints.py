"""Checkpoints of a chain of records: how long it is and what its last digest is, at a time, under a signature.

Who has one from elsewhere can tell, without this gateway, whether the chain was cut off or written anew since.
The form is that of C2SP's signed notes (https://c2sp.org/signed-note) and checkpoints
(https://c2sp.org/tlog-checkpoint): origin, size and head, then a line of our own with the time, and
an Ed25519 signature. The head is the chain's last digest, where a transparency log has the root of a tree::

    turnout/audit
    42
    mx5F…=
    time 2026-11-22T03:00:00Z

    — turnout/audit tVRbUx…=
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.errors import InvalidInput, SettingsError

__all__ = ["AUDIT", "DECISIONS", "Checkpoint", "Log", "SigningKey", "VerifyingKey", "exposed_key", "read_notes"]


@dataclass(frozen=True, slots=True)
class Log:
    """Which chain. ``origin`` is its name in notes, and its key's: chains of different gateways are told apart by their
    keys. ``key_file`` stands in the home; ``words`` and ``key_command`` are for messages."""

    origin: str
    key_file: str
    words: str
    key_command: str


AUDIT = Log("turnout/audit", "audit-key", "audit log", "turnout audit key")
DECISIONS = Log("turnout/decisions", "decisions-key", "decision log", "turnout decisions key")

_ALGORITHM = b"\x01"
"""Ed25519, in signed notes."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SIGNATURE = re.compile(r"— (?P<name>[^ +]+) (?P<signed>[A-Za-z0-9+/=]+)")
_SIZE = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The chain had ``size`` records, the last of them with digest ``head`` (hexadecimal), at ``at``."""

    size: int
    head: str
    at: int
    log: Log = AUDIT

    def text(self) -> str:
        head = base64.b64encode(bytes.fromhex(self.head)).decode("ascii")
        when = datetime.fromtimestamp(self.at, UTC).strftime(_TIME)
        return f"{self.log.origin}\n{self.size}\n{head}\ntime {when}\n"

    @classmethod
    def parse(cls, text: str, log: Log = AUDIT) -> Checkpoint:
        """Raises InvalidInput when it is none of this log."""
        try:
            origin, size, head, when = text.removesuffix("\n").split("\n")
            if origin != log.origin or not _SIZE.fullmatch(size) or not when.startswith("time "):
                raise ValueError(f"expected origin {log.origin!r}, a size and a time")
            digest = base64.b64decode(head, validate=True)
            at = datetime.strptime(when.removeprefix("time "), _TIME).replace(tzinfo=UTC)
        except ValueError as error:  # a wrong number of lines, and binascii's, are ValueErrors too
            raise InvalidInput(f"not a checkpoint of the {log.words} ({error}): {text[:80]!r}") from None
        if len(digest) != hashlib.sha256().digest_size:
            raise InvalidInput(f"not a checkpoint of the {log.words}: its head has {len(digest)} bytes, expected 32")
        return cls(int(size), digest.hex(), int(at.timestamp()), log)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, in the text form of signed notes: ``name+id+base64``."""

    key: Ed25519PublicKey
    log: Log = AUDIT

    def __str__(self) -> str:
        return f"{self.log.origin}+{self.id.hex()}+{base64.b64encode(_ALGORITHM + self._raw).decode('ascii')}"

    @property
    def _raw(self) -> bytes:
        return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.log.origin.encode("ascii") + b"\n" + _ALGORITHM + self._raw).digest()[:4]

    @classmethod
    def parse(cls, text: str, log: Log = AUDIT) -> VerifyingKey:
        """Raises InvalidInput."""
        try:
            if text.count("+") < 2:  # base64 has some, too
                raise ValueError("expected name+id+key")
            name, identity, encoded = text.strip().split("+", 2)
            packed = base64.b64decode(encoded, validate=True)
            if name != log.origin or packed[:1] != _ALGORITHM:
                raise ValueError(f"it is for {name!r}")
            made = cls(Ed25519PublicKey.from_public_bytes(packed[1:]), log)
            if made.id.hex() != identity:
                raise ValueError("its id does not belong to it")
        except (ValueError, binascii.Error) as error:
            raise InvalidInput(
                f"not the public key of the {log.words} ({error}): {text.strip()[:80]!r}; `{log.key_command}` prints "
                "one"
            ) from None
        return made

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in a note, if this key has signed it. Raises InvalidInput for any other, a forged one too."""
        return Checkpoint.parse(self.text_of(note), self.log)

    def text_of(self, note: str) -> str:
        """What a note says, if this key has signed it. Raises InvalidInput."""
        text, separator, signatures = note.partition("\n\n")
        text += "\n"
        for line in signatures.splitlines() if separator else ():
            found = _SIGNATURE.fullmatch(line)
            if found is not None and found["name"] == self.log.origin and self._signed(text, found["signed"]):
                return text
        raise InvalidInput(
            f"the note {text[:80]!r} is not signed by the key {self.id.hex()}: it is forged, was "
            "altered, or belongs to another gateway"
        )

    def _signed(self, text: str, encoded: str) -> bool:
        try:
            packed = base64.b64decode(encoded, validate=True)
            if packed[:4] != self.id:
                return False
            self.key.verify(packed[4:], text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Never leaves the home it was made in."""

    key: Ed25519PrivateKey
    log: Log = AUDIT

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.id.hex()}>"

    @property
    def public(self) -> VerifyingKey:
        return VerifyingKey(self.key.public_key(), self.log)

    def sign(self, checkpoint: Checkpoint) -> str:
        return self.note(checkpoint.text())

    def note(self, text: str) -> str:
        """``text`` signed: lines, each ended, none of them empty."""
        packed = base64.b64encode(self.public.id + self.key.sign(text.encode())).decode("ascii")
        return f"{text}\n— {self.log.origin} {packed}\n"

    @classmethod
    def of(cls, home: Path, log: Log = AUDIT) -> SigningKey:
        """The home's key, made if it has none: mode 0600, whole or not at all. Raises SettingsError."""
        path = home / log.key_file
        try:
            if not path.exists():
                _keep(path, Ed25519PrivateKey.generate())
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the {log.words}'s signing key {path} cannot be read or made: {error}; check its owner, or put it "
                "back from a backup"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"{path} holds a key of another kind than Ed25519; put the right file back")
        return cls(key, log)


def exposed_key(home: Path, log: Log = AUDIT) -> str | None:
    """Why the home's checkpoints prove less than they should; None while only its owner, and perhaps his group, can
    read the key."""
    path = home / log.key_file
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o007:
        return None
    return (
        f"every user of this machine can read or replace the {log.words}'s signing key {path} (mode {mode:o}), and so "
        "sign any history: chmod 600 it, or move it away and hand the auditor the new one"
    )


def _keep(path: Path, key: Ed25519PrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key is the home's
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_notes(text: str, log: Log = AUDIT) -> tuple[Sequence[str], str]:
    """The notes of a file that holds one after the other, and what in it belongs to none: one that was cut short."""
    notes, lines, rest = list[str](), list[str](), list[str]()
    for line in text.splitlines():
        if line == log.origin:
            rest += lines
            lines = []
        elif not line and not lines:
            continue
        lines.append(line)
        if _SIGNATURE.fullmatch(line):
            notes.append("\n".join(lines) + "\n")
            lines = []
    return notes, "\n".join(rest + lines)
