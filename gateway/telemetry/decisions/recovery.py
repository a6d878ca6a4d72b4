"""How the log stands when a writer starts: where its last segment ends in a whole frame, and what is missing behind.

A writer that was killed may leave part of a frame at the end: it is cut off, and the gap record that is written next
says so. Damage in the middle, with whole frames behind it, is none of a killed writer's: it is left as it is, for the
verifier to name, and told of as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.telemetry.decisions.frames import CONTROL, GENESIS, MAGIC, Damage, Frame, read_frames
from gateway.telemetry.decisions.segments import listed
from gateway.telemetry.decisions.standing import KEPT_REVISIONS, Standing

__all__ = ["Recovered", "recover"]


@dataclass(slots=True)
class Recovered:
    """``number`` of the last segment (0: there is none), and how the chain stood behind its last whole frame.

    ``resumable``: there is a file to append to. ``closed``: the writer before had ended it. ``cut_bytes`` were taken
    off, with ``cut_lines`` ends of lines in them; ``damaged``: places in the middle, in words."""

    number: int = 0
    sequence: int = 0
    link: bytes = GENESIS
    offset: int = 0
    begun_ms: int = 0
    records: int = 0
    standing: Standing = field(default_factory=lambda: Standing(KEPT_REVISIONS))
    resumable: bool = False
    closed: bool = True
    cut_bytes: int = 0
    cut_lines: int = 0
    damaged: tuple[str, ...] = ()
    signed: int = 0


def recover(folder: Path) -> Recovered:
    """Cuts a torn tail off. Raises OSError."""
    segments = listed(folder)
    cut = 0
    while segments:
        last = segments[-1]
        if not last.raw:
            return Recovered(number=last.number, closed=False)
        found = _walk(last.log, last.number)
        if found.resumable:
            found.cut_bytes += cut
            return found
        # Not even its first frame is whole: the writer was killed as it began the segment.
        if len(segments) == 1:
            found.number -= 1
        cut += last.log.stat().st_size
        last.log.unlink()
        segments = segments[:-1]
    return Recovered(closed=cut == 0, cut_bytes=cut)


def _walk(path: Path, number: int) -> Recovered:
    state, damaged = Recovered(number=number, offset=len(MAGIC)), list[str]()
    torn = None
    with path.open("rb") as file:
        for found in read_frames(file):
            if isinstance(found, Frame):
                _take(state, found)
            elif found.more:
                damaged.append(f"{path.name}, byte {found.offset}: {found.reason}")
            else:
                torn = found
        if torn is not None and state.resumable:
            file.seek(torn.offset)
            state.cut_lines = file.read().count(b"\n")
    state.damaged = tuple(damaged)
    if torn is not None and state.resumable:
        _cut(path, torn, state)
    return state


def _take(state: Recovered, frame: Frame) -> None:
    state.resumable = True
    state.sequence, state.link, state.offset = frame.last, frame.link, frame.end
    if frame.kind != CONTROL:
        state.records += len(frame.lines)
        state.closed = False
        return
    for line in frame.lines:
        event: Mapping[str, Any] = orjson.loads(line)
        state.standing.take(event)
        state.closed = event.get("event") == "close"
        if event.get("event") == "segment":
            state.begun_ms = frame.written_ms


def _cut(path: Path, torn: Damage, state: Recovered) -> None:
    state.closed = False
    with path.open("rb+") as file:
        state.cut_bytes = file.seek(0, os.SEEK_END) - torn.offset
        file.truncate(torn.offset)
        file.flush()
        os.fsync(file.fileno())
