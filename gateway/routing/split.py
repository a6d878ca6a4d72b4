"""Where a key lies in the key space, ``turnout-split/1``. Frozen; equal to flagd's ``fractional`` v2.

MurmurHash3 (x86, 32 bits, seed 0) of the UTF-8 bytes of the route's name followed by the key,
read as an unsigned number. Integers only, so every replica and language agrees. Specification:
open-feature/flagd, ``docs/architecture-decisions/high-precision-fractional-bucketing.md``. Which
version a place belongs to says the route's ``Assignment``, of which the first is flagd's, too.

The name and the key are joined without a separator, as the specification says: routes ``a`` and
``ab`` share places for the keys ``bc`` and ``c``, which correlates two assignments and makes
neither wrong. The name is in it so that not the same users are the first of every rollout.

A lone surrogate has no UTF-8 form. Such a key is hashed by its WTF-8 bytes (``surrogatepass``)
rather than refused: any text a caller can produce gets a version, and always the same one.
"""

from __future__ import annotations

import mmh3

__all__ = ["MAX_TOTAL", "SCHEME", "place_of"]

SCHEME = "turnout-split/1"
MAX_TOTAL = 2**31 - 1
"""Largest sum of weights the specification allows; whoever builds arms keeps to it."""


def place_of(route: str, key: str) -> int:
    """The key's place, from 0 up to 2^32 - 1."""
    text = route + key
    try:
        joined = text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-8", "surrogatepass")
    return mmh3.mmh3_32_uintdigest(joined)  # bytes, never text: mmh3 5.x crashes the process on a lone surrogate
