"""Bursts of finished requests as bytes: by columns, since most of what a request adds is what others said.

``marshal`` carries them: it is the fastest form Python has for tuples of plain values (a record costs 0.8 µs to pack
and 1.5 µs to unpack, its tensors 0.2 µs each; JSON takes 5 µs, pickle 9 with its classes). It must not read bytes of a
stranger, and does not: both ends are this very program, started by the node from the same interpreter, over a socket
that nobody else can open. A client decides what some of the strings say, never how they are encoded.

Tensors of requests that the same version answered have one type and mostly one shape, so those of a burst are joined
along their first axis, and cross as one. Where they were too large for that and their digests go, these are a column.
"""

from __future__ import annotations

import marshal
import math
from collections.abc import Callable, Sequence
from operator import is_, itemgetter
from typing import Any

import numpy as np

from gateway.events.records import Content, RequestRecord
from gateway.messages import Array, Arrays, Decision, VersionRef
from gateway.recording.contents import bytes_of, digests_of, pack_tensors

__all__ = ["LARGE_BYTES", "MARSHAL_VERSION", "SENT_BYTES", "LargeTensors", "pack_burst"]

MARSHAL_VERSION = 2  # without references: telling equal strings from the same one costs more than writing them twice

_FIELDS = RequestRecord._fields
_REQUEST_ID, _DECISION, _ANSWERED_BY = map(_FIELDS.index, ("request_id", "decision", "answered_by"))
_ROUTE, _TRACE_ID, _KEY, _CONTENT = map(_FIELDS.index, ("route", "trace_id", "key", "content"))
_VERSION = Decision._fields.index("version")
_NOBODY = VersionRef("", 0)
_NONE_TAKEN = Decision("", _NOBODY, "", None, 0)
_EMPTY = b""

LARGE_BYTES = 64 * 1024
"""Tensors beyond it are not copied to the recorder as a matter of course."""

SENT_BYTES = 512
"""Sets of more are not sent where their digests do. To join 1 KB, send it and hash it at the other end takes 4 µs, 3 KB
ten, most of it here; to hash it here takes 1.5, and 3.5."""

_HASHED_SHARE = 16
"""Where all sets of a burst hold more than so many large ones may, 1 MB, a thread hashes them: at 0.4 ms a megabyte, a
burst of 256 with 60 KB each would else hold up the requests behind it for 6 ms, whatever versions answered them."""

Columns = list[Any]


def _never(_route: str) -> bool:
    return False


class LargeTensors(Exception):
    """Some tensor of the burst has more bytes than may cross."""


class _Bounds:
    """Of one burst. ``hashed_bytes`` counts what was hashed of it in passing, whichever sets these were."""

    __slots__ = ("hashed_bytes", "large_bytes")

    def __init__(self, large_bytes: int) -> None:
        self.large_bytes = large_bytes
        self.hashed_bytes = 0


def pack_burst(
    records: Sequence[RequestRecord],
    *,
    bare: bool = False,
    large_bytes: int = LARGE_BYTES,
    digests_alone: Callable[[str], bool] = _never,
) -> bytes:
    """``bare``: without what only the recorder may see, keys and contents. ``digests_alone``: whether of a route's
    tensors nobody wants to see more than their digests. Raises LargeTensors, where there is too much to be hashed in
    passing, too, and ValueError for what no record holds.
    """
    if not records:
        return _EMPTY
    columns: Columns = list(zip(*records, strict=True))
    decisions = columns[_DECISION]
    if not all(decisions):
        decisions = [decision or _NONE_TAKEN for decision in decisions]
    decided: Columns = list(zip(*decisions, strict=True))
    chosen = decided[_VERSION]
    columns[_ANSWERED_BY] = _pack_answered(columns[_ANSWERED_BY], chosen)
    alike = chosen.count(chosen[0]) == len(chosen)
    decided[_VERSION : _VERSION + 1] = zip(*(chosen[:1] if alike else chosen), strict=True)
    if columns[_TRACE_ID] == columns[_REQUEST_ID]:  # as most are named
        columns[_TRACE_ID] = None
    contents = columns[_CONTENT]
    columns[_DECISION] = columns[_CONTENT] = None
    packed = None
    if bare:
        columns[_KEY] = None
    elif contents.count(None) != len(contents):
        bounds = _Bounds(large_bytes)
        alone = {route: digests_alone(route) for route in set(columns[_ROUTE])}
        if alike and len(set(alone.values())) == 1:
            packed = _pack_alike(contents, bounds, digested=True in alone.values())
        if packed is None:
            packed = _pack_by_version(contents, chosen, [alone[route] for route in columns[_ROUTE]], bounds)
    body = (len(records), _folded(columns), _folded(decided), packed)
    return marshal.dumps(body, MARSHAL_VERSION)


def _pack_answered(answered_by: Sequence[VersionRef | None], chosen: Sequence[VersionRef]) -> tuple[Any, ...]:
    """Nearly always the version that was chosen, and then the same object."""
    if all(map(is_, answered_by, chosen)):
        return (True,)
    return tuple(
        True if answered is version else answered and (answered.model, answered.number)
        for answered, version in zip(answered_by, chosen, strict=True)
    )


