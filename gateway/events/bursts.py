"""Finished requests told together, sorted once for all who watch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

from gateway.events.records import RequestRecord
from gateway.messages import VersionRef

__all__ = ["Burst", "Finished", "Good"]


class Good:
    """Requests of a burst that went well, on one route by one version; and what each took.

    ``records`` may have to be made first, of columns that came from elsewhere: who can do with the rest leaves them.
    """

    __slots__ = ("durations", "records", "route", "version")

    def __init__(
        self, route: str, version: VersionRef, records: Sequence[RequestRecord], durations: Sequence[float]
    ) -> None:
        self.route = route
        self.version = version
        self.records = records
        self.durations = durations

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.route} {self.version} [{len(self)} requests]>"

    def __len__(self) -> int:
        return len(self.durations)

    @property
    def rows(self) -> int:
        """Of all together."""
        return sum([record.rows for record in self.records])

    @property
    def queue_s(self) -> float:
        """All that they waited, added up."""
        return sum([record.queue_s for record in self.records])

    @property
    def slow(self) -> Sequence[int]:
        """The places, among these, of those that took longer than their route allows."""
        return [place for place, record in enumerate(self.records) if record.slow]

    @property
    def ended_wall(self) -> float:
        """When the last of them was answered, seconds since the epoch."""
        last = self.records[-1]
        return last.started_wall + last.duration_s


class Finished(Sequence[RequestRecord]):
    """Finished requests in the order in which they ended. Most of them went well, and for most observers these differ
    in little: they are sorted out once for all."""

    @property
    @abstractmethod
    def good(self) -> Sequence[Good]:
        """Those with an answer from the very version that was chosen for them, which failed in nothing, and no trace
        that is kept."""

    @property
    @abstractmethod
    def others(self) -> Sequence[RequestRecord]: ...


class Burst(list[RequestRecord], Finished):
    """Those that finished here."""

    @staticmethod
    def of(records: Sequence[RequestRecord]) -> Finished:
        return records if isinstance(records, Finished) else Burst(records)

    @property
    def good(self) -> Sequence[Good]:
        return self._sorted[0]

    @property
    def others(self) -> Sequence[RequestRecord]:
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[list[Good], list[RequestRecord]]:
        # By what the version and the route's name are, not by what they say, which takes three times as long; equal
        # ones are mostly the same object, and where they are not, there are two groups.
        groups: dict[int, tuple[str, VersionRef, list[RequestRecord], list[float]]] = {}
        others = []
        for record in self:
            decision = record.decision
            if decision is None or record.code != 200 or record.chosen_failure is not None or record.sampled:
                others.append(record)
                continue
            route, version = decision.route, decision.version
            group = groups.get(id(version))
            if group is None:
                group = groups[id(version)] = (route, version, [], [])
            if group[0] is not route or record.answered_by is not version:
                others.append(record)
            else:
                group[2].append(record)
                group[3].append(record.duration_s)
        return [Good(*group) for group in groups.values() if group[2]], others
