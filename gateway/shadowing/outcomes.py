"""What became of copies, told to the observer; and of each kind of trouble with a shadow, the first in the log."""

from __future__ import annotations

import logging
from collections.abc import Container

from gateway.events import Observer, ShadowRecord
from gateway.messages import Decision, VersionRef

__all__ = ["Outcomes"]

log = logging.getLogger("turnout.shadows")


class Outcomes:
    """``decision`` is always the one of the version that answered the client."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._said: set[tuple[str, VersionRef, str]] = set()

    def __repr__(self) -> str:
        return f"<Outcomes [{len(self._said)} kinds of trouble said]>"

    def tell(self, decision: Decision, shadow: VersionRef, outcome: str, rows: int, *, difference: float = 0.0) -> None:
        self._observer.shadow_compared(
            ShadowRecord(
                decision.route, decision.epoch, decision.bucket, decision.version, shadow, outcome, rows, difference
            )
        )

    def say_once(self, route: str, shadow: VersionRef, what: str) -> None:
        """Up to its first colon ``what`` tells the kind; the metrics count the others."""
        said = (route, shadow, what.partition(":")[0])
        if said not in self._said:
            self._said.add(said)
            log.warning("shadow %s of route %s: %s", shadow, route, what)

    def keep(self, wanted: Container[tuple[str, VersionRef]]) -> None:
        """Of routes and their shadows that are still there; one that comes back is news again."""
        self._said = {said for said in self._said if said[:2] in wanted}
