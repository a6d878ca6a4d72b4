"""What the recorder is made of: parts that take the same records, one after the other, each for a purpose of its own.

A part runs in the recorder's process, on its one loop: whatever takes long delays the others and fills the road, never
the data plane. It may use threads of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.events.records import RequestRecord

__all__ = ["GAP", "Part"]

GAP = "gap"
"""The event that tells of records that never came: ``count``, and ``cause``: ``full`` (the road was), ``recorder``
(it died with them) or ``worker`` (a web worker died before it could tell)."""


class Part(Protocol):
    """A record's ``content`` holds numpy arrays that must not be written to, and its digests as its route wants them.
    What a part raises in ``take``, ``told``, ``tick`` or ``close`` is logged, counted, and kept from the others.
    """

    @property
    def full(self) -> bool:
        """It cannot keep what comes now (its disk is full, say): routes that would rather refuse do so meanwhile."""

    def take(self, records: Sequence[RequestRecord]) -> None:
        """Requests that have been answered, about in the order of their ends; each comes once. They are acknowledged
        when all parts have returned: what a part has not handed to the system by then dies with the process, and
        nobody counts it."""

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        """A change or a gap, in its place among the records: ``table``, ``version``, ``rollback``, ``shadow``, ``gap``,
        ``secrets``; parts ignore what they do not know."""

    def tick(self) -> None:
        """About every quarter of a second, also while nothing comes."""

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answers a question of the gateway. Raises KeyError for a kind that is not this part's, and a TurnoutError for
        what the asker is told."""

    def close(self) -> object:
        """All has been taken; returns when what must be kept is kept."""
