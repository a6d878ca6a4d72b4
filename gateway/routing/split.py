"""The split, ``turnout-split/1``: which arm a key belongs to. Frozen; equal to flagd's ``fractional`` v2.

MurmurHash3 (x86, 32 bits, seed 0) of the UTF-8 bytes of the route's name followed by the key,
read as an unsigned number; ``bucket = (hash * total) >> 32``; the first arm whose cumulative
weight exceeds the bucket. Integers only, so every replica and language agrees. Specification:
open-feature/flagd, ``docs/architecture-decisions/high-precision-fractional-bucketing.md``.

Two consequences are relied upon. Weight moved between *neighbouring* arms moves only the keys
between the old and the new border, so a canary that grows beside the remainder never gives a
key back. An arm of weight 0 has an empty interval and never gets a key. The name and the key
are joined without a separator, as the specification says: routes ``a`` and ``ab`` share buckets
for the keys ``bc`` and ``c``, which correlates two assignments and makes neither wrong.

A lone surrogate has no UTF-8 form. Such a key is hashed by its WTF-8 bytes (``surrogatepass``)
rather than refused: any text a caller can produce gets a version, and always the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

import mmh3

from gateway.routing.table import Arm

__all__ = ["MAX_TOTAL", "SCHEME", "bucket", "pick"]

SCHEME = "turnout-split/1"
MAX_TOTAL = 2**31 - 1
"""Largest sum of weights the specification allows; whoever builds arms keeps to it."""


def bucket(route: str, key: str, total: int) -> int:
    """The key's place in ``range(total)``. A ``total`` of 0 gives 0, which no arm owns."""
    text = route + key
    try:
        joined = text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-8", "surrogatepass")
    unsigned = mmh3.hash(joined, 0, False)  # bytes, never text: mmh3 5.x crashes the process on a lone surrogate
    return (unsigned * total) >> 32


def pick(arms: Sequence[Arm], place: int) -> int:
    """The version of the first arm whose cumulative weight exceeds ``place``.

    Raises ``ValueError`` when ``place`` lies past the last arm: it was computed with another total.
    """
    reached = 0
    for arm in arms:
        reached += arm.weight
        if place < reached:
            return arm.version
    raise ValueError(f"bucket {place} lies outside arms of total weight {reached}: use the same arms for both steps")
