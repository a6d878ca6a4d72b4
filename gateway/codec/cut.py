"""Long lists of numbers cut out of a JSON text, so that what is left can be read by anyone and they by simdjson.

Each list is replaced by ``[n]``, n a whole number whose digits stand nowhere else in the rest. If the
rest is JSON, ``[n]`` is one whole value in it, outside every string, since what was cut holds no quote
and quotes are paired as the rest's own reader pairs them; and if what was cut is one whole JSON list,
the text is JSON too, with that list in the place of ``[n]``. Nothing is believed before both are
shown: the cut is a guess, and whoever reads the two pieces finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Cut", "cut_numbers"]

_LONG_BYTES = 4096
"""A list from here on is cut out."""

_MAX_QUOTES = 4096
_BLOCK_BYTES = 256 * 1024
_EDGE_BYTES = 256
_MANY_BACKSLASHES = 64
_QUOTE = ord('"')
_FIRST_STAND_IN = 604_800_000_000_000_017


@dataclass(frozen=True, slots=True)
class Cut:
    """``rest`` is the text with stand-ins, ``lists`` the text of the list that each stand-in stands for."""

    rest: bytes
    lists: dict[int, memoryview]

    def list_of(self, value: object) -> memoryview | None:
        """What the rest's ``[n]`` stands for; None when ``value`` is no stand-in."""
        if type(value) is not list or len(value) != 1 or type(value[0]) is not int:
            return None
        return self.lists.get(value[0])


def cut_numbers(text: memoryview) -> Cut | None:
    """None when nothing is worth cutting, or when it is a text of many strings."""
    quotes = _quotes(text)
    if quotes is None or len(quotes) % 2:
        return None
    spans = [span for start, end in _outside(quotes, len(text)) if (span := _long_list(text, start, end)) is not None]
    if not spans:
        return None
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [bytes(text[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    names = _stand_ins(b" ".join(pieces), len(spans))
    rest = [pieces[0]]
    for name, piece in zip(names, pieces[1:], strict=True):
        rest += [b"[%d]" % name, piece]
    return Cut(b"".join(rest), {name: text[start:end] for name, (start, end) in zip(names, spans, strict=True)})


def _quotes(text: memoryview) -> list[int] | None:
    """Where the quotes stand that begin or end a string; None when they are many."""
    octets = np.frombuffer(text, np.uint8)
    found: list[int] = []
    for start in range(0, len(octets), _BLOCK_BYTES):
        places = np.flatnonzero(octets[start : start + _BLOCK_BYTES] == _QUOTE)
        if len(found) + len(places) > _MAX_QUOTES:
            return None
        found += (places + start).tolist()
    behind = [_backslashes(text, place) for place in found]
    if _MANY_BACKSLASHES in behind:
        return None
    return [place for place, count in zip(found, behind, strict=True) if count % 2 == 0]


def _backslashes(text: memoryview, place: int) -> int:
    """How many stand right before a quote, which is escaped when they are odd."""
    before = bytes(text[max(0, place - _MANY_BACKSLASHES) : place])
    return len(before) - len(before.rstrip(b"\\"))


def _outside(quotes: list[int], end: int) -> Iterator[tuple[int, int]]:
    """The stretches behind each string, up to the next one."""
    for index in range(1, len(quotes), 2):
        yield quotes[index] + 1, quotes[index + 1] if index + 1 < len(quotes) else end


def _long_list(text: memoryview, start: int, end: int) -> tuple[int, int] | None:
    """The list that a key's colon brings: from the first ``[`` to the last ``]`` before any ``}``."""
    if end - start < _LONG_BYTES:
        return None
    head = bytes(text[start : start + _EDGE_BYTES])
    opening = head.find(b"[")
    if opening < 0 or head[:opening].strip() != b":":
        return None
    edge = end - _EDGE_BYTES
    tail = bytes(text[edge:end])
    brace = tail.find(b"}")
    closing = tail.rfind(b"]", 0, brace if brace >= 0 else len(tail))
    return None if closing < 0 else (start + opening, edge + closing + 1)


def _stand_ins(rest: bytes, count: int) -> list[int]:
    """Whole numbers that the rest does not hold."""
    names: list[int] = []
    name = _FIRST_STAND_IN
    while len(names) < count:
        if b"%d" % name not in rest:
            names.append(name)
        name += 1
    return names
