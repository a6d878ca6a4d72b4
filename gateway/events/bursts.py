"""Finished requests told together, sorted once for all who watch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from gateway.events.records import RequestRecord
from gateway.messages import VersionRef

__all__ = ["Burst", "Good"]


class Good(NamedTuple):
    """Requests of a burst that went well, on one route by one version; and what each took."""

    route: str
    version: VersionRef
    records: list[RequestRecord]
    durations: list[float]


class Burst(list[RequestRecord]):
    """Finished requests. Most of them went well, and for most observers these differ in little: they are sorted out
    once for all."""

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> Burst:
        return records if isinstance(records, cls) else cls(records)

    @cached_property
    def good(self) -> list[Good]:
        """Those with an answer from the very version that was chosen for them, which failed in nothing, and no trace
        that is kept."""
        return self._sorted[0]

    @cached_property
    def others(self) -> list[RequestRecord]:
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[list[Good], list[RequestRecord]]:
        # By what the version and the route's name are, not by what they say, which takes three times as long; equal
        # ones are mostly the same object, and where they are not, there are two groups.
        groups: dict[int, Good] = {}
        others = []
        for record in self:
            decision = record.decision
            if decision is None or record.code != 200 or record.chosen_failure is not None or record.sampled:
                others.append(record)
                continue
            route, version = decision.route, decision.version
            group = groups.get(id(version))
            if group is None:
                group = groups[id(version)] = Good(route, version, [], [])
            if group.route is not route or record.answered_by is not version:
                others.append(record)
            else:
                group.records.append(record)
                group.durations.append(record.duration_s)
        return [group for group in groups.values() if group.records], others
