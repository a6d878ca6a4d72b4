"""What became of copies, told to the observer; and of each kind of trouble with a shadow, the first in the log."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import NamedTuple

from gateway.events.observer import Observer
from gateway.events.records import ShadowRecord
from gateway.messages import Decision, VersionRef
from gateway.serving.item import Answer

__all__ = ["UNANSWERED", "Outcomes", "Run"]

log = logging.getLogger("turnout.shadows")


class Run(NamedTuple):
    """How a copy fared: the shadow's answer, if it gave one, its largest difference, and when."""

    answer: Answer | None = None
    difference: float = 0.0
    trace: str | None = None
    ended_wall: float = 0.0
    decision_id: str | None = None


UNANSWERED = Run()


class Outcomes:
    """``decision`` is always the one of the version that answered the client."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._said: set[tuple[str, VersionRef, str]] = set()

    def __repr__(self) -> str:
        return f"<Outcomes [{len(self._said)} kinds of trouble said]>"

    def tell(self, decision: Decision, shadow: VersionRef, outcome: str, rows: int, run: Run = UNANSWERED) -> None:
        record = ShadowRecord(decision.route, decision.epoch, decision.bucket, decision.version, shadow, outcome, rows)
        answer = run.answer
        if answer is not None:
            record = record._replace(batch=answer.batch, queue_s=answer.queue_s, compute_s=answer.compute_s)
        told = record._replace(difference=run.difference, trace=run.trace, ended_wall=run.ended_wall)
        self._observer.shadow_compared(told._replace(decision_id=run.decision_id))

    def say_once(self, route: str, shadow: VersionRef, what: str) -> None:
        """Up to its first colon ``what`` tells the kind; the metrics count the others."""
        said = (route, shadow, what.partition(":")[0])
        if said not in self._said:
            self._said.add(said)
            log.warning("shadow %s of route %s: %s", shadow, route, what)

    def keep(self, wanted: Container[tuple[str, VersionRef]]) -> None:
        """Of routes and their shadows that are still there; one that comes back is news again."""
        self._said = {said for said in self._said if said[:2] in wanted}
