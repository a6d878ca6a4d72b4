"""The groups of the join as they stand, read when they are needed and written in the transaction that changes them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from gateway.routing.truth import Truth
from gateway.telemetry.feedback.exact import Exact
from gateway.telemetry.feedback.reading import bets
from gateway.telemetry.feedback.sums import Group, Outcome, Row, Terms

__all__ = ["OTHER_PART", "Place", "StandingSums"]

MAX_KEPT = 1000
MAX_PARTS = 50
OTHER_PART = "(other)"
"""The groups of a slice beyond the first 50 that are seen, together."""

WHOLE = ("", "")


class Place(NamedTuple):
    """Where a group stands: answers of a series on a day (since the epoch), all or the ``part`` of a ``cut``."""

    series: int
    day: int
    cut: str
    part: str


class StandingSums:
    """Used by the ledger alone, inside of its transactions. ``forget`` after one that failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._groups: dict[Place, Group] = {}
        self._changed: set[Place] = set()
        self._parts: dict[tuple[int, str], set[str]] = {}
        self._counted: Counter[tuple[str, int, str]] = Counter()

    def forget(self) -> None:
        self._groups.clear()
        self._changed.clear()
        self._parts.clear()
        self._counted.clear()

    def answered(self, series: int, day: int, truth: Truth, rows: tuple[Row, ...]) -> None:
        for row in rows:
            risk, score = bets(row, truth), None if row.score is None else Exact.of(row.score)
            for group in self._of(series, day, truth, row):
                group.answered(row, score, bets=risk)

    def joined(self, series: int, day: int, truth: Truth, outcome: Outcome) -> None:
        terms = Terms.of(outcome)
        for group in self._of(series, day, truth, outcome.row):
            group.joined(outcome, terms)

    def counted(self, model: str, version: int, outcome: str, count: int = 1) -> None:
        if count:
            self._counted[(model, version, outcome)] += count

    def _of(self, series: int, day: int, truth: Truth, row: Row) -> Iterator[Group]:
        yield self._group(Place(series, day, *WHOLE))
        for cut, part in zip(truth.slices, row.groups, strict=False):
            yield self._group(Place(series, day, cut.name, self._part(series, cut.name, part)))

    def _part(self, series: int, cut: str, part: str) -> str:
        known = self._parts.get((series, cut))
        if known is None:
            asked = "SELECT DISTINCT part FROM sums WHERE series = ? AND cut = ?"
            known = {name for (name,) in self._connection.execute(asked, (series, cut))}
            self._parts[(series, cut)] = known
        if part not in known:
            if len(known) >= MAX_PARTS:
                return OTHER_PART
            known.add(part)
        return part

    def _group(self, place: Place) -> Group:
        self._changed.add(place)
        group = self._groups.get(place)
        if group is None:
            asked = "SELECT body FROM sums WHERE series = ? AND day = ? AND cut = ? AND part = ?"
            found = self._connection.execute(asked, place).fetchone()
            group = Group() if found is None else Group.from_json(orjson.loads(found[0]))
            self._groups[place] = group
        return group

    def write(self, cursor: sqlite3.Cursor) -> None:
        """What has changed, before the commit."""
        rows = [(*place, orjson.dumps(self._groups[place].to_json())) for place in self._changed]
        cursor.executemany("INSERT OR REPLACE INTO sums VALUES (?, ?, ?, ?, ?)", rows)
        grows = "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
        cursor.executemany(grows, [(*key, count) for key, count in self._counted.items()])

    def written(self) -> None:
        """After the commit."""
        self._changed.clear()
        self._counted.clear()
        if len(self._groups) > MAX_KEPT:
            self._groups.clear()

    def days_of(self, series: int, since_day: int) -> Sequence[int]:
        """From the first to the last that has sums; some between may have none."""
        asked = "SELECT min(day), max(day) FROM sums WHERE series = ? AND day >= ?"
        first, last = self._connection.execute(asked, (series, since_day)).fetchone()
        return () if first is None else range(first, last + 1)

    def of_day(self, series: int, day: int) -> Iterator[tuple[Place, Group]]:
        """As they are on the disk when the first is asked for, whatever changes before the last is."""
        asked = "SELECT series, day, cut, part, body FROM sums WHERE series = ? AND day = ?"
        for *place, body in self._connection.execute(asked, (series, day)).fetchall():
            yield Place(*place), Group.from_json(orjson.loads(body))
