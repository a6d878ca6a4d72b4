"""What one finished request says of the version that the split chose for it: a failure, an answer, a time, or nothing.

An answer that was kept, or another request's, is no version's outcome: the arm with more traffic has more of them, and
they never fail, so a candidate whose cache is cold would seem worse for that alone. It counts as a key that the split
gave to the arm, and as nothing else.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.control.tallies import KEPT, rows_class, slow_bin_of
from gateway.errors import VersionUnavailable
from gateway.events.records import RequestRecord
from gateway.messages import VersionRef

__all__ = ["RequestOutcomes", "Tally"]

MAX_BATCHES = 10_000
"""Batches remembered as counted; an answer comes within seconds of its batch."""

Tally = tuple[tuple[str, str], str, str, int]
"""Stream and stratum, arm, outcome, and by how much that counter grows."""


class RequestOutcomes:
    """Remembers which batches have counted, and which versions have died. ``patience_s``: a request that the version
    had for less before its deadline passed says nothing of it."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._batches: OrderedDict[int, None] = OrderedDict()
        self._crashed: set[VersionRef] = set()

    def crashed(self, version: VersionRef) -> None:
        self._crashed.add(version)

    def retired(self, version: VersionRef) -> None:
        self._crashed.discard(version)

    def of(self, record: RequestRecord, arm: str) -> tuple[Tally, ...]:
        """Nothing for a request that is nobody's outcome, or had no decision."""
        bad, decision = self._is_bad(record), record.decision
        if bad is None or decision is None:
            return ()
        outcome = "bad" if bad else "good" if record.batch else KEPT
        found: Tally = ("error", decision.reason), arm, outcome, 1
        if outcome != "good" or record.answered_by != decision.version or not self._is_new_batch(record.batch):
            return (found,)
        return found, (("slow", rows_class(record.batch_rows)), arm, str(slow_bin_of(record.compute_s)), 1)

    def _is_bad(self, record: RequestRecord) -> bool | None:
        """As the guard reads it; None: nobody's outcome."""
        failure = record.chosen_failure
        if failure is None:
            if record.error is None:
                return False
            late = record.error == "DeadlineExceeded" and record.queue_s >= self._patience_s
            return True if late else None
        if failure == VersionUnavailable.__name__:
            # Backing off after deaths is its own doing; not loaded here is not.
            return True if record.decision and record.decision.version in self._crashed else None
        return True

    def _is_new_batch(self, batch: int) -> bool:
        if batch in self._batches:
            return False
        self._batches[batch] = None
        if len(self._batches) > MAX_BATCHES:
            self._batches.popitem(last=False)
        return True
