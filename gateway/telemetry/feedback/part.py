"""The recorder's part for the truth: takes answers, joins labels, tells what is owed, reports on versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.errors import Conflict, NotFound, StorageFull, StoreUnavailable
from gateway.events.records import RequestRecord
from gateway.messages import VersionRef
from gateway.routing.truth import Truth
from gateway.telemetry.feedback.asks import ASK_CLOCK, ASK_JOIN, ASK_OUTCOMES, ASK_REPORT, ASK_SCORES, ASK_SHARE
from gateway.telemetry.feedback.ledger import Ledger
from gateway.telemetry.feedback.looks import Look, Steps
from gateway.telemetry.feedback.nouns import Answered, Bounds, Label
from gateway.telemetry.feedback.reading import rows_of
from gateway.telemetry.feedback.report import report_steps, scores_steps
from gateway.telemetry.feedback.tables import is_damaged

__all__ = ["TruthPart"]

log = logging.getLogger("turnout.truth")

MAX_WAITING = 100_000
"""Answers that wait for a disk that takes nothing."""


class TruthPart:
    """See ``gateway.recording.parts.Part``. ``path``: of its SQLite file."""

    def __init__(
        self, path: Path, clock: Clock, bounds: Bounds | None = None, waiting: Sequence[Answered] = ()
    ) -> None:
        """``waiting``: answers that another has not written."""
        self._bounds = bounds or Bounds()
        self._ledger = Ledger(path, clock, self._bounds)
        self._clock = clock
        # The scores that are being computed, and how much had changed when that began; and the report, by its number.
        self._scoring: tuple[int, Look[list[dict[str, Any]]]] | None = None
        self._reporting: tuple[int, Look[dict[str, Any]]] | None = None
        self._reports = 0
        self._truths: Mapping[str, Truth] = {}
        self._named: frozenset[VersionRef] = frozenset()
        self._waiting = list(waiting)
        self._unusable = 0
        self._lost = 0
        self._unkept = ""

    def __repr__(self) -> str:
        return f"<TruthPart {self._ledger!r} [{len(self._waiting)} waiting]>"

    @property
    def full(self) -> bool:
        """No answer is refused because its label could not be joined later."""
        return False

    def take(self, records: Sequence[RequestRecord]) -> None:
        if self._truths:  # without any, nobody asks a burst for its records
            self._waiting += self._answers(records)
        self._write()

    def _answers(self, records: Iterable[RequestRecord]) -> Iterable[Answered]:
        for record in records:
            truth = self._truths.get(record.route)
            if truth is None or record.answered_by is None or record.decision is None or record.code != 200:
                continue
            rows = () if record.content is None else rows_of(record.content, truth, record.rows)
            if not rows:
                self._unusable += 1
                continue
            decision = record.decision
            # A fallback's answer, and one that was kept, say nothing of the version that was chosen.
            tells = record.answered_by == decision.version and record.batch > 0
            bucket = decision.bucket if tells else None
            name = record.decision_id
            yield Answered(name, record.route, record.answered_by, truth, bucket, decision.epoch, decision.reason, rows)

    def _write(self) -> None:
        """What the file does not take waits, up to a bound; beyond it the oldest go, and their labels are unknown.
        Raises RecorderUnavailable for a file that is damaged."""
        try:
            self._ledger.take(self._waiting)
        except (StoreUnavailable, StorageFull) as error:
            if is_damaged(error):
                raise
            over = len(self._waiting) - MAX_WAITING
            if over > 0:
                del self._waiting[:over]
                self._lost += over
            if not self._unkept:  # once: it comes with each burst
                log.warning("answers wait for their labels in memory: %s", error)
            self._unkept = str(error)
            return
        self._waiting = []
        if self._unkept:
            log.warning("answers are kept for their labels again; %d were lost meanwhile and before", self._lost)
        self._unkept = ""

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if event != "table":
            return
        found = {}
        for name, route in body["routes"].items():
            truth = route.get("truth")
            if truth is not None:
                found[name] = Truth.from_json(truth)
        self._truths = found
        self._named = frozenset(ref for name in found for ref in _named(body["routes"][name]))

    def tick(self) -> None:
        if self._waiting:
            self._write()
        self._ledger.expire()

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if kind == ASK_JOIN:
            return self._join(body)
        if kind == ASK_OUTCOMES:
            return self._owed(int(body["delivered"]))
        if kind == ASK_REPORT:
            return self._report(str(body["route"]), int(body["days"]), body.get("look"))
        if kind == ASK_SCORES:
            return self._scores(int(body["seen"]))
        if kind == ASK_SHARE:
            return self._share(body)
        if kind == ASK_CLOCK:
            return {"trouble": self._ledger.clock_trouble, "unkept": self._unkept}
        raise KeyError(kind)

    def _join(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises Conflict where no route compares labels with anything, StoreUnavailable, StorageFull."""
        if not self._truths and not self._ledger.answers:
            raise Conflict("no route compares labels with its answers; write 'truth' into the spec of one")
        if self._waiting:
            self._write()
        routes = None if body["routes"] is None else tuple(body["routes"])
        labels = [Label(str(name), value, routes, *map(str, sender)) for name, value, *sender in body["labels"]]
        return {"verdicts": [list(verdict) for verdict in self._ledger.join(labels)]}

    def _owed(self, delivered: int) -> Mapping[str, Any]:
        if delivered:
            self._ledger.delivered(delivered)
        return {"outcomes": self._ledger.outcomes()}

    def _share(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        ledger, place = self._ledger, body["place"]
        if place is not None:
            labels = [
                (key, value, None if routes is None else tuple(routes), str(sender))
                for key, value, routes, sender in body["labels"]
            ]
            ledger.heard(labels, body["settled"], place)
        if any(body["told"]):
            ledger.told(*body["told"])
        untold, settled = ledger.untold()
        return {"place": ledger.heard_until, "labels": [list(label) for label in untold], "settled": settled}

    def report(self, route: str, days: int) -> Mapping[str, Any]:
        """All of it at once, for who has the part to itself. Raises NotFound."""
        said = self._report(route, days, None)
        while "look" in said:
            said = self._report(route, days, said["look"])
        return said

    def _report(self, route: str, days: int, number: int | None) -> Mapping[str, Any]:
        """One at a time: it is begun anew where another has taken its place."""
        if self._reporting is None or self._reporting[0] != number:
            self._reports += 1
            self._reporting = self._reports, Look(self._report_steps(route, days), self._clock)
        (number, look), self._reporting = self._reporting, None
        if not look.went_on():
            self._reporting = number, look
            return {"look": number}
        feedback, standing = _by_outcome(self._ledger.counts()), self._standing()
        return {**look.found, "feedback": feedback, "standing": standing}

    def _report_steps(self, route: str, days: int) -> Steps[dict[str, Any]]:
        known = [series for series in self._ledger.series if series.route == route]
        truth = self._truths.get(route)
        if truth is None and not known:
            raise NotFound(f"route {route!r} compares no labels with its answers; write 'truth' into its spec")
        return report_steps(self._ledger, route, truth or known[-1].truth, days)

    def _scores(self, seen: int) -> Mapping[str, Any]:
        """At the first look, and later when something has changed; ``going_on`` as long as there is more to do."""
        if self._scoring is None:
            if seen == self._ledger.changes:
                return {"changes": seen}
            self._scoring = self._ledger.changes, Look(scores_steps(self._ledger, self._named), self._clock)
        (changes, look), self._scoring = self._scoring, None
        if not look.went_on():
            self._scoring = changes, look
            return {"changes": seen, "going_on": True}
        return {
            "changes": changes,
            "counts": [list(row) for row in self._ledger.counts()],
            "scores": look.found,
            "standing": self._standing(),
        }

    def _standing(self) -> dict[str, int]:
        """``answers`` that wait or are known, ``held`` labels, and what never came in or went before its time."""
        ledger = self._ledger
        lost = self._lost + ledger.dropped
        return {"answers": ledger.answers, "held": ledger.held, "unusable": self._unusable, "lost": lost}

    def close(self) -> None:
        self._write()
        self._ledger.close()

    def abandon(self) -> Sequence[Answered]:
        """Closed as it is: what is not written yet."""
        self._ledger.close()
        return self._waiting


def _named(route: Mapping[str, Any]) -> Iterable[VersionRef]:
    """That may answer on it, by what the recorder is told of a route."""
    rules = route.get("rules", ())
    numbers = {int(number) for one in (route, *rules) for number in one.get("weights", ())}
    numbers |= {one[key] for one in (route, *rules) for key in ("known_good", "fallback", "use") if one.get(key)}
    return (VersionRef(route["model"], number) for number in numbers)


def _by_outcome(counts: Iterable[tuple[str, int, str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, _, outcome, count in counts:
        found[outcome] = found.get(outcome, 0) + count
    return found
