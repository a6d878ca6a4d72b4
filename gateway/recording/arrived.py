"""A burst as it arrived: its columns at once, its records when somebody asks for one.

Most requests of a burst went well, and who writes a line for each needs a few columns of them: a record, its decision,
its content and their tensors are forty objects, which cost twice what such a line does to write, and push everything
else out of the processor's caches.
"""

from __future__ import annotations

import hashlib
import marshal
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import repeat
from operator import add
from sys import intern
from typing import Any, overload

import numpy as np

from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef, datatype_of
from gateway.recording.contents import MOST_PLAIN_BYTES, condensed, heading, unpack_tensors

__all__ = ["Arrived", "Later", "no_burst", "unpack_burst"]

Columns = list[Any]

_FIELDS = RequestRecord._fields
_PLACE = {name: place for place, name in enumerate(_FIELDS)}
_REQUEST_ID, _DECISION, _ANSWERED_BY = map(_FIELDS.index, ("request_id", "decision", "answered_by"))
_TRACE_ID, _CONTENT = map(_FIELDS.index, ("trace_id", "content"))
_VERSION = Decision._fields.index("version")
_DECIDED_NAMES = (*Decision._fields[:_VERSION], "model", "number", *Decision._fields[_VERSION + 1 :])
_DECIDED = {name: place for place, name in enumerate(_DECIDED_NAMES)}
"""Where a part of the decisions stands: a version takes two columns."""

_NO_CONTENTS: tuple[Any, ...] = ((), (), {})


class Later(Sequence[RequestRecord]):
    """Records that are made when somebody asks for one. How many they are is known before."""

    _count: int

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self._count} requests]>"

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> RequestRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RequestRecord]: ...
    def __getitem__(self, place: int | slice) -> RequestRecord | Sequence[RequestRecord]:
        return self.records[place]

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self.records)

    @cached_property
    def records(self) -> Sequence[RequestRecord]:
        return self._made()

    @abstractmethod
    def _made(self) -> Sequence[RequestRecord]:
        """Called once."""


