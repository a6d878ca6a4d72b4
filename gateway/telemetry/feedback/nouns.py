"""What travels to and from the join of labels, and the names by which it knows them again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gateway.messages import VersionRef
from gateway.routing.truth import Truth
from gateway.telemetry.feedback.sums import Row
from gateway.telemetry.proven_time import STANDS_S

__all__ = [
    "NOBODY",
    "OUTCOMES",
    "Answered",
    "Bounds",
    "HeardLabel",
    "Label",
    "Series",
    "Verdict",
    "digest_of",
    "given_at_ms",
    "id_of",
]

OUTCOMES = ("joined", "late", "early", "duplicate", "conflict", "unknown", "expired", "rejected")
"""Each label ends as one of them; until then it is held. Joined are the first three."""

NOBODY = ("", 0)
"""Whose answer nobody knows."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """``answers`` that wait for labels or have one; ``held`` labels without an answer; ``outcomes`` owed to rollouts;
    ``days`` that sums are kept for; ``horizon_s`` of labels whose route nobody knows; ``stands_s`` that a clock's step
    must stand before anything ends by it."""

    answers: int = 2_000_000
    held: int = 100_000
    outcomes: int = 100_000
    days: int = 60
    horizon_s: float = 7 * 86400.0
    stands_s: float = STANDS_S


class Answered(NamedTuple):
    """One answer on its way in. ``bucket`` None: it is no evidence of its version, by whatever reason."""

    decision_id: str
    route: str
    version: VersionRef
    truth: Truth
    bucket: int | None
    epoch: int
    split: str
    rows: tuple[Row, ...]


class Label(NamedTuple):
    """``routes``: those whose answers the sender may label; None: all. ``sender``: whose place it takes while it is
    held."""

    decision_id: str
    value: Any
    routes: tuple[str, ...] | None = None
    sender: str = ""


class Verdict(NamedTuple):
    """What became of a label: one of ``OUTCOMES``, ``held``, ``full`` (no more can be held) or ``forbidden``; of one
    that was rejected, what was expected and what came."""

    outcome: str
    expected: str = ""
    got: str = ""


class Series(NamedTuple):
    number: int
    route: str
    version: VersionRef
    truth: Truth


HeardLabel = tuple[bytes, Any, tuple[str, ...] | None, str]
"""A label that another replica holds: the answer's id, what it says, the routes that its sender may label, and who
that is (empty: an older replica does not say)."""


def id_of(decision_id: str) -> bytes:
    """Sixteen bytes of a UUID; of any other name, a digest as long."""
    try:
        key = bytes.fromhex(decision_id.replace("-", ""))
    except ValueError:
        key = b""
    if len(key) == 16:
        return key
    return hashlib.blake2b(decision_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def given_at_ms(key: bytes) -> int | None:
    """When a decision id was made (UUIDs of version 7 say it)."""
    return int.from_bytes(key[:6], "big") if key[6] >> 4 == 7 else None


def digest_of(label: Any) -> bytes:
    """So that a label is known again, and not kept: 1, 1.0, true, "1" and [1] are one."""
    listed = label if isinstance(label, list) else [label]
    return hashlib.blake2b(orjson.dumps([_plain(one) for one in listed]), digest_size=12).digest()


def _plain(label: Any) -> Any:
    whole = isinstance(label, int) or (isinstance(label, float) and label.is_integer())
    return str(int(label)) if whole else label
