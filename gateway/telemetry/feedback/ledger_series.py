"""Which versions' answers on which routes are kept, by which truth: a number for each, for rows to refer to."""

from __future__ import annotations

import sqlite3

import orjson

from gateway.messages import VersionRef
from gateway.routing.truth import Truth
from gateway.telemetry.feedback.nouns import Answered, Series

__all__ = ["SeriesBook"]


class SeriesBook:
    """As it stands in the file; ``load`` after a transaction that failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._series: dict[tuple[str, VersionRef, Truth], Series] = {}
        self._by_number: dict[int, Series] = {}
        self.load()

    def load(self) -> None:
        self._series.clear()
        self._by_number.clear()
        for number, route, model, version, truth in self._connection.execute("SELECT * FROM series ORDER BY number"):
            self._know(Series(number, route, VersionRef(model, version), Truth.from_json(orjson.loads(truth))))

    def _know(self, series: Series) -> None:
        self._series[(series.route, series.version, series.truth)] = series
        self._by_number[series.number] = series

    def all(self) -> tuple[Series, ...]:
        """Oldest first."""
        return tuple(self._by_number.values())

    def numbered(self, number: int) -> Series:
        return self._by_number[number]

    def of(self, cursor: sqlite3.Cursor, answer: Answered) -> Series:
        known = self._series.get((answer.route, answer.version, answer.truth))
        if known is not None:
            return known
        row = (answer.route, *answer.version, orjson.dumps(answer.truth.to_json()).decode())
        cursor.execute("INSERT INTO series (route, model, version, truth) VALUES (?, ?, ?, ?)", row)
        series = Series(int(cursor.lastrowid or 0), answer.route, answer.version, answer.truth)
        self._know(series)
        return series

    def longest_horizon_ms(self, otherwise_s: float) -> int:
        return int(max((series.truth.horizon_s for series in self.all()), default=otherwise_s) * 1000)
