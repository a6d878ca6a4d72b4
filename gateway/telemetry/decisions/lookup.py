"""Answers out of the log's files: one decision by its own id or its request's, or the newest that fit a question.

Frames and Parquet files alike, the open segment too: whatever has been handed to the system is found. Used in a process
of its own (``reader``), or by a command on a home without a gateway; nothing here writes.

A decision id is a UUID of version 7, so few segments may hold it, and of a compacted one the least and greatest id are
known; there its rows stand in their order, and a group's least and greatest id say which group to read. A request id is
found by the file of hashes beside each compacted segment; frames are searched as bytes. The newest comes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from gateway.errors import InvalidInput, NotFound
from gateway.telemetry.decisions.found import Hit, Question
from gateway.telemetry.decisions.ids import decisions_of
from gateway.telemetry.decisions.rawsearch import controls_in, find_in, newest_in
from gateway.telemetry.decisions.segments import Segment, listed
from gateway.telemetry.decisions.standing import Standing
from gateway.telemetry.decisions.views import full_view, short_view

__all__ = ["Lookup", "Tables"]

_TRIES = 4
_STANDINGS = 8
_PATIENCE_S = 2.0
_SLACK_S = 5.0
_UUID_CHARS = 36
_LATER_S = 60.0
"""A shadow has answered by then, or never does."""


class Tables(Protocol):
    """Compacted segments; see ``tables``. Raises OSError and ValueError."""

    def span(self, path: Path) -> tuple[str, str] | None: ...

    def find(self, path: Path, decision: str) -> Sequence[Hit]: ...

    def requested(self, path: Path, request: str) -> Sequence[str]: ...

    def newest(self, path: Path, question: Question, limit: int) -> Sequence[Hit]: ...

    def controls(self, path: Path) -> Sequence[tuple[int, str]]: ...


class Lookup:
    """``tables`` None: compacted segments cannot be read here (pyarrow is not installed). Keeps of each of these its
    least and greatest decision id."""

    def __init__(self, folder: Path, tables: Tables | None) -> None:
        self._folder = folder
        self._tables = tables
        self._spans: dict[int, tuple[str, str] | None] = {}
        # Of the compacted segments asked of last, which do not change: it is a third of a look-up's cost.
        self._standings: dict[int, Standing] = {}

    def __repr__(self) -> str:
        return f"<Lookup {self._folder} [{len(self._spans)} spans]>"

    def one(self, name: str) -> Mapping[str, Any]:
        """By the decision's id, or a request's (its newest decision). Raises NotFound."""
        return self._steady(lambda: self._one(name))

    def page(self, question: Question) -> Mapping[str, Any]:
        """``decisions``, newest first, and the ``cursor`` of the next page, None at the end."""
        return self._steady(lambda: self._page(question))

    def _steady(self, look: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """A segment may be compacted or retired under the reader's eyes: it then looks again."""
        for _ in range(_TRIES):
            try:
                return look()
            except FileNotFoundError:
                continue
        return look()

    def _one(self, name: str) -> Mapping[str, Any]:
        segments = listed(self._folder)
        found = self._by_decision(segments, name) if len(name) == _UUID_CHARS else None
        if found is None:
            found = self._by_request(segments, name)
        if found is None:
            raise NotFound(
                f"no decision and no request {name!r:.140} is in the decision log here; it may be older than what is "
                "kept, of a route that records nothing, or another replica's"
            )
        segment, hit, about = found
        return full_view(hit, self._standing(segment), segment.number, [one.control or "" for one in about])

    def _by_request(self, segments: Sequence[Segment], request: str) -> tuple[Segment, Hit, Sequence[Hit]] | None:
        for segment in reversed(segments):
            for decision in sorted(self._requested(segment, request), reverse=True):
                found = self._by_decision(segments, decision)
                if found is not None and _asked(found[1], request):  # another may have the same hash
                    return found
        return None

    def _by_decision(self, segments: Sequence[Segment], decision: str) -> tuple[Segment, Hit, Sequence[Hit]] | None:
        """Its record, and what later records say of it. First where ids say for sure, then in frames, the likely ones
        first: a clock may have been put back."""
        certain = [one for one in segments if one.compacted and _within(self._span(one), decision)]
        frames = [one for one in reversed(segments) if not one.compacted]
        likely = [one for one in frames if _may_hold(one, decision)]
        for segment in (*reversed(certain), *likely, *(one for one in frames if one not in likely)):
            hits = list(self._find(segment, decision))
            records = [hit for hit in hits if hit.line is not None]
            if records:
                hits += self._said_later(segments, segment, decision)
                return segment, records[-1], [hit for hit in hits if hit.line is None]
        return None

    def _said_later(self, segments: Sequence[Segment], found: Segment, decision: str) -> Sequence[Hit]:
        """In the segment behind, when the one that has the record ended soon after it."""
        behind = [one for one in segments if one.number == found.number + 1]
        if not behind or (behind[0].compacted and not _within(self._span(behind[0]), decision)):
            return []
        made, ended = _made_at(decision), (found.parquet if found.compacted else found.log).stat().st_mtime
        return self._find(behind[0], decision) if made is None or ended - made < _LATER_S else []

    def _span(self, segment: Segment) -> tuple[str, str] | None:
        if segment.number not in self._spans:
            self._spans[segment.number] = self._read().span(segment.parquet)
        return self._spans[segment.number]

    def _read(self) -> Tables:
        if self._tables is None:
            raise InvalidInput("compacted segments are read with pyarrow: pip install 'turnout[decisions]'")
        return self._tables

    def _find(self, segment: Segment, decision: str) -> Sequence[Hit]:
        if segment.compacted:
            return self._read().find(segment.parquet, decision)
        return find_in(segment.log, decision)

    def _requested(self, segment: Segment, request: str) -> Sequence[str]:
        if not segment.compacted:
            return [hit.decision for hit in find_in(segment.log, request, request=True)]
        if not segment.ids.exists():
            return self._read().requested(segment.parquet, request)
        return decisions_of(segment.ids, request)

    def _standing(self, segment: Segment) -> Standing:
        if (kept := self._standings.get(segment.number)) is not None:
            return kept
        standing = Standing()
        told: Iterable[tuple[int, str | bytes]]
        told = self._read().controls(segment.parquet) if segment.compacted else controls_in(segment.log)
        for place, text in told:
            standing.take(orjson.loads(text), place)
        if segment.compacted:
            self._standings[segment.number] = standing
            if len(self._standings) > _STANDINGS:
                self._standings.pop(next(iter(self._standings)))
        return standing

    def _page(self, question: Question) -> Mapping[str, Any]:
        began = time.monotonic()
        found: list[Hit] = []
        cursor = None
        for segment in reversed(listed(self._folder)):
            span = self._span(segment) if segment.compacted else None
            if segment.compacted and (span is None or not _may_fit(span, question)):
                continue
            full = len(found) >= question.limit
            if full and span is not None and span[1] < found[question.limit - 1].decision:
                break
            if not full and span is not None and time.monotonic() - began > _PATIENCE_S:
                cursor = found[-1].decision if found else f"{span[1]}~"
                break
            found += self._newest(segment, question)
            found.sort(key=lambda hit: hit.decision, reverse=True)
        shown = found[: question.limit]
        if len(shown) == question.limit:
            cursor = shown[-1].decision
        return {"decisions": [short_view(hit) for hit in shown], "cursor": cursor}

    def _newest(self, segment: Segment, question: Question) -> Sequence[Hit]:
        if segment.compacted:
            return self._read().newest(segment.parquet, question, question.limit)
        return newest_in(segment.log, question, question.limit)


def _within(span: tuple[str, str] | None, decision: str) -> bool:
    return span is not None and span[0] <= decision <= span[1]


def _may_hold(segment: Segment, decision: str) -> bool:
    """Of frames: by when they were last written to."""
    made = _made_at(decision)
    return made is None or segment.log.stat().st_mtime >= made - _SLACK_S


def _asked(hit: Hit, request: str) -> bool:
    return hit.line is not None and hit.line[1] == request


def _may_fit(span: tuple[str, str], question: Question) -> bool:
    """By the ids alone, whose first 48 bits are milliseconds; a request is decided on some time after it came."""
    low, high = (_made_at(one) for one in span)
    if question.below is not None and span[0] >= question.below:
        return False
    if question.until is not None and low is not None and low - _SLACK_S > question.until / 1e6:
        return False
    return not (question.since is not None and high is not None and high + _SLACK_S < question.since / 1e6)


def _made_at(decision: str) -> float | None:
    """Seconds since the epoch; None for what is no UUID of version 7."""
    digits = decision.replace("-", "")
    try:
        return int(digits[:12], 16) / 1000 if len(digits) == 32 and digits[12] == "7" else None
    except ValueError:
        return None
