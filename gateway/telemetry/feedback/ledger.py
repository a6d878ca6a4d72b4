"""The join of labels with answers, durable: each label has its outcome exactly once, whatever dies in between.

The invariant: one transaction holds an answer's state, the sums that it changed, the outcome that was counted and what
is owed to a rollout's evidence. So whatever was committed is whole, whoever sends an answer or a label again changes
nothing by it, and the sums are those of the labels that were acknowledged. The first label of an answer stands: what
has counted is evidence that may have moved traffic, and only grows; another label later is a ``conflict``.

Kept of an answer, until its label comes or its horizon passes: class or number, score, groups, version, place of its
key, epoch. No input, no key, no context.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gateway.clock import Clock
from gateway.errors import RecorderUnavailable, StorageFull
from gateway.telemetry.feedback.ledger_held import OTHERS, UNTOLD, Held, HeldLabels
from gateway.telemetry.feedback.ledger_series import SeriesBook
from gateway.telemetry.feedback.ledger_sums import Place, StandingSums
from gateway.telemetry.feedback.nouns import (
    NOBODY,
    Answered,
    Bounds,
    HeardLabel,
    Label,
    Series,
    Verdict,
    digest_of,
    given_at_ms,
    id_of,
)
from gateway.telemetry.feedback.reading import LabelFault, labels_of, outcome_of, score_of
from gateway.telemetry.feedback.sums import Group, Outcome, Row
from gateway.telemetry.feedback.tables import open_tables, writing
from gateway.telemetry.feedback.timeline import Timeline
from gateway.telemetry.proven_time import STEP_MS, KeptTime, ProvenTime

__all__ = ["DAY_MS", "Ledger"]

log = logging.getLogger("turnout.truth")

DAY_MS = 86_400_000
_AT_ONCE = 5000
LEAVE_EVERY_MS = 10_000
_SHARED_AT_ONCE = 500


class _Known(NamedTuple):
    """An answer as it is kept. ``label``: digest of the one that it has."""

    id: bytes
    series: int
    at: int
    until: int
    bucket: int | None
    epoch: int
    split: str
    rows: bytes | None
    label: bytes | None


class Ledger:
    """Used by one thread. Each of ``take``, ``join`` and ``expire`` is one transaction; they raise RecorderUnavailable,
    or StorageFull, and then nothing of it has happened."""

    def __init__(self, path: Path, clock: Clock, bounds: Bounds) -> None:
        self._path = path
        self._bounds = bounds
        self._connection = open_tables(path)
        try:
            self._begin(clock)
        except BaseException:
            self._connection.close()
            raise

    def _begin(self, clock: Clock) -> None:
        what = f"the labels in {self._path}"
        self._proven = ProvenTime(clock, self._left_at(), stands_s=self._bounds.stands_s, what=what)
        self._timeline = Timeline(clock, self._proven)
        self._sums = StandingSums(self._connection)
        self._series = SeriesBook(self._connection)
        self._held = HeldLabels(self._connection, self._bounds.held)
        self.answers = 0
        self._load()
        self._left_ms = self._swept = 0
        self.changes = self._timeline.now_ms()  # no number of an earlier process
        self.dropped = int(self._fact("dropped", "0"))

    def __repr__(self) -> str:
        return f"<Ledger {self._path.name} [{self.answers} answers | {self.held} labels held]>"

    def _load(self) -> None:
        self._series.load()
        self._held.load()
        (self.answers,) = self._connection.execute("SELECT count(*) FROM answers").fetchone()

    def _left_at(self) -> KeptTime | None:
        facts = {name: self._fact(name, "0") for name in ("left_at_ms", "ahead_ms", "stood_ms", "more_ms")}
        kept = KeptTime.from_json({**facts, "at_ms": facts["left_at_ms"]})
        return kept if kept.at_ms else None

    def _fact(self, name: str, otherwise: str) -> str:
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return otherwise if found is None else str(found[0])

    @property
    def series(self) -> Iterable[Series]:
        """Oldest first."""
        return self._series.all()

    @property
    def held(self) -> int:
        return self._held.count

    @property
    def now_ms(self) -> int:
        return self._timeline.now_ms()

    @property
    def clock_trouble(self) -> str:
        return self._proven.trouble

    def close(self) -> None:
        self._connection.close()

    # What changes

    def take(self, answers: Sequence[Answered]) -> None:
        """Answers that were given. One that is known already changes nothing; a label that came before it joins it."""
        if not answers:
            return
        now = self.now_ms
        with self._changing(durable=False) as cursor:
            for answer in answers:
                self._take_one(cursor, answer, now)

    def join(self, labels: Sequence[Label]) -> list[Verdict]:
        """On the disk when it returns."""
        now = self.now_ms
        with self._changing(durable=True) as cursor:
            return [self._join_one(cursor, label, now) for label in labels]

    def expire(self) -> int:
        """Ends what its horizon has passed for, as much as may be done at once; how much it was."""
        self._proven.look()
        now = self._timeline.ended_ms()
        due = "SELECT id FROM answers WHERE until <= ? ORDER BY until LIMIT ?"
        answers = self._connection.execute(due, (now, _AT_ONCE)).fetchall()
        over = max(0, self.answers - len(answers) - self._bounds.answers)
        held = self._held.due(now, _AT_ONCE)
        if not (answers or held or over) and now - self._left_ms < LEAVE_EVERY_MS:
            return 0
        oldest = now // DAY_MS - self._bounds.days
        with self._changing(durable=False) as cursor:
            if not self._left_ms:
                self._set_right(cursor)
            cursor.executemany("DELETE FROM answers WHERE id = ?", answers)
            self.answers -= len(answers)
            if over:
                early = "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY until LIMIT ?)"
                self.dropped += (gone := cursor.execute(early, (min(over, _AT_ONCE),)).rowcount)
                self.answers -= gone
            if held:
                self._sums.counted(*NOBODY, "unknown", self._held.end(cursor, held))
            if oldest != self._swept:  # it reads all of them
                cursor.execute("DELETE FROM sums WHERE day < ?", (oldest,))
            facts = self._proven.kept.to_json()
            facts["left_at_ms"], facts["dropped"] = facts.pop("at_ms"), self.dropped
            told = [(name, str(value)) for name, value in facts.items()]
            cursor.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", told)
        self._left_ms, self._swept = now, oldest
        return len(answers) + len(held) + over

    def _set_right(self, cursor: sqlite3.Cursor) -> None:
        """What a process whose clock was ahead has stamped came no later than now, and ends no later."""
        now, longest = self.now_ms, self._longest_ms()
        bound = now + longest + STEP_MS
        (last,) = cursor.execute("SELECT max(until) FROM answers").fetchone()
        if last is not None and last > bound:
            cursor.execute("UPDATE answers SET until = until - at + ?, at = ? WHERE at > ?", (now, now, now + STEP_MS))
        cursor.execute("UPDATE held SET until = ? WHERE until > ?", (now + longest, bound))
        cursor.execute("UPDATE held_by SET until = ? WHERE until > ?", (now + longest, bound))

    def delivered(self, number: int) -> None:
        """The outcomes up to that one have reached the rollouts' evidence."""
        with self._changing(durable=False) as cursor:
            cursor.execute("DELETE FROM outcomes WHERE number <= ?", (number,))

    # What is shared with other replicas

    def heard(self, labels: Sequence[HeardLabel], settled: Sequence[bytes], place: str) -> None:
        """Labels that other replicas hold, those that have joined at another, and the place after what was heard."""
        now = self.now_ms
        with self._changing(durable=False) as cursor:
            for key, value, routes, sender in labels:
                self._hear(cursor, key, Label("", value, routes, sender), now)
            for key in settled:
                self._held.drop(cursor, key)
            cursor.execute("INSERT OR REPLACE INTO facts VALUES ('heard_until', ?)", (place,))

    def _hear(self, cursor: sqlite3.Cursor, key: bytes, label: Label, now: int) -> None:
        if self._held.find(key) is not None:
            return
        verdict = self._join_at(cursor, key, label, now)
        if verdict is None:
            self._keep(cursor, key, label, now + self._longest_ms(), OTHERS)
        elif verdict.outcome != "forbidden":
            cursor.execute("INSERT OR IGNORE INTO settled VALUES (?)", (key,))

    def _keep(self, cursor: sqlite3.Cursor, key: bytes, label: Label, until: int, told: int) -> bool:
        routes = None if label.routes is None else orjson.dumps(label.routes).decode()
        kept, lost = self._held.keep(cursor, Held(key, until, orjson.dumps(label.value), routes, told, label.sender))
        self._sums.counted(*NOBODY, "unknown", lost)
        return kept

    def untold(self) -> tuple[list[tuple[bytes, Any, list[str] | None, str]], list[bytes]]:
        """Labels and settled ids that the others are to be told of, some of them."""
        asked = "SELECT id, label, routes, coalesce(sender, '') FROM held LEFT JOIN held_by USING (id) WHERE told = 0"
        rows = self._connection.execute(f"{asked} LIMIT ?", (_SHARED_AT_ONCE,)).fetchall()
        labels = [
            (key, orjson.loads(label), None if routes is None else orjson.loads(routes), sender)
            for key, label, routes, sender in rows
        ]
        settled = self._connection.execute("SELECT id FROM settled LIMIT ?", (_SHARED_AT_ONCE,)).fetchall()
        return labels, [key for (key,) in settled]

    def told(self, labels: Sequence[bytes], settled: Sequence[bytes]) -> None:
        with self._changing(durable=False) as cursor:
            cursor.executemany("UPDATE held SET told = 1 WHERE id = ?", [(key,) for key in labels])
            cursor.executemany("DELETE FROM settled WHERE id = ?", [(key,) for key in settled])

    @property
    def heard_until(self) -> str:
        """The place in what replicas tell each other, "" at first."""
        return self._fact("heard_until", "")

    # What stands

    def counts(self) -> list[tuple[str, int, str, int]]:
        """Model, version (0: of an answer that nobody knows), outcome, and how many labels."""
        return list(self._connection.execute("SELECT model, version, outcome, count FROM counts"))

    def days_of(self, series: int, since_day: int) -> Sequence[int]:
        return self._sums.days_of(series, since_day)

    def sums_of(self, series: int, day: int) -> Iterator[tuple[Place, Group]]:
        return self._sums.of_day(series, day)

    def outcomes(self, limit: int = 1000) -> list[list[Any]]:
        """The oldest that are owed: number, route, model, version, place of the key, epoch, split, whether the answer
        was wrong (None: nothing says so), its score, [of what, how much] (None: it has none), and how many
        milliseconds ago it was given (None: an earlier release did not keep that)."""
        asked = "SELECT number, body, score, ? - given FROM outcomes ORDER BY number LIMIT ?"
        return [
            [number, *orjson.loads(body), None if score is None else orjson.loads(score), age_ms]
            for number, body, score, age_ms in self._connection.execute(asked, (self.now_ms, limit))
        ]

    # How

    @contextlib.contextmanager
    def _changing(self, *, durable: bool) -> Iterator[sqlite3.Cursor]:
        """One transaction, with the sums that it changes. If it fails, what was read or counted for it goes too."""
        try:
            with writing(self._connection, durable=durable) as cursor:
                yield cursor
                self._sums.write(cursor)
        except sqlite3.Error as error:
            self._undo()
            if getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):
                full = f"{self._path}: the disk is full; labels are taken again once there is room"
                raise StorageFull(full) from error
            raise RecorderUnavailable(f"{self._path}: labels cannot be kept: {error}") from error
        except BaseException:
            self._undo()
            raise
        self._sums.written()
        self.changes += 1

    def _undo(self) -> None:
        self._sums.forget()
        try:
            self._load()
            self.dropped = int(self._fact("dropped", "0"))
        except sqlite3.Error:
            log.warning("%s cannot be read either", self._path)

    def _take_one(self, cursor: sqlite3.Cursor, answer: Answered, now: int) -> None:
        series = self._series.of(cursor, answer)
        key, truth = id_of(answer.decision_id), answer.truth
        kept = orjson.dumps([tuple(row) for row in answer.rows])
        known = _Known(key, series.number, now, now + int(truth.horizon_s * 1000), *answer[4:7], kept, None)
        cursor.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", known)
        if not cursor.rowcount:
            return
        self.answers += 1
        self._sums.answered(series.number, now // DAY_MS, truth, answer.rows)
        held = self._held.find(key)
        if held is not None:
            self._join_held(cursor, known, series, held, now)

    def _join_held(
        self, cursor: sqlite3.Cursor, known: _Known, series: Series, held: tuple[bytes, str | None], now: int
    ) -> None:
        self._held.drop(cursor, known.id)
        if self.heard_until:  # others may hold it, too
            cursor.execute("INSERT OR IGNORE INTO settled VALUES (?)", (known.id,))
        routes = None if held[1] is None else orjson.loads(held[1])
        if routes is not None and series.route not in routes:
            self._sums.counted(*NOBODY, "unknown")
            return
        outcome = "early"
        try:
            self._count(cursor, known, series, orjson.loads(held[0]), now)
        except LabelFault:
            outcome = "rejected"
        self._sums.counted(*series.version, outcome)

    def _join_one(self, cursor: sqlite3.Cursor, label: Label, now: int) -> Verdict:
        key = id_of(label.decision_id)
        return self._join_at(cursor, key, label, now) or self._hold(cursor, key, label, now)

    def _join_at(self, cursor: sqlite3.Cursor, key: bytes, label: Label, now: int) -> Verdict | None:
        """None where the answer is not known here."""
        found = cursor.execute("SELECT * FROM answers WHERE id = ?", (key,)).fetchone()
        if found is None:
            return None
        known = _Known(*found)
        series = self._series.numbered(known.series)
        if label.routes is not None and series.route not in label.routes:
            return Verdict("forbidden")
        verdict = self._verdict(cursor, known, series, label.value, now)
        self._sums.counted(*series.version, verdict.outcome)
        return verdict

    def _verdict(self, cursor: sqlite3.Cursor, known: _Known, series: Series, value: Any, now: int) -> Verdict:
        if known.label is not None:
            return Verdict("duplicate" if digest_of(value) == known.label else "conflict")
        if known.until <= self._timeline.ended_ms():
            return Verdict("expired")
        try:
            self._count(cursor, known, series, value, now)
        except LabelFault as fault:
            return Verdict("rejected", fault.expected, fault.got)
        return Verdict("late" if now - known.at > series.truth.late_after_s * 1000 else "joined")

    def _count(self, cursor: sqlite3.Cursor, known: _Known, series: Series, value: Any, now: int) -> None:
        """Raises LabelFault before anything has changed."""
        rows = [Row(*row) for row in orjson.loads(known.rows or b"[]")]
        labels = labels_of(value, series.truth, len(rows))
        outcomes = [
            outcome_of(row, label, series.truth, max(0, now - known.at) / 1000)
            for row, label in zip(rows, labels, strict=True)
            if label is not None
        ]
        for outcome in outcomes:
            self._sums.joined(series.number, known.at // DAY_MS, series.truth, outcome)
        cursor.execute("UPDATE answers SET rows = NULL, label = ? WHERE id = ?", (digest_of(value), known.id))
        if known.bucket is not None:
            self._owe(cursor, known, series, outcomes)

    def _owe(self, cursor: sqlite3.Cursor, known: _Known, series: Series, outcomes: Sequence[Outcome]) -> None:
        """To the rollouts' evidence: whether the answer was wrong, and how good it was; None where that is not said."""
        wrong = outcomes[0].wrong if series.truth.tells_wrong else None
        score = score_of(outcomes, series.truth)
        if wrong is None and score is None:
            return
        body = (series.route, *series.version, known.bucket, known.epoch, known.split, wrong)
        scored = None if score is None else orjson.dumps([series.truth.scored, score])
        owed = (orjson.dumps(body), scored, known.at)
        cursor.execute("INSERT INTO outcomes (body, score, given) VALUES (?, ?, ?)", owed)
        if cursor.lastrowid is not None and cursor.lastrowid % 1000 == 0:
            cursor.execute("DELETE FROM outcomes WHERE number <= ?", (cursor.lastrowid - self._bounds.outcomes,))

    def _hold(self, cursor: sqlite3.Cursor, key: bytes, label: Label, now: int) -> Verdict:
        horizon = self._longest_ms()
        given = given_at_ms(key)
        if given is not None and given + horizon <= self._timeline.ended_there_ms():
            self._sums.counted(*NOBODY, "expired")
            return Verdict("expired")
        held = self._held.find(key)
        if held is not None:
            same = digest_of(orjson.loads(held[0])) == digest_of(label.value)
            verdict = Verdict("duplicate" if same else "conflict")
            self._sums.counted(*NOBODY, verdict.outcome)
            return verdict
        return Verdict("held" if self._keep(cursor, key, label, now + horizon, UNTOLD) else "full")

    def _longest_ms(self) -> int:
        return self._series.longest_horizon_ms(self._bounds.horizon_s)
