"""What a span is before any vendor's class: plain values, made from records after the fact.

Times are whole nanoseconds since the epoch, and a span never ends before it starts: ``spanned`` sees to it, whatever
clocks did meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

__all__ = ["Attributes", "Event", "Link", "Span", "Window", "batch_place", "child_id", "child_ids", "nanoseconds"]

Attributes = Mapping[str, str | int | float | bool]


class Window(NamedTuple):
    """From when to when, in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int

    def part(self, start_ns: int, end_ns: int) -> Window:
        """What of these times lies within; where nothing does, a moment at the nearer end."""
        first, last = self
        start = first if start_ns < first else min(start_ns, last)
        return Window(start, start if end_ns < start else min(end_ns, last))


class Link(NamedTuple):
    """Another span that has to do with this one, and is neither its parent nor its child."""

    trace_id: str
    span_id: str
    attributes: Attributes


class Event(NamedTuple):
    """Something that happened at one moment of a span."""

    name: str
    at_ns: int
    attributes: Attributes


class Span(NamedTuple):
    """Ids are lower-case hexadecimal. ``error`` is the kind of failure that makes this span one, None where it is
    none; ``serves``: it answers a caller, whose span, if there is one, is its parent in another process."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    window: Window
    attributes: Attributes
    links: tuple[Link, ...] = ()
    events: tuple[Event, ...] = ()
    error: str | None = None
    serves: bool = False
    state: str = ""


def nanoseconds(seconds: float) -> int:
    """To the microsecond: a float of seconds since the epoch holds no more."""
    return round(seconds * 1_000_000) * 1_000


def child_id(parent: str, name: str) -> str:
    """The id of the one child of that name. Made from the parent's, so that whoever knows the request's span can name
    what belongs to it without having been told; equal for equal input, and never all zero in practice (2**-64)."""
    return blake2b(name.encode(), digest_size=8, key=parent.encode()).hexdigest()


def child_ids(parent: str, count: int) -> list[str]:
    """Of a parent whose children have a fixed order, eight at most: all of them for what one takes."""
    made = blake2b(b"children", digest_size=8 * count, key=parent.encode()).hexdigest()
    return [made[at : at + 16] for at in range(0, 16 * count, 16)]


@lru_cache(1024)
def batch_place(gateway: str, batch: int) -> tuple[str, str]:
    """Trace and span of a batch, by its serial number: requests that finish long after it link to the same one."""
    made = blake2b(b"%d" % batch, digest_size=24, key=gateway.encode()[:64]).hexdigest()
    return made[:32], made[32:]
