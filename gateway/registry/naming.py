"""Which blobs a document names: every digest that stands anywhere in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["digests_in"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digests_in(body: Any) -> frozenset[str]:
    """Whole strings only, keys included. What a part added later writes there is found too."""
    return frozenset(_walk(body))


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if _DIGEST.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(key)
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)
