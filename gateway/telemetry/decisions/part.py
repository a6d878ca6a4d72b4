"""The decision log as a part of the recorder: records and changes in, one chain of frames out, and its upkeep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from gateway.events.records import RequestRecord
from gateway.telemetry.decisions.fields import encoded
from gateway.telemetry.decisions.log import DecisionLog
from gateway.telemetry.decisions.scribe import Scribe

__all__ = ["CHECKPOINT", "STATISTICS", "DecisionPart", "Followers", "Upkeep"]

STATISTICS = "decisions"
CHECKPOINT = "decisions.checkpoint"

log = logging.getLogger("turnout.telemetry.decisions")

_UNFIT = (ValueError, TypeError, OverflowError, AttributeError)
"""What a value raises that is of none of the types a record's fields have."""


class Followers(Protocol):
    """Sinks that follow the log's files."""

    def tick(self) -> None: ...

    def renew(self, secrets: Mapping[str, Mapping[str, Any]]) -> None: ...

    def statistics(self) -> Sequence[Mapping[str, Any]]: ...

    def close(self) -> None: ...


class Upkeep(Protocol):
    """What is done with closed segments."""

    def tick(self) -> None: ...

    def statistics(self) -> Mapping[str, Any]: ...

    def close(self) -> None: ...


class DecisionPart:
    """Owns the log, its upkeep and its followers."""

    def __init__(
        self,
        log: DecisionLog,
        scribe: Scribe,
        *,
        upkeep: Upkeep | None = None,
        sinks: Followers | None = None,
    ) -> None:
        self._log = log
        self._scribe = scribe
        self._upkeep = upkeep
        self._sinks = sinks
        self._answers: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            STATISTICS: self._statistics,
            CHECKPOINT: self._checkpoint,
        }

    def __repr__(self) -> str:
        return f"<DecisionPart {self._log!r}>"

    @property
    def full(self) -> bool:
        return self._log.full

    def take(self, records: Sequence[RequestRecord]) -> None:
        try:
            lines = self._scribe.lines(records)
        except _UNFIT:
            lines = self._taken_singly(records)
        self._log.append(lines)

    def _taken_singly(self, records: Sequence[RequestRecord]) -> list[bytes]:
        """One of them holds what no record can say: a gap says so, and the others are kept."""
        lines: list[bytes] = []
        for record in records:
            try:
                if (line := self._scribe.line(record)) is not None:
                    lines.append(encoded(line))
            except _UNFIT as fault:
                log.exception("decision %s cannot be recorded", record.decision_id)
                said = {"cause": "form", "records": 1, "decision_id": record.decision_id, "reason": str(fault)[:200]}
                self._log.control("gap", said)
        return lines

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        standing = self._log.standing
        if event == "table":
            self._scribe.heard(body)
            change = standing.changed(body)
            if change is not None:
                self._log.control("table", change)
        elif event == "version":
            if not standing.knows(str(body["model"]), int(body["number"]), body):
                self._log.control("version", body)
        elif event == "gap":
            count = int(body.get("count", 0))
            said = {"reason": body["reason"]} if "reason" in body else {}
            self._log.control("gap", {"cause": body.get("cause", "unknown"), "records": count, **said})
        elif event == "shadow":
            if body.get("decision_id") is not None:
                self._log.control("shadow", _outcome(body))
        elif event == "rollback":
            self._log.control("rollback", body)
        elif event == "secrets" and self._sinks is not None:
            self._sinks.renew(body["sinks"])

    def tick(self) -> None:
        self._log.tick()
        if self._upkeep is not None:
            self._upkeep.tick()
        if self._sinks is not None:
            self._sinks.tick()

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._answers[kind]()

    def close(self) -> None:
        if self._sinks is not None:
            self._sinks.close()
        if self._upkeep is not None:
            self._upkeep.close()
        self._log.close()

    def _statistics(self) -> Mapping[str, Any]:
        counts = self._log.statistics()
        told = {name: getattr(counts, name) for name in counts.__slots__}
        if self._upkeep is not None:
            told.update(self._upkeep.statistics())
        if self._sinks is not None:
            told["sinks"] = [dict(one) for one in self._sinks.statistics()]
        return told

    def _checkpoint(self) -> Mapping[str, Any]:
        """The newest, signed over all that is durable now."""
        self._log.sync(timeout_s=1.0)
        self._log.sign()
        notes = self._log.notes
        return {"note": notes.text, "key": str(notes.public)}


def _outcome(body: Mapping[str, Any]) -> dict[str, Any]:
    """A later record of a decision: what its copy came to at a shadow. Numbers are finite, as JSON's are."""
    difference = float(body.get("difference") or 0.0)
    return {
        "decision": body["decision_id"],
        "shadow": str(body["shadow"]),
        "outcome": body["outcome"],
        "difference": difference if isfinite(difference) else None,
        "batch": body.get("batch"),
    }
