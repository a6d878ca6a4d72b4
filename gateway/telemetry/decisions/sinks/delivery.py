"""What each kind of sink must do, and how it says that it could not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gateway.telemetry.decisions.sinks.trail import Entry

__all__ = ["Delivery", "Refused", "Unavailable"]


class Unavailable(Exception):
    """Not now: it is tried again for as long as it takes. The message is for people. ``after_s``: not before that."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Refused(Exception):
    """Not these: too large, or not to be read. Fewer at a time may be taken; a single one is given up."""


class Delivery(Protocol):
    """Used by one thread, but for ``abort`` and ``renew``."""

    def send(self, entries: Sequence[Entry]) -> int:
        """Returns when the receiver has them; how many of them it did not want. Raises Unavailable or Refused."""

    def renew(self, secrets: Mapping[str, Any]) -> None:
        """Of its options, ``secret`` and ``headers`` are others from the next ``send`` on."""

    def abort(self) -> None:
        """What is under way ends soon; from another thread."""

    def close(self) -> None: ...


Make = Callable[[Mapping[str, Any], Mapping[str, str]], Delivery]
"""From a sink's plain options, and what names this instance."""
