"""One thing that is to reach another program: tried, tried again ever more seldom, taken or given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid5

from gateway.clock import Clock

__all__ = ["Ending", "Patience", "attempted", "delivery_id"]

FIRST_RETRY_S = 0.5

_NAMESPACE = UUID("6f1c2f0e-6f0c-4c8e-9d43-7a1f3f0b5a10")


class Ending(StrEnum):
    """``REFUSED``: the receiver does not want it, and would not later either."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long it is tried, and the longest pause between two attempts. ``once``: a question, whose first answer
    counts, whatever it is."""

    total_s: float
    longest_retry_s: float
    once: bool = False


async def attempted(
    attempt: Callable[[], Awaitable[tuple[int, str]]],
    patience: Patience,
    clock: Clock,
    said: Callable[[str], None],
) -> Ending:
    """``attempt`` gives a status of HTTP (0: none came) and words for people, which ``said`` is told each time. At
    least one attempt is made; cancelling it ends it between two or in the midst of one."""
    limit, wait = clock.monotonic() + patience.total_s, FIRST_RETRY_S
    while True:
        status, answer = await attempt()
        said(answer)
        if 200 <= status < 300:
            return Ending.DELIVERED
        # What the receiver refuses it will refuse again; all else may be mended by time.
        if patience.once or (400 <= status < 500 and status not in (408, 425, 429)):
            return Ending.REFUSED
        if clock.monotonic() + wait > limit:
            return Ending.GIVEN_UP
        await clock.sleep(wait)
        wait = min(patience.longest_retry_s, wait * 2)


def delivery_id(*parts: object) -> str:
    """The same for the same parts, on every replica and after every restart."""
    return str(uuid5(_NAMESPACE, "\n".join(map(str, parts))))
