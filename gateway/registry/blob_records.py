"""What is said of blobs: stored, listed, checked, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.registry.canonical import DIGEST_PREFIX

__all__ = ["BlobCheck", "BlobEntry", "BlobState", "BlobStatistics", "Progress", "Stored"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put made: the blob's digest (``sha256:…``) and size."""

    digest: str
    size_bytes: int

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix(DIGEST_PREFIX)


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """``stored_at``: seconds since the epoch, when it was last put."""

    digest: str
    size_bytes: int
    stored_at: float


class BlobState(StrEnum):
    OK = "ok"
    MISSING = "missing"
    TRUNCATED = "truncated"
    ALTERED = "altered"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class BlobCheck:
    """What stands under a digest. ``found`` is the digest of the bytes there, None if none could be read."""

    digest: str
    state: BlobState
    found: str | None
    size_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BlobStatistics:
    blobs: int
    bytes: int