class Arrived(Later):
    """``columns`` and ``decided`` hold a list each for a field of the records and of their decisions: of one value
    where all have the same, or None where nobody has any."""

    def __init__(self, body: bytes) -> None:
        """Raises ValueError for what is no burst, so far as can be told by its shape."""
        try:
            # Both ends are this program; see ``gateway.recording.bursts``.
            self._count, self._columns, self._decided, self._contents = marshal.loads(body)  # noqa: S302
            self.named_by_trace = self._columns[_TRACE_ID] is None
            if self.named_by_trace:
                self._columns[_TRACE_ID] = self._columns[_REQUEST_ID]
            fitting = {None, 1, self._count}
            lengths = {None if column is None else len(column) for column in (*self._columns, *self._decided)}
            if len(self._columns) != len(_FIELDS) or not lengths <= fitting:
                raise ValueError(f"{len(self._columns)} columns of {sorted(map(str, lengths))} values")
        except (EOFError, TypeError, ValueError, LookupError) as error:
            raise no_burst(error) from error

    @cached_property
    def plain(self) -> bool:
        """All on one route, all answered by the version that was chosen, and no flag had a say."""
        decided = self._decided
        flags = [decided[_DECIDED[name]] for name in ("flag_age_s", "flag", "flag_stale")]
        return (
            self._columns[_ANSWERED_BY] == (True,)
            and len(self._columns[_PLACE["route"]]) == 1
            and "" not in decided[_DECIDED["reason"]]  # that of a request for which nothing was decided
            and all(column is None or (len(column) == 1 and not column[0]) for column in flags)
        )

    @property
    def route(self) -> str:
        """Of the first, and of all where they are ``plain``."""
        return str(self._columns[_PLACE["route"]][0])

    def column(self, name: str) -> Sequence[Any]:
        """A value for each, or the one that all have."""
        column = self._columns[_PLACE[name]]
        return (None,) if column is None else column

    def decided(self, name: str) -> Sequence[Any]:
        """The same of their decisions; a version is its ``model`` and its ``number``."""
        column = self._decided[_DECIDED[name]]
        return (None,) if column is None else column

    def each(self, *names: str) -> list[Iterable[Any]]:
        """Fields of all records, as many values each as there are records."""
        return [_values(self.column(name), self._count) for name in names]

    def each_decided(self, *names: str) -> list[Iterable[Any]]:
        return [_values(self.decided(name), self._count) for name in names]

    def digests(self) -> tuple[list[str | None], list[str | None]] | None:
        """Of what each asked and got, as ``digest_of`` makes them, None for one without content. None: not all can be
        had without their records."""
        asked: list[str | None] = [None] * self._count
        answered = asked.copy()
        joined, alone, _ = _NO_CONTENTS if self._contents is None else self._contents
        if alone:
            return None
        for which, *sides in joined:
            places = range(which) if isinstance(which, int) else which
            given, back = (side if isinstance(side, tuple) else _digests(side, len(places)) for side in sides)
            if given is None or back is None:
                return None
            for place, one, other in zip(places, given, back, strict=True):
                asked[place], answered[place] = one, other
        return asked, answered

    def _made(self) -> Sequence[RequestRecord]:
        try:
            return self._unpacked()
        except (EOFError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise no_burst(error) from error

    def _unpacked(self) -> list[RequestRecord]:
        count = self._count
        columns, decided = _unfolded(self._columns, count), _unfolded(self._decided, count)
        decided[0] = map(intern, decided[0])
        chosen = _versions(decided[_VERSION], decided[_VERSION + 1])
        decided[_VERSION : _VERSION + 2] = [chosen]
        columns[_DECISION] = [decision if decision.reason else None for decision in map(Decision, *decided)]
        columns[_ANSWERED_BY] = [
            version if answered is True else answered and VersionRef(*answered)
            for answered, version in zip(columns[_ANSWERED_BY], chosen, strict=True)
        ]
        if self.named_by_trace:
            columns[_TRACE_ID] = columns[_REQUEST_ID] = list(columns[_REQUEST_ID])
        contents = self._contents
        columns[_CONTENT] = repeat(None, count) if contents is None else _unpack_contents(contents, count)
        return list(map(RequestRecord._make, zip(*columns, strict=True)))


def no_burst(why: object) -> ValueError:
    """What is raised for bytes that are none, and for those of another program."""
    return ValueError(f"no burst of requests of this program: {why}")


def unpack_burst(body: bytes) -> Sequence[RequestRecord]:
    """Raises ValueError."""
    return Arrived(body) if body else []


def _unfolded(columns: Columns, count: int) -> Columns:
    return [repeat(None, count) if column is None else _values(column, count) for column in columns]


def _values(column: Sequence[Any], count: int) -> Iterable[Any]:
    return repeat(column[0], count) if len(column) == 1 else column


def _versions(models: Iterable[str], numbers: Iterable[int]) -> list[VersionRef]:
    """Equal ones are the same object."""
    seen: dict[tuple[str, int], VersionRef] = {}
    return [seen.get(one) or seen.setdefault(one, VersionRef(*one)) for one in zip(models, numbers, strict=True)]


def _unpack_contents(packed: tuple[Any, ...], count: int) -> list[Content | None]:
    joined, alone, contexts = packed
    contents: list[Content | None] = [None] * count
    for which, inputs, outputs in joined:
        places = range(which) if isinstance(which, int) else which
        (asked, asked_digests), (answered, answered_digests) = (_side(side, len(places)) for side in (inputs, outputs))
        said = map(contexts.get, places)
        whole = map(Content, asked, answered, said, asked_digests, answered_digests)
        for place, content in zip(places, whole, strict=True):
            contents[place] = content
    for place, inputs, outputs, *digests in alone:
        sides = [None if side is None else unpack_tensors(side) for side in (inputs, outputs)]
        contents[place] = Content(sides[0], sides[1], contexts.get(place), *digests)
    return contents


def _side(packed: Sequence[Any], count: int) -> tuple[Iterable[Any], Iterable[str | None]]:
    """Tensors and digests of each; one of the two."""
    nobody = repeat(None, count)
    return (nobody, packed) if isinstance(packed, tuple) else (_parted(packed, count), nobody)


def _parted(joined: Sequence[tuple[Any, ...]], count: int) -> Iterable[dict[str, Any]]:
    names = [name for name, *_ in joined]
    if not names:
        return [{} for _ in range(count)]
    columns = [_parts(count, *tensor[1:]) for tensor in joined]
    return (dict(zip(names, tensors, strict=True)) for tensors in zip(*columns, strict=True))


def _parts(count: int, kind: str, shape: tuple[int, ...], lengths: Sequence[int], body: bytes) -> Iterable[Any]:
    each = list(_values(lengths, count))
    whole = np.frombuffer(body, dtype=kind).reshape((sum(each), *shape))
    start = 0
    for length in each:
        yield whole[start : start + length]
        start += length


def _digests(side: Sequence[tuple[Any, ...]], count: int) -> list[str] | None:
    """None where the first axes differ in length: a heading for each is no faster than the tensors themselves."""
    spelled: Iterable[bytes] | None = None
    for name, kind, shape, lengths, body in sorted(side, key=_name_of):
        if len(lengths) != 1 or not lengths[0] or not body:
            return None
        size = len(body) // count
        digested = size > MOST_PLAIN_BYTES
        begin = heading(name, _datatype(kind), (lengths[0], *shape), digested=digested)
        if digested:
            whole = memoryview(body)
            mine = [begin + condensed(whole[place : place + size]) for place in range(0, len(body), size)]
        else:
            mine = [begin + body[place : place + size] for place in range(0, len(body), size)]
        spelled = mine if spelled is None else map(add, spelled, mine)
    if spelled is None:
        return None
    return [one.hexdigest() for one in map(_sha256, spelled)]


_sha256: Callable[[bytes], Any] = hashlib.sha256


def _name_of(tensor: Sequence[Any]) -> str:
    return str(tensor[0])


@lru_cache(maxsize=64)
def _datatype(kind: str) -> str:
    return datatype_of(np.empty(0, dtype=kind))
