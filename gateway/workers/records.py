"""Events as plain tuples and back: what a worker saw, in the form in which it crosses to the node.

``marshal`` carries them, for the reasons that ``gateway.recording.bursts`` has. A worker that was taken over could
crash the node with it; it runs as the same user, and could do that with a signal.
"""

from __future__ import annotations

import marshal
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from gateway.events.observer import EVENTS, Observer
from gateway.events.records import (
    BatchRecord,
    CountsRecord,
    FlagMiss,
    FlagSource,
    RequestRecord,
    RollbackRecord,
    ShadowRecord,
)
from gateway.messages import Decision, VersionRef

__all__ = [
    "LOCAL",
    "Burst",
    "Event",
    "pack_burst",
    "pack_event",
    "unpack_burst",
    "unpack_event",
]

LOCAL = frozenset(
    {
        "version_state",
        "version_retired",
        "table_applied",
        "store_reachable",
        "rolled_back",
        "requests_lost",
        "request_finished",
    }
)
"""Events that a worker does not relay: the node tells them itself, once for all."""

_MARSHAL_VERSION = 2  # without references: telling equal strings from the same one costs more than writing them twice

Event = tuple[int, tuple[Any, ...]]
"""Place among ``EVENTS``, and packed arguments."""

_NUMBERS = {name: number for number, name in enumerate(EVENTS)}
_MOST_REFERENCES = 4096


class _Form:
    """How the values of one class are taken apart and put together again, those of others within them too."""

    def __init__(self, kind: type[Any]) -> None:
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else list(kind._fields)
        self._kind = kind
        self._values: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
        hints = typing.get_type_hints(kind)
        self._within = [
            (place, _FORMS[inner]) for place, name in enumerate(names) if (inner := _known(hints[name])) is not None
        ]

    def pack(self, value: Any) -> tuple[Any, ...]:
        values = self._values(value)
        if not self._within:
            return values
        packed = list(values)
        for place, form in self._within:
            if packed[place] is not None:
                packed[place] = form.pack(packed[place])
        return tuple(packed)

    def unpack(self, packed: Sequence[Any]) -> Any:
        if self._within:
            packed = list(packed)
            for place, form in self._within:
                if packed[place] is not None:
                    packed[place] = form.unpack(packed[place])
        return self._kind(*packed)


class _ReferenceForm(_Form):
    """There are few versions and each request names one or two: the same value again is the same object."""

    def __init__(self) -> None:
        super().__init__(VersionRef)
        self._seen: dict[Sequence[Any], VersionRef] = {}

    def unpack(self, packed: Sequence[Any]) -> VersionRef:
        found = self._seen.get(packed)
        if found is None:
            if len(self._seen) >= _MOST_REFERENCES:
                self._seen.clear()
            found = self._seen[packed] = VersionRef(*packed)
        return found


def _known(hint: Any) -> type[Any] | None:
    """The class with a form that a field's type is, or may be besides None."""
    candidates = (hint, *typing.get_args(hint))
    return next((kind for kind in candidates if isinstance(kind, type) and kind in _FORMS), None)


_FORMS: dict[type[Any], _Form] = {}
for _made in (
    VersionRef,
    Decision,
    RequestRecord,
    BatchRecord,
    ShadowRecord,
    RollbackRecord,
    FlagMiss,
    FlagSource,
    CountsRecord,
):
    _FORMS[_made] = _ReferenceForm() if _made is VersionRef else _Form(_made)


def _signature(event: str) -> tuple[_Form | None, ...]:
    hints = typing.get_type_hints(getattr(Observer, event))
    return tuple(
        None if (kind := _known(hint)) is None else _FORMS[kind] for name, hint in hints.items() if name != "return"
    )


_ARGUMENTS = tuple(_signature(event) for event in EVENTS)


def pack_event(name: str, args: tuple[Any, ...]) -> Event:
    number = _NUMBERS[name]
    forms = _ARGUMENTS[number]
    return number, tuple(value if form is None else form.pack(value) for form, value in zip(forms, args, strict=True))


def unpack_event(event: Event) -> tuple[str, tuple[Any, ...]]:
    """The event's name, and its arguments as they were. ValueError when it is none."""
    try:
        number, packed = event
        forms = _ARGUMENTS[number]
        args = tuple(value if form is None else form.unpack(value) for form, value in zip(forms, packed, strict=True))
        return EVENTS[number], args
    except (TypeError, IndexError, KeyError) as error:
        raise ValueError(f"no event of this program: {error}") from error


class Burst(NamedTuple):
    """What a worker saw in a moment: requests begun, by route; rows waiting, by version (the latest); requests
    finished (``gateway.workers.finished``, a part for each burst); the rest in order; and what it could not tell
    because the node did not read: events, and by route the requests whose end (negative: whose beginning) was among
    them."""

    started: dict[str, int]
    waiting: dict[tuple[str, int], int]
    finished: list[Any]
    events: list[Event]
    dropped: int
    lost: dict[str, int]


def pack_burst(burst: Burst) -> bytes:
    return marshal.dumps(tuple(burst), _MARSHAL_VERSION)


def unpack_burst(body: bytes) -> Burst:
    """Raises ValueError."""
    try:
        return Burst(*marshal.loads(body))  # noqa: S302 (see above: both ends are this program)
    except (EOFError, TypeError, ValueError) as error:
        raise ValueError(f"no burst of events: {error}") from error
