"""A document's text kept as what differs from the revision before: pieces of that one, and what is new between them.

A model's document names every version, so whole copies of it cost the square of their number. How the pieces are found
is no promise: whatever they are, they give the text again exactly, or are not used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from gateway.control.audit import canonical

__all__ = ["MOST_STEPS", "Base", "Past", "is_difference", "pack"]

MOST_STEPS = 64
"""So many texts are read at most to have one of them again: every so many a whole one is kept."""
_PROBE = 64
"""Characters that are looked for in the other text to go on from there: enough to be in one place of a document,
since every version has a digest and a time of its own."""

_Piece = list[int] | str
"""Start and length of a part of the base, or characters that stand in between."""


@dataclass(frozen=True, slots=True)
class Base:
    """The revision before, whole; ``steps``: how many others are read, at most, to have it from where it is kept."""

    revision: int
    text: str
    steps: int


def pack(text: str, base: Base | None) -> str:
    """What is kept of ``text``, a JSON object: itself, or a JSON list (the base's revision, then the pieces) where
    that takes less than half."""
    if base is None or base.steps + 1 >= MOST_STEPS:
        return text
    pieces = _joined(_pieces(base.text, text, 0))
    found = canonical([base.revision, *pieces]).decode("ascii")
    return found if 2 * len(found) <= len(text) and _rebuilt(pieces, base.text) == text else text


def is_difference(kept: str) -> bool:
    return kept.startswith("[")


class Past:
    """One document's texts at its revisions, from what ``kept`` has of each (None: nothing). The last one read is
    held, so that revisions in their order take a step each."""

    def __init__(self, kept: Callable[[int], str | None]) -> None:
        self._kept = kept
        self._last: tuple[int, str] | None = None

    def text(self, revision: int) -> str | None:
        """None where nothing is kept. ValueError, KeyError or TypeError when it is damaged."""
        steps: list[list[_Piece]] = []
        at = revision
        while self._last is None or self._last[0] != at:
            kept = self._kept(at)
            if kept is None and not steps:
                return None
            if kept is None:
                raise ValueError(f"revision {revision} is kept as a difference to revision {at}, which is not there")
            if not is_difference(kept):
                self._last = at, kept
                break
            base, *pieces = json.loads(kept)
            if type(base) is not int or base >= at:
                raise ValueError(f"revision {at} is kept as a difference to {base!r:.60}, which is no earlier one")
            steps.append(pieces)
            at = base
        text = self._last[1]
        for pieces in reversed(steps):
            text = _rebuilt(pieces, text)
        self._last = revision, text
        return text


def _rebuilt(pieces: list[_Piece], base: str) -> str:
    return "".join(piece if isinstance(piece, str) else _part(piece, base) for piece in pieces)


def _part(piece: list[int], base: str) -> str:
    start, length = piece
    part = base[start : start + length]
    if start < 0 or len(part) != length:
        raise ValueError(f"a piece of {length} characters at {start} is not in a text of {len(base)}")
    return part


def _pieces(old: str, new: str, at: int) -> list[_Piece]:
    """``new`` in pieces of ``old``, which begins at ``at`` in the base: the common beginning and end, and what is
    between them from a place on that both have."""
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    between, inserted = old[head : len(old) - tail], new[head : len(new) - tail]
    middle: list[_Piece] = [inserted]
    half = len(between) // 2
    found = _found(between[half : half + _PROBE], inserted, half)
    if found >= 0:
        before = _pieces(between[:half], inserted[:found], at + head)
        middle = before + _pieces(between[half:], inserted[found:], at + head + half)
    return [[at, head], *middle, [at + len(old) - tail, tail]]


def _found(probe: str, text: str, near: int) -> int:
    """Where the probe is: the next place from ``near`` on, else the last one before; -1 when there is none."""
    if len(probe) < _PROBE:
        return -1
    after = text.find(probe, near)
    return after if after >= 0 else text.rfind(probe)


def _common(one: str, other: str) -> int:
    """How many characters both begin with; by halves, as comparing slices is far quicker than characters."""
    known, most = 0, min(len(one), len(other))
    while known < most:
        tried = (known + most + 1) // 2
        if one[known:tried] == other[known:tried]:
            known = tried
        else:
            most = tried - 1
    return known


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    """Without empty ones, and those that follow on each other as one."""
    joined: list[_Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, str):
            if piece and isinstance(last, str):
                joined[-1] = last + piece
            elif piece:
                joined.append(piece)
        elif piece[1]:
            if isinstance(last, list) and last[0] + last[1] == piece[0]:
                joined[-1] = [last[0], last[1] + piece[1]]
            else:
                joined.append(piece)
    return joined
