"""Large tensors do not go to the recorder: their digests do, made in a thread while nobody waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.events.records import Content, RequestRecord
from gateway.messages import Arrays
from gateway.recording.bursts import LARGE_BYTES
from gateway.recording.contents import bytes_of, digest_of
from gateway.routing.table import RoutingTable

__all__ = ["PAYLOAD_BYTES", "Policy", "Set", "Sorted", "content_policy", "no_policy", "sorted_out"]

PAYLOAD_BYTES = 1024 * 1024
"""What of a request, or of an answer, is kept at most where a route wants it whole; of more there is the digest."""

Policy = Callable[[str], tuple[bool, frozenset[str]]]
"""Whether a route's tensors are to be kept themselves, and which of them count in no digest."""


def no_policy(_route: str) -> tuple[bool, frozenset[str]]:
    return False, frozenset()


def content_policy(table: RoutingTable, route: str) -> tuple[bool, frozenset[str]]:
    """The one that the table in force has."""
    found = table.routes.get(route)
    recording = None if found is None else found.recording
    return (False, frozenset()) if recording is None else (recording.content == "payload", recording.redact)


class Set(NamedTuple):
    """A request with large tensors among its inputs, its outputs or both. ``size`` in bytes."""

    record: RequestRecord
    content: Content
    redact: frozenset[str]
    size: int

    def with_digests(self) -> RequestRecord:
        """Takes its time."""
        inputs, outputs, context, *_ = self.content
        asked, answered = self._side(inputs), self._side(outputs)
        return self.record._replace(content=Content(asked[0], answered[0], context, asked[1], answered[1]))

    def _side(self, arrays: Arrays | None) -> tuple[Arrays | None, str | None]:
        if arrays is None or bytes_of(arrays) <= LARGE_BYTES:
            return arrays, None
        return None, digest_of(arrays, self.redact)

    def without_digests(self) -> RequestRecord:
        """Where there is no time."""
        inputs, outputs, context, *_ = self.content
        asked, answered = (None if side is None or bytes_of(side) > LARGE_BYTES else side for side in (inputs, outputs))
        return self.record._replace(content=Content(asked, answered, context))


class Sorted(NamedTuple):
    """Records whose tensors are small, those that are sent whole all the same, and those to be hashed."""

    small: list[RequestRecord]
    payloads: list[RequestRecord]
    large: list[Set]


def sorted_out(records: Sequence[RequestRecord], policy: Policy) -> Sorted:
    found = Sorted([], [], [])
    for record in records:
        content = record.content
        sizes = [bytes_of(side) for side in content[:2] if side is not None] if content is not None else []
        if content is None or max(sizes, default=0) <= LARGE_BYTES:
            found.small.append(record)
            continue
        payload, redact = policy(record.route)
        if payload and max(sizes) <= PAYLOAD_BYTES:
            found.payloads.append(record)
        else:
            found.large.append(Set(record, content, redact, sum(sizes)))
    return found
