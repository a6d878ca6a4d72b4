"""A burst of finished requests on its way from a worker to the node: the sums that most observers want of those that
went well, and behind them all records, packed, for who asks for one.

A record with its decision is thirty objects: made at the node for each request they cost more than all that is done
with them there, and push what the workers and the children need out of the processors' caches.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway import __version__
from gateway.events.bursts import Finished, Good
from gateway.events.records import RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.recording import arrived, bursts

__all__ = ["Packed", "Relayed", "pack_finished"]

_FORM: Final = f"{__version__} {zlib.crc32(repr((RequestRecord._fields, Decision._fields)).encode()):08x}"
"""Records are looked into when an observer asks, which is too late to tell that they are another program's: one that
raises is dropped for good. A worker that starts again after the program was replaced on the disk sends such."""


class _Sums(NamedTuple):
    """A ``Good`` without its records. ``places``: which of the burst they are; None: all of it."""

    route: str
    version: tuple[str, int]
    durations: Sequence[float]
    rows: int
    queue_s: float
    slow: Sequence[int]
    ended_wall: float
    places: Sequence[int] | None


class Packed(NamedTuple):
    """As it crosses. ``form``: which of the program's; ``ended`` counts by route; ``others``: the places of those that
    are in no ``good``."""

    form: str
    requests: int
    ended: dict[str, int]
    good: Sequence[tuple[Any, ...]]
    others: Sequence[int]
    records: bytes


def pack_finished(finished: Finished) -> Packed:
    """Raises ValueError for what no record holds."""
    count, others = len(finished), finished.others
    ended: dict[str, int] = {}
    for route, many in (*((group.route, len(group)) for group in finished.good), *((one.route, 1) for one in others)):
        ended[route] = ended.get(route, 0) + many
    places: dict[int, int] = {}
    if len(finished.good) + bool(others) > 1:
        places = {id(record): place for place, record in enumerate(finished)}
    good = [
        tuple(
            _Sums(
                group.route,
                (group.version.model, group.version.number),
                group.durations,
                group.rows,
                group.queue_s,
                group.slow,
                group.ended_wall,
                [places[id(record)] for record in group.records] if places else None,
            )
        )
        for group in finished.good
    ]
    elsewhere = [places[id(record)] for record in others] if places else range(len(others))
    return Packed(_FORM, count, ended, good, list(elsewhere), bursts.pack_burst(finished, bare=True))


class _Whole(arrived.Later):
    """All of a burst."""

    def __init__(self, body: bytes, count: int) -> None:
        self._body = body
        self._count = count

    def _made(self) -> Sequence[RequestRecord]:
        return list(arrived.unpack_burst(self._body))


class _Some(arrived.Later):
    """Those of a burst that are at ``places``."""

    def __init__(self, whole: _Whole, places: Sequence[int]) -> None:
        self._whole = whole
        self._places = places
        self._count = len(places)

    def _made(self) -> Sequence[RequestRecord]:
        if not self._count:
            return ()
        records = self._whole.records
        return [records[place] for place in self._places]


class _RelayedGood(Good):
    """What is asked of all of them together is known."""

    __slots__ = ("_sums",)

    def __init__(self, sums: _Sums, records: Sequence[RequestRecord]) -> None:
        super().__init__(sums.route, VersionRef(*sums.version), records, sums.durations)
        self._sums = sums

    @property
    def rows(self) -> int:
        return self._sums.rows

    @property
    def queue_s(self) -> float:
        return self._sums.queue_s

    @property
    def slow(self) -> Sequence[int]:
        return self._sums.slow

    @property
    def ended_wall(self) -> float:
        return self._sums.ended_wall


class Relayed(arrived.Later, Finished):
    """What ``pack_finished`` gave, at the node. ``ended`` counts by route."""

    def __init__(self, packed: Sequence[Any]) -> None:
        """Raises ValueError for what is no burst, so far as can be told by its shape."""
        try:
            form, self._count, self.ended, good, others, body = Packed(*packed)
            if form != _FORM:
                raise arrived.no_burst(f"it is of {form!r:.100}, and this is {_FORM!r}")
            self._whole = whole = _Whole(body, self._count)
            self._good = [
                _RelayedGood(sums, whole if sums.places is None else _Some(whole, sums.places))
                for sums in map(_Sums._make, good)
            ]
            self._others = _Some(whole, others)
            told = len(others) + sum(map(len, self._good))
        except TypeError as error:
            raise arrived.no_burst(error) from error
        if not told == self._count == sum(self.ended.values()):
            raise arrived.no_burst(f"{told} of {self._count} requests are told of")

    def _made(self) -> Sequence[RequestRecord]:
        return self._whole.records

    @property
    def good(self) -> Sequence[Good]:
        return self._good

    @property
    def others(self) -> Sequence[RequestRecord]:
        return self._others
