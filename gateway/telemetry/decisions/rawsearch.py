"""Finds records in a segment of frames by the bytes of an id: no index to keep, and nothing to pay while recording.

32 MiB are read and searched in some 10 ms. A hit is only a hint: the frame that holds it is read whole, and its lines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from gateway.telemetry.decisions.fields import PLACE, decoded
from gateway.telemetry.decisions.found import Hit, Question
from gateway.telemetry.decisions.frames import CONTROL, HEAD_BYTES, MAGIC, RECORDS, Frame, read_frames

__all__ = ["controls_in", "find_in", "newest_in"]

_CHUNK_BYTES = 1024 * 1024
_LENGTH = struct.Struct("<I")
_REQUEST = PLACE["request"]


def find_in(path: Path, sought: str, *, request: bool = False) -> list[Hit]:
    """Records of the decision, and control records about it; or of requests with this id. Raises OSError."""
    quoted = orjson.dumps(sought)
    needle = b"," + quoted + b"," if request else quoted
    found: list[Hit] = []
    with path.open("rb") as file:
        for frame in _frames_with(file, needle):
            found += _matching(frame, needle, sought, request=request)
    return found


def newest_in(path: Path, question: Question, limit: int) -> list[Hit]:
    """In descending order of decision ids."""
    found: list[Hit] = []
    with path.open("rb") as file:
        for frame in read_frames(file):
            if isinstance(frame, Frame) and frame.kind == RECORDS:
                for sequence, text in enumerate(frame.lines, frame.sequence):
                    line = decoded(text)
                    if question.takes(line):
                        found.append(Hit(sequence, line[0], line))
            if len(found) > 16 * limit:
                found = _last(found, limit)
    return _last(found, limit)


def controls_in(path: Path) -> Iterator[tuple[int, bytes]]:
    """Control records with their places in the chain, found by their frames' heads alone."""
    with path.open("rb") as file:
        offset = len(MAGIC)
        while (head := _head(file, offset)) is not None:
            length, kind = head
            if kind == CONTROL:
                frame = next(read_frames(file, offset), None)
                if isinstance(frame, Frame):
                    yield from enumerate(frame.lines, frame.sequence)
            offset += HEAD_BYTES + length


def _last(found: list[Hit], limit: int) -> list[Hit]:
    return sorted(found, key=lambda hit: hit.decision, reverse=True)[:limit]


def _matching(frame: Frame, needle: bytes, sought: str, *, request: bool) -> Iterator[Hit]:
    for sequence, text in enumerate(frame.lines, frame.sequence):
        if needle not in text:
            continue
        if frame.kind == RECORDS:
            line = decoded(text)
            if line[_REQUEST if request else 0] == sought:
                yield Hit(sequence, line[0], line)
        elif not request:
            event: dict[str, Any] = orjson.loads(text)
            if event.get("decision") == sought:
                yield Hit(sequence, sought, None, text.decode())


def _frames_with(file: BufferedReader, needle: bytes) -> Iterator[Frame]:
    places = _places(file, needle)
    place = next(places, None)
    offset = len(MAGIC)
    while place is not None and (head := _head(file, offset)) is not None:
        end = offset + HEAD_BYTES + head[0]
        if place < end:
            frame = next(read_frames(file, offset), None)
            if isinstance(frame, Frame):
                yield frame
            while place is not None and place < end:
                place = next(places, None)
        offset = end


def _places(file: BufferedReader, needle: bytes) -> Iterator[int]:
    """Where the bytes stand, ascending. One buffer for all of the file: fresh ones cost as much as the search."""
    kept = len(needle) - 1
    window = bytearray(kept + _CHUNK_BYTES)
    view = memoryview(window)
    begin = held = 0  # the window's place in the file, and how much of it is filled
    while True:
        file.seek(begin + held)
        came = file.readinto(view[held : held + _CHUNK_BYTES])
        if not came:
            return
        held += came
        place = window.find(needle, 0, held)
        while place >= 0:
            yield begin + place
            place = window.find(needle, place + 1, held)
        moved = max(0, held - kept)
        view[: held - moved] = bytes(view[moved:held])
        begin, held = begin + moved, held - moved


def _head(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """The length and kind of the frame there."""
    file.seek(offset)
    head = file.read(HEAD_BYTES + 1)
    if len(head) <= HEAD_BYTES:
        return None
    return _LENGTH.unpack_from(head)[0], head[HEAD_BYTES]
