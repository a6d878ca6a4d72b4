"""Who uses a version right now: a count, and a way to wait until nobody does."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Leases"]


class Leases:
    """A context manager that may be entered many times at once; each entry is one lease."""

    __slots__ = ("_count", "_none")

    def __init__(self) -> None:
        self._count = 0
        # Set when the last one ends; there only while somebody waits for that.
        self._none: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Leases {self._count}>"

    @property
    def count(self) -> int:
        return self._count

    async def ended(self) -> None:
        """Returns when nobody holds a lease."""
        while self._count:
            self._none = self._none or asyncio.Event()
            await self._none.wait()

    def __enter__(self) -> Self:
        self._count += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count -= 1
        if not self._count and self._none is not None:
            self._none.set()
            self._none = None
