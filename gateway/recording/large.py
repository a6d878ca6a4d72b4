"""Large tensors do not go to the recorder: their digests do, made in a thread while nobody waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gateway.events.records import Content, RequestRecord
from gateway.messages import Arrays
from gateway.recording.bursts import LARGE_BYTES, SENT_BYTES
from gateway.recording.contents import bytes_of, digest_of
from gateway.routing.table import RoutingTable

__all__ = [
    "PAYLOAD_BYTES",
    "PORTION_BYTES",
    "Policy",
    "Portion",
    "Set",
    "Sorted",
    "Wanted",
    "content_policy",
    "no_policy",
    "portions",
    "sorted_out",
]

PAYLOAD_BYTES = 1024 * 1024
"""What of a request, or of an answer, is kept at most where a route wants it whole; of more there is the digest."""

PORTION_BYTES = 8 * 1024 * 1024
"""What is hashed at once, unless one request has more: 1.5 ms. All its records leave together, so it also bounds what
these hold: 64 KB of tensors each, or ``PAYLOAD_BYTES``."""


_SAYS_NOTHING = np.empty(0, np.uint8)


class Wanted(NamedTuple):
    """What is wanted of a route's tensors: they themselves, for the decision log (``payload``) or to be compared with
    labels (``compared``); and which of them count in no digest."""

    payload: bool = False
    compared: bool = False
    redact: frozenset[str] = frozenset()

    @property
    def digests_alone(self) -> bool:
        """The recorder need not see them. (It tells which names it left out, by those that it sees.)"""
        return not (self.payload or self.compared or self.redact)


Policy = Callable[[str], Wanted]
"""By route."""


def no_policy(_route: str) -> Wanted:
    return Wanted()


def content_policy(table: RoutingTable, route: str) -> Wanted:
    """The one that the table in force has."""
    found = table.routes.get(route)
    if found is None:
        return Wanted()
    recording, compared = found.recording, found.truth is not None
    if recording is None:
        return Wanted(compared=compared)
    return Wanted(recording.content == "payload", compared, recording.redact)


class Set(NamedTuple):
    """A request whose inputs, outputs or both (``large``) a thread hashes. ``size`` in bytes."""

    record: RequestRecord
    content: Content
    redact: frozenset[str]
    size: int
    large: tuple[bool, bool]

    def with_digests(self) -> RequestRecord:
        """Takes its time. ValueError for what has none."""
        return self._without_large(lambda arrays: (digest_of(arrays, self.redact), self._left_out(arrays)))

    def without_digests(self) -> RequestRecord:
        """Where there is no time."""
        return self._without_large(lambda _: (None, None))

    def _without_large(self, instead: Callable[[Arrays], tuple[str | None, Arrays | None]]) -> RequestRecord:
        inputs, outputs, context, asked_digest, answered_digest = self.content
        if inputs is not None and self.large[0]:
            asked_digest, inputs = instead(inputs)
        if outputs is not None and self.large[1]:
            answered_digest, outputs = instead(outputs)
        return self.record._replace(content=Content(inputs, outputs, context, asked_digest, answered_digest))

    def _left_out(self, arrays: Arrays) -> Arrays | None:
        """Those that the digest leaves out, and nothing of what they say: a record lists their names."""
        return {name: _SAYS_NOTHING for name in arrays if name in self.redact} or None


class Portion:
    """Sets that a thread makes the digests of in one go. Each goes from ``left``, and its tensors with it, as soon as
    its record is among the ``made``: nobody else looks before the thread is done."""

    def __init__(self, sets: Sequence[Set]) -> None:
        self.left = deque(sets)
        self.made: list[RequestRecord] = []
        self.size = sum(one.size for one in sets)

    def __repr__(self) -> str:
        return f"<Portion [{len(self.made)} made | {len(self.left)} left]>"

    def work(self) -> None:
        """In the thread. Raises for a set whose digests cannot be made, which is then the first of those left."""
        while self.left:
            self.made.append(self.left[0].with_digests())
            del self.left[0]

    def pass_over(self) -> None:
        """The first of those left has no digests."""
        self.made.append(self.left.popleft().without_digests())


def portions(sets: Sequence[Set]) -> Iterator[Portion]:
    """In their order, each of ``PORTION_BYTES`` at most, or of one set."""
    gathered: list[Set] = []
    size = 0
    for one in sets:
        if gathered and size + one.size > PORTION_BYTES:
            yield Portion(gathered)
            gathered, size = [], 0
        gathered.append(one)
        size += one.size
    if gathered:
        yield Portion(gathered)


class Sorted(NamedTuple):
    """Records whose tensors are small, those that are sent whole all the same, and those that a thread hashes."""

    small: list[RequestRecord]
    payloads: list[RequestRecord]
    large: list[Set]


def sorted_out(records: Sequence[RequestRecord], policy: Policy) -> Sorted:
    """Of a burst that is too much to be packed in passing. Where digests do, what is not sent is hashed elsewhere."""
    found = Sorted([], [], [])
    wanted = {route: policy(route) for route in {record.route for record in records}}
    for record in records:
        content, of_route = record.content, wanted[record.route]
        asked, answered = (0 if side is None else bytes_of(side) for side in content[:2]) if content else (0, 0)
        passing = SENT_BYTES if of_route.digests_alone else LARGE_BYTES
        most = PAYLOAD_BYTES if of_route.payload else passing
        if content is None or max(asked, answered) <= passing:
            found.small.append(record)
        elif max(asked, answered) <= most:
            found.payloads.append(record)
        else:
            large = asked > most, answered > most
            found.large.append(Set(record, content, of_route.redact, asked + answered, large))
    return found