def _folded(columns: Columns) -> Columns:
    """A column whose values are all equal is sent as one of one value, and one that nobody asks for as None."""
    return [
        column[:1]
        if column is not None and column[0] == column[-1] and column.count(column[0]) == len(column)
        else column
        for column in columns
    ]


# Contents. Of a *whole* one each side has tensors, or their digest.


def _pack_alike(contents: Sequence[Content | None], bounds: _Bounds, *, digested: bool) -> tuple[Any, ...] | None:
    """Of one version, and joined; None where they are not all whole and alike."""
    if not all(contents):
        return None
    inputs, outputs, contexts, *digests = zip(*contents, strict=True)
    sides = [_side(*side, bounds, digested=digested) for side in zip((inputs, outputs), digests, strict=True)]
    if None in sides:
        return None
    said = {place: one for place, one in enumerate(contexts) if one} if any(contexts) else {}
    return [(len(contents), *sides)], (), said


def _pack_by_version(
    contents: Sequence[Content | None], versions: Sequence[VersionRef], digested: Sequence[bool], bounds: _Bounds
) -> tuple[Any, ...]:
    """Those that are whole by version, joined; the others one by one; and the contexts of all that have one."""
    groups: dict[tuple[VersionRef, bool, bool, bool], list[int]] = {}
    single = []
    contexts = {}
    for place, (content, version) in enumerate(zip(contents, versions, strict=True)):
        if content is None:
            continue
        inputs, outputs, context, input_digest, output_digest = content
        if context:
            contexts[place] = context
        if (inputs is None) is (not input_digest) or (outputs is None) is (not output_digest):
            single.append(place)
        else:
            groups.setdefault((version, digested[place], inputs is None, outputs is None), []).append(place)
    joined = []
    for (_, alone, *_), places in groups.items():
        inputs, outputs, _, *digests = zip(*(contents[place] for place in places), strict=True)
        sides = [_side(*side, bounds, digested=alone) for side in zip((inputs, outputs), digests, strict=True)]
        if None in sides:
            single += places
        else:
            joined.append((places, *sides))
    return joined, [_pack_one(place, contents[place], bounds) for place in single], contexts


def _pack_one(place: int, content: Content | None, bounds: _Bounds) -> tuple[Any, ...]:
    inputs, outputs, _, *digests = content or Content()
    sides = [None if side is None else pack_tensors(side) for side in (inputs, outputs)]
    if any(bytes_of(side) > bounds.large_bytes for side in (inputs, outputs) if side is not None):
        raise LargeTensors
    return place, *sides, *digests


def _side(
    sets: Sequence[Arrays | None], digests: Sequence[str | None], bounds: _Bounds, *, digested: bool
) -> Sequence[Any] | None:
    """Tensors joined (a list), or the digests of them (a tuple); None where some have these and some those."""
    if sets.count(None) == 0 and not any(digests):
        return _join(sets, bounds, digested=digested)  # type: ignore[arg-type]
    return tuple(digests) if all(digests) and sets.count(None) == len(sets) else None


def _join(sets: Sequence[Arrays], bounds: _Bounds, *, digested: bool) -> Sequence[Any] | None:
    """None where tensors of one name differ in type or beyond the first axis, or cannot be joined at all. ``digested``:
    digests do, where they are made sooner than their tensors sent."""
    names, columns = list(sets[0]), []
    if set(map(len, sets)) != {len(names)}:
        return None
    size = 0
    try:
        for name in names:
            arrays = list(map(itemgetter(name), sets))
            kind, shape = arrays[0].dtype, arrays[0].shape[1:]
            if kind.kind in "OSU":
                return None
            lengths = list(map(len, arrays))
            most = max(lengths) * math.prod(shape) * kind.itemsize
            if most > bounds.large_bytes:
                raise LargeTensors
            size += most
            columns.append((name, kind, shape, lengths, arrays))
        if digested and size > SENT_BYTES:
            _check_hashed(columns, bounds)
            return digests_of(sets)
        return [
            (name, kind.char, shape, _folded([lengths])[0], _joined(arrays, kind))
            for name, kind, shape, lengths, arrays in columns
        ]
    except (KeyError, TypeError, ValueError):
        return None


def _joined(arrays: Sequence[Array], kind: np.dtype[Any]) -> Array:
    """In C order: of arrays that are in Fortran's, numpy makes another, which ``marshal`` does not write. ValueError or
    TypeError for what differs, before anything is made."""
    return np.ascontiguousarray(np.concatenate(arrays, dtype=kind, casting="no"))


def _check_hashed(columns: Sequence[tuple[Any, ...]], bounds: _Bounds) -> None:
    """Raises LargeTensors where it is too much to be hashed in passing, with what the burst had to be hashed before it.
    Beyond the first axis, too, tensors of one name may differ."""
    for *_, arrays in columns:
        sizes = [array.nbytes for array in arrays]
        bounds.hashed_bytes += sum(sizes)
        if max(sizes) > bounds.large_bytes or bounds.hashed_bytes > _HASHED_SHARE * bounds.large_bytes:
            raise LargeTensors
